/* The one argument checker: a table per function says what each argument is; nothing reaches an operation unchecked.
 *
 * Arrays are C-contiguous, aligned, of native byte order and of exactly the dtype asked for; `axes` has a letter for
 * each axis, and equal letters must have equal sizes. Axis T (time) has at least one element. An output is writable and
 * shares no memory with any other array of the call. All REAL arrays of a call have one dtype, float32 or float64.
 *
 * Each value goes to a member of a struct that has the name of the argument (bind.h), of the type DSR_C_<kind>.
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
    ARG_I16,      /* int16 array */
    ARG_I32,      /* int32 array */
    ARG_I64,      /* int64 array */
    ARG_POSITIVE, /* finite number > 0 */
    ARG_NUMBER,   /* finite number */
    ARG_CHANCE,   /* number in [0, 1] */
    ARG_COUNT,    /* integer in [1, 2**31) */
    ARG_SIZE,     /* integer in [0, 2**31) */
    ARG_SEED,     /* integer in [0, 2**64) */
    ARG_NEURON,   /* object with the attributes of a dsr_neuron, see dsr.ops.NeuronModel */
    ARG_GEOMETRY  /* object with the attributes of a dsr_geometry, see dsr.ops.Geometry */
} dsr_arg_kind;

/* Of a convolution; height before width, `padding` is that of top, bottom, left and right. */
typedef struct {
    size_t kernel[2], stride[2], padding[4], dilation[2], spread[2], groups;
} dsr_geometry;

typedef void *DSR_C_REAL;
typedef float *DSR_C_F32;
typedef double *DSR_C_F64;
typedef uint32_t *DSR_C_U32;
typedef int16_t *DSR_C_I16;
typedef int32_t *DSR_C_I32;
typedef int64_t *DSR_C_I64;
typedef double DSR_C_POSITIVE, DSR_C_NUMBER, DSR_C_CHANCE;
typedef size_t DSR_C_COUNT, DSR_C_SIZE;
typedef uint64_t DSR_C_SEED;
typedef dsr_neuron DSR_C_NEURON;
typedef dsr_geometry DSR_C_GEOMETRY;

typedef enum {
    ARG_IN,
    ARG_OUT,
    ARG_MAYBE,    /* an input; None is allowed and gives NULL */
    ARG_MAYBE_OUT /* an output; None is allowed and gives NULL */
} dsr_arg_role;

typedef struct {
    const char *name;
    dsr_arg_kind kind;
    const char *axes; /* arrays only */
    dsr_arg_role role;
    size_t offset; /* of its value in the struct */
} dsr_arg;

enum { DSR_MOST_ARGUMENTS = 20, DSR_MOST_BYTES = 320 };

typedef struct {
    const char *function;
    const dsr_arg *arguments;
    size_t count;
    _Alignas(16) char values[DSR_MOST_BYTES]; /* the struct; an array that is None is NULL */
    size_t axis[26];                          /* by letter */
    const char *axis_of[26];                  /* the argument that fixed it */
    dsr_dtype dtype;                          /* of the REAL arrays */
    int empty;                                /* there are outputs, and none has an element */
    double result;
} dsr_call;

#define AXIS(call, letter) ((call)->axis[(letter) - 'A'])
#define AXIS_OF(call, letter) ((call)->axis_of[(letter) - 'A'])

/* What is read of a neuron: floats, which as float32 are neither infinite nor below `least`, flags, and integers from
 * `least` to DSR_MOST_LEVELS. Ends with NULL. */
typedef struct {
    const char *name;
    size_t offset; /* in dsr_neuron */
    double least;
    enum { ATTRIBUTE_FLOAT, ATTRIBUTE_FLAG, ATTRIBUTE_INTEGER } kind;
} dsr_attribute;
extern const dsr_attribute dsr_neuron_attributes[];

/* Reads NumPy's function table; once, at import. */
int dsr_load_numpy(void);

/* Fills `call` from the arguments; -1 with TypeError or ValueError set. */
int dsr_read_arguments(dsr_call *call, PyObject *const *objects, Py_ssize_t given);

/* Where the elements of an array are, and how many there are. */
void *dsr_memory_of(PyObject *array, size_t *elements);

/* For relations between axes: -1 with ValueError set unless axis `letter` has `expected` elements; the message names
 * the argument that fixed it, and `why` says where the number comes from. */
int dsr_expect_axis(const dsr_call *call, char letter, size_t expected, const char *why);

/* What was given, for a message: "float32 array of shape (3, 4)", "-1", "str"; a new reference, or NULL. */
PyObject *dsr_describe_given(PyObject *object);

/* -1 with ValueError "function: argument 'name': ..." set. */
int dsr_refuse(const dsr_call *call, const char *argument, const char *expected);

#endif
