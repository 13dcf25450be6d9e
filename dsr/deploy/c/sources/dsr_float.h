/* Kernels of float32. The order of each sum is fixed: with IEEE arithmetic and without contraction of a * b + c
 * (-ffp-contract=off) the bits are the same with every compiler. */
#ifndef dsr_float_h
#define dsr_float_h

#include "dsr_spikes.h"

/* IF: decay = gain = 1. A spike where u = decay v + gain current reaches `fire`; then v_threshold is subtracted.
 * Numbers of all channels, or [channel] where each has its own. */
typedef struct {
    float decay, gain;
    const float *v_threshold, *fire;
    int32_t each; /* 1: a threshold for each channel; 0: one for all */
} dsr_neurons;

void dsr_clear(float *current, int32_t n);

void dsr_add(const float *values, float *current, int32_t n);

void dsr_scale_all(float factor, float *values, int32_t n);

void dsr_count_spikes(const uint32_t *words, float *counts, int32_t n);

void dsr_scale(const float *factor, float *current, int32_t n);

/* A spike of channel c is worth amplitude[c * each]. */
void dsr_add_spikes(const uint32_t *words, const float *amplitude, int32_t each, float *current, int32_t n);

/* Adds the rows of weights that the spikes select. */
void dsr_convolve_spikes(const dsr_convolution *conv, const float *weight, const uint32_t *image, int32_t y, int32_t x,
                         float *current);

/* Adds value times row, for all values but 0. Channel c of a pixel is image[pixel * pixel_step + c * channel_step]. */
void dsr_convolve_values(const dsr_convolution *conv, const float *weight, const float *image, int32_t pixel_step,
                         int32_t channel_step, int32_t y, int32_t x, float *current);

/* Adds the values of a pixel. */
void dsr_add_values(const float *values, int32_t channel_step, float *current, int32_t n);

void dsr_add_scaled(const float *factor, const float *values, int32_t channel_step, float *current, int32_t n);

/* Adds the mean over the window, in which what lies beyond the image counts as 0. */
void dsr_mean_spikes(const dsr_windows *windows, const float *amplitude, int32_t each, const uint32_t *image, int32_t y,
                     int32_t x, float *current);

void dsr_mean_values(const dsr_windows *windows, const float *image, int32_t pixel_step, int32_t channel_step,
                     int32_t y, int32_t x, float *current);

/* Adds the largest value of the window, in which there is nothing beyond the image. */
void dsr_largest_values(const dsr_windows *windows, const float *image, int32_t pixel_step, int32_t channel_step,
                        int32_t y, int32_t x, float *current);

/* All pixels of an image as the vector (C, H, W). */
void dsr_flatten_values(const float *image, int32_t pixel_step, int32_t channel_step, int32_t pixels, int32_t channels,
                        float *current);

/* A step of the neurons of a pixel. */
void dsr_fire(const dsr_neurons *neurons, const float *current, float *v, int32_t n, uint32_t *words);

#endif
