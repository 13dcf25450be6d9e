/* Reads models. The file is little-endian: 32 bytes of header (magic, version, steps, time steps, CRC-32 of the rest,
 * bytes of the rest), and then words of 32 bits, integers or floats, as dsr/deploy/model_file.py writes them. Every
 * number is checked before it is used; what a file says cannot make this allocate more than a multiple of its size. */
#include "model.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MAGIC[8] = {'D', 'S', 'R', 'M', 'O', 'D', 'E', 'L'};
enum {
    HEADER = 32,
    LEAST_STEP = 6 * 4 /* bytes of the shortest step */,
    MOST_STEPS = 1 << 16,
    MOST_SIDE = 1 << 20,
    MOST_WINDOW = 1 << 15,
    MOST_NUMBERS = 0x7fffffff
};

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { COMPARES_CHECKSUM = 0 };
#else
enum { COMPARES_CHECKSUM = 1 };
#endif

dsr_model_status dsr_model_fail(dsr_model_status status, char *message, const char *format, ...) {
    if (message) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message, DSR_MODEL_MESSAGE, format, arguments);
        va_end(arguments);
    }
    return status;
}

/* The words that are left. `bad` is set by the first read that fails, and stays; what is read then is 1 or NULL. */
typedef struct {
    const uint32_t *words;
    size_t count, at;
    const char *bad;
} reader;

static void refuse(reader *r, const char *what) {
    if (!r->bad)
        r->bad = what;
}

static uint32_t read_word(reader *r, uint32_t least, uint32_t most, const char *what) {
    if (r->at >= r->count)
        refuse(r, "is cut short");
    else if (r->words[r->at] < least || r->words[r->at] > most)
        refuse(r, what);
    return r->bad ? least : r->words[r->at++];
}

static const uint32_t *read_words(reader *r, size_t count) {
    if (count > MOST_NUMBERS) /* what `multiply` says of more */
        refuse(r, "has more numbers in an array than this library takes");
    else if (count > r->count - r->at)
        refuse(r, "is cut short");
    if (r->bad)
        return NULL;
    r->at += count;
    return r->words + r->at - count;
}

/* Finite floats, all of them above 0 where `positive`. */
static const float *read_floats(reader *r, size_t count, int positive, const char *what) {
    const float *values = (const float *)(const void *)read_words(r, count);
    for (size_t i = 0; values && i < count; i++)
        if (!isfinite(values[i]) || (positive && !(values[i] > 0)))
            refuse(r, what);
    return r->bad ? NULL : values;
}

/* a * b, or MOST_NUMBERS + 1 if it is more than that. */
static size_t multiply(size_t a, size_t b) {
    return b && a > (size_t)MOST_NUMBERS / b ? (size_t)MOST_NUMBERS + 1 : a * b;
}

static size_t step_numbers(const model_step *step) {
    return multiply(multiply(step->channels, step->height), step->width);
}

static void require(reader *r, int good, const char *what) {
    if (!good)
        refuse(r, what);
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

static void read_convolution(reader *r, model_step *step, const model_step *from) {
    /* kernel, stride (y, x), padding (top, bottom, left, right), dilation, spread, groups */
    uint32_t g[13];
    for (int i = 0; i < 13; i++)
        g[i] = read_word(r, i >= 4 && i < 8 ? 0 : 1, i == 12 ? MOST_SIDE : MOST_WINDOW, "has windows out of range");
    const int has_bias = (int)read_word(r, 0, 1, "has a flag that is not 0 or 1");
    if (r->bad)
        return;
    step->conv = (dsr_conv){.y = read_axis(from->height, g, g + 2, g + 4, g + 5, g + 8, g + 10),
                            .x = read_axis(from->width, g + 1, g + 3, g + 6, g + 7, g + 9, g + 11),
                            .in_channels = from->channels,
                            .out_channels = step->channels,
                            .groups = g[12]};
    const dsr_conv *c = &step->conv;
    const int spreads = c->y.spread > 1 || c->x.spread > 1;
    require(r, !spreads || (c->y.stride == 1 && c->x.stride == 1), "has both a stride and a spread");
    require(r,
            !spreads ||
                (c->y.before <= (c->y.taps - 1) * c->y.dilation && c->x.before <= (c->x.taps - 1) * c->x.dilation),
            "has more padding than its kernel reaches");
    require(r, from->channels % c->groups == 0 && step->channels % c->groups == 0, "has groups that do not divide");
    require_shape(r, step, step->channels, c->y.out, c->x.out);
    require(r, step->amplitudes == 0, "gives spikes, which it cannot");
    const size_t taps = multiply(c->y.taps, c->x.taps);
    step->weight = read_floats(r, multiply(multiply(step->channels, from->channels / c->groups), taps), 0,
                               "has weights that are not finite");
    if (has_bias)
        step->bias = read_floats(r, step->channels, 0, "has biases that are not finite");
}

static void read_sum(reader *r, model_step *step) {
    const int has_bias = (int)read_word(r, 0, 1, "has a flag that is not 0 or 1");
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
    require(r, (step->amplitudes > 0) == (step->kind == STEP_MAX_POOL && from->amplitudes > 0),
            "confuses values and spikes");
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

static void read_rest(reader *r, model_step *step, const model_step *steps) {
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
        step->fires = (int)read_word(r, 0, 1, "has a flag that is not 0 or 1");
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

static void read_step(reader *r, model_step *step, const model_step *steps, size_t number) {
    static const uint32_t MOST_INPUTS[STEP_KINDS] = {0, 1, MOST_STEPS, 1, 1, 1, MOST_STEPS, 1, 2, 1};
    *step =
        (model_step){.kind = (step_kind)read_word(r, number == 0 ? STEP_INPUT : STEP_CONVOLUTION,
                                                  number == 0 ? STEP_INPUT : STEP_KINDS - 1, "is of an unknown kind")};
    const uint32_t most = MOST_INPUTS[step->kind];
    step->input_count = read_word(r, most == 2 ? 2 : number > 0, most, "has a wrong number of inputs");
    step->inputs = read_words(r, step->input_count);
    for (uint32_t i = 0; step->inputs && i < step->input_count; i++)
        require(r, step->inputs[i] < number, "reads a step that does not come before it");
    step->channels = read_word(r, 1, MOST_NUMBERS, "has a shape out of range");
    step->height = read_word(r, 1, MOST_SIDE, "has a shape out of range");
    step->width = read_word(r, 1, MOST_SIDE, "has a shape out of range");
    require(r, step_numbers(step) <= MOST_NUMBERS, "has a shape out of range");
    step->amplitudes = read_word(r, 0, MOST_NUMBERS, "has amplitudes out of range");
    require(r, step->amplitudes <= 1 || step->amplitudes == step->channels, "has amplitudes of other channels");
    step->amplitude = read_floats(r, step->amplitudes, 1, "has an amplitude that is not above 0");
    if (r->bad)
        return;
    if (step->kind == STEP_SUM || step->kind == STEP_GATE || step->kind == STEP_CONCAT || step->kind == STEP_NEURONS)
        for (uint32_t i = 0; i < step->input_count; i++) {
            const model_step *from = &steps[step->inputs[i]];
            require(r,
                    (step->kind == STEP_CONCAT || from->channels == step->channels) && from->height == step->height &&
                        from->width == step->width,
                    "reads signals of another shape");
        }
    if (!r->bad)
        read_rest(r, step, steps);
}

static size_t read_features(reader *r) {
    size_t numbers = 1;
    const uint32_t axes = read_word(r, 1, 3, "has features that are not of 1 to 3 axes");
    for (uint32_t i = 0; i < axes; i++)
        numbers = multiply(numbers, read_word(r, 1, MOST_NUMBERS, "has features out of range"));
    return numbers;
}

static dsr_model_status read_model(dsr_model *model, size_t count, char *message) {
    reader r = {.words = model->words, .count = count};
    model->inputs = read_features(&r);
    model->outputs = read_features(&r);
    const float *leak = read_floats(&r, 1, 0, "has a leak that is not finite");
    model->leak = leak ? *leak : 0;
    require(&r, model->leak >= 0, "has a leak below 0");
    if (r.bad)
        return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: its description %s.", r.bad);
    for (size_t i = 0; i < model->step_count && !r.bad; i++) {
        read_step(&r, &model->steps[i], model->steps, i);
        if (r.bad)
            return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: step %zu %s.", i, r.bad);
    }
    require(&r, r.at == r.count, "is longer than its steps");
    require(&r, step_numbers(&model->steps[0]) == model->inputs, "has features of another input");
    require(&r, step_numbers(&model->steps[model->step_count - 1]) == model->outputs, "has features of another output");
    if (r.bad)
        return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: its description %s.", r.bad);
    return DSR_MODEL_OK;
}

static uint32_t crc32_of(const unsigned char *bytes, size_t count) {
    uint32_t table[16], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xedb88320u : table[i] >> 1;
    }
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t little_word(const unsigned char *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

dsr_model_status dsr_model_read(const void *bytes, size_t count, dsr_model **model, char *message) {
    const unsigned char *at = bytes;
    if (model)
        *model = NULL;
    if (!bytes || !model)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_model_read is NULL.");
    if (count < sizeof MAGIC || memcmp(at, MAGIC, sizeof MAGIC) != 0)
        return dsr_model_fail(DSR_MODEL_OTHER_FILE, message, "This is not a model that dsr exported.");
    if (count < HEADER)
        return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: its header is cut short.");
    const uint32_t version = little_word(at + 8), steps = little_word(at + 12), timesteps = little_word(at + 16);
    const uint64_t rest = little_word(at + 24) | (uint64_t)little_word(at + 28) << 32;
    if (version != DSR_MODEL_VERSION)
        return dsr_model_fail(DSR_MODEL_OTHER_VERSION, message,
                              "The model is of version %lu of the format; this library reads version %d.",
                              (unsigned long)version, DSR_MODEL_VERSION);
    if (rest != count - HEADER || rest % 4 != 0)
        return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: expected %llu bytes, got %zu.",
                              (unsigned long long)rest + HEADER, count);
    if (COMPARES_CHECKSUM && crc32_of(at + HEADER, (size_t)rest) != little_word(at + 20))
        return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: its checksum does not match.");
    if (steps < 2 || steps > MOST_STEPS || steps > rest / LEAST_STEP || timesteps < 1 || timesteps > MOST_NUMBERS)
        return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: its header makes no sense.");
    dsr_model *found = calloc(1, sizeof *found);
    if (found) {
        *found = (dsr_model){.step_count = steps, .timesteps = timesteps};
        found->words = malloc((size_t)rest + 4);
        found->steps = calloc(steps, sizeof *found->steps);
    }
    if (!found || !found->words || !found->steps) {
        dsr_model_free(found);
        return dsr_model_fail(DSR_MODEL_NO_MEMORY, message, "There is not enough memory for the model.");
    }
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (size_t i = 0; i < rest / 4; i++)
        found->words[i] = little_word(at + HEADER + 4 * i);
#else
    memcpy(found->words, at + HEADER, (size_t)rest);
#endif
    const dsr_model_status status = read_model(found, (size_t)rest / 4, message);
    if (status == DSR_MODEL_OK)
        *model = found;
    else
        dsr_model_free(found);
    return status;
}

dsr_model_status dsr_model_load(const char *path, dsr_model **model, char *message) {
    if (model)
        *model = NULL;
    if (!path || !model)
        return dsr_model_fail(DSR_MODEL_BAD_ARGUMENT, message, "An argument of dsr_model_load is NULL.");
    FILE *file = fopen(path, "rb");
    if (!file)
        return dsr_model_fail(DSR_MODEL_NO_FILE, message, "The file %.200s cannot be opened.", path);
    long length = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    unsigned char *bytes =
        length >= 0 && length < LONG_MAX && fseek(file, 0, SEEK_SET) == 0 ? malloc((size_t)length + 1) : NULL;
    const size_t got = bytes ? fread(bytes, 1, (size_t)length, file) : 0;
    const int whole = bytes && got == (size_t)length && !ferror(file);
    fclose(file);
    dsr_model_status status;
    if (!bytes && length >= 0 && length < LONG_MAX)
        status = dsr_model_fail(DSR_MODEL_NO_MEMORY, message, "There is not enough memory for the file %.180s.", path);
    else if (!whole)
        status = dsr_model_fail(DSR_MODEL_NO_FILE, message, "The file %.200s cannot be read.", path);
    else
        status = dsr_model_read(bytes, got, model, message);
    free(bytes);
    return status;
}

void dsr_model_free(dsr_model *model) {
    if (!model)
        return;
    free(model->words);
    free(model->steps);
    free(model);
}

size_t dsr_model_inputs(const dsr_model *model) {
    return model ? model->inputs : 0;
}

size_t dsr_model_outputs(const dsr_model *model) {
    return model ? model->outputs : 0;
}

size_t dsr_model_timesteps(const dsr_model *model) {
    return model ? model->timesteps : 0;
}
