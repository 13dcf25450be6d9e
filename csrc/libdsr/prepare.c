/* What is made of a model once, before it runs: packed weights, and arrays as the operations want them. */
#include "../ops/ops.h"
#include "model.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of packed weights of all layers: a small file may describe large ones, as of many groups. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { MOST_PACKED = 1 << 24 };
#else
enum { MOST_PACKED = MOST_NUMBERS }; /* 2 GiB */
#endif

/* ---- floats */

/* What spikes of each channel are worth. */
static float amplitude_of(const model_step *step, size_t channel) {
    return step->amplitude[step->amplitudes > 1 ? channel : 0];
}

static int make_heights(model_step *step) {
    if (!(step->heights = dsr_scratch(step->channels, sizeof *step->heights)))
        return 0;
    for (size_t c = 0; c < step->channels; c++)
        step->heights[c] = amplitude_of(step, c);
    return 1;
}

static int pack_floats(model_step *step, const model_step *from, size_t *left) {
    dsr_conv conv = step->conv;
    const size_t taps = conv.y.taps * conv.x.taps, inner = conv.in_channels / conv.groups;
    conv.lanes = 1; /* any number that there may be */
    if (from->amplitudes > 1) {
        const size_t count = step->channels * inner * taps;
        if (!(step->weighed = dsr_scratch(count, sizeof *step->weighed)))
            return 0;
        for (size_t i = 0; i < count; i++) {
            const size_t o = i / (inner * taps), c = o / (step->channels / conv.groups) * inner + i / taps % inner;
            step->weighed[i] = step->weight[i] * from->amplitude[c];
        }
    }
    const size_t length = dsr_packed_length(conv);
    if (length > *left / sizeof *step->packed || !(step->packed = dsr_scratch(length, sizeof *step->packed)))
        return 0;
    *left -= length * sizeof *step->packed;
    dsr_pack_weights(step->weighed ? step->weighed : step->weight, step->packed, conv);
    return 1;
}

static int make_rows(model_step *step) {
    if (!(step->rows = dsr_scratch(3 * step->channels, sizeof *step->rows)))
        return 0;
    for (size_t c = 0; c < step->channels; c++) {
        const size_t k = step->thresholds > 1 ? c : 0;
        step->rows[c] = step->rows[2 * step->channels + c] = step->v_threshold[k];
        step->rows[step->channels + c] = step->fire[k];
    }
    return 1;
}

/* ---- integers */

/* Where a weight is in its column of packed rows, of which those of a block have to fit 16 bits in any subset. */
typedef struct {
    size_t part;
    int above, below;
} column;

static size_t part_of(column *c, int weight, int fits_always) {
    c->above += weight > 0 ? weight : 0;
    c->below += weight < 0 ? weight : 0;
    if (!fits_always && (c->above > DSR_INTEGER_LIMIT || c->below < -DSR_INTEGER_LIMIT))
        *c = (column){c->part + 1, weight > 0 ? weight : 0, weight < 0 ? weight : 0};
    return c->part;
}

/* Goes over the weights of an output channel block by block, and writes them unless `packed` is NULL; how many parts
 * they need. */
static size_t pack_channel(const model_term *term, size_t o, int16_t *packed, int fits_always) {
    const dsr_conv *conv = &term->conv;
    const size_t taps = conv->y.taps * conv->x.taps, inner = conv->in_channels / conv->groups;
    const size_t first = o / (conv->out_channels / conv->groups) * inner, rows = term->block_rows - 1;
    size_t parts = 1, block = SIZE_MAX;
    column c = {0};
    for (size_t i = 0; i < inner * taps; i++) {
        const size_t row = first * taps + i;
        if (row / rows != block) {
            block = row / rows;
            c = (column){0};
        }
        const int weight = weight_of(term, o * inner * taps + i);
        const size_t part = part_of(&c, weight, fits_always);
        parts = part >= parts ? part + 1 : parts;
        const size_t at = (o / DSR_INTEGER_ROW * term->blocks + block) * term->block_rows + 1 + row % rows;
        if (packed)
            packed[part * term->part + at * DSR_INTEGER_ROW + o % DSR_INTEGER_ROW] = (int16_t)weight;
    }
    return parts;
}

static dsr_model_status pack_integers(model_term *term, int is_data, size_t *left) {
    term->blocks = dsr_integer_blocks(term->conv, &term->block_rows);
    term->part = multiply(multiply(blocks_of(term->conv.out_channels, DSR_INTEGER_ROW) * DSR_INTEGER_ROW, term->blocks),
                          term->block_rows);
    term->parts = 1;
    for (size_t o = 0; o < term->conv.out_channels && !is_data; o++) {
        const size_t parts = pack_channel(term, o, NULL, 0);
        term->parts = parts > term->parts ? parts : term->parts;
    }
    const size_t count = multiply(term->parts, term->part);
    if (count > *left / sizeof *term->packed)
        return DSR_MODEL_TOO_LARGE;
    *left -= count * sizeof *term->packed;
    if (!(term->packed = dsr_scratch(count, sizeof *term->packed)))
        return DSR_MODEL_NO_MEMORY;
    memset(term->packed, 0, count * sizeof *term->packed);
    for (size_t o = 0; o < term->conv.out_channels; o++)
        pack_channel(term, o, term->packed, is_data);
    return DSR_MODEL_OK;
}

/* ---- all */

static void find_readers(dsr_model *model) {
    for (size_t i = 0; i < model->step_count; i++) {
        model->steps[i].is_fused = 0;
        model->steps[i].reader_count = 0;
        for (uint32_t k = 0; k < model->steps[i].input_count; k++) {
            model_step *from = &model->steps[model->steps[i].inputs[k]];
            from->last_reader = i;
            from->reader_count++;
        }
    }
    for (size_t i = 0; i < model->step_count; i++) {
        model_step *step = &model->steps[i];
        model_step *from = step->kind == STEP_NEURONS ? &model->steps[step->inputs[0]] : NULL;
        if (!from || from->kind != STEP_CONVOLUTION || from->reader_count > 1 || !convolves_spikes(model, from))
            continue;
        from->is_fused = 1;
        model_step *spikes = &model->steps[from->inputs[0]];
        spikes->last_reader = spikes->last_reader > i ? spikes->last_reader : i;
    }
}

/* Which neurons read the frame alone, and whether a run may do them first, for the frames of several time steps. */
static void find_frames(dsr_model *model) {
    model->looks_ahead = 1;
    for (size_t i = 0; i < model->step_count; i++) {
        model_step *step = &model->steps[i];
        uint32_t steady = 0;
        for (uint32_t k = 0; k < step->input_count; k++)
            steady += model->steps[step->inputs[k]].steady != 0;
        step->reads_frame = (step->kind == STEP_NEURONS || step->kind == STEP_INTEGER_NEURONS) && steady > 0 &&
                            steady == step->input_count;
        if (!step->steady && steady && !step->reads_frame)
            model->looks_ahead = 0;
    }
    if (model->steps[model->step_count - 1].steady)
        model->looks_ahead = 0;
}

static dsr_model_status make_ready(dsr_model *model) {
    size_t left = MOST_PACKED;
    find_readers(model);
    find_frames(model);
    for (size_t i = 0; i < model->step_count; i++) {
        model_step *step = &model->steps[i];
        int good = 1;
        if (step->kind == STEP_CONVOLUTION && convolves_spikes(model, step))
            good = pack_floats(step, &model->steps[step->inputs[0]], &left);
        else if (step->kind == STEP_NEURONS)
            good = make_rows(step);
        if (good && step->amplitudes && !is_integer(model))
            good = make_heights(step);
        for (uint32_t k = 0; good && step->terms && k < step->input_count; k++)
            if (!step->terms[k].is_added) {
                const model_step *from = &model->steps[step->inputs[k]];
                const dsr_model_status status = pack_integers(&step->terms[k], !from->amplitudes, &left);
                if (status != DSR_MODEL_OK)
                    return status;
            }
        if (!good)
            return DSR_MODEL_NO_MEMORY;
    }
    return DSR_MODEL_OK;
}

static void forget(dsr_model *model) {
    for (size_t i = 0; i < model->step_count; i++)
        dsr_step_forget(&model->steps[i]);
}

static pthread_mutex_t packing = PTHREAD_MUTEX_INITIALIZER;
static const char *level = NULL; /* of instructions, once it is chosen */

dsr_model_status dsr_model_ready(const dsr_model *model, char *message) {
    dsr_model *own = (dsr_model *)(uintptr_t)model; /* what users see of it does not change */
    dsr_model_status status = DSR_MODEL_OK;
    pthread_mutex_lock(&packing);
    if (!level && (level = dsr_select_level(getenv("DSR_LEVEL"))))
        dsr_threads_setup();
    if (!level)
        status = dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "DSR_LEVEL: there is no such level of instructions.");
    else if (!own->is_ready) {
        status = make_ready(own);
        own->is_ready = status == DSR_MODEL_OK;
        if (!own->is_ready)
            forget(own);
    }
    pthread_mutex_unlock(&packing);
    if (status == DSR_MODEL_TOO_LARGE)
        return dsr_model_fail(status, message, "The model has larger layers than this library takes.");
    if (status == DSR_MODEL_NO_MEMORY)
        return dsr_model_fail(status, message, "There is not enough memory for the weights of the model.");
    return status;
}
