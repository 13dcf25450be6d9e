/* Reads models. The file is little-endian: 32 bytes of header (magic, version, steps, time steps, CRC-32 of the rest,
 * bytes of the rest), and then words of 32 bits, integers or floats, as dsr/deploy/model_file.py writes them. What a
 * file says cannot make this allocate more than a multiple of its size. */
#include "../ops/ops.h"
#include "reader.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MAGIC[8] = {'D', 'S', 'R', 'M', 'O', 'D', 'E', 'L'};
enum { HEADER = 32, LEAST_STEP = 6 * 4 /* bytes of the shortest step */ };

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
        require(&r, !model->steps[i].unit || i + 1 == model->step_count, "is an output, and not the last");
        if (r.bad)
            return dsr_model_fail(DSR_MODEL_DAMAGED, message, "The model is damaged: step %zu %s.", i, r.bad);
    }
    require(&r, r.at == r.count, "is longer than its steps");
    const model_step *last = &model->steps[model->step_count - 1];
    require(&r, step_numbers(&model->steps[0]) == model->inputs, "has features of another input");
    require(&r, step_numbers(last) == model->outputs, "has features of another output");
    require(&r, !is_integer(model) || last->unit, "has no output");
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

void dsr_step_forget(model_step *step) {
    for (uint32_t k = 0; step->terms && k < step->input_count; k++) {
        dsr_release(step->terms[k].packed);
        step->terms[k].packed = NULL;
    }
    float **made[] = {&step->packed, &step->weighed, &step->heights, &step->rows};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        dsr_release(*made[i]);
        *made[i] = NULL;
    }
}

void dsr_model_free(dsr_model *model) {
    if (!model)
        return;
    for (size_t i = 0; model->steps && i < model->step_count; i++) {
        dsr_step_forget(&model->steps[i]);
        free(model->steps[i].terms);
    }
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
