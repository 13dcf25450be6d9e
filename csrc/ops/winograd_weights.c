/* Weight gradients of 3x3 kernels by Winograd's method: the convolution F(4x4, 3x3) read the other way, a sum over
 * tiles of G^T [(A g A^T) x (B^T d B)] G. A window d of 6x6 pixels and a tile g of 4x4 gradients become 36 sums each,
 * of which 36 GEMMs take the products, where one for each output pixel and tap would be 144.
 *
 * A column is one lane of one tile. Sums are rows of channels, [block][place][column][channel], so that both factors
 * of a GEMM are read as they are, along the columns: OpenBLAS has 66 to 78 GMAC/s for these on AVX-512, and 25 to 35
 * where columns are neighbours. Places lie LINE floats more than a power of two apart. The products of DSR_ROW outputs
 * and DSR_ROW channels stay in the second cache; of several pieces of columns they are kept in memory meanwhile. */
#include "blas.h"
#include "winograd.h"

#include <string.h>

enum { OUTPUTS = 4, SIDE = 6, PLACES = SIDE * SIDE, TAPS = 9, LINE = 16 };
/* Lanes of a column group at most, and columns of a piece for each so many channels: fewer columns fit the cache
 * better, but threads wait for each other more often (64 and 128 columns: one thread 84 and 88 ms at 96 channels, two
 * 70 and 55; batch 500, Intel Xeon). */
enum { LANES = 16, COLUMNS = 128, CHANNELS = 128 };

typedef struct {
    const float *gradient, *input;
    const dsr_conv *conv;
    winograd_cut cut;
    size_t groups, pieces, columns; /* groups in all, pieces, and columns of a piece */
    size_t out_blocks, in_blocks;   /* of DSR_ROW channels */
    size_t length;                  /* of the sums of a block in a piece */
} weights_plan;

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Floats of so many rows, those of a place. */
static size_t place_length(size_t rows) {
    return rows * DSR_ROW + LINE;
}

static weights_plan make_weights_plan(const float *gradient, const float *input, const dsr_conv *conv) {
    weights_plan p = {.gradient = gradient, .input = input, .conv = conv};
    p.cut = (winograd_cut){.outputs = OUTPUTS, .all_lanes = conv->lanes};
    p.cut.parts = dsr_blocks(conv->lanes, LANES);
    p.cut.lanes = dsr_blocks(conv->lanes, p.cut.parts);
    p.cut.parts = dsr_blocks(conv->lanes, p.cut.lanes);
    p.cut.tiles_x = dsr_blocks(conv->x.out, OUTPUTS);
    p.groups = dsr_blocks(conv->y.out, OUTPUTS) * p.cut.tiles_x * p.cut.parts;
    p.cut.per_piece = COLUMNS * dsr_blocks(larger(conv->in_channels, conv->out_channels), CHANNELS) / p.cut.lanes;
    if (p.cut.per_piece > p.groups)
        p.cut.per_piece = p.groups;
    p.pieces = dsr_blocks(p.groups, p.cut.per_piece);
    p.columns = p.cut.per_piece * p.cut.lanes;
    p.out_blocks = dsr_blocks(conv->out_channels, DSR_ROW);
    p.in_blocks = dsr_blocks(conv->in_channels, DSR_ROW);
    p.length = PLACES * place_length(p.columns);
    return p;
}

/* The pixel (y, x) of an image; SIZE_MAX: outside. Places count from `before` on. */
static size_t pixel_at(size_t y, size_t x, size_t before_y, size_t before_x, size_t height, size_t width) {
    int inside = y >= before_y && x >= before_x && y - before_y < height && x - before_x < width;
    return inside ? (y - before_y) * width + x - before_x : SIZE_MAX;
}

/* Memory of a thread: the rows of a window, zeros, products and taps. */
typedef struct {
    float *rows, *zeros, *products, *taps;
} thread_memory;

/* The lanes of a pixel as rows of so many channels that are `plane` apart; lanes that a last part lacks are zeros. */
static void make_rows(const weights_plan *p, const winograd_group *g, const float *from, size_t channels, size_t plane,
                      float *rows) {
    dsr_kernel->lanes_to_rows(from, g->lanes, channels, plane, rows);
    memset(rows + g->lanes * DSR_ROW, 0, (p->cut.lanes - g->lanes) * DSR_ROW * sizeof *rows);
}

/* Sums of a tile of gradients, of DSR_ROW outputs. */
static void spread_gradient(const weights_plan *p, size_t number, size_t block, const thread_memory *own, float *sums) {
    const dsr_conv *conv = p->conv;
    const winograd_group g = find_group(&p->cut, number);
    size_t plane = conv->y.out * conv->x.out * conv->lanes,
           channels = dsr_block_size(conv->out_channels, DSR_ROW, block);
    const float *from = p->gradient + block * DSR_ROW * plane + g.first_lane, *pixels[OUTPUTS * OUTPUTS];
    for (size_t i = 0; i < OUTPUTS * OUTPUTS; i++) {
        size_t pixel = pixel_at(g.y + i / OUTPUTS, g.x + i % OUTPUTS, 0, 0, conv->y.out, conv->x.out);
        float *rows = own->rows + i * p->cut.lanes * DSR_ROW;
        pixels[i] = pixel == SIZE_MAX ? own->zeros : rows;
        if (pixel != SIZE_MAX)
            make_rows(p, &g, from + pixel * conv->lanes, channels, plane, rows);
    }
    dsr_kernel->winograd_widen(pixels, sums + block * p->length + g.column * DSR_ROW, place_length(p->columns),
                               p->cut.lanes * DSR_ROW);
}

/* Sums of a window of the input, of the channels of a block. */
static void spread_input(const weights_plan *p, size_t number, size_t block, const thread_memory *own, float *sums) {
    const dsr_conv *conv = p->conv;
    const winograd_group g = find_group(&p->cut, number);
    size_t plane = conv->y.size * conv->x.size * conv->lanes;
    size_t channels = dsr_block_size(conv->in_channels, DSR_ROW, block), steps[PLACES] = {0};
    const float *from = p->input + block * DSR_ROW * plane + g.first_lane, *pixels[PLACES];
    for (size_t i = 0; i < PLACES; i++) {
        size_t pixel =
            pixel_at(g.y + i / SIDE, g.x + i % SIDE, conv->y.before, conv->x.before, conv->y.size, conv->x.size);
        float *rows = own->rows + i * p->cut.lanes * DSR_ROW;
        pixels[i] = pixel == SIZE_MAX ? own->zeros : rows;
        if (pixel != SIZE_MAX)
            make_rows(p, &g, from + pixel * conv->lanes, channels, plane, rows);
    }
    dsr_kernel->winograd_spread(pixels, steps, 1, sums + block * p->length + g.column * DSR_ROW, 0,
                                place_length(p->columns), p->cut.lanes * DSR_ROW, SIDE);
}

/* Adds the products of the columns of a piece. */
static void multiply(const weights_plan *p, size_t columns, const float *gradient, const float *input, int first,
                     float *products) {
    for (size_t place = 0; place < PLACES; place++)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, DSR_ROW, DSR_ROW, (int)columns, 1,
                    gradient + place * place_length(p->columns), DSR_ROW, input + place * place_length(p->columns),
                    DSR_ROW, first ? 0 : 1, products + place * place_length(DSR_ROW), DSR_ROW);
}

/* The taps of a block of outputs and one of channels. */
static void collect(const weights_plan *p, size_t out, size_t in, const float *products, float *taps,
                    float *grad_weight) {
    const dsr_conv *conv = p->conv;
    for (size_t o = 0; o < dsr_block_size(conv->out_channels, DSR_ROW, out); o++) {
        dsr_kernel->winograd_collect(products + o * DSR_ROW, place_length(DSR_ROW), taps);
        dsr_kernel->rows_to_lanes(taps, TAPS, dsr_block_size(conv->in_channels, DSR_ROW, in), NULL, 1,
                                  grad_weight + ((out * DSR_ROW + o) * conv->in_channels + in * DSR_ROW) * TAPS, TAPS,
                                  0);
    }
}

/* Shared by the threads: the sums of a piece, and the products of all blocks if there are several pieces. */
typedef struct {
    float *gradient, *input, *products;
} shared_memory;

/* Loops are static: a thread multiplies gradients that it spread. */
static void add_pieces(const weights_plan *p, const shared_memory *shared, const thread_memory *own,
                       float *grad_weight) {
    for (size_t piece = 0; piece < p->pieces; piece++) {
        size_t first = piece * p->cut.per_piece, groups = dsr_block_size(p->groups, p->cut.per_piece, piece);
#pragma omp for schedule(static) nowait
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(groups * p->out_blocks); i++)
            spread_gradient(p, first + (size_t)i % groups, (size_t)i / groups, own, shared->gradient);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(groups * p->in_blocks); i++)
            spread_input(p, first + (size_t)i % groups, (size_t)i / groups, own, shared->input);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(p->out_blocks * p->in_blocks); i++) {
            size_t out = (size_t)i / p->in_blocks, in = (size_t)i % p->in_blocks;
            float *products =
                p->pieces > 1 ? shared->products + (size_t)i * PLACES * place_length(DSR_ROW) : own->products;
            multiply(p, groups * p->cut.lanes, shared->gradient + out * p->length, shared->input + in * p->length,
                     piece == 0, products);
            if (piece == p->pieces - 1)
                collect(p, out, in, products, own->taps, grad_weight);
        }
    }
}

int dsr_winograd_weights_pay(const dsr_conv *conv) {
    const dsr_conv_axis *axes[2] = {&conv->y, &conv->x};
    for (int i = 0; i < 2; i++)
        if (axes[i]->taps != 3 || axes[i]->stride != 1 || axes[i]->dilation != 1 || axes[i]->spread != 1)
            return 0;
    if (conv->groups != 1 || conv->in_channels < 32 || conv->out_channels < 16 || conv->lanes < 8)
        return 0;
    return saves_products(conv->y.out, conv->x.out, OUTPUTS, 3);
}

dsr_status dsr_winograd_weights(const float *grad_output, const float *input, float *grad_weight, dsr_conv conv) {
    const weights_plan p = make_weights_plan(grad_output, input, &conv);
    shared_memory shared = {.gradient = dsr_scratch(p.out_blocks, p.length * sizeof(float)),
                            .input = dsr_scratch(p.in_blocks, p.length * sizeof(float)),
                            .products = dsr_scratch(p.pieces > 1 ? p.out_blocks * p.in_blocks : 0,
                                                    PLACES * place_length(DSR_ROW) * sizeof(float))};
    dsr_status status = shared.gradient && shared.input && shared.products ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
#pragma omp parallel num_threads(dsr_threads_for(conv.out_channels *conv.y.out *conv.x.out *conv.lanes))
        {
            thread_memory own = {.rows = dsr_scratch(PLACES * p.cut.lanes * DSR_ROW, sizeof(float)),
                                 .zeros = dsr_scratch(p.cut.lanes * DSR_ROW, sizeof(float)),
                                 .products =
                                     dsr_scratch(p.pieces > 1 ? 0 : PLACES * place_length(DSR_ROW), sizeof(float)),
                                 .taps = dsr_scratch(TAPS * DSR_ROW, sizeof(float))};
            if (!own.rows || !own.zeros || !own.products || !own.taps) {
#pragma omp atomic write
                status = DSR_NO_MEMORY;
            }
#pragma omp barrier
            /* from here on all threads see the same status, and share the loops or none */
            if (status == DSR_OK) {
                memset(own.zeros, 0, p.cut.lanes * DSR_ROW * sizeof(float));
                add_pieces(&p, &shared, &own, grad_weight);
            }
            dsr_release(own.rows);
            dsr_release(own.zeros);
            dsr_release(own.products);
            dsr_release(own.taps);
        }
    }
    dsr_release(shared.gradient);
    dsr_release(shared.input);
    dsr_release(shared.products);
    return status;
}
