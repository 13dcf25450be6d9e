/* Pooling of one channel (or word of channels) of the lanes layout. */

/* The part of a window that lies in the image, [first, end) of both directions; empty where it does not reach it. */
typedef struct {
    size_t y0, y1, x0, x1;
} window;

/* Lanes of a window that are summed up at once. */
enum { POOLED_LANES = 32 };

static inline size_t window_first(size_t at, size_t padding) {
    return at > padding ? at - padding : 0;
}

static inline size_t window_end(size_t at, size_t kernel, size_t padding, size_t size) {
    size_t end = at + kernel > padding ? at + kernel - padding : 0;
    return end < size ? end : size;
}

static inline window window_of(const dsr_pool *pool, size_t y, size_t x) {
    size_t at_y = y * pool->stride_h, at_x = x * pool->stride_w;
    return (window){
        window_first(at_y, pool->padding_h), window_end(at_y, pool->kernel_h, pool->padding_h, pool->height),
        window_first(at_x, pool->padding_w), window_end(at_x, pool->kernel_w, pool->padding_w, pool->width)};
}

/* `n` lanes of a window, a number that the compiler knows: their sums stay in registers. */
static inline __attribute__((always_inline)) void avg_window(const float *input, float *out, window part,
                                                             const dsr_pool *pool, float divisor, size_t n) {
    float sum[POOLED_LANES];
    for (size_t l = 0; l < n; l++)
        sum[l] = 0;
    for (size_t y = part.y0; y < part.y1; y++)
        for (size_t x = part.x0; x < part.x1; x++) {
            const float *in = input + (y * pool->width + x) * pool->lanes;
            for (size_t l = 0; l < n; l++)
                sum[l] += in[l];
        }
    for (size_t l = 0; l < n; l++)
        out[l] = sum[l] / divisor;
}

static void avg_pool(const float *input, float *output, dsr_pool pool) {
    float divisor = (float)((double)pool.kernel_h * (double)pool.kernel_w);
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            float *out = output + (y * pool.out_width + x) * pool.lanes;
            size_t l = 0;
            for (; l + POOLED_LANES <= pool.lanes; l += POOLED_LANES)
                avg_window(input + l, out + l, part, &pool, divisor, POOLED_LANES);
            for (; l + 4 <= pool.lanes; l += 4)
                avg_window(input + l, out + l, part, &pool, divisor, 4);
            for (; l < pool.lanes; l++)
                avg_window(input + l, out + l, part, &pool, divisor, 1);
        }
}

static void avg_pool_backward(const float *grad_output, float *grad_input, dsr_pool pool) {
    float divisor = (float)((double)pool.kernel_h * (double)pool.kernel_w);
    for (size_t i = 0; i < pool.height * pool.width * pool.lanes; i++)
        grad_input[i] = 0;
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            const float *out = grad_output + (y * pool.out_width + x) * pool.lanes;
            for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                for (size_t in_x = part.x0; in_x < part.x1; in_x++) {
                    float *in = grad_input + (in_y * pool.width + in_x) * pool.lanes;
                    for (size_t l = 0; l < pool.lanes; l++)
                        in[l] += out[l] / divisor;
                }
        }
}

/* Spikes of each window counted, 32 channels at once: a ripple-carry counter whose digits are words. Plane k of the
 * output is `stride` words after plane k - 1. */
static void pool_planes(const uint32_t *words, uint32_t *planes, size_t count, size_t stride, dsr_pool pool) {
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            uint32_t *out = planes + (y * pool.out_width + x) * pool.lanes;
            for (size_t k = 0; k < count; k++)
                for (size_t l = 0; l < pool.lanes; l++)
                    out[k * stride + l] = 0;
            for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                for (size_t in_x = part.x0; in_x < part.x1; in_x++) {
                    const uint32_t *in = words + (in_y * pool.width + in_x) * pool.lanes;
                    for (size_t l = 0; l < pool.lanes; l++) {
                        uint32_t carry = in[l];
                        for (size_t k = 0; k < count; k++) {
                            uint32_t digit = out[k * stride + l];
                            out[k * stride + l] = digit ^ carry;
                            carry &= digit;
                        }
                    }
                }
        }
}

/* Of equal elements the first is the largest; a NaN is the largest if it is the first element, and never otherwise. */
static void max_pool(const float *input, float *output, dsr_pool pool) {
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            float *out = output + (y * pool.out_width + x) * pool.lanes;
            for (size_t l = 0; l < pool.lanes; l++)
                out[l] = 0;
            int first = 1;
            for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                for (size_t in_x = part.x0; in_x < part.x1; in_x++, first = 0) {
                    const float *in = input + (in_y * pool.width + in_x) * pool.lanes;
                    for (size_t l = 0; l < pool.lanes; l++)
                        out[l] = (first | (in[l] > out[l])) ? in[l] : out[l];
                }
        }
}

/* The place of the largest element within its window, and then the gradient to it, a chunk of lanes at a time. */
static void max_pool_backward(const float *grad_output, const float *input, float *grad_input, dsr_pool pool) {
    for (size_t i = 0; i < pool.height * pool.width * pool.lanes; i++)
        grad_input[i] = 0;
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            const float *out = grad_output + (y * pool.out_width + x) * pool.lanes;
            for (size_t at = 0; at < pool.lanes; at += DSR_CHUNK) {
                size_t n = pool.lanes - at < DSR_CHUNK ? pool.lanes - at : DSR_CHUNK;
                float largest[DSR_CHUNK];
                uint32_t place[DSR_CHUNK], number = 0;
                for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                    for (size_t in_x = part.x0; in_x < part.x1; in_x++, number++) {
                        const float *in = input + (in_y * pool.width + in_x) * pool.lanes + at;
                        if (number == 0)
                            for (size_t l = 0; l < n; l++) {
                                largest[l] = in[l];
                                place[l] = 0;
                            }
                        else
                            for (size_t l = 0; l < n; l++) {
                                int larger = in[l] > largest[l];
                                largest[l] = larger ? in[l] : largest[l];
                                place[l] = larger ? number : place[l];
                            }
                    }
                number = 0;
                for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                    for (size_t in_x = part.x0; in_x < part.x1; in_x++, number++) {
                        float *in = grad_input + (in_y * pool.width + in_x) * pool.lanes + at;
                        for (size_t l = 0; l < n; l++)
                            in[l] += place[l] == number ? out[at + l] : 0;
                    }
            }
        }
}

static void or_pool(const uint32_t *words, uint32_t *output, dsr_pool pool) {
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            uint32_t *out = output + (y * pool.out_width + x) * pool.lanes;
            for (size_t l = 0; l < pool.lanes; l++)
                out[l] = 0;
            for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                for (size_t in_x = part.x0; in_x < part.x1; in_x++) {
                    const uint32_t *in = words + (in_y * pool.width + in_x) * pool.lanes;
                    for (size_t l = 0; l < pool.lanes; l++)
                        out[l] |= in[l];
                }
        }
}
