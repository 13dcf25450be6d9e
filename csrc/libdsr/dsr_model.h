/* libdsr: runs exported networks without Python, with the threads and instruction levels of dsr.
 *
 *     dsr_model *model;
 *     char message[DSR_MODEL_MESSAGE];
 *     if (dsr_model_load("digits.dsrmodel", &model, message) != DSR_MODEL_OK)
 *         puts(message);
 *
 * A model does not change once it is loaded: several threads may run it at the same time. `message` gets what went
 * wrong as a sentence; NULL where it is not wanted. */
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

typedef enum {
    DSR_MODEL_OK = 0,
    DSR_MODEL_BAD_ARGUMENT, /* NULL, or a number out of range */
    DSR_MODEL_NO_FILE,      /* it cannot be opened or read */
    DSR_MODEL_OTHER_FILE,   /* it is no model of dsr */
    DSR_MODEL_OTHER_VERSION,
    DSR_MODEL_DAMAGED,   /* cut short, changed, or a description that makes no sense */
    DSR_MODEL_TOO_LARGE, /* more numbers than this library counts */
    DSR_MODEL_NO_MEMORY,
    DSR_MODEL_NOT_FINITE /* a value of the data is infinite or NaN */
} dsr_model_status;

enum { DSR_MODEL_VERSION = 1, DSR_MODEL_MESSAGE = 256 /* bytes of a message at most */ };

/* Reads a file, or bytes that are in memory, which are copied. *model is NULL if that fails. */
DSR_API dsr_model_status dsr_model_load(const char *path, dsr_model **model, char *message);
DSR_API dsr_model_status dsr_model_read(const void *bytes, size_t count, dsr_model **model, char *message);
DSR_API void dsr_model_free(dsr_model *model);

/* Values of a frame, rates of an output, and the time steps of training; 0 for NULL. */
DSR_API size_t dsr_model_inputs(const dsr_model *model);
DSR_API size_t dsr_model_outputs(const dsr_model *model);
DSR_API size_t dsr_model_timesteps(const dsr_model *model);

/* Rates [batch][outputs] of static samples, [batch][inputs], given to all `timesteps`; or, with `moves`, of samples
 * with a frame for each time step, [timesteps][batch][inputs]. A frame is channel by channel, row by row. */
DSR_API dsr_model_status dsr_model_run(const dsr_model *model, const float *data, int moves, size_t timesteps,
                                       size_t batch, float *rates, char *message);

/* Threads of all runs that follow, 1 to 1024; without this, what OpenMP says. */
DSR_API dsr_model_status dsr_model_set_threads(int threads);

#ifdef __cplusplus
}
#endif

#endif
