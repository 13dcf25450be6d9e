/* Dense convolutions of 2x2 or 3x3 taps and stride 1 by Winograd's method, for gradients. */
#ifndef DSR_WINOGRAD_H
#define DSR_WINOGRAD_H

#include "ops.h"

/* Output pixel (i, j) takes tap (a, b) from source pixel (first_y + i - a, first_x + j - b), or zero outside of it. */
typedef struct {
    const float *source; /* [channels][height][width][lanes] */
    size_t channels, height, width, lanes;
    const float *weights; /* tap (a, b) of an output o and a channel c is at o * output_step + c * channel_step + a *
                             tap_y + b * tap_x */
    size_t output_step, channel_step, tap_y, tap_x;
    size_t outputs, rows, columns;
    ptrdiff_t first_y, first_x;
    int taps;
    /* where output pixels go: output (o, i, j) begins at target + o * plane + i * row + j * column */
    float *target;
    size_t plane, row, column;
} dsr_small_conv;

/* Whether it is faster than gathering all taps; depends on shapes only. */
int dsr_winograd_pays(const dsr_small_conv *conv);
dsr_status dsr_winograd(const dsr_small_conv *conv);

/* Tiles of `outputs` output pixels a side, and groups of columns: a column is one lane of one tile, and a group a part
 * of a tile's lanes. */
typedef struct {
    size_t outputs, tiles_x, all_lanes;
    size_t parts, lanes; /* of a tile; lanes of a part */
    size_t per_piece;    /* groups that are done together */
} winograd_cut;

typedef struct {
    size_t y, x, first_lane, lanes, column; /* first output pixel, lanes, and where its columns are in the piece */
} winograd_group;

static inline winograd_group find_group(const winograd_cut *cut, size_t number) {
    size_t part = number % cut->parts, tile = number / cut->parts;
    return (winograd_group){.y = tile / cut->tiles_x * cut->outputs,
                            .x = tile % cut->tiles_x * cut->outputs,
                            .first_lane = part * cut->lanes,
                            .lanes = dsr_block_size(cut->all_lanes, cut->lanes, part),
                            .column = number % cut->per_piece * cut->lanes};
}

/* Whether the products of tiles are so many fewer than those of all taps that spreading and gathering is worth it. */
static inline int saves_products(size_t rows, size_t columns, size_t outputs, size_t taps) {
    size_t side = outputs + taps - 1;
    double products = (double)(dsr_blocks(rows, outputs) * dsr_blocks(columns, outputs) * side * side);
    return products < 0.7 * (double)(rows * columns * taps * taps);
}

/* The gradient of a 3x3 kernel (winograd_weights.c); whether that is faster depends on shapes only. */
int dsr_winograd_weights_pay(const dsr_conv *conv);
dsr_status dsr_winograd_weights(const float *grad_output, const float *input, float *grad_weight, dsr_conv conv);

#endif
