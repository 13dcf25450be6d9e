/* A model in memory. */
#ifndef DSR_LIBDSR_MODEL_H
#define DSR_LIBDSR_MODEL_H

#include "../dsr.h"
#include "dsr_model.h"

/* What steps do, see dsr/deploy/program.py and dsr/deploy/integer_steps.py; the numbers are those of the file. Networks
 * of integers begin with STEP_INTEGER_INPUT; what moves spikes is the same in both. */
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
    STEP_INTEGER_INPUT,
    STEP_COUNT_POOL,
    STEP_INTEGER_NEURONS,
    STEP_READ_CURRENT,
    STEP_READ_SPIKES,
    STEP_KINDS
} step_kind;

enum { MOST_NUMBERS = 0x7fffffff /* of an array: what BLAS counts */ };

/* A part of a current of integers: a convolution of an input, times 2^shift, or the input times a weight per channel.
 */
typedef struct {
    int is_added;
    const int32_t *weight; /* [C] of what is added */
    dsr_conv conv;         /* without lanes */
    int shift;
    /* weights [O][C / groups][KH][KW] of 8 bits with a sign, four in a word, the lowest first; or [KH - 1][KW - 1] of
     * which the kernel is the sum of the four shifts */
    const uint32_t *bytes;
    int is_sum;
    /* once the model is ready: `parts` times what dsr_integer_conv2d_spikes wants, `part` numbers each; their sum is
     * meant, more than one where 16 bits could not hold sums. Of weights over the data there is one. */
    int16_t *packed;
    size_t parts, part, block_rows, blocks;
} model_term;

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
    /* of integers */
    int32_t shift, most;                     /* of the data; `most` of others: the largest number that they give */
    model_term *terms;                       /* [input_count] of a current */
    const int32_t *start, *reset, *fires_at; /* [channels] of neurons and currents, integers: bias, reset, threshold */
    int32_t leak;                            /* decay in units of 2^-15 */
    const float *unit;                       /* [channels] of what is read */
    /* found here */
    size_t planes; /* of words; 1 for values */
    int steady;    /* it depends on the frame alone */
    /* once the model is ready */
    float *packed, *weighed; /* of a convolution of spikes, see dsr_weights; weighed: with amplitudes in the weights */
    float *heights;          /* [channels], what spikes are worth */
    float *rows;             /* of thresholds, see dsr_thresholds */
    size_t last_reader;      /* number of the last step that reads it */
    size_t reader_count;
    int reads_frame; /* neurons that read nothing but what depends on the frame alone */
    int is_fused;    /* a convolution of spikes that only neurons read: their step does it, and it has no signal */
} model_step;

struct dsr_model {
    uint32_t *words;
    size_t step_count, timesteps, inputs, outputs;
    float leak; /* of the output's mean over time */
    model_step *steps;
    int is_ready;
    int looks_ahead; /* what depends on the frame alone is read by neurons only, which may do all frames first */
};

static inline size_t step_pixels(const model_step *step) {
    return step->height * step->width;
}

static inline size_t step_numbers(const model_step *step) {
    return step->channels * step_pixels(step);
}

static inline size_t blocks_of(size_t channels, size_t size) {
    return (channels + size - 1) / size;
}

/* Numbers of 4 bytes that a signal has for each sample. */
static inline size_t signal_numbers(const model_step *step) {
    size_t channels = step->amplitudes ? step->planes * blocks_of(step->channels, DSR_WORD) : step->channels;
    return channels * step_pixels(step);
}

static inline int is_integer(const dsr_model *model) {
    return model->steps[0].kind == STEP_INTEGER_INPUT;
}

/* Whether a convolution works on the bits of spikes. */
static inline int convolves_spikes(const dsr_model *model, const model_step *step) {
    return model->steps[step->inputs[0]].amplitudes && step->conv.y.taps * step->conv.x.taps <= DSR_MOST_TAPS;
}

/* a * b, or MOST_NUMBERS + 1 if it is more than that. */
static inline size_t multiply(size_t a, size_t b) {
    return b && a > (size_t)MOST_NUMBERS / b ? (size_t)MOST_NUMBERS + 1 : a * b;
}

static inline int byte_of(const uint32_t *bytes, size_t i) {
    const int byte = (int)(bytes[i / 4] >> 8 * (i % 4) & 255);
    return byte < 128 ? byte : byte - 256;
}

/* The weight number i of a term, [O][C / groups][KH][KW]. */
static inline int weight_of(const model_term *term, size_t i) {
    if (!term->is_sum)
        return byte_of(term->bytes, i);
    const size_t height = term->conv.y.taps, width = term->conv.x.taps;
    const size_t kernel = i / (height * width), y = i / width % height, x = i % width;
    int sum = 0;
    for (size_t dy = 0; dy < 2; dy++)
        for (size_t dx = 0; dx < 2; dx++)
            if (y >= dy && y - dy < height - 1 && x >= dx && x - dx < width - 1)
                sum += byte_of(term->bytes, (kernel * (height - 1) + y - dy) * (width - 1) + x - dx);
    return sum;
}

/* Writes a message, and gives the status. */
dsr_model_status dsr_model_fail(dsr_model_status status, char *message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Frees what dsr_model_ready made. */
void dsr_step_forget(model_step *step);

/* Packs weights, once; any thread may ask. */
dsr_model_status dsr_model_ready(const dsr_model *model, char *message);

#endif
