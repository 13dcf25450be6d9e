/* The C library of dsr on one page.
 *
 * Rooms: kernels <- levels <- ops <- python, and ops <- libdsr <- fuzz; nothing points back.
 *   kernels/  pure loops, no Python, BLAS, threads, allocation or errors; compiled once per instruction level
 *   levels/   scalar, avx2, avx512, neon: a table of kernels each; select.c picks one at import
 *   ops/      whole operations: tiling that depends on shapes only, OpenMP, scratch memory, BLAS
 *   libdsr/   models that were exported to a file, loaded and run without Python
 *   python/   the only room with Python in it: argument checks, bindings
 *
 * Two layouts:
 *   time first  (T, N)            what users hold; N is every other axis flattened
 *   lanes       [C][P][L]         what layers hold: channel, pixel (row by row), lane l = t*B + b innermost,
 *                                 L = T*B. A quantity without a time axis has L = B.
 *   words       [W][P][L] uint32  spikes of the lanes layout, 32 channels per word: bit c%32 of word c/32.
 *                                 Bits of channels that do not exist are zero.
 *
 * Exactness: every kernel here is EXACT (the same bits on each level and for any number of threads: elementwise
 * arithmetic is never contracted and sums run in an order that is part of the contract), unless it says ROUNDED.
 */
#ifndef DSR_H
#define DSR_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    DSR_OK = 0,
    DSR_NO_MEMORY,
    DSR_TOO_LARGE /* more than 2^32 offsets in the row lists of a tile */
} dsr_status;
typedef enum { DSR_F32, DSR_F64 } dsr_dtype;

/* Channels (or, transposed, lanes) of a word of spikes. */
enum { DSR_WORD = 32 };
/* Neurons a kernel call handles at most; the membrane potentials of a chunk stay in the first cache. */
enum { DSR_CHUNK = 512 };
/* Partial sums of a reduction: element i of a chunk goes to partial i % DSR_PARTIALS. Part of the contract. */
enum { DSR_PARTIALS = 16 };

static inline double dsr_add_partials(const double *partial) {
    double sum = 0;
    for (size_t j = 0; j < DSR_PARTIALS; j++)
        sum += partial[j];
    return sum;
}

/* A neuron: what it does at each step (kernels/neuron_step.h), and the mapping between the representations of its
 * current and of its train, clip(z / divisor, 0, levels amplitude), which saturates at z = top. All are exact in the
 * type of the arrays. IF: decay = gain = divisor = 1, closed. */
typedef struct {
    double decay, gain;       /* potential u = decay v + gain I */
    double v_threshold, fire; /* a spike where u >= fire; then v = u - v_threshold, else v = u */
    double amplitude;         /* what a spike is worth */
    double divisor, top;
    int closed; /* the gradient passes on [0, top]; otherwise on (0, top) */
    int levels; /* spikes of a step at most */
} dsr_neuron;

/* Graded spikes (levels > 1): a step gives k of them, the number of j in 1 .. levels with
 * u >= fire + (j - 1) v_threshold, rounded after the product and after the sum; then v = u - k v_threshold, rounded in
 * the same way. Words hold the binary digits of k: a plane of words for each digit, the lowest first. */
enum { DSR_MOST_LEVELS = 255, DSR_MOST_PLANES = 8 };

static inline size_t dsr_planes(const dsr_neuron *neuron) {
    size_t planes = 0;
    while (neuron->levels >> planes)
        planes++;
    return planes;
}

/* ---- kernels ------------------------------------------------------------------------------------------------ */
/* S is the suffix f32 or f64, R the type. `stride` is the distance between time steps. n <= DSR_CHUNK. */
#define DSR_REAL_KERNELS(X, R, S)                                                                                      \
    X(void, neuron_forward_##S,                                                                                        \
      (const R *current, const R *v_init, R *output, R *v_final, size_t timesteps, size_t n, size_t stride,            \
       const dsr_neuron *neuron))                                                                                      \
    X(void, time_mean_##S,                                                                                             \
      (const R *train, R *mean, size_t timesteps, size_t n, size_t stride, const R *weights, R norm, R factor))        \
    X(void, rate_##S, (const R *mean_current, R *rate, size_t n, const dsr_neuron *neuron))                            \
    X(void, rate_backward_##S,                                                                                         \
      (const R *grad, const R *mean_current, R *grad_current, size_t n, const dsr_neuron *neuron, R divisor,           \
       double *above))                                                                                                 \
    X(void, encode_bernoulli_##S, (const R *rate, R *train, size_t n, uint64_t first, uint64_t seed))                  \
    X(void, encode_latency_##S, (const R *value, R *train, size_t timesteps, size_t n, size_t stride))                 \
    X(void, encode_phase_##S, (const R *value, R *train, size_t timesteps, size_t n, size_t stride, size_t bits))      \
    X(void, encode_delta_##S, (const R *signal, R *train, size_t timesteps, size_t n, size_t stride, R threshold))

/* Thresholds of the channels of a layer, where each has its own: they stand for those numbers of a dsr_neuron that go
 * with its threshold. Rows of `stride` channels: v_threshold, fire, top. NULL: there is one for all. */
typedef struct {
    const float *rows;
    size_t stride;
} dsr_thresholds;

static inline dsr_neuron dsr_neuron_of(const dsr_neuron *neuron, dsr_thresholds thresholds, size_t channel) {
    dsr_neuron own = *neuron;
    if (thresholds.rows) {
        own.v_threshold = (double)thresholds.rows[channel];
        own.fire = (double)thresholds.rows[thresholds.stride + channel];
        own.top = (double)thresholds.rows[2 * thresholds.stride + channel];
    }
    return own;
}

/* A strip of the current of a layer of neurons: `channels` (at most 32) rows, each `pixels` * T * B long. */
typedef struct {
    size_t channels, pixels, timesteps, batch;
    size_t stride, sum_stride;  /* from channel to channel, of the current and of its sums over time */
    size_t plane;               /* from plane to plane of the words */
    int one_step;               /* the current has one step, the same at every t */
    const float *scale, *shift; /* per channel, applied to the current first (batch normalisation); NULL: none */
    const float *weights;       /* T weights of the second sum over time; NULL: it is not wanted */
    dsr_thresholds thresholds;
} dsr_strip;

/* Pooling over windows. For sums and means the image has zeros around it, which count (as in the authors' networks);
 * for the largest element it has nothing around it. */
typedef struct {
    size_t channels, height, width, lanes, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, out_height,
        out_width;
} dsr_pool;

/* Floats of a row, see kernels/rows.h, and 16-bit integers of a row, kernels/integer_rows.h: both have 128 bytes. */
enum { DSR_ROW = 32, DSR_INTEGER_ROW = 64 };

/* Which rows a byte of a word selects, of which 1, 2 or 4 bits share a table; `rows` are the rows of a whole word. */
typedef struct {
    uint8_t row[256][8], count[256];
    uint32_t table_bits, rows;
} dsr_row_code;

/* Expanded words of neighbouring targets, and the offset of their first row. */
typedef struct {
    const uint8_t *rows, *counts;
    uint16_t first;
} dsr_row_source;

/* Spikes whose weights are added without a list: DSR_ROW bits, one for each output channel, and DSR_ROW weights. */
typedef struct {
    const uint32_t *words;
    const float *bits, *weights; /* aligned to 64 bytes; `bits` are 32-bit patterns */
} dsr_mask_source;

/* The current of neurons on rows: arrays of DSR_ROW channels, aligned to 64 bytes. It is amplitude * sum + bias, plus
 * shortcut_amplitude where the bit of `shortcut` is set, then scale * current + shift. v_threshold and fire NULL: those
 * of the neuron. potentials: DSR_ROW for each lane, before the first step and then after the last, where
 * those of channels that do not exist are 0; NULL: from 0. weights: T, of its sum over time before scale and shift;
 * NULL: that is not wanted. */
typedef struct {
    const float *bias, *scale, *shift, *shortcut_amplitude, *v_threshold, *fire, *weights;
    const uint32_t *shortcut; /* laid out as a plane of the output; NULL: none */
    size_t plane;             /* from plane to plane of the output */
    uint32_t exists;          /* bits of the channels that exist */
    int one_step;             /* the sums are of one step, the same at every t */
    float amplitude;
    float *potentials;
} dsr_row_current;

/* Two of these write beyond their results, into room that the caller provides: expand_words up to 8 bytes after the 32
 * n of `rows`, build_lists up to 40 offsets after the end that it returns. */
#define DSR_ROW_KERNELS(X)                                                                                             \
    X(void, expand_words, (const dsr_row_code *code, const uint32_t *words, size_t n, uint8_t *rows, uint8_t *counts)) \
    X(uint32_t, build_lists,                                                                                           \
      (const dsr_row_source *sources, size_t count, uint16_t step, size_t n, uint16_t *lists, uint32_t end,            \
       uint32_t *ends))                                                                                                \
    X(void, sum_rows,                                                                                                  \
      (const float *rows, const uint16_t *lists, uint32_t start, const uint32_t *ends, size_t n, float *sums))         \
    X(void, sum_masked, (const dsr_mask_source *sources, size_t count, size_t offset, size_t n, float *sums))          \
    X(void, masked_lanes,                                                                                              \
      (const dsr_mask_source *sources, size_t count, size_t n, size_t channels, const float *bias, float amplitude,    \
       float *to, size_t stride, int accumulate))                                                                      \
    X(void, build_table, (const float *rows, size_t groups, uint32_t table_bits, size_t phases, float *table))         \
    X(void, rows_to_lanes,                                                                                             \
      (const float *sums, size_t lanes, size_t channels, const float *bias, float amplitude, float *to, size_t stride, \
       int accumulate))                                                                                                \
    X(void, lanes_to_rows, (const float *from, size_t lanes, size_t channels, size_t stride, float *rows))             \
    X(void, neuron_rows,                                                                                               \
      (const float *sums, uint32_t *words, float *weighted, size_t timesteps, size_t n, size_t stride,                 \
       const dsr_row_current *current, const dsr_neuron *neuron))                                                      \
    X(void, sum_steps,                                                                                                 \
      (const float *sums, float *total, size_t timesteps, size_t n, size_t stride, const dsr_row_current *current))    \
    X(void, gradient_lanes,                                                                                            \
      (const float *constant, const float *weights, const float *values, float slope, size_t batch, size_t first,      \
       size_t lanes, float *dense))

/* Neurons on integer rows: what the 32 channels of one word have, arrays aligned to 64 bytes. A potential u that the
 * current has moved is cut off at +-DSR_INTEGER_LIMIT; `decay` is in units of 2^-15, 2^15: there is none. */
enum { DSR_INTEGER_LIMIT = 32767, DSR_DECAY_BITS = 15 };
typedef struct {
    const int32_t *reset, *fire, *shortcut_weight;
    const uint32_t *shortcut; /* laid out as the output; NULL: none */
    uint32_t exists;          /* bits of the channels that exist */
    int one_step;             /* the sums are of one step, the same at every t */
    int32_t decay;
} dsr_integer_neurons;

/* Integers wrap around instead of overflowing; `shift` is one to the left, below 0 to the right, which only
 * sum_value_rows has. */
#define DSR_INTEGER_KERNELS(X)                                                                                         \
    X(void, sum_integer_rows,                                                                                          \
      (const int16_t *rows, const uint16_t *lists, const uint32_t *ends, size_t n, int first, int16_t *sums))          \
    X(void, widen_integer_rows,                                                                                        \
      (const int16_t *sums, unsigned shift, const int32_t *start, const int32_t *current, size_t n, int32_t *to))      \
    X(void, build_integer_table,                                                                                       \
      (const int16_t *rows, size_t groups, uint32_t table_bits, size_t phases, int16_t *table))                        \
    X(void, sum_value_rows,                                                                                            \
      (const int16_t *rows, const uint32_t *pairs, size_t count, size_t n, int shift, int32_t *sums))                  \
    X(void, integer_neuron_rows,                                                                                       \
      (const int32_t *sums, uint32_t *words, int16_t *potentials, size_t timesteps, size_t n, size_t stride,           \
       const dsr_integer_neurons *neurons))

/* One step of stochastic gradient descent. first: the momentum buffer is not yet filled. */
typedef struct {
    float learning_rate, momentum, weight_decay;
    int nesterov, first;
} dsr_sgd;

#define DSR_LANE_KERNELS(X)                                                                                            \
    X(void, neuron_spikes,                                                                                             \
      (const float *current, uint32_t *words, float *sums, float *weighted, dsr_strip strip,                           \
       const dsr_neuron *neuron))                                                                                      \
    X(void, pack_words, (const float *values, uint32_t *words, size_t channels, size_t n, size_t stride))              \
    X(void, unpack_words,                                                                                              \
      (const uint32_t *words, float *values, size_t channels, size_t n, size_t stride, const float *amplitude))        \
    X(uint64_t, count_bits, (const uint32_t *words, size_t n))                                                         \
    X(void, count_words, (const uint32_t *words, int64_t *counts, size_t channels, size_t n))                          \
    X(void, add_words,                                                                                                 \
      (const uint32_t *words, float *values, size_t channels, size_t n, size_t stride, const float *amplitude))        \
    X(void, sum_words,                                                                                                 \
      (const uint32_t *words, const float *weights, float *sums, size_t channels, size_t pixels, size_t timesteps,     \
       size_t batch, size_t stride, const float *amplitude))                                                           \
    X(void, dropout_words,                                                                                             \
      (const uint32_t *words, uint32_t *kept, size_t n, uint64_t first, uint64_t seed, double keep))                   \
    X(void, moments, (const float *values, size_t n, double *sums, double *squares))                                   \
    X(void, product_moments, (const float *a, const float *b, size_t n, double *sums, double *products))               \
    X(void, expand_gradient,                                                                                           \
      (const float *constant, const float *values, float *dense, size_t pixels, size_t timesteps, size_t batch,        \
       float slope))                                                                                                   \
    X(void, affine, (const float *x, const float *y, float *out, size_t n, float a, float b, float c))                 \
    X(void, weighted_sum,                                                                                              \
      (const float *values, const float *weights, float *sum, size_t pixels, size_t timesteps, size_t batch))          \
    X(void, count_steps,                                                                                               \
      (const uint32_t *words, uint32_t *sums, size_t planes, size_t stride, size_t digits, size_t timesteps,           \
       size_t batch))                                                                                                  \
    X(void, transpose_words, (const uint32_t *words, uint32_t *channels, size_t n))                                    \
    X(void, sgd_update, (float *value, const float *grad, float *buffer, size_t n, dsr_sgd sgd))                       \
    X(void, pool_planes, (const uint32_t *words, uint32_t *planes, size_t count, size_t stride, dsr_pool pool))        \
    X(void, avg_pool, (const float *input, float *output, dsr_pool pool))                                              \
    X(void, avg_pool_backward, (const float *grad_output, float *grad_input, dsr_pool pool))                           \
    X(void, max_pool, (const float *input, float *output, dsr_pool pool))                                              \
    X(void, max_pool_backward, (const float *grad_output, const float *input, float *grad_input, dsr_pool pool))       \
    X(void, or_pool, (const uint32_t *words, uint32_t *output, dsr_pool pool))

/* Sums of Winograd's convolutions, see kernels/winograd.h. */
#define DSR_WINOGRAD_KERNELS(X)                                                                                        \
    X(void, winograd_taps, (const float *const *taps, float *sums, size_t step, int side))                             \
    X(void, winograd_spread,                                                                                           \
      (const float *const *pixels, const size_t *steps, size_t channels, float *sums, size_t channel_step,             \
       size_t step, size_t n, int side))                                                                               \
    X(void, winograd_gather,                                                                                           \
      (const float *products, size_t row_step, size_t step, float *const *pixels, size_t plane, size_t rows, size_t n, \
       int side))                                                                                                      \
    X(void, winograd_widen, (const float *const *pixels, float *sums, size_t step, size_t n))                          \
    X(void, winograd_collect, (const float *products, size_t step, float *taps))

/* Taps of a depthwise convolution, see kernels/depthwise.h: values read and the weight of each. */
typedef struct {
    const float *values;
    float weight;
} dsr_tap;

enum { DSR_TAP_SUMS = 16 }; /* sums of a tap: lane l is added to sum l % 16 */

#define DSR_DEPTHWISE_KERNELS(X)                                                                                       \
    X(void, add_taps, (const dsr_tap *taps, size_t count, float start, size_t n, float *out))                          \
    X(void, sum_tap_products,                                                                                          \
      (const float *grad, const float *const *values, size_t taps, size_t n, float *const *sums))                      \
    X(void, sum_masked_taps,                                                                                           \
      (const float *grad, const uint32_t *const *words, size_t taps, size_t pitch, size_t n, float *const *sums))

#define DSR_KERNELS(X)                                                                                                 \
    DSR_REAL_KERNELS(X, float, f32)                                                                                    \
    DSR_REAL_KERNELS(X, double, f64)                                                                                   \
    DSR_LANE_KERNELS(X)                                                                                                \
    DSR_ROW_KERNELS(X)                                                                                                 \
    DSR_INTEGER_KERNELS(X)                                                                                             \
    DSR_WINOGRAD_KERNELS(X)                                                                                            \
    DSR_DEPTHWISE_KERNELS(X)

typedef struct {
    const char *level;
    size_t vector_bytes;
#define DSR_SLOT(type, name, arguments) type(*name) arguments;
    DSR_KERNELS(DSR_SLOT)
#undef DSR_SLOT
} dsr_kernels;

/* ---- levels --------------------------------------------------------------------------------------------------- */
/* X(name, whether this processor has it, as select.c finds out), the lowest first: a level is a row here and a file in
 * levels/, which compiles the kernels for it. */
#if defined(__x86_64__)
    #define DSR_LEVELS(X) X(scalar, 1) X(avx2, has_avx2()) X(avx512, has_avx512())
#elif defined(__aarch64__)
    #define DSR_LEVELS(X) X(scalar, 1) X(neon, 1)
#else
    #define DSR_LEVELS(X) X(scalar, 1)
#endif

#define DSR_DECLARE_LEVEL(name, supported) extern const dsr_kernels dsr_##name;
DSR_LEVELS(DSR_DECLARE_LEVEL)
extern const dsr_kernels *dsr_kernel; /* the level in use; set once by dsr_select_level */

/* Takes the best level of the processor, or `wanted` if that is lower. NULL if this build has no level `wanted`. */
const char *dsr_select_level(const char *wanted);

/* ---- ops: time first, (T, N) ---------------------------------------------------------------------------------- */
/* v_init: the potentials (n) before the first step, NULL: 0. v_final: gets those after the last one, unless NULL. */
dsr_status dsr_neuron_forward(dsr_dtype dtype, const void *current, const void *v_init, void *output, void *v_final,
                              size_t timesteps, size_t n, dsr_neuron neuron);
/* The mean over time, or with T weights the weighted one: the representation of a train, or of a current. */
dsr_status dsr_firing_rate(dsr_dtype dtype, const void *train, const double *weights, void *rate, size_t timesteps,
                           size_t n);
dsr_status dsr_rate(dsr_dtype dtype, const void *mean_current, void *rate, size_t n, dsr_neuron neuron);
/* Gradients of dsr_neuron_forward, through the representations with these weights (NULL: plain means), and of dsr_rate.
 * grad_threshold: the plain sum of the gradients above the threshold; the caller applies the neuron's factor. */
dsr_status dsr_backward(dsr_dtype dtype, const void *grad_output, const void *current, const double *weights,
                        void *grad_current, double *grad_threshold, size_t timesteps, size_t n, dsr_neuron neuron);
dsr_status dsr_rate_backward(dsr_dtype dtype, const void *grad_rate, const void *mean_current, void *grad_current,
                             double *grad_threshold, size_t n, dsr_neuron neuron);
dsr_status dsr_encode_bernoulli(dsr_dtype dtype, const void *rate, void *train, size_t timesteps, size_t n,
                                uint64_t seed);
dsr_status dsr_encode_latency(dsr_dtype dtype, const void *value, void *train, size_t timesteps, size_t n);
dsr_status dsr_encode_phase(dsr_dtype dtype, const void *value, void *train, size_t timesteps, size_t n, size_t bits);
dsr_status dsr_encode_delta(dsr_dtype dtype, const void *signal, void *train, size_t timesteps, size_t n,
                            double threshold);

/* ---- ops: lanes ------------------------------------------------------------------------------------------------ */
typedef struct {
    size_t channels, pixels, timesteps, batch;
} dsr_lanes;

/* A layer of neurons: its current and how it is read, see dsr_strip. */
typedef struct {
    const float *current; /* [C][P][T][B], or [C][P][B] of one step, the same at every t (direct coding) */
    int one_step;
    const float *scale, *shift, *weights;
} dsr_layer_current;

/* sums [C][P][B]: of the current over time, before scale and shift; weighted (NULL without weights): with the weights.
 */
dsr_status dsr_neuron_spikes(dsr_layer_current input, uint32_t *words, float *sums, float *weighted, dsr_lanes shape,
                             dsr_neuron neuron, dsr_thresholds thresholds);
/* From the gradient of the spikes and the sums of the representation, n neurons per channel, to the gradient of each
 * step's current after scale and shift, through the mapping. above [C]: as *grad_threshold in dsr_backward, for each
 * channel the sum of DSR_PARTIALS partial sums, in order. EXACT. */
dsr_status dsr_neuron_spikes_backward(const float *grad, const float *sums, const float *scale, const float *shift,
                                      float *grad_current, double *above, size_t channels, size_t n, size_t timesteps,
                                      dsr_neuron neuron, dsr_thresholds thresholds);
dsr_status dsr_pack_words(const float *values, uint32_t *words, size_t channels, size_t n);
/* The same bits with 32 lanes per word, [P][ceil(L / 32)][32 W]: lane l of channel c of pixel p is bit l % 32. */
dsr_status dsr_transpose_words(const uint32_t *words, uint32_t *transposed, size_t groups, size_t pixels, size_t lanes);
/* Numbers below 2^planes at each of n places and T B lanes, as planes of bits [planes][n][T][B], 32 channels per word,
 * summed over the steps: digits of the sums, [n][digits][B]. `digits` are enough for T times the largest number. */
dsr_status dsr_count_steps(const uint32_t *words, uint32_t *sums, size_t planes, size_t digits, size_t n,
                           size_t timesteps, size_t batch);
/* A spike of each channel is worth its amplitude [C]. */
dsr_status dsr_unpack_words(const uint32_t *words, float *values, size_t channels, size_t n, const float *amplitude);
dsr_status dsr_add_words(const uint32_t *words, float *values, size_t channels, size_t n, const float *amplitude);
/* The weighted sum over the steps of what unpack_words gives: amplitude [C] * sum over t of weights[t] bit(t). */
dsr_status dsr_sum_words(const uint32_t *words, const float *weights, float *sums, dsr_lanes shape,
                         const float *amplitude);
dsr_status dsr_count_words(const uint32_t *words, int64_t *counts, size_t channels, size_t n);
dsr_status dsr_count_bits(const uint32_t *words, double *count, size_t n);
dsr_status dsr_dropout_words(const uint32_t *words, uint32_t *kept, size_t n, uint64_t seed, double keep);
/* Tiles of the arrays whose bits differ; 0: none. */
dsr_status dsr_compare(const float *a, const float *b, size_t n, double *different);
/* Per channel: sum and sum of squares over n values. */
dsr_status dsr_moments(const float *values, double *sums, double *squares, size_t channels, size_t n);
/* Per channel: sums of a and of a b over n values. */
dsr_status dsr_product_moments(const float *a, const float *b, double *sums, double *products, size_t channels,
                               size_t n);
/* out = a x + b y + c with a, b, c per channel; y and b may be NULL. */
dsr_status dsr_affine(const float *x, const float *y, const float *a, const float *b, const float *c, float *out,
                      size_t channels, size_t n);
/* sum = sum over t of weights[t] values(t). */
dsr_status dsr_weighted_sum(const float *values, const float *weights, float *sum, dsr_lanes shape);
/* dense(t) = constant + slope * values(t). */
dsr_status dsr_expand_gradient(const float *constant, const float *values, const float *slope, float *dense,
                               dsr_lanes shape);

/* Spikes of each window counted, in binary: plane k, [W][P'][L], holds bit k of the counts. pool.channels is W; `count`
 * planes are enough if 2^count > kernel_h kernel_w. */
dsr_status dsr_pool_planes(const uint32_t *words, uint32_t *planes, size_t count, dsr_pool pool);
dsr_status dsr_avg_pool(const float *input, float *output, dsr_pool pool);
dsr_status dsr_avg_pool_backward(const float *grad_output, float *grad_input, dsr_pool pool);
/* The largest element of each window, 0 where a window has none; its gradient goes to the first of the largest. */
dsr_status dsr_max_pool(const float *input, float *output, dsr_pool pool);
dsr_status dsr_max_pool_backward(const float *grad_output, const float *input, float *grad_input, dsr_pool pool);
/* A spike where there is one in the window. pool.channels is W. */
dsr_status dsr_or_pool(const uint32_t *words, uint32_t *output, dsr_pool pool);

/* One direction of a convolution: pixel i of the image lies at place before + i * spread of a line of zeros, and tap k
 * of output j reads place j * stride + k * dilation of it. A spread other than 1 makes a transposed convolution. */
typedef struct {
    size_t size, taps, out, stride, dilation, spread, before;
} dsr_conv_axis;

/* Output channels fall into `groups` equal parts, each of which sees its part of the input channels alone. */
typedef struct {
    dsr_conv_axis y, x;
    size_t in_channels, out_channels, groups, lanes;
} dsr_conv;

/* Convolutions of dense float32 lanes as GEMMs, ROUNDED: each output within (K + 2) eps sum|w||x| of the exact sum of
 * its K products; the same bits for any number of threads. Weights are [CO][CI / groups][KH][KW]. With a spread, the
 * stride is 1 and `before` at most (taps - 1) * dilation. With one input and one output channel a group they are no
 * GEMMs, and EXACT.
 * Gradients that go by Winograd's method (ops/winograd.c, ops/winograd_weights.c): within (K + 20) eps M, M what the
 * method gives with the absolute values of gradients, weights or input, and all its coefficients. */
dsr_status dsr_conv2d(const float *input, const float *weight, const float *bias, float *output, dsr_conv conv);
/* The same bits as that many calls, each with the lanes of a step; for one output pixel, without a spread. */
dsr_status dsr_conv2d_by_step(const float *input, const float *weight, const float *bias, float *output, dsr_conv conv,
                              size_t steps);
dsr_status dsr_conv2d_input_gradient(const float *grad_output, const float *weight, float *grad_input, dsr_conv conv);
dsr_status dsr_conv2d_weight_gradient(const float *grad_output, const float *input, float *grad_weight, dsr_conv conv);

/* The same over spikes, 32 channels per word: output = bias + amplitude * sums, added to the output where `accumulate`.
 * table_bits: 1, 2 or 4 bits share a table of sums; the larger, the better for dense trains. EXACT for a given
 * table_bits, and each output within the bound above. At most DSR_MOST_TAPS / table_bits taps. */
enum { DSR_MOST_TAPS = 121 };

/* Weights as users hold them, and, unless NULL, as dsr_pack_weights made them, aligned to 64 bytes; without it they are
 * packed in every call. */
typedef struct {
    const float *plain, *packed;
} dsr_weights;

/* Floats that dsr_pack_weights writes. Of `conv` only channels, groups and taps matter. */
size_t dsr_packed_length(dsr_conv conv);
void dsr_pack_weights(const float *weight, float *packed, dsr_conv conv);

dsr_status dsr_conv2d_spikes(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                             float *output, dsr_conv conv, unsigned table_bits, int accumulate);

/* What follows a convolution up to the next spikes: a train of the output's shape that is added, with its amplitude per
 * channel (NULL: none), scale and shift per channel (NULL: none), and the neurons. With T `weights`, the current's sum
 * over time goes to weighted [O][P'][B], before scale and shift; NULL: it is not wanted. */
typedef struct {
    const uint32_t *shortcut;
    const float *shortcut_amplitude, *scale, *shift;
    dsr_neuron neuron;
    dsr_thresholds thresholds;
    float *potentials; /* [ceil(O / 32)][P'][B][DSR_ROW], before the first step and then after the last; NULL: from 0 */
    const float *weights;
    float *weighted;
} dsr_after_conv;

/* dsr_neuron_spikes of neurons whose potentials are kept in rows, as in dsr_after_conv, and without the sums of the
 * current; with the bits of its spikes. */
dsr_status dsr_neuron_steps(dsr_layer_current input, uint32_t *words, float *potentials, dsr_lanes shape,
                            dsr_neuron neuron, dsr_thresholds thresholds);

/* dsr_conv2d_spikes, dsr_add_words and dsr_neuron_spikes in one, with their bits; the current of a tile never leaves
 * the cache. conv.lanes is timesteps * B. */
dsr_status dsr_conv2d_neuron_spikes(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                                    uint32_t *output, dsr_conv conv, size_t timesteps, unsigned table_bits,
                                    dsr_after_conv after);

/* The weighted sum over time of the convolution and its shortcut, after.weighted = bias + sum of after.weights *
 * (them); what else `after` has is not used. EXACT for a given table_bits. */
dsr_status dsr_conv2d_spikes_sum(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                                 dsr_conv conv, size_t timesteps, unsigned table_bits, dsr_after_conv after);

/* Convolutions of integer weights over spikes, EXACT whatever table_bits. The weights are packed (dsr/ops/integers.py):
 * for each block of DSR_INTEGER_ROW output channels and each of dsr_integer_blocks(conv) blocks of input words, a row
 * of zeros and a row for each input channel and tap. Of `together` blocks in order, any subset of rows must have a sum
 * that fits int16.
 *
 * Currents are rows [ceil(O / 64)][P'][T][B][64]; channels that do not exist are 0. */
typedef struct {
    const int16_t *packed;
    size_t together;
} dsr_integer_weights;

size_t dsr_integer_blocks(dsr_conv conv, size_t *block_rows);
/* rows += sums 2^shift */
dsr_status dsr_integer_conv2d_spikes(const uint32_t *words, dsr_integer_weights weights, int32_t *rows, dsr_conv conv,
                                     unsigned shift, unsigned table_bits);

/* The same over values [C][P][L] in [-32767, 32767], with a shift that may be to the right: to the nearest, halves up.
 * The weights are packed without regard to sums of 16 bits; sums, before the shift and after, must fit 32. */
dsr_status dsr_integer_conv2d(const int32_t *values, const int16_t *packed, int32_t *rows, dsr_conv conv, int shift);

/* What follows up to the next spikes: the current so far as rows (NULL: 0; one_step: the same at every t), a bias per
 * channel, a train that is added with a weight per channel (NULL: none), and neurons, whose potentials
 * [ceil(O / 64)][P'][B][64] go on from those given (NULL: from 0). All per channel, with the decay of all. */
typedef struct {
    const int32_t *current;
    int one_step;
    const int32_t *bias, *shortcut_weight;
    const uint32_t *shortcut;
    const int32_t *reset, *fire;
    int32_t decay;
    int16_t *potentials;
} dsr_after_integer_conv;

/* The same through neurons to spikes. Without input channels: the neurons alone. */
dsr_status dsr_integer_conv2d_neuron_spikes(const uint32_t *words, dsr_integer_weights weights, uint32_t *output,
                                            dsr_conv conv, size_t timesteps, unsigned shift, unsigned table_bits,
                                            dsr_after_integer_conv after);

/* The same of dsr_integer_conv2d; values of one step, [C][P][B], are those of every step. */
dsr_status dsr_integer_conv2d_value_neuron_spikes(const int32_t *values, const int16_t *packed, uint32_t *output,
                                                  dsr_conv conv, size_t timesteps, int shift,
                                                  dsr_after_integer_conv after);

/* A gradient weights [T] * constant [O][P][B] + slope [O] * values [O][P][T*B]; values NULL: without them; weights
 * NULL: all 1. */
typedef struct {
    const float *constant, *weights, *slope, *values;
} dsr_gradient;

/* transposed: [P][ceil(L / 32)][32 W], see dsr_transpose_words. */
dsr_status dsr_conv2d_spikes_weight_gradient(dsr_gradient gradient, const uint32_t *transposed, double amplitude,
                                             float *grad_weight, dsr_conv conv, size_t batch, unsigned table_bits);

/* ---- ops: optimiser -------------------------------------------------------------------------------------------- */
/* d = grad + weight_decay value; buffer = momentum buffer + d (d itself at first); value -= learning_rate buffer, or
 * with Nesterov learning_rate (d + momentum buffer). */
dsr_status dsr_sgd_update(float *value, const float *grad, float *buffer, size_t n, dsr_sgd sgd);

/* ---- threads and BLAS ------------------------------------------------------------------------------------------- */
/* OpenMP lists a region's threads on the stack of the one that starts it, where 100,000 do not fit. */
enum { DSR_MOST_THREADS = 1024 };
/* Threads of the regions that follow, in every thread of the process; without a number set, what OpenMP says. */
void dsr_set_threads(int threads);
int dsr_get_threads(void);
int dsr_openmp_version(void);         /* of the specification, as a date: 201511; 0: built without, for one thread */
const char *dsr_openmp_library(void); /* the file of the run-time library, NULL where that is not known */
void dsr_threads_setup(void); /* BLAS: always one thread, since GEMMs run inside our own tiles; forks: no threads */
const char *dsr_blas_config(void);
const char *dsr_blas_kernel(void);

#endif
