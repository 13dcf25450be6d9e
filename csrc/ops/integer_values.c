/* Convolution of integer weights over integer values, such as the data, to a current or through neurons to spikes. */
#include "integer_neurons.h"
#include "spike_tiles.h"

/* Lanes of output pixels that are added up together: their sums stay in the first cache. */
enum { TARGETS = 64 };

/* Weights and values lie in pairs, of an even and an odd index, channel * taps + tap. */
typedef struct {
    spike_conv_plan plan; /* its blocks, as the weights are packed */
    const int32_t *values;
    size_t lanes; /* of the values: those of all time steps, or of one that is the same at all of them */
    size_t pairs;
    int16_t *rows;        /* [out block][pair][DSR_INTEGER_ROW][2] */
    size_t *down, *right; /* the row, and the column, that each output and tap reads; SIZE_MAX: none */
    int shift;
} value_conv;

static size_t *find_pixels_of(const dsr_conv_axis *axis) {
    size_t *found = dsr_scratch(axis->out * axis->taps, sizeof *found);
    for (size_t i = 0; found && i < axis->out * axis->taps; i++)
        found[i] = pixel_at(axis, i / axis->taps * axis->stride + i % axis->taps * axis->dilation);
    return found;
}

static int make_value_conv(value_conv *v, const int32_t *values, dsr_conv conv, size_t lanes, int shift) {
    *v = (value_conv){.plan = make_blocks(conv), .values = values, .lanes = lanes, .shift = shift};
    v->plan.out_blocks = dsr_blocks(conv.out_channels, DSR_INTEGER_ROW);
    v->pairs = dsr_blocks(conv.in_channels * v->plan.taps, 2);
    v->rows = dsr_scratch(v->plan.out_blocks * v->pairs * 2 * DSR_INTEGER_ROW, sizeof *v->rows);
    v->down = find_pixels_of(&conv.y), v->right = find_pixels_of(&conv.x);
    return v->rows && v->down && v->right;
}

static void free_value_conv(value_conv *v) {
    dsr_release(v->rows);
    dsr_release(v->down);
    dsr_release(v->right);
}

/* Pair `index` of all out blocks; the partner of the last one may be missing. */
static void pair_rows(const value_conv *v, const int16_t *packed, size_t index) {
    const spike_conv_plan *p = &v->plan;
    size_t out = index / v->pairs, first = index % v->pairs * 2, rows = p->block_rows - 1;
    int16_t *to = v->rows + index * 2 * DSR_INTEGER_ROW;
    for (size_t k = 0; k < 2; k++) {
        size_t at = first + k, row = (out * p->blocks + at / rows) * p->block_rows + 1 + at % rows;
        int exists = at < p->conv.in_channels * p->taps;
        for (size_t o = 0; o < DSR_INTEGER_ROW; o++)
            to[2 * o + k] = exists ? packed[row * DSR_INTEGER_ROW + o] : 0;
    }
}

/* What n lanes from `first` on of an output pixel read: pairs[n][v->pairs]. */
static void gather_pairs(const value_conv *v, size_t pixel, size_t first, size_t n, uint32_t *pairs) {
    const dsr_conv_axis *y = &v->plan.conv.y, *x = &v->plan.conv.x;
    const size_t *down = v->down + pixel / x->out * y->taps, *right = v->right + pixel % x->out * x->taps;
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        pairs[(i + 1) * v->pairs - 1] = 0; /* whose upper half may have no value */
    for (size_t c = 0; c < v->plan.conv.in_channels; c++)
        for (size_t ty = 0; ty < y->taps; ty++)
            for (size_t tx = 0; tx < x->taps; tx++, at++) {
                const int32_t *from = NULL;
                if (down[ty] != SIZE_MAX && right[tx] != SIZE_MAX)
                    from = v->values + ((c * y->size + down[ty]) * x->size + right[tx]) * v->lanes + first;
                uint32_t *to = pairs + at / 2;
                for (size_t i = 0; i < n; i++, to += v->pairs) {
                    uint32_t value = from ? (uint16_t)from[i] : 0;
                    *to = at % 2 ? *to | value << 16 : value;
                }
            }
}

/* sums[n][DSR_INTEGER_ROW] += those of an out block. */
static void add_products(const value_conv *v, size_t out, const uint32_t *pairs, size_t n, int32_t *sums) {
    dsr_kernel->sum_value_rows(v->rows + out * v->pairs * 2 * DSR_INTEGER_ROW, pairs, v->pairs, n, v->shift, sums);
}

/* A current, or neurons. */
typedef struct {
    int32_t *current;
    const integer_neurons *neurons; /* NULL: a current */
} value_output;

/* Some output pixels, and lanes of a current, or all steps of samples, at each. */
typedef struct {
    size_t pixel, pixels, first, n, steps;
} value_tile;

static void convolve_tile(const value_conv *v, const value_output *o, const value_tile *t, uint32_t *pairs,
                          int32_t *sums) {
    size_t pixels = v->plan.conv.y.out * v->plan.conv.x.out, n = t->steps * t->n, targets = t->pixels * n;
    for (size_t k = 0; k < t->pixels; k++)
        for (size_t step = 0; step < t->steps; step++)
            gather_pairs(v, t->pixel + k, step * (v->lanes / t->steps) + t->first, t->n,
                         pairs + (k * n + step * t->n) * v->pairs);
    for (size_t out = 0; out < v->plan.out_blocks; out++) {
        if (!o->neurons) {
            for (size_t k = 0; k < t->pixels; k++)
                add_products(v, out, pairs + k * n * v->pairs, n,
                             o->current + ((out * pixels + t->pixel + k) * v->lanes + t->first) * DSR_INTEGER_ROW);
            continue;
        }
        for (size_t i = 0; i < targets; i++)
            memcpy(sums + i * DSR_INTEGER_ROW, channel_row(o->neurons, out, BIAS), DSR_INTEGER_ROW * sizeof *sums);
        add_products(v, out, pairs, targets, sums);
        for (size_t k = 0; k < t->pixels; k++)
            fire_neurons(o->neurons, sums + k * n * DSR_INTEGER_ROW, out, t->pixel + k, t->first, t->n);
    }
}

static dsr_status convolve_values(const value_conv *v, const int16_t *packed, const value_output *o) {
    size_t pixels = v->plan.conv.y.out * v->plan.conv.x.out, steps = o->neurons ? v->lanes / o->neurons->run : 1;
    size_t run = v->lanes / steps, piece = least(run, steps < TARGETS ? TARGETS / steps : 1);
    size_t pixels_together = least(pixels, piece * steps < TARGETS ? TARGETS / (piece * steps) : 1);
    size_t pieces = dsr_blocks(run, piece), tasks = dsr_blocks(pixels, pixels_together) * pieces;
    size_t targets = pixels_together * steps * piece;
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(tasks *targets * v->plan.conv.out_channels))
    {
        uint32_t *pairs = dsr_scratch(targets * v->pairs, sizeof *pairs);
        int32_t *sums = dsr_scratch(targets * DSR_INTEGER_ROW, sizeof *sums);
        if (!pairs || !sums) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(v->plan.out_blocks * v->pairs); i++)
            pair_rows(v, packed, (size_t)i);
        /* all threads have passed a barrier: they see the same status */
        if (status == DSR_OK) {
#pragma omp for schedule(static)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)tasks; i++) {
                value_tile t = {.pixel = (size_t)i / pieces * pixels_together, .steps = steps};
                t.pixels = least(pixels_together, pixels - t.pixel);
                t.first = (size_t)i % pieces * piece;
                t.n = least(piece, run - t.first);
                convolve_tile(v, o, &t, pairs, sums);
            }
        }
        dsr_release(pairs);
        dsr_release(sums);
    }
    return status;
}

dsr_status dsr_integer_conv2d(const int32_t *values, const int16_t *packed, int32_t *rows, dsr_conv conv, int shift) {
    if (is_empty(&conv))
        return DSR_OK;
    value_conv v;
    value_output to = {.current = rows};
    int made = make_value_conv(&v, values, conv, conv.lanes, shift);
    dsr_status status = made ? convolve_values(&v, packed, &to) : DSR_NO_MEMORY;
    free_value_conv(&v);
    return status;
}

dsr_status dsr_integer_conv2d_value_neuron_spikes(const int32_t *values, const int16_t *packed, uint32_t *output,
                                                  dsr_conv conv, size_t timesteps, int shift,
                                                  dsr_after_integer_conv after) {
    if (is_empty(&conv))
        return DSR_OK;
    value_conv v;
    integer_neurons neurons;
    dsr_status status = DSR_NO_MEMORY;
    int made = make_value_conv(&v, values, conv, after.one_step ? conv.lanes / timesteps : conv.lanes, shift);
    if (make_neurons(&neurons, &conv, timesteps, output, &after) && made) {
        neurons.one_step = after.one_step;
        value_output to = {.neurons = &neurons};
        status = convolve_values(&v, packed, &to);
    }
    dsr_release(neurons.channels);
    free_value_conv(&v);
    return status;
}
