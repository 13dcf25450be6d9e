/* libdsr: runs exported networks, of floats or of integers, without Python, with the threads and instruction levels of
 * dsr.
 *
 *     dsr_model *model;
 *     char message[DSR_MODEL_MESSAGE];
 *     if (dsr_model_load("digits.dsrmodel", &model, message) != DSR_MODEL_OK)
 *         puts(message);
 *
 * A model does not change once it is loaded: several threads may run it at the same time. A stream has the state of a
 * batch and the memory for it, which is allocated when it starts: it is for one thread at a time, so each thread starts
 * its own, and is freed before its model. (The operations take some scratch memory of their own in each call.)
 *
 * Results do not depend on the number of threads, nor on how time is cut into steps. Networks of integers have the bits
 * of dsr (Python); of floats, rates are those of dsr but for rounding. Floats that are convolved as values, as sums of
 * spikes are, also round by the number of samples that are computed together. `message` gets what went wrong as a
 * sentence; NULL where it is not wanted. */
#ifndef DSR_MODEL_H
#define DSR_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
    #define DSR_API __attribute__((visibility("default")))
#else
    #define DSR_API
#endif

typedef struct dsr_model dsr_model;
typedef struct dsr_stream dsr_stream;

typedef enum {
    DSR_MODEL_OK = 0,
    DSR_MODEL_BAD_ARGUMENT, /* NULL, or a number out of range */
    DSR_MODEL_NO_FILE,      /* it cannot be opened or read */
    DSR_MODEL_OTHER_FILE,   /* it is no model of dsr */
    DSR_MODEL_OTHER_VERSION,
    DSR_MODEL_DAMAGED,   /* cut short, changed, or a description that makes no sense */
    DSR_MODEL_TOO_LARGE, /* more numbers than this library counts */
    DSR_MODEL_NO_MEMORY,
    DSR_MODEL_NOT_FINITE, /* a value of the data is infinite or NaN */
    DSR_MODEL_BUSY        /* another thread uses the stream */
} dsr_model_status;

enum { DSR_MODEL_VERSION = 2, DSR_MODEL_MESSAGE = 256 /* bytes of a message at most */ };

/* Reads a file, or bytes that are in memory, which are copied. *model is NULL if that fails. */
DSR_API dsr_model_status dsr_model_load(const char *path, dsr_model **model, char *message);
DSR_API dsr_model_status dsr_model_read(const void *bytes, size_t count, dsr_model **model, char *message);
DSR_API void dsr_model_free(dsr_model *model);

/* Values of a frame, rates of an output, and the time steps of training; 0 for NULL. */
DSR_API size_t dsr_model_inputs(const dsr_model *model);
DSR_API size_t dsr_model_outputs(const dsr_model *model);
DSR_API size_t dsr_model_timesteps(const dsr_model *model);

/* A stream of `batch` samples side by side, all at their beginning. *stream is NULL if that fails. */
DSR_API dsr_model_status dsr_stream_start(const dsr_model *model, size_t batch, dsr_stream **stream, char *message);
DSR_API void dsr_stream_free(dsr_stream *stream);

/* The next time step of all samples: their frames [batch][inputs], channel by channel, row by row. Gives the rates so
 * far, [batch][outputs]: after t steps, those of a run of t steps. If memory runs out in a step, all begin anew. */
DSR_API dsr_model_status dsr_stream_step(dsr_stream *stream, const float *frame, float *rates, char *message);

/* These samples begin anew, by their numbers from 0 on; NULL: all of them. */
DSR_API dsr_model_status dsr_stream_reset(dsr_stream *stream, const size_t *samples, size_t count, char *message);

/* Rates [samples][outputs] of static samples, [samples][inputs], given to all `timesteps`; or, with `moves`, of samples
 * with a frame for each time step, [timesteps][samples][inputs]. At most as many samples as the stream has; it begins
 * anew before and after. Of few samples up to 32 time steps are done at once: memory for that is allocated by the first
 * run that has use for it, and kept; where there is none, they are done one by one. */
DSR_API dsr_model_status dsr_stream_run(dsr_stream *stream, const float *data, int moves, size_t timesteps,
                                        size_t samples, float *rates, char *message);

/* When a sample is done before its last step: after `least` steps or more, once its output is clear enough. */
typedef enum {
    DSR_EXIT_PROBABILITY, /* of the most probable class: softmax of the rates */
    DSR_EXIT_MARGIN       /* how much the largest rate is above the next */
} dsr_exit_by;
typedef struct {
    dsr_exit_by by;
    double threshold; /* > 0 */
    size_t least;
} dsr_exit;

/* The same with early exit (NULL: without): each sample leaves the batch when it is done, and the others go on as a
 * smaller one. steps [samples]: how many each has seen; NULL where that is not wanted. */
DSR_API dsr_model_status dsr_stream_exit(dsr_stream *stream, const float *data, int moves, size_t timesteps,
                                         size_t samples, const dsr_exit *rule, float *rates, size_t *steps,
                                         char *message);

/* How often the last run of a stream went over the layers of its model; with early exit, once for each time step. */
DSR_API size_t dsr_stream_passes(const dsr_stream *stream);

/* One run, as a stream of its own: memory is allocated for this call. */
DSR_API dsr_model_status dsr_model_run(const dsr_model *model, const float *data, int moves, size_t timesteps,
                                       size_t batch, float *rates, char *message);

/* Threads of all runs that follow, 1 to 1024; without this, what OpenMP says. The instructions are the best that the
 * processor has, or those of the environment variable DSR_LEVEL: scalar, avx2, avx512, neon. */
DSR_API dsr_model_status dsr_model_set_threads(int threads);

#ifdef __cplusplus
}
#endif

#endif
