/* libFuzzer on the reader of models, whose checksum is not compared then (FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION):
 *
 *     clang -g -O1 -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -fsanitize=fuzzer,address,undefined \
 *         csrc/fuzz/fuzz_read.c csrc/libdsr/read.c -o fuzz_read
 *     ./fuzz_read FOLDER_OF_MODELS */
#include "../libdsr/model.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

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
