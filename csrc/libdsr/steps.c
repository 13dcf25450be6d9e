/* Steps of floats, and those that only move numbers: one time step of all samples, by the operations of dsr. */
#include "stream.h"

#include <math.h>
#include <string.h>

static size_t words_of(size_t channels) {
    return blocks_of(channels, DSR_WORD);
}

/* The values of a signal, [C][P][L]: its own, or those of its spikes. */
static const float *values_of(dsr_stream *s, size_t number) {
    const model_step *step = step_of(s, number);
    if (!step->amplitudes)
        return s->signals[number];
    check(s, dsr_unpack_words(s->signals[number], s->scratch, step->channels, step_pixels(step) * lanes_of(s, step),
                              step->heights));
    return s->scratch;
}

/* The same for a step that has them at all time steps. */
static const float *values_for(dsr_stream *s, const model_step *reader, size_t number) {
    const model_step *step = step_of(s, number);
    if (lanes_of(s, step) == lanes_of(s, reader))
        return values_of(s, number);
    repeat_steps(s->signals[number], s->scratch, step_numbers(step), s->steps, s->samples);
    return s->scratch;
}

unsigned dsr_table_bits(const uint32_t *words, size_t n, double neurons, size_t taps) {
    double count = 0;
    if (taps > DSR_MOST_TAPS / 4 || dsr_count_bits(words, &count, n) != DSR_OK)
        return 1;
    return count > 0.12 * neurons ? 4 : 1; /* as best_table_bits of dsr/ops/spike_convolution.py */
}

static dsr_weights weights_of(const model_step *step) {
    return (dsr_weights){step->weighed ? step->weighed : step->weight, step->packed};
}

/* What a spike that is convolved is worth. */
static double amplitude_of(const dsr_stream *s, const model_step *step) {
    return step->weighed ? 1 : (double)*step_of(s, step->inputs[0])->amplitude;
}

static dsr_conv conv_of(const dsr_stream *s, const model_step *step) {
    dsr_conv conv = step->conv;
    conv.lanes = lanes_of(s, step);
    return conv;
}

/* A convolution of values is rounded as the number of its lanes wants it, so each time step is done by itself. */
static void convolve_values(dsr_stream *s, const model_step *step, float *to) {
    const dsr_conv conv = conv_of(s, step);
    const float *values = values_of(s, step->inputs[0]);
    const size_t steps = conv.lanes / s->samples, inputs = step_numbers(step_of(s, step->inputs[0]));
    if (steps == 1 || (step_pixels(step) == 1 && conv.y.spread == 1 && conv.x.spread == 1)) {
        check(s, dsr_conv2d_by_step(values, step->weight, step->bias, to, conv, steps));
        return;
    }
    dsr_conv one = conv;
    one.lanes = s->samples;
    for (size_t t = 0; t < steps; t++) {
        const size_t at = t * one.lanes;
        copy_rows(values + at, conv.lanes, s->before, one.lanes, inputs, one.lanes);
        check(s, dsr_conv2d(s->before, step->weight, step->bias, s->after, one));
        copy_rows(s->after, one.lanes, to + at, conv.lanes, step_numbers(step), one.lanes);
    }
}

/* Tables of sums of weights would be faster at high rates, but their bits would depend on the other samples. */
enum { TABLE_BITS = 1 };

static void convolve(dsr_stream *s, const model_step *step, float *to) {
    if (convolves_spikes(s->model, step))
        check(s, dsr_conv2d_spikes(s->signals[step->inputs[0]], weights_of(step), step->bias, amplitude_of(s, step), to,
                                   conv_of(s, step), TABLE_BITS, 0));
    else
        convolve_values(s, step, to);
}

static void add(dsr_stream *s, const model_step *step, float *to) {
    const size_t n = step_pixels(step) * lanes_of(s, step);
    for (uint32_t i = 0; i < step->input_count && s->status == DSR_MODEL_OK; i++) {
        const float *values = values_for(s, step, step->inputs[i]), *factors = step->factors + i * step->channels;
        const float *bias = step->bias && i + 1 == step->input_count ? step->bias : s->zeros;
        check(s, dsr_affine(values, i ? to : NULL, factors, i ? s->ones : NULL, bias, to, step->channels, n));
    }
}

static void fire(dsr_stream *s, size_t number, uint32_t *to) {
    const model_step *step = step_of(s, number);
    const dsr_neuron neuron = {.decay = (double)step->decay,
                               .gain = (double)step->gain,
                               .v_threshold = (double)*step->v_threshold,
                               .fire = (double)*step->fire,
                               .amplitude = 1,
                               .divisor = 1,
                               .top = 1,
                               .levels = 1};
    const dsr_thresholds own = {step->thresholds > 1 ? step->rows : NULL, step->channels};
    const model_step *from = step_of(s, step->inputs[0]);
    if (from->is_fused) {
        const dsr_after_conv after = {.neuron = neuron, .thresholds = own, .potentials = s->potentials[number]};
        check(s, dsr_conv2d_neuron_spikes(s->signals[from->inputs[0]], weights_of(from), from->bias,
                                          amplitude_of(s, from), to, conv_of(s, from), s->steps, TABLE_BITS, after));
        return;
    }
    const dsr_layer_current input = {.current = values_of(s, step->inputs[0]),
                                     .one_step = lanes_of(s, from) < lanes_of(s, step)};
    const dsr_lanes shape = {step->channels, step_pixels(step), s->steps, s->samples};
    check(s, dsr_neuron_steps(input, to, s->potentials[number], shape, neuron, own));
}

static void pool(dsr_stream *s, const model_step *step, void *to) {
    dsr_pool windows = step->pool;
    windows.lanes = lanes_of(s, step);
    if (step->amplitudes)
        windows.channels = words_of(step->channels);
    if (step->kind == STEP_COUNT_POOL)
        check(s, dsr_pool_planes(s->signals[step->inputs[0]], to, step->planes, windows));
    else if (step->amplitudes)
        check(s, dsr_or_pool(s->signals[step->inputs[0]], to, windows));
    else if (step->kind == STEP_AVERAGE_POOL)
        check(s, dsr_avg_pool(values_of(s, step->inputs[0]), to, windows));
    else
        check(s, dsr_max_pool(s->signals[step->inputs[0]], to, windows));
}

/* ---- what only moves: numbers of 4 bytes, or bits of words */

/* Pixels of words or values are repeated. */
static void upsample(const dsr_stream *s, const model_step *step, uint32_t *to) {
    const model_step *from = step_of(s, step->inputs[0]);
    const uint32_t *image = s->signals[step->inputs[0]];
    const size_t planes = signal_numbers(step) / step_pixels(step), lanes = lanes_of(s, step);
    for (size_t c = 0; c < planes; c++)
        for (size_t y = 0; y < step->height; y++)
            for (size_t x = 0; x < step->width; x++, to += lanes) {
                const size_t row = c * from->height + y / step->factor_y;
                memcpy(to, image + (row * from->width + x / step->factor_x) * lanes, lanes * sizeof *to);
            }
}

/* The bits of a channel, n of them, become those of another one. */
static void put_channel(const uint32_t *from, size_t channel, uint32_t *to, size_t target, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] |= (from[i] >> channel % DSR_WORD & 1u) << target % DSR_WORD;
}

/* Channel c of pixel p becomes channel c P + p. */
static void flatten(const dsr_stream *s, const model_step *step, uint32_t *to) {
    const model_step *from = step_of(s, step->inputs[0]);
    const uint32_t *image = s->signals[step->inputs[0]];
    const size_t pixels = step_pixels(from), lanes = lanes_of(s, step);
    if (!step->amplitudes || pixels == 1) {
        memcpy(to, image, signal_numbers(step) * lanes * sizeof *to);
        return;
    }
    memset(to, 0, signal_numbers(step) * lanes * sizeof *to);
    for (size_t k = 0; k < step->planes; k++) {
        const uint32_t *plane = image + k * words_of(from->channels) * pixels * lanes;
        for (size_t c = 0; c < from->channels; c++)
            for (size_t p = 0; p < pixels; p++) {
                const size_t target = c * pixels + p;
                put_channel(plane + (c / DSR_WORD * pixels + p) * lanes, c,
                            to + (k * words_of(step->channels) + target / DSR_WORD) * lanes, target, lanes);
            }
    }
}

/* Channels one behind the other; spikes among values become values. */
static void concat(dsr_stream *s, const model_step *step, void *to) {
    const size_t n = step_pixels(step) * lanes_of(s, step);
    size_t first = 0;
    if (step->amplitudes)
        memset(to, 0, signal_numbers(step) * lanes_of(s, step) * 4);
    for (uint32_t i = 0; i < step->input_count; i++) {
        const model_step *from = step_of(s, step->inputs[i]);
        const uint32_t *words = s->signals[step->inputs[i]];
        float *values = (float *)to + first * n;
        if (!from->amplitudes)
            memcpy(values, values_for(s, step, step->inputs[i]), from->channels * n * sizeof *values);
        else if (!step->amplitudes)
            check(s, dsr_unpack_words(words, values, from->channels, n, from->heights));
        else
            for (size_t k = 0; k < from->planes; k++)
                for (size_t c = 0; c < from->channels; c++)
                    put_channel(words + (k * words_of(from->channels) + c / DSR_WORD) * n, c,
                                (uint32_t *)to + (k * words_of(step->channels) + (first + c) / DSR_WORD) * n, first + c,
                                n);
        first += from->channels;
    }
}

static void gate(const dsr_stream *s, const model_step *step, uint32_t *to) {
    const size_t n = signal_numbers(step) * lanes_of(s, step);
    const uint32_t *from = s->signals[step->inputs[0]], *by = s->signals[step->inputs[1]];
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] & (step->fires ? by[i] : ~by[i]);
}

void dsr_do_step(dsr_stream *s, size_t number) {
    const model_step *step = step_of(s, number);
    void *to = s->signals[number];
    if (step->is_fused)
        return;
    switch (step->kind) {
    case STEP_CONVOLUTION:
        convolve(s, step, to);
        break;
    case STEP_SUM:
        add(s, step, to);
        break;
    case STEP_AVERAGE_POOL:
    case STEP_MAX_POOL:
    case STEP_COUNT_POOL:
        pool(s, step, to);
        break;
    case STEP_UPSAMPLE:
        upsample(s, step, to);
        break;
    case STEP_CONCAT:
        concat(s, step, to);
        break;
    case STEP_FLATTEN:
        flatten(s, step, to);
        break;
    case STEP_GATE:
        gate(s, step, to);
        break;
    case STEP_NEURONS:
        fire(s, number, to);
        break;
    default:
        dsr_do_integers(s, number);
    }
}

/* ---- the two ends */

void dsr_see(dsr_stream *s, const float *data) {
    if (is_integer(s->model)) {
        dsr_see_integers(s, data);
        return;
    }
    const size_t n = s->model->inputs;
    float *to = s->signals[0];
    for (size_t l = 0; l < s->samples; l++)
        for (size_t i = 0; i < n; i++)
            to[i * s->samples + l] = data[s->numbers[l] * n + i];
}

void dsr_read_floats(dsr_stream *s) {
    const double decay = exp(-(double)s->model->leak);
    const size_t last = s->model->step_count - 1, samples = s->samples;
    const float *values = values_of(s, last);
    const size_t lanes = lanes_of(s, step_of(s, last));
    for (size_t t = 0; t < s->steps; t++) {
        const float *step = values + (lanes > samples ? t * samples : 0);
        for (size_t i = 0; i < s->model->outputs; i++)
            for (size_t l = 0; l < samples; l++) {
                double *mean = &s->means[i * samples + l];
                *mean = *mean * decay + (double)step[i * lanes + l];
            }
        for (size_t l = 0; l < samples; l++)
            s->weights[l] = s->weights[l] * decay + 1;
    }
}

void dsr_rates(const dsr_stream *s, size_t sample, float *rates) {
    const model_step *last = step_of(s, s->model->step_count - 1);
    for (size_t i = 0; i < s->model->outputs; i++) {
        const size_t at = i * s->samples + sample;
        if (is_integer(s->model))
            rates[i] =
                (float)((double)s->sums[at] * (double)last->unit[i / step_pixels(last)] / (double)s->counts[sample]);
        else
            rates[i] = (float)(s->means[at] / s->weights[sample]);
    }
}
