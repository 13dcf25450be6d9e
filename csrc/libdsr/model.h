/* A model in memory. */
#ifndef DSR_LIBDSR_MODEL_H
#define DSR_LIBDSR_MODEL_H

#include "../dsr.h"
#include "dsr_model.h"

/* What steps do, see dsr/deploy/program.py; the numbers are those of the file. */
typedef enum {
    STEP_INPUT,
    STEP_CONVOLUTION,
    STEP_SUM,
    STEP_AVERAGE_POOL,
    STEP_MAX_POOL,
    STEP_UPSAMPLE,
    STEP_CONCAT,
    STEP_FLATTEN,
    STEP_GATE,
    STEP_NEURONS,
    STEP_KINDS
} step_kind;

/* Arrays lie in the words of the file. */
typedef struct {
    step_kind kind;
    uint32_t input_count;
    const uint32_t *inputs; /* numbers of earlier steps */
    size_t channels, height, width;
    uint32_t amplitudes;    /* 0: values; 1: spikes of one amplitude; C: spikes, an amplitude for each channel */
    const float *amplitude; /* [amplitudes] */
    dsr_conv conv;          /* of a convolution; without lanes */
    dsr_pool pool;          /* of pools; without lanes */
    const float *weight;    /* [O][C / groups][KH][KW] */
    const float *bias;      /* [channels] of a convolution or sum; NULL: none */
    const float *factors;   /* [input_count][channels] of a sum */
    size_t factor_y, factor_x;
    int fires; /* of a gate: whether the second input has to */
    float decay, gain;
    uint32_t thresholds;             /* 1, or C */
    const float *v_threshold, *fire; /* [thresholds] */
} model_step;

struct dsr_model {
    uint32_t *words;
    size_t step_count, timesteps, inputs, outputs;
    float leak; /* of the output's mean over time */
    model_step *steps;
};

static inline size_t step_pixels(const model_step *step) {
    return step->height * step->width;
}

/* Writes a message, and gives the status. */
dsr_model_status dsr_model_fail(dsr_model_status status, char *message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
