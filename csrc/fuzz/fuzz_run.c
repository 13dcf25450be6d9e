/* libFuzzer on all of libdsr: what is read is run, where that is quick. Built as fuzz_read.c, together with the levels,
 * the operations and the rest of the library, with -DDSR_BLAS_PREFIXED=1 and OpenBLAS as in setup.py. */
#include "../libdsr/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* A bound of the additions of a time step and a sample. */
static double work_of(const dsr_model *model) {
    double work = 0;
    for (size_t i = 0; i < model->step_count; i++) {
        const model_step *s = &model->steps[i];
        const double taps = (double)s->conv.y.taps * (double)s->conv.x.taps * (double)s->conv.in_channels;
        const double window = (double)s->pool.kernel_h * (double)s->pool.kernel_w;
        work += (double)step_numbers(s) * (1 + taps + window) * (1 + (double)s->input_count);
        for (uint32_t k = 0; s->terms && k < s->input_count; k++) {
            const dsr_conv *c = &s->terms[k].conv;
            work += (double)step_numbers(s) * (double)c->y.taps * (double)c->x.taps * (double)c->in_channels * 16;
        }
    }
    return work;
}

enum { SAMPLES = 3, STEPS = 3 };

/* Steps that are done at once have the bits of those that are done one by one; where there are infinities, either may
 * make a NaN of them. */
static void require_same(const float *rates, const float *others, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (__builtin_isfinite(rates[i]) && __builtin_isfinite(others[i]) &&
            memcmp(&rates[i], &others[i], sizeof *rates) != 0)
            __builtin_trap();
}

static void run_at_once(dsr_stream *stream, const float *data, size_t inputs, size_t outputs, float *rates) {
    float *others = rates + SAMPLES * outputs;
    for (int moves = 0; moves < 2; moves++) {
        dsr_model_status status = dsr_stream_run(stream, data, moves, STEPS, SAMPLES, rates, NULL);
        dsr_stream_reset(stream, NULL, 0, NULL);
        for (size_t t = 0; t < STEPS && status == DSR_MODEL_OK; t++)
            status = dsr_stream_step(stream, data + (moves ? t * SAMPLES * inputs : 0), others, NULL);
        if (status == DSR_MODEL_OK)
            require_same(rates, others, SAMPLES * outputs);
    }
}

static void run(const dsr_model *model) {
    const size_t inputs = dsr_model_inputs(model), outputs = dsr_model_outputs(model);
    float *data = calloc(STEPS * SAMPLES * inputs, sizeof *data);
    float *rates = calloc(2 * SAMPLES * outputs, sizeof *rates);
    const dsr_exit rule = {DSR_EXIT_MARGIN, 0.25, 1};
    const size_t first = 0;
    dsr_stream *stream;
    char message[DSR_MODEL_MESSAGE] = "";
    const dsr_model_status status = dsr_stream_start(model, SAMPLES, &stream, message);
    if ((status == DSR_MODEL_OK) != (stream != NULL) || (status == DSR_MODEL_OK) != (message[0] == 0))
        __builtin_trap();
    for (size_t i = 0; data && i < STEPS * SAMPLES * inputs; i++)
        data[i] = (float)(i % 7) - 2;
    if (data && rates && stream) {
        dsr_stream_step(stream, data, rates, message);
        dsr_stream_reset(stream, &first, 1, message);
        dsr_stream_step(stream, data, rates, message);
        dsr_stream_exit(stream, data, 0, STEPS, SAMPLES, outputs > 1 ? &rule : NULL, rates, NULL, message);
        run_at_once(stream, data, inputs, outputs, rates);
    }
    dsr_stream_free(stream);
    free(data);
    free(rates);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    dsr_model *model;
    if (dsr_model_read(bytes, count, &model, NULL) == DSR_MODEL_OK && work_of(model) < 1e6)
        run(model);
    dsr_model_free(model);
    return 0;
}
