/* The lanes layout: neurons, spikes as bits, sums of normalisation; and the optimiser. */
#include "bind.h"

/* Steps S of the current: T, or 1 where it is the same at every step. */
#define NEURON_SPIKES(A, S)                                                                                            \
    A(S, F32, current, "CPSB", IN)                                                                                     \
    A(S, F32, scale, "C", MAYBE)                                                                                       \
    A(S, F32, shift, "C", MAYBE)                                                                                       \
    A(S, F32, weights, "T", MAYBE)                                                                                     \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, F32, thresholds, "RC", MAYBE)                                                                                 \
    A(S, U32, words, "WPTB", OUT)                                                                                      \
    A(S, F32, sums, "CPB", OUT)                                                                                        \
    A(S, F32, weighted, "CPB", MAYBE_OUT)
ARGUMENTS(neuron_spikes, NEURON_SPIKES)

CHECK(neuron_spikes) {
    if ((a->weights == NULL) != (a->weighted == NULL))
        return dsr_refuse(c, "weighted", "an array where 'weights' is one, None where it is None");
    if (dsr_check_thresholds(c, a->thresholds) < 0)
        return -1;
    if (AXIS(c, 'S') != 1 && dsr_expect_axis(c, 'S', AXIS(c, 'T'), "1, or axis T of 'words'") < 0)
        return -1;
    return dsr_expect_planes(c, 'W', AXIS(c, 'C'), &a->neuron);
}

OPERATION(neuron_spikes, check_neuron_spikes, RETURNS_NOTHING) {
    dsr_layer_current input = {a->current, AXIS(c, 'S') == 1, a->scale, a->shift, a->weights};
    return dsr_neuron_spikes(input, a->words, a->sums, a->weighted, dsr_lanes_of(c), a->neuron,
                             (dsr_thresholds){a->thresholds, AXIS(c, 'C')});
}

#define NEURON_SPIKES_BACKWARD(A, S)                                                                                   \
    A(S, F32, grad, "CN", IN)                                                                                          \
    A(S, F32, sums, "CN", IN)                                                                                          \
    A(S, F32, scale, "C", MAYBE)                                                                                       \
    A(S, F32, shift, "C", MAYBE)                                                                                       \
    A(S, COUNT, timesteps, NULL, IN)                                                                                   \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, F32, thresholds, "RC", MAYBE)                                                                                 \
    A(S, F32, out, "CN", OUT)                                                                                          \
    A(S, F64, above, "C", OUT)
ARGUMENTS(neuron_spikes_backward, NEURON_SPIKES_BACKWARD)

CHECK(neuron_spikes_backward) {
    return dsr_check_thresholds(c, a->thresholds);
}

OPERATION(neuron_spikes_backward, check_neuron_spikes_backward, RETURNS_NOTHING) {
    return dsr_neuron_spikes_backward(a->grad, a->sums, a->scale, a->shift, a->out, a->above, AXIS(c, 'C'),
                                      AXIS(c, 'N'), a->timesteps, a->neuron,
                                      (dsr_thresholds){a->thresholds, AXIS(c, 'C')});
}

#define PACK_WORDS(A, S)                                                                                               \
    A(S, F32, values, "CN", IN)                                                                                        \
    A(S, U32, out, "WN", OUT)
ARGUMENTS(pack_words, PACK_WORDS)

static int check_words(const dsr_call *c) {
    return dsr_expect_axis(c, 'W', dsr_words_of(AXIS(c, 'C')), "32 channels per word");
}

OPERATION(pack_words, check_words, RETURNS_NOTHING) {
    return dsr_pack_words(a->values, a->out, AXIS(c, 'C'), AXIS(c, 'N'));
}

#define TRANSPOSE_WORDS(A, S)                                                                                          \
    A(S, U32, words, "WPL", IN)                                                                                        \
    A(S, U32, out, "PKC", OUT)
ARGUMENTS(transpose_words, TRANSPOSE_WORDS)

CHECK(transpose_words) {
    if (dsr_expect_axis(c, 'K', dsr_words_of(AXIS(c, 'L')), "32 lanes per word") < 0)
        return -1;
    return dsr_expect_axis(c, 'C', AXIS(c, 'W') * DSR_WORD, "32 channels per word of 'words'");
}

OPERATION(transpose_words, check_transpose_words, RETURNS_NOTHING) {
    return dsr_transpose_words(a->words, a->out, AXIS(c, 'W'), AXIS(c, 'P'), AXIS(c, 'L'));
}

#define COUNT_STEPS(A, S)                                                                                              \
    A(S, U32, words, "JNTB", IN)                                                                                       \
    A(S, COUNT, most, NULL, IN)                                                                                        \
    A(S, U32, out, "NKB", OUT)
ARGUMENTS(count_steps, COUNT_STEPS)

static size_t digits_of(size_t number) {
    size_t digits = 0;
    while (digits < 64 && number >> digits)
        digits++;
    return digits;
}

CHECK(count_steps) {
    size_t timesteps = AXIS(c, 'T');
    if (timesteps && a->most > SIZE_MAX / timesteps)
        return dsr_refuse(c, "most", "a number whose product with T is below 2**64");
    if (dsr_expect_axis(c, 'J', digits_of(a->most), "binary digits of 'most'") < 0)
        return -1;
    return dsr_expect_axis(c, 'K', digits_of(a->most * timesteps), "binary digits of T times 'most'");
}

OPERATION(count_steps, check_count_steps, RETURNS_NOTHING) {
    return dsr_count_steps(a->words, a->out, AXIS(c, 'J'), AXIS(c, 'K'), AXIS(c, 'N'), AXIS(c, 'T'), AXIS(c, 'B'));
}

#define UNPACK_WORDS(A, S)                                                                                             \
    A(S, U32, words, "WN", IN)                                                                                         \
    A(S, F32, amplitude, "C", IN)                                                                                      \
    A(S, F32, out, "CN", OUT)
ARGUMENTS(unpack_words, UNPACK_WORDS)
ARGUMENTS(add_words, UNPACK_WORDS)

OPERATION(unpack_words, check_words, RETURNS_NOTHING) {
    return dsr_unpack_words(a->words, a->out, AXIS(c, 'C'), AXIS(c, 'N'), a->amplitude);
}

OPERATION(add_words, check_words, RETURNS_NOTHING) {
    return dsr_add_words(a->words, a->out, AXIS(c, 'C'), AXIS(c, 'N'), a->amplitude);
}

#define SUM_WORDS(A, S)                                                                                                \
    A(S, U32, words, "WPTB", IN)                                                                                       \
    A(S, F32, weights, "T", IN)                                                                                        \
    A(S, F32, amplitude, "C", IN)                                                                                      \
    A(S, F32, out, "CPB", OUT)
ARGUMENTS(sum_words, SUM_WORDS)

OPERATION(sum_words, check_words, RETURNS_NOTHING) {
    return dsr_sum_words(a->words, a->weights, a->out, dsr_lanes_of(c), a->amplitude);
}

#define COUNT_WORDS(A, S)                                                                                              \
    A(S, U32, words, "WN", IN)                                                                                         \
    A(S, I64, out, "C", OUT)
ARGUMENTS(count_words, COUNT_WORDS)

OPERATION(count_words, check_words, RETURNS_NOTHING) {
    return dsr_count_words(a->words, a->out, AXIS(c, 'C'), AXIS(c, 'N'));
}

#define COUNT_BITS(A, S) A(S, U32, words, "N", IN)
ARGUMENTS(count_bits, COUNT_BITS)

OPERATION(count_bits, NULL, RETURNS_NUMBER) {
    return dsr_count_bits(a->words, &c->result, AXIS(c, 'N'));
}

#define COMPARE(A, S)                                                                                                  \
    A(S, F32, a, "N", IN)                                                                                              \
    A(S, F32, b, "N", IN)
ARGUMENTS(compare, COMPARE)

OPERATION(compare, NULL, RETURNS_NUMBER) {
    return dsr_compare(a->a, a->b, AXIS(c, 'N'), &c->result);
}

#define DROPOUT_WORDS(A, S)                                                                                            \
    A(S, U32, words, "N", IN)                                                                                          \
    A(S, CHANCE, keep, NULL, IN)                                                                                       \
    A(S, SEED, seed, NULL, IN)                                                                                         \
    A(S, U32, out, "N", OUT)
ARGUMENTS(dropout_words, DROPOUT_WORDS)

OPERATION(dropout_words, NULL, RETURNS_NOTHING) {
    return dsr_dropout_words(a->words, a->out, AXIS(c, 'N'), a->seed, a->keep);
}

#define MOMENTS(A, S)                                                                                                  \
    A(S, F32, values, "CN", IN)                                                                                        \
    A(S, F64, sums, "C", OUT)                                                                                          \
    A(S, F64, squares, "C", OUT)
ARGUMENTS(moments, MOMENTS)

OPERATION(moments, NULL, RETURNS_NOTHING) {
    return dsr_moments(a->values, a->sums, a->squares, AXIS(c, 'C'), AXIS(c, 'N'));
}

#define PRODUCT_MOMENTS(A, S)                                                                                          \
    A(S, F32, a, "CN", IN)                                                                                             \
    A(S, F32, b, "CN", IN)                                                                                             \
    A(S, F64, sums, "C", OUT)                                                                                          \
    A(S, F64, products, "C", OUT)
ARGUMENTS(product_moments, PRODUCT_MOMENTS)

OPERATION(product_moments, NULL, RETURNS_NOTHING) {
    return dsr_product_moments(a->a, a->b, a->sums, a->products, AXIS(c, 'C'), AXIS(c, 'N'));
}

#define EXPAND_GRADIENT(A, S)                                                                                          \
    A(S, F32, constant, "CPB", IN)                                                                                     \
    A(S, F32, values, "CPTB", IN)                                                                                      \
    A(S, F32, slope, "C", IN)                                                                                          \
    A(S, F32, out, "CPTB", OUT)
ARGUMENTS(expand_gradient, EXPAND_GRADIENT)

OPERATION(expand_gradient, NULL, RETURNS_NOTHING) {
    return dsr_expand_gradient(a->constant, a->values, a->slope, a->out, dsr_lanes_of(c));
}

#define AFFINE(A, S)                                                                                                   \
    A(S, F32, x, "CN", IN)                                                                                             \
    A(S, F32, y, "CN", MAYBE)                                                                                          \
    A(S, F32, a, "C", IN)                                                                                              \
    A(S, F32, b, "C", MAYBE)                                                                                           \
    A(S, F32, c, "C", IN)                                                                                              \
    A(S, F32, out, "CN", OUT)
ARGUMENTS(affine, AFFINE)

CHECK(affine) {
    if ((a->y == NULL) != (a->b == NULL))
        return dsr_refuse(c, "b", "an array where 'y' is one, None where it is None");
    return 0;
}

OPERATION(affine, check_affine, RETURNS_NOTHING) {
    return dsr_affine(a->x, a->y, a->a, a->b, a->c, a->out, AXIS(c, 'C'), AXIS(c, 'N'));
}

#define WEIGHTED_SUM(A, S)                                                                                             \
    A(S, F32, values, "CPTB", IN)                                                                                      \
    A(S, F32, weights, "T", IN)                                                                                        \
    A(S, F32, out, "CPB", OUT)
ARGUMENTS(weighted_sum, WEIGHTED_SUM)

OPERATION(weighted_sum, NULL, RETURNS_NOTHING) {
    return dsr_weighted_sum(a->values, a->weights, a->out, dsr_lanes_of(c));
}

/* value and buffer are changed in place: outputs that are read, too. */
#define SGD_UPDATE(A, S)                                                                                               \
    A(S, F32, value, "N", OUT)                                                                                         \
    A(S, F32, grad, "N", IN)                                                                                           \
    A(S, F32, buffer, "N", OUT)                                                                                        \
    A(S, NUMBER, learning_rate, NULL, IN)                                                                              \
    A(S, CHANCE, momentum, NULL, IN)                                                                                   \
    A(S, NUMBER, weight_decay, NULL, IN)                                                                               \
    A(S, SIZE, nesterov, NULL, IN)                                                                                     \
    A(S, SIZE, first, NULL, IN)
ARGUMENTS(sgd_update, SGD_UPDATE)

OPERATION(sgd_update, NULL, RETURNS_NOTHING) {
    dsr_sgd sgd = {.learning_rate = (float)a->learning_rate,
                   .momentum = (float)a->momentum,
                   .weight_decay = (float)a->weight_decay,
                   .nesterov = a->nesterov != 0,
                   .first = a->first != 0};
    return dsr_sgd_update(a->value, a->grad, a->buffer, AXIS(c, 'N'), sgd);
}
