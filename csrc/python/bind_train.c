/* Time-first trains: neurons, representations, gradients, encoders. */
#include "bind.h"

#define NEURON_FORWARD(A, S)                                                                                           \
    A(S, REAL, current, "TN", IN)                                                                                      \
    A(S, REAL, v_init, "N", MAYBE)                                                                                     \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, REAL, out, "TN", OUT)                                                                                         \
    A(S, REAL, v_final, "N", MAYBE_OUT)
ARGUMENTS(neuron_forward, NEURON_FORWARD)

OPERATION(neuron_forward, NULL, RETURNS_NOTHING) {
    return dsr_neuron_forward(c->dtype, a->current, a->v_init, a->out, a->v_final, AXIS(c, 'T'), AXIS(c, 'N'),
                              a->neuron);
}

#define FIRING_RATE(A, S)                                                                                              \
    A(S, REAL, train, "TN", IN)                                                                                        \
    A(S, F64, weights, "T", MAYBE)                                                                                     \
    A(S, REAL, out, "N", OUT)
ARGUMENTS(firing_rate, FIRING_RATE)

OPERATION(firing_rate, NULL, RETURNS_NOTHING) {
    return dsr_firing_rate(c->dtype, a->train, a->weights, a->out, AXIS(c, 'T'), AXIS(c, 'N'));
}

#define RATE(A, S)                                                                                                     \
    A(S, REAL, mean_current, "N", IN)                                                                                  \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, REAL, out, "N", OUT)
ARGUMENTS(rate, RATE)

OPERATION(rate, NULL, RETURNS_NOTHING) {
    return dsr_rate(c->dtype, a->mean_current, a->out, AXIS(c, 'N'), a->neuron);
}

#define BACKWARD(A, S)                                                                                                 \
    A(S, REAL, grad_output, "TN", IN)                                                                                  \
    A(S, REAL, current, "TN", IN)                                                                                      \
    A(S, F64, weights, "T", MAYBE)                                                                                     \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, REAL, out, "TN", OUT)
ARGUMENTS(backward, BACKWARD)

OPERATION(backward, NULL, RETURNS_NUMBER) {
    return dsr_backward(c->dtype, a->grad_output, a->current, a->weights, a->out, &c->result, AXIS(c, 'T'),
                        AXIS(c, 'N'), a->neuron);
}

#define RATE_BACKWARD(A, S)                                                                                            \
    A(S, REAL, grad_rate, "N", IN)                                                                                     \
    A(S, REAL, mean_current, "N", IN)                                                                                  \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, REAL, out, "N", OUT)
ARGUMENTS(rate_backward, RATE_BACKWARD)

OPERATION(rate_backward, NULL, RETURNS_NUMBER) {
    return dsr_rate_backward(c->dtype, a->grad_rate, a->mean_current, a->out, &c->result, AXIS(c, 'N'), a->neuron);
}

#define ENCODE_BERNOULLI(A, S)                                                                                         \
    A(S, REAL, rate, "N", IN)                                                                                          \
    A(S, SEED, seed, NULL, IN)                                                                                         \
    A(S, REAL, out, "TN", OUT)
ARGUMENTS(encode_bernoulli, ENCODE_BERNOULLI)

OPERATION(encode_bernoulli, NULL, RETURNS_NOTHING) {
    return dsr_encode_bernoulli(c->dtype, a->rate, a->out, AXIS(c, 'T'), AXIS(c, 'N'), a->seed);
}

#define ENCODE_LATENCY(A, S)                                                                                           \
    A(S, REAL, value, "N", IN)                                                                                         \
    A(S, REAL, out, "TN", OUT)
ARGUMENTS(encode_latency, ENCODE_LATENCY)

OPERATION(encode_latency, NULL, RETURNS_NOTHING) {
    return dsr_encode_latency(c->dtype, a->value, a->out, AXIS(c, 'T'), AXIS(c, 'N'));
}

#define ENCODE_PHASE(A, S)                                                                                             \
    A(S, REAL, value, "N", IN)                                                                                         \
    A(S, COUNT, bits, NULL, IN)                                                                                        \
    A(S, REAL, out, "TN", OUT)
ARGUMENTS(encode_phase, ENCODE_PHASE)

OPERATION(encode_phase, NULL, RETURNS_NOTHING) {
    return dsr_encode_phase(c->dtype, a->value, a->out, AXIS(c, 'T'), AXIS(c, 'N'), a->bits);
}

#define ENCODE_DELTA(A, S)                                                                                             \
    A(S, REAL, signal, "TN", IN)                                                                                       \
    A(S, POSITIVE, threshold, NULL, IN)                                                                                \
    A(S, REAL, out, "TN", OUT)
ARGUMENTS(encode_delta, ENCODE_DELTA)

OPERATION(encode_delta, NULL, RETURNS_NOTHING) {
    return dsr_encode_delta(c->dtype, a->signal, a->out, AXIS(c, 'T'), AXIS(c, 'N'), a->threshold);
}
