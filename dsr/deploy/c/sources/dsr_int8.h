/* Kernels of integers: weights of 8 bits, currents of 32, potentials of 16. No sum overflows, which was proved when the
 * network was quantised. Values, and counts of spikes, are int16 [pixel][channel]. */
#ifndef dsr_int8_h
#define dsr_int8_h

#include "dsr_spikes.h"

/* A potential v becomes u = v decay / 2^15 + current (without a leak, decay = 2^15, v + current), cut off at +-32767; a
 * spike where u reaches fire[channel], from which reset[channel] is subtracted then. */
typedef struct {
    int32_t decay;
    const int16_t *reset, *fire;
} dsr_neurons;

/* A frame (C, H, W) as values: value * scale to the nearest integer, halves to even, cut off at +-most. */
void dsr_quantise(const float *frame, float scale, int32_t most, int32_t pixels, int32_t channels, int16_t *values);

void dsr_clear(int32_t *current, int32_t n);

void dsr_add(const int32_t *values, int32_t *current, int32_t n);

/* Adds sum 2^shift, to the nearest, halves up. */
void dsr_add_shifted(const int32_t *sum, int32_t shift, int32_t *current, int32_t n);

/* Adds the rows of weights that the spikes select. */
void dsr_convolve_spikes(const dsr_convolution *conv, const int8_t *weight, const uint32_t *image, int32_t y, int32_t x,
                         int32_t *sum);

/* Adds value times row, for all values but 0. */
void dsr_convolve_values(const dsr_convolution *conv, const int8_t *weight, const int16_t *image, int32_t y, int32_t x,
                         int32_t *sum);

/* Adds weight[c] for a spike of channel c. */
void dsr_add_spikes(const uint32_t *words, const int32_t *weight, int32_t *current, int32_t n);

void dsr_add_values(const int16_t *values, const int32_t *weight, int32_t *current, int32_t n);

/* Spikes, or values, become the values of a pixel. */
void dsr_put_bits(const uint32_t *from, int32_t n, int16_t *to);

void dsr_put_values(const int16_t *from, int32_t n, int16_t *to);

/* The number of spikes in the window. */
void dsr_count_pool(const dsr_windows *windows, const uint32_t *image, int32_t y, int32_t x, int16_t *to);

/* The values of all pixels of an image, as the vector (C, H, W). */
void dsr_flatten_values(const int16_t *from, int32_t pixels, int32_t channels, int16_t *to);

/* A step of the neurons of a pixel. */
void dsr_fire(const dsr_neurons *neurons, const int32_t *current, int16_t *v, int32_t n, uint32_t *words);

/* Sums of the read-out: of a current; and of spikes, where earlier ones are worth decay / 2^15 of what they were a step
 * before, if that is not 1, and a spike is worth 2^15. */
void dsr_read_current(const int32_t *current, int64_t *sums, int32_t n);

void dsr_read_spikes(const uint32_t *words, int32_t decay, int64_t *sums, int32_t n);

/* What a sum is with a spike at each step: its next value. */
int64_t dsr_next_sum(int64_t sum, int32_t decay, int fires);

#endif
