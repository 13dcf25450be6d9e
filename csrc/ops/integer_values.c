/* Convolution of integer weights over integer values, such as the data: few channels, once for a static sample. */
#include "ops.h"

/* The pixel that a tap reads along one direction; SIZE_MAX: none. */
static size_t find_pixel(const dsr_conv_axis *axis, size_t output, size_t tap) {
    size_t place = output * axis->stride + tap * axis->dilation;
    if (place < axis->before || (place - axis->before) % axis->spread)
        return SIZE_MAX;
    size_t pixel = (place - axis->before) / axis->spread;
    return pixel < axis->size ? pixel : SIZE_MAX;
}

/* sum 2^shift, to the nearest, halves up. */
static int32_t shifted(int32_t sum, int shift) {
    return shift >= 0 ? sum * (1 << shift) : (sum + (1 << (-shift - 1))) >> -shift;
}

/* How weights are packed. */
typedef struct {
    const int16_t *rows;
    size_t blocks, block_rows;
} packed_rows;

/* Adds the rows of a tap times the values of all channels that reach the block; those are `stride` apart. */
static void add_tap(const packed_rows *packed, const dsr_conv *c, const int32_t *values, size_t stride, size_t out,
                    size_t tap, int32_t *sum) {
    size_t taps = c->y.taps * c->x.taps, rows = packed->block_rows - 1;
    size_t group_in = c->in_channels / c->groups, group_out = c->out_channels / c->groups;
    size_t first = out * DSR_INTEGER_ROW, last = first + dsr_block_size(c->out_channels, DSR_INTEGER_ROW, out) - 1;
    for (size_t i = first / group_out * group_in; i < (last / group_out + 1) * group_in; i++) {
        int32_t value = values[i * stride];
        size_t at = i * taps + tap, row = (out * packed->blocks + at / rows) * packed->block_rows + 1 + at % rows;
        const int16_t *weights = packed->rows + row * DSR_INTEGER_ROW;
        if (value)
            for (size_t o = 0; o < DSR_INTEGER_ROW; o++)
                sum[o] += value * weights[o];
    }
}

void dsr_integer_conv2d(const int32_t *values, const int16_t *packed, int32_t *rows, dsr_conv conv, int shift) {
    packed_rows weights = {.rows = packed};
    weights.blocks = dsr_integer_blocks(conv, &weights.block_rows);
    size_t outs = dsr_blocks(conv.out_channels, DSR_INTEGER_ROW), pixels = conv.y.out * conv.x.out;
    size_t stride = conv.y.size * conv.x.size * conv.lanes;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(outs *pixels *conv.lanes *conv.in_channels))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)(outs * pixels); i++) {
        size_t out = (size_t)i / pixels, y = (size_t)i % pixels / conv.x.out, x = (size_t)i % conv.x.out;
        for (size_t l = 0; l < conv.lanes; l++) {
            int32_t sum[DSR_INTEGER_ROW] = {0}, *to = rows + ((size_t)i * conv.lanes + l) * DSR_INTEGER_ROW;
            for (size_t tap = 0; tap < conv.y.taps * conv.x.taps; tap++) {
                size_t py = find_pixel(&conv.y, y, tap / conv.x.taps), px = find_pixel(&conv.x, x, tap % conv.x.taps);
                if (py != SIZE_MAX && px != SIZE_MAX)
                    add_tap(&weights, &conv, values + (py * conv.x.size + px) * conv.lanes + l, stride, out, tap, sum);
            }
            for (size_t o = 0; o < DSR_INTEGER_ROW; o++)
                to[o] += shifted(sum[o], shift);
        }
    }
}
