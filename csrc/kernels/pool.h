/* Pooling of one channel (or word of channels) of the lanes layout. A window outside the image counts as zeros. */

/* The part of a window that lies in the image, [first, end) of both directions; empty where it does not reach it. */
typedef struct {
    size_t y0, y1, x0, x1;
} window;

static inline size_t window_first(size_t at, size_t padding) {
    return at > padding ? at - padding : 0;
}

static inline size_t window_end(size_t at, size_t kernel, size_t padding, size_t size) {
    size_t end = at + kernel > padding ? at + kernel - padding : 0;
    return end < size ? end : size;
}

static inline window window_of(const dsr_pool *pool, size_t y, size_t x) {
    size_t at_y = y * pool->stride, at_x = x * pool->stride;
    return (window){window_first(at_y, pool->padding), window_end(at_y, pool->kernel, pool->padding, pool->height),
                    window_first(at_x, pool->padding), window_end(at_x, pool->kernel, pool->padding, pool->width)};
}

static void avg_pool(const float *input, float *output, dsr_pool pool) {
    float divisor = (float)((double)pool.kernel * (double)pool.kernel);
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            window part = window_of(&pool, y, x);
            float *out = output + (y * pool.out_width + x) * pool.lanes;
            for (size_t l = 0; l < pool.lanes; l++)
                out[l] = 0;
            for (size_t in_y = part.y0; in_y < part.y1; in_y++)
                for (size_t in_x = part.x0; in_x < part.x1; in_x++) {
                    const float *in = input + (in_y * pool.width + in_x) * pool.lanes;
                    for (size_t l = 0; l < pool.lanes; l++)
                        out[l] += in[l];
                }
            for (size_t l = 0; l < pool.lanes; l++)
                out[l] /= divisor;
        }
}

static void avg_pool_backward(const float *grad_output, float *grad_input, dsr_pool pool) {
    float divisor = (float)((double)pool.kernel * (double)pool.kernel);
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
