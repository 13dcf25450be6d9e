/* Convolutions of dense values and of spikes, and their gradients. */
#include "bind.h"

/* width: the letter of the image's width. The kernel is the argument with the axes Y and X, whichever that is. */
static int check_conv(const dsr_call *c, char width, size_t stride, size_t padding) {
    size_t y = AXIS(c, 'Y'), x = AXIS(c, 'X');
    if (y == 0 || x == 0)
        return dsr_refuse(c, AXIS_OF(c, 'Y'), "a kernel of at least 1x1");
    if (dsr_check_windows(c, 'H', 'I', y, stride, padding) < 0 ||
        dsr_check_windows(c, width, 'J', x, stride, padding) < 0)
        return -1;
    /* what BLAS counts with 32-bit integers; 64-bit products of 31-bit factors cannot wrap when taken one by one */
    const size_t most = 0x7fffffff;
    const size_t factor[2][3] = {{AXIS(c, 'I'), AXIS(c, 'J'), AXIS(c, 'L')}, {AXIS(c, 'C') + AXIS(c, 'O'), y, x}};
    for (int i = 0; i < 2; i++) {
        size_t product = 1;
        for (int j = 0; j < 3; j++) {
            if (factor[i][j] && product > most / factor[i][j])
                return i ? dsr_refuse(c, AXIS_OF(c, 'Y'), "fewer than 2**31 weights for each channel")
                         : dsr_refuse(c, AXIS_OF(c, 'I'), "fewer than 2**31 elements for each channel");
            product *= factor[i][j];
        }
    }
    return 0;
}

static int check_spike_conv(const dsr_call *c, size_t stride, size_t padding, size_t group) {
    if (check_conv(c, 'V', stride, padding) < 0)
        return -1;
    if (group != 1 && group != 2 && group != 4)
        return dsr_refuse(c, "group", "1, 2 or 4");
    size_t taps = AXIS(c, 'Y') * AXIS(c, 'X');
    if (taps > DSR_MOST_TAPS / group)
        return dsr_refuse(c, taps > DSR_MOST_TAPS ? AXIS_OF(c, 'Y') : "group", "at most 121 taps times 'group'");
    return 0;
}

static int check_lanes(const dsr_call *c, const char *argument, size_t timesteps) {
    if (AXIS(c, 'B') && timesteps > 0x7fffffff / AXIS(c, 'B'))
        return dsr_refuse(c, argument, "fewer than 2**31 lanes (time steps times samples)");
    return 0;
}

static dsr_conv conv_of(const dsr_call *c, char width, size_t lanes, size_t stride, size_t padding) {
    return (dsr_conv){.in_channels = AXIS(c, 'C'),
                      .out_channels = AXIS(c, 'O'),
                      .height = AXIS(c, 'H'),
                      .width = AXIS(c, width),
                      .kernel_h = AXIS(c, 'Y'),
                      .kernel_w = AXIS(c, 'X'),
                      .stride = stride,
                      .padding = padding,
                      .lanes = lanes,
                      .out_height = AXIS(c, 'I'),
                      .out_width = AXIS(c, 'J')};
}

#define STRIDES(A, S)                                                                                                  \
    A(S, COUNT, stride, NULL, IN)                                                                                      \
    A(S, SIZE, padding, NULL, IN)

#define CONV2D(A, S)                                                                                                   \
    A(S, F32, input, "CHWL", IN)                                                                                       \
    A(S, F32, weight, "OCYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    STRIDES(A, S)                                                                                                      \
    A(S, F32, out, "OIJL", OUT)
ARGUMENTS(conv2d, CONV2D)

CHECK(conv2d) {
    return check_conv(c, 'W', a->stride, a->padding);
}

OPERATION(conv2d, check_conv2d, RETURNS_NOTHING) {
    return dsr_conv2d(a->input, a->weight, a->bias, a->out, conv_of(c, 'W', AXIS(c, 'L'), a->stride, a->padding));
}

#define CONV2D_INPUT_GRADIENT(A, S)                                                                                    \
    A(S, F32, grad_output, "OIJL", IN)                                                                                 \
    A(S, F32, weight, "OCYX", IN)                                                                                      \
    STRIDES(A, S)                                                                                                      \
    A(S, F32, out, "CHWL", OUT)
ARGUMENTS(conv2d_input_gradient, CONV2D_INPUT_GRADIENT)

CHECK(conv2d_input_gradient) {
    return check_conv(c, 'W', a->stride, a->padding);
}

OPERATION(conv2d_input_gradient, check_conv2d_input_gradient, RETURNS_NOTHING) {
    return dsr_conv2d_input_gradient(a->grad_output, a->weight, a->out,
                                     conv_of(c, 'W', AXIS(c, 'L'), a->stride, a->padding));
}

#define CONV2D_WEIGHT_GRADIENT(A, S)                                                                                   \
    A(S, F32, grad_output, "OIJL", IN)                                                                                 \
    A(S, F32, input, "CHWL", IN)                                                                                       \
    STRIDES(A, S)                                                                                                      \
    A(S, F32, out, "OCYX", OUT)
ARGUMENTS(conv2d_weight_gradient, CONV2D_WEIGHT_GRADIENT)

CHECK(conv2d_weight_gradient) {
    return check_conv(c, 'W', a->stride, a->padding);
}

OPERATION(conv2d_weight_gradient, check_conv2d_weight_gradient, RETURNS_NOTHING) {
    return dsr_conv2d_weight_gradient(a->grad_output, a->input, a->out,
                                      conv_of(c, 'W', AXIS(c, 'L'), a->stride, a->padding));
}

#define CONV2D_SPIKES(A, S)                                                                                            \
    A(S, U32, words, "WHVL", IN)                                                                                       \
    A(S, F32, weight, "OCYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    STRIDES(A, S)                                                                                                      \
    A(S, COUNT, group, NULL, IN)                                                                                       \
    A(S, SIZE, accumulate, NULL, IN)                                                                                   \
    A(S, F32, out, "OIJL", OUT)
ARGUMENTS(conv2d_spikes, CONV2D_SPIKES)

CHECK(conv2d_spikes) {
    if (dsr_expect_axis(c, 'W', dsr_words_of(AXIS(c, 'C')), "32 channels per word") < 0)
        return -1;
    return check_spike_conv(c, a->stride, a->padding, a->group);
}

OPERATION(conv2d_spikes, check_conv2d_spikes, RETURNS_NOTHING) {
    return dsr_conv2d_spikes(a->words, a->weight, a->bias, a->amplitude, a->out,
                             conv_of(c, 'V', AXIS(c, 'L'), a->stride, a->padding), (unsigned)a->group,
                             a->accumulate != 0);
}

#define CONV2D_NEURON_SPIKES(A, S)                                                                                     \
    A(S, U32, words, "WHVTB", IN)                                                                                      \
    A(S, F32, weight, "OCYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    STRIDES(A, S)                                                                                                      \
    A(S, COUNT, group, NULL, IN)                                                                                       \
    A(S, U32, shortcut, "KIJTB", MAYBE)                                                                                \
    A(S, F32, shortcut_amplitude, "O", MAYBE)                                                                          \
    A(S, F32, scale, "O", MAYBE)                                                                                       \
    A(S, F32, shift, "O", MAYBE)                                                                                       \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, F32, thresholds, "RO", MAYBE)                                                                                 \
    A(S, U32, out, "KIJTB", OUT)
ARGUMENTS(conv2d_neuron_spikes, CONV2D_NEURON_SPIKES)

CHECK(conv2d_neuron_spikes) {
    if ((a->shortcut == NULL) != (a->shortcut_amplitude == NULL))
        return dsr_refuse(c, "shortcut_amplitude", "an array where 'shortcut' is one, None where it is None");
    if (dsr_check_thresholds(c, a->thresholds) < 0 || check_lanes(c, "words", AXIS(c, 'T')) < 0 ||
        dsr_expect_axis(c, 'W', dsr_words_of(AXIS(c, 'C')), "32 channels per word") < 0 ||
        dsr_expect_axis(c, 'K', dsr_words_of(AXIS(c, 'O')), "32 channels per word") < 0)
        return -1;
    return check_spike_conv(c, a->stride, a->padding, a->group);
}

OPERATION(conv2d_neuron_spikes, check_conv2d_neuron_spikes, RETURNS_NOTHING) {
    dsr_after_conv after = {a->shortcut, a->shortcut_amplitude,        a->scale, a->shift,
                            a->neuron,   {a->thresholds, AXIS(c, 'O')}};
    return dsr_conv2d_neuron_spikes(a->words, a->weight, a->bias, a->amplitude, a->out,
                                    conv_of(c, 'V', AXIS(c, 'T') * AXIS(c, 'B'), a->stride, a->padding), AXIS(c, 'T'),
                                    (unsigned)a->group, after);
}

#define CONV2D_SPIKES_WEIGHT_GRADIENT(A, S)                                                                            \
    A(S, F32, constant, "OIJB", IN)                                                                                    \
    A(S, F32, slope, "O", MAYBE)                                                                                       \
    A(S, F32, values, "OIJTB", MAYBE)                                                                                  \
    A(S, U32, transposed, "HVKN", IN)                                                                                  \
    A(S, COUNT, timesteps, NULL, IN)                                                                                   \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    STRIDES(A, S)                                                                                                      \
    A(S, COUNT, group, NULL, IN)                                                                                       \
    A(S, F32, out, "OCYX", OUT)
ARGUMENTS(conv2d_spikes_weight_gradient, CONV2D_SPIKES_WEIGHT_GRADIENT)

CHECK(conv2d_spikes_weight_gradient) {
    if ((a->slope == NULL) != (a->values == NULL))
        return dsr_refuse(c, "slope", "an array where 'values' is one, None where it is None");
    if (a->values && dsr_expect_axis(c, 'T', a->timesteps, "argument 'timesteps'") < 0)
        return -1;
    if (check_lanes(c, "timesteps", a->timesteps) < 0 ||
        dsr_expect_axis(c, 'K', dsr_words_of(a->timesteps * AXIS(c, 'B')), "32 lanes per word") < 0 ||
        dsr_expect_axis(c, 'N', dsr_words_of(AXIS(c, 'C')) * DSR_WORD, "32 channels per word") < 0)
        return -1;
    return check_spike_conv(c, a->stride, a->padding, a->group);
}

OPERATION(conv2d_spikes_weight_gradient, check_conv2d_spikes_weight_gradient, RETURNS_NOTHING) {
    dsr_gradient gradient = {.constant = a->constant, .slope = a->slope, .values = a->values};
    return dsr_conv2d_spikes_weight_gradient(gradient, a->transposed, a->amplitude, a->out,
                                             conv_of(c, 'V', a->timesteps * AXIS(c, 'B'), a->stride, a->padding),
                                             AXIS(c, 'B'), (unsigned)a->group);
}
