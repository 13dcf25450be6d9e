/* Convolutions of dense values and of spikes, and their gradients. */
#include "bind.h"

/* image, windows: the letters of one direction's axes. */
static int check_geometry(const dsr_call *c, char image, char windows, const dsr_geometry *g, int i) {
    size_t size = AXIS(c, image);
    if (g->spread[i] > 1 && size > 0x7fffffff)
        return dsr_refuse(c, AXIS_OF(c, image), "an image of fewer than 2**31 pixels a side");
    size_t line = (size ? (size - 1) * g->spread[i] + 1 : 0) + g->padding[2 * i] + g->padding[2 * i + 1];
    size_t reach = (g->kernel[i] - 1) * g->dilation[i] + 1;
    if (g->spread[0] * g->spread[1] > 1 && (g->stride[i] > 1 || g->padding[2 * i] >= reach))
        return dsr_refuse(c, "geometry", "with a spread a stride of 1, and less padding than the kernel is wide");
    if (line < reach)
        return dsr_refuse(c, AXIS_OF(c, image), "an image at least as large as the window (with its padding)");
    return dsr_expect_axis(c, windows, (line - reach) / g->stride[i] + 1, "what 'geometry' makes of the image");
}

/* taps: the letter of the kernel's axis. */
static int check_axis(const dsr_call *c, char image, char windows, char taps, const dsr_geometry *g, int i) {
    return dsr_expect_axis(c, taps, g->kernel[i], "the kernel of 'geometry'") < 0
               ? -1
               : check_geometry(c, image, windows, g, i);
}

/* width: the letter of the image's width. The kernel is the argument with the axes Y and X, whichever that is. */
static int check_conv(const dsr_call *c, char width, const dsr_geometry *g) {
    if (check_axis(c, 'H', 'I', 'Y', g, 0) < 0 || check_axis(c, width, 'J', 'X', g, 1) < 0)
        return -1;
    /* what BLAS counts with 32-bit integers; 64-bit products of 31-bit factors cannot wrap when taken one by one */
    const size_t most = 0x7fffffff;
    if (AXIS(c, 'G') > most / g->groups)
        return dsr_refuse(c, AXIS_OF(c, 'Y'), "fewer than 2**31 weights for each channel");
    const size_t factor[2][3] = {{AXIS(c, 'I'), AXIS(c, 'J'), AXIS(c, 'L')},
                                 {AXIS(c, 'G') * g->groups + AXIS(c, 'O'), g->kernel[0], g->kernel[1]}};
    for (int i = 0; i < 2; i++) {
        size_t product = 1;
        for (int j = 0; j < 3; j++) {
            if (factor[i][j] && product > most / factor[i][j])
                return i ? dsr_refuse(c, AXIS_OF(c, 'Y'), "fewer than 2**31 weights for each channel")
                         : dsr_refuse(c, AXIS_OF(c, 'I'), "fewer than 2**31 elements for each channel");
            product *= factor[i][j];
        }
    }
    if (AXIS(c, 'O') % g->groups)
        return dsr_refuse(c, AXIS_OF(c, 'O'), "output channels that the groups of 'geometry' divide");
    return 0;
}

static int check_dense_conv(const dsr_call *c, const dsr_geometry *g) {
    return check_conv(c, 'W', g) < 0 ? -1 : dsr_expect_axis(c, 'C', AXIS(c, 'G') * g->groups, "channels of all groups");
}

static int check_spike_conv(const dsr_call *c, const dsr_geometry *g, size_t table_bits) {
    if (check_conv(c, 'V', g) < 0)
        return -1;
    if (table_bits != 1 && table_bits != 2 && table_bits != 4)
        return dsr_refuse(c, "table_bits", "1, 2 or 4");
    size_t taps = AXIS(c, 'Y') * AXIS(c, 'X');
    if (taps > DSR_MOST_TAPS / table_bits)
        return dsr_refuse(c, taps > DSR_MOST_TAPS ? AXIS_OF(c, 'Y') : "table_bits",
                          "at most 121 taps times 'table_bits'");
    return 0;
}

static int expect_words(const dsr_call *c, char axis, size_t channels) {
    return dsr_expect_axis(c, axis, dsr_words_of(channels), "32 channels per word");
}

static int check_lanes(const dsr_call *c, const char *argument, size_t timesteps) {
    if (AXIS(c, 'B') && timesteps > 0x7fffffff / AXIS(c, 'B'))
        return dsr_refuse(c, argument, "fewer than 2**31 lanes (time steps times samples)");
    return 0;
}

static dsr_conv conv_of(const dsr_call *c, char width, size_t lanes, const dsr_geometry *g) {
    dsr_conv conv = {
        .in_channels = AXIS(c, 'G') * g->groups, .out_channels = AXIS(c, 'O'), .groups = g->groups, .lanes = lanes};
    conv.y = (dsr_conv_axis){AXIS(c, 'H'),   g->kernel[0], AXIS(c, 'I'), g->stride[0],
                             g->dilation[0], g->spread[0], g->padding[0]};
    conv.x = (dsr_conv_axis){AXIS(c, width), g->kernel[1], AXIS(c, 'J'), g->stride[1],
                             g->dilation[1], g->spread[1], g->padding[2]};
    return conv;
}

#define DENSE_CONV(A, S, before, after)                                                                                \
    A(S, F32, input, before, IN)                                                                                       \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, F32, out, after, OUT)
#define CONV2D(A, S) DENSE_CONV(A, S, "CHWL", "OIJL")
#define CONV2D_BY_STEP(A, S) DENSE_CONV(A, S, "CHWTB", "OIJTB")
ARGUMENTS(conv2d, CONV2D)

CHECK(conv2d) {
    return check_dense_conv(c, &a->geometry);
}

OPERATION(conv2d, check_conv2d, RETURNS_NOTHING) {
    return dsr_conv2d(a->input, a->weight, a->bias, a->out, conv_of(c, 'W', AXIS(c, 'L'), &a->geometry));
}

ARGUMENTS(conv2d_by_step, CONV2D_BY_STEP)

CHECK(conv2d_by_step) {
    if (check_lanes(c, "input", AXIS(c, 'T')) < 0 || check_dense_conv(c, &a->geometry) < 0)
        return -1;
    if (AXIS(c, 'I') != 1 || AXIS(c, 'J') != 1 || a->geometry.spread[0] * a->geometry.spread[1] > 1)
        return dsr_refuse(c, "geometry", "one that gives one output pixel, without a spread");
    return 0;
}

OPERATION(conv2d_by_step, check_conv2d_by_step, RETURNS_NOTHING) {
    return dsr_conv2d_by_step(a->input, a->weight, a->bias, a->out,
                              conv_of(c, 'W', AXIS(c, 'T') * AXIS(c, 'B'), &a->geometry), AXIS(c, 'T'));
}

#define CONV2D_INPUT_GRADIENT(A, S)                                                                                    \
    A(S, F32, grad_output, "OIJL", IN)                                                                                 \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, F32, out, "CHWL", OUT)
ARGUMENTS(conv2d_input_gradient, CONV2D_INPUT_GRADIENT)

CHECK(conv2d_input_gradient) {
    return check_dense_conv(c, &a->geometry);
}

OPERATION(conv2d_input_gradient, check_conv2d_input_gradient, RETURNS_NOTHING) {
    return dsr_conv2d_input_gradient(a->grad_output, a->weight, a->out, conv_of(c, 'W', AXIS(c, 'L'), &a->geometry));
}

#define CONV2D_WEIGHT_GRADIENT(A, S)                                                                                   \
    A(S, F32, grad_output, "OIJL", IN)                                                                                 \
    A(S, F32, input, "CHWL", IN)                                                                                       \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, F32, out, "OGYX", OUT)
ARGUMENTS(conv2d_weight_gradient, CONV2D_WEIGHT_GRADIENT)

CHECK(conv2d_weight_gradient) {
    return check_dense_conv(c, &a->geometry);
}

OPERATION(conv2d_weight_gradient, check_conv2d_weight_gradient, RETURNS_NOTHING) {
    return dsr_conv2d_weight_gradient(a->grad_output, a->input, a->out, conv_of(c, 'W', AXIS(c, 'L'), &a->geometry));
}

/* Packed weights depend on channels, groups and taps alone. */
static dsr_conv weights_of(const dsr_call *c, const dsr_geometry *g) {
    dsr_conv_axis one = {.size = 1, .out = 1, .stride = 1, .dilation = 1, .spread = 1};
    dsr_conv conv = {one, one, AXIS(c, 'G') * g->groups, AXIS(c, 'O'), g->groups, 1};
    conv.y.taps = g->kernel[0];
    conv.x.taps = g->kernel[1];
    return conv;
}

/* Memory is aligned as kernels on rows want it, if there is any. */
static int check_rows(const dsr_call *c, const char *argument, const float *rows, size_t elements) {
    return elements && (uintptr_t)rows % 64 ? dsr_refuse(c, argument, "memory that is aligned to 64 bytes") : 0;
}

static int check_packed(const dsr_call *c, const float *packed, const dsr_geometry *g) {
    if (!packed)
        return 0;
    if (dsr_expect_axis(c, 'N', dsr_packed_length(weights_of(c, g)), "the packed weights") < 0)
        return -1;
    return check_rows(c, "packed", packed, AXIS(c, 'N'));
}

#define PACKED_LENGTH(A, S)                                                                                            \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, GEOMETRY, geometry, NULL, IN)
ARGUMENTS(packed_length, PACKED_LENGTH)

static int check_weights(const dsr_call *c, const dsr_geometry *g) {
    const size_t most = 0x7fffffff;
    if (dsr_expect_axis(c, 'Y', g->kernel[0], "the kernel of 'geometry'") < 0 ||
        dsr_expect_axis(c, 'X', g->kernel[1], "the kernel of 'geometry'") < 0)
        return -1;
    if (AXIS(c, 'Y') * AXIS(c, 'X') > DSR_MOST_TAPS)
        return dsr_refuse(c, "weight", "at most 121 taps");
    if (AXIS(c, 'O') % g->groups)
        return dsr_refuse(c, "weight", "output channels that the groups of 'geometry' divide");
    if (AXIS(c, 'G') > most / DSR_MOST_TAPS / g->groups)
        return dsr_refuse(c, "weight", "fewer than 2**31 weights for each channel");
    return 0;
}

CHECK(packed_length) {
    return check_weights(c, &a->geometry);
}

OPERATION(packed_length, check_packed_length, RETURNS_NUMBER) {
    c->result = AXIS(c, 'O') ? (double)dsr_packed_length(weights_of(c, &a->geometry)) : 0;
    return DSR_OK;
}

#define PACK_WEIGHTS(A, S)                                                                                             \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, F32, out, "N", OUT)
ARGUMENTS(pack_weights, PACK_WEIGHTS)

CHECK(pack_weights) {
    if (check_weights(c, &a->geometry) < 0)
        return -1;
    size_t length = AXIS(c, 'O') ? dsr_packed_length(weights_of(c, &a->geometry)) : 0;
    return dsr_expect_axis(c, 'N', length, "the packed weights") < 0 ? -1 : check_rows(c, "out", a->out, length);
}

OPERATION(pack_weights, check_pack_weights, RETURNS_NOTHING) {
    dsr_pack_weights(a->weight, a->out, weights_of(c, &a->geometry));
    return DSR_OK;
}

#define CONV2D_SPIKES(A, S)                                                                                            \
    A(S, U32, words, "WHVL", IN)                                                                                       \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, COUNT, table_bits, NULL, IN)                                                                                  \
    A(S, SIZE, accumulate, NULL, IN)                                                                                   \
    A(S, F32, packed, "N", MAYBE)                                                                                      \
    A(S, F32, out, "OIJL", OUT)
ARGUMENTS(conv2d_spikes, CONV2D_SPIKES)

CHECK(conv2d_spikes) {
    if (check_spike_conv(c, &a->geometry, a->table_bits) < 0 ||
        expect_words(c, 'W', AXIS(c, 'G') * a->geometry.groups) < 0)
        return -1;
    return check_packed(c, a->packed, &a->geometry);
}

OPERATION(conv2d_spikes, check_conv2d_spikes, RETURNS_NOTHING) {
    return dsr_conv2d_spikes(a->words, (dsr_weights){a->weight, a->packed}, a->bias, a->amplitude, a->out,
                             conv_of(c, 'V', AXIS(c, 'L'), &a->geometry), (unsigned)a->table_bits, a->accumulate != 0);
}

/* What follows a convolution of spikes at once reads its currents of all T steps, and spikes of a shortcut beside them.
 */
static int check_fused_conv(const dsr_call *c, const dsr_geometry *g, size_t table_bits, const float *packed,
                            const uint32_t *shortcut, const float *shortcut_amplitude) {
    if ((shortcut == NULL) != (shortcut_amplitude == NULL))
        return dsr_refuse(c, "shortcut_amplitude", "an array where 'shortcut' is one, None where it is None");
    if (check_lanes(c, "words", AXIS(c, 'T')) < 0 || check_spike_conv(c, g, table_bits) < 0 ||
        expect_words(c, 'W', AXIS(c, 'G') * g->groups) < 0)
        return -1;
    if (shortcut && expect_words(c, 'K', AXIS(c, 'O')) < 0)
        return -1;
    return check_packed(c, packed, g);
}

#define CONV2D_NEURON_SPIKES(A, S)                                                                                     \
    A(S, U32, words, "WHVTB", IN)                                                                                      \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, COUNT, table_bits, NULL, IN)                                                                                  \
    A(S, U32, shortcut, "KIJTB", MAYBE)                                                                                \
    A(S, F32, shortcut_amplitude, "O", MAYBE)                                                                          \
    A(S, F32, scale, "O", MAYBE)                                                                                       \
    A(S, F32, shift, "O", MAYBE)                                                                                       \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, F32, thresholds, "RO", MAYBE)                                                                                 \
    A(S, F32, packed, "N", MAYBE)                                                                                      \
    A(S, F32, weights, "T", MAYBE)                                                                                     \
    A(S, U32, out, "DIJTB", OUT)                                                                                       \
    A(S, F32, potentials, "KIJBZ", MAYBE_OUT)                                                                          \
    A(S, F32, weighted, "OIJB", MAYBE_OUT)
ARGUMENTS(conv2d_neuron_spikes, CONV2D_NEURON_SPIKES)

CHECK(conv2d_neuron_spikes) {
    if (check_fused_conv(c, &a->geometry, a->table_bits, a->packed, a->shortcut, a->shortcut_amplitude) < 0)
        return -1;
    if ((a->weights == NULL) != (a->weighted == NULL))
        return dsr_refuse(c, "weighted", "an array where 'weights' is one, None where it is None");
    if (dsr_check_thresholds(c, a->thresholds) < 0 || dsr_expect_planes(c, 'D', AXIS(c, 'O'), &a->neuron) < 0)
        return -1;
    if (a->potentials &&
        (expect_words(c, 'K', AXIS(c, 'O')) < 0 || dsr_expect_axis(c, 'Z', DSR_ROW, "a row of channels") < 0 ||
         check_rows(c, "potentials", a->potentials, AXIS(c, 'K') * AXIS(c, 'I') * AXIS(c, 'J') * AXIS(c, 'B')) < 0))
        return -1;
    return 0;
}

OPERATION(conv2d_neuron_spikes, check_conv2d_neuron_spikes, RETURNS_NOTHING) {
    dsr_after_conv after = {.shortcut = a->shortcut,
                            .shortcut_amplitude = a->shortcut_amplitude,
                            .scale = a->scale,
                            .shift = a->shift,
                            .neuron = a->neuron,
                            .thresholds = {a->thresholds, AXIS(c, 'O')},
                            .potentials = a->potentials,
                            .weights = a->weights,
                            .weighted = a->weighted};
    return dsr_conv2d_neuron_spikes(a->words, (dsr_weights){a->weight, a->packed}, a->bias, a->amplitude, a->out,
                                    conv_of(c, 'V', AXIS(c, 'T') * AXIS(c, 'B'), &a->geometry), AXIS(c, 'T'),
                                    (unsigned)a->table_bits, after);
}

#define CONV2D_SPIKES_SUM(A, S)                                                                                        \
    A(S, U32, words, "WHVTB", IN)                                                                                      \
    A(S, F32, weight, "OGYX", IN)                                                                                      \
    A(S, F32, bias, "O", MAYBE)                                                                                        \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, COUNT, table_bits, NULL, IN)                                                                                  \
    A(S, U32, shortcut, "KIJTB", MAYBE)                                                                                \
    A(S, F32, shortcut_amplitude, "O", MAYBE)                                                                          \
    A(S, F32, weights, "T", IN)                                                                                        \
    A(S, F32, packed, "N", MAYBE)                                                                                      \
    A(S, F32, out, "OIJB", OUT)
ARGUMENTS(conv2d_spikes_sum, CONV2D_SPIKES_SUM)

CHECK(conv2d_spikes_sum) {
    return check_fused_conv(c, &a->geometry, a->table_bits, a->packed, a->shortcut, a->shortcut_amplitude);
}

OPERATION(conv2d_spikes_sum, check_conv2d_spikes_sum, RETURNS_NOTHING) {
    dsr_after_conv after = {.shortcut = a->shortcut,
                            .shortcut_amplitude = a->shortcut_amplitude,
                            .weights = a->weights,
                            .weighted = a->out};
    return dsr_conv2d_spikes_sum(a->words, (dsr_weights){a->weight, a->packed}, a->bias, a->amplitude,
                                 conv_of(c, 'V', AXIS(c, 'T') * AXIS(c, 'B'), &a->geometry), AXIS(c, 'T'),
                                 (unsigned)a->table_bits, after);
}

/* Steps S of the current: T, or 1 where it is the same at every step. */
#define NEURON_STEPS(A, S)                                                                                             \
    A(S, F32, current, "CPSB", IN)                                                                                     \
    A(S, F32, scale, "C", MAYBE)                                                                                       \
    A(S, F32, shift, "C", MAYBE)                                                                                       \
    A(S, NEURON, neuron, NULL, IN)                                                                                     \
    A(S, F32, thresholds, "RC", MAYBE)                                                                                 \
    A(S, U32, words, "WPTB", OUT)                                                                                      \
    A(S, F32, potentials, "KPBZ", MAYBE_OUT)
ARGUMENTS(neuron_steps, NEURON_STEPS)

CHECK(neuron_steps) {
    if (dsr_check_thresholds(c, a->thresholds) < 0)
        return -1;
    if (AXIS(c, 'S') != 1 && dsr_expect_axis(c, 'S', AXIS(c, 'T'), "1, or axis T of 'words'") < 0)
        return -1;
    if (dsr_expect_planes(c, 'W', AXIS(c, 'C'), &a->neuron) < 0)
        return -1;
    if (!a->potentials)
        return 0;
    if (expect_words(c, 'K', AXIS(c, 'C')) < 0 || dsr_expect_axis(c, 'Z', DSR_ROW, "a row of channels") < 0)
        return -1;
    return check_rows(c, "potentials", a->potentials, AXIS(c, 'K') * AXIS(c, 'P') * AXIS(c, 'B'));
}

OPERATION(neuron_steps, check_neuron_steps, RETURNS_NOTHING) {
    dsr_layer_current input = {a->current, AXIS(c, 'S') == 1, a->scale, a->shift, NULL};
    return dsr_neuron_steps(input, a->words, a->potentials, dsr_lanes_of(c), a->neuron,
                            (dsr_thresholds){a->thresholds, AXIS(c, 'C')});
}

#define CONV2D_SPIKES_WEIGHT_GRADIENT(A, S)                                                                            \
    A(S, F32, constant, "OIJB", IN)                                                                                    \
    A(S, F32, weights, "T", MAYBE)                                                                                     \
    A(S, F32, slope, "O", MAYBE)                                                                                       \
    A(S, F32, values, "OIJTB", MAYBE)                                                                                  \
    A(S, U32, transposed, "HVKN", IN)                                                                                  \
    A(S, COUNT, timesteps, NULL, IN)                                                                                   \
    A(S, NUMBER, amplitude, NULL, IN)                                                                                  \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, COUNT, table_bits, NULL, IN)                                                                                  \
    A(S, F32, out, "OGYX", OUT)
ARGUMENTS(conv2d_spikes_weight_gradient, CONV2D_SPIKES_WEIGHT_GRADIENT)

CHECK(conv2d_spikes_weight_gradient) {
    if ((a->slope == NULL) != (a->values == NULL))
        return dsr_refuse(c, "slope", "an array where 'values' is one, None where it is None");
    if ((a->values || a->weights) && dsr_expect_axis(c, 'T', a->timesteps, "argument 'timesteps'") < 0)
        return -1;
    if (check_lanes(c, "timesteps", a->timesteps) < 0 ||
        dsr_expect_axis(c, 'K', dsr_words_of(a->timesteps * AXIS(c, 'B')), "32 lanes per word") < 0 ||
        check_spike_conv(c, &a->geometry, a->table_bits) < 0)
        return -1;
    size_t channels = AXIS(c, 'G') * a->geometry.groups;
    return dsr_expect_axis(c, 'N', dsr_words_of(channels) * DSR_WORD, "32 channels per word");
}

OPERATION(conv2d_spikes_weight_gradient, check_conv2d_spikes_weight_gradient, RETURNS_NOTHING) {
    dsr_gradient gradient = {.constant = a->constant, .weights = a->weights, .slope = a->slope, .values = a->values};
    return dsr_conv2d_spikes_weight_gradient(gradient, a->transposed, a->amplitude, a->out,
                                             conv_of(c, 'V', a->timesteps * AXIS(c, 'B'), &a->geometry), AXIS(c, 'B'),
                                             (unsigned)a->table_bits);
}

/* Letters: K blocks of output channels, N blocks of input words, R rows of a block, Q integers of a row. */
#define INTEGER_WEIGHTS(A, S)                                                                                          \
    A(S, I16, packed, "KNRQ", IN)                                                                                      \
    A(S, GEOMETRY, geometry, NULL, IN)                                                                                 \
    A(S, SIZE, in_channels, NULL, IN)                                                                                  \
    A(S, COUNT, out_channels, NULL, IN)

#define INTEGER_CONV(A, S)                                                                                             \
    INTEGER_WEIGHTS(A, S)                                                                                              \
    A(S, SIZE, shift, NULL, IN)                                                                                        \
    A(S, COUNT, table_bits, NULL, IN)                                                                                  \
    A(S, COUNT, together, NULL, IN)

static dsr_conv integer_conv_of(const dsr_call *c, size_t in_channels, size_t out_channels, size_t lanes,
                                const dsr_geometry *g) {
    dsr_conv conv = conv_of(c, 'V', lanes, g);
    conv.in_channels = in_channels, conv.out_channels = out_channels;
    return conv;
}

/* The first row of each block, which lists are padded with. */
static int check_zeros(const dsr_call *c, const int16_t *packed) {
    size_t blocks = AXIS(c, 'K') * AXIS(c, 'N'), length = AXIS(c, 'R') * DSR_INTEGER_ROW;
    for (size_t block = 0; block < blocks; block++)
        for (size_t i = 0; i < DSR_INTEGER_ROW; i++)
            if (packed[block * length + i])
                return dsr_refuse(c, "packed", "blocks that begin with a row of zeros");
    return 0;
}

/* Taps, groups, and rows of output channels. */
static int check_integer_rows(const dsr_call *c, const dsr_geometry *g, size_t in_channels, size_t out_channels) {
    if (check_geometry(c, 'H', 'I', g, 0) < 0 || check_geometry(c, 'V', 'J', g, 1) < 0)
        return -1;
    if (in_channels % g->groups || out_channels % g->groups)
        return dsr_refuse(c, "geometry", "groups that divide 'in_channels' and 'out_channels'");
    return dsr_expect_axis(c, 'K', out_channels / DSR_INTEGER_ROW + (out_channels % DSR_INTEGER_ROW != 0),
                           "64 of 'out_channels' per block") < 0
               ? -1
               : dsr_expect_axis(c, 'Q', DSR_INTEGER_ROW, "integers of a row");
}

static int check_integer_blocks(const dsr_call *c, const dsr_geometry *g, size_t in_channels, size_t out_channels) {
    size_t block_rows, blocks = dsr_integer_blocks(integer_conv_of(c, in_channels, out_channels, 1, g), &block_rows);
    return dsr_expect_axis(c, 'N', blocks, "blocks of input words") < 0
               ? -1
               : dsr_expect_axis(c, 'R', block_rows, "rows of a block");
}

static int check_integer_conv(const dsr_call *c, const int16_t *packed, const dsr_geometry *g, size_t in_channels,
                              size_t out_channels, size_t shift, size_t table_bits) {
    if (check_integer_rows(c, g, in_channels, out_channels) < 0 || expect_words(c, 'W', in_channels) < 0)
        return -1;
    if (table_bits != 1 && table_bits != 2 && table_bits != 4)
        return dsr_refuse(c, "table_bits", "1, 2 or 4");
    size_t taps = g->kernel[0] > DSR_MOST_TAPS ? g->kernel[0] : g->kernel[0] * g->kernel[1];
    if (taps > DSR_MOST_TAPS / table_bits)
        return dsr_refuse(c, taps > DSR_MOST_TAPS ? "geometry" : "table_bits", "at most 121 taps times 'table_bits'");
    if (shift > 30)
        return dsr_refuse(c, "shift", "an integer in [0, 30]");
    return check_integer_blocks(c, g, in_channels, out_channels) < 0 ? -1 : check_zeros(c, packed);
}

#define INTEGER_CONV2D_SPIKES(A, S)                                                                                    \
    A(S, U32, words, "WHVL", IN)                                                                                       \
    INTEGER_CONV(A, S)                                                                                                 \
    A(S, I32, rows, "KIJLQ", OUT)
ARGUMENTS(integer_conv2d_spikes, INTEGER_CONV2D_SPIKES)

CHECK(integer_conv2d_spikes) {
    return check_integer_conv(c, a->packed, &a->geometry, a->in_channels, a->out_channels, a->shift, a->table_bits);
}

OPERATION(integer_conv2d_spikes, check_integer_conv2d_spikes, RETURNS_NOTHING) {
    return dsr_integer_conv2d_spikes(a->words, (dsr_integer_weights){a->packed, a->together}, a->rows,
                                     integer_conv_of(c, a->in_channels, a->out_channels, AXIS(c, 'L'), &a->geometry),
                                     (unsigned)a->shift, (unsigned)a->table_bits);
}

/* What neurons take, and the spikes that they give. */
#define INTEGER_NEURONS(A, S)                                                                                          \
    A(S, U32, shortcut, "MIJTB", MAYBE)                                                                                \
    A(S, I32, shortcut_weight, "O", MAYBE)                                                                             \
    A(S, I32, bias, "O", IN)                                                                                           \
    A(S, I32, reset, "O", IN)                                                                                          \
    A(S, I32, fire, "O", IN)                                                                                           \
    A(S, SIZE, decay, NULL, IN)                                                                                        \
    A(S, I16, potentials, "KIJBQ", MAYBE_OUT)                                                                          \
    A(S, U32, out, "MIJTB", OUT)

#define INTEGER_NEURONS_OF(a)                                                                                          \
    .bias = (a)->bias, .shortcut_weight = (a)->shortcut_weight, .shortcut = (a)->shortcut, .reset = (a)->reset,        \
    .fire = (a)->fire, .decay = (int32_t)(a)->decay, .potentials = (a)->potentials

#define INTEGER_CONV2D_NEURON_SPIKES(A, S)                                                                             \
    A(S, U32, words, "WHVTB", IN)                                                                                      \
    INTEGER_CONV(A, S)                                                                                                 \
    A(S, I32, current, "KIJSBQ", MAYBE)                                                                                \
    INTEGER_NEURONS(A, S)
ARGUMENTS(integer_conv2d_neuron_spikes, INTEGER_CONV2D_NEURON_SPIKES)

/* A spike leaves a potential of at least fire - reset, and at most DSR_INTEGER_LIMIT - reset: both fit 16 bits. */
static int check_resets(const dsr_call *c, const int32_t *reset, const int32_t *fire) {
    for (size_t i = 0; i < AXIS(c, 'O'); i++) {
        int64_t least = fire[i] < -DSR_INTEGER_LIMIT ? -DSR_INTEGER_LIMIT : fire[i];
        if (reset[i] < 0 || reset[i] > least + DSR_INTEGER_LIMIT)
            return dsr_refuse(c, "reset", "numbers from 0 to fire + 32767, so that potentials keep to 16 bits");
    }
    return 0;
}

static int check_neurons(const dsr_call *c, size_t out_channels, const uint32_t *shortcut,
                         const int32_t *shortcut_weight, const int32_t *reset, const int32_t *fire, size_t decay) {
    if (dsr_expect_axis(c, 'O', out_channels, "argument 'out_channels'") < 0 || expect_words(c, 'M', out_channels) < 0)
        return -1;
    if ((shortcut == NULL) != (shortcut_weight == NULL))
        return dsr_refuse(c, "shortcut_weight", "an array where 'shortcut' is one, None where it is None");
    if (decay > (size_t)1 << DSR_DECAY_BITS)
        return dsr_refuse(c, "decay", "an integer in [0, 2**15]");
    return check_resets(c, reset, fire);
}

CHECK(integer_conv2d_neuron_spikes) {
    if (a->current && AXIS(c, 'S') != 1 && dsr_expect_axis(c, 'S', AXIS(c, 'T'), "those of 'words', or 1") < 0)
        return -1;
    if (check_lanes(c, "words", AXIS(c, 'T')) < 0 ||
        check_integer_conv(c, a->packed, &a->geometry, a->in_channels, a->out_channels, a->shift, a->table_bits) < 0)
        return -1;
    return check_neurons(c, a->out_channels, a->shortcut, a->shortcut_weight, a->reset, a->fire, a->decay);
}

OPERATION(integer_conv2d_neuron_spikes, check_integer_conv2d_neuron_spikes, RETURNS_NOTHING) {
    dsr_after_integer_conv after = {INTEGER_NEURONS_OF(a), .current = a->current,
                                    .one_step = a->current && AXIS(c, 'S') == 1};
    size_t lanes = AXIS(c, 'T') * AXIS(c, 'B');
    return dsr_integer_conv2d_neuron_spikes(a->words, (dsr_integer_weights){a->packed, a->together}, a->out,
                                            integer_conv_of(c, a->in_channels, a->out_channels, lanes, &a->geometry),
                                            AXIS(c, 'T'), (unsigned)a->shift, (unsigned)a->table_bits, after);
}

/* The same over values, C channels of them. A shift is to the left or to the right, the other one is 0. */
#define INTEGER_VALUE_CONV(A, S)                                                                                       \
    INTEGER_WEIGHTS(A, S)                                                                                              \
    A(S, SIZE, left, NULL, IN)                                                                                         \
    A(S, SIZE, right, NULL, IN)

static int check_integer_value_conv(const dsr_call *c, const dsr_geometry *g, size_t in_channels, size_t out_channels,
                                    size_t left, size_t right) {
    if (check_integer_rows(c, g, in_channels, out_channels) < 0 ||
        dsr_expect_axis(c, 'C', in_channels, "argument 'in_channels'") < 0)
        return -1;
    if (left > 30 || right > 30 || (left && right))
        return dsr_refuse(c, left > 30 ? "left" : "right", "an integer in [0, 30], and 0 where the other one is not");
    return check_integer_blocks(c, g, in_channels, out_channels);
}

#define INTEGER_CONV2D(A, S)                                                                                           \
    A(S, I32, values, "CHVL", IN)                                                                                      \
    INTEGER_VALUE_CONV(A, S)                                                                                           \
    A(S, I32, rows, "KIJLQ", OUT)
ARGUMENTS(integer_conv2d, INTEGER_CONV2D)

CHECK(integer_conv2d) {
    return check_integer_value_conv(c, &a->geometry, a->in_channels, a->out_channels, a->left, a->right);
}

OPERATION(integer_conv2d, check_integer_conv2d, RETURNS_NOTHING) {
    return dsr_integer_conv2d(a->values, a->packed, a->rows,
                              integer_conv_of(c, a->in_channels, a->out_channels, AXIS(c, 'L'), &a->geometry),
                              a->right ? -(int)a->right : (int)a->left);
}

#define INTEGER_CONV2D_VALUE_NEURON_SPIKES(A, S)                                                                       \
    A(S, I32, values, "CHVSB", IN)                                                                                     \
    INTEGER_VALUE_CONV(A, S)                                                                                           \
    INTEGER_NEURONS(A, S)
ARGUMENTS(integer_conv2d_value_neuron_spikes, INTEGER_CONV2D_VALUE_NEURON_SPIKES)

CHECK(integer_conv2d_value_neuron_spikes) {
    if (AXIS(c, 'S') != 1 && dsr_expect_axis(c, 'S', AXIS(c, 'T'), "those of 'out', or 1") < 0)
        return -1;
    if (check_lanes(c, "out", AXIS(c, 'T')) < 0 ||
        check_integer_value_conv(c, &a->geometry, a->in_channels, a->out_channels, a->left, a->right) < 0)
        return -1;
    return check_neurons(c, a->out_channels, a->shortcut, a->shortcut_weight, a->reset, a->fire, a->decay);
}

OPERATION(integer_conv2d_value_neuron_spikes, check_integer_conv2d_value_neuron_spikes, RETURNS_NOTHING) {
    dsr_after_integer_conv after = {INTEGER_NEURONS_OF(a), .one_step = AXIS(c, 'S') == 1};
    size_t lanes = AXIS(c, 'T') * AXIS(c, 'B');
    return dsr_integer_conv2d_value_neuron_spikes(
        a->values, a->packed, a->out, integer_conv_of(c, a->in_channels, a->out_channels, lanes, &a->geometry),
        AXIS(c, 'T'), a->right ? -(int)a->right : (int)a->left, after);
}
