/* One entry per operation: what its arguments are, what ties their axes together, and the call itself. */
#include "bind.h"

static size_t words_of(size_t channels) {
    return channels / DSR_WORD + (channels % DSR_WORD != 0);
}

static dsr_time time_of(const dsr_call *call, size_t tau) {
    return (dsr_time){call->value[tau].number, call->value[tau + 1].number};
}

/* ---- time first ------------------------------------------------------------------------------------------------ */
static const dsr_arg IF_FORWARD[] = {{"current", ARG_REAL, "TN", ARG_IN},
                                     {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                     {"alpha", ARG_ALPHA, NULL, ARG_IN},
                                     {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_if_forward(dsr_call *c) {
    return dsr_if_forward(c->dtype, c->value[0].data, c->value[3].data, AXIS(c, 'T'), AXIS(c, 'N'), c->value[1].number,
                          c->value[2].number);
}

static const dsr_arg LIF_FORWARD[] = {{"current", ARG_REAL, "TN", ARG_IN}, {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                      {"tau", ARG_POSITIVE, NULL, ARG_IN}, {"delta_t", ARG_POSITIVE, NULL, ARG_IN},
                                      {"alpha", ARG_ALPHA, NULL, ARG_IN},  {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_lif_forward(dsr_call *c) {
    return dsr_lif_forward(c->dtype, c->value[0].data, c->value[5].data, AXIS(c, 'T'), AXIS(c, 'N'), c->value[1].number,
                           time_of(c, 2), c->value[4].number);
}

static const dsr_arg FIRING_RATE[] = {{"train", ARG_REAL, "TN", ARG_IN}, {"out", ARG_REAL, "N", ARG_OUT}};

static dsr_status run_firing_rate(dsr_call *c) {
    return dsr_firing_rate(c->dtype, c->value[0].data, c->value[1].data, AXIS(c, 'T'), AXIS(c, 'N'));
}

static const dsr_arg WEIGHTED_FIRING_RATE[] = {{"train", ARG_REAL, "TN", ARG_IN},
                                               {"tau", ARG_POSITIVE, NULL, ARG_IN},
                                               {"delta_t", ARG_POSITIVE, NULL, ARG_IN},
                                               {"out", ARG_REAL, "N", ARG_OUT}};

static dsr_status run_weighted_firing_rate(dsr_call *c) {
    return dsr_weighted_firing_rate(c->dtype, c->value[0].data, c->value[3].data, AXIS(c, 'T'), AXIS(c, 'N'),
                                    time_of(c, 1));
}

static const dsr_arg IF_RATE[] = {{"mean_current", ARG_REAL, "N", ARG_IN},
                                  {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                  {"out", ARG_REAL, "N", ARG_OUT}};

static dsr_status run_if_rate(dsr_call *c) {
    return dsr_if_rate(c->dtype, c->value[0].data, c->value[2].data, AXIS(c, 'N'), c->value[1].number);
}

static const dsr_arg LIF_RATE[] = {{"mean_current", ARG_REAL, "N", ARG_IN},
                                   {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                   {"tau", ARG_POSITIVE, NULL, ARG_IN},
                                   {"delta_t", ARG_POSITIVE, NULL, ARG_IN},
                                   {"out", ARG_REAL, "N", ARG_OUT}};

static dsr_status run_lif_rate(dsr_call *c) {
    return dsr_lif_rate(c->dtype, c->value[0].data, c->value[4].data, AXIS(c, 'N'), c->value[1].number, time_of(c, 2));
}

static const dsr_arg IF_BACKWARD[] = {{"grad_output", ARG_REAL, "TN", ARG_IN},
                                      {"current", ARG_REAL, "TN", ARG_IN},
                                      {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                      {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_if_backward(dsr_call *c) {
    return dsr_if_backward(c->dtype, c->value[0].data, c->value[1].data, c->value[3].data, &c->result, AXIS(c, 'T'),
                           AXIS(c, 'N'), c->value[2].number);
}

static const dsr_arg LIF_BACKWARD[] = {{"grad_output", ARG_REAL, "TN", ARG_IN},     {"current", ARG_REAL, "TN", ARG_IN},
                                       {"v_threshold", ARG_POSITIVE, NULL, ARG_IN}, {"tau", ARG_POSITIVE, NULL, ARG_IN},
                                       {"delta_t", ARG_POSITIVE, NULL, ARG_IN},     {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_lif_backward(dsr_call *c) {
    return dsr_lif_backward(c->dtype, c->value[0].data, c->value[1].data, c->value[5].data, &c->result, AXIS(c, 'T'),
                            AXIS(c, 'N'), c->value[2].number, time_of(c, 3));
}

static const dsr_arg IF_RATE_BACKWARD[] = {{"grad_rate", ARG_REAL, "N", ARG_IN},
                                           {"mean_current", ARG_REAL, "N", ARG_IN},
                                           {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                           {"divisor", ARG_POSITIVE, NULL, ARG_IN},
                                           {"out", ARG_REAL, "N", ARG_OUT}};

static dsr_status run_if_rate_backward(dsr_call *c) {
    return dsr_if_rate_backward(c->dtype, c->value[0].data, c->value[1].data, c->value[4].data, &c->result,
                                AXIS(c, 'N'), c->value[2].number, c->value[3].number);
}

static const dsr_arg LIF_RATE_BACKWARD[] = {{"grad_rate", ARG_REAL, "N", ARG_IN},
                                            {"mean_current", ARG_REAL, "N", ARG_IN},
                                            {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                            {"tau", ARG_POSITIVE, NULL, ARG_IN},
                                            {"delta_t", ARG_POSITIVE, NULL, ARG_IN},
                                            {"divisor", ARG_POSITIVE, NULL, ARG_IN},
                                            {"out", ARG_REAL, "N", ARG_OUT}};

static dsr_status run_lif_rate_backward(dsr_call *c) {
    return dsr_lif_rate_backward(c->dtype, c->value[0].data, c->value[1].data, c->value[6].data, &c->result,
                                 AXIS(c, 'N'), c->value[2].number, time_of(c, 3), c->value[5].number);
}

static const dsr_arg ENCODE_BERNOULLI[] = {
    {"rate", ARG_REAL, "N", ARG_IN}, {"seed", ARG_SEED, NULL, ARG_IN}, {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_encode_bernoulli(dsr_call *c) {
    return dsr_encode_bernoulli(c->dtype, c->value[0].data, c->value[2].data, AXIS(c, 'T'), AXIS(c, 'N'),
                                c->value[1].seed);
}

static const dsr_arg ENCODE_LATENCY[] = {{"value", ARG_REAL, "N", ARG_IN}, {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_encode_latency(dsr_call *c) {
    return dsr_encode_latency(c->dtype, c->value[0].data, c->value[1].data, AXIS(c, 'T'), AXIS(c, 'N'));
}

static const dsr_arg ENCODE_PHASE[] = {
    {"value", ARG_REAL, "N", ARG_IN}, {"bits", ARG_COUNT, NULL, ARG_IN}, {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_encode_phase(dsr_call *c) {
    return dsr_encode_phase(c->dtype, c->value[0].data, c->value[2].data, AXIS(c, 'T'), AXIS(c, 'N'), c->value[1].size);
}

static const dsr_arg ENCODE_DELTA[] = {
    {"signal", ARG_REAL, "TN", ARG_IN}, {"threshold", ARG_POSITIVE, NULL, ARG_IN}, {"out", ARG_REAL, "TN", ARG_OUT}};

static dsr_status run_encode_delta(dsr_call *c) {
    return dsr_encode_delta(c->dtype, c->value[0].data, c->value[2].data, AXIS(c, 'T'), AXIS(c, 'N'),
                            c->value[1].number);
}

/* ---- lanes ------------------------------------------------------------------------------------------------------ */
static const dsr_arg IF_SPIKES[] = {
    {"current", ARG_F32, "CPSB", ARG_IN}, {"scale", ARG_F32, "C", ARG_MAYBE},
    {"shift", ARG_F32, "C", ARG_MAYBE},   {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
    {"alpha", ARG_ALPHA, NULL, ARG_IN},   {"words", ARG_U32, "WPTB", ARG_OUT},
    {"sums", ARG_F32, "CPB", ARG_OUT},
};

static dsr_lanes lanes_of(const dsr_call *c) {
    return (dsr_lanes){AXIS(c, 'C'), AXIS(c, 'P'), AXIS(c, 'T'), AXIS(c, 'B')};
}

/* Steps S of the current: T, or 1 where it is the same at every step. */
static int check_spikes(const dsr_call *c, size_t words) {
    if (AXIS(c, 'S') != 1 && dsr_expect_axis(c, 0, 'S', AXIS(c, 'T'), "1, or axis T of 'words'") < 0)
        return -1;
    return dsr_expect_axis(c, words, 'W', words_of(AXIS(c, 'C')), "32 channels a word");
}

static int check_if_spikes(const dsr_call *c) {
    return check_spikes(c, 5);
}

static dsr_status run_if_spikes(dsr_call *c) {
    return dsr_if_spikes(c->value[0].data, c->value[1].data, c->value[2].data, c->value[5].data, c->value[6].data,
                         lanes_of(c), AXIS(c, 'S') == 1, c->value[3].number, c->value[4].number);
}

static const dsr_arg LIF_SPIKES[] = {
    {"current", ARG_F32, "CPSB", ARG_IN},        {"scale", ARG_F32, "C", ARG_MAYBE},
    {"shift", ARG_F32, "C", ARG_MAYBE},          {"weights", ARG_F32, "T", ARG_IN},
    {"v_threshold", ARG_POSITIVE, NULL, ARG_IN}, {"tau", ARG_POSITIVE, NULL, ARG_IN},
    {"delta_t", ARG_POSITIVE, NULL, ARG_IN},     {"alpha", ARG_ALPHA, NULL, ARG_IN},
    {"words", ARG_U32, "WPTB", ARG_OUT},         {"sums", ARG_F32, "CPB", ARG_OUT},
    {"weighted", ARG_F32, "CPB", ARG_OUT},
};

static int check_lif_spikes(const dsr_call *c) {
    return check_spikes(c, 8);
}

static dsr_status run_lif_spikes(dsr_call *c) {
    return dsr_lif_spikes(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].data, c->value[8].data,
                          c->value[9].data, c->value[10].data, lanes_of(c), AXIS(c, 'S') == 1, c->value[4].number,
                          time_of(c, 5), c->value[7].number);
}

static const dsr_arg IF_SPIKES_BACKWARD[] = {
    {"grad", ARG_F32, "CN", ARG_IN},        {"sums", ARG_F32, "CN", ARG_IN},
    {"scale", ARG_F32, "C", ARG_MAYBE},     {"shift", ARG_F32, "C", ARG_MAYBE},
    {"timesteps", ARG_COUNT, NULL, ARG_IN}, {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
    {"out", ARG_F32, "CN", ARG_OUT},
};

static dsr_status run_if_spikes_backward(dsr_call *c) {
    return dsr_if_spikes_backward(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].data,
                                  c->value[6].data, &c->result, AXIS(c, 'C'), AXIS(c, 'N'), c->value[4].size,
                                  c->value[5].number);
}

static const dsr_arg LIF_SPIKES_BACKWARD[] = {
    {"grad", ARG_F32, "CN", ARG_IN},        {"weighted", ARG_F32, "CN", ARG_IN},
    {"scale", ARG_F32, "C", ARG_MAYBE},     {"shift", ARG_F32, "C", ARG_MAYBE},
    {"timesteps", ARG_COUNT, NULL, ARG_IN}, {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
    {"tau", ARG_POSITIVE, NULL, ARG_IN},    {"delta_t", ARG_POSITIVE, NULL, ARG_IN},
    {"out", ARG_F32, "CN", ARG_OUT},
};

static dsr_status run_lif_spikes_backward(dsr_call *c) {
    return dsr_lif_spikes_backward(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].data,
                                   c->value[8].data, &c->result, AXIS(c, 'C'), AXIS(c, 'N'), c->value[4].size,
                                   c->value[5].number, time_of(c, 6));
}

static const dsr_arg PACK_WORDS[] = {{"values", ARG_F32, "CN", ARG_IN}, {"out", ARG_U32, "WN", ARG_OUT}};

static int check_pack_words(const dsr_call *c) {
    return dsr_expect_axis(c, 1, 'W', words_of(AXIS(c, 'C')), "32 channels a word");
}

static dsr_status run_pack_words(dsr_call *c) {
    return dsr_pack_words(c->value[0].data, c->value[1].data, AXIS(c, 'C'), AXIS(c, 'N'));
}

static const dsr_arg TRANSPOSE_WORDS[] = {{"words", ARG_U32, "WPL", ARG_IN}, {"out", ARG_U32, "PKC", ARG_OUT}};

static int check_transpose_words(const dsr_call *c) {
    if (dsr_expect_axis(c, 1, 'K', words_of(AXIS(c, 'L')), "32 lanes a word") < 0)
        return -1;
    return dsr_expect_axis(c, 1, 'C', AXIS(c, 'W') * DSR_WORD, "32 channels a word of 'words'");
}

static dsr_status run_transpose_words(dsr_call *c) {
    return dsr_transpose_words(c->value[0].data, c->value[1].data, AXIS(c, 'W'), AXIS(c, 'P'), AXIS(c, 'L'));
}

static const dsr_arg UNPACK_WORDS[] = {
    {"words", ARG_U32, "WN", ARG_IN}, {"amplitude", ARG_NUMBER, NULL, ARG_IN}, {"out", ARG_F32, "CN", ARG_OUT}};

static int check_unpack_words(const dsr_call *c) {
    return dsr_expect_axis(c, 0, 'W', words_of(AXIS(c, 'C')), "32 channels a word");
}

static dsr_status run_unpack_words(dsr_call *c) {
    return dsr_unpack_words(c->value[0].data, c->value[2].data, AXIS(c, 'C'), AXIS(c, 'N'), c->value[1].number);
}

static dsr_status run_add_words(dsr_call *c) {
    return dsr_add_words(c->value[0].data, c->value[2].data, AXIS(c, 'C'), AXIS(c, 'N'), c->value[1].number);
}

static const dsr_arg COUNT_WORDS[] = {{"words", ARG_U32, "WN", ARG_IN}, {"out", ARG_I64, "C", ARG_OUT}};

static dsr_status run_count_words(dsr_call *c) {
    return dsr_count_words(c->value[0].data, c->value[1].data, AXIS(c, 'C'), AXIS(c, 'N'));
}

static const dsr_arg COUNT_BITS[] = {{"words", ARG_U32, "N", ARG_IN}};

static dsr_status run_count_bits(dsr_call *c) {
    return dsr_count_bits(c->value[0].data, &c->result, AXIS(c, 'N'));
}

static const dsr_arg DROPOUT_WORDS[] = {{"words", ARG_U32, "N", ARG_IN},
                                        {"keep", ARG_CHANCE, NULL, ARG_IN},
                                        {"seed", ARG_SEED, NULL, ARG_IN},
                                        {"out", ARG_U32, "N", ARG_OUT}};

static dsr_status run_dropout_words(dsr_call *c) {
    return dsr_dropout_words(c->value[0].data, c->value[3].data, AXIS(c, 'N'), c->value[2].seed, c->value[1].number);
}

static const dsr_arg MOMENTS[] = {
    {"values", ARG_F32, "CN", ARG_IN}, {"sums", ARG_F64, "C", ARG_OUT}, {"squares", ARG_F64, "C", ARG_OUT}};

static dsr_status run_moments(dsr_call *c) {
    return dsr_moments(c->value[0].data, c->value[1].data, c->value[2].data, AXIS(c, 'C'), AXIS(c, 'N'));
}

static const dsr_arg PRODUCT_MOMENTS[] = {{"a", ARG_F32, "CN", ARG_IN},
                                          {"b", ARG_F32, "CN", ARG_IN},
                                          {"sums", ARG_F64, "C", ARG_OUT},
                                          {"products", ARG_F64, "C", ARG_OUT}};

static dsr_status run_product_moments(dsr_call *c) {
    return dsr_product_moments(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].data, AXIS(c, 'C'),
                               AXIS(c, 'N'));
}

static const dsr_arg EXPAND_GRADIENT[] = {{"constant", ARG_F32, "CPB", ARG_IN},
                                          {"values", ARG_F32, "CPTB", ARG_IN},
                                          {"slope", ARG_F32, "C", ARG_IN},
                                          {"out", ARG_F32, "CPTB", ARG_OUT}};

static dsr_status run_expand_gradient(dsr_call *c) {
    return dsr_expand_gradient(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].data, lanes_of(c));
}

static const dsr_arg AFFINE[] = {{"x", ARG_F32, "CN", ARG_IN}, {"y", ARG_F32, "CN", ARG_MAYBE},
                                 {"a", ARG_F32, "C", ARG_IN},  {"b", ARG_F32, "C", ARG_MAYBE},
                                 {"c", ARG_F32, "C", ARG_IN},  {"out", ARG_F32, "CN", ARG_OUT}};

static int check_affine(const dsr_call *c) {
    if ((c->value[1].data == NULL) != (c->value[3].data == NULL))
        return dsr_refuse(c, 3, "an array where 'y' is one, None where it is None");
    return 0;
}

static dsr_status run_affine(dsr_call *c) {
    return dsr_affine(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].data, c->value[4].data,
                      c->value[5].data, AXIS(c, 'C'), AXIS(c, 'N'));
}

static const dsr_arg WEIGHTED_SUM[] = {
    {"values", ARG_F32, "CPTB", ARG_IN}, {"weights", ARG_F32, "T", ARG_IN}, {"out", ARG_F32, "CPB", ARG_OUT}};

static dsr_status run_weighted_sum(dsr_call *c) {
    return dsr_weighted_sum(c->value[0].data, c->value[1].data, c->value[2].data, lanes_of(c));
}

/* The output has as many elements as windows fit; -1 with ValueError set if not. */
static int check_window(const dsr_call *c, size_t index, char letter, size_t size, size_t kernel, size_t stride,
                        size_t padding) {
    if (size + 2 * padding < kernel)
        return dsr_refuse(c, index, "an image at least as large as the window (with its padding)");
    return dsr_expect_axis(c, index, letter, (size + 2 * padding - kernel) / stride + 1,
                           "(size + 2 padding - kernel) / stride + 1");
}

static const dsr_arg AVG_POOL[] = {{"input", ARG_F32, "CHWL", ARG_IN},
                                   {"kernel_size", ARG_COUNT, NULL, ARG_IN},
                                   {"stride", ARG_COUNT, NULL, ARG_IN},
                                   {"padding", ARG_SIZE, NULL, ARG_IN},
                                   {"out", ARG_F32, "CIJL", ARG_OUT}};

static int check_avg_pool(const dsr_call *c) {
    size_t kernel = c->value[1].size, stride = c->value[2].size, padding = c->value[3].size;
    if (padding > kernel / 2)
        return dsr_refuse(c, 3, "at most half the kernel size");
    return check_window(c, 4, 'I', AXIS(c, 'H'), kernel, stride, padding) ||
                   check_window(c, 4, 'J', AXIS(c, 'W'), kernel, stride, padding)
               ? -1
               : 0;
}

static dsr_pool pool_of(const dsr_call *c) {
    return (dsr_pool){AXIS(c, 'C'),     AXIS(c, 'H'),     AXIS(c, 'W'), AXIS(c, 'L'), c->value[1].size,
                      c->value[2].size, c->value[3].size, AXIS(c, 'I'), AXIS(c, 'J')};
}

static dsr_status run_avg_pool(dsr_call *c) {
    return dsr_avg_pool(c->value[0].data, c->value[4].data, pool_of(c));
}

static const dsr_arg POOL_PLANES[] = {{"words", ARG_U32, "CHWL", ARG_IN},
                                      {"kernel_size", ARG_COUNT, NULL, ARG_IN},
                                      {"stride", ARG_COUNT, NULL, ARG_IN},
                                      {"padding", ARG_SIZE, NULL, ARG_IN},
                                      {"out", ARG_U32, "KCIJL", ARG_OUT}};

static int check_pool_planes(const dsr_call *c) {
    size_t most = c->value[1].size * c->value[1].size, digits = 0;
    while (most >> digits)
        digits++;
    if (dsr_expect_axis(c, 4, 'K', digits, "binary digits of kernel_size**2") < 0)
        return -1;
    return check_avg_pool(c);
}

static dsr_status run_pool_planes(dsr_call *c) {
    return dsr_pool_planes(c->value[0].data, c->value[4].data, AXIS(c, 'K'), pool_of(c));
}

static const dsr_arg AVG_POOL_BACKWARD[] = {{"grad_output", ARG_F32, "CIJL", ARG_IN},
                                            {"kernel_size", ARG_COUNT, NULL, ARG_IN},
                                            {"stride", ARG_COUNT, NULL, ARG_IN},
                                            {"padding", ARG_SIZE, NULL, ARG_IN},
                                            {"out", ARG_F32, "CHWL", ARG_OUT}};

static dsr_status run_avg_pool_backward(dsr_call *c) {
    return dsr_avg_pool_backward(c->value[0].data, c->value[4].data, pool_of(c));
}

static const dsr_arg CONV2D[] = {{"input", ARG_F32, "CHWL", ARG_IN},  {"weight", ARG_F32, "OCYX", ARG_IN},
                                 {"bias", ARG_F32, "O", ARG_MAYBE},   {"stride", ARG_COUNT, NULL, ARG_IN},
                                 {"padding", ARG_SIZE, NULL, ARG_IN}, {"out", ARG_F32, "OIJL", ARG_OUT}};

/* width: the letter of the input's last axis but lanes. */
static int check_conv(const dsr_call *c, char width, size_t stride, size_t output) {
    size_t s = c->value[stride].size, padding = c->value[stride + 1].size;
    size_t y = AXIS(c, 'Y'), x = AXIS(c, 'X');
    if (y == 0 || x == 0)
        return dsr_refuse(c, 1, "a kernel of at least 1x1");
    if (check_window(c, output, 'I', AXIS(c, 'H'), y, s, padding) ||
        check_window(c, output, 'J', AXIS(c, width), x, s, padding))
        return -1;
    /* what BLAS counts with 32-bit integers; 64-bit products of 31-bit factors cannot wrap when taken one by one */
    const size_t most = 0x7fffffff;
    size_t factor[2][4] = {{AXIS(c, 'I'), AXIS(c, 'J'), AXIS(c, 'L'), 1}, {AXIS(c, 'C') + AXIS(c, 'O'), y, x, 1}};
    for (int i = 0; i < 2; i++) {
        size_t product = 1;
        for (int j = 0; j < 4; j++) {
            if (factor[i][j] && product > most / factor[i][j])
                return dsr_refuse(c, 0, "fewer than 2**31 elements a channel, and a patch");
            product *= factor[i][j];
        }
    }
    return 0;
}

static int check_conv2d(const dsr_call *c) {
    return check_conv(c, 'W', 3, 5);
}

static dsr_conv conv_of(const dsr_call *c, char width, size_t lanes, size_t stride) {
    return (dsr_conv){.in_channels = AXIS(c, 'C'),
                      .out_channels = AXIS(c, 'O'),
                      .height = AXIS(c, 'H'),
                      .width = AXIS(c, width),
                      .kernel_h = AXIS(c, 'Y'),
                      .kernel_w = AXIS(c, 'X'),
                      .stride = c->value[stride].size,
                      .padding = c->value[stride + 1].size,
                      .lanes = lanes,
                      .out_height = AXIS(c, 'I'),
                      .out_width = AXIS(c, 'J')};
}

static dsr_status run_conv2d(dsr_call *c) {
    return dsr_conv2d(c->value[0].data, c->value[1].data, c->value[2].data, c->value[5].data,
                      conv_of(c, 'W', AXIS(c, 'L'), 3));
}

static const dsr_arg CONV2D_INPUT_GRADIENT[] = {{"grad_output", ARG_F32, "OIJL", ARG_IN},
                                                {"weight", ARG_F32, "OCYX", ARG_IN},
                                                {"stride", ARG_COUNT, NULL, ARG_IN},
                                                {"padding", ARG_SIZE, NULL, ARG_IN},
                                                {"out", ARG_F32, "CHWL", ARG_OUT}};

static int check_conv2d_input_gradient(const dsr_call *c) {
    return check_conv(c, 'W', 2, 0);
}

static dsr_status run_conv2d_input_gradient(dsr_call *c) {
    return dsr_conv2d_input_gradient(c->value[0].data, c->value[1].data, c->value[4].data,
                                     conv_of(c, 'W', AXIS(c, 'L'), 2));
}

static const dsr_arg CONV2D_WEIGHT_GRADIENT[] = {{"grad_output", ARG_F32, "OIJL", ARG_IN},
                                                 {"input", ARG_F32, "CHWL", ARG_IN},
                                                 {"stride", ARG_COUNT, NULL, ARG_IN},
                                                 {"padding", ARG_SIZE, NULL, ARG_IN},
                                                 {"out", ARG_F32, "OCYX", ARG_OUT}};

static dsr_status run_conv2d_weight_gradient(dsr_call *c) {
    return dsr_conv2d_weight_gradient(c->value[0].data, c->value[1].data, c->value[4].data,
                                      conv_of(c, 'W', AXIS(c, 'L'), 2));
}

static const dsr_arg CONV2D_SPIKES[] = {{"words", ARG_U32, "WHVL", ARG_IN},  {"weight", ARG_F32, "OCYX", ARG_IN},
                                        {"bias", ARG_F32, "O", ARG_MAYBE},   {"amplitude", ARG_NUMBER, NULL, ARG_IN},
                                        {"stride", ARG_COUNT, NULL, ARG_IN}, {"padding", ARG_SIZE, NULL, ARG_IN},
                                        {"group", ARG_COUNT, NULL, ARG_IN},  {"accumulate", ARG_SIZE, NULL, ARG_IN},
                                        {"out", ARG_F32, "OIJL", ARG_OUT}};

static int check_group(const dsr_call *c, size_t index) {
    size_t group = c->value[index].size;
    if (group != 1 && group != 2 && group != 4)
        return dsr_refuse(c, index, "1, 2 or 4");
    if (AXIS(c, 'Y') * AXIS(c, 'X') > DSR_MOST_TAPS / group)
        return dsr_refuse(c, index, "at most 121 taps of the kernel divided by the group");
    return 0;
}

static int check_conv2d_spikes(const dsr_call *c) {
    if (dsr_expect_axis(c, 0, 'W', words_of(AXIS(c, 'C')), "32 channels a word") < 0 || check_conv(c, 'V', 4, 8) < 0)
        return -1;
    return check_group(c, 6);
}

static dsr_status run_conv2d_spikes(dsr_call *c) {
    return dsr_conv2d_spikes(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].number, c->value[8].data,
                             conv_of(c, 'V', AXIS(c, 'L'), 4), (unsigned)c->value[6].size, c->value[7].size != 0);
}

static const dsr_arg CONV2D_IF_SPIKES[] = {{"words", ARG_U32, "WHVTB", ARG_IN},
                                           {"weight", ARG_F32, "OCYX", ARG_IN},
                                           {"bias", ARG_F32, "O", ARG_MAYBE},
                                           {"amplitude", ARG_NUMBER, NULL, ARG_IN},
                                           {"stride", ARG_COUNT, NULL, ARG_IN},
                                           {"padding", ARG_SIZE, NULL, ARG_IN},
                                           {"group", ARG_COUNT, NULL, ARG_IN},
                                           {"shortcut", ARG_U32, "KIJTB", ARG_MAYBE},
                                           {"shortcut_amplitude", ARG_NUMBER, NULL, ARG_IN},
                                           {"scale", ARG_F32, "O", ARG_MAYBE},
                                           {"shift", ARG_F32, "O", ARG_MAYBE},
                                           {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                           {"alpha", ARG_ALPHA, NULL, ARG_IN},
                                           {"out", ARG_U32, "KIJTB", ARG_OUT}};

static const dsr_arg CONV2D_LIF_SPIKES[] = {{"words", ARG_U32, "WHVTB", ARG_IN},
                                            {"weight", ARG_F32, "OCYX", ARG_IN},
                                            {"bias", ARG_F32, "O", ARG_MAYBE},
                                            {"amplitude", ARG_NUMBER, NULL, ARG_IN},
                                            {"stride", ARG_COUNT, NULL, ARG_IN},
                                            {"padding", ARG_SIZE, NULL, ARG_IN},
                                            {"group", ARG_COUNT, NULL, ARG_IN},
                                            {"shortcut", ARG_U32, "KIJTB", ARG_MAYBE},
                                            {"shortcut_amplitude", ARG_NUMBER, NULL, ARG_IN},
                                            {"scale", ARG_F32, "O", ARG_MAYBE},
                                            {"shift", ARG_F32, "O", ARG_MAYBE},
                                            {"v_threshold", ARG_POSITIVE, NULL, ARG_IN},
                                            {"tau", ARG_POSITIVE, NULL, ARG_IN},
                                            {"delta_t", ARG_POSITIVE, NULL, ARG_IN},
                                            {"alpha", ARG_ALPHA, NULL, ARG_IN},
                                            {"out", ARG_U32, "KIJTB", ARG_OUT}};

static int check_conv2d_neuron(const dsr_call *c, size_t output) {
    if (AXIS(c, 'B') && AXIS(c, 'T') > 0x7fffffff / AXIS(c, 'B'))
        return dsr_refuse(c, 0, "fewer than 2**31 lanes");
    if (dsr_expect_axis(c, 0, 'W', words_of(AXIS(c, 'C')), "32 channels a word") < 0 ||
        dsr_expect_axis(c, output, 'K', words_of(AXIS(c, 'O')), "32 channels a word") < 0 ||
        check_conv(c, 'V', 4, output) < 0)
        return -1;
    return check_group(c, 6);
}

static int check_conv2d_if_spikes(const dsr_call *c) {
    return check_conv2d_neuron(c, 13);
}

static int check_conv2d_lif_spikes(const dsr_call *c) {
    return check_conv2d_neuron(c, 15);
}

static dsr_status run_conv2d_neuron(const dsr_call *c, size_t alpha, dsr_conv_neuron neuron) {
    neuron.shortcut = c->value[7].data;
    neuron.shortcut_amplitude = c->value[8].number;
    neuron.scale = c->value[9].data;
    neuron.shift = c->value[10].data;
    neuron.v_threshold = c->value[11].number;
    neuron.alpha = c->value[alpha].number;
    return dsr_conv2d_neuron(c->value[0].data, c->value[1].data, c->value[2].data, c->value[3].number,
                             c->value[alpha + 1].data, conv_of(c, 'V', AXIS(c, 'T') * AXIS(c, 'B'), 4), AXIS(c, 'T'),
                             (unsigned)c->value[6].size, neuron);
}

static dsr_status run_conv2d_if_spikes(dsr_call *c) {
    return run_conv2d_neuron(c, 12, (dsr_conv_neuron){.leaky = 0});
}

static dsr_status run_conv2d_lif_spikes(dsr_call *c) {
    return run_conv2d_neuron(c, 14, (dsr_conv_neuron){.leaky = 1, .time = time_of(c, 12)});
}

static const dsr_arg CONV2D_SPIKES_WEIGHT_GRADIENT[] = {
    {"constant", ARG_F32, "OIJB", ARG_IN},   {"slope", ARG_F32, "O", ARG_MAYBE},
    {"values", ARG_F32, "OIJTB", ARG_MAYBE}, {"transposed", ARG_U32, "HVKN", ARG_IN},
    {"timesteps", ARG_COUNT, NULL, ARG_IN},  {"amplitude", ARG_NUMBER, NULL, ARG_IN},
    {"stride", ARG_COUNT, NULL, ARG_IN},     {"padding", ARG_SIZE, NULL, ARG_IN},
    {"group", ARG_COUNT, NULL, ARG_IN},      {"out", ARG_F32, "OCYX", ARG_OUT}};

static int check_conv2d_spikes_weight_gradient(const dsr_call *c) {
    size_t timesteps = c->value[4].size;
    if ((c->value[1].data == NULL) != (c->value[2].data == NULL))
        return dsr_refuse(c, 1, "an array where 'values' is one, None where it is None");
    if (c->value[2].data && dsr_expect_axis(c, 2, 'T', timesteps, "argument 'timesteps'") < 0)
        return -1;
    if (AXIS(c, 'B') && timesteps > 0x7fffffff / AXIS(c, 'B'))
        return dsr_refuse(c, 4, "fewer than 2**31 lanes");
    if (dsr_expect_axis(c, 3, 'K', words_of(timesteps * AXIS(c, 'B')), "32 lanes a word") < 0 ||
        dsr_expect_axis(c, 3, 'N', words_of(AXIS(c, 'C')) * DSR_WORD, "32 channels a word") < 0 ||
        check_conv(c, 'V', 6, 0) < 0)
        return -1;
    return check_group(c, 8);
}

static dsr_status run_conv2d_spikes_weight_gradient(dsr_call *c) {
    dsr_gradient gradient = {.constant = c->value[0].data, .slope = c->value[1].data, .values = c->value[2].data};
    return dsr_conv2d_spikes_weight_gradient(gradient, c->value[3].data, c->value[5].number, c->value[9].data,
                                             conv_of(c, 'V', c->value[4].size * AXIS(c, 'B'), 6), AXIS(c, 'B'),
                                             (unsigned)c->value[8].size);
}

/* value and buffer are changed in place: outputs that are read, too. */
static const dsr_arg SGD_UPDATE[] = {
    {"value", ARG_F32, "N", ARG_OUT},       {"grad", ARG_F32, "N", ARG_IN},
    {"buffer", ARG_F32, "N", ARG_OUT},      {"learning_rate", ARG_NUMBER, NULL, ARG_IN},
    {"momentum", ARG_CHANCE, NULL, ARG_IN}, {"weight_decay", ARG_NUMBER, NULL, ARG_IN},
    {"nesterov", ARG_SIZE, NULL, ARG_IN},   {"first", ARG_SIZE, NULL, ARG_IN}};

static dsr_status run_sgd_update(dsr_call *c) {
    dsr_sgd sgd = {.learning_rate = (float)c->value[3].number,
                   .momentum = (float)c->value[4].number,
                   .weight_decay = (float)c->value[5].number,
                   .nesterov = c->value[6].size != 0,
                   .first = c->value[7].size != 0};
    return dsr_sgd_update(c->value[0].data, c->value[1].data, c->value[2].data, AXIS(c, 'N'), sgd);
}

#define ENTRY(name, table, check, returns)                                                                             \
    { #name, table, sizeof table / sizeof *table, check, run_##name, returns }

const dsr_entry dsr_entries[] = {
    ENTRY(if_forward, IF_FORWARD, NULL, 0),
    ENTRY(lif_forward, LIF_FORWARD, NULL, 0),
    ENTRY(firing_rate, FIRING_RATE, NULL, 0),
    ENTRY(weighted_firing_rate, WEIGHTED_FIRING_RATE, NULL, 0),
    ENTRY(if_rate, IF_RATE, NULL, 0),
    ENTRY(lif_rate, LIF_RATE, NULL, 0),
    ENTRY(if_backward, IF_BACKWARD, NULL, 1),
    ENTRY(lif_backward, LIF_BACKWARD, NULL, 1),
    ENTRY(if_rate_backward, IF_RATE_BACKWARD, NULL, 1),
    ENTRY(lif_rate_backward, LIF_RATE_BACKWARD, NULL, 1),
    ENTRY(encode_bernoulli, ENCODE_BERNOULLI, NULL, 0),
    ENTRY(encode_latency, ENCODE_LATENCY, NULL, 0),
    ENTRY(encode_phase, ENCODE_PHASE, NULL, 0),
    ENTRY(encode_delta, ENCODE_DELTA, NULL, 0),
    ENTRY(if_spikes, IF_SPIKES, check_if_spikes, 0),
    ENTRY(lif_spikes, LIF_SPIKES, check_lif_spikes, 0),
    ENTRY(if_spikes_backward, IF_SPIKES_BACKWARD, NULL, 1),
    ENTRY(lif_spikes_backward, LIF_SPIKES_BACKWARD, NULL, 1),
    ENTRY(pack_words, PACK_WORDS, check_pack_words, 0),
    ENTRY(transpose_words, TRANSPOSE_WORDS, check_transpose_words, 0),
    ENTRY(sgd_update, SGD_UPDATE, NULL, 0),
    ENTRY(unpack_words, UNPACK_WORDS, check_unpack_words, 0),
    ENTRY(add_words, UNPACK_WORDS, check_unpack_words, 0),
    ENTRY(count_words, COUNT_WORDS, check_unpack_words, 0),
    ENTRY(count_bits, COUNT_BITS, NULL, 1),
    ENTRY(dropout_words, DROPOUT_WORDS, NULL, 0),
    ENTRY(moments, MOMENTS, NULL, 0),
    ENTRY(product_moments, PRODUCT_MOMENTS, NULL, 0),
    ENTRY(expand_gradient, EXPAND_GRADIENT, NULL, 0),
    ENTRY(affine, AFFINE, check_affine, 0),
    ENTRY(weighted_sum, WEIGHTED_SUM, NULL, 0),
    ENTRY(pool_planes, POOL_PLANES, check_pool_planes, 0),
    ENTRY(avg_pool, AVG_POOL, check_avg_pool, 0),
    ENTRY(avg_pool_backward, AVG_POOL_BACKWARD, check_avg_pool, 0),
    ENTRY(conv2d, CONV2D, check_conv2d, 0),
    ENTRY(conv2d_input_gradient, CONV2D_INPUT_GRADIENT, check_conv2d_input_gradient, 0),
    ENTRY(conv2d_spikes, CONV2D_SPIKES, check_conv2d_spikes, 0),
    ENTRY(conv2d_if_spikes, CONV2D_IF_SPIKES, check_conv2d_if_spikes, 0),
    ENTRY(conv2d_lif_spikes, CONV2D_LIF_SPIKES, check_conv2d_lif_spikes, 0),
    ENTRY(conv2d_spikes_weight_gradient, CONV2D_SPIKES_WEIGHT_GRADIENT, check_conv2d_spikes_weight_gradient, 0),
    ENTRY(conv2d_weight_gradient, CONV2D_WEIGHT_GRADIENT, check_conv2d_input_gradient, 0),
};

const size_t dsr_entry_count = sizeof dsr_entries / sizeof *dsr_entries;
