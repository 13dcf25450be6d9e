/* The one argument checker: a table per function says what each argument is; nothing reaches an operation unchecked.
 *
 * Arrays are C-contiguous, aligned, of native byte order and of exactly the dtype asked for; `axes` has a letter an
 * axis, and equal letters must have equal sizes. Axis T (time) has at least one element. An output is writable and
 * shares no memory with any other array of the call. All REAL arrays of a call have one dtype, float32 or float64.
 */
#ifndef DSR_ARGS_H
#define DSR_ARGS_H

#include <Python.h>

#include "../dsr.h"

typedef enum {
    ARG_REAL,     /* float32 or float64 array */
    ARG_F32,      /* float32 array */
    ARG_F64,      /* float64 array */
    ARG_U32,      /* uint32 array */
    ARG_I64,      /* int64 array */
    ARG_POSITIVE, /* finite number > 0 */
    ARG_NUMBER,   /* finite number */
    ARG_ALPHA,    /* number in [2**-20, 1] */
    ARG_CHANCE,   /* number in [0, 1] */
    ARG_COUNT,    /* integer in [1, 2**31) */
    ARG_SIZE,     /* integer in [0, 2**31) */
    ARG_SEED      /* integer in [0, 2**64) */
} dsr_arg_kind;

typedef enum { ARG_IN, ARG_OUT, ARG_MAYBE /* None is allowed and gives NULL */ } dsr_arg_role;

typedef struct {
    const char *name;
    dsr_arg_kind kind;
    const char *axes; /* arrays only */
    dsr_arg_role role;
} dsr_arg;

enum { DSR_MOST_ARGUMENTS = 16, DSR_MOST_AXES = 6 };

typedef struct {
    void *data;    /* arrays */
    double number; /* numbers */
    size_t size;   /* counts and sizes */
    uint64_t seed;
} dsr_value;

typedef struct {
    const char *function;
    const dsr_arg *arguments;
    size_t count;
    dsr_value value[DSR_MOST_ARGUMENTS];
    size_t axis[26]; /* by letter */
    dsr_dtype dtype; /* of the REAL arrays */
    int empty;       /* there are outputs, and none has an element */
    double result;
} dsr_call;

#define AXIS(call, letter) ((call)->axis[(letter) - 'A'])

/* Reads NumPy's function table; once, at import. */
int dsr_load_numpy(void);

/* Fills `call` from the arguments; -1 with TypeError or ValueError set. */
int dsr_read_arguments(dsr_call *call, PyObject *const *objects, Py_ssize_t given);

/* For relations between axes: -1 with ValueError set unless axis `letter` of argument `index` has `expected` elements;
 * `why` says where the number comes from. */
int dsr_expect_axis(const dsr_call *call, size_t index, char letter, size_t expected, const char *why);

/* What was given, for a message: "float32 array of shape (3, 4)", "-1", "str"; a new reference, or NULL. */
PyObject *dsr_describe_given(PyObject *object);

/* -1 with ValueError "function: argument 'name': ..." set. */
int dsr_refuse(const dsr_call *call, size_t index, const char *expected);

#endif
