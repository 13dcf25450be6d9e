/* Blocks of columns (a column is one lane of one tile of 2x2 or 4x4 output pixels) go through three phases, each shared
 * out among the threads: sums of the source windows, one GEMM for each place of a window, sums of the products. */
#include "winograd.h"
#include "blas.h"

#include <string.h>

enum { GEMM_ROWS = 128, MOST_PLACES = 36, MOST_OUTPUTS = 16 };

typedef struct {
    size_t outputs, side, tiles_y, tiles_x; /* of a tile along one direction: outputs, and places of its window */
    size_t lanes;                           /* lanes of a column group: a part of a tile's */
    size_t parts, groups, per_block;
} column_blocks;

/* Outputs of a tile along one direction: 4 where that takes fewer products, and leaves the GEMMs enough columns for
 * their packing of the weights (with 512 channels and 4x4 pixels the smaller tiles are faster up to 128 lanes). The
 * number of lanes does not matter, so that a part of them has the bits of the whole. */
static size_t tile_outputs(const dsr_small_conv *conv) {
    size_t fours = dsr_blocks(conv->rows, 4) * dsr_blocks(conv->columns, 4);
    size_t twos = dsr_blocks(conv->rows, 2) * dsr_blocks(conv->columns, 2);
    return conv->taps == 3 && 36 * fours < 12 * twos && 64 * fours >= conv->outputs ? 4 : 2;
}

/* Columns of a block: sums and products stay in the cache between the phases (256 channels with 4x4 tiles: 9 MB each,
 * with 2x2 tiles 4 MB). More of them share the packed weights, which counts where channels are many. */
static size_t most_columns(const dsr_small_conv *conv, size_t outputs) {
    size_t channels = (conv->channels + conv->outputs) / 2;
    if (outputs == 2)
        return 256;
    return channels < 64 ? 64 : channels > 320 ? 320 : channels;
}

static column_blocks make_column_blocks(const dsr_small_conv *conv) {
    size_t outputs = tile_outputs(conv), most = most_columns(conv, outputs);
    column_blocks t = {.outputs = outputs,
                       .side = outputs + (size_t)conv->taps - 1,
                       .tiles_y = dsr_blocks(conv->rows, outputs),
                       .tiles_x = dsr_blocks(conv->columns, outputs),
                       .parts = dsr_blocks(conv->lanes, most)};
    t.lanes = dsr_blocks(conv->lanes, t.parts); /* of several parts each is more than half a block */
    if (t.parts > 1)
        t.lanes = dsr_blocks(t.lanes, 16) * 16; /* whole vectors */
    t.parts = dsr_blocks(conv->lanes, t.lanes);
    t.groups = t.tiles_y * t.tiles_x * t.parts;
    t.per_block = t.parts > 1 ? 1 : most / t.lanes;
    return t;
}

int dsr_winograd_pays(const dsr_small_conv *conv) {
    if ((conv->taps != 2 && conv->taps != 3) || conv->channels < 32 || conv->outputs < 16 || !conv->lanes)
        return 0;
    size_t outputs = tile_outputs(conv), side = outputs + (size_t)conv->taps - 1;
    double products = (double)(dsr_blocks(conv->rows, outputs) * dsr_blocks(conv->columns, outputs) * side * side);
    return products < 0.7 * (double)(conv->rows * conv->columns * (size_t)(conv->taps * conv->taps));
}

/* Taps of WEIGHTS channels side by side. */
enum { WEIGHTS = 16 };
typedef float weights16[WEIGHTS];

/* One direction of the taps: 2 or 3 values, `pitch` apart, become `side` sums. */
static void spread_taps(weights16 *g, size_t pitch, weights16 *sums, size_t sums_pitch, size_t side) {
    for (size_t i = 0; i < WEIGHTS; i++) {
        float a = g[0][i], b = g[pitch][i];
        if (side == 3) {
            sums[0][i] = a;
            sums[sums_pitch][i] = a + b;
            sums[2 * sums_pitch][i] = b;
            continue;
        }
        float c = g[2 * pitch][i];
        if (side == 4) {
            float outer = 0.5F * (a + c), inner = 0.5F * b;
            sums[0][i] = a;
            sums[sums_pitch][i] = outer + inner;
            sums[2 * sums_pitch][i] = outer - inner;
            sums[3 * sums_pitch][i] = c;
        } else {
            float outer = (a + c) / 6, inner = b / 6, far_outer = a / 24 + c / 6, far_inner = b / 12;
            sums[0][i] = a / 4;
            sums[sums_pitch][i] = -outer - inner;
            sums[2 * sums_pitch][i] = inner - outer;
            sums[3 * sums_pitch][i] = far_outer + far_inner;
            sums[4 * sums_pitch][i] = far_outer - far_inner;
            sums[5 * sums_pitch][i] = c;
        }
    }
}

/* Taps of up to WEIGHTS channels, turned by 180 degrees so that a window is read forwards, to [place][output][channel].
 * Outputs follow one another in memory, so that the channels' lines are used while they are in the cache. */
static void spread_weights(const dsr_small_conv *conv, size_t side, size_t first, float *sums) {
    size_t taps = (size_t)conv->taps, step = conv->outputs * conv->channels;
    size_t n = dsr_block_size(conv->channels, WEIGHTS, first / WEIGHTS);
    weights16 turned[9] = {{0}}, half[18], whole[MOST_PLACES];
    for (size_t output = 0; output < conv->outputs; output++) {
        for (size_t c = 0; c < n; c++) {
            const float *weights = conv->weights + output * conv->output_step + (first + c) * conv->channel_step;
            for (size_t i = 0; i < taps * taps; i++)
                turned[i][c] = weights[(taps - 1 - i / taps) * conv->tap_y + (taps - 1 - i % taps) * conv->tap_x];
        }
        for (size_t i = 0; i < taps; i++)
            spread_taps(turned + i, taps, half + i, taps, side);
        for (size_t i = 0; i < side; i++)
            spread_taps(half + i * taps, 1, whole + i * side, 1, side);
        for (size_t i = 0; i < side * side; i++)
            memcpy(sums + i * step + output * conv->channels + first, whole[i], n * sizeof **whole);
    }
}

typedef struct {
    size_t y, x, first_lane, lanes, column; /* first output pixel, lanes, and where its columns are in the block */
} group;

static group find_group(const dsr_small_conv *conv, const column_blocks *t, size_t number, size_t first) {
    size_t part = number % t->parts, tile = number / t->parts;
    return (group){.y = tile / t->tiles_x * t->outputs,
                   .x = tile % t->tiles_x * t->outputs,
                   .first_lane = part * t->lanes,
                   .lanes = dsr_block_size(conv->lanes, t->lanes, part),
                   .column = (number - first) * t->lanes};
}

static void spread_channel(const dsr_small_conv *conv, const column_blocks *t, const group *g, size_t channel,
                           const float *zeros, float *sums, size_t step) {
    const float *pixels[MOST_PLACES];
    ptrdiff_t side = (ptrdiff_t)t->side;
    for (ptrdiff_t i = 0; i < side * side; i++) {
        ptrdiff_t y = conv->first_y + (ptrdiff_t)g->y - conv->taps + 1 + i / side;
        ptrdiff_t x = conv->first_x + (ptrdiff_t)g->x - conv->taps + 1 + i % side;
        int inside = y >= 0 && x >= 0 && y < (ptrdiff_t)conv->height && x < (ptrdiff_t)conv->width;
        size_t pixel = inside ? (channel * conv->height + (size_t)y) * conv->width + (size_t)x : 0;
        pixels[i] = inside ? conv->source + pixel * conv->lanes + g->first_lane : zeros;
    }
    dsr_kernel->winograd_spread(pixels, sums + g->column, step, g->lanes, (int)t->side);
}

static void gather_output(const dsr_small_conv *conv, const column_blocks *t, const group *g, size_t output,
                          const float *products, size_t step) {
    float *pixels[MOST_OUTPUTS];
    for (size_t i = 0; i < t->outputs * t->outputs; i++) {
        size_t y = g->y + i / t->outputs, x = g->x + i % t->outputs;
        pixels[i] = y < conv->rows && x < conv->columns
                        ? conv->target + output * conv->plane + y * conv->row + x * conv->column + g->first_lane
                        : NULL;
    }
    dsr_kernel->winograd_gather(products + g->column, step, pixels, g->lanes, (int)t->side);
}

dsr_status dsr_winograd(const dsr_small_conv *conv) {
    column_blocks t = make_column_blocks(conv);
    size_t places = t.side * t.side, width = t.per_block * t.lanes;
    size_t channels = conv->channels, outputs = conv->outputs;
    size_t row_blocks = dsr_blocks(outputs, GEMM_ROWS), gemms = places * row_blocks;
    float *weights = dsr_scratch(places * outputs * channels, sizeof *weights);
    float *sums = dsr_scratch(places * channels * width, sizeof *sums);
    float *products = dsr_scratch(places * outputs * width, sizeof *products);
    float *zeros = dsr_scratch(t.lanes, sizeof *zeros);
    dsr_status status = weights && sums && products && zeros ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
        for (size_t i = 0; i < t.lanes; i++)
            zeros[i] = 0;
#pragma omp parallel num_threads(dsr_threads_for(conv->rows * conv->columns * conv->lanes * outputs))
        {
#pragma omp for schedule(static)
            for (ptrdiff_t block = 0; block < (ptrdiff_t)dsr_blocks(channels, WEIGHTS); block++)
                spread_weights(conv, t.side, (size_t)block * WEIGHTS, weights);
            for (size_t first = 0; first < t.groups; first += t.per_block) {
                size_t end = first + t.per_block < t.groups ? first + t.per_block : t.groups;
                size_t columns =
                    t.parts > 1 ? dsr_block_size(conv->lanes, t.lanes, first % t.parts) : (end - first) * t.lanes;
#pragma omp for schedule(static)
                for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++)
                    for (size_t i = first; i < end; i++) {
                        group g = find_group(conv, &t, i, first);
                        spread_channel(conv, &t, &g, (size_t)c, zeros, sums + (size_t)c * width, channels * width);
                    }
#pragma omp for schedule(dynamic)
                for (ptrdiff_t i = 0; i < (ptrdiff_t)gemms; i++) {
                    size_t place = (size_t)i / row_blocks, row = (size_t)i % row_blocks * GEMM_ROWS;
                    size_t rows = dsr_block_size(outputs, GEMM_ROWS, (size_t)i % row_blocks);
                    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)columns, (int)channels, 1,
                                weights + (place * outputs + row) * channels, (int)channels,
                                sums + place * channels * width, (int)width, 0,
                                products + (place * outputs + row) * width, (int)width);
                }
#pragma omp for schedule(static)
                for (ptrdiff_t o = 0; o < (ptrdiff_t)outputs; o++)
                    for (size_t i = first; i < end; i++) {
                        group g = find_group(conv, &t, i, first);
                        gather_output(conv, &t, &g, (size_t)o, products + (size_t)o * width, outputs * width);
                    }
            }
        }
    }
    dsr_release(weights);
    dsr_release(sums);
    dsr_release(products);
    dsr_release(zeros);
    return status;
}
