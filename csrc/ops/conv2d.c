/* Convolutions of dense float32 lanes: tiles of columns are gathered (im2col) and multiplied by single-thread GEMMs.
 * A column is one lane of one pixel; the weights stay as they are, [CO][CI*KH*KW]. */
#include "blas.h"
#include "ops.h"
#include "winograd.h"

#include <stdlib.h>
#include <string.h>

/* Columns of a tile: enough to hide OpenBLAS's packing of the weights, few enough to share among threads. */
enum { MOST_COLUMNS = 512, LEAST_COLUMNS = 128 };

typedef struct {
    size_t pixels, lanes; /* of a tile: several whole pixels, or a part of one pixel's lanes */
    size_t pixel_tiles, lane_tiles;
} gemm_tiles;

static gemm_tiles make_gemm_tiles(size_t pixels, size_t lanes) {
    size_t columns = pixels * lanes / 4;
    columns = columns < LEAST_COLUMNS ? LEAST_COLUMNS : columns > MOST_COLUMNS ? MOST_COLUMNS : columns;
    gemm_tiles t = {.pixels = lanes && lanes < columns ? columns / lanes : 1,
                    .lanes = lanes < columns ? lanes : columns};
    t.pixel_tiles = dsr_blocks(pixels, t.pixels);
    t.lane_tiles = t.lanes ? dsr_blocks(lanes, t.lanes) : 0;
    return t;
}

/* The taps of one direction that a gather visits: first, first + step, ... */
typedef struct {
    size_t first_tap, tap_step, taps;
} tap_range;

/* Where the rows (channel, tap y, tap x) and columns (pixel, lane) of a tile come from. Target pixel i has y
 * coordinate y0 + i / target_width * pitch (x alike); its tap dy reads source row (y + sign * dy) / stride, which the
 * tap ranges make a whole number, or zero outside the image. */
typedef struct {
    const float *source;
    size_t channels, height, width, lanes;
    size_t target_width, pitch;
    ptrdiff_t y0, x0; /* coordinate of target pixel 0, padding included */
    ptrdiff_t sign;   /* +1 forward, -1 input gradient */
    ptrdiff_t stride; /* divisor */
    tap_range rows, columns;
} gather;

static void gather_tile(const gather *g, size_t first_channel, size_t channels, size_t first_pixel, size_t pixels,
                        size_t first_lane, size_t lanes, float *tile) {
    size_t plane = g->height * g->width * g->lanes;
    for (size_t c = first_channel; c < first_channel + channels; c++)
        for (size_t ky = 0; ky < g->rows.taps; ky++)
            for (size_t kx = 0; kx < g->columns.taps; kx++) {
                ptrdiff_t dy = (ptrdiff_t)(g->rows.first_tap + ky * g->rows.tap_step);
                ptrdiff_t dx = (ptrdiff_t)(g->columns.first_tap + kx * g->columns.tap_step);
                for (size_t i = first_pixel; i < first_pixel + pixels; i++, tile += lanes) {
                    ptrdiff_t y = g->y0 + (ptrdiff_t)(i / g->target_width * g->pitch) + g->sign * dy;
                    ptrdiff_t x = g->x0 + (ptrdiff_t)(i % g->target_width * g->pitch) + g->sign * dx;
                    if (y < 0 || x < 0 || y / g->stride >= (ptrdiff_t)g->height || x / g->stride >= (ptrdiff_t)g->width)
                        memset(tile, 0, lanes * sizeof *tile);
                    else {
                        size_t pixel = (size_t)(y / g->stride) * g->width + (size_t)(x / g->stride);
                        memcpy(tile, g->source + c * plane + pixel * g->lanes + first_lane, lanes * sizeof *tile);
                    }
                }
            }
}

static gather forward_gather(const float *input, const dsr_conv *conv) {
    return (gather){.source = input,
                    .channels = conv->in_channels,
                    .height = conv->height,
                    .width = conv->width,
                    .lanes = conv->lanes,
                    .target_width = conv->out_width,
                    .pitch = conv->stride,
                    .y0 = -(ptrdiff_t)conv->padding,
                    .x0 = -(ptrdiff_t)conv->padding,
                    .sign = 1,
                    .stride = 1,
                    .rows = {0, 1, conv->kernel_h},
                    .columns = {0, 1, conv->kernel_w}};
}

static int is_pointwise(const dsr_conv *conv) {
    return conv->kernel_h == 1 && conv->kernel_w == 1 && conv->stride == 1 && conv->padding == 0;
}

dsr_status dsr_conv2d(const float *input, const float *weight, const float *bias, float *output, dsr_conv conv) {
    size_t pixels = conv.out_height * conv.out_width, plane = pixels * conv.lanes;
    size_t depth = conv.in_channels * conv.kernel_h * conv.kernel_w;
    if (!plane || !conv.out_channels)
        return DSR_OK;
    gemm_tiles t = make_gemm_tiles(pixels, conv.lanes);
    gather g = forward_gather(input, &conv);
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(plane *conv.out_channels))
    {
        float *tile = is_pointwise(&conv) ? NULL : dsr_scratch(depth, t.pixels * t.lanes * sizeof *tile);
        if (!tile && !is_pointwise(&conv)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(t.pixel_tiles * t.lane_tiles); i++) {
            if (!tile && !is_pointwise(&conv))
                continue;
            size_t first_pixel = (size_t)i / t.lane_tiles * t.pixels, first_lane = (size_t)i % t.lane_tiles * t.lanes;
            size_t count = pixels - first_pixel < t.pixels ? pixels - first_pixel : t.pixels;
            size_t lanes = dsr_block_size(conv.lanes, t.lanes, (size_t)i % t.lane_tiles), columns = count * lanes;
            size_t at = first_pixel * conv.lanes + first_lane;
            if (tile)
                gather_tile(&g, 0, conv.in_channels, first_pixel, count, first_lane, lanes, tile);
            for (size_t c = 0; c < conv.out_channels; c++)
                for (size_t l = 0; l < columns; l++)
                    output[c * plane + at + l] = bias ? bias[c] : 0;
            if (depth)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)conv.out_channels, (int)columns, (int)depth,
                            1, weight, (int)depth, tile ? tile : input + at, (int)(tile ? columns : plane), 1,
                            output + at, (int)plane);
        }
        free(tile);
    }
    return status;
}

/* An input pixel (y, x) receives through the taps with (y + padding - dy) divisible by the stride: pixels fall into
 * stride x stride classes with the same taps, and each class is a dense convolution of the output's gradient. */
static dsr_status input_gradient_class(const float *grad_output, const float *weight, float *grad_input,
                                       const dsr_conv *conv, size_t class_y, size_t class_x) {
    size_t s = conv->stride, kernel = conv->kernel_h * conv->kernel_w, plane = conv->height * conv->width * conv->lanes;
    size_t rows = conv->height > class_y ? dsr_blocks(conv->height - class_y, s) : 0;
    size_t columns = conv->width > class_x ? dsr_blocks(conv->width - class_x, s) : 0;
    size_t first_y = (class_y + conv->padding) % s, first_x = (class_x + conv->padding) % s;
    size_t taps_y = conv->kernel_h > first_y ? dsr_blocks(conv->kernel_h - first_y, s) : 0;
    size_t taps_x = conv->kernel_w > first_x ? dsr_blocks(conv->kernel_w - first_x, s) : 0;
    size_t pixels = rows * columns, depth = conv->out_channels * taps_y * taps_x;
    if (!pixels || !conv->lanes || !conv->in_channels)
        return DSR_OK;
    gather g = {.source = grad_output,
                .channels = conv->out_channels,
                .height = conv->out_height,
                .width = conv->out_width,
                .lanes = conv->lanes,
                .target_width = columns,
                .pitch = s,
                .y0 = (ptrdiff_t)(class_y + conv->padding),
                .x0 = (ptrdiff_t)(class_x + conv->padding),
                .sign = -1,
                .stride = (ptrdiff_t)s,
                .rows = {first_y, s, taps_y},
                .columns = {first_x, s, taps_x}};
    gemm_tiles t = make_gemm_tiles(pixels, conv->lanes);
    /* weights of the class, transposed: [CI][CO][tap y][tap x] */
    float *turned = dsr_scratch(conv->in_channels * depth, sizeof *turned);
    if (!turned)
        return DSR_NO_MEMORY;
    float *to = turned;
    for (size_t ci = 0; ci < conv->in_channels; ci++)
        for (size_t co = 0; co < conv->out_channels; co++)
            for (size_t ky = 0; ky < taps_y; ky++)
                for (size_t kx = 0; kx < taps_x; kx++)
                    *to++ = weight[(co * conv->in_channels + ci) * kernel + (first_y + ky * s) * conv->kernel_w +
                                   first_x + kx * s];
    const dsr_small_conv small = {.source = grad_output,
                                  .channels = conv->out_channels,
                                  .height = conv->out_height,
                                  .width = conv->out_width,
                                  .lanes = conv->lanes,
                                  .weights = turned,
                                  .outputs = conv->in_channels,
                                  .rows = rows,
                                  .columns = columns,
                                  .first_y = (ptrdiff_t)((class_y + conv->padding) / s),
                                  .first_x = (ptrdiff_t)((class_x + conv->padding) / s),
                                  .taps = taps_y == taps_x && taps_y <= 3 ? (int)taps_y : 0,
                                  .target = grad_input + (class_y * conv->width + class_x) * conv->lanes,
                                  .plane = plane,
                                  .row = s * conv->width * conv->lanes,
                                  .column = s * conv->lanes};
    if (dsr_winograd_pays(&small)) {
        dsr_status status = dsr_winograd(&small);
        free(turned);
        return status;
    }
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(pixels * conv->lanes * conv->in_channels))
    {
        float *tile = dsr_scratch(depth, t.pixels * t.lanes * sizeof *tile);
        float *result = dsr_scratch(conv->in_channels, t.pixels * t.lanes * sizeof *result);
        if (!tile || !result) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(t.pixel_tiles * t.lane_tiles); i++) {
            if (!tile || !result)
                continue;
            size_t first_pixel = (size_t)i / t.lane_tiles * t.pixels, first_lane = (size_t)i % t.lane_tiles * t.lanes;
            size_t count = pixels - first_pixel < t.pixels ? pixels - first_pixel : t.pixels;
            size_t lanes = dsr_block_size(conv->lanes, t.lanes, (size_t)i % t.lane_tiles), width = count * lanes;
            gather_tile(&g, 0, conv->out_channels, first_pixel, count, first_lane, lanes, tile);
            if (depth)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)conv->in_channels, (int)width, (int)depth,
                            1, turned, (int)depth, tile, (int)width, 0, result, (int)width);
            else
                memset(result, 0, conv->in_channels * width * sizeof *result);
            for (size_t c = 0; c < conv->in_channels; c++)
                for (size_t p = 0; p < count; p++) {
                    size_t y = (first_pixel + p) / columns * s + class_y, x = (first_pixel + p) % columns * s + class_x;
                    memcpy(grad_input + c * plane + (y * conv->width + x) * conv->lanes + first_lane,
                           result + c * width + p * lanes, lanes * sizeof *result);
                }
        }
        free(tile);
        free(result);
    }
    free(turned);
    return status;
}

dsr_status dsr_conv2d_input_gradient(const float *grad_output, const float *weight, float *grad_input, dsr_conv conv) {
    /* classes that begin beyond the image are empty */
    for (size_t y = 0; y < conv.stride && y < conv.height; y++)
        for (size_t x = 0; x < conv.stride && x < conv.width; x++) {
            dsr_status status = input_gradient_class(grad_output, weight, grad_input, &conv, y, x);
            if (status != DSR_OK)
                return status;
        }
    return DSR_OK;
}

/* Shared out by blocks of input channels (and of output channels where there are few rows), each summed over all
 * columns in order: no partial sums to add, whatever the number of threads. */
dsr_status dsr_conv2d_weight_gradient(const float *grad_output, const float *input, float *grad_weight, dsr_conv conv) {
    size_t pixels = conv.out_height * conv.out_width, plane = pixels * conv.lanes;
    size_t kernel = conv.kernel_h * conv.kernel_w, depth = conv.in_channels * kernel;
    memset(grad_weight, 0, conv.out_channels * depth * sizeof *grad_weight);
    if (!plane || !conv.out_channels || !depth)
        return DSR_OK;
    size_t in_block = conv.in_channels >= 64 ? 32 : 16, out_block = depth < 128 ? 32 : conv.out_channels;
    size_t in_blocks = dsr_blocks(conv.in_channels, in_block), out_blocks = dsr_blocks(conv.out_channels, out_block);
    gemm_tiles t = make_gemm_tiles(pixels, conv.lanes);
    gather g = forward_gather(input, &conv);
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(plane *depth))
    {
        float *tile = dsr_scratch(in_block * kernel, t.pixels * t.lanes * sizeof *tile);
        if (!tile) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(dynamic)
        for (ptrdiff_t block = 0; block < (ptrdiff_t)(in_blocks * out_blocks); block++) {
            if (!tile)
                continue;
            size_t in = (size_t)block / out_blocks, out = (size_t)block % out_blocks;
            size_t channels = dsr_block_size(conv.in_channels, in_block, in);
            size_t outputs = dsr_block_size(conv.out_channels, out_block, out);
            float *result = grad_weight + out * out_block * depth + in * in_block * kernel;
            for (size_t i = 0; i < t.pixel_tiles * t.lane_tiles; i++) {
                size_t first_pixel = i / t.lane_tiles * t.pixels, first_lane = i % t.lane_tiles * t.lanes;
                size_t count = pixels - first_pixel < t.pixels ? pixels - first_pixel : t.pixels;
                size_t lanes = dsr_block_size(conv.lanes, t.lanes, i % t.lane_tiles), columns = count * lanes;
                gather_tile(&g, in * in_block, channels, first_pixel, count, first_lane, lanes, tile);
                const float *grad = grad_output + out * out_block * plane + first_pixel * conv.lanes + first_lane;
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)outputs, (int)(channels * kernel),
                            (int)columns, 1, grad, (int)plane, tile, (int)columns, 1, result, (int)depth);
            }
        }
        free(tile);
    }
    return status;
}
