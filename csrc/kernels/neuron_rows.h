/* Neurons on rows (rows.h): the 32 channels of a word side by side, so that a step of 32 neurons writes one word and
 * their potentials stay in registers. For a convolution whose current nothing else needs.
 *
 * Checked in the machine code (gcc 12, AVX2, AVX-512 and NEON): no potential is spilled; on x86 bias, scale and shift
 * are memory operands. Instructions per step of 32 IF neurons with a shortcut: AVX2 89, NEON 171 (without: 116).
 *
 * The same arithmetic in the same order as rows_to_lanes, add_words and neuron_spikes one after the other: the same
 * bits. */

typedef int32_t row_mask __attribute__((vector_size(ROW_LANES * 4), may_alias));

static inline row_mask lane_bits(void) {
    row_mask bits;
    for (int i = 0; i < ROW_LANES; i++)
        bits[i] = 1 << i;
    return bits;
}

/* The word of a step grows by vector k, whose lanes are -1 where there is a spike, else 0. x86 has an instruction that
 * makes bits of a mask. Elsewhere each lane gathers its bits, and lanes are put together at the end of a word. */
#if defined(__x86_64__)
typedef uint32_t word_bits;

static inline uint32_t mask_bits(row_mask mask) {
    #if VECTOR_BYTES == 64
    typedef int ints __attribute__((vector_size(64)));
    return (uint16_t)__builtin_ia32_cvtd2mask512((ints)mask);
    #elif VECTOR_BYTES == 32
    typedef float floats __attribute__((vector_size(32)));
    return (uint32_t)__builtin_ia32_movmskps256((floats)mask);
    #else
    typedef float floats __attribute__((vector_size(16)));
    return (uint32_t)__builtin_ia32_movmskps((floats)mask);
    #endif
}

static inline word_bits add_bits(word_bits word, row_mask fires, int k) {
    return word | mask_bits(fires) << (k * ROW_LANES);
}

static inline uint32_t word_of(word_bits word) {
    return word;
}
#else
typedef row_mask word_bits;

static inline word_bits add_bits(word_bits word, row_mask fires, int k) {
    return word | (fires & (lane_bits() << (k * ROW_LANES)));
}

static inline uint32_t word_of(word_bits word) {
    #ifdef WORD_OF_LANES
    return WORD_OF_LANES(word);
    #else
    uint32_t bits = 0;
    for (int i = 0; i < ROW_LANES; i++)
        bits |= (uint32_t)word[i];
    return bits;
    #endif
}
#endif

#define SELECT_ROW(fires, value) ((row_vector)((row_mask)((value) - (row_vector){0}) & (fires)))

/* The numbers of a step where each channel has a threshold of its own. */
typedef struct {
    float decay, gain, levels;
    row_vector v_threshold, fire;
} row_numbers;

static inline __attribute__((always_inline)) void run_rows(const float *sums, uint32_t *words, float *weighted,
                                                           size_t timesteps, size_t n, size_t stride,
                                                           const dsr_row_current *current, const dsr_neuron *neuron,
                                                           int leaky, int own, int summed, int graded) {
    const step_numbers_f32 numbers = numbers_of_f32(neuron);
    const row_vector *bias = (const row_vector *)current->bias, *scale = (const row_vector *)current->scale;
    const row_vector *shift = (const row_vector *)current->shift;
    const row_mask each = lane_bits();
    const row_vector *shortcut_amplitude = (const row_vector *)current->shortcut_amplitude;
    const row_vector *v_threshold = (const row_vector *)current->v_threshold;
    const row_vector *fire = (const row_vector *)current->fire;
    const float amplitude = current->amplitude, *weights = current->weights;
    row_vector *potentials = (row_vector *)current->potentials;
    const size_t planes = graded ? dsr_planes(neuron) : 1, pitch = current->one_step ? 0 : n;
    for (size_t i = 0; i < n; i++) {
        row_vector v[ROW_VECTORS], total[ROW_VECTORS];
        for (int k = 0; k < ROW_VECTORS; k++)
            v[k] = potentials ? potentials[i * ROW_VECTORS + (size_t)k] : (row_vector){0}, total[k] = (row_vector){0};
        for (size_t t = 0; t < timesteps; t++) {
            const row_vector *sum = (const row_vector *)(sums + (t * pitch + i) * DSR_ROW);
            word_bits word = {0}, digits[DSR_MOST_PLANES];
            for (size_t plane = 0; plane < planes; plane++)
                digits[plane] = word;
            uint32_t added = current->shortcut ? current->shortcut[t * stride + i] : 0;
            for (int k = 0; k < ROW_VECTORS; k++) {
                row_vector x = amplitude * sum[k] + bias[k];
                if (current->shortcut) {
                    row_mask set = ((int32_t)(added >> (k * ROW_LANES)) & each) != 0;
                    x += SELECT_ROW(set, shortcut_amplitude[k]);
                }
                if (summed)
                    total[k] += weights[t] * x;
                x = scale[k] * x + shift[k];
                row_mask fires;
                if (graded) {
                    row_numbers channels = {numbers.decay, numbers.gain, numbers.levels,
                                            numbers.v_threshold - (row_vector){0}, numbers.fire - (row_vector){0}};
                    if (own) {
                        channels.v_threshold = v_threshold[k];
                        channels.fire = fire[k];
                    }
                    row_vector u = numbers.decay * v[k] + numbers.gain * x, count = {0};
                    for (size_t plane = planes; plane--;) {
                        GRADED_DIGIT(channels, u, count, (float)(1 << plane), fires, SELECT_ROW);
                        digits[plane] = add_bits(digits[plane], fires, k);
                    }
                    v[k] = u - count * channels.v_threshold;
                    continue;
                }
                if (own) {
                    const row_numbers channels = {numbers.decay, numbers.gain, 1, v_threshold[k], fire[k]};
                    NEURON_STEP(leaky, channels, v[k], x, fires, SELECT_ROW);
                } else
                    NEURON_STEP(leaky, numbers, v[k], x, fires, SELECT_ROW);
                word = add_bits(word, fires, k);
            }
            if (!graded)
                words[t * stride + i] = word_of(word) & current->exists;
            for (size_t plane = 0; graded && plane < planes; plane++)
                words[plane * current->plane + t * stride + i] = word_of(digits[plane]) & current->exists;
        }
        for (int k = 0; potentials && k < ROW_VECTORS; k++) {
            row_mask exists = ((int32_t)(current->exists >> (k * ROW_LANES)) & each) != 0;
            potentials[i * ROW_VECTORS + (size_t)k] = SELECT_ROW(exists, v[k]);
        }
        if (summed)
            memcpy(weighted + i * DSR_ROW, total, sizeof total);
    }
}

/* weighted: n rows, with weights only. */
static void neuron_rows(const float *sums, uint32_t *words, float *weighted, size_t timesteps, size_t n, size_t stride,
                        const dsr_row_current *current, const dsr_neuron *neuron) {
#define RUN_ROWS(leaky, own, summed, graded)                                                                           \
    run_rows(sums, words, weighted, timesteps, n, stride, current, neuron, leaky, own, summed, graded)
#define RUN_ROWS_OF(leaky, own, graded)                                                                                \
    do {                                                                                                               \
        if (current->weights)                                                                                          \
            RUN_ROWS(leaky, own, 1, graded);                                                                           \
        else                                                                                                           \
            RUN_ROWS(leaky, own, 0, graded);                                                                           \
    } while (0)
    if (neuron->levels > 1 && current->v_threshold)
        RUN_ROWS_OF(1, 1, 1);
    else if (neuron->levels > 1)
        RUN_ROWS_OF(1, 0, 1);
    else if (is_leaky(neuron) && current->v_threshold)
        RUN_ROWS_OF(1, 1, 0);
    else if (is_leaky(neuron))
        RUN_ROWS_OF(1, 0, 0);
    else if (current->v_threshold)
        RUN_ROWS_OF(0, 1, 0);
    else
        RUN_ROWS_OF(0, 0, 0);
#undef RUN_ROWS_OF
#undef RUN_ROWS
}

/* Rows without neurons: total[i] = the sum over t of weights[t] * (amplitude * sum + shortcut), n rows. */
static void sum_steps(const float *sums, float *total, size_t timesteps, size_t n, size_t stride,
                      const dsr_row_current *current) {
    const row_mask each = lane_bits();
    const row_vector *shortcut_amplitude = (const row_vector *)current->shortcut_amplitude;
    const float amplitude = current->amplitude;
    for (size_t i = 0; i < n; i++) {
        row_vector sum[ROW_VECTORS];
        for (int k = 0; k < ROW_VECTORS; k++)
            sum[k] = (row_vector){0};
        for (size_t t = 0; t < timesteps; t++) {
            const row_vector *row = (const row_vector *)(sums + (t * n + i) * DSR_ROW);
            uint32_t added = current->shortcut ? current->shortcut[t * stride + i] : 0;
            for (int k = 0; k < ROW_VECTORS; k++) {
                row_vector x = amplitude * row[k];
                if (current->shortcut) {
                    row_mask set = ((int32_t)(added >> (k * ROW_LANES)) & each) != 0;
                    x += SELECT_ROW(set, shortcut_amplitude[k]);
                }
                sum[k] += current->weights[t] * x;
            }
        }
        memcpy(total + i * DSR_ROW, sum, sizeof sum);
    }
}
