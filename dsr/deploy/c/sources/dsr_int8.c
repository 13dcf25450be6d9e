#include "dsr_int8.h"

/* value / 2^bits, rounded down; >> of numbers below 0 is what C leaves open. */
static int32_t shift_down(int32_t value, int32_t bits) {
    return value >= 0 ? value >> bits : ~(~value >> bits);
}

static int16_t cut_off(int32_t value) {
    return (int16_t)(value > 32767 ? 32767 : value < -32767 ? -32767 : value);
}

static int16_t round_even(float value, int32_t most) {
    if (value >= (float)most || value <= (float)-most)
        return (int16_t)(value > 0 ? most : -most);
    int32_t whole = (int32_t)value;
    const float rest = value - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0))
        whole++;
    else if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0))
        whole--;
    return (int16_t)whole;
}

void dsr_quantise(const float *frame, float scale, int32_t most, int32_t pixels, int32_t channels, int16_t *values) {
    for (int32_t p = 0; p < pixels; p++)
        for (int32_t c = 0; c < channels; c++)
            *values++ = round_even(frame[c * pixels + p] * scale, most);
}

void dsr_clear(int32_t *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] = 0;
}

void dsr_add(const int32_t *values, int32_t *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] += values[c];
}

void dsr_add_shifted(const int32_t *sum, int32_t shift, int32_t *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        if (shift >= 0)
            current[c] += sum[c] * ((int32_t)1 << shift);
        else
            current[c] += shift_down(sum[c] + ((int32_t)1 << (-shift - 1)), -shift);
}

void dsr_convolve_spikes(const dsr_convolution *conv, const int8_t *weight, const uint32_t *image, int32_t y, int32_t x,
                         int32_t *sum) {
    const int32_t channels = conv->windows.channels, words = dsr_words(channels), n = conv->group_out;
    for (int32_t tap = 0; tap < dsr_taps(&conv->windows); tap++) {
        const int32_t pixel = dsr_window_pixel(&conv->windows, y, x, tap);
        for (int32_t w = 0; pixel >= 0 && w < words; w++) {
            uint32_t bits = image[pixel * words + w];
            for (int32_t c = 32 * w; bits; bits >>= 1, c++) {
                const int8_t *row = weight + (tap * channels + c) * n;
                int32_t *to = sum + c / conv->group_in * n;
                if (bits & 1u)
                    for (int32_t o = 0; o < n; o++)
                        to[o] += row[o];
            }
        }
    }
}

void dsr_convolve_values(const dsr_convolution *conv, const int8_t *weight, const int16_t *image, int32_t y, int32_t x,
                         int32_t *sum) {
    const int32_t channels = conv->windows.channels, n = conv->group_out;
    for (int32_t tap = 0; tap < dsr_taps(&conv->windows); tap++) {
        const int32_t pixel = dsr_window_pixel(&conv->windows, y, x, tap);
        for (int32_t c = 0; pixel >= 0 && c < channels; c++) {
            const int32_t value = image[pixel * channels + c];
            const int8_t *row = weight + (tap * channels + c) * n;
            int32_t *to = sum + c / conv->group_in * n;
            if (value != 0)
                for (int32_t o = 0; o < n; o++)
                    to[o] += value * row[o];
        }
    }
}

void dsr_add_spikes(const uint32_t *words, const int32_t *weight, int32_t *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] += dsr_spike(words, c) ? weight[c] : 0;
}

void dsr_add_values(const int16_t *values, const int32_t *weight, int32_t *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] += values[c] * weight[c];
}

void dsr_put_bits(const uint32_t *from, int32_t n, int16_t *to) {
    for (int32_t c = 0; c < n; c++)
        to[c] = (int16_t)dsr_spike(from, c);
}

void dsr_put_values(const int16_t *from, int32_t n, int16_t *to) {
    for (int32_t c = 0; c < n; c++)
        to[c] = from[c];
}

void dsr_count_pool(const dsr_windows *windows, const uint32_t *image, int32_t y, int32_t x, int16_t *to) {
    const int32_t words = dsr_words(windows->channels);
    for (int32_t c = 0; c < windows->channels; c++) {
        int32_t count = 0;
        for (int32_t tap = 0; tap < dsr_taps(windows); tap++) {
            const int32_t pixel = dsr_window_pixel(windows, y, x, tap);
            count += pixel >= 0 && dsr_spike(image + pixel * words, c);
        }
        to[c] = (int16_t)count;
    }
}

void dsr_flatten_values(const int16_t *from, int32_t pixels, int32_t channels, int16_t *to) {
    for (int32_t p = 0; p < pixels; p++)
        for (int32_t c = 0; c < channels; c++)
            to[c * pixels + p] = from[p * channels + c];
}

void dsr_fire(const dsr_neurons *neurons, const int32_t *current, int16_t *v, int32_t n, uint32_t *words) {
    dsr_silence(words, n);
    for (int32_t c = 0; c < n; c++) {
        const int32_t kept = neurons->decay == 32768 ? v[c] : shift_down(v[c] * neurons->decay + 16384, 15);
        const int16_t u = cut_off(kept + current[c]);
        const int fires = u >= neurons->fire[c];
        v[c] = (int16_t)(fires ? u - neurons->reset[c] : u);
        words[c / 32] |= (uint32_t)fires << (c % 32);
    }
}

void dsr_read_current(const int32_t *current, int64_t *sums, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        sums[c] += current[c];
}

int64_t dsr_next_sum(int64_t sum, int32_t decay, int fires) {
    return decay == 32768 ? sum + fires : (sum * decay + 16384) / 32768 + (fires ? 32768 : 0);
}

void dsr_read_spikes(const uint32_t *words, int32_t decay, int64_t *sums, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        sums[c] = dsr_next_sum(sums[c], decay, dsr_spike(words, c));
}
