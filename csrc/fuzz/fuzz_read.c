/* libFuzzer on the reader of models, whose checksum is not compared then (FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION):
 *
 *     clang -g -O1 -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -fsanitize=fuzzer,address,undefined \
 *         csrc/fuzz/fuzz_read.c csrc/libdsr/read*.c csrc/ops/scratch.c -o fuzz_read
 *     ./fuzz_read FOLDER_OF_MODELS */
#include "../libdsr/model.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static double sum_of_integers(const int32_t *numbers, size_t count) {
    double sum = 0;
    for (size_t i = 0; numbers && i < count; i++)
        sum += (double)numbers[i];
    return sum;
}

static double sum_of_term(const model_term *term, size_t channels) {
    const dsr_conv *c = &term->conv;
    double sum = sum_of_integers(term->weight, channels);
    for (size_t k = 0; term->bytes && k < c->out_channels * (c->in_channels / c->groups) * c->y.taps * c->x.taps; k++)
        sum += weight_of(term, k);
    return sum;
}

/* All that a run would read. */
static double sum_of(const dsr_model *model) {
    double sum = (double)model->leak;
    for (size_t i = 0; i < model->step_count; i++) {
        const model_step *s = &model->steps[i];
        const dsr_conv *c = &s->conv;
        for (uint32_t k = 0; k < s->input_count; k++)
            sum += (double)model->steps[s->inputs[k]].channels;
        for (uint32_t k = 0; k < s->amplitudes; k++)
            sum += (double)s->amplitude[k];
        for (uint32_t k = 0; k < s->thresholds; k++)
            sum += (double)s->v_threshold[k] + (double)s->fire[k];
        for (size_t k = 0; s->bias && k < s->channels; k++)
            sum += (double)s->bias[k];
        for (size_t k = 0; s->factors && k < s->input_count * s->channels; k++)
            sum += (double)s->factors[k];
        for (size_t k = 0; s->weight && k < c->out_channels * (c->in_channels / c->groups) * c->y.taps * c->x.taps; k++)
            sum += (double)s->weight[k];
        for (uint32_t k = 0; s->terms && k < s->input_count; k++)
            sum += sum_of_term(&s->terms[k], s->channels);
        sum += sum_of_integers(s->start, s->channels) + sum_of_integers(s->reset, s->channels) +
               sum_of_integers(s->fires_at, s->channels);
        for (size_t k = 0; s->unit && k < s->channels; k++)
            sum += (double)s->unit[k];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    char message[DSR_MODEL_MESSAGE] = "";
    dsr_model *model;
    const dsr_model_status status = dsr_model_read(bytes, count, &model, message);
    if ((status == DSR_MODEL_OK) != (model != NULL) || (status == DSR_MODEL_OK) != (message[0] == 0) ||
        strlen(message) >= DSR_MODEL_MESSAGE)
        __builtin_trap();
    if (model) {
        volatile double sum = sum_of(model);
        (void)sum;
    }
    dsr_model_free(model);
    return 0;
}
