#include "dsr_spikes.h"

/* The pixel along one direction; -1: none. */
static int32_t find_pixel(const dsr_axis *axis, int32_t output, int32_t tap) {
    int32_t place = output * axis->stride + tap * axis->dilation - axis->before;
    if (place < 0 || place % axis->spread != 0)
        return -1;
    place /= axis->spread;
    return place < axis->size ? place : -1;
}

int32_t dsr_window_pixel(const dsr_windows *windows, int32_t y, int32_t x, int32_t tap) {
    const int32_t row = find_pixel(&windows->y, y, tap / windows->x.taps);
    const int32_t column = find_pixel(&windows->x, x, tap % windows->x.taps);
    return row < 0 || column < 0 ? -1 : row * windows->x.size + column;
}

void dsr_silence(uint32_t *words, int32_t channels) {
    for (int32_t w = 0; w < dsr_words(channels); w++)
        words[w] = 0;
}

static void put(uint32_t *words, int32_t channel, int fires) {
    words[channel / 32] |= (uint32_t)fires << (channel % 32);
}

void dsr_put_spikes(const uint32_t *from, int32_t channels, int32_t first, uint32_t *to) {
    for (int32_t c = 0; c < channels; c++)
        put(to, first + c, dsr_spike(from, c));
}

void dsr_flatten_spikes(const uint32_t *from, int32_t pixels, int32_t channels, uint32_t *to) {
    for (int32_t p = 0; p < pixels; p++, from += dsr_words(channels))
        for (int32_t c = 0; c < channels; c++)
            put(to, c * pixels + p, dsr_spike(from, c));
}

void dsr_or_pool(const dsr_windows *windows, const uint32_t *from, int32_t y, int32_t x, uint32_t *to) {
    const int32_t words = dsr_words(windows->channels);
    for (int32_t tap = 0; tap < dsr_taps(windows); tap++) {
        const int32_t pixel = dsr_window_pixel(windows, y, x, tap);
        for (int32_t w = 0; pixel >= 0 && w < words; w++)
            to[w] |= from[pixel * words + w];
    }
}

void dsr_gate_spikes(const uint32_t *from, const uint32_t *gate, int fires, int32_t channels, uint32_t *to) {
    for (int32_t w = 0; w < dsr_words(channels); w++)
        to[w] = from[w] & (fires ? gate[w] : ~gate[w]);
}
