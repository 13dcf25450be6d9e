/* Runs models: the steps one after the other, each for all time steps and samples at once, by the operations of dsr. */
#include "model.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* The output of a step while it is needed: spikes [W][P][L] or values [C][P][L], L = T B, or L = B for what is the same
 * at every time step. */
typedef struct {
    uint32_t *words;
    float *values;
    int steady;
} step_signal;

typedef struct {
    const dsr_model *model;
    size_t timesteps, batch;
    step_signal *signals;
    size_t *last_reader;
    dsr_model_status status;
} pass;

enum { MOST_NUMBERS = 0x7fffffff /* of an array: what BLAS counts */ };

static size_t words_of(size_t channels) {
    return (channels + DSR_WORD - 1) / DSR_WORD;
}

static size_t lanes_of(const pass *p, const step_signal *s) {
    return s->steady ? p->batch : p->timesteps * p->batch;
}

/* Memory for a * b numbers of 4 bytes; NULL, and the pass fails, where there is none. */
static void *new_numbers(pass *p, size_t a, size_t b) {
    void *memory = NULL;
    if (b && a > (size_t)MOST_NUMBERS / b)
        p->status = DSR_MODEL_TOO_LARGE;
    else if (!(memory = malloc(a * b * 4 + 4)))
        p->status = DSR_MODEL_NO_MEMORY;
    return memory;
}

static void check(pass *p, dsr_status status) {
    if (status != DSR_OK && p->status == DSR_MODEL_OK)
        p->status = status == DSR_NO_MEMORY ? DSR_MODEL_NO_MEMORY : DSR_MODEL_TOO_LARGE;
}

static size_t numbers_of(const model_step *step) {
    return step->channels * step_pixels(step);
}

/* What spikes of each channel are worth, times `factor` (NULL: 1). */
static float *new_amplitudes(pass *p, const model_step *step, const float *factor) {
    float *heights = new_numbers(p, step->channels, 1);
    for (size_t c = 0; heights && c < step->channels; c++)
        heights[c] = step->amplitude[step->amplitudes > 1 ? c : 0] * (factor ? factor[c] : 1);
    return heights;
}

/* The values of a signal, [C][P][L]: its own, or new ones of its spikes; *made is what has to be freed. */
static const float *values_of(pass *p, size_t number, float **made) {
    const model_step *step = &p->model->steps[number];
    const step_signal *s = &p->signals[number];
    *made = NULL;
    if (s->values)
        return s->values;
    const size_t lanes = step_pixels(step) * lanes_of(p, s);
    float *heights = new_amplitudes(p, step, NULL);
    *made = heights ? new_numbers(p, step->channels, lanes) : NULL;
    if (*made)
        check(p, dsr_unpack_words(s->words, *made, step->channels, lanes, heights));
    free(heights);
    return *made;
}

/* Values of a steady signal for every time step: [n][B] to [n][T][B]. */
static void repeat_steps(const float *from, float *to, size_t n, size_t timesteps, size_t batch) {
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < timesteps; t++)
            memcpy(to + (i * timesteps + t) * batch, from + i * batch, batch * sizeof *to);
}

/* As values_of, but for all time steps unless `steady`. */
static const float *steps_of(pass *p, size_t number, int steady, float **made) {
    const float *values = values_of(p, number, made);
    if (!values || steady || !p->signals[number].steady)
        return values;
    const size_t n = numbers_of(&p->model->steps[number]);
    float *all = new_numbers(p, n, p->timesteps * p->batch);
    if (all)
        repeat_steps(values, all, n, p->timesteps, p->batch);
    free(*made);
    return *made = all;
}

static unsigned table_bits(const uint32_t *words, size_t n, double neurons, size_t taps) {
    double count = 0;
    if (taps > DSR_MOST_TAPS / 4 || dsr_count_bits(words, &count, n) != DSR_OK)
        return 1;
    return count > 0.12 * neurons ? 4 : 1; /* as best_table_bits of dsr/ops/spike_convolution.py */
}

static void convolve(pass *p, const model_step *step, step_signal *out) {
    const size_t source = step->inputs[0];
    const model_step *from = &p->model->steps[source];
    const step_signal *in = &p->signals[source];
    dsr_conv conv = step->conv;
    const size_t taps = conv.y.taps * conv.x.taps, inner = conv.in_channels / conv.groups;
    conv.lanes = lanes_of(p, in);
    if (!(out->values = new_numbers(p, step->channels, step_pixels(step) * conv.lanes)))
        return;
    if (!in->words || taps > DSR_MOST_TAPS) {
        float *made;
        const float *values = values_of(p, source, &made);
        if (values)
            check(p, dsr_conv2d(values, step->weight, step->bias, out->values, conv));
        free(made);
        return;
    }
    float *own = NULL; /* weights with the amplitudes of channels in them */
    if (from->amplitudes > 1) {
        if (!(own = new_numbers(p, step->channels * inner, taps)))
            return;
        for (size_t i = 0; i < step->channels * inner * taps; i++) {
            const size_t o = i / (inner * taps), c = o / (step->channels / conv.groups) * inner + i / taps % inner;
            own[i] = step->weight[i] * from->amplitude[c];
        }
    }
    const size_t n = words_of(from->channels) * step_pixels(from) * conv.lanes;
    const unsigned bits = table_bits(in->words, n, (double)(numbers_of(from) * conv.lanes), taps);
    const dsr_weights weights = {.plain = own ? own : step->weight};
    check(p, dsr_conv2d_spikes(in->words, weights, step->bias, own ? 1 : (double)*from->amplitude, out->values, conv,
                               bits, 0));
    free(own);
}

static void add(pass *p, const model_step *step, step_signal *out) {
    const size_t n = step_pixels(step) * lanes_of(p, out);
    float *ones = new_numbers(p, step->channels, 2), *zeros = ones ? ones + step->channels : NULL;
    if (!ones || !(out->values = new_numbers(p, step->channels, n))) {
        free(ones);
        return;
    }
    for (size_t c = 0; c < step->channels; c++) {
        ones[c] = 1;
        zeros[c] = 0;
    }
    for (uint32_t i = 0; i < step->input_count && p->status == DSR_MODEL_OK; i++) {
        float *made;
        const float *values = steps_of(p, step->inputs[i], out->steady, &made);
        const float *bias = step->bias && i + 1 == step->input_count ? step->bias : zeros;
        if (values)
            check(p, dsr_affine(values, i ? out->values : NULL, step->factors + i * step->channels, i ? ones : NULL,
                                bias, out->values, step->channels, n));
        free(made);
    }
    free(ones);
}

static void fire(pass *p, const model_step *step, step_signal *out) {
    float *made;
    const size_t pixels = step_pixels(step), source = step->inputs[0];
    const float *current = values_of(p, source, &made);
    float *sums = current ? new_numbers(p, numbers_of(step), p->batch) : NULL;
    float *rows = sums ? new_numbers(p, step->channels, 3) : NULL;
    out->steady = 0;
    out->words = rows ? new_numbers(p, words_of(step->channels), pixels * p->timesteps * p->batch) : NULL;
    if (out->words) {
        const float *v = step->v_threshold, *f = step->fire;
        for (size_t c = 0; c < step->channels; c++) {
            const size_t k = step->thresholds > 1 ? c : 0;
            rows[c] = rows[2 * step->channels + c] = v[k];
            rows[step->channels + c] = f[k];
        }
        const dsr_neuron neuron = {.decay = (double)step->decay,
                                   .gain = (double)step->gain,
                                   .v_threshold = (double)*v,
                                   .fire = (double)*f,
                                   .amplitude = 1,
                                   .divisor = 1,
                                   .top = 1,
                                   .levels = 1};
        const dsr_thresholds own = {step->thresholds > 1 ? rows : NULL, step->channels};
        const dsr_layer_current input = {.current = current, .one_step = p->signals[source].steady};
        const dsr_lanes shape = {step->channels, pixels, p->timesteps, p->batch};
        check(p, dsr_neuron_spikes(input, out->words, sums, NULL, shape, neuron, own));
    }
    free(rows);
    free(sums);
    free(made);
}

static void pool(pass *p, const model_step *step, step_signal *out) {
    const size_t source = step->inputs[0];
    dsr_pool windows = step->pool;
    windows.lanes = lanes_of(p, &p->signals[source]);
    const size_t n = step_pixels(step) * windows.lanes;
    if (step->amplitudes) {
        windows.channels = words_of(step->channels);
        if ((out->words = new_numbers(p, windows.channels, n)))
            check(p, dsr_or_pool(p->signals[source].words, out->words, windows));
        return;
    }
    float *made;
    const float *values = values_of(p, source, &made);
    if (values && (out->values = new_numbers(p, step->channels, n)))
        check(p, step->kind == STEP_AVERAGE_POOL ? dsr_avg_pool(values, out->values, windows)
                                                 : dsr_max_pool(values, out->values, windows));
    free(made);
}

/* Steps that move numbers: as values, and for spikes back to bits. */
static void move(pass *p, const model_step *step, step_signal *out) {
    const size_t lanes = lanes_of(p, out), pixels = step_pixels(step);
    float *to = new_numbers(p, step->channels, pixels * lanes), *next = to;
    for (uint32_t i = 0; to && i < step->input_count && p->status == DSR_MODEL_OK; i++) {
        const model_step *from = &p->model->steps[step->inputs[i]];
        float *made;
        const float *values = steps_of(p, step->inputs[i], out->steady, &made);
        if (values && step->kind != STEP_UPSAMPLE) {
            memcpy(next, values, numbers_of(from) * lanes * sizeof *next);
            next += numbers_of(from) * lanes;
        } else if (values)
            for (size_t c = 0; c < step->channels; c++)
                for (size_t y = 0; y < step->height; y++)
                    for (size_t x = 0; x < step->width; x++, next += lanes) {
                        const size_t row = c * from->height + y / step->factor_y;
                        memcpy(next, values + (row * from->width + x / step->factor_x) * lanes, lanes * sizeof *next);
                    }
        free(made);
    }
    if (to && p->status == DSR_MODEL_OK && step->amplitudes &&
        (out->words = new_numbers(p, words_of(step->channels), pixels * lanes)))
        check(p, dsr_pack_words(to, out->words, step->channels, pixels * lanes));
    if (step->amplitudes)
        free(to);
    else
        out->values = to;
}

static void gate(pass *p, const model_step *step, step_signal *out) {
    const size_t n = words_of(step->channels) * step_pixels(step) * lanes_of(p, out);
    const uint32_t *from = p->signals[step->inputs[0]].words, *by = p->signals[step->inputs[1]].words;
    if ((out->words = new_numbers(p, n, 1)))
        for (size_t i = 0; i < n; i++)
            out->words[i] = from[i] & (step->fires ? by[i] : ~by[i]);
}

/* [L][inputs] to [inputs][L]. */
static void see(pass *p, const float *data, step_signal *out) {
    const size_t n = p->model->inputs, lanes = lanes_of(p, out);
    if ((out->values = new_numbers(p, n, lanes)))
        for (size_t l = 0; l < lanes; l++)
            for (size_t i = 0; i < n; i++)
                out->values[i * lanes + l] = data[l * n + i];
}

static void do_step(pass *p, size_t number) {
    const model_step *step = &p->model->steps[number];
    step_signal *out = &p->signals[number];
    out->steady = 1;
    for (uint32_t i = 0; i < step->input_count; i++)
        out->steady = out->steady && p->signals[step->inputs[i]].steady;
    switch (step->kind) {
    case STEP_CONVOLUTION:
        convolve(p, step, out);
        break;
    case STEP_SUM:
        add(p, step, out);
        break;
    case STEP_AVERAGE_POOL:
    case STEP_MAX_POOL:
        pool(p, step, out);
        break;
    case STEP_NEURONS:
        fire(p, step, out);
        break;
    case STEP_GATE:
        gate(p, step, out);
        break;
    default:
        move(p, step, out);
    }
}

static void forget(step_signal *s) {
    free(s->words);
    free(s->values);
    s->words = NULL;
    s->values = NULL;
}

/* Weights of the mean over time, divided by T. */
static void fill_weights(float *weights, size_t timesteps, float leak) {
    double sum = 0;
    for (size_t t = 0; t < timesteps; t++)
        sum += exp(-(double)leak * (double)(timesteps - 1 - t));
    for (size_t t = 0; t < timesteps; t++)
        weights[t] = (float)(exp(-(double)leak * (double)(timesteps - 1 - t)) / sum);
}

static void read_out(pass *p, float *rates) {
    const size_t last = p->model->step_count - 1, n = p->model->outputs;
    float *made, *weights = new_numbers(p, p->timesteps, 1), *mean = new_numbers(p, n, p->batch);
    const float *values = weights && mean ? steps_of(p, last, 0, &made) : (made = NULL);
    if (values) {
        fill_weights(weights, p->timesteps, p->model->leak);
        check(p, dsr_weighted_sum(values, weights, mean, (dsr_lanes){n, 1, p->timesteps, p->batch}));
        for (size_t b = 0; b < p->batch; b++)
            for (size_t i = 0; i < n; i++)
                rates[b * n + i] = mean[i * p->batch + b];
    }
    free(made);
    free(mean);
    free(weights);
}

static pthread_once_t ready = PTHREAD_ONCE_INIT;

static void set_up(void) {
    dsr_select_level(NULL);
    dsr_threads_setup();
}

static dsr_model_status run_all(pass *p, const float *data, int moves, float *rates) {
    const dsr_model *model = p->model;
    p->signals = calloc(model->step_count, sizeof *p->signals);
    p->last_reader = calloc(model->step_count, sizeof *p->last_reader);
    if (!p->signals || !p->last_reader)
        p->status = DSR_MODEL_NO_MEMORY;
    else {
        for (size_t i = 0; i < model->step_count; i++)
            for (uint32_t k = 0; k < model->steps[i].input_count; k++)
                p->last_reader[model->steps[i].inputs[k]] = i;
        p->signals[0].steady = !moves;
        see(p, data, &p->signals[0]);
        for (size_t i = 1; i < model->step_count && p->status == DSR_MODEL_OK; i++) {
            do_step(p, i);
            for (uint32_t k = 0; k < model->steps[i].input_count; k++)
                if (p->last_reader[model->steps[i].inputs[k]] == i)
                    forget(&p->signals[model->steps[i].inputs[k]]);
        }
        if (p->status == DSR_MODEL_OK)
            read_out(p, rates);
        for (size_t i = 0; i < model->step_count; i++)
            forget(&p->signals[i]);
    }
    free(p->signals);
    free(p->last_reader);
    return p->status;
}

dsr_model_status dsr_model_run(const dsr_model *model, const float *data, int moves, size_t timesteps, size_t batch,
                               float *rates, char *message) {
    if (!model || !data || !rates)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_model_run is NULL.");
    if (timesteps < 1 || batch < 1)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "Expected at least one time step and one sample.");
    if (timesteps > MOST_NUMBERS || batch > (size_t)MOST_NUMBERS / timesteps / model->inputs)
        return dsr_model_fail(DSR_MODEL_TOO_LARGE, message, "There are too many samples; give fewer at a time.");
    for (size_t i = 0; i < batch * (moves ? timesteps : 1) * model->inputs; i++)
        if (!isfinite(data[i]))
            return dsr_model_fail(DSR_MODEL_NOT_FINITE, message, "Value %zu of the data is infinite or not a number.",
                                  i);
    pthread_once(&ready, set_up);
    pass p = {.model = model, .timesteps = timesteps, .batch = batch, .status = DSR_MODEL_OK};
    const dsr_model_status status = run_all(&p, data, moves, rates);
    if (status == DSR_MODEL_TOO_LARGE)
        return dsr_model_fail(status, message, "There are too many samples; give fewer at a time.");
    if (status == DSR_MODEL_NO_MEMORY)
        return dsr_model_fail(status, message, "There is not enough memory for so many samples; give fewer at a time.");
    return status;
}

dsr_model_status dsr_model_set_threads(int threads) {
    if (threads < 1 || threads > DSR_MOST_THREADS)
        return DSR_MODEL_BAD_ARGUMENT;
    dsr_set_threads(threads);
    return DSR_MODEL_OK;
}
