/* Spikes of the lanes layout: neurons that write bits, and what is done with bits. A word holds 32 channels. */

enum { SPIKE_LANES = VECTOR_BYTES / 4 };
typedef float spike_floats __attribute__((vector_size(SPIKE_LANES * 4), may_alias, aligned(4)));
typedef int32_t spike_masks __attribute__((vector_size(SPIKE_LANES * 4), may_alias, aligned(4)));

#define SELECT_LANES(fires, value) ((spike_floats)((spike_masks)((value) - (spike_floats){0}) & (fires)))

/* One channel and pixel: SPIKE_LANES samples at a time, whose potentials and sums stay in registers over all steps.
 * (Arrays of potentials in the first cache instead: 1.6 times as slow.) `weighted` NULL: without the second sum. */
static inline __attribute__((always_inline)) void neuron_lanes(const float *current, uint32_t *words, float *sums,
                                                               float *weighted, const dsr_strip *strip,
                                                               const dsr_neuron *neuron, float scale, float shift,
                                                               uint32_t bit, int leaky, int two_sums, int graded) {
    const step_numbers_f32 numbers = numbers_of_f32(neuron);
    const float *weights = strip->weights;
    const size_t planes = graded ? dsr_planes(neuron) : 1;
    size_t batch = strip->batch, step = strip->one_step ? 0 : batch, b = 0;
    spike_masks bits = (int32_t)bit - (spike_masks){0};
    for (; b + SPIKE_LANES <= batch; b += SPIKE_LANES) {
        spike_floats v = {0}, sum = {0}, other = {0};
        for (size_t t = 0; t < strip->timesteps; t++) {
            spike_floats x = *(const spike_floats *)(current + t * step + b), input = scale * x + shift;
            spike_masks fires;
            if (graded) {
                spike_floats u = numbers.decay * v + numbers.gain * input, k = {0};
                for (size_t plane = planes; plane--;) {
                    GRADED_DIGIT(numbers, u, k, (float)(1 << plane), fires, SELECT_LANES);
                    *(spike_masks *)(words + plane * strip->plane + t * batch + b) |= fires & bits;
                }
                v = u - k * numbers.v_threshold;
            } else
                NEURON_STEP(leaky, numbers, v, input, fires, SELECT_LANES);
            /* the same place of the next pixel: with 128 samples the T streams are too far apart for the processor's
             * own prefetching, and without this it takes twice as long */
            __builtin_prefetch(current + t * step + b + strip->timesteps * batch);
            sum += x;
            if (two_sums)
                other += weights[t] * x;
            if (!graded)
                *(spike_masks *)(words + t * batch + b) |= fires & bits;
        }
        *(spike_floats *)(sums + b) = sum;
        if (two_sums)
            *(spike_floats *)(weighted + b) = other;
    }
    for (; b < batch; b++) {
        float v = 0, sum = 0, other = 0;
        for (size_t t = 0; t < strip->timesteps; t++) {
            float x = current[t * step + b], input = scale * x + shift;
            int fires;
            if (graded) {
                float u = numbers.decay * v + numbers.gain * input, k = 0;
                for (size_t plane = planes; plane--;) {
                    GRADED_DIGIT(numbers, u, k, (float)(1 << plane), fires, SELECT_NUMBER);
                    words[plane * strip->plane + t * batch + b] |= fires ? bit : 0;
                }
                v = u - k * numbers.v_threshold;
            } else
                NEURON_STEP(leaky, numbers, v, input, fires, SELECT_NUMBER);
            sum += x;
            if (two_sums)
                other += weights[t] * x;
            if (!graded)
                words[t * batch + b] |= fires ? bit : 0;
        }
        sums[b] = sum;
        if (two_sums)
            weighted[b] = other;
    }
}

static inline __attribute__((always_inline)) void neuron_strip(const float *current, uint32_t *words, float *sums,
                                                               float *weighted, const dsr_strip *strip,
                                                               const dsr_neuron *neuron, int leaky, int two_sums,
                                                               int graded) {
    size_t batch = strip->batch, lanes = strip->timesteps * batch;
    for (size_t plane = 0; plane < (graded ? dsr_planes(neuron) : 1); plane++)
        for (size_t i = 0; i < strip->pixels * lanes; i++)
            words[plane * strip->plane + i] = 0;
    for (size_t c = 0; c < strip->channels; c++) {
        float scale = strip->scale ? strip->scale[c] : 1, shift = strip->shift ? strip->shift[c] : 0;
        const dsr_neuron own = dsr_neuron_of(neuron, strip->thresholds, c);
        for (size_t p = 0; p < strip->pixels; p++) {
            size_t at = c * strip->sum_stride + p * batch;
            neuron_lanes(current + c * strip->stride + p * (strip->one_step ? batch : lanes), words + p * lanes,
                         sums + at, two_sums ? weighted + at : NULL, strip, &own, scale, shift, (uint32_t)1 << c, leaky,
                         two_sums, graded);
        }
    }
}

/* The strip is a copy, which no store to words can change: its sizes stay in registers (1.2 times as fast). */
static void neuron_spikes(const float *current, uint32_t *words, float *sums, float *weighted, dsr_strip strip,
                          const dsr_neuron *neuron) {
    if (neuron->levels > 1 && strip.weights)
        neuron_strip(current, words, sums, weighted, &strip, neuron, 1, 1, 1);
    else if (neuron->levels > 1)
        neuron_strip(current, words, sums, NULL, &strip, neuron, 1, 0, 1);
    else if (is_leaky(neuron) && strip.weights)
        neuron_strip(current, words, sums, weighted, &strip, neuron, 1, 1, 0);
    else if (is_leaky(neuron))
        neuron_strip(current, words, sums, NULL, &strip, neuron, 1, 0, 0);
    else if (strip.weights)
        neuron_strip(current, words, sums, weighted, &strip, neuron, 0, 1, 0);
    else
        neuron_strip(current, words, sums, NULL, &strip, neuron, 0, 0, 0);
}

/* A bit is set where the value is not zero. `channels` <= 32 rows, `stride` apart. */
static void pack_words(const float *values, uint32_t *words, size_t channels, size_t n, size_t stride) {
    for (size_t i = 0; i < n; i++)
        words[i] = 0;
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < n; i++)
            words[i] |= (uint32_t)(values[c * stride + i] != 0) << c;
}

static void unpack_words(const uint32_t *words, float *values, size_t channels, size_t n, size_t stride,
                         const float *amplitude) {
    for (size_t c = 0; c < channels; c++) {
        float height = amplitude[c];
        for (size_t i = 0; i < n; i++)
            values[c * stride + i] = words[i] >> c & 1 ? height : 0;
    }
}

/* values += amplitude * bit. */
static void add_words(const uint32_t *words, float *values, size_t channels, size_t n, size_t stride,
                      const float *amplitude) {
    for (size_t c = 0; c < channels; c++) {
        float height = amplitude[c];
        for (size_t i = 0; i < n; i++)
            values[c * stride + i] += words[i] >> c & 1 ? height : 0;
    }
}

/* Bits that are set, by adding neighbours: vectorises where there is no instruction for it. n < 2^27. */
static uint64_t count_bits(const uint32_t *words, size_t n) {
    uint32_t total = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t x = words[i];
        x -= x >> 1 & 0x55555555u;
        x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
        x = (x + (x >> 4)) & 0x0f0f0f0fu;
        total += x * 0x01010101u >> 24;
    }
    return total;
}

/* counts[c] += number of words whose bit c is set. */
static void count_words(const uint32_t *words, int64_t *counts, size_t channels, size_t n) {
    for (size_t c = 0; c < channels; c++) {
        uint32_t count = 0;
        for (size_t i = 0; i < n; i++)
            count += words[i] >> c & 1;
        counts[c] += count;
    }
}

/* Bit i of the stream of uniform numbers decides on bit i: 32 numbers per word, number 32 i + c for bit c of word i. */
static void dropout_words(const uint32_t *words, uint32_t *kept, size_t n, uint64_t first, uint64_t seed, double keep) {
    for (size_t i = 0; i < n; i++) {
        uint32_t number[32], mask = 0;
        random_words(32 * (first + i), seed, number, 32);
        for (size_t c = 0; c < 32; c++)
            mask |= (uint32_t)((double)number[c] * 0x1p-32 < keep) << c;
        kept[i] = words[i] & mask;
    }
}

/* Numbers, 32 channels at once, added up over the steps: plane j of a step holds bit j of its numbers, digit k of the
 * output bit k of the sums, [digits][batch]. A ripple-carry counter as in pool_planes, lanes side by side. `stride` is
 * the distance from plane to plane. */
static void count_steps(const uint32_t *words, uint32_t *sums, size_t planes, size_t stride, size_t digits,
                        size_t timesteps, size_t batch) {
    for (size_t first = 0; first < batch; first += DSR_CHUNK) {
        size_t n = batch - first < DSR_CHUNK ? batch - first : DSR_CHUNK;
        uint32_t carry[DSR_CHUNK];
        for (size_t k = 0; k < digits; k++)
            for (size_t b = 0; b < n; b++)
                sums[k * batch + first + b] = 0;
        for (size_t t = 0; t < timesteps; t++)
            for (size_t j = 0; j < planes; j++) {
                const uint32_t *in = words + j * stride + t * batch + first;
                for (size_t b = 0; b < n; b++)
                    carry[b] = in[b];
                for (size_t k = j; k < digits; k++) {
                    uint32_t *digit = sums + k * batch + first;
                    for (size_t b = 0; b < n; b++) {
                        uint32_t before = digit[b];
                        digit[b] = before ^ carry[b];
                        carry[b] &= before;
                    }
                }
            }
    }
}

/* Word l of n <= 32 lanes, 32 channels each, becomes bit l of 32 words, one per channel, zeros beyond n. The matrix of
 * 32 x 32 bits is transposed by halves: blocks of 16, 8, 4, 2 and 1 swap across the diagonal. */
static void transpose_words(const uint32_t *words, uint32_t *channels, size_t n) {
    uint32_t m[32];
    for (size_t l = 0; l < 32; l++)
        m[l] = l < n ? words[l] : 0;
    uint32_t mask = 0x0000ffff;
    for (size_t half = 16; half; half /= 2, mask ^= mask << half)
        for (size_t i = 0; i < 32; i += 2 * half)
            for (size_t j = i; j < i + half; j++) {
                uint32_t swap = (m[j] >> half ^ m[j + half]) & mask;
                m[j + half] ^= swap;
                m[j] ^= swap << half;
            }
    for (size_t c = 0; c < 32; c++)
        channels[c] = m[c];
}
