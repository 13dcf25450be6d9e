/* The memory of a stream: what a frame determines and what is kept from step to step have places of their own; other
 * signals share places, since each is needed until its last reader is done. */
#include "../ops/ops.h"
#include "stream.h"

#include <stdlib.h>

/* Memory that signals of a time step share, one after the other. */
typedef struct {
    size_t numbers, busy_until;
    void *at;
} slot;

/* Memory of count * bytes, which is the stream's; NULL and a status where there is none. */
static void *take(dsr_stream *s, size_t a, size_t b, size_t bytes) {
    const size_t count = multiply(a, b);
    void *memory = NULL;
    if (count > MOST_NUMBERS)
        s->status = DSR_MODEL_TOO_LARGE;
    else if (!(memory = dsr_scratch(count, bytes)) && s->status == DSR_MODEL_OK)
        s->status = DSR_MODEL_NO_MEMORY;
    if (memory)
        s->blocks[s->block_count++] = memory;
    return memory;
}

/* The same for an array of the samples. */
static void *take_array(dsr_stream *s, size_t outer, size_t numbers, size_t bytes, int is_state) {
    const size_t count = multiply(outer, numbers);
    void *memory = take(s, count, s->batch, bytes);
    if (memory)
        s->arrays[s->array_count++] = (sample_array){memory, outer, numbers * bytes, is_state};
    else if (s->status == DSR_MODEL_OK)
        s->status = DSR_MODEL_TOO_LARGE;
    return memory;
}

/* The same for the samples at all time steps that are done at once. */
static void *take_lanes(dsr_stream *s, size_t numbers, size_t bytes) {
    return take(s, numbers, multiply(s->batch, s->most_steps), bytes);
}

static size_t rows_of(const model_step *step, size_t row) {
    return multiply(blocks_of(step->channels, row), step_pixels(step));
}

/* Whether a step reads spikes as values, or what follows from the frame alone at every time step. */
static int needs_scratch(const dsr_stream *s, const model_step *step, const model_step *from) {
    if (!from->amplitudes)
        return s->most_steps > 1 && from->steady && !step->steady &&
               (step->kind == STEP_SUM || step->kind == STEP_CONCAT);
    switch (step->kind) {
    case STEP_CONVOLUTION:
        return !convolves_spikes(s->model, step);
    case STEP_SUM:
    case STEP_AVERAGE_POOL:
    case STEP_NEURONS:
        return 1;
    default:
        return 0;
    }
}

static int reads_the_frame(const dsr_stream *s, const model_step *step) {
    for (uint32_t k = 0; step->terms && k < step->input_count; k++)
        if (step_of(s, step->inputs[k])->steady)
            return 1;
    return 0;
}

static int has_signal(const model_step *step) {
    return !step->unit && !step->is_fused;
}

static void find_slot(const dsr_stream *s, size_t number, slot *slots, size_t *count, size_t *slot_of) {
    const model_step *step = step_of(s, number);
    size_t k = 0;
    while (k < *count && slots[k].busy_until >= number)
        k++;
    *count += k == *count;
    const size_t numbers = signal_numbers(step);
    slots[k].numbers = numbers > slots[k].numbers ? numbers : slots[k].numbers;
    slots[k].busy_until = step->last_reader > number ? step->last_reader : number;
    slot_of[number] = k;
}

static void place_signals(dsr_stream *s) {
    const size_t steps = s->model->step_count;
    slot *slots = calloc(steps, sizeof *slots);
    size_t *slot_of = calloc(steps, sizeof *slot_of), count = 0;
    if (!slots || !slot_of)
        s->status = DSR_MODEL_NO_MEMORY;
    for (size_t i = 0; i < steps && s->status == DSR_MODEL_OK; i++)
        if (step_of(s, i)->steady)
            s->signals[i] = take_array(s, signal_numbers(step_of(s, i)), 1, 4, 0);
        else if (has_signal(step_of(s, i)))
            find_slot(s, i, slots, &count, slot_of);
    for (size_t k = 0; k < count && s->status == DSR_MODEL_OK; k++)
        slots[k].at = take_lanes(s, slots[k].numbers, 4);
    for (size_t i = 0; i < steps && s->status == DSR_MODEL_OK; i++)
        if (!step_of(s, i)->steady && has_signal(step_of(s, i)))
            s->signals[i] = slots[slot_of[i]].at;
    free(slots);
    free(slot_of);
}

static void place_state(dsr_stream *s) {
    for (size_t i = 0; i < s->model->step_count && s->status == DSR_MODEL_OK; i++) {
        const model_step *step = step_of(s, i);
        if (step->kind == STEP_NEURONS)
            s->potentials[i] = take_array(s, rows_of(step, DSR_ROW), DSR_ROW, sizeof(float), 1);
        if (step->kind == STEP_INTEGER_NEURONS)
            s->potentials[i] = take_array(s, rows_of(step, DSR_INTEGER_ROW), DSR_INTEGER_ROW, sizeof(int16_t), 1);
        if (reads_the_frame(s, step))
            s->kept[i] = take_array(s, rows_of(step, DSR_INTEGER_ROW), DSR_INTEGER_ROW, sizeof(int32_t), 0);
    }
    if (is_integer(s->model)) {
        s->sums = take_array(s, s->model->outputs, 1, sizeof *s->sums, 1);
        s->counts = take_array(s, 1, 1, sizeof *s->counts, 1);
    } else {
        s->means = take_array(s, s->model->outputs, 1, sizeof *s->means, 1);
        s->weights = take_array(s, 1, 1, sizeof *s->weights, 1);
    }
}

static void place_scratch(dsr_stream *s) {
    size_t values = 0, rows = 0, channels = 1, before = 0, after = 0, spikes = 0;
    for (size_t i = 0; i < s->model->step_count; i++) {
        const model_step *step = step_of(s, i);
        const size_t needed = step->terms ? rows_of(step, DSR_INTEGER_ROW) : 0;
        rows = needed > rows ? needed : rows;
        if (step->kind == STEP_SUM && step->channels > channels)
            channels = step->channels;
        if (step->reads_frame && s->most_steps > 1 && signal_numbers(step) > spikes)
            spikes = signal_numbers(step);
        if (step->kind == STEP_CONVOLUTION && !step->steady && !convolves_spikes(s->model, step) && s->most_steps > 1) {
            const size_t inputs = step_numbers(step_of(s, step->inputs[0]));
            before = inputs > before ? inputs : before;
            after = step_numbers(step) > after ? step_numbers(step) : after;
        }
        for (uint32_t k = 0; k < step->input_count; k++) {
            const model_step *from = step_of(s, step->inputs[k]);
            values = needs_scratch(s, step, from) && step_numbers(from) > values ? step_numbers(from) : values;
        }
    }
    const model_step *last = step_of(s, s->model->step_count - 1);
    values = last->amplitudes && step_numbers(last) > values ? step_numbers(last) : values;
    s->scratch = take_lanes(s, values, sizeof *s->scratch);
    s->rows = take_lanes(s, multiply(rows, DSR_INTEGER_ROW), sizeof *s->rows);
    s->before = take(s, before, s->batch, sizeof *s->before);
    s->after = take(s, after, s->batch, sizeof *s->after);
    s->spikes = take(s, spikes, s->batch, 4);
    s->ones = take(s, channels, 1, sizeof *s->ones);
    s->zeros = take(s, channels, 1, sizeof *s->zeros);
    s->numbers = take(s, 1, s->batch, sizeof *s->numbers);
    s->stays = take(s, 1, s->batch, sizeof *s->stays);
    for (size_t c = 0; c < channels && s->ones && s->zeros; c++) {
        s->ones[c] = 1;
        s->zeros[c] = 0;
    }
}

dsr_model_status dsr_stream_plan(dsr_stream *s) {
    const size_t steps = s->model->step_count;
    s->signals = calloc(steps, sizeof *s->signals);
    s->potentials = calloc(steps, sizeof *s->potentials);
    s->kept = calloc(steps, sizeof *s->kept);
    s->arrays = calloc(3 * steps + 2, sizeof *s->arrays); /* signal, potentials and kept current of each; the output */
    s->blocks = calloc(3 * steps + 2 + 9, sizeof *s->blocks);
    if (!s->signals || !s->potentials || !s->kept || !s->arrays || !s->blocks)
        return DSR_MODEL_NO_MEMORY;
    place_signals(s);
    if (s->status == DSR_MODEL_OK)
        place_state(s);
    if (s->status == DSR_MODEL_OK)
        place_scratch(s);
    return s->status;
}

void dsr_stream_release(dsr_stream *s) {
    if (s->whole)
        dsr_stream_release(s->whole);
    for (size_t i = 0; i < s->block_count; i++)
        dsr_release(s->blocks[i]);
    free(s->signals);
    free(s->potentials);
    free(s->kept);
    free(s->arrays);
    free(s->blocks);
    free(s);
}
