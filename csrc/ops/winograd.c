/* Winograd's method in three phases: sums of the source windows, one GEMM for each place of a window, sums of the
 * products. Of many columns a thread does some pieces alone, from window to pixel, and finds its sums in its own cache;
 * of few, all threads share out each phase. (Sharing always, two threads were 1.4 to 1.5 times as fast as one at 96 and
 * 128 channels, and are 1.8 to 1.9 times; batch 500, Intel Xeon.)
 *
 * A column is one lane of one tile of 2x2 or 4x4 output pixels. PIECE of them, DEPTH channels and DSR_ROW outputs are
 * what a GEMM multiplies: OpenBLAS's kernels for AVX-512 read as small matrices where they are (80 GMAC/s), and pack
 * larger ones first (30 to 50). The sums of so many weights are 590 KB for tiles of 4x4; they are made where they are
 * used, in the cache, unless several pieces use them: written out for 512 channels they are 38 MB, and took 30 of the
 * 35 ms of a gradient (batch 16). Sums and products are [channel][place][column]: the places of a window are
 * neighbours, and channels lie LINE floats more than a power of two apart, so that they do not meet in one set of the
 * cache. */
#include "winograd.h"
#include "blas.h"

#include <string.h>

enum { PIECE = 64, DEPTH = 128, LINE = 16, TOGETHER = 4, MOST_PLACES = 36, MOST_OUTPUTS = 16 };
/* Pieces in memory: where all weights are kept, as many as leave the sums in the cache (1.2 MB of 64 channels). */
enum { KEPT_BYTES = 4 << 20, KEPT_PIECES = 2, PIECES = 4 };
enum { ALONE = 4 /* tasks for each thread at least, if threads are to work alone */ };

typedef struct {
    const dsr_small_conv *conv;
    winograd_cut cut;
    size_t side, places;          /* of a window, along one direction and in all */
    size_t groups, width, pieces; /* groups in all, columns of a piece, pieces in all */
    size_t at_once, each; /* pieces that are shared out, and those of a task, which reads weights once for them */
    size_t row_blocks, channel_blocks, depths;
    size_t row_step, weight_step; /* from channel to channel of sums and products, from place to place of weights */
    size_t sum_length, product_length, weight_length;
    int kept;  /* the sums of all weights are made beforehand */
    int alone; /* a thread does all of a task of `each` pieces */
} winograd_plan;

/* Outputs of a tile along one direction: 4 where that takes fewer products. The number of lanes does not matter, so
 * that a part of them has the bits of the whole. */
static size_t tile_outputs(const dsr_small_conv *conv) {
    size_t fours = dsr_blocks(conv->rows, 4) * dsr_blocks(conv->columns, 4);
    size_t twos = dsr_blocks(conv->rows, 2) * dsr_blocks(conv->columns, 2);
    return conv->taps == 3 && 36 * fours < 12 * twos ? 4 : 2;
}

static winograd_plan make_winograd_plan(const dsr_small_conv *conv, size_t threads) {
    winograd_plan p = {.conv = conv, .cut = {.outputs = tile_outputs(conv), .all_lanes = conv->lanes}};
    p.side = p.cut.outputs + (size_t)conv->taps - 1;
    p.places = p.side * p.side;
    p.cut.tiles_x = dsr_blocks(conv->columns, p.cut.outputs);
    p.cut.parts = dsr_blocks(conv->lanes, PIECE);
    p.cut.lanes = dsr_blocks(conv->lanes, p.cut.parts);
    if (p.cut.parts > 1) /* whole vectors; of several parts each is more than half a piece */
        p.cut.lanes = dsr_blocks(p.cut.lanes, LINE) * LINE;
    p.cut.parts = dsr_blocks(conv->lanes, p.cut.lanes);
    p.groups = dsr_blocks(conv->rows, p.cut.outputs) * p.cut.tiles_x * p.cut.parts;
    p.cut.per_piece = p.cut.parts > 1 ? 1 : PIECE / p.cut.lanes;
    p.width = p.cut.per_piece * p.cut.lanes;
    p.pieces = dsr_blocks(p.groups, p.cut.per_piece);
    p.row_blocks = dsr_blocks(conv->outputs, DSR_ROW);
    p.channel_blocks = dsr_blocks(conv->channels, TOGETHER);
    p.depths = dsr_blocks(conv->channels, DEPTH);
    p.row_step = p.places * p.width + LINE;
    p.weight_step = (conv->channels < DEPTH ? conv->channels : DEPTH) * DSR_ROW + LINE;
    p.sum_length = conv->channels * p.row_step;
    p.product_length = DSR_ROW * p.row_step;
    p.weight_length = p.places * p.weight_step;
    p.kept = p.pieces > 1 && p.row_blocks * p.depths * p.weight_length * sizeof(float) <= KEPT_BYTES;
    p.at_once = p.kept ? KEPT_PIECES : PIECES;
    if (p.at_once > p.pieces)
        p.at_once = p.pieces;
    p.each = p.kept ? 1 : p.at_once;
    p.alone = p.pieces >= ALONE * threads * p.each;
    return p;
}

int dsr_winograd_pays(const dsr_small_conv *conv) {
    if ((conv->taps != 2 && conv->taps != 3) || conv->channels < 32 || conv->outputs < 16 || !conv->lanes)
        return 0;
    return saves_products(conv->rows, conv->columns, tile_outputs(conv), (size_t)conv->taps);
}

/* Floats from an output's first tap to its last. */
static size_t tap_span(const dsr_small_conv *conv) {
    return (size_t)(conv->taps - 1) * (conv->tap_y + conv->tap_x) + 1;
}

/* Sums of the taps of DSR_ROW outputs and DEPTH channels, to [place][channel][DSR_ROW]. The taps are turned by 180
 * degrees so that a window is read forwards. */
static void spread_weights(const winograd_plan *p, size_t row_block, size_t depth, float *taps, float *sums) {
    const dsr_small_conv *conv = p->conv;
    size_t first = row_block * DSR_ROW, rows = dsr_block_size(conv->outputs, DSR_ROW, row_block);
    size_t n = (size_t)conv->taps, channels = dsr_block_size(conv->channels, DEPTH, depth);
    const float *turned[9];
    for (size_t i = 0; i < n * n; i++)
        turned[i] = taps + ((n - 1 - i / n) * conv->tap_y + (n - 1 - i % n) * conv->tap_x) * DSR_ROW;
    for (size_t c = 0; c < channels; c++) {
        const float *weights = conv->weights + first * conv->output_step + (depth * DEPTH + c) * conv->channel_step;
        dsr_kernel->lanes_to_rows(weights, tap_span(conv), rows, conv->output_step, taps);
        dsr_kernel->winograd_taps(turned, sums + c * DSR_ROW, p->weight_step, (int)p->side);
    }
}

static size_t end_group(const winograd_plan *p, size_t piece) {
    size_t end = (piece + 1) * p->cut.per_piece;
    return end < p->groups ? end : p->groups;
}

static size_t columns_of(const winograd_plan *p, size_t piece) {
    winograd_group last = find_group(&p->cut, end_group(p, piece) - 1);
    return last.column + last.lanes;
}

/* Sums of the windows of a piece, of the channels of a block. */
static void spread_piece(const winograd_plan *p, size_t piece, size_t first, size_t channels, const float *zeros,
                         float *sums) {
    const dsr_small_conv *conv = p->conv;
    ptrdiff_t side = (ptrdiff_t)p->side;
    size_t plane = conv->height * conv->width * conv->lanes;
    for (size_t number = piece * p->cut.per_piece; number < end_group(p, piece); number++) {
        const winograd_group g = find_group(&p->cut, number);
        const float *pixels[MOST_PLACES];
        size_t steps[MOST_PLACES];
        for (ptrdiff_t i = 0; i < side * side; i++) {
            ptrdiff_t y = conv->first_y + (ptrdiff_t)g.y - conv->taps + 1 + i / side;
            ptrdiff_t x = conv->first_x + (ptrdiff_t)g.x - conv->taps + 1 + i % side;
            int inside = y >= 0 && x >= 0 && y < (ptrdiff_t)conv->height && x < (ptrdiff_t)conv->width;
            size_t pixel = inside ? (size_t)y * conv->width + (size_t)x : 0;
            pixels[i] = inside ? conv->source + first * plane + pixel * conv->lanes + g.first_lane : zeros;
            steps[i] = inside ? plane : 0;
        }
        dsr_kernel->winograd_spread(pixels, steps, channels, sums + first * p->row_step + g.column, p->row_step,
                                    p->width, g.lanes, (int)p->side);
    }
}

/* The index-th block of TOGETHER channels of the pieces from `first` on, whose sums lie one behind the other. */
static void spread_block(const winograd_plan *p, size_t first, size_t index, const float *zeros, float *sums) {
    size_t piece = index / p->channel_blocks, block = index % p->channel_blocks;
    spread_piece(p, first + piece, block * TOGETHER, dsr_block_size(p->conv->channels, TOGETHER, block), zeros,
                 sums + piece * p->sum_length);
}

/* Output pixels of a piece, of some outputs. */
static void gather_piece(const winograd_plan *p, size_t piece, size_t first, size_t rows, const float *products) {
    const dsr_small_conv *conv = p->conv;
    float *target = conv->target + first * conv->plane;
    for (size_t number = piece * p->cut.per_piece; number < end_group(p, piece); number++) {
        const winograd_group g = find_group(&p->cut, number);
        float *pixels[MOST_OUTPUTS];
        for (size_t i = 0; i < p->cut.outputs * p->cut.outputs; i++) {
            size_t y = g.y + i / p->cut.outputs, x = g.x + i % p->cut.outputs;
            pixels[i] =
                y < conv->rows && x < conv->columns ? target + y * conv->row + x * conv->column + g.first_lane : NULL;
        }
        dsr_kernel->winograd_gather(products + g.column, p->row_step, p->width, pixels, conv->plane, rows, g.lanes,
                                    (int)p->side);
    }
}

/* Memory: `weights` of all blocks, if they are kept; of each thread a block of weights, if they are not kept, products,
 * and taps; and the sums of pieces, of `at_once` shared, or of `each` for a thread that works alone. */
typedef struct {
    float *weights, *sums, *zeros;
} shared_room;

typedef struct {
    float *weights, *products, *taps, *sums;
} own_room;

/* A block of outputs of `count` pieces, whose sums begin at `sums`. */
static void multiply(const winograd_plan *p, const shared_room *shared, const own_room *own, size_t row_block,
                     size_t piece, size_t count, const float *sums) {
    size_t rows = dsr_block_size(p->conv->outputs, DSR_ROW, row_block);
    for (size_t depth = 0; depth < p->depths; depth++) {
        size_t channels = dsr_block_size(p->conv->channels, DEPTH, depth);
        const float *weights = own->weights;
        if (p->kept)
            weights = shared->weights + (row_block * p->depths + depth) * p->weight_length;
        else
            spread_weights(p, row_block, depth, own->taps, own->weights);
        for (size_t i = 0; i < count; i++)
            for (size_t place = 0; place < p->places; place++)
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rows, (int)columns_of(p, piece + i),
                            (int)channels, 1, weights + place * p->weight_step, DSR_ROW,
                            sums + i * p->sum_length + place * p->width + depth * DEPTH * p->row_step, (int)p->row_step,
                            depth ? 1 : 0, own->products + i * p->product_length + place * p->width, (int)p->row_step);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t r = 0; r < rows; r += TOGETHER)
            gather_piece(p, piece + i, row_block * DSR_ROW + r, rows - r < TOGETHER ? rows - r : TOGETHER,
                         own->products + i * p->product_length + r * p->row_step);
}

/* All threads share out the sums of some pieces, and then their products. */
static void convolve_together(const winograd_plan *p, const shared_room *shared, const own_room *own) {
    for (size_t first = 0; first < p->pieces; first += p->at_once) {
        size_t pieces = p->pieces - first < p->at_once ? p->pieces - first : p->at_once;
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(pieces * p->channel_blocks); i++)
            spread_block(p, first, (size_t)i, shared->zeros, shared->sums);
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(dsr_blocks(pieces, p->each) * p->row_blocks); i++) {
            size_t task = (size_t)i / p->row_blocks, piece = task * p->each;
            multiply(p, shared, own, (size_t)i % p->row_blocks, first + piece, dsr_block_size(pieces, p->each, task),
                     shared->sums + piece * p->sum_length);
        }
    }
}

static void convolve_alone(const winograd_plan *p, const shared_room *shared, const own_room *own) {
#pragma omp for schedule(dynamic)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)dsr_blocks(p->pieces, p->each); i++) {
        size_t first = (size_t)i * p->each, pieces = dsr_block_size(p->pieces, p->each, (size_t)i);
        for (size_t block = 0; block < pieces * p->channel_blocks; block++)
            spread_block(p, first, block, shared->zeros, own->sums);
        for (size_t row_block = 0; row_block < p->row_blocks; row_block++)
            multiply(p, shared, own, row_block, first, pieces, own->sums);
    }
}

static void convolve(const winograd_plan *p, const shared_room *shared, const own_room *own) {
    size_t kept = p->kept ? p->row_blocks * p->depths : 0;
#pragma omp for schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)kept; i++)
        spread_weights(p, (size_t)i / p->depths, (size_t)i % p->depths, own->taps,
                       shared->weights + (size_t)i * p->weight_length);
    if (p->alone)
        convolve_alone(p, shared, own);
    else
        convolve_together(p, shared, own);
}

dsr_status dsr_winograd(const dsr_small_conv *conv) {
    int threads = dsr_threads_for(conv->rows * conv->columns * conv->lanes * conv->outputs);
    winograd_plan p = make_winograd_plan(conv, (size_t)threads);
    size_t kept = p.kept ? p.row_blocks * p.depths : 0;
    shared_room shared = {.weights = dsr_scratch(kept, p.weight_length * sizeof(float)),
                          .sums = dsr_scratch(p.alone ? 0 : p.at_once, p.sum_length * sizeof(float)),
                          .zeros = dsr_scratch(p.cut.lanes, sizeof(float))};
    dsr_status status = shared.weights && shared.sums && shared.zeros ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
        for (size_t i = 0; i < p.cut.lanes; i++)
            shared.zeros[i] = 0;
#pragma omp parallel num_threads(threads)
        {
            own_room own = {.weights = dsr_scratch(p.kept ? 0 : p.weight_length, sizeof(float)),
                            .products = dsr_scratch(p.each, p.product_length * sizeof(float)),
                            .taps = dsr_scratch(tap_span(conv), DSR_ROW * sizeof(float)),
                            .sums = dsr_scratch(p.alone ? p.each : 0, p.sum_length * sizeof(float))};
            if (!own.weights || !own.products || !own.taps || !own.sums) {
#pragma omp atomic write
                status = DSR_NO_MEMORY;
            }
#pragma omp barrier
            /* from here on all threads see the same status, and share the loops or none */
            if (status == DSR_OK)
                convolve(&p, &shared, &own);
            dsr_release(own.weights);
            dsr_release(own.products);
            dsr_release(own.taps);
            dsr_release(own.sums);
        }
    }
    dsr_release(shared.weights);
    dsr_release(shared.sums);
    dsr_release(shared.zeros);
    return status;
}
