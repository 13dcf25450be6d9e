/* Blocks of columns (a column is one lane of one tile of 2x2 output pixels) go through three phases, each shared out
 * among the threads: sums of the source windows, one GEMM for each place of a window, sums of the products. */
#include "winograd.h"
#include "blas.h"

/* Columns of a block: sums and products of 256 channels, 4 MB each, stay in the cache between the phases. */
enum { MOST_COLUMNS = 256, GEMM_ROWS = 128, MOST_PLACES = 16 };

typedef struct {
    size_t tiles_y, tiles_x, lanes; /* lanes of a column group: a part of a tile's */
    size_t parts, groups, per_block;
} column_blocks;

static column_blocks make_column_blocks(const dsr_small_conv *conv) {
    column_blocks t = {.tiles_y = dsr_blocks(conv->rows, 2), .tiles_x = dsr_blocks(conv->columns, 2)};
    t.parts = dsr_blocks(conv->lanes, MOST_COLUMNS);
    t.lanes = dsr_blocks(conv->lanes, t.parts); /* of several parts each is more than half a block */
    t.groups = t.tiles_y * t.tiles_x * t.parts;
    t.per_block = t.lanes < MOST_COLUMNS ? MOST_COLUMNS / t.lanes : 1;
    return t;
}

int dsr_winograd_pays(const dsr_small_conv *conv) {
    if ((conv->taps != 2 && conv->taps != 3) || conv->channels < 32 || conv->outputs < 16 || !conv->lanes)
        return 0;
    size_t side = (size_t)conv->taps + 1, taps = (size_t)(conv->taps * conv->taps);
    double products = (double)(dsr_blocks(conv->rows, 2) * dsr_blocks(conv->columns, 2) * side * side);
    return products < 0.7 * (double)(conv->rows * conv->columns * taps);
}

/* One direction of the taps: `taps` values, `pitch` apart, become taps + 1 sums. */
static void spread_taps(const float *g, size_t pitch, float *sums, size_t sums_pitch, int taps) {
    if (taps == 2) {
        sums[0] = g[0];
        sums[sums_pitch] = g[0] + g[pitch];
        sums[2 * sums_pitch] = g[pitch];
    } else {
        float outer = 0.5F * (g[0] + g[2 * pitch]), inner = 0.5F * g[pitch];
        sums[0] = g[0];
        sums[sums_pitch] = outer + inner;
        sums[2 * sums_pitch] = outer - inner;
        sums[3 * sums_pitch] = g[2 * pitch];
    }
}

/* Taps, turned by 180 degrees so that a window is read forwards, to [place][output][channel]. */
static void spread_weights(const dsr_small_conv *conv, size_t output, float *sums) {
    int taps = conv->taps, side = taps + 1, square = taps * taps;
    size_t step = conv->outputs * conv->channels;
    for (size_t c = 0; c < conv->channels; c++) {
        const float *weights = conv->weights + (output * conv->channels + c) * (size_t)square;
        float turned[9], half[12], whole[MOST_PLACES];
        for (int i = 0; i < square; i++)
            turned[i] = weights[square - 1 - i];
        for (int i = 0; i < taps; i++)
            spread_taps(turned + i, (size_t)taps, half + i, (size_t)taps, taps);
        for (int i = 0; i < side; i++)
            spread_taps(half + i * taps, 1, whole + i * side, 1, taps);
        for (int i = 0; i < side * side; i++)
            sums[(size_t)i * step + output * conv->channels + c] = whole[i];
    }
}

typedef struct {
    size_t y, x, first_lane, lanes, column; /* first output pixel, lanes, and where its columns are in the block */
} group;

static group find_group(const dsr_small_conv *conv, const column_blocks *t, size_t number, size_t first) {
    size_t part = number % t->parts, tile = number / t->parts;
    return (group){.y = tile / t->tiles_x * 2,
                   .x = tile % t->tiles_x * 2,
                   .first_lane = part * t->lanes,
                   .lanes = dsr_block_size(conv->lanes, t->lanes, part),
                   .column = (number - first) * t->lanes};
}

static void spread_channel(const dsr_small_conv *conv, const group *g, size_t channel, const float *zeros, float *sums,
                           size_t step) {
    const float *pixels[MOST_PLACES];
    ptrdiff_t side = conv->taps + 1;
    for (ptrdiff_t i = 0; i < side * side; i++) {
        ptrdiff_t y = conv->first_y + (ptrdiff_t)g->y - conv->taps + 1 + i / side;
        ptrdiff_t x = conv->first_x + (ptrdiff_t)g->x - conv->taps + 1 + i % side;
        int inside = y >= 0 && x >= 0 && y < (ptrdiff_t)conv->height && x < (ptrdiff_t)conv->width;
        size_t pixel = inside ? (channel * conv->height + (size_t)y) * conv->width + (size_t)x : 0;
        pixels[i] = inside ? conv->source + pixel * conv->lanes + g->first_lane : zeros;
    }
    dsr_kernel->winograd_spread(pixels, sums + g->column, step, g->lanes, conv->taps);
}

static void gather_output(const dsr_small_conv *conv, const group *g, size_t output, const float *products,
                          size_t step) {
    float *pixels[4];
    for (size_t i = 0; i < 4; i++) {
        size_t y = g->y + i / 2, x = g->x + i % 2;
        pixels[i] = y < conv->rows && x < conv->columns
                        ? conv->target + output * conv->plane + y * conv->row + x * conv->column + g->first_lane
                        : NULL;
    }
    dsr_kernel->winograd_gather(products + g->column, step, pixels, g->lanes, conv->taps);
}

dsr_status dsr_winograd(const dsr_small_conv *conv) {
    column_blocks t = make_column_blocks(conv);
    size_t places = (size_t)((conv->taps + 1) * (conv->taps + 1)), width = t.per_block * t.lanes;
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
            for (ptrdiff_t o = 0; o < (ptrdiff_t)outputs; o++)
                spread_weights(conv, (size_t)o, weights);
            for (size_t first = 0; first < t.groups; first += t.per_block) {
                size_t end = first + t.per_block < t.groups ? first + t.per_block : t.groups;
                size_t columns =
                    t.parts > 1 ? dsr_block_size(conv->lanes, t.lanes, first % t.parts) : (end - first) * t.lanes;
#pragma omp for schedule(static)
                for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++)
                    for (size_t i = first; i < end; i++) {
                        group g = find_group(conv, &t, i, first);
                        spread_channel(conv, &g, (size_t)c, zeros, sums + (size_t)c * width, channels * width);
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
                        gather_output(conv, &g, (size_t)o, products + (size_t)o * width, outputs * width);
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
