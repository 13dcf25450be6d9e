/* Classes of samples: example MODEL SAMPLES [THREADS]. SAMPLES is a file of float32, one frame after the other.
 *
 *     cc example.c -L. -ldsr -Wl,-rpath,. -o example */
#include "dsr_model.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 64 };

int main(int count, char **arguments) {
    char message[DSR_MODEL_MESSAGE] = "";
    dsr_model *model;
    dsr_stream *stream;
    FILE *file = count > 2 ? fopen(arguments[2], "rb") : NULL;
    if (!file || (count > 3 && dsr_model_set_threads(atoi(arguments[3])) != DSR_MODEL_OK)) {
        fprintf(stderr, "usage: %s MODEL SAMPLES [THREADS], SAMPLES a file that can be read\n", arguments[0]);
        return 2;
    }
    if (dsr_model_load(arguments[1], &model, message) != DSR_MODEL_OK ||
        dsr_stream_start(model, BATCH, &stream, message) != DSR_MODEL_OK) {
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    const size_t inputs = dsr_model_inputs(model), outputs = dsr_model_outputs(model),
                 steps = dsr_model_timesteps(model);
    float *samples = malloc(BATCH * inputs * sizeof *samples), *rates = malloc(BATCH * outputs * sizeof *rates);
    size_t batch = 0;
    int status = samples && rates ? DSR_MODEL_OK : DSR_MODEL_NO_MEMORY;
    while (status == DSR_MODEL_OK && (batch = fread(samples, inputs * sizeof *samples, BATCH, file)) > 0) {
        status = dsr_stream_run(stream, samples, 0, steps, batch, rates, message);
        for (size_t i = 0; status == DSR_MODEL_OK && i < batch; i++) {
            size_t best = 0;
            for (size_t k = 1; k < outputs; k++)
                best = rates[i * outputs + k] > rates[i * outputs + best] ? k : best;
            printf("%zu\n", best);
        }
    }
    fprintf(stderr, "%s", message);
    free(samples);
    free(rates);
    dsr_stream_free(stream);
    dsr_model_free(model);
    fclose(file);
    return status;
}
