/* Average pooling of one channel of the lanes layout. A window outside the image counts as zeros. */

static void avg_pool(const float *input, float *output, dsr_pool pool) {
    float divisor = (float)(pool.kernel * pool.kernel);
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            float *out = output + (y * pool.out_width + x) * pool.lanes;
            for (size_t l = 0; l < pool.lanes; l++)
                out[l] = 0;
            for (size_t dy = 0; dy < pool.kernel; dy++)
                for (size_t dx = 0; dx < pool.kernel; dx++) {
                    /* unsigned: a row above the image wraps to a large number and is skipped too */
                    size_t from_y = y * pool.stride + dy - pool.padding, from_x = x * pool.stride + dx - pool.padding;
                    if (from_y >= pool.height || from_x >= pool.width)
                        continue;
                    const float *in = input + (from_y * pool.width + from_x) * pool.lanes;
                    for (size_t l = 0; l < pool.lanes; l++)
                        out[l] += in[l];
                }
            for (size_t l = 0; l < pool.lanes; l++)
                out[l] /= divisor;
        }
}

static void avg_pool_backward(const float *grad_output, float *grad_input, dsr_pool pool) {
    float divisor = (float)(pool.kernel * pool.kernel);
    for (size_t i = 0; i < pool.height * pool.width * pool.lanes; i++)
        grad_input[i] = 0;
    for (size_t y = 0; y < pool.out_height; y++)
        for (size_t x = 0; x < pool.out_width; x++) {
            const float *out = grad_output + (y * pool.out_width + x) * pool.lanes;
            for (size_t dy = 0; dy < pool.kernel; dy++)
                for (size_t dx = 0; dx < pool.kernel; dx++) {
                    size_t to_y = y * pool.stride + dy - pool.padding, to_x = x * pool.stride + dx - pool.padding;
                    if (to_y >= pool.height || to_x >= pool.width)
                        continue;
                    float *in = grad_input + (to_y * pool.width + to_x) * pool.lanes;
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
            uint32_t *out = planes + (y * pool.out_width + x) * pool.lanes;
            for (size_t k = 0; k < count; k++)
                for (size_t l = 0; l < pool.lanes; l++)
                    out[k * stride + l] = 0;
            for (size_t dy = 0; dy < pool.kernel; dy++)
                for (size_t dx = 0; dx < pool.kernel; dx++) {
                    size_t from_y = y * pool.stride + dy - pool.padding, from_x = x * pool.stride + dx - pool.padding;
                    if (from_y >= pool.height || from_x >= pool.width)
                        continue;
                    const uint32_t *in = words + (from_y * pool.width + from_x) * pool.lanes;
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
