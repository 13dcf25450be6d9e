/* Neurons on rows (rows.h): the 32 channels of a word side by side, so that a step of 32 neurons writes one word and
 * their potentials stay in registers. For the end of a convolution whose current nobody else needs.
 *
 * Looked at (gcc 12, AVX2 and AVX-512): nothing is spilled; bias, scale and shift are memory operands.
 *
 * The same arithmetic in the same order as rows_to_lanes, add_words and if_spikes or lif_spikes one after the other:
 * the same bits. */

typedef int32_t row_mask __attribute__((vector_size(ROW_LANES * 4), may_alias));

/* Bit i is set where lane i of the mask is not zero (it is -1 then). */
static inline uint32_t mask_bits(row_mask mask) {
#if defined(__AVX512DQ__)
    typedef int ints __attribute__((vector_size(64)));
    return (uint16_t)__builtin_ia32_cvtd2mask512((ints)mask);
#elif defined(__AVX__)
    typedef float floats __attribute__((vector_size(32)));
    return (uint32_t)__builtin_ia32_movmskps256((floats)mask);
#elif defined(__SSE__)
    typedef float floats __attribute__((vector_size(16)));
    return (uint32_t)__builtin_ia32_movmskps((floats)mask);
#else
    uint32_t bits = 0;
    for (int i = 0; i < ROW_LANES; i++)
        bits |= (uint32_t)(mask[i] != 0) << i;
    return bits;
#endif
}

static inline row_mask lane_bits(void) {
    row_mask bits;
    for (int i = 0; i < ROW_LANES; i++)
        bits[i] = 1 << i;
    return bits;
}

static inline __attribute__((always_inline)) void neuron_rows(const float *sums, uint32_t *words, size_t timesteps,
                                                              size_t n, size_t stride, const dsr_row_neuron *neuron,
                                                              int leaky) {
    const row_vector *bias = (const row_vector *)neuron->bias, *scale = (const row_vector *)neuron->scale;
    const row_vector *shift = (const row_vector *)neuron->shift;
    const row_mask each = lane_bits();
    const float amplitude = neuron->amplitude, fire = neuron->fire, decay = neuron->decay, gain = neuron->gain;
    const row_vector v_threshold = neuron->v_threshold - (row_vector){0};
    const row_vector step = neuron->shortcut_amplitude - (row_vector){0};
    for (size_t i = 0; i < n; i++) {
        row_vector v[ROW_VECTORS];
        for (int k = 0; k < ROW_VECTORS; k++)
            v[k] = (row_vector){0};
        for (size_t t = 0; t < timesteps; t++) {
            const row_vector *sum = (const row_vector *)(sums + (t * n + i) * DSR_ROW);
            uint32_t word = 0, added = neuron->shortcut ? neuron->shortcut[t * stride + i] : 0;
            for (int k = 0; k < ROW_VECTORS; k++) {
                row_vector x = amplitude * sum[k] + bias[k];
                if (neuron->shortcut) {
                    row_mask set = ((int32_t)(added >> (k * ROW_LANES)) & each) != 0;
                    x += (row_vector)((row_mask)step & set);
                }
                x = scale[k] * x + shift[k];
                row_vector u = leaky ? decay * v[k] + gain * x : v[k] + x;
                row_mask fires = u >= fire;
                v[k] = u - (row_vector)((row_mask)v_threshold & fires);
                word |= mask_bits(fires) << (k * ROW_LANES);
            }
            words[t * stride + i] = word & neuron->exists;
        }
    }
}

static void if_rows(const float *sums, uint32_t *words, size_t timesteps, size_t n, size_t stride,
                    const dsr_row_neuron *neuron) {
    neuron_rows(sums, words, timesteps, n, stride, neuron, 0);
}

static void lif_rows(const float *sums, uint32_t *words, size_t timesteps, size_t n, size_t stride,
                     const dsr_row_neuron *neuron) {
    neuron_rows(sums, words, timesteps, n, stride, neuron, 1);
}
