/* Reads the steps of models. */
#include "reader.h"

#include <math.h>

enum { LARGEST_COUNT = 1 << 12 /* spikes that a pixel of a pool counts */ };

uint32_t read_word(reader *r, uint32_t least, uint32_t most, const char *what) {
    if (r->at >= r->count)
        require(r, 0, "is cut short");
    else if (r->words[r->at] < least || r->words[r->at] > most)
        require(r, 0, what);
    return r->bad ? least : r->words[r->at++];
}

int read_flag(reader *r) {
    return (int)read_word(r, 0, 1, "has a flag that is not 0 or 1");
}

static int32_t as_signed(uint32_t word) {
    return word < 0x80000000u ? (int32_t)word : (int32_t)(word - 0x80000000u) + INT32_MIN;
}

int32_t read_signed(reader *r, int32_t least, int32_t most, const char *what) {
    const int32_t number = as_signed(read_word(r, 0, 0xffffffffu, what));
    require(r, number >= least && number <= most, what);
    return r->bad ? least : number;
}

const uint32_t *read_words(reader *r, size_t count) {
    require(r, count <= MOST_NUMBERS, "has more numbers in an array than this library takes"); /* see `multiply` */
    require(r, count <= r->count - r->at, "is cut short");
    if (r->bad)
        return NULL;
    r->at += count;
    return r->words + r->at - count;
}

const int32_t *read_integers(reader *r, size_t count, int32_t least, int32_t most, const char *what) {
    const int32_t *values = (const int32_t *)(const void *)read_words(r, count);
    for (size_t i = 0; values && i < count; i++)
        require(r, values[i] >= least && values[i] <= most, what);
    return r->bad ? NULL : values;
}

const float *read_floats(reader *r, size_t count, int positive, const char *what) {
    const float *values = (const float *)(const void *)read_words(r, count);
    for (size_t i = 0; values && i < count; i++)
        require(r, isfinite(values[i]) && (!positive || values[i] > 0), what);
    return r->bad ? NULL : values;
}

static void require_shape(reader *r, const model_step *step, size_t channels, size_t height, size_t width) {
    require(r, step->channels == channels && step->height == height && step->width == width,
            "does not give the shape that it says");
}

/* Windows of one direction; the number of outputs is computed. */
static dsr_conv_axis read_axis(size_t size, const uint32_t *kernel, const uint32_t *stride, const uint32_t *before,
                               const uint32_t *after, const uint32_t *dilation, const uint32_t *spread) {
    const size_t reach = (size_t)*dilation * (*kernel - 1), line = (size - 1) * *spread + 1 + *before + *after;
    return (dsr_conv_axis){.size = size,
                           .taps = *kernel,
                           .out = line > reach ? (line - reach - 1) / *stride + 1 : 0,
                           .stride = *stride,
                           .dilation = *dilation,
                           .spread = *spread,
                           .before = *before};
}

dsr_conv read_geometry(reader *r, const model_step *step, const model_step *from) {
    /* kernel, stride (y, x), padding (top, bottom, left, right), dilation, spread, groups */
    uint32_t g[13];
    for (int i = 0; i < 13; i++)
        g[i] = read_word(r, i >= 4 && i < 8 ? 0 : 1, i == 12 ? MOST_SIDE : MOST_WINDOW, "has windows out of range");
    const dsr_conv c = {.y = read_axis(from->height, g, g + 2, g + 4, g + 5, g + 8, g + 10),
                        .x = read_axis(from->width, g + 1, g + 3, g + 6, g + 7, g + 9, g + 11),
                        .in_channels = from->channels,
                        .out_channels = step->channels,
                        .groups = g[12]};
    const int spreads = c.y.spread > 1 || c.x.spread > 1;
    require(r, !spreads || (c.y.stride == 1 && c.x.stride == 1), "has both a stride and a spread");
    require(r, !spreads || (c.y.before <= (c.y.taps - 1) * c.y.dilation && c.x.before <= (c.x.taps - 1) * c.x.dilation),
            "has more padding than its kernel reaches");
    require(r, from->channels % c.groups == 0 && step->channels % c.groups == 0, "has groups that do not divide");
    require_shape(r, step, step->channels, c.y.out, c.x.out);
    return c;
}

static void read_convolution(reader *r, model_step *step, const model_step *from) {
    step->conv = read_geometry(r, step, from);
    const int has_bias = read_flag(r);
    if (r->bad)
        return;
    require(r, step->amplitudes == 0, "gives spikes, which it cannot");
    const size_t taps = multiply(step->conv.y.taps, step->conv.x.taps);
    step->weight = read_floats(r, multiply(multiply(step->channels, from->channels / step->conv.groups), taps), 0,
                               "has weights that are not finite");
    if (has_bias)
        step->bias = read_floats(r, step->channels, 0, "has biases that are not finite");
}

static void read_sum(reader *r, model_step *step) {
    const int has_bias = read_flag(r);
    step->factors = read_floats(r, multiply(step->input_count, step->channels), 0, "has factors that are not finite");
    if (has_bias)
        step->bias = read_floats(r, step->channels, 0, "has biases that are not finite");
    require(r, step->amplitudes == 0, "gives spikes, which it cannot");
}

static size_t pooled(size_t size, size_t kernel, size_t stride, size_t padding) {
    return size + 2 * padding < kernel ? 0 : (size + 2 * padding - kernel) / stride + 1;
}

static void read_pool(reader *r, model_step *step, const model_step *from) {
    uint32_t w[6]; /* kernel, stride, padding */
    for (int i = 0; i < 6; i++)
        w[i] = read_word(r, i < 4, MOST_SIDE, "has windows out of range");
    require(r, w[4] <= w[0] / 2 && w[5] <= w[1] / 2, "has more padding than half a window");
    if (r->bad)
        return;
    step->pool = (dsr_pool){.channels = step->channels,
                            .height = from->height,
                            .width = from->width,
                            .kernel_h = w[0],
                            .kernel_w = w[1],
                            .stride_h = w[2],
                            .stride_w = w[3],
                            .padding_h = w[4],
                            .padding_w = w[5],
                            .out_height = pooled(from->height, w[0], w[2], w[4]),
                            .out_width = pooled(from->width, w[1], w[3], w[5])};
    require_shape(r, step, from->channels, step->pool.out_height, step->pool.out_width);
    if (step->kind == STEP_AVERAGE_POOL || (step->kind == STEP_MAX_POOL && !from->amplitudes)) {
        require(r, step->amplitudes == 0, "confuses values and spikes");
        return;
    }
    require(r, step->amplitudes > 0 && from->amplitudes > 0 && from->planes == 1, "pools what is not spikes");
    if (step->kind == STEP_COUNT_POOL) {
        require(r, multiply(w[0], w[1]) <= LARGEST_COUNT, "counts in windows that are too large");
        step->most = (int32_t)(w[0] * w[1]);
    }
}

static void read_neurons(reader *r, model_step *step) {
    const float *numbers = read_floats(r, 2, 1, "has a decay or gain that is not above 0");
    step->thresholds = read_word(r, 1, MOST_SIDE, "has thresholds out of range");
    require(r, step->thresholds == 1 || step->thresholds == step->channels, "has thresholds of other channels");
    step->v_threshold = read_floats(r, step->thresholds, 1, "has a threshold that is not above 0");
    step->fire = read_floats(r, step->thresholds, 1, "has a threshold that is not above 0");
    require(r, step->amplitudes > 0, "gives no spikes");
    if (numbers) {
        step->decay = numbers[0];
        step->gain = numbers[1];
    }
}

/* Steps of which inputs and output have the same numbers in other places: spikes give spikes. */
static void require_same_kind(reader *r, const model_step *step, const model_step *steps) {
    uint32_t spikes = 1;
    for (uint32_t i = 0; i < step->input_count; i++)
        spikes = spikes && steps[step->inputs[i]].amplitudes > 0;
    require(r, (step->amplitudes > 0) == (int)spikes, "confuses values and spikes");
}

/* The same where numbers are integers: the data and spikes are not joined, and only spikes are gated and pooled. */
static void require_integers(reader *r, const model_step *step, const model_step *steps) {
    for (uint32_t i = 0; i < step->input_count; i++) {
        const model_step *from = &steps[step->inputs[i]];
        require(r, (from->amplitudes > 0) == (step->amplitudes > 0), "joins the data and spikes");
        require(r, (step->kind != STEP_GATE && step->kind != STEP_MAX_POOL) || (from->amplitudes && from->most == 1),
                "connects what is not spikes");
    }
}

static void read_float_step(reader *r, model_step *step, const model_step *steps) {
    const model_step *from = step->kind == STEP_INPUT ? NULL : &steps[step->inputs[0]];
    size_t channels = 0;
    switch (step->kind) {
    case STEP_CONVOLUTION:
        read_convolution(r, step, from);
        break;
    case STEP_SUM:
        read_sum(r, step);
        break;
    case STEP_AVERAGE_POOL:
    case STEP_MAX_POOL:
    case STEP_COUNT_POOL:
        read_pool(r, step, from);
        break;
    case STEP_UPSAMPLE:
        step->factor_y = read_word(r, 1, MOST_WINDOW, "has factors out of range");
        step->factor_x = read_word(r, 1, MOST_WINDOW, "has factors out of range");
        require_shape(r, step, from->channels, from->height * step->factor_y, from->width * step->factor_x);
        require_same_kind(r, step, steps);
        break;
    case STEP_CONCAT:
        for (uint32_t i = 0; i < step->input_count; i++)
            channels += steps[step->inputs[i]].channels;
        require_shape(r, step, channels, from->height, from->width);
        require_same_kind(r, step, steps);
        break;
    case STEP_FLATTEN:
        require_shape(r, step, step_numbers(from), 1, 1);
        require_same_kind(r, step, steps);
        break;
    case STEP_GATE:
        step->fires = read_flag(r);
        require_same_kind(r, step, steps);
        require(r, step->amplitudes > 0, "gives no spikes");
        break;
    case STEP_NEURONS:
        read_neurons(r, step);
        break;
    default:
        require(r, step->amplitudes == 0, "gives spikes, which it cannot");
    }
}

static size_t shape_numbers(const model_step *step) {
    return multiply(multiply(step->channels, step->height), step->width);
}

static int is_of_integers(const model_step *step) {
    return step->kind >= STEP_INTEGER_INPUT && step->kind != STEP_COUNT_POOL;
}

/* What there may be in a network: of floats, of integers. */
static const unsigned char ALLOWED[2][STEP_KINDS] = {
    {[STEP_CONVOLUTION] = 1,
     [STEP_SUM] = 1,
     [STEP_AVERAGE_POOL] = 1,
     [STEP_MAX_POOL] = 1,
     [STEP_UPSAMPLE] = 1,
     [STEP_CONCAT] = 1,
     [STEP_FLATTEN] = 1,
     [STEP_GATE] = 1,
     [STEP_NEURONS] = 1},
    {[STEP_MAX_POOL] = 1,
     [STEP_UPSAMPLE] = 1,
     [STEP_CONCAT] = 1,
     [STEP_FLATTEN] = 1,
     [STEP_GATE] = 1,
     [STEP_COUNT_POOL] = 1,
     [STEP_INTEGER_NEURONS] = 1,
     [STEP_READ_CURRENT] = 1,
     [STEP_READ_SPIKES] = 1},
};

/* Inputs at most. */
static uint32_t most_inputs(step_kind kind) {
    switch (kind) {
    case STEP_INPUT:
    case STEP_INTEGER_INPUT:
        return 0;
    case STEP_SUM:
    case STEP_CONCAT:
    case STEP_INTEGER_NEURONS:
    case STEP_READ_CURRENT:
        return MOST_STEPS;
    case STEP_GATE:
        return 2;
    default:
        return 1;
    }
}

static void read_kind(reader *r, model_step *step, const model_step *steps, size_t number) {
    const char *unknown = "is of an unknown kind";
    step->kind = (step_kind)read_word(r, 0, STEP_KINDS - 1, unknown);
    if (number == 0)
        require(r, step->kind == STEP_INPUT || step->kind == STEP_INTEGER_INPUT, unknown);
    else
        require(r, ALLOWED[steps[0].kind == STEP_INTEGER_INPUT][step->kind], unknown);
}

void read_step(reader *r, model_step *step, const model_step *steps, size_t number) {
    *step = (model_step){.kind = STEP_INPUT, .most = 1, .planes = 1};
    read_kind(r, step, steps, number);
    const uint32_t most = most_inputs(step->kind);
    step->input_count = read_word(r, most == 2 ? 2 : number > 0, most, "has a wrong number of inputs");
    step->inputs = read_words(r, step->input_count);
    for (uint32_t i = 0; step->inputs && i < step->input_count; i++)
        require(r, step->inputs[i] < number && !steps[step->inputs[i]].unit,
                "reads a step that does not come before it");
    step->channels = read_word(r, 1, MOST_NUMBERS, "has a shape out of range");
    step->height = read_word(r, 1, MOST_SIDE, "has a shape out of range");
    step->width = read_word(r, 1, MOST_SIDE, "has a shape out of range");
    require(r, shape_numbers(step) <= MOST_NUMBERS, "has a shape out of range");
    const int integers = number ? steps[0].kind == STEP_INTEGER_INPUT : step->kind == STEP_INTEGER_INPUT;
    step->amplitudes = read_word(r, 0, integers ? 1 : MOST_NUMBERS, "has amplitudes out of range");
    require(r, step->amplitudes <= 1 || step->amplitudes == step->channels, "has amplitudes of other channels");
    step->amplitude = read_floats(r, step->amplitudes, 1, "has an amplitude that is not above 0");
    if (r->bad)
        return;
    step->steady = step->kind != STEP_NEURONS && step->kind != STEP_INTEGER_NEURONS &&
                   step->kind != STEP_READ_CURRENT && step->kind != STEP_READ_SPIKES;
    for (uint32_t i = 0; i < step->input_count; i++) {
        const model_step *from = &steps[step->inputs[i]];
        step->steady = step->steady && from->steady;
        if (from->most > step->most)
            step->most = from->most;
        if (step->kind == STEP_SUM || step->kind == STEP_GATE || step->kind == STEP_CONCAT ||
            step->kind == STEP_NEURONS)
            require(r,
                    (step->kind == STEP_CONCAT || from->channels == step->channels) && from->height == step->height &&
                        from->width == step->width,
                    "reads signals of another shape");
    }
    if (r->bad)
        return;
    if (is_of_integers(step))
        read_integer_step(r, step, steps);
    else
        read_float_step(r, step, steps);
    if (r->bad)
        return;
    if (integers && number && !is_of_integers(step))
        require_integers(r, step, steps);
    while (step->amplitudes && step->most >> step->planes)
        step->planes++;
}
