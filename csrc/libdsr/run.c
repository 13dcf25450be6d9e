/* Streams and runs: the layers one after the other, for a time step of all samples, or for several where none of them
 * has to be known before the next one. It makes no difference to the bits how time is cut. */
#include "stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const TOO_MANY = "There are too many samples; give fewer at a time.";
static const char *const NO_MEMORY = "There is not enough memory for so many samples; give fewer at a time.";

static dsr_model_status told(dsr_model_status status, char *message) {
    if (status == DSR_MODEL_TOO_LARGE)
        return dsr_model_fail(status, message, "%s", TOO_MANY);
    if (status == DSR_MODEL_NO_MEMORY)
        return dsr_model_fail(status, message, "%s", NO_MEMORY);
    return status;
}

static dsr_model_status require_finite(const float *data, size_t count, char *message) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(data[i]))
            return dsr_model_fail(DSR_MODEL_NOT_FINITE, message, "Value %zu of the data is infinite or not a number.",
                                  i);
    return DSR_MODEL_OK;
}

/* ---- samples */

/* All samples that there is room for, at their beginning. */
static void restart(dsr_stream *s) {
    s->samples = s->batch;
    s->steps = 1;
    for (size_t b = 0; b < s->batch; b++)
        s->numbers[b] = b;
    for (size_t i = 0; i < s->array_count; i++)
        if (s->arrays[i].is_state)
            memset(s->arrays[i].at, 0, s->arrays[i].outer * s->batch * s->arrays[i].bytes);
}

static void restart_sample(dsr_stream *s, size_t sample) {
    for (size_t i = 0; i < s->array_count; i++) {
        const sample_array *a = &s->arrays[i];
        for (size_t k = 0; a->is_state && k < a->outer; k++)
            memset((char *)a->at + (k * s->samples + sample) * a->bytes, 0, a->bytes);
    }
}

/* The samples of which `stays` is set go on as a smaller batch; each moves towards the beginning. */
static void keep_samples(dsr_stream *s, const unsigned char *stays, size_t left) {
    for (size_t i = 0; i < s->array_count; i++) {
        const sample_array *a = &s->arrays[i];
        char *to = a->at;
        for (size_t k = 0; k < a->outer; k++)
            for (size_t b = 0; b < s->samples; b++)
                if (stays[b]) {
                    memmove(to, (char *)a->at + (k * s->samples + b) * a->bytes, a->bytes);
                    to += a->bytes;
                }
    }
    for (size_t b = 0, to = 0; b < s->samples; b++)
        if (stays[b])
            s->numbers[to++] = s->numbers[b];
    s->samples = left;
}

/* ---- time steps */

/* What follows from the frame alone. */
static void see(dsr_stream *s, const float *data) {
    dsr_see(s, data);
    for (size_t i = 1; i < s->model->step_count && s->status == DSR_MODEL_OK; i++) {
        if (s->kept[i])
            dsr_keep_current(s, i);
        if (step_of(s, i)->steady)
            dsr_do_step(s, i);
    }
}

/* The layers that depend on the frames [steps][samples][inputs] alone, and the neurons behind them, one frame after the
 * other: of these layers there is memory for one frame only. */
static void see_ahead(dsr_stream *s, const float *data, size_t steps) {
    const size_t samples = s->samples;
    s->steps = 1;
    for (size_t t = 0; t < steps && s->status == DSR_MODEL_OK; t++) {
        see(s, data + t * samples * s->model->inputs);
        for (size_t i = 1; i < s->model->step_count && s->status == DSR_MODEL_OK; i++) {
            if (!step_of(s, i)->reads_frame)
                continue;
            uint32_t *all = s->signals[i];
            s->signals[i] = s->spikes;
            dsr_do_step(s, i);
            s->signals[i] = all;
            copy_rows(s->spikes, samples, all + t * samples, steps * samples, signal_numbers(step_of(s, i)), samples);
        }
    }
    s->steps = steps;
}

/* All other layers, for the time steps that are done at once; `is_ahead`: see_ahead has done its neurons. */
static void advance(dsr_stream *s, int is_ahead) {
    s->passes++;
    for (size_t i = 1; i < s->model->step_count && s->status == DSR_MODEL_OK; i++)
        if (!step_of(s, i)->steady && !(is_ahead && step_of(s, i)->reads_frame))
            dsr_do_step(s, i);
    if (s->status == DSR_MODEL_OK && !is_integer(s->model))
        dsr_read_floats(s);
}

/* ---- streams */

static dsr_model_status make_stream(const dsr_model *model, size_t batch, size_t most_steps, dsr_stream **stream) {
    *stream = NULL;
    dsr_stream *s = calloc(1, sizeof *s);
    if (!s)
        return DSR_MODEL_NO_MEMORY;
    s->model = model;
    s->batch = batch;
    s->most_steps = most_steps;
    atomic_flag_clear(&s->busy);
    const dsr_model_status status = dsr_stream_plan(s);
    if (status != DSR_MODEL_OK) {
        dsr_stream_release(s);
        return status;
    }
    restart(s);
    *stream = s;
    return DSR_MODEL_OK;
}

dsr_model_status dsr_stream_start(const dsr_model *model, size_t batch, dsr_stream **stream, char *message) {
    if (stream)
        *stream = NULL;
    if (!model || !stream)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_stream_start is NULL.");
    if (batch < 1)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "Expected at least one sample.");
    const dsr_model_status status = dsr_model_ready(model, message);
    return status != DSR_MODEL_OK ? status : told(make_stream(model, batch, 1, stream), message);
}

void dsr_stream_free(dsr_stream *stream) {
    if (stream)
        dsr_stream_release(stream);
}

static dsr_model_status enter(dsr_stream *s, char *message) {
    if (atomic_flag_test_and_set(&s->busy))
        return dsr_model_fail(DSR_MODEL_BUSY, message,
                              "Another thread is using this stream; start one for each thread.");
    s->status = DSR_MODEL_OK;
    return DSR_MODEL_OK;
}

/* A stream that failed in the middle of a step begins anew. */
static dsr_model_status leave(dsr_stream *s, char *message) {
    const dsr_model_status status = s->status;
    if (status != DSR_MODEL_OK)
        restart(s);
    atomic_flag_clear(&s->busy);
    return told(status, message);
}

dsr_model_status dsr_stream_step(dsr_stream *stream, const float *frame, float *rates, char *message) {
    if (!stream || !frame || !rates)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_stream_step is NULL.");
    dsr_model_status status = require_finite(frame, stream->batch * stream->model->inputs, message);
    if (status == DSR_MODEL_OK)
        status = enter(stream, message);
    if (status != DSR_MODEL_OK)
        return status;
    see(stream, frame);
    advance(stream, 0);
    for (size_t b = 0; stream->status == DSR_MODEL_OK && b < stream->batch; b++)
        dsr_rates(stream, b, rates + b * stream->model->outputs);
    return leave(stream, message);
}

dsr_model_status dsr_stream_reset(dsr_stream *stream, const size_t *samples, size_t count, char *message) {
    if (!stream)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_stream_reset is NULL.");
    for (size_t i = 0; samples && i < count; i++)
        if (samples[i] >= stream->batch)
            return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message,
                                  "Sample %zu does not exist; the stream has %zu, the first of them 0.", samples[i],
                                  stream->batch);
    const dsr_model_status status = enter(stream, message);
    if (status != DSR_MODEL_OK)
        return status;
    if (!samples)
        restart(stream);
    for (size_t i = 0; samples && i < count; i++)
        restart_sample(stream, samples[i]);
    return leave(stream, message);
}

/* ---- runs */

/* How clear rates are, see dsr/deploy/early_exit.py. */
static double clearness(const float *rates, size_t outputs, dsr_exit_by by) {
    size_t best = 0;
    double second = -INFINITY, sum = 0;
    for (size_t i = 1; i < outputs; i++)
        best = rates[i] > rates[best] ? i : best;
    for (size_t i = 0; i < outputs; i++) {
        const double rate = (double)rates[i];
        sum += exp(rate - (double)rates[best]);
        second = i != best && rate > second ? rate : second;
    }
    return by == DSR_EXIT_MARGIN ? (double)rates[best] - second : 1 / sum;
}

/* Rates of the samples that are done after this many steps, by all steps or because they are clear; the others stay. */
static void let_go(dsr_stream *s, const dsr_exit *rule, size_t done, int is_last, float *rates, size_t *steps,
                   unsigned char *stays) {
    const size_t outputs = s->model->outputs;
    size_t left = 0;
    for (size_t b = 0; b < s->samples; b++) {
        float *own = rates + s->numbers[b] * outputs;
        dsr_rates(s, b, own);
        stays[b] = !is_last && (!rule || done < rule->least || !(clearness(own, outputs, rule->by) >= rule->threshold));
        left += stays[b];
        if (!stays[b] && steps)
            steps[s->numbers[b]] = done;
    }
    if (left < s->samples)
        keep_samples(s, stays, left);
}

static dsr_model_status require_run(const dsr_stream *s, const float *data, int moves, size_t timesteps, size_t samples,
                                    const float *rates, char *message) {
    if (!s || !data || !rates)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_stream_run is NULL.");
    if (timesteps < 1 || samples < 1)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "Expected at least one time step and one sample.");
    if (samples > s->batch)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "Expected at most %zu samples, got %zu.", s->batch,
                              samples);
    if (timesteps > MOST_NUMBERS)
        return dsr_model_fail(DSR_MODEL_TOO_LARGE, message, "Expected at most %d time steps.", MOST_NUMBERS);
    if (moves && timesteps > SIZE_MAX / sizeof *data / s->model->inputs / samples)
        return told(DSR_MODEL_TOO_LARGE, message);
    return require_finite(data, (moves ? timesteps : 1) * samples * s->model->inputs, message);
}

/* Time steps that a run does at once, and steps times samples, at most: more are not faster. */
enum { STEPS_AT_ONCE = 32, LANES_AT_ONCE = 256 };

/* A stream that does several steps of a run at once: one beside `s`, which is made when it is first wanted; `s` itself,
 * one step at a time, if there is no memory for that. */
static dsr_stream *whole_of(dsr_stream *s, size_t timesteps) {
    const size_t useful = LANES_AT_ONCE / s->batch, most = useful < STEPS_AT_ONCE ? useful : STEPS_AT_ONCE;
    const size_t wanted = timesteps < most ? timesteps : most;
    if (s->whole && s->whole->most_steps < wanted) {
        dsr_stream_release(s->whole);
        s->whole = NULL;
    }
    if (!s->whole && wanted > s->most_steps)
        make_stream(s->model, s->batch, wanted, &s->whole);
    return s->whole ? s->whole : s;
}

/* All time steps of the samples, which leave by the rule. */
static void run_samples(dsr_stream *s, const float *data, int moves, size_t timesteps, size_t samples,
                        const dsr_exit *rule, float *rates, size_t *steps) {
    restart(s);
    s->status = DSR_MODEL_OK;
    s->samples = samples;
    s->passes = 0;
    for (size_t t = 0; t < timesteps && s->samples && s->status == DSR_MODEL_OK; t += s->steps) {
        const size_t left = timesteps - t, most = rule ? 1 : s->most_steps;
        s->steps = left < most ? left : most;
        const float *frames = data + (moves ? t * samples * s->model->inputs : 0);
        const int is_ahead = moves && s->steps > 1;
        if (is_ahead)
            see_ahead(s, frames, s->steps);
        else if (moves || t == 0)
            see(s, frames);
        advance(s, is_ahead);
        if (s->status == DSR_MODEL_OK && (rule || s->steps == left))
            let_go(s, rule, t + s->steps, s->steps == left, rates, steps, s->stays);
    }
}

static dsr_model_status require_rule(const dsr_stream *s, const dsr_exit *rule, char *message) {
    if (rule && s->model->outputs < 2)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message,
                              "Early exit is for two or more classes, not one output.");
    if (rule && ((rule->by != DSR_EXIT_PROBABILITY && rule->by != DSR_EXIT_MARGIN) || !(rule->threshold > 0)))
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message,
                              "Expected a threshold above 0 of probability or margin.");
    return DSR_MODEL_OK;
}

dsr_model_status dsr_stream_exit(dsr_stream *stream, const float *data, int moves, size_t timesteps, size_t samples,
                                 const dsr_exit *rule, float *rates, size_t *steps, char *message) {
    dsr_model_status status = require_run(stream, data, moves, timesteps, samples, rates, message);
    if (status == DSR_MODEL_OK)
        status = require_rule(stream, rule, message);
    if (status == DSR_MODEL_OK)
        status = enter(stream, message);
    if (status != DSR_MODEL_OK)
        return status;
    dsr_stream *s = rule || (moves && !stream->model->looks_ahead) ? stream : whole_of(stream, timesteps);
    run_samples(s, data, moves, timesteps, samples, rule, rates, steps);
    stream->status = s->status;
    stream->passes = s->passes;
    restart(stream);
    return leave(stream, message);
}

dsr_model_status dsr_stream_run(dsr_stream *stream, const float *data, int moves, size_t timesteps, size_t samples,
                                float *rates, char *message) {
    return dsr_stream_exit(stream, data, moves, timesteps, samples, NULL, rates, NULL, message);
}

size_t dsr_stream_passes(const dsr_stream *stream) {
    return stream ? stream->passes : 0;
}

dsr_model_status dsr_model_run(const dsr_model *model, const float *data, int moves, size_t timesteps, size_t batch,
                               float *rates, char *message) {
    dsr_stream *stream = NULL;
    if (!model || !data || !rates)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_model_run is NULL.");
    dsr_model_status status = dsr_stream_start(model, batch, &stream, message);
    if (status == DSR_MODEL_OK)
        status = dsr_stream_run(stream, data, moves, timesteps, batch, rates, message);
    dsr_stream_free(stream);
    return status;
}

dsr_model_status dsr_model_set_threads(int threads) {
    if (threads < 1 || threads > DSR_MOST_THREADS)
        return DSR_MODEL_BAD_ARGUMENT;
    dsr_set_threads(threads);
    return DSR_MODEL_OK;
}
