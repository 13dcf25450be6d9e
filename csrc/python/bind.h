/* The table of what Python can call, and how its rows are written.
 *
 * A list of arguments A(S, kind, name, axes, role) is the only place where they are named: it makes the struct of their
 * values, which checks and operations read by name, and the table by which the checker fills that struct.
 *
 *     #define FIRING_RATE(A, S)
 *         A(S, REAL, train, "TN", IN)
 *         A(S, REAL, out, "N", OUT)
 *     ARGUMENTS(firing_rate, FIRING_RATE)
 *     OPERATION(firing_rate, NULL, RETURNS_NOTHING) { return dsr_firing_rate(c->dtype, a->train, a->out, AXIS(c, 'T'),
 * ...); }
 *
 * In both bodies `c` is the call, with the sizes of its axes, and `a` the values. */
#ifndef DSR_BIND_H
#define DSR_BIND_H

#include "args.h"

#include <stddef.h>

typedef struct {
    const char *name;
    const dsr_arg *arguments;
    size_t count;
    int (*check)(const dsr_call *call); /* relations between axes, or NULL */
    dsr_status (*run)(dsr_call *call);
    enum { RETURNS_NOTHING, RETURNS_NUMBER /* in call->result */ } returns;
} dsr_entry;

#define DSR_MEMBER(S, kind, name, axes, role) DSR_C_##kind name;
#define DSR_ROW_OF_TABLE(S, kind, name, axes, role) {#name, ARG_##kind, axes, ARG_##role, offsetof(S, name)},

#define ARGUMENTS(name, LIST)                                                                                          \
    typedef struct {                                                                                                   \
        LIST(DSR_MEMBER, )                                                                                             \
    } name##_arguments;                                                                                                \
    static const dsr_arg name##_table[] = {LIST(DSR_ROW_OF_TABLE, name##_arguments)};                                  \
    _Static_assert(sizeof(name##_arguments) <= DSR_MOST_BYTES, "raise DSR_MOST_BYTES");                                \
    _Static_assert(sizeof name##_table / sizeof *name##_table <= DSR_MOST_ARGUMENTS, "raise DSR_MOST_ARGUMENTS");

/* Relations between axes and numbers, with the GIL: 0, or -1 with ValueError set. */
#define CHECK(name)                                                                                                    \
    static int check_values_##name(const dsr_call *c, const name##_arguments *a);                                      \
    static int check_##name(const dsr_call *call) {                                                                    \
        return check_values_##name(call, (const name##_arguments *)(const void *)call->values);                        \
    }                                                                                                                  \
    static int check_values_##name(__attribute__((unused)) const dsr_call *c,                                          \
                                   __attribute__((unused)) const name##_arguments *a)

/* The call itself, without the GIL. */
#define OPERATION(name, check, returns)                                                                                \
    static dsr_status run_values_##name(dsr_call *c, const name##_arguments *a);                                       \
    static dsr_status run_##name(dsr_call *call) {                                                                     \
        return run_values_##name(call, (const name##_arguments *)(const void *)call->values);                          \
    }                                                                                                                  \
    const dsr_entry dsr_entry_##name = {#name, name##_table, sizeof name##_table / sizeof *name##_table,               \
                                        check, run_##name,   returns};                                                 \
    static dsr_status run_values_##name(__attribute__((unused)) dsr_call *c, const name##_arguments *a)

#define DSR_ENTRIES(X)                                                                                                 \
    X(neuron_forward)                                                                                                  \
    X(firing_rate)                                                                                                     \
    X(rate)                                                                                                            \
    X(backward)                                                                                                        \
    X(rate_backward)                                                                                                   \
    X(encode_bernoulli)                                                                                                \
    X(encode_latency)                                                                                                  \
    X(encode_phase)                                                                                                    \
    X(encode_delta)                                                                                                    \
    X(neuron_spikes)                                                                                                   \
    X(neuron_spikes_backward)                                                                                          \
    X(pack_words)                                                                                                      \
    X(count_steps)                                                                                                     \
    X(transpose_words)                                                                                                 \
    X(unpack_words)                                                                                                    \
    X(add_words)                                                                                                       \
    X(sum_words)                                                                                                       \
    X(count_words)                                                                                                     \
    X(count_bits)                                                                                                      \
    X(compare)                                                                                                         \
    X(dropout_words)                                                                                                   \
    X(moments)                                                                                                         \
    X(product_moments)                                                                                                 \
    X(expand_gradient)                                                                                                 \
    X(affine)                                                                                                          \
    X(weighted_sum)                                                                                                    \
    X(pool_planes)                                                                                                     \
    X(avg_pool)                                                                                                        \
    X(avg_pool_backward)                                                                                               \
    X(max_pool)                                                                                                        \
    X(max_pool_backward)                                                                                               \
    X(or_pool)                                                                                                         \
    X(conv2d)                                                                                                          \
    X(conv2d_by_step)                                                                                                  \
    X(conv2d_input_gradient)                                                                                           \
    X(conv2d_weight_gradient)                                                                                          \
    X(packed_length)                                                                                                   \
    X(pack_weights)                                                                                                    \
    X(conv2d_spikes)                                                                                                   \
    X(conv2d_neuron_spikes)                                                                                            \
    X(conv2d_spikes_sum)                                                                                               \
    X(neuron_steps)                                                                                                    \
    X(conv2d_spikes_weight_gradient)                                                                                   \
    X(integer_conv2d_spikes)                                                                                           \
    X(integer_conv2d)                                                                                                  \
    X(integer_conv2d_value_neuron_spikes)                                                                              \
    X(integer_conv2d_neuron_spikes)                                                                                    \
    X(sgd_update)

#define DSR_DECLARE_ENTRY(name) extern const dsr_entry dsr_entry_##name;
DSR_ENTRIES(DSR_DECLARE_ENTRY)

#define DSR_COUNT_ENTRY(name) +1
enum { DSR_ENTRY_COUNT = 0 DSR_ENTRIES(DSR_COUNT_ENTRY) };
extern const dsr_entry *const dsr_entries[DSR_ENTRY_COUNT];

/* Words of 32 channels, or of 32 lanes. */
static inline size_t dsr_words_of(size_t channels) {
    return channels / DSR_WORD + (channels % DSR_WORD != 0);
}

static inline dsr_lanes dsr_lanes_of(const dsr_call *c) {
    return (dsr_lanes){AXIS(c, 'C'), AXIS(c, 'P'), AXIS(c, 'T'), AXIS(c, 'B')};
}

/* Thresholds of channels, where there are any, have a row for each number of a dsr_neuron that goes with them. */
static inline int dsr_check_thresholds(const dsr_call *c, const float *rows) {
    return rows ? dsr_expect_axis(c, 'R', 3, "v_threshold, fire, top") : 0;
}

/* Words of the spikes of `channels` neurons: those of each plane. */
static inline int dsr_expect_planes(const dsr_call *c, char axis, size_t channels, const dsr_neuron *neuron) {
    return dsr_expect_axis(c, axis, dsr_planes(neuron) * dsr_words_of(channels),
                           neuron->levels > 1 ? "32 channels per word of each plane" : "32 channels per word");
}

/* One axis of windows over an image: -1 with ValueError set unless axis `windows` has one element for each of them. */
int dsr_check_windows(const dsr_call *c, char image, char windows, size_t kernel, size_t stride, size_t padding);

#endif
