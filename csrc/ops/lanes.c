/* Operations on the lanes layout that need no BLAS: neurons that write bits, packing, normalisation, pooling. */
#include "ops.h"

/* Pixels of a tile are chosen so that its words stay in the first cache while 32 channels pass over them. */
enum { TILE_LANES = 4096 };

static size_t tile_pixels(size_t lanes) {
    return lanes && lanes < TILE_LANES ? TILE_LANES / lanes : 1;
}

dsr_status dsr_neuron_spikes(dsr_layer_current input, uint32_t *words, float *sums, float *weighted, dsr_lanes shape,
                             dsr_neuron neuron, dsr_thresholds thresholds) {
    size_t lanes = shape.timesteps * shape.batch, pixels = tile_pixels(lanes), row = shape.pixels * lanes;
    size_t input_lanes = input.one_step ? shape.batch : lanes, input_row = shape.pixels * input_lanes;
    size_t groups = dsr_blocks(shape.channels, DSR_WORD), tiles = dsr_blocks(shape.pixels, pixels);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(shape.channels *row))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)(groups * tiles); i++) {
        size_t group = (size_t)i / tiles, first = (size_t)i % tiles * pixels, channel = group * DSR_WORD;
        dsr_strip strip = {.channels = dsr_block_size(shape.channels, DSR_WORD, group),
                           .pixels = dsr_block_size(shape.pixels, pixels, (size_t)i % tiles),
                           .timesteps = shape.timesteps,
                           .batch = shape.batch,
                           .stride = input_row,
                           .sum_stride = shape.pixels * shape.batch,
                           .plane = groups * row,
                           .one_step = input.one_step,
                           .scale = input.scale ? input.scale + channel : NULL,
                           .shift = input.shift ? input.shift + channel : NULL,
                           .weights = input.weights,
                           .thresholds = {thresholds.rows ? thresholds.rows + channel : NULL, thresholds.stride}};
        size_t at = (channel * shape.pixels + first) * shape.batch;
        dsr_kernel->neuron_spikes(input.current + channel * input_row + first * input_lanes,
                                  words + group * row + first * lanes, sums + at, weighted ? weighted + at : NULL,
                                  strip, &neuron);
    }
    return DSR_OK;
}

/* The mean current of a chunk stays in the first cache; it is what a pass of its own would write and read again. */
dsr_status dsr_neuron_spikes_backward(const float *grad, const float *sums, const float *scale, const float *shift,
                                      float *grad_current, double *above, size_t channels, size_t n, size_t timesteps,
                                      dsr_neuron neuron, dsr_thresholds thresholds) {
    float divisor = (float)neuron.divisor * (float)timesteps;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++) {
        float mean[DSR_CHUNK], a = (scale ? scale[c] : 1) / (float)timesteps, b = shift ? shift[c] : 0;
        double partial[DSR_PARTIALS] = {0};
        const dsr_neuron own = dsr_neuron_of(&neuron, thresholds, (size_t)c);
        for (size_t chunk = 0; chunk < dsr_blocks(n, DSR_CHUNK); chunk++) {
            size_t at = (size_t)c * n + chunk * DSR_CHUNK, count = dsr_block_size(n, DSR_CHUNK, chunk);
            dsr_kernel->affine(sums + at, NULL, mean, count, a, 0, b);
            dsr_kernel->rate_backward_f32(grad + at, mean, grad_current + at, count, &own, divisor, partial);
        }
        above[c] = dsr_add_partials(partial);
    }
    return DSR_OK;
}

dsr_status dsr_pack_words(const float *values, uint32_t *words, size_t channels, size_t n) {
    size_t tiles = dsr_blocks(n, TILE_LANES), groups = dsr_blocks(channels, DSR_WORD);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)(groups * tiles); i++) {
        size_t group = (size_t)i / tiles, tile = (size_t)i % tiles, first = tile * TILE_LANES;
        dsr_kernel->pack_words(values + group * DSR_WORD * n + first, words + group * n + first,
                               dsr_block_size(channels, DSR_WORD, group), dsr_block_size(n, TILE_LANES, tile), n);
    }
    return DSR_OK;
}

dsr_status dsr_transpose_words(const uint32_t *words, uint32_t *transposed, size_t groups, size_t pixels,
                               size_t lanes) {
    size_t blocks = dsr_blocks(lanes, DSR_WORD), row = blocks * groups * DSR_WORD;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(groups *pixels *lanes))
    for (ptrdiff_t p = 0; p < (ptrdiff_t)pixels; p++)
        for (size_t block = 0; block < blocks; block++)
            for (size_t group = 0; group < groups; group++)
                dsr_kernel->transpose_words(words + (group * pixels + (size_t)p) * lanes + block * DSR_WORD,
                                            transposed + (size_t)p * row + (block * groups + group) * DSR_WORD,
                                            dsr_block_size(lanes, DSR_WORD, block));
    return DSR_OK;
}

dsr_status dsr_count_steps(const uint32_t *words, uint32_t *sums, size_t planes, size_t digits, size_t n,
                           size_t timesteps, size_t batch) {
    size_t lanes = timesteps * batch;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(planes *n *lanes *digits))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++)
        dsr_kernel->count_steps(words + (size_t)i * lanes, sums + (size_t)i * digits * batch, planes, n * lanes, digits,
                                timesteps, batch);
    return DSR_OK;
}

static void each_tile(void (*kernel)(const uint32_t *, float *, size_t, size_t, size_t, const float *),
                      const uint32_t *words, float *values, size_t channels, size_t n, const float *amplitude) {
    size_t tiles = dsr_blocks(n, TILE_LANES), groups = dsr_blocks(channels, DSR_WORD);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)(groups * tiles); i++) {
        size_t group = (size_t)i / tiles, tile = (size_t)i % tiles, first = tile * TILE_LANES;
        kernel(words + group * n + first, values + group * DSR_WORD * n + first,
               dsr_block_size(channels, DSR_WORD, group), dsr_block_size(n, TILE_LANES, tile), n,
               amplitude + group * DSR_WORD);
    }
}

dsr_status dsr_unpack_words(const uint32_t *words, float *values, size_t channels, size_t n, const float *amplitude) {
    each_tile(dsr_kernel->unpack_words, words, values, channels, n, amplitude);
    return DSR_OK;
}

dsr_status dsr_add_words(const uint32_t *words, float *values, size_t channels, size_t n, const float *amplitude) {
    each_tile(dsr_kernel->add_words, words, values, channels, n, amplitude);
    return DSR_OK;
}

dsr_status dsr_sum_words(const uint32_t *words, const float *weights, float *sums, dsr_lanes shape,
                         const float *amplitude) {
    size_t lanes = shape.timesteps * shape.batch, pixels = tile_pixels(lanes);
    size_t tiles = dsr_blocks(shape.pixels, pixels), groups = dsr_blocks(shape.channels, DSR_WORD);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(shape.channels *shape.pixels *lanes))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)(groups * tiles); i++) {
        size_t group = (size_t)i / tiles, tile = (size_t)i % tiles, first = tile * pixels;
        dsr_kernel->sum_words(words + (group * shape.pixels + first) * lanes, weights,
                              sums + (group * DSR_WORD * shape.pixels + first) * shape.batch,
                              dsr_block_size(shape.channels, DSR_WORD, group),
                              dsr_block_size(shape.pixels, pixels, tile), shape.timesteps, shape.batch,
                              shape.pixels * shape.batch, amplitude + group * DSR_WORD);
    }
    return DSR_OK;
}

dsr_status dsr_count_words(const uint32_t *words, int64_t *counts, size_t channels, size_t n) {
    size_t tiles = dsr_blocks(n, TILE_LANES);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t group = 0; group < (ptrdiff_t)dsr_blocks(channels, DSR_WORD); group++) {
        size_t count = dsr_block_size(channels, DSR_WORD, (size_t)group);
        for (size_t c = 0; c < count; c++)
            counts[(size_t)group * DSR_WORD + c] = 0;
        for (size_t tile = 0; tile < tiles; tile++)
            dsr_kernel->count_words(words + (size_t)group * n + tile * TILE_LANES, counts + (size_t)group * DSR_WORD,
                                    count, dsr_block_size(n, TILE_LANES, tile));
    }
    return DSR_OK;
}

dsr_status dsr_count_bits(const uint32_t *words, double *count, size_t n) {
    double total = 0; /* exact: a whole number below 2^53 */
#pragma omp parallel for schedule(static) reduction(+ : total) num_threads(dsr_threads_for(n))
    for (ptrdiff_t tile = 0; tile < (ptrdiff_t)dsr_blocks(n, TILE_LANES); tile++)
        total += (double)dsr_kernel->count_bits(words + (size_t)tile * TILE_LANES,
                                                dsr_block_size(n, TILE_LANES, (size_t)tile));
    *count = total;
    return DSR_OK;
}

dsr_status dsr_dropout_words(const uint32_t *words, uint32_t *kept, size_t n, uint64_t seed, double keep) {
    size_t tiles = dsr_blocks(n, TILE_LANES);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(DSR_WORD *n))
    for (ptrdiff_t tile = 0; tile < (ptrdiff_t)tiles; tile++) {
        size_t first = (size_t)tile * TILE_LANES;
        dsr_kernel->dropout_words(words + first, kept + first, dsr_block_size(n, TILE_LANES, (size_t)tile), first, seed,
                                  keep);
    }
    return DSR_OK;
}

dsr_status dsr_moments(const float *values, double *sums, double *squares, size_t channels, size_t n) {
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++)
        dsr_kernel->moments(values + (size_t)c * n, n, sums + c, squares + c);
    return DSR_OK;
}

dsr_status dsr_product_moments(const float *a, const float *b, double *sums, double *products, size_t channels,
                               size_t n) {
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++)
        dsr_kernel->product_moments(a + (size_t)c * n, b + (size_t)c * n, n, sums + c, products + c);
    return DSR_OK;
}

dsr_status dsr_affine(const float *x, const float *y, const float *a, const float *b, const float *c, float *out,
                      size_t channels, size_t n) {
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(channels *n))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)channels; i++) {
        size_t at = (size_t)i * n;
        dsr_kernel->affine(x + at, y ? y + at : NULL, out + at, n, a[i], y ? b[i] : 0, c[i]);
    }
    return DSR_OK;
}

dsr_status dsr_weighted_sum(const float *values, const float *weights, float *sum, dsr_lanes shape) {
    size_t row = shape.pixels * shape.batch;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(shape.channels *row *shape.timesteps))
    for (ptrdiff_t c = 0; c < (ptrdiff_t)shape.channels; c++)
        dsr_kernel->weighted_sum(values + (size_t)c * row * shape.timesteps, weights, sum + (size_t)c * row,
                                 shape.pixels, shape.timesteps, shape.batch);
    return DSR_OK;
}

dsr_status dsr_expand_gradient(const float *constant, const float *values, const float *slope, float *dense,
                               dsr_lanes shape) {
    size_t row = shape.pixels * shape.batch;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(shape.channels *row *shape.timesteps))
    for (ptrdiff_t c = 0; c < (ptrdiff_t)shape.channels; c++) {
        size_t at = (size_t)c * row * shape.timesteps;
        dsr_kernel->expand_gradient(constant + (size_t)c * row, values + at, dense + at, shape.pixels, shape.timesteps,
                                    shape.batch, slope[c]);
    }
    return DSR_OK;
}

/* Elements of the input and of the output of one channel. */
static size_t pool_input(const dsr_pool *pool) {
    return pool->height * pool->width * pool->lanes;
}

static size_t pool_output(const dsr_pool *pool) {
    return pool->out_height * pool->out_width * pool->lanes;
}

#define EACH_CHANNEL(kernel_call)                                                                                      \
    size_t in = pool_input(&pool), out = pool_output(&pool);                                                           \
    _Pragma("omp parallel for schedule(static) num_threads(dsr_threads_for(pool.channels *in))") for (ptrdiff_t i = 0; \
                                                                                                      i <              \
                                                                                                      (ptrdiff_t)pool  \
                                                                                                          .channels;   \
                                                                                                      i++) {           \
        size_t c = (size_t)i;                                                                                          \
        dsr_kernel->kernel_call;                                                                                       \
    }                                                                                                                  \
    return DSR_OK

dsr_status dsr_pool_planes(const uint32_t *words, uint32_t *planes, size_t count, dsr_pool pool) {
    EACH_CHANNEL(pool_planes(words + c * in, planes + c * out, count, pool.channels * out, pool));
}

dsr_status dsr_avg_pool(const float *input, float *output, dsr_pool pool) {
    EACH_CHANNEL(avg_pool(input + c * in, output + c * out, pool));
}

dsr_status dsr_avg_pool_backward(const float *grad_output, float *grad_input, dsr_pool pool) {
    EACH_CHANNEL(avg_pool_backward(grad_output + c * out, grad_input + c * in, pool));
}

dsr_status dsr_max_pool(const float *input, float *output, dsr_pool pool) {
    EACH_CHANNEL(max_pool(input + c * in, output + c * out, pool));
}

dsr_status dsr_max_pool_backward(const float *grad_output, const float *input, float *grad_input, dsr_pool pool) {
    EACH_CHANNEL(max_pool_backward(grad_output + c * out, input + c * in, grad_input + c * in, pool));
}

dsr_status dsr_or_pool(const uint32_t *words, uint32_t *output, dsr_pool pool) {
    EACH_CHANNEL(or_pool(words + c * in, output + c * out, pool));
}
