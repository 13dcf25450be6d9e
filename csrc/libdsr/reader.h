/* How the words of a file are read. Every number is checked before it is used. */
#ifndef DSR_LIBDSR_READER_H
#define DSR_LIBDSR_READER_H

#include "model.h"

enum { MOST_SIDE = 1 << 20, MOST_WINDOW = 1 << 15, MOST_STEPS = 1 << 16 };

/* The words that are left. `bad` is set by the first read that fails, and stays; what is read then is the least that
 * was expected, or NULL. */
typedef struct {
    const uint32_t *words;
    size_t count, at;
    const char *bad;
} reader;

static inline void require(reader *r, int good, const char *what) {
    if (!good && !r->bad)
        r->bad = what;
}

uint32_t read_word(reader *r, uint32_t least, uint32_t most, const char *what);
int32_t read_signed(reader *r, int32_t least, int32_t most, const char *what);
const uint32_t *read_words(reader *r, size_t count);
const int32_t *read_integers(reader *r, size_t count, int32_t least, int32_t most, const char *what);
/* Finite floats, all of them above 0 where `positive`. */
const float *read_floats(reader *r, size_t count, int positive, const char *what);
int read_flag(reader *r);

/* A convolution of `from` to the shape of `step`. */
dsr_conv read_geometry(reader *r, const model_step *step, const model_step *from);

/* Steps. What all have is read first; then what their kind needs, here and, of networks of integers, there. */
void read_step(reader *r, model_step *step, const model_step *steps, size_t number);
void read_integer_step(reader *r, model_step *step, const model_step *steps);

#endif
