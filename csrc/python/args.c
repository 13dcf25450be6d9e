#include "args.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include <numpy/arrayobject.h>

int dsr_load_numpy(void) {
    import_array1(-1);
    return 0;
}

static int numpy_type(dsr_arg_kind kind) {
    return kind == ARG_F32   ? NPY_FLOAT32
           : kind == ARG_F64 ? NPY_FLOAT64
           : kind == ARG_U32 ? NPY_UINT32
           : kind == ARG_I16 ? NPY_INT16
           : kind == ARG_I32 ? NPY_INT32
                             : NPY_INT64;
}

static const char *describe(dsr_arg_kind kind) {
    switch (kind) {
    case ARG_REAL:
        return "float32 or float64";
    case ARG_F32:
        return "float32";
    case ARG_F64:
        return "float64";
    case ARG_U32:
        return "uint32";
    case ARG_I16:
        return "int16";
    case ARG_I32:
        return "int32";
    case ARG_I64:
        return "int64";
    case ARG_POSITIVE:
        return "a finite number > 0";
    case ARG_NUMBER:
        return "a finite number";
    case ARG_CHANCE:
        return "a number in [0, 1]";
    case ARG_COUNT:
        return "an integer in [1, 2**31)";
    case ARG_SIZE:
        return "an integer in [0, 2**31)";
    case ARG_SEED:
        return "an integer in [0, 2**64)";
    case ARG_NEURON:
        return "a neuron as if_model makes it";
    case ARG_GEOMETRY:
        return "a Geometry";
    }
    return "?";
}

PyObject *dsr_describe_given(PyObject *object) {
    if (PyArray_Check(object)) {
        PyObject *dtype = PyObject_GetAttrString(object, "dtype"), *shape = PyObject_GetAttrString(object, "shape");
        PyObject *text = dtype && shape ? PyUnicode_FromFormat("%S array of shape %S", dtype, shape) : NULL;
        Py_XDECREF(dtype);
        Py_XDECREF(shape);
        return text;
    }
    PyObject *type = PyType_GetName(Py_TYPE(object)), *text = NULL;
    if (PyFloat_CheckExact(object) || PyLong_CheckExact(object))
        text = PyUnicode_FromFormat("%R", object);
    if (!text) {
        PyErr_Clear(); /* an integer of thousands of digits has no repr */
        text = type ? PyUnicode_FromFormat("%S", type) : NULL;
    }
    Py_XDECREF(type);
    return text;
}

static int is_output(const dsr_arg *argument) {
    return argument->role == ARG_OUT || argument->role == ARG_MAYBE_OUT;
}

static int wrong(const dsr_call *call, size_t index, PyObject *error, PyObject *given, const char *expected) {
    PyObject *text = dsr_describe_given(given);
    if (text)
        PyErr_Format(error, "%s: argument '%s': expected %s, got %U", call->function, call->arguments[index].name,
                     expected, text);
    Py_XDECREF(text);
    return -1;
}

int dsr_refuse(const dsr_call *call, const char *argument, const char *expected) {
    PyErr_Format(PyExc_ValueError, "%s: argument '%s': expected %s", call->function, argument, expected);
    return -1;
}

int dsr_expect_axis(const dsr_call *call, char letter, size_t expected, const char *why) {
    size_t size = AXIS(call, letter);
    if (size == expected)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: argument '%s': expected %zu elements on axis %c (%s), got %zu", call->function,
                 AXIS_OF(call, letter), expected, letter, why, size);
    return -1;
}

/* Where the value of an argument goes. */
static void *target(dsr_call *call, size_t index) {
    return call->values + call->arguments[index].offset;
}

/* NumPy would make numbers of texts, of arrays with one element, and of the real parts of complex ones */
static int is_real_number(PyObject *object) {
    if (PyArray_IsScalar(object, ComplexFloating))
        return 0;
    if (!PyArray_Check(object))
        return 1;
    int type = PyArray_TYPE((PyArrayObject *)object);
    return PyArray_NDIM((PyArrayObject *)object) == 0 &&
           (PyTypeNum_ISBOOL(type) || PyTypeNum_ISINTEGER(type) || PyTypeNum_ISFLOAT(type));
}

static int read_number(dsr_call *call, size_t index, PyObject *object) {
    dsr_arg_kind kind = call->arguments[index].kind;
    if (!is_real_number(object))
        return wrong(call, index, PyExc_TypeError, object, describe(kind));
    double number = PyFloat_AsDouble(object);
    if (number == -1 && PyErr_Occurred()) {
        int overflow = PyErr_ExceptionMatches(PyExc_OverflowError);
        PyErr_Clear();
        return wrong(call, index, overflow ? PyExc_ValueError : PyExc_TypeError, object, describe(kind));
    }
    int good = isfinite(number);
    /* the smallest normal float32: below it a threshold has no exact float32 value */
    good = good && (kind != ARG_POSITIVE || (number >= 0x1p-126 && number <= 0x1p126));
    good = good && (kind != ARG_NUMBER || fabs(number) <= 0x1p126);
    good = good && (kind != ARG_CHANCE || (number >= 0 && number <= 1));
    if (!good) {
        const char *wanted = kind == ARG_POSITIVE && number > 0 ? "a number in [2**-126, 2**126]" : describe(kind);
        return wrong(call, index, PyExc_ValueError, object, wanted);
    }
    *(double *)target(call, index) = number;
    return 0;
}

static int read_integer(dsr_call *call, size_t index, PyObject *object) {
    dsr_arg_kind kind = call->arguments[index].kind;
    PyObject *integer = PyNumber_Index(object);
    if (!integer) {
        PyErr_Clear();
        return wrong(call, index, PyExc_TypeError, object, describe(kind));
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(integer);
    Py_DECREF(integer);
    int bad = number == (unsigned long long)-1 && PyErr_Occurred();
    PyErr_Clear();
    bad = bad || (kind != ARG_SEED && number >= 0x80000000u) || (kind == ARG_COUNT && number == 0);
    if (bad)
        return wrong(call, index, PyExc_ValueError, object, describe(kind));
    if (kind == ARG_SEED)
        *(uint64_t *)target(call, index) = number;
    else
        *(size_t *)target(call, index) = (size_t)number;
    return 0;
}

const dsr_attribute dsr_neuron_attributes[] = {
    {"decay", offsetof(dsr_neuron, decay), 0, ATTRIBUTE_FLOAT},
    {"gain", offsetof(dsr_neuron, gain), 0, ATTRIBUTE_FLOAT},
    {"v_threshold", offsetof(dsr_neuron, v_threshold), 0x1p-149, ATTRIBUTE_FLOAT},
    {"fire", offsetof(dsr_neuron, fire), 0x1p-149, ATTRIBUTE_FLOAT},
    {"amplitude", offsetof(dsr_neuron, amplitude), 0x1p-149, ATTRIBUTE_FLOAT},
    {"divisor", offsetof(dsr_neuron, divisor), 0x1p-149, ATTRIBUTE_FLOAT},
    {"top", offsetof(dsr_neuron, top), 0x1p-149, ATTRIBUTE_FLOAT},
    {"closed", offsetof(dsr_neuron, closed), 0, ATTRIBUTE_FLAG},
    {"levels", offsetof(dsr_neuron, levels), 1, ATTRIBUTE_INTEGER},
    {NULL, 0, 0, 0}};

static int read_neuron(dsr_call *call, size_t index, PyObject *object) {
    for (const dsr_attribute *attribute = dsr_neuron_attributes; attribute->name; attribute++) {
        char *to = (char *)target(call, index) + attribute->offset;
        PyObject *value = PyObject_GetAttrString(object, attribute->name);
        int is_float = attribute->kind == ATTRIBUTE_FLOAT, is_flag = attribute->kind == ATTRIBUTE_FLAG;
        int fits = value && (is_float  ? PyFloat_Check(value)
                             : is_flag ? PyBool_Check(value)
                                       : PyLong_Check(value) && !PyBool_Check(value));
        double number = !fits      ? 0
                        : is_float ? PyFloat_AsDouble(value)
                        : is_flag  ? value == Py_True
                                   : PyLong_AsDouble(value);
        Py_XDECREF(value);
        PyErr_Clear();
        if (!fits)
            return wrong(call, index, PyExc_TypeError, object, describe(ARG_NEURON));
        if (!(number >= attribute->least && number <= (is_float ? 0x1p127 : DSR_MOST_LEVELS))) {
            char expected[80];
            PyOS_snprintf(expected, sizeof expected, "a neuron whose '%s' is in [%s, %s]", attribute->name,
                          !is_float              ? "1"
                          : attribute->least > 0 ? "2**-149"
                                                 : "0",
                          is_float ? "2**127" : "255");
            return wrong(call, index, PyExc_ValueError, object, expected);
        }
        if (is_float)
            *(double *)to = number;
        else
            *(int *)to = (int)number;
    }
    return 0;
}

/* What a geometry has of attributes: one integer, or a tuple of `count`. */
static const struct {
    const char *name;
    size_t offset, count, least;
} geometry_integers[] = {
    {"kernel", offsetof(dsr_geometry, kernel), 2, 1},   {"stride", offsetof(dsr_geometry, stride), 2, 1},
    {"padding", offsetof(dsr_geometry, padding), 4, 0}, {"dilation", offsetof(dsr_geometry, dilation), 2, 1},
    {"spread", offsetof(dsr_geometry, spread), 2, 1},   {"groups", offsetof(dsr_geometry, groups), 1, 1}};

static int read_geometry(dsr_call *call, size_t index, PyObject *object) {
    char *geometry = target(call, index);
    for (size_t i = 0; i < sizeof geometry_integers / sizeof *geometry_integers; i++) {
        size_t count = geometry_integers[i].count, *to = (size_t *)(void *)(geometry + geometry_integers[i].offset);
        PyObject *attribute = PyObject_GetAttrString(object, geometry_integers[i].name);
        int fits =
            attribute && (count == 1 || (PyTuple_CheckExact(attribute) && (size_t)PyTuple_Size(attribute) == count));
        int in_range = 1;
        for (size_t j = 0; fits && j < count; j++) {
            PyObject *item = count == 1 ? attribute : PyTuple_GetItem(attribute, (Py_ssize_t)j);
            fits = PyLong_CheckExact(item);
            unsigned long long number = fits ? PyLong_AsUnsignedLongLong(item) : 0;
            in_range = in_range && !PyErr_Occurred() && number >= geometry_integers[i].least && number < 0x80000000u;
            PyErr_Clear();
            to[j] = (size_t)number;
        }
        Py_XDECREF(attribute);
        PyErr_Clear();
        if (!fits)
            return wrong(call, index, PyExc_TypeError, object, describe(ARG_GEOMETRY));
        if (!in_range) {
            char expected[80];
            PyOS_snprintf(expected, sizeof expected, "a Geometry whose '%s' is in [%zu, 2**31)",
                          geometry_integers[i].name, geometry_integers[i].least);
            return wrong(call, index, PyExc_ValueError, object, expected);
        }
    }
    return 0;
}

/* An array that is not as the table says; the text is made here, since making it takes longer than most checks. */
static int wrong_array(const dsr_call *call, size_t index, PyObject *error, PyObject *given) {
    const dsr_arg *argument = &call->arguments[index];
    char expected[160];
    PyOS_snprintf(expected, sizeof expected, "a %sC-contiguous %s array of %zu axes (%s)",
                  is_output(argument) ? "writable " : "", describe(argument->kind), strlen(argument->axes),
                  argument->axes);
    return wrong(call, index, error, given, expected);
}

static int read_array(dsr_call *call, size_t index, PyObject *object, int *real) {
    const dsr_arg *argument = &call->arguments[index];
    if ((argument->role == ARG_MAYBE || argument->role == ARG_MAYBE_OUT) && object == Py_None)
        return 0;
    size_t axes = strlen(argument->axes);
    if (!PyArray_Check(object))
        return wrong_array(call, index, PyExc_TypeError, object);
    PyArrayObject *array = (PyArrayObject *)object;
    int type = PyArray_TYPE(array);
    int fits = argument->kind == ARG_REAL ? type == NPY_FLOAT32 || type == NPY_FLOAT64
                                          : PyArray_EquivTypenums(type, numpy_type(argument->kind));
    if (!fits || !PyArray_ISNOTSWAPPED(array))
        return wrong_array(call, index, PyExc_TypeError, object);
    if (argument->kind == ARG_REAL) {
        if (*real && *real != type)
            return wrong(call, index, PyExc_TypeError, object, "the dtype of the other real arrays");
        *real = type;
        call->dtype = type == NPY_FLOAT32 ? DSR_F32 : DSR_F64;
    }
    if ((size_t)PyArray_NDIM(array) != axes || !PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISALIGNED(array) ||
        (is_output(argument) && !PyArray_ISWRITEABLE(array)))
        return wrong_array(call, index, PyExc_ValueError, object);
    for (size_t i = 0; i < axes; i++) {
        size_t letter = (size_t)(argument->axes[i] - 'A'), size = (size_t)PyArray_DIM(array, (int)i);
        if (call->axis_of[letter] && call->axis[letter] != size) {
            char expected[160];
            PyOS_snprintf(expected, sizeof expected, "axes (%s) with %zu elements on axis %c, as in '%s'",
                          argument->axes, call->axis[letter], argument->axes[i], call->axis_of[letter]);
            return wrong(call, index, PyExc_ValueError, object, expected);
        }
        if (argument->axes[i] == 'T' && size == 0)
            return wrong(call, index, PyExc_ValueError, object, "at least one time step on axis T");
        if (!call->axis_of[letter])
            call->axis_of[letter] = argument->name;
        call->axis[letter] = size;
    }
    *(void **)target(call, index) = PyArray_DATA(array);
    return 0;
}

void *dsr_memory_of(PyObject *array, size_t *elements) {
    *elements = (size_t)PyArray_SIZE((PyArrayObject *)array);
    return PyArray_DATA((PyArrayObject *)array);
}

static int overlap(PyObject *a, PyObject *b) {
    PyArrayObject *x = (PyArrayObject *)a, *y = (PyArrayObject *)b;
    const char *x0 = PyArray_DATA(x), *y0 = PyArray_DATA(y);
    return x0 < y0 + PyArray_NBYTES(y) && y0 < x0 + PyArray_NBYTES(x);
}

int dsr_read_arguments(dsr_call *call, PyObject *const *objects, Py_ssize_t given) {
    if ((size_t)given != call->count) {
        PyErr_Format(PyExc_TypeError, "%s: expected %zu arguments, got %zd", call->function, call->count, given);
        return -1;
    }
    int real = 0;
    /* numbers first: making one of an object may run its methods, which could take the memory of an array away */
    for (int arrays = 0; arrays < 2; arrays++)
        for (size_t i = 0; i < call->count; i++) {
            dsr_arg_kind kind = call->arguments[i].kind;
            if ((kind <= ARG_I64) != arrays)
                continue;
            int failed = kind <= ARG_I64      ? read_array(call, i, objects[i], &real)
                         : kind < ARG_COUNT   ? read_number(call, i, objects[i])
                         : kind < ARG_NEURON  ? read_integer(call, i, objects[i])
                         : kind == ARG_NEURON ? read_neuron(call, i, objects[i])
                                              : read_geometry(call, i, objects[i]);
            if (failed)
                return -1;
        }
    size_t outputs = 0, elements = 0;
    for (size_t i = 0; i < call->count; i++) {
        if (!is_output(&call->arguments[i]) || objects[i] == Py_None)
            continue;
        outputs++;
        elements += (size_t)PyArray_SIZE((PyArrayObject *)objects[i]);
        for (size_t j = 0; j < call->count; j++)
            if (j != i && call->arguments[j].kind <= ARG_I64 && objects[j] != Py_None &&
                overlap(objects[i], objects[j])) {
                PyErr_Format(PyExc_ValueError,
                             "%s: argument '%s': expected memory of its own, got memory shared with '%s'",
                             call->function, call->arguments[i].name, call->arguments[j].name);
                return -1;
            }
    }
    call->empty = outputs && !elements;
    return 0;
}
