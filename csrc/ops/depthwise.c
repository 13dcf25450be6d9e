/* Depthwise convolutions: see kernels/depthwise.h. */
#include "depthwise.h"

#include <string.h>

/* Channels of a block share the words of their spikes, which lie side by side, and a thread. */
enum { CHANNELS = 16 };

/* A pixel that is read, and by which tap. */
typedef struct {
    size_t pixel, tap;
} source_pixel;

/* Rows and columns that targets read, [target][tap]; SIZE_MAX: none. They are looked up for every channel, where
 * gather_pixel divides. */
typedef struct {
    const gather_axis *y, *x;
    size_t *rows, *columns;
} pixel_map;

static int make_map(pixel_map *map, const gather_axis *y, const gather_axis *x) {
    *map = (pixel_map){y, x, dsr_scratch(y->targets * y->taps, sizeof *map->rows),
                       dsr_scratch(x->targets * x->taps, sizeof *map->columns)};
    if (!map->rows || !map->columns)
        return 0;
    for (size_t i = 0; i < y->targets * y->taps; i++)
        map->rows[i] = gather_pixel(y, i / y->taps, i % y->taps);
    for (size_t i = 0; i < x->targets * x->taps; i++)
        map->columns[i] = gather_pixel(x, i / x->taps, i % x->taps);
    return 1;
}

static void free_map(pixel_map *map) {
    dsr_release(map->rows);
    dsr_release(map->columns);
}

/* What a target pixel reads: how many. */
static size_t find_pixels(const pixel_map *map, size_t row, size_t column, source_pixel *found) {
    size_t count = 0, tap = 0;
    for (size_t ky = 0; ky < map->y->taps; ky++)
        for (size_t kx = 0; kx < map->x->taps; kx++, tap++) {
            size_t y = map->rows[row * map->y->taps + ky], x = map->columns[column * map->x->taps + kx];
            if (y != SIZE_MAX && x != SIZE_MAX)
                found[count++] = (source_pixel){y * map->x->size + x, tap};
        }
    return count;
}

static dsr_status convolve(const float *source, const float *weight, const float *bias, float *target,
                           const dsr_conv *conv, const gather_axis *y, const gather_axis *x) {
    size_t rows = y->targets, columns = x->targets, taps = y->taps * x->taps, plane = y->size * x->size;
    size_t lanes = conv->lanes;
    pixel_map map;
    dsr_status status = make_map(&map, y, x) ? DSR_OK : DSR_NO_MEMORY;
#pragma omp parallel num_threads(dsr_threads_for(conv->groups *rows *columns *lanes)) if (status == DSR_OK)
    {
        source_pixel *found = dsr_scratch(taps, sizeof *found);
        dsr_tap *read = dsr_scratch(taps, sizeof *read);
        if (!found || !read) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(status == DSR_OK ? conv->groups * rows : 0); i++) {
            size_t c = (size_t)i / rows, row = (size_t)i % rows;
            for (size_t column = 0; column < columns; column++) {
                size_t count = find_pixels(&map, row, column, found);
                for (size_t k = 0; k < count; k++)
                    read[k] = (dsr_tap){source + (c * plane + found[k].pixel) * lanes, weight[c * taps + found[k].tap]};
                dsr_kernel->add_taps(read, count, bias ? bias[c] : 0, lanes,
                                     target + ((size_t)i * columns + column) * lanes);
            }
        }
        dsr_release(found);
        dsr_release(read);
    }
    free_map(&map);
    return status;
}

dsr_status dsr_depthwise(const float *input, const float *weight, const float *bias, float *output,
                         const dsr_conv *conv) {
    gather_axis y = forward_axis(&conv->y), x = forward_axis(&conv->x);
    return convolve(input, weight, bias, output, conv, &y, &x);
}

dsr_status dsr_depthwise_input_gradient(const float *grad_output, const float *weight, float *grad_input,
                                        const dsr_conv *conv) {
    gather_axis y = scatter_axis(&conv->y), x = scatter_axis(&conv->x);
    return convolve(grad_output, weight, NULL, grad_input, conv, &y, &x);
}

/* What the gradient of the weights is taken from: dense values, or the bits of spikes. */
typedef struct {
    const dsr_conv *conv;
    const dsr_gradient *gradient;
    size_t batch;
    const float *values;
    const uint32_t *transposed;
} weight_task;

/* Memory of one thread. */
typedef struct {
    float *grad, *sums; /* lanes of a pixel; [channel of a block][tap][DSR_TAP_SUMS] */
    source_pixel *found;
    const void **places;
    float **into;
} workspace;

static int make_workspace(workspace *w, const dsr_conv *conv) {
    size_t taps = conv->y.taps * conv->x.taps;
    *w = (workspace){.grad = dsr_scratch(dsr_blocks(conv->lanes, DSR_WORD) * DSR_WORD, sizeof *w->grad),
                     .sums = dsr_scratch(CHANNELS * taps * DSR_TAP_SUMS, sizeof *w->sums),
                     .found = dsr_scratch(taps, sizeof *w->found),
                     .places = dsr_scratch(taps, sizeof *w->places),
                     .into = dsr_scratch(taps, sizeof *w->into)};
    if (w->grad) /* lanes beyond the last are 0 */
        memset(w->grad, 0, dsr_blocks(conv->lanes, DSR_WORD) * DSR_WORD * sizeof *w->grad);
    return w->grad && w->sums && w->found && w->places && w->into;
}

static void free_workspace(workspace *w) {
    dsr_release(w->grad);
    dsr_release(w->sums);
    dsr_release(w->found);
    dsr_release(w->places);
    dsr_release(w->into);
}

/* Adds output pixel `at` of all channels, which reads `count` pixels of its channel, whose first is `plane` of all. */
static void add_pixel(const weight_task *task, size_t c, size_t at, size_t plane, size_t count, float *sums,
                      const workspace *w) {
    const dsr_gradient *g = task->gradient;
    size_t lanes = task->conv->lanes, words = dsr_blocks(lanes, DSR_WORD);
    size_t pitch = dsr_blocks(task->conv->in_channels, DSR_WORD) * DSR_WORD;
    for (size_t i = 0; i < count; i++) {
        w->into[i] = sums + w->found[i].tap * DSR_TAP_SUMS;
        w->places[i] = task->values ? (const void *)(task->values + (plane + w->found[i].pixel) * lanes)
                                    : task->transposed + w->found[i].pixel * words * pitch + c;
    }
    if (task->values) {
        dsr_kernel->sum_tap_products(g->values + at * lanes, (const float *const *)w->places, count, lanes, w->into);
        return;
    }
    dsr_kernel->gradient_lanes(g->constant + at * task->batch, g->weights, g->values ? g->values + at * lanes : NULL,
                               g->values ? g->slope[c] : 0, task->batch, 0, lanes, w->grad);
    dsr_kernel->sum_masked_taps(w->grad, (const uint32_t *const *)w->places, count, pitch, words * DSR_WORD, w->into);
}

static dsr_status weight_gradient(const weight_task *task, float amplitude, float *grad_weight) {
    const dsr_conv *conv = task->conv;
    gather_axis y = forward_axis(&conv->y), x = forward_axis(&conv->x);
    size_t taps = y.taps * x.taps, pixels = y.targets * x.targets;
    pixel_map map;
    dsr_status status = make_map(&map, &y, &x) ? DSR_OK : DSR_NO_MEMORY;
#pragma omp parallel num_threads(dsr_threads_for(conv->groups *pixels * conv->lanes)) if (status == DSR_OK)
    {
        workspace w;
        if (!make_workspace(&w, conv)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (ptrdiff_t block = 0; block < (ptrdiff_t)(status == DSR_OK ? dsr_blocks(conv->groups, CHANNELS) : 0);
             block++) {
            size_t first = (size_t)block * CHANNELS, channels = dsr_block_size(conv->groups, CHANNELS, (size_t)block);
            memset(w.sums, 0, CHANNELS * taps * DSR_TAP_SUMS * sizeof *w.sums);
            for (size_t pixel = 0; pixel < pixels; pixel++) {
                size_t count = find_pixels(&map, pixel / x.targets, pixel % x.targets, w.found);
                for (size_t c = first; c < first + channels; c++)
                    add_pixel(task, c, c * pixels + pixel, c * y.size * x.size, count,
                              w.sums + (c - first) * taps * DSR_TAP_SUMS, &w);
            }
            for (size_t i = 0; i < channels * taps; i++) {
                float total = 0;
                for (size_t k = 0; k < DSR_TAP_SUMS; k++)
                    total += w.sums[i * DSR_TAP_SUMS + k];
                grad_weight[first * taps + i] = amplitude * total;
            }
        }
        free_workspace(&w);
    }
    free_map(&map);
    return status;
}

dsr_status dsr_depthwise_weight_gradient(const float *grad_output, const float *input, float *grad_weight,
                                         const dsr_conv *conv) {
    const dsr_gradient gradient = {.values = grad_output};
    return weight_gradient(&(weight_task){conv, &gradient, 0, input, NULL}, 1, grad_weight);
}

dsr_status dsr_depthwise_spikes_weight_gradient(const dsr_gradient *gradient, const uint32_t *transposed,
                                                float amplitude, float *grad_weight, const dsr_conv *conv,
                                                size_t batch) {
    return weight_gradient(&(weight_task){conv, gradient, batch, NULL, transposed}, amplitude, grad_weight);
}
