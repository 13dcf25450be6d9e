/* Steps of integers, see dsr/deploy/integer_steps.py: the bits of dsr, whatever the level and the threads. */
#include "stream.h"

#include <math.h>
#include <string.h>

void dsr_see_integers(dsr_stream *s, const float *data) {
    const model_step *input = step_of(s, 0);
    const size_t n = s->model->inputs;
    int32_t *to = s->signals[0];
    for (size_t l = 0; l < s->samples; l++)
        for (size_t i = 0; i < n; i++) {
            const double scaled = rint(ldexp((double)data[s->numbers[l] * n + i], input->shift));
            const double most = (double)input->most;
            to[i * s->samples + l] = (int32_t)(scaled > most ? most : scaled < -most ? -most : scaled);
        }
}

/* ---- currents, as rows [ceil(C / 64)][P][L][64] */

/* Adds a signal times a weight for each channel to rows. */
static void add_signal(const dsr_stream *s, const model_term *term, size_t number, int32_t *rows) {
    const model_step *from = step_of(s, number);
    const size_t n = step_pixels(from) * lanes_of(s, from);
    for (size_t c = 0; c < from->channels; c++) {
        int32_t *to = rows + c / DSR_INTEGER_ROW * n * DSR_INTEGER_ROW + c % DSR_INTEGER_ROW;
        if (!from->amplitudes) {
            const int32_t *values = (const int32_t *)s->signals[number] + c * n;
            for (size_t i = 0; i < n; i++)
                to[i * DSR_INTEGER_ROW] += term->weight[c] * values[i];
            continue;
        }
        for (size_t k = 0; k < from->planes; k++) {
            const size_t word = k * blocks_of(from->channels, DSR_WORD) + c / DSR_WORD;
            const uint32_t *words = (const uint32_t *)s->signals[number] + word * n;
            for (size_t i = 0; i < n; i++)
                to[i * DSR_INTEGER_ROW] += (int32_t)(words[i] >> c % DSR_WORD & 1u) * term->weight[c] * (1 << k);
        }
    }
}

static size_t row_pixels(const model_step *step) {
    return blocks_of(step->channels, DSR_INTEGER_ROW) * step_pixels(step);
}

static size_t row_bytes(const model_step *step, size_t lanes) {
    return row_pixels(step) * lanes * DSR_INTEGER_ROW * sizeof(int32_t);
}

void dsr_keep_current(dsr_stream *s, size_t number) {
    const model_step *step = step_of(s, number);
    memset(s->kept[number], 0, row_bytes(step, s->samples));
    for (uint32_t i = 0; i < step->input_count; i++) {
        const model_term *term = &step->terms[i];
        dsr_conv conv = term->conv;
        conv.lanes = s->samples;
        if (!step_of(s, step->inputs[i])->steady)
            continue;
        if (term->is_added)
            add_signal(s, term, step->inputs[i], s->kept[number]);
        else
            check(s, dsr_integer_conv2d(s->signals[step->inputs[i]], term->packed, s->kept[number], conv, term->shift));
    }
}

/* A convolution of a plane of spikes with a part of the weights. */
typedef struct {
    const uint32_t *words;
    const int16_t *packed;
    dsr_conv conv;
    unsigned shift, table_bits;
} plane_taps;

/* A current while it is added up: the last convolution and a train that is added are kept back for the neurons. */
typedef struct {
    int32_t *rows; /* NULL: 0 */
    plane_taps last;
    const uint32_t *shortcut;
    const int32_t *shortcut_weight;
} integer_current;

/* Rows that may be added to. */
static int32_t *own_rows(dsr_stream *s, size_t number, integer_current *current) {
    if (current->rows != s->rows) {
        const model_step *step = step_of(s, number);
        if (current->rows)
            repeat_steps(current->rows, s->rows, row_pixels(step), s->steps, s->samples * DSR_INTEGER_ROW);
        else
            memset(s->rows, 0, row_bytes(step, s->steps * s->samples));
        current->rows = s->rows;
    }
    return current->rows;
}

static void add_plane(dsr_stream *s, size_t number, integer_current *current, const plane_taps *taps) {
    if (taps->words)
        check(s, dsr_integer_conv2d_spikes(taps->words, (dsr_integer_weights){taps->packed, 1},
                                           own_rows(s, number, current), taps->conv, taps->shift, taps->table_bits));
}

static void add_taps(dsr_stream *s, size_t number, integer_current *current, uint32_t which) {
    const size_t source = step_of(s, number)->inputs[which];
    const model_term *term = &step_of(s, number)->terms[which];
    const model_step *from = step_of(s, source);
    const size_t plane = signal_numbers(from) / from->planes * lanes_of(s, from);
    plane_taps taps = {.conv = term->conv};
    taps.conv.lanes = lanes_of(s, from);
    for (size_t k = 0; k < from->planes; k++) {
        taps.words = (const uint32_t *)s->signals[source] + k * plane;
        taps.shift = (unsigned)term->shift + (unsigned)k;
        taps.table_bits = dsr_table_bits(taps.words, plane, (double)(step_numbers(from) * taps.conv.lanes),
                                         term->conv.y.taps * term->conv.x.taps);
        for (size_t part = 0; part < term->parts; part++) {
            taps.packed = term->packed + part * term->part;
            add_plane(s, number, current, &current->last);
            current->last = taps;
        }
    }
}

static integer_current current_of(dsr_stream *s, size_t number, int to_neurons) {
    const model_step *step = step_of(s, number);
    integer_current current = {.rows = s->kept[number]};
    for (uint32_t i = 0; i < step->input_count; i++) {
        const model_step *from = step_of(s, step->inputs[i]);
        if (from->steady)
            continue;
        if (!step->terms[i].is_added)
            add_taps(s, number, &current, i);
        else if (to_neurons && from->planes == 1 && !current.shortcut) {
            current.shortcut = s->signals[step->inputs[i]];
            current.shortcut_weight = step->terms[i].weight;
        } else
            add_signal(s, &step->terms[i], step->inputs[i], own_rows(s, number, &current));
    }
    return current;
}

/* A convolution of no channels: of neurons that read rows alone. */
static dsr_conv no_convolution(const model_step *step) {
    const dsr_conv_axis y = {step->height, 1, step->height, 1, 1, 1, 0}, x = {step->width, 1, step->width, 1, 1, 1, 0};
    return (dsr_conv){y, x, 0, step->channels, 1, 0};
}

static void fire(dsr_stream *s, size_t number) {
    const model_step *step = step_of(s, number);
    integer_current current = current_of(s, number, 1);
    const dsr_after_integer_conv after = {.current = current.rows,
                                          .one_step = current.rows != s->rows,
                                          .bias = step->start,
                                          .shortcut_weight = current.shortcut_weight,
                                          .shortcut = current.shortcut,
                                          .reset = step->reset,
                                          .fire = step->fires_at,
                                          .decay = step->leak,
                                          .potentials = s->potentials[number]};
    plane_taps *last = &current.last;
    if (!last->words) {
        last->conv = no_convolution(step);
        last->conv.lanes = lanes_of(s, step);
        last->table_bits = 1;
    }
    check(s, dsr_integer_conv2d_neuron_spikes(last->words, (dsr_integer_weights){last->packed, 1}, s->signals[number],
                                              last->conv, s->steps, last->shift, last->table_bits, after));
}

/* ---- the output */

static int64_t next_sum(int64_t sum, int32_t leak, int64_t number) {
    if (leak == 1 << DSR_DECAY_BITS)
        return sum + number;
    return ((sum * leak + (1 << (DSR_DECAY_BITS - 1))) >> DSR_DECAY_BITS) + (number << DSR_DECAY_BITS);
}

/* Where the sum over time of an output is, given its lane [T][B]. */
static size_t sum_of(const dsr_stream *s, size_t output, size_t lane) {
    return output * s->samples + lane % s->samples;
}

static void read_current(dsr_stream *s, size_t number) {
    const model_step *step = step_of(s, number);
    integer_current current = current_of(s, number, 0);
    const size_t pixels = step_pixels(step), lanes = s->steps * s->samples;
    add_plane(s, number, &current, &current.last);
    const int32_t *rows = current.rows ? own_rows(s, number, &current) : NULL;
    for (size_t c = 0; c < step->channels && s->status == DSR_MODEL_OK; c++)
        for (size_t i = 0; i < pixels * lanes; i++) {
            const size_t at = (c / DSR_INTEGER_ROW * pixels * lanes + i) * DSR_INTEGER_ROW + c % DSR_INTEGER_ROW;
            s->sums[sum_of(s, c * pixels + i / lanes, i % lanes)] += step->start[c] + (rows ? rows[at] : 0);
        }
}

static void read_spikes(dsr_stream *s, const model_step *step) {
    const uint32_t *words = s->signals[step->inputs[0]];
    const size_t pixels = step_pixels(step), lanes = s->steps * s->samples, n = pixels * lanes;
    for (size_t c = 0; c < step->channels; c++)
        for (size_t i = 0; i < n; i++) {
            int64_t *sum = &s->sums[sum_of(s, c * pixels + i / lanes, i % lanes)];
            *sum = next_sum(*sum, step->leak, words[c / DSR_WORD * n + i] >> c % DSR_WORD & 1u);
        }
}

void dsr_do_integers(dsr_stream *s, size_t number) {
    const model_step *step = step_of(s, number);
    if (step->kind == STEP_INTEGER_NEURONS) {
        fire(s, number);
        return;
    }
    if (step->kind == STEP_READ_CURRENT)
        read_current(s, number);
    else
        read_spikes(s, step);
    for (size_t l = 0; l < s->steps * s->samples; l++)
        s->counts[l % s->samples] = next_sum(s->counts[l % s->samples], step->leak, 1);
}
