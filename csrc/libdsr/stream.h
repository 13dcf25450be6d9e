/* Samples of a batch in the course of time: their state, and memory for what the steps write, of one time step or of
 * several at once. What follows from the frame alone is there for one frame. */
#ifndef DSR_LIBDSR_STREAM_H
#define DSR_LIBDSR_STREAM_H

#include "model.h"

#include <stdatomic.h>
#include <string.h>

/* Numbers of each sample, [outer][samples] of so many bytes, which move with the sample when others leave; that happens
 * only where time steps are done one by one. */
typedef struct {
    void *at;
    size_t outer, bytes;
    int is_state; /* kept from one time step to the next: 0 at the beginning */
} sample_array;

struct dsr_stream {
    const dsr_model *model;
    size_t batch;   /* there is room for */
    size_t samples; /* there are now */
    size_t most_steps;
    size_t steps;      /* that are done at once, at most `most_steps` */
    size_t passes;     /* how often the last run went over the layers */
    dsr_stream *whole; /* a stream of its own for runs of several steps at once; NULL: none was needed yet */
    atomic_flag busy;
    dsr_model_status status; /* of the step that is done */
    void **signals;          /* of each step: words [planes][W][P][L] of spikes; or floats, or int32, [C][P][L] */
    void **potentials;       /* of neurons by their step, as dsr_after_conv and dsr_after_integer_conv have them */
    int32_t **kept;          /* of currents of integers: rows of what follows from the frame alone; NULL: nothing */
    int32_t *rows;           /* of a current of integers */
    float *scratch;          /* values of spikes, or of a frame at all steps */
    float *before, *after;   /* of a convolution of values of one step among several */
    void *spikes;            /* of a frame among several */
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

/* Of a signal: the time steps of all samples, [T][B]. */
static inline size_t lanes_of(const dsr_stream *s, const model_step *step) {
    return (step->steady ? 1 : s->steps) * s->samples;
}

/* Numbers of a step, [n][size], at every step: [n][T][size]. */
static inline void repeat_steps(const void *from, void *to, size_t n, size_t steps, size_t size) {
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < steps; t++)
            memcpy((char *)to + (i * steps + t) * size * 4, (const char *)from + i * size * 4, size * 4);
}

/* Rows of `size` numbers of 4 bytes, n of them, that lie so far apart. */
static inline void copy_rows(const void *from, size_t from_stride, void *to, size_t to_stride, size_t n, size_t size) {
    for (size_t i = 0; i < n; i++)
        memcpy((char *)to + i * to_stride * 4, (const char *)from + i * from_stride * 4, size * 4);
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
/* Adds the time steps of the output. */
void dsr_read_floats(dsr_stream *s);
/* Rates so far of the sample at this place. */
void dsr_rates(const dsr_stream *s, size_t sample, float *rates);

/* Memory for all that a stream of the model needs for `most_steps` at once, and that of a stream which is only half
 * made. */
dsr_model_status dsr_stream_plan(dsr_stream *s);
void dsr_stream_release(dsr_stream *s);

#endif
