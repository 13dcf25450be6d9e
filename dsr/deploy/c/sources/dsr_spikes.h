/* Where the taps of windows fall, and what is done with spikes as bits.
 *
 * An image of spikes is [pixel][word]: pixels row by row, 32 channels a word, channel c being bit c % 32 of word c / 32
 * of its pixel. All functions work at one output pixel, (y, x). */
#ifndef dsr_spikes_h
#define dsr_spikes_h

#include <stdint.h>

/* One direction of windows over an image: tap k of output i reads place i * stride + k * dilation of a line in which
 * pixel j lies at place before + j * spread. A spread other than 1 makes a transposed convolution. */
typedef struct {
    int32_t size, taps, stride, dilation, spread, before;
} dsr_axis;

/* Windows over an image of so many channels. */
typedef struct {
    dsr_axis y, x;
    int32_t channels;
} dsr_windows;

/* A convolution: each of the equal groups of output channels sees its group of input channels alone. Weights are
 * [tap][input channel][output channel of the group]. */
typedef struct {
    dsr_windows windows;
    int32_t group_in, group_out;
} dsr_convolution;

static inline int32_t dsr_words(int32_t channels) {
    return (channels + 31) / 32;
}

static inline int dsr_spike(const uint32_t *words, int32_t channel) {
    return (int)(words[channel / 32] >> (channel % 32) & 1u);
}

static inline int32_t dsr_taps(const dsr_windows *windows) {
    return windows->y.taps * windows->x.taps;
}

/* The pixel that a tap of the window at (y, x) reads; -1: none. */
int32_t dsr_window_pixel(const dsr_windows *windows, int32_t y, int32_t x, int32_t tap);

void dsr_silence(uint32_t *words, int32_t channels);

/* The spikes of `from` become those of channels first, first + 1, ... of `to`. */
void dsr_put_spikes(const uint32_t *from, int32_t channels, int32_t first, uint32_t *to);

/* The spikes of all pixels of an image, as the vector (C, H, W). */
void dsr_flatten_spikes(const uint32_t *from, int32_t pixels, int32_t channels, uint32_t *to);

/* A spike where there is one in the window. */
void dsr_or_pool(const dsr_windows *windows, const uint32_t *from, int32_t y, int32_t x, uint32_t *to);

/* The spikes where `gate` fires (1) or does not (0). */
void dsr_gate_spikes(const uint32_t *from, const uint32_t *gate, int fires, int32_t channels, uint32_t *to);

#endif
