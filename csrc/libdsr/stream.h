/* Samples of a batch in the course of time: their state, and memory for what the steps write. */
#ifndef DSR_LIBDSR_STREAM_H
#define DSR_LIBDSR_STREAM_H

#include "model.h"

#include <stdatomic.h>

/* Numbers of each sample, [outer][samples] of so many bytes, which go with the sample when others leave. */
typedef struct {
    void *at;
    size_t outer, bytes;
    int is_state; /* kept from one time step to the next: 0 at the beginning */
} sample_array;

struct dsr_stream {
    const dsr_model *model;
    size_t batch;   /* there is room for */
    size_t samples; /* there are now */
    atomic_flag busy;
    dsr_model_status status; /* of the step that is done */
    void **signals;          /* of each step: words [planes][W][P][B] of spikes; or floats, or int32, [C][P][B] */
    void **potentials;       /* of neurons by their step, as dsr_after_conv and dsr_after_integer_conv have them */
    int32_t **kept;          /* of currents of integers: rows of what follows from the frame alone; NULL: nothing */
    int32_t *rows;           /* of a current of integers */
    float *scratch;          /* values of spikes */
    float *ones, *zeros;     /* [C] of all sums */
    double *means, *weights; /* of the output over time, [outputs][B] and [B]: rates are their quotient */
    int64_t *sums, *counts;  /* the same of networks of integers */
    size_t *numbers;         /* the samples that are left, by their places in the data */
    unsigned char *stays;    /* [B] for early exit */
    sample_array *arrays;
    size_t array_count;
    void **blocks; /* all memory but that of the lists above */
    size_t block_count;
};

static inline const model_step *step_of(const dsr_stream *s, size_t number) {
    return &s->model->steps[number];
}

static inline void check(dsr_stream *s, dsr_status status) {
    if (status != DSR_OK && s->status == DSR_MODEL_OK)
        s->status = status == DSR_NO_MEMORY ? DSR_MODEL_NO_MEMORY : DSR_MODEL_TOO_LARGE;
}

/* Bits of spikes that share a table of sums of integers: the sums are the same. */
unsigned dsr_table_bits(const uint32_t *words, size_t n, double neurons, size_t taps);

/* Steps of floats and of what only moves; of integers. Number of the step. */
void dsr_do_step(dsr_stream *s, size_t number);
void dsr_do_integers(dsr_stream *s, size_t number);
/* What of a current of integers follows from the frame. */
void dsr_keep_current(dsr_stream *s, size_t number);
/* The frame, [samples][inputs], to the first signal: the rows `numbers` of `data`. */
void dsr_see(dsr_stream *s, const float *data);
void dsr_see_integers(dsr_stream *s, const float *data);
/* Adds a time step of the output. */
void dsr_read_floats(dsr_stream *s);
/* Rates so far of the sample at this place. */
void dsr_rates(const dsr_stream *s, size_t sample, float *rates);

/* Memory for all that a stream of the model needs, and that of a stream which is only half made. */
dsr_model_status dsr_stream_plan(dsr_stream *s);
void dsr_stream_release(dsr_stream *s);

#endif
