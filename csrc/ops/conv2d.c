/* Convolutions of dense float32 lanes: tiles of columns are gathered (im2col) and multiplied by single-thread GEMMs.
 * A column is one lane of one pixel; the weights stay as they are, [CO][CI*KH*KW]. */
#include "blas.h"
#include "depthwise.h"
#include "winograd.h"

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

/* Where the rows (channel, tap y, tap x) and columns (pixel, lane) of a tile come from. */
typedef struct {
    const float *source;
    size_t lanes;
    gather_axis y, x;
} gather;

/* Pixels next to each other, `first` .. first + n of a line of targets, whose tap reads this line of the source. Where
 * they read neighbours, all lanes of these are copied at once: of one sample, a pixel is only a number. */
static void gather_line(const gather_axis *x, const float *line, size_t line_lanes, size_t tap, size_t first, size_t n,
                        size_t first_lane, size_t lanes, float *tile) {
    if (x->pitch == 1 && x->divisor == 1 && lanes == line_lanes) {
        ptrdiff_t place = x->start + (ptrdiff_t)first + (ptrdiff_t)tap * x->step, end = (ptrdiff_t)x->size - place;
        size_t before = place >= 0 ? 0 : (size_t)-place < n ? (size_t)-place : n;
        size_t to = end < (ptrdiff_t)before ? before : (size_t)end < n ? (size_t)end : n;
        memset(tile, 0, before * lanes * sizeof *tile);
        if (to > before)
            memcpy(tile + before * lanes, line + (size_t)(place + (ptrdiff_t)before) * lanes,
                   (to - before) * lanes * sizeof *tile);
        memset(tile + to * lanes, 0, (n - to) * lanes * sizeof *tile);
        return;
    }
    for (size_t i = first; i < first + n; i++, tile += lanes) {
        size_t pixel = gather_pixel(x, i, tap);
        if (pixel == SIZE_MAX)
            memset(tile, 0, lanes * sizeof *tile);
        else
            memcpy(tile, line + pixel * line_lanes + first_lane, lanes * sizeof *tile);
    }
}

static void gather_tile(const gather *g, size_t first_channel, size_t channels, size_t first_pixel, size_t pixels,
                        size_t first_lane, size_t lanes, float *tile) {
    size_t line = g->x.size * g->lanes, plane = g->y.size * line;
    for (size_t c = first_channel; c < first_channel + channels; c++)
        for (size_t ky = 0; ky < g->y.taps; ky++)
            for (size_t kx = 0; kx < g->x.taps; kx++)
                for (size_t i = first_pixel, n; i < first_pixel + pixels; i += n, tile += n * lanes) {
                    size_t y = gather_pixel(&g->y, i / g->x.targets, ky), first = i % g->x.targets;
                    n = g->x.targets - first < first_pixel + pixels - i ? g->x.targets - first
                                                                        : first_pixel + pixels - i;
                    if (y == SIZE_MAX)
                        memset(tile, 0, n * lanes * sizeof *tile);
                    else
                        gather_line(&g->x, g->source + c * plane + y * line, g->lanes, kx, first, n, first_lane, lanes,
                                    tile);
                }
}

static gather forward_gather(const float *input, const dsr_conv *conv) {
    return (gather){input, conv->lanes, forward_axis(&conv->y), forward_axis(&conv->x)};
}

/* ---- transposed ---------------------------------------------------------------------------------------------------
 * With a spread, a convolution is the input gradient of another one, whose stride that is, with the weights turned. */
static int is_transposed(const dsr_conv *conv) {
    return conv->y.spread > 1 || conv->x.spread > 1;
}

static dsr_conv_axis mirrored_axis(const dsr_conv_axis *axis) {
    return (dsr_conv_axis){.size = axis->out,
                           .taps = axis->taps,
                           .out = axis->size,
                           .stride = axis->spread,
                           .dilation = axis->dilation,
                           .spread = 1,
                           .before = (axis->taps - 1) * axis->dilation - axis->before};
}

static dsr_conv mirrored(const dsr_conv *conv) {
    return (dsr_conv){mirrored_axis(&conv->y),
                      mirrored_axis(&conv->x),
                      conv->out_channels,
                      conv->in_channels,
                      conv->groups,
                      conv->lanes};
}

/* [CO][CI / groups][taps] to [CI][CO / groups][taps], the last tap first. */
static void turn_weights(const float *weight, const dsr_conv *conv, float *turned) {
    size_t taps = conv->y.taps * conv->x.taps, in = conv->in_channels / conv->groups,
           out = conv->out_channels / conv->groups;
    for (size_t co = 0; co < conv->out_channels; co++)
        for (size_t ci = 0; ci < in; ci++)
            for (size_t tap = 0; tap < taps; tap++)
                turned[((co / out * in + ci) * out + co % out) * taps + taps - 1 - tap] =
                    weight[(co * in + ci) * taps + tap];
}

static float *new_turned_weights(const float *weight, const dsr_conv *conv) {
    size_t depth = conv->in_channels / conv->groups * conv->y.taps * conv->x.taps;
    float *turned = dsr_scratch(conv->out_channels * depth, sizeof *turned);
    if (turned && weight)
        turn_weights(weight, conv, turned);
    return turned;
}

static dsr_status transposed_forward(const float *input, const float *weight, const float *bias, float *output,
                                     const dsr_conv *conv) {
    float *turned = new_turned_weights(weight, conv);
    if (!turned)
        return DSR_NO_MEMORY;
    dsr_status status = dsr_conv2d_input_gradient(input, turned, output, mirrored(conv));
    size_t plane = conv->y.out * conv->x.out * conv->lanes;
    for (size_t c = 0; bias && c < conv->out_channels; c++)
        for (size_t i = 0; i < plane; i++)
            output[c * plane + i] += bias[c];
    dsr_release(turned);
    return status;
}

static dsr_status transposed_input_gradient(const float *grad_output, const float *weight, float *grad_input,
                                            const dsr_conv *conv) {
    float *turned = new_turned_weights(weight, conv);
    if (!turned)
        return DSR_NO_MEMORY;
    dsr_status status = dsr_conv2d(grad_output, turned, NULL, grad_input, mirrored(conv));
    dsr_release(turned);
    return status;
}

static dsr_status transposed_weight_gradient(const float *grad_output, const float *input, float *grad_weight,
                                             const dsr_conv *conv) {
    dsr_conv other = mirrored(conv);
    float *turned = new_turned_weights(NULL, conv);
    if (!turned)
        return DSR_NO_MEMORY;
    dsr_status status = dsr_conv2d_weight_gradient(input, grad_output, turned, other);
    if (status == DSR_OK)
        turn_weights(turned, &other, grad_weight);
    dsr_release(turned);
    return status;
}

/* Groups are convolutions of their own, one after the other: floats of a group's input, weights and output. */
typedef struct {
    dsr_conv conv;
    size_t input, weights, output;
} one_group;

static one_group make_group(const dsr_conv *conv) {
    one_group g = {.conv = *conv};
    g.conv.groups = 1;
    g.conv.in_channels /= conv->groups;
    g.conv.out_channels /= conv->groups;
    g.input = g.conv.in_channels * conv->y.size * conv->x.size * conv->lanes;
    g.weights = g.conv.out_channels * g.conv.in_channels * conv->y.taps * conv->x.taps;
    g.output = g.conv.out_channels * conv->y.out * conv->x.out * conv->lanes;
    return g;
}

static int reads_one_pixel(const dsr_conv_axis *axis) {
    return axis->taps == 1 && axis->stride == 1 && axis->before == 0 && axis->out == axis->size;
}

/* Lanes come in `steps` parts, each of which is convolved by itself; more than one of them where there is one output
 * pixel, whose lanes of a part lie side by side. */
static dsr_status forward(const float *input, const float *weight, const float *bias, float *output,
                          const dsr_conv *conv, size_t steps) {
    size_t pixels = conv->y.out * conv->x.out, plane = pixels * conv->lanes;
    size_t depth = conv->in_channels * conv->y.taps * conv->x.taps;
    if (!plane || !conv->out_channels)
        return DSR_OK;
    size_t run = conv->lanes / steps;
    /* One column is a vector. OpenBLAS for 64-bit Arm multiplies by vectors in a way whose rounding depends on their
     * stride, which is 1 where there is one step: so the vectors of several steps are gathered. */
    int pointwise = reads_one_pixel(&conv->y) && reads_one_pixel(&conv->x) && (run > 1 || steps == 1);
    gemm_tiles t = make_gemm_tiles(pixels, run);
    size_t tiles = t.pixel_tiles * t.lane_tiles;
    gather g = forward_gather(input, conv);
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(plane * conv->out_channels))
    {
        float *tile = pointwise ? NULL : dsr_scratch(depth, t.pixels * t.lanes * sizeof *tile);
        if (!tile && !pointwise) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(tiles * steps); i++) {
            if (!tile && !pointwise)
                continue;
            size_t step = (size_t)i / tiles, index = (size_t)i % tiles;
            size_t first_pixel = index / t.lane_tiles * t.pixels;
            size_t first_lane = step * run + index % t.lane_tiles * t.lanes;
            size_t count = pixels - first_pixel < t.pixels ? pixels - first_pixel : t.pixels;
            size_t lanes = dsr_block_size(run, t.lanes, index % t.lane_tiles), columns = count * lanes;
            size_t at = first_pixel * conv->lanes + first_lane;
            if (tile)
                gather_tile(&g, 0, conv->in_channels, first_pixel, count, first_lane, lanes, tile);
            for (size_t c = 0; c < conv->out_channels; c++)
                for (size_t l = 0; l < columns; l++)
                    output[c * plane + at + l] = bias ? bias[c] : 0;
            if (depth)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)conv->out_channels, (int)columns,
                            (int)depth, 1, weight, (int)depth, tile ? tile : input + at, (int)(tile ? columns : plane),
                            1, output + at, (int)plane);
        }
        dsr_release(tile);
    }
    return status;
}

dsr_status dsr_conv2d(const float *input, const float *weight, const float *bias, float *output, dsr_conv conv) {
    return dsr_conv2d_by_step(input, weight, bias, output, conv, 1);
}

dsr_status dsr_conv2d_by_step(const float *input, const float *weight, const float *bias, float *output, dsr_conv conv,
                              size_t steps) {
    if (is_transposed(&conv))
        return transposed_forward(input, weight, bias, output, &conv);
    if (dsr_is_depthwise(&conv))
        return dsr_depthwise(input, weight, bias, output, &conv);
    one_group group = make_group(&conv);
    dsr_status status = DSR_OK;
    for (size_t g = 0; conv.out_channels && g < conv.groups && status == DSR_OK; g++)
        status =
            forward(input + g * group.input, weight + g * group.weights,
                    bias ? bias + g * group.conv.out_channels : NULL, output + g * group.output, &group.conv, steps);
    return status;
}

static size_t common_divisor(size_t a, size_t b) {
    while (b) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Input pixels `first`, first + stride, ... of one direction have the same taps: first_tap, first_tap + tap_step, ...
 */
typedef struct {
    size_t first, pixels, first_tap, tap_step, taps;
} pixel_class;

/* Tap k reaches input pixel y from output (y + before - k * dilation) / stride, if that is a whole number. */
static pixel_class make_class(const dsr_conv_axis *axis, size_t first) {
    pixel_class c = {.first = first, .tap_step = axis->stride / common_divisor(axis->stride, axis->dilation)};
    c.pixels = axis->size > first ? dsr_blocks(axis->size - first, axis->stride) : 0;
    size_t wanted = (first + axis->before) % axis->stride;
    while (c.first_tap < axis->taps && c.first_tap < c.tap_step &&
           c.first_tap * axis->dilation % axis->stride != wanted)
        c.first_tap++;
    if (c.first_tap < axis->taps && c.first_tap < c.tap_step)
        c.taps = dsr_blocks(axis->taps - c.first_tap, c.tap_step);
    return c;
}

static gather_axis backward_axis(const dsr_conv_axis *axis, const pixel_class *c) {
    return (gather_axis){.size = axis->out,
                         .targets = c->pixels,
                         .pitch = axis->stride,
                         .taps = c->taps,
                         .start = (ptrdiff_t)(c->first + axis->before) - (ptrdiff_t)(c->first_tap * axis->dilation),
                         .step = -(ptrdiff_t)(c->tap_step * axis->dilation),
                         .divisor = (ptrdiff_t)axis->stride};
}

/* Weights of the taps of a class, [CO][tap y][tap x][CI], by blocks of DSR_ROW input channels; `rows` has room for
 * their taps, used or not. */
static void turn_class(const float *first_tap, const dsr_conv *conv, const pixel_class *y, const pixel_class *x,
                       float *rows, float *turned) {
    size_t kernel = conv->y.taps * conv->x.taps, in = conv->in_channels;
    size_t tap_y = y->tap_step * conv->x.taps, tap_x = x->tap_step;
    size_t span = (y->taps - 1) * tap_y + (x->taps - 1) * tap_x + 1;
    for (size_t co = 0; co < conv->out_channels; co++)
        for (size_t ci = 0; ci < in; ci += DSR_ROW) {
            size_t n = dsr_block_size(in, DSR_ROW, ci / DSR_ROW);
            dsr_kernel->lanes_to_rows(first_tap + (co * in + ci) * kernel, span, n, kernel, rows);
            for (size_t tap = 0; tap < y->taps * x->taps; tap++)
                memcpy(turned + (co * y->taps * x->taps + tap) * in + ci,
                       rows + (tap / x->taps * tap_y + tap % x->taps * tap_x) * DSR_ROW, n * sizeof *turned);
        }
}

/* The pixels of a class are a dense convolution of the output's gradient. */
static dsr_status input_gradient_class(const float *grad_output, const float *weight, float *grad_input,
                                       const dsr_conv *conv, pixel_class y, pixel_class x) {
    size_t kernel = conv->y.taps * conv->x.taps, plane = conv->y.size * conv->x.size * conv->lanes;
    size_t pixels = y.pixels * x.pixels, depth = conv->out_channels * y.taps * x.taps;
    if (!pixels || !conv->lanes || !conv->in_channels)
        return DSR_OK;
    gather g = {grad_output, conv->lanes, backward_axis(&conv->y, &y), backward_axis(&conv->x, &x)};
    const float *first_tap = weight + y.first_tap * conv->x.taps + x.first_tap;
    size_t tap_y = y.tap_step * conv->x.taps, tap_x = x.tap_step;
    int neighbours = -g.y.step == g.y.divisor && -g.x.step == g.x.divisor;
    const dsr_small_conv small = {.source = grad_output,
                                  .channels = conv->out_channels,
                                  .height = conv->y.out,
                                  .width = conv->x.out,
                                  .lanes = conv->lanes,
                                  .weights = first_tap,
                                  .output_step = kernel,
                                  .channel_step = conv->in_channels * kernel,
                                  .tap_y = tap_y,
                                  .tap_x = tap_x,
                                  .outputs = conv->in_channels,
                                  .rows = y.pixels,
                                  .columns = x.pixels,
                                  .first_y = g.y.start / g.y.divisor,
                                  .first_x = g.x.start / g.x.divisor,
                                  .taps = neighbours && y.taps == x.taps && y.taps <= 3 ? (int)y.taps : 0,
                                  .target = grad_input + (y.first * conv->x.size + x.first) * conv->lanes,
                                  .plane = plane,
                                  .row = conv->y.stride * conv->x.size * conv->lanes,
                                  .column = conv->x.stride * conv->lanes};
    if (dsr_winograd_pays(&small))
        return dsr_winograd(&small);
    gemm_tiles t = make_gemm_tiles(pixels, conv->lanes);
    float *turned = dsr_scratch(conv->in_channels * depth, sizeof *turned);
    float *rows = dsr_scratch(kernel, DSR_ROW * sizeof *rows);
    if (turned && rows && depth)
        turn_class(first_tap, conv, &y, &x, rows, turned);
    dsr_release(rows);
    if (!turned || !rows) {
        dsr_release(turned);
        return DSR_NO_MEMORY;
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
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)conv->in_channels, (int)width, (int)depth, 1,
                            turned, (int)conv->in_channels, tile, (int)width, 0, result, (int)width);
            else
                memset(result, 0, conv->in_channels * width * sizeof *result);
            for (size_t c = 0; c < conv->in_channels; c++)
                for (size_t p = first_pixel; p < first_pixel + count; p++) {
                    size_t row = p / x.pixels * conv->y.stride + y.first, at = p % x.pixels * conv->x.stride + x.first;
                    memcpy(grad_input + c * plane + (row * conv->x.size + at) * conv->lanes + first_lane,
                           result + c * width + (p - first_pixel) * lanes, lanes * sizeof *result);
                }
        }
        dsr_release(tile);
        dsr_release(result);
    }
    dsr_release(turned);
    return status;
}

static dsr_status input_gradient(const float *grad_output, const float *weight, float *grad_input,
                                 const dsr_conv *conv) {
    /* classes that begin beyond the image are empty */
    for (size_t y = 0; y < conv->y.stride && y < conv->y.size; y++)
        for (size_t x = 0; x < conv->x.stride && x < conv->x.size; x++) {
            dsr_status status = input_gradient_class(grad_output, weight, grad_input, conv, make_class(&conv->y, y),
                                                     make_class(&conv->x, x));
            if (status != DSR_OK)
                return status;
        }
    return DSR_OK;
}

dsr_status dsr_conv2d_input_gradient(const float *grad_output, const float *weight, float *grad_input, dsr_conv conv) {
    if (is_transposed(&conv))
        return transposed_input_gradient(grad_output, weight, grad_input, &conv);
    if (dsr_is_depthwise(&conv))
        return dsr_depthwise_input_gradient(grad_output, weight, grad_input, &conv);
    one_group group = make_group(&conv);
    dsr_status status = DSR_OK;
    if (!conv.out_channels)
        memset(grad_input, 0, conv.groups * group.input * sizeof *grad_input);
    for (size_t g = 0; conv.out_channels && g < conv.groups && status == DSR_OK; g++)
        status = input_gradient(grad_output + g * group.output, weight + g * group.weights,
                                grad_input + g * group.input, &group.conv);
    return status;
}

/* Shared out by blocks of input channels (and of output channels where there are few rows), each summed over all
 * columns in order: no partial sums to add, whatever the number of threads. */
static dsr_status weight_gradient(const float *grad_output, const float *input, float *grad_weight,
                                  const dsr_conv *conv) {
    size_t pixels = conv->y.out * conv->x.out, plane = pixels * conv->lanes;
    size_t kernel = conv->y.taps * conv->x.taps, depth = conv->in_channels * kernel;
    memset(grad_weight, 0, conv->out_channels * depth * sizeof *grad_weight);
    if (!plane || !conv->out_channels || !depth)
        return DSR_OK;
    size_t in_block = conv->in_channels >= 64 ? 32 : 16, out_block = depth < 128 ? 32 : conv->out_channels;
    size_t in_blocks = dsr_blocks(conv->in_channels, in_block), out_blocks = dsr_blocks(conv->out_channels, out_block);
    gemm_tiles t = make_gemm_tiles(pixels, conv->lanes);
    gather g = forward_gather(input, conv);
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
            size_t channels = dsr_block_size(conv->in_channels, in_block, in);
            size_t outputs = dsr_block_size(conv->out_channels, out_block, out);
            float *result = grad_weight + out * out_block * depth + in * in_block * kernel;
            for (size_t i = 0; i < t.pixel_tiles * t.lane_tiles; i++) {
                size_t first_pixel = i / t.lane_tiles * t.pixels, first_lane = i % t.lane_tiles * t.lanes;
                size_t count = pixels - first_pixel < t.pixels ? pixels - first_pixel : t.pixels;
                size_t lanes = dsr_block_size(conv->lanes, t.lanes, i % t.lane_tiles), columns = count * lanes;
                gather_tile(&g, in * in_block, channels, first_pixel, count, first_lane, lanes, tile);
                const float *grad = grad_output + out * out_block * plane + first_pixel * conv->lanes + first_lane;
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)outputs, (int)(channels * kernel),
                            (int)columns, 1, grad, (int)plane, tile, (int)columns, 1, result, (int)depth);
            }
        }
        dsr_release(tile);
    }
    return status;
}

dsr_status dsr_conv2d_weight_gradient(const float *grad_output, const float *input, float *grad_weight, dsr_conv conv) {
    if (is_transposed(&conv))
        return transposed_weight_gradient(grad_output, input, grad_weight, &conv);
    if (dsr_is_depthwise(&conv))
        return dsr_depthwise_weight_gradient(grad_output, input, grad_weight, &conv);
    if (dsr_winograd_weights_pay(&conv))
        return dsr_winograd_weights(grad_output, input, grad_weight, conv);
    one_group group = make_group(&conv);
    dsr_status status = DSR_OK;
    for (size_t g = 0; conv.out_channels && g < conv.groups && status == DSR_OK; g++)
        status = weight_gradient(grad_output + g * group.output, input + g * group.input,
                                 grad_weight + g * group.weights, &group.conv);
    return status;
}
