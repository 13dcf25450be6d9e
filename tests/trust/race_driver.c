/* Every operation of csrc/dsr.h, without Python, for ThreadSanitizer, AddressSanitizer and LeakSanitizer.
 *
 *   race_driver LEVEL SHAPES   each operation with one thread and with four, and in two threads of the process at the
 *                              same time, as Python threads may; each time the same bits, or it ends with 1
 *   race_driver race|leak|overflow   does what must be reported, to show that it is
 *
 * Sizes are such that all operations start several threads (see dsr_threads_for in csrc/ops/threads.c). */
#include "dsr.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BUFFERS = 16 };

typedef struct {
    size_t timesteps, batch, channels, outputs, side, kernel, stride, padding;
} shape;

/* Each has something that the others lack: several words of channels, a single one, no padding, strides, a kernel of
 * 1x1, few lanes and many, sizes that are no multiple of anything. */
static const shape SHAPES[] = {
    {3, 6, 40, 36, 10, 3, 1, 1},  {5, 3, 33, 70, 13, 3, 2, 1},  {2, 20, 96, 16, 10, 1, 1, 0},
    {3, 5, 20, 32, 17, 5, 1, 2},  {1, 40, 64, 64, 9, 2, 2, 0},  {6, 7, 5, 130, 15, 3, 1, 0},
    {4, 1, 160, 33, 14, 3, 3, 1}, {16, 2, 31, 31, 11, 3, 1, 1}, {2, 130, 32, 17, 8, 2, 1, 1},
    {4, 8, 64, 48, 16, 3, 2, 1},  {7, 6, 40, 24, 12, 7, 1, 3},  {2, 2, 300, 9, 12, 3, 1, 1},
};

/* What one run of one operation holds; thread-local, since two run at the same time. */
static _Thread_local struct {
    void *buffer[MOST_BUFFERS];
    size_t bytes[MOST_BUFFERS], count;
    int output[MOST_BUFFERS];
    uint64_t state;
    int failed;
} run;

static void *keep(void *buffer, size_t bytes, int output) {
    if (!buffer || run.count == MOST_BUFFERS)
        abort();
    run.buffer[run.count] = buffer;
    run.bytes[run.count] = bytes;
    run.output[run.count++] = output;
    return buffer;
}

static void *new_buffer(size_t bytes, int output) {
    return keep(malloc(bytes ? bytes : 1), bytes, output);
}

/* Rows of channels, aligned; zeros, which are an output. */
static float *rows_of(size_t n) {
    size_t bytes = (n * sizeof(float) / 64 + 1) * 64;
    float *rows = keep(aligned_alloc(64, bytes), bytes, 1);
    memset(rows, 0, bytes);
    return rows;
}

static uint32_t draw(void) {
    run.state = run.state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(run.state >> 32);
}

static double draw_number(void) {
    return draw() / 2147483648.0 - 0.5; /* [-0.5, 1.5) */
}

static float *floats(size_t n) {
    float *values = new_buffer(n * sizeof *values, 0);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)draw_number();
    return values;
}

static double *doubles(size_t n) {
    double *values = new_buffer(n * sizeof *values, 0);
    for (size_t i = 0; i < n; i++)
        values[i] = draw_number();
    return values;
}

static void *reals(dsr_dtype dtype, size_t n) {
    if (dtype == DSR_F32)
        return floats(n);
    return doubles(n);
}

/* Words of `channels` channels; one bit in four. */
static uint32_t *words_of(size_t channels, size_t n) {
    size_t groups = (channels + 31) / 32;
    uint32_t *words = new_buffer(groups * n * sizeof *words, 0);
    for (size_t i = 0; i < groups * n; i++) {
        size_t left = channels - i / n * 32;
        words[i] = draw() & draw() & (left >= 32 ? 0xffffffffu : (1u << left) - 1);
    }
    return words;
}

static void *out(size_t bytes) {
    void *buffer = new_buffer(bytes, 1);
    memset(buffer, 0xA5, bytes);
    return buffer;
}

static void *out_floats(size_t n) {
    return out(n * sizeof(float));
}

static void *out_reals(dsr_dtype dtype, size_t n) {
    return out(n * (dtype == DSR_F32 ? sizeof(float) : sizeof(double)));
}

static void *out_words(size_t channels, size_t n) {
    return out((channels + 31) / 32 * n * sizeof(uint32_t));
}

static void check(dsr_status status) {
    run.failed |= status != DSR_OK;
}

/* ---- operations, time first ------------------------------------------------------------------------------------- */
static const dsr_neuron IF = {1, 1, 1, 0.5, 1, 1, 1, 1, 1}, LIF = {0.6, 0.4, 1, 0.3, 1, 2, 2, 0, 1};

/* Neurons of a time-first array: enough for a team with one step, too. */
static size_t neurons(const shape *s) {
    return s->side % 2 ? 33000 : 40001;
}

#define FOR_BOTH(name, body)                                                                                           \
    static void name##_f32(const shape *s) {                                                                           \
        const dsr_dtype dtype = DSR_F32;                                                                               \
        size_t t = s->timesteps, n = neurons(s);                                                                       \
        (void)t, (void)n;                                                                                              \
        body                                                                                                           \
    }                                                                                                                  \
    static void name##_f64(const shape *s) {                                                                           \
        const dsr_dtype dtype = DSR_F64;                                                                               \
        size_t t = s->timesteps, n = neurons(s);                                                                       \
        (void)t, (void)n;                                                                                              \
        body                                                                                                           \
    }

FOR_BOTH(if_forward,
         check(dsr_neuron_forward(dtype, reals(dtype, t *n), NULL, out_reals(dtype, t *n), NULL, t, n, IF));)
FOR_BOTH(lif_forward, check(dsr_neuron_forward(dtype, reals(dtype, t *n), reals(dtype, n), out_reals(dtype, t *n),
                                               out_reals(dtype, n), t, n, LIF));)
FOR_BOTH(firing_rate, check(dsr_firing_rate(dtype, reals(dtype, t *n), NULL, out_reals(dtype, n), t, n));)
FOR_BOTH(weighted_firing_rate,
         check(dsr_firing_rate(dtype, reals(dtype, t *n), doubles(t), out_reals(dtype, n), t, n));)
FOR_BOTH(rate, check(dsr_rate(dtype, reals(dtype, n), out_reals(dtype, n), n, LIF));)
FOR_BOTH(if_backward, check(dsr_backward(dtype, reals(dtype, t *n), reals(dtype, t *n), NULL, out_reals(dtype, t *n),
                                         out(sizeof(double)), t, n, IF));)
FOR_BOTH(lif_backward, check(dsr_backward(dtype, reals(dtype, t *n), reals(dtype, t *n), doubles(t),
                                          out_reals(dtype, t *n), out(sizeof(double)), t, n, LIF));)
FOR_BOTH(if_rate_backward, check(dsr_rate_backward(dtype, reals(dtype, n), reals(dtype, n), out_reals(dtype, n),
                                                   out(sizeof(double)), n, IF));)
FOR_BOTH(lif_rate_backward, check(dsr_rate_backward(dtype, reals(dtype, n), reals(dtype, n), out_reals(dtype, n),
                                                    out(sizeof(double)), n, LIF));)
FOR_BOTH(encode_bernoulli, check(dsr_encode_bernoulli(dtype, reals(dtype, n), out_reals(dtype, t *n), t, n, 7));)
FOR_BOTH(encode_latency, check(dsr_encode_latency(dtype, reals(dtype, n), out_reals(dtype, t *n), t, n));)
FOR_BOTH(encode_phase, check(dsr_encode_phase(dtype, reals(dtype, n), out_reals(dtype, t *n), t, n, 3));)
FOR_BOTH(encode_delta, check(dsr_encode_delta(dtype, reals(dtype, t *n), out_reals(dtype, t *n), t, n, 0.2));)

/* ---- lanes ------------------------------------------------------------------------------------------------------ */
static dsr_lanes lanes_of(const shape *s) {
    return (dsr_lanes){s->channels, s->side * s->side, s->timesteps, s->batch};
}

static size_t per_channel(const shape *s) {
    return s->side * s->side * s->timesteps * s->batch;
}

static size_t per_step(const shape *s) {
    return s->side * s->side * s->batch;
}

/* leaky: with scale, shift and weights, too. */
static void spikes_of(const shape *s, int held, int leaky) {
    size_t c = s->channels, n = per_channel(s), m = per_step(s);
    dsr_layer_current input = {.current = floats(c * (held ? m : n)), .one_step = held};
    uint32_t *words = out_words(c, n);
    float *sums = out_floats(c * m), *weighted = NULL;
    if (leaky) {
        input.scale = floats(c);
        input.shift = floats(c);
        input.weights = floats(s->timesteps);
        weighted = out_floats(c * m);
    }
    dsr_thresholds own = {leaky ? floats(3 * c) : NULL, c};
    check(dsr_neuron_spikes(input, words, sums, weighted, lanes_of(s), leaky ? LIF : IF, own));
}

static void neuron_steps(const shape *s) {
    size_t c = s->channels, n = per_channel(s), m = per_step(s);
    dsr_layer_current whole = {.current = floats(c * n), .scale = floats(c), .shift = floats(c)};
    dsr_layer_current held = {.current = floats(c * m), .one_step = 1};
    float *potentials = rows_of((c + 31) / 32 * m * DSR_ROW);
    dsr_thresholds one = {NULL, c}, own = {floats(3 * c), c};
    check(dsr_neuron_steps(whole, out_words(c, n), potentials, lanes_of(s), IF, one));
    check(dsr_neuron_steps(held, out_words(c, n), potentials, lanes_of(s), LIF, own));
}

static void backward_of(const shape *s, int leaky) {
    size_t c = s->channels, m = per_step(s);
    const float *grad = floats(c * m), *sums = floats(c * m), *scale = floats(c), *shift = floats(c);
    check(dsr_neuron_spikes_backward(grad, sums, leaky ? scale : NULL, leaky ? shift : NULL, out_floats(c * m),
                                     out(c * sizeof(double)), c, m, s->timesteps, leaky ? LIF : IF,
                                     (dsr_thresholds){NULL, c}));
}

static void if_spikes_backward(const shape *s) {
    backward_of(s, 0);
}

static void lif_spikes_backward(const shape *s) {
    backward_of(s, 1);
}

static void if_spikes(const shape *s) {
    spikes_of(s, 0, 0);
}

static void if_spikes_held(const shape *s) {
    spikes_of(s, 1, 0);
}

static void lif_spikes(const shape *s) {
    spikes_of(s, 0, 1);
}

static void lif_spikes_held(const shape *s) {
    spikes_of(s, 1, 1);
}

static void words(const shape *s) {
    size_t c = s->channels, n = per_channel(s), groups = (c + 31) / 32, lanes = s->timesteps * s->batch;
    const uint32_t *spikes = words_of(c, n);
    check(dsr_pack_words(floats(c * n), out_words(c, n), c, n));
    check(dsr_transpose_words(spikes, out(s->side * s->side * ((lanes + 31) / 32) * groups * 32 * sizeof *spikes),
                              groups, s->side * s->side, lanes));
    uint32_t *counts = out(16 * groups * s->side * s->side * s->batch * sizeof *counts);
    check(dsr_count_steps(spikes, counts, 1, 16, groups * s->side * s->side, s->timesteps, s->batch));
    const float *heights = floats(c);
    check(dsr_unpack_words(spikes, out_floats(c * n), c, n, heights));
    float *sum = floats(c * n);
    run.output[run.count - 1] = 1;
    check(dsr_add_words(spikes, sum, c, n, heights));
    check(dsr_sum_words(spikes, floats(s->timesteps), out_floats(c * per_step(s)), lanes_of(s), heights));
    check(dsr_count_words(spikes, out(c * sizeof(int64_t)), c, n));
    check(dsr_count_bits(spikes, out(sizeof(double)), groups * n));
    check(dsr_compare(sum, floats(c * n), c * n, out(sizeof(double))));
    check(dsr_dropout_words(spikes, out_words(c, n), groups * n, 11, 0.8));
}

static void norm(const shape *s) {
    size_t c = s->channels, n = per_channel(s);
    const float *x = floats(c * n), *y = floats(c * n), *a = floats(c);
    check(dsr_moments(x, out(c * sizeof(double)), out(c * sizeof(double)), c, n));
    check(dsr_product_moments(x, y, out(c * sizeof(double)), out(c * sizeof(double)), c, n));
    check(dsr_affine(x, y, a, a, a, out_floats(c * n), c, n));
    check(dsr_affine(x, NULL, a, NULL, a, out_floats(c * n), c, n));
    check(dsr_weighted_sum(x, floats(s->timesteps), out_floats(c * per_step(s)), lanes_of(s)));
    check(dsr_expand_gradient(floats(c * per_step(s)), x, a, out_floats(c * n), lanes_of(s)));
}

static void pools(const shape *s) {
    size_t lanes = s->timesteps * s->batch, c = s->channels, groups = (c + 31) / 32, after = s->side / 2;
    dsr_pool pool = {c, s->side, s->side, lanes, 2, 2, 2, 2, 0, 0, after, after};
    check(dsr_avg_pool(floats(c * per_channel(s)), out_floats(c * after * after * lanes), pool));
    check(dsr_avg_pool_backward(floats(c * after * after * lanes), out_floats(c * per_channel(s)), pool));
    check(dsr_max_pool(floats(c * per_channel(s)), out_floats(c * after * after * lanes), pool));
    check(dsr_max_pool_backward(floats(c * after * after * lanes), floats(c * per_channel(s)),
                                out_floats(c * per_channel(s)), pool));
    pool.channels = groups;
    check(dsr_or_pool(words_of(c, per_channel(s)), out(groups * after * after * lanes * sizeof(uint32_t)), pool));
    check(dsr_pool_planes(words_of(c, per_channel(s)), out(3 * groups * after * after * lanes * sizeof(uint32_t)), 3,
                          pool));
}

/* ---- convolutions ----------------------------------------------------------------------------------------------- */
static dsr_conv conv_of(const shape *s) {
    size_t after = (s->side + 2 * s->padding - s->kernel) / s->stride + 1;
    dsr_conv_axis axis = {s->side, s->kernel, after, s->stride, 1, 1, s->padding};
    return (dsr_conv){axis, axis, s->channels, s->outputs, 1, s->timesteps * s->batch};
}

static size_t outputs_of(const dsr_conv *conv) {
    return conv->y.out * conv->x.out * conv->lanes;
}

static size_t weights_of(const dsr_conv *conv) {
    return conv->out_channels * (conv->in_channels / conv->groups) * conv->y.taps * conv->x.taps;
}

static void conv2d(const shape *s) {
    dsr_conv conv = conv_of(s);
    size_t n = outputs_of(&conv);
    const float *input = floats(s->channels * per_channel(s)), *weight = floats(weights_of(&conv));
    const float *grad = floats(s->outputs * n), *bias = floats(s->outputs);
    check(dsr_conv2d(input, weight, bias, out_floats(s->outputs * n), conv));
    /* by step, the kernel as large as the image */
    dsr_conv whole = conv;
    whole.y = whole.x = (dsr_conv_axis){s->side, s->side, 1, 1, 1, 1, 0};
    check(dsr_conv2d_by_step(input, floats(weights_of(&whole)), bias, out_floats(s->outputs * conv.lanes), whole,
                             s->timesteps));
    check(dsr_conv2d_input_gradient(grad, weight, out_floats(s->channels * per_channel(s)), conv));
    check(dsr_conv2d_weight_gradient(grad, input, out_floats(weights_of(&conv)), conv));
}

static unsigned group_of(const shape *s) {
    return s->kernel > 5 ? 1 : s->side % 3 ? 4 : 2;
}

static void conv2d_spikes(const shape *s) {
    dsr_conv conv = conv_of(s);
    size_t n = outputs_of(&conv);
    const uint32_t *spikes = words_of(s->channels, per_channel(s));
    const float *weight = floats(weights_of(&conv)), *bias = floats(s->outputs);
    float *sum = floats(s->outputs * n);
    run.output[run.count - 1] = 1;
    check(dsr_conv2d_spikes(spikes, (dsr_weights){weight, NULL}, bias, 0.9, out_floats(s->outputs * n), conv,
                            group_of(s), 0));
    check(dsr_conv2d_spikes(spikes, (dsr_weights){weight, NULL}, NULL, 0.9, sum, conv, 1, 1));
}

static void conv2d_neuron(const shape *s) {
    dsr_conv conv = conv_of(s);
    size_t n = outputs_of(&conv);
    const uint32_t *spikes = words_of(s->channels, per_channel(s));
    const float *weight = floats(weights_of(&conv)), *bias = floats(s->outputs);
    dsr_after_conv after = {.neuron = IF};
    check(dsr_conv2d_neuron_spikes(spikes, (dsr_weights){weight, NULL}, bias, 0.9, out_words(s->outputs, n), conv,
                                   s->timesteps, group_of(s), after));
    after =
        (dsr_after_conv){.shortcut = words_of(s->outputs, n), .shortcut_amplitude = floats(s->outputs), .neuron = LIF};
    after.scale = floats(s->outputs);
    after.shift = floats(s->outputs);
    check(dsr_conv2d_neuron_spikes(spikes, (dsr_weights){weight, NULL}, NULL, 0.9, out_words(s->outputs, n), conv,
                                   s->timesteps, 1, after));
    after.weights = floats(s->timesteps);
    after.weighted = out_floats(s->outputs * n / s->timesteps);
    check(dsr_conv2d_neuron_spikes(spikes, (dsr_weights){weight, NULL}, NULL, 0.9, out_words(s->outputs, n), conv,
                                   s->timesteps, 1, after));
    after.weighted = out_floats(s->outputs * n / s->timesteps);
    check(
        dsr_conv2d_spikes_sum(spikes, (dsr_weights){weight, NULL}, bias, 0.9, conv, s->timesteps, group_of(s), after));
}

static void integer_conv(const shape *s) {
    dsr_conv conv = conv_of(s);
    size_t n = outputs_of(&conv), rows, blocks = dsr_integer_blocks(conv, &rows), outs = (s->outputs + 63) / 64;
    const uint32_t *spikes = words_of(s->channels, per_channel(s));
    int16_t *packed = new_buffer(outs * blocks * rows * 64 * sizeof *packed, 0);
    for (size_t i = 0; i < outs * blocks * rows * 64; i++)
        packed[i] = i / 64 % rows ? (int16_t)(i * 37 % 255) - 127 : 0;
    int32_t *current = out(outs * n * 64 * sizeof *current);
    dsr_integer_weights weights = {packed, 1 + s->outputs % 2};
    check(dsr_integer_conv2d_spikes(spikes, weights, current, conv, 1, group_of(s)));
    int32_t *bias = new_buffer(s->outputs * sizeof *bias, 0), *reset = new_buffer(s->outputs * sizeof *reset, 0);
    for (size_t i = 0; i < s->outputs; i++)
        bias[i] = (int32_t)(i % 9) - 4, reset[i] = 500 + (int32_t)i;
    int16_t *potentials = out(outs * (n / s->timesteps) * 64 * sizeof *potentials);
    dsr_after_integer_conv after = {.bias = bias, .reset = reset, .fire = reset, .decay = 30000};
    after.potentials = potentials;
    check(dsr_integer_conv2d_neuron_spikes(spikes, weights, out_words(s->outputs, n), conv, s->timesteps, 0,
                                           group_of(s), after));
    const int32_t *values = (const int32_t *)words_of(32 * s->channels, per_channel(s));
    check(dsr_integer_conv2d(values, packed, out(outs * n * 64 * sizeof *current), conv, -3));
    after.potentials = out(outs * (n / s->timesteps) * 64 * sizeof *potentials);
    after.one_step = 1;
    check(
        dsr_integer_conv2d_value_neuron_spikes(values, packed, out_words(s->outputs, n), conv, s->timesteps, 1, after));
}

static void conv2d_packed(const shape *s) {
    dsr_conv conv = conv_of(s);
    size_t n = outputs_of(&conv);
    const uint32_t *spikes = words_of(s->channels, per_channel(s));
    const float *weight = floats(weights_of(&conv));
    float *packed = rows_of(dsr_packed_length(conv)), *potentials;
    dsr_pack_weights(weight, packed, conv);
    potentials = rows_of((s->outputs + 31) / 32 * (n / s->timesteps) * DSR_ROW);
    dsr_after_conv after = {.neuron = LIF, .potentials = potentials};
    for (int i = 0; i < 2; i++) /* from the potentials of the first time */
        check(dsr_conv2d_neuron_spikes(spikes, (dsr_weights){weight, packed}, NULL, 0.9, out_words(s->outputs, n), conv,
                                       s->timesteps, 1, after));
    check(dsr_conv2d_spikes(spikes, (dsr_weights){weight, packed}, NULL, 0.9, out_floats(s->outputs * n), conv,
                            group_of(s), 0));
}

static void conv2d_spikes_gradient(const shape *s) {
    dsr_conv conv = conv_of(s);
    size_t pixels = conv.y.out * conv.x.out, n = outputs_of(&conv);
    size_t transposed = s->side * s->side * ((conv.lanes + 31) / 32) * ((s->channels + 31) / 32 * 32);
    const uint32_t *spikes = words_of(s->channels, per_channel(s));
    uint32_t *turned = new_buffer(transposed * sizeof *turned, 0);
    check(dsr_transpose_words(spikes, turned, (s->channels + 31) / 32, s->side * s->side, conv.lanes));
    dsr_gradient gradient = {.constant = floats(s->outputs * pixels * s->batch)};
    check(dsr_conv2d_spikes_weight_gradient(gradient, turned, 0.9, out_floats(weights_of(&conv)), conv, s->batch,
                                            group_of(s)));
    gradient.slope = floats(s->outputs);
    gradient.values = floats(s->outputs * n);
    check(dsr_conv2d_spikes_weight_gradient(gradient, turned, 0.9, out_floats(weights_of(&conv)), conv, s->batch, 1));
}

static void sgd_update(const shape *s) {
    size_t n = neurons(s);
    float *value = floats(n), *buffer = floats(n);
    run.output[0] = run.output[1] = 1;
    dsr_sgd sgd = {.learning_rate = 0.1F, .momentum = 0.9F, .weight_decay = 1e-3F, .nesterov = 1, .first = 0};
    check(dsr_sgd_update(value, floats(n), buffer, n, sgd));
}

/* ---- running them ----------------------------------------------------------------------------------------------- */
typedef struct {
    const char *name;
    void (*call)(const shape *);
} operation;

#define ONE(name)                                                                                                      \
    { #name, name }
#define BOTH(name)                                                                                                     \
    {#name "_f32", name##_f32}, {                                                                                      \
        #name "_f64", name##_f64                                                                                       \
    }

static const operation OPERATIONS[] = {
    BOTH(if_forward),
    BOTH(lif_forward),
    BOTH(firing_rate),
    BOTH(weighted_firing_rate),
    BOTH(rate),
    BOTH(if_backward),
    BOTH(lif_backward),
    BOTH(if_rate_backward),
    BOTH(lif_rate_backward),
    BOTH(encode_bernoulli),
    BOTH(encode_latency),
    BOTH(encode_phase),
    BOTH(encode_delta),
    ONE(if_spikes),
    ONE(if_spikes_held),
    ONE(lif_spikes),
    ONE(lif_spikes_held),
    ONE(if_spikes_backward),
    ONE(lif_spikes_backward),
    ONE(words),
    ONE(norm),
    ONE(pools),
    ONE(conv2d),
    ONE(conv2d_spikes),
    ONE(conv2d_neuron),
    ONE(integer_conv),
    ONE(conv2d_packed),
    ONE(neuron_steps),
    ONE(conv2d_spikes_gradient),
    ONE(sgd_update),
};
enum { COUNT = sizeof OPERATIONS / sizeof *OPERATIONS };

/* A checksum of the outputs, which are freed; 0 if an operation failed. */
static uint64_t result_of(const operation *operation, const shape *s) {
    run.state = 20220622;
    run.count = 0;
    run.failed = 0;
    operation->call(s);
    uint64_t sum = 14695981039346656037u;
    for (size_t i = 0; i < run.count; i++) {
        const uint8_t *bytes = run.buffer[i];
        for (size_t j = 0; j < run.bytes[i] && run.output[i]; j++)
            sum = (sum ^ bytes[j]) * 1099511628211u;
        free(run.buffer[i]);
    }
    return run.failed ? 0 : sum;
}

typedef struct {
    const shape *shape;
    const uint64_t *expected;
    int differences, backwards;
} caller;

static void *call_all(void *argument) {
    caller *me = argument;
    for (int i = 0; i < COUNT; i++) {
        int at = me->backwards ? COUNT - 1 - i : i;
        if (result_of(&OPERATIONS[at], me->shape) != me->expected[at]) {
            fprintf(stderr, "%s: other bits\n", OPERATIONS[at].name);
            me->differences++;
        }
    }
    return NULL;
}

static int compare(const shape *s) {
    uint64_t expected[COUNT];
    dsr_set_threads(1);
    for (int i = 0; i < COUNT; i++)
        if ((expected[i] = result_of(&OPERATIONS[i], s)) == 0) {
            fprintf(stderr, "%s: failed\n", OPERATIONS[i].name);
            return 1;
        }
    dsr_set_threads(4);
    caller alone = {s, expected, 0, 0}, first = alone, second = {s, expected, 0, 1};
    call_all(&alone);
    pthread_t other;
    if (pthread_create(&other, NULL, call_all, &second) != 0)
        return 1;
    dsr_set_threads(3); /* while the other computes */
    call_all(&first);
    pthread_join(other, NULL);
    return alone.differences + first.differences + second.differences;
}

/* ---- what must be reported --------------------------------------------------------------------------------------- */
static int race(void) {
    size_t sum = 0;
#pragma omp parallel for schedule(static) num_threads(4)
    for (int i = 0; i < 100000; i++)
        sum += (size_t)i;
    return sum == 0;
}

static int leak(void) {
    void *volatile lost = malloc(1000);
    lost = NULL;
    return lost != NULL;
}

static int overflow(void) {
    uint32_t *volatile words = calloc(10, sizeof *words);
    dsr_status status = dsr_dropout_words(words, words, 11, 1, 0.5);
    free(words);
    return status != DSR_OK;
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "race") == 0)
        return race();
    if (count > 1 && strcmp(arguments[1], "leak") == 0)
        return leak();
    const char *level = dsr_select_level(count > 1 && *arguments[1] && count > 2 ? arguments[1] : NULL);
    if (!level)
        return 2;
    dsr_threads_setup();
    if (count > 1 && strcmp(arguments[1], "overflow") == 0)
        return overflow();
    size_t most = sizeof SHAPES / sizeof *SHAPES, shapes = count > 2 ? (size_t)atol(arguments[2]) : most;
    int differences = 0;
    for (size_t i = 0; i < shapes && i < most; i++)
        differences += compare(&SHAPES[i]);
    printf("%s: %d operations, %zu shapes, %d differences\n", level, COUNT, shapes < most ? shapes : most, differences);
    return differences != 0;
}
