#include "dsr_float.h"

void dsr_clear(float *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] = 0;
}

void dsr_add(const float *values, float *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] += values[c];
}

void dsr_scale_all(float factor, float *values, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        values[i] *= factor;
}

void dsr_count_spikes(const uint32_t *words, float *counts, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        counts[c] += (float)dsr_spike(words, c);
}

void dsr_scale(const float *factor, float *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] *= factor[c];
}

void dsr_add_spikes(const uint32_t *words, const float *amplitude, int32_t each, float *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        if (dsr_spike(words, c))
            current[c] += amplitude[c * each];
}

void dsr_convolve_spikes(const dsr_convolution *conv, const float *weight, const uint32_t *image, int32_t y, int32_t x,
                         float *current) {
    const int32_t channels = conv->windows.channels, words = dsr_words(channels);
    for (int32_t tap = 0; tap < dsr_taps(&conv->windows); tap++) {
        const int32_t pixel = dsr_window_pixel(&conv->windows, y, x, tap);
        for (int32_t w = 0; pixel >= 0 && w < words; w++) {
            uint32_t bits = image[pixel * words + w];
            for (int32_t c = 32 * w; bits; bits >>= 1, c++)
                if (bits & 1u)
                    dsr_add(weight + (tap * channels + c) * conv->group_out,
                            current + c / conv->group_in * conv->group_out, conv->group_out);
        }
    }
}

void dsr_convolve_values(const dsr_convolution *conv, const float *weight, const float *image, int32_t pixel_step,
                         int32_t channel_step, int32_t y, int32_t x, float *current) {
    const int32_t channels = conv->windows.channels, n = conv->group_out;
    for (int32_t tap = 0; tap < dsr_taps(&conv->windows); tap++) {
        const int32_t pixel = dsr_window_pixel(&conv->windows, y, x, tap);
        for (int32_t c = 0; pixel >= 0 && c < channels; c++) {
            const float value = image[pixel * pixel_step + c * channel_step];
            const float *row = weight + (tap * channels + c) * n;
            float *to = current + c / conv->group_in * n;
            if (value != 0)
                for (int32_t o = 0; o < n; o++)
                    to[o] += value * row[o];
        }
    }
}

void dsr_add_values(const float *values, int32_t channel_step, float *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] += values[c * channel_step];
}

void dsr_add_scaled(const float *factor, const float *values, int32_t channel_step, float *current, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        current[c] += factor[c] * values[c * channel_step];
}

void dsr_mean_spikes(const dsr_windows *windows, const float *amplitude, int32_t each, const uint32_t *image, int32_t y,
                     int32_t x, float *current) {
    const int32_t words = dsr_words(windows->channels), taps = dsr_taps(windows);
    for (int32_t c = 0; c < windows->channels; c++) {
        int32_t count = 0;
        for (int32_t tap = 0; tap < taps; tap++) {
            const int32_t pixel = dsr_window_pixel(windows, y, x, tap);
            count += pixel >= 0 && dsr_spike(image + pixel * words, c);
        }
        current[c] += (float)count * amplitude[c * each] / (float)taps;
    }
}

void dsr_mean_values(const dsr_windows *windows, const float *image, int32_t pixel_step, int32_t channel_step,
                     int32_t y, int32_t x, float *current) {
    const int32_t taps = dsr_taps(windows);
    for (int32_t c = 0; c < windows->channels; c++) {
        float sum = 0;
        for (int32_t tap = 0; tap < taps; tap++) {
            const int32_t pixel = dsr_window_pixel(windows, y, x, tap);
            if (pixel >= 0)
                sum += image[pixel * pixel_step + c * channel_step];
        }
        current[c] += sum / (float)taps;
    }
}

void dsr_largest_values(const dsr_windows *windows, const float *image, int32_t pixel_step, int32_t channel_step,
                        int32_t y, int32_t x, float *current) {
    for (int32_t c = 0; c < windows->channels; c++) {
        float largest = 0;
        int first = 1;
        for (int32_t tap = 0; tap < dsr_taps(windows); tap++) {
            const int32_t pixel = dsr_window_pixel(windows, y, x, tap);
            if (pixel < 0)
                continue;
            const float value = image[pixel * pixel_step + c * channel_step];
            if (first || value > largest)
                largest = value;
            first = 0;
        }
        current[c] += largest;
    }
}

void dsr_flatten_values(const float *image, int32_t pixel_step, int32_t channel_step, int32_t pixels, int32_t channels,
                        float *current) {
    for (int32_t c = 0; c < channels; c++)
        for (int32_t p = 0; p < pixels; p++)
            current[c * pixels + p] += image[p * pixel_step + c * channel_step];
}

void dsr_fire(const dsr_neurons *neurons, const float *current, float *v, int32_t n, uint32_t *words) {
    const int leaky = neurons->decay != 1 || neurons->gain != 1;
    dsr_silence(words, n);
    for (int32_t c = 0; c < n; c++) {
        const float u = leaky ? neurons->decay * v[c] + neurons->gain * current[c] : v[c] + current[c];
        const int fires = u >= neurons->fire[c * neurons->each];
        v[c] = fires ? u - neurons->v_threshold[c * neurons->each] : u;
        words[c / 32] |= (uint32_t)fires << (c % 32);
    }
}
