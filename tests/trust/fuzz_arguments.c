/* Coverage-guided fuzzing of every entry of dsr._core: bytes become a call. Built by fuzz.py together with csrc/.
 *
 * The sizes of all axes and numbers are drawn first, most of the time such that they fit together; then each argument
 * is made to fit, or one time in twenty twisted: other dtype, shape, strides, byte order, alignment, memory shared with
 * another argument, read-only, or no array at all. Every array lies in a malloc of exactly its bytes, so that
 * AddressSanitizer sees one byte too many.
 *
 * A call succeeds, or it ends in TypeError, ValueError or MemoryError with the entry's name before the message. Inputs
 * keep their bytes in both cases, and outputs, too, where the call was refused.
 *
 * DSR_FUZZ_SHOW=1 prints the arguments of each call; DSR_FUZZ_FAIL=1 makes the first call a finding. */
#include "python/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numpy/arrayobject.h>

PyMODINIT_FUNC PyInit__core(void);

/* ---- the input ------------------------------------------------------------------------------------------------- */
static const uint8_t *bytes;
static size_t bytes_left;

static unsigned take(void) {
    if (!bytes_left)
        return 0;
    bytes_left--;
    return *bytes++;
}

static uint64_t take_long(void) {
    uint64_t number = 0;
    for (int i = 0; i < 8; i++)
        number = number << 8 | take();
    return number;
}

/* One time in twenty. */
static int twisted(void) {
    return take() >= 243;
}

/* ---- a call being made ----------------------------------------------------------------------------------------- */
enum { MOST_ELEMENTS = 1 << 11, LARGE_CALL = 1 << 14, MOST_BYTES = 1 << 22, HUGE_SIZE = 0x7fffffff };
enum { MOST = 5 }; /* of count_steps */

typedef struct {
    char *data;
    size_t bytes;
    int output;
    uint64_t before;
} buffer;

static PyObject *functions[64], *raises[4], *subclass, *neuron_class;
static unsigned long calls, accepted, refused;

static const dsr_entry *entry;
static size_t sizes[26], stride, padding, table_bits, most_elements, dilation, spread, groups;
static buffer buffers[2 * DSR_MOST_ARGUMENTS];
static size_t buffer_count;

__attribute__((no_sanitize("address", "undefined", "coverage"))) static uint64_t checksum(const buffer *b) {
    uint64_t sum = 14695981039346656037u;
    for (size_t i = 0; i < b->bytes; i++)
        sum = (sum ^ (uint8_t)b->data[i]) * 1099511628211u;
    return sum;
}

static int is_named(const char *part) {
    return strstr(entry->name, part) != NULL;
}

static size_t words(size_t size) {
    return size / 32 + (size % 32 != 0);
}

#define SIZE(letter) sizes[(letter) - 'A']

static size_t windows(size_t *size, size_t kernel) {
    size_t reach = (kernel - 1) * dilation + 1;
    for (int i = 0; i < 2; i++) {
        size_t line = (*size ? (*size - 1) * spread + 1 : 0) + 2 * padding;
        if (line >= reach)
            return (line - reach) / stride + 1;
        *size = reach;
    }
    return 1;
}

/* What ties the axes of an entry together, as in csrc/python/. */
static void settle(void) {
    int pool = is_named("pool"), conv = is_named("conv2d");
    if (!conv)
        dilation = spread = groups = 1;
    if (spread > 1) {
        stride = 1;
        padding = padding % 2;
    }
    if (pool || conv) {
        SIZE('Y') = SIZE('Y') % 5 + 1;
        SIZE('X') = pool ? SIZE('Y') : SIZE('X') % 5 + 1;
        if (pool && padding > SIZE('Y') / 2)
            padding = SIZE('Y') / 2;
        SIZE('I') = windows(&SIZE('H'), SIZE('Y'));
        SIZE('J') = windows(&SIZE(is_named("spikes") ? 'V' : 'W'), SIZE('X'));
        if (SIZE('Y') * SIZE('X') > DSR_MOST_TAPS / table_bits)
            table_bits = 1;
    }
    if (conv) {
        SIZE('Z') = DSR_ROW;
        SIZE('C') = SIZE('G') * groups;
        SIZE('O') = SIZE('O') / groups * groups;
    }
    if (strcmp(entry->name, "transpose_words") == 0) {
        SIZE('C') = 32 * SIZE('W');
        SIZE('K') = words(SIZE('L'));
    } else if (strcmp(entry->name, "count_steps") == 0) {
        for (SIZE('J') = 0; MOST >> SIZE('J');)
            SIZE('J')++;
        for (SIZE('K') = 0; MOST * SIZE('T') >> SIZE('K');)
            SIZE('K')++;
    } else if (strcmp(entry->name, "pool_planes") == 0) {
        for (SIZE('K') = 0; SIZE('Y') * SIZE('Y') >> SIZE('K');)
            SIZE('K')++;
    } else if (strcmp(entry->name, "conv2d_spikes_weight_gradient") == 0) {
        SIZE('K') = words(SIZE('T') * SIZE('B'));
        SIZE('N') = 32 * words(SIZE('C'));
    } else if (is_named("words") || is_named("spikes")) {
        SIZE('W') = words(SIZE('C'));
        SIZE('K') = words(SIZE('O'));
    }
}

static size_t elements(const char *axes) {
    size_t product = 1;
    for (const char *axis = axes; *axis; axis++)
        if (SIZE(*axis) == 0)
            return 0;
    for (const char *axis = axes; *axis; axis++)
        product = product > most_elements ? product : product * SIZE(*axis);
    return product;
}

/* The largest axis of an array that is too large is cut until it is not. */
static int shrink(void) {
    for (size_t i = 0; i < entry->count; i++) {
        const char *axes = entry->arguments[i].axes, *largest = axes;
        if (!axes || elements(axes) <= most_elements)
            continue;
        for (const char *axis = axes; *axis; axis++)
            if (SIZE(*axis) > SIZE(*largest))
                largest = axis;
        SIZE(*largest) = SIZE(*largest) > 64 ? 64 : SIZE(*largest) / 2;
        return 1;
    }
    return 0;
}

static void draw_sizes(void) {
    static const size_t table[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 64, 65, 130, 520, 0, HUGE_SIZE};
    enum { COUNT = sizeof table / sizeof *table };
    for (size_t letter = 0; letter < 26; letter++)
        sizes[letter] = 1;
    int known[26] = {0};
    for (size_t i = 0; i < entry->count; i++)
        for (const char *axis = entry->arguments[i].axes; axis && *axis; axis++)
            if (!known[*axis - 'A']) {
                known[*axis - 'A'] = 1;
                SIZE(*axis) = table[take() % COUNT];
            }
    static const size_t strides[] = {1, 1, 1, 2, 3, 5, HUGE_SIZE}, paddings[] = {0, 1, 1, 2, 3, 7, HUGE_SIZE};
    stride = strides[take() % 7];
    padding = paddings[take() % 7];
    dilation = strides[take() % 7];
    spread = strides[take() % 7];
    groups = strides[take() % 6];
    table_bits = (size_t)1 << take() % 3;
    if (SIZE('T') == 0)
        SIZE('T') = 1;
    if (SIZE('S') != 1)
        SIZE('S') = SIZE('T');
    most_elements = take() % 8 == 7 ? LARGE_CALL : MOST_ELEMENTS;
    int fitting = !twisted(), rounds = 0;
    do {
        if (rounds++ == 100) { /* a padding or a spread that makes each image too large */
            padding = 0;
            dilation = spread = groups = 1;
            for (size_t letter = 0; letter < 26; letter++)
                sizes[letter] = 1;
        }
        if (fitting)
            settle();
    } while (shrink());
}

/* ---- arguments ------------------------------------------------------------------------------------------------- */
static PyObject *make_double(uint64_t bits) {
    double number;
    memcpy(&number, &bits, sizeof number);
    return PyFloat_FromDouble(number);
}

/* Things that rarely fit. */
static PyObject *make_garbage(void) {
    static const char *const numbers[] = {
        "-1", "2147483647", "2147483648", "9223372036854775808", "18446744073709551615", "18446744073709551616"};
    unsigned choice = take() % 20;
    if (choice < 6)
        return PyLong_FromString(numbers[choice], NULL, 10);
    switch (choice) {
    case 6:
        return Py_NewRef(Py_None);
    case 7:
        return Py_NewRef(Py_True);
    case 8:
        return PyUnicode_FromString("text");
    case 9:
        return PyBytes_FromStringAndSize("bytes 12", 8);
    case 10:
        return PyList_New(0);
    case 11:
        return Py_BuildValue("[[d],[d,i]]", 1.0, 2.0, 3);
    case 12:
        return PyComplex_FromDoubles(1, 2);
    case 13:
    case 14:
        return Py_NewRef(raises[take() % 4]);
    case 15: {
        npy_intp shape[32];
        unsigned axes = take() % 33;
        for (unsigned i = 0; i < axes; i++)
            shape[i] = 1 + (i < 3 && take() % 4 == 0);
        return PyArray_SimpleNew((int)axes, shape, NPY_FLOAT32);
    }
    case 16:
        return PyLong_FromString("1000000000000000000000000000000000000000000000000000000000000000000000000", NULL, 36);
    case 17: {
        npy_intp shape[] = {take() % 3, 2, 2};
        return PyArray_ZEROS((int)(take() % 4), shape, NPY_OBJECT, 0);
    }
    default:
        return make_double(take_long());
    }
}

/* An object with the attributes of a neuron; a twist leaves one out or makes it wrong. */
static PyObject *make_neuron(void) {
    static const double values[] = {1, 0.5, 2, 0.1, 0x1p-149, 0x1p127};
    static const long levels[] = {1, 1, 1, 2, 3, 255};
    PyObject *neuron = PyObject_CallNoArgs(neuron_class);
    unsigned few = take() % 2 ? 6 : 1; /* ones only: neurons without a leak */
    for (const dsr_attribute *attribute = dsr_neuron_attributes; neuron && attribute->name; attribute++) {
        PyObject *value = twisted()                              ? make_garbage()
                          : attribute->kind == ATTRIBUTE_FLAG    ? PyBool_FromLong(take() % 2)
                          : attribute->kind == ATTRIBUTE_INTEGER ? PyLong_FromLong(levels[take() % few])
                                                                 : PyFloat_FromDouble(values[take() % few]);
        if (!value || (!twisted() && PyObject_SetAttrString(neuron, attribute->name, value) < 0))
            PyErr_Clear();
        Py_XDECREF(value);
    }
    return neuron;
}

/* An object with the attributes of a geometry; a twist as above. */
static PyObject *make_geometry(void) {
    static const char *const names[] = {"kernel", "stride", "dilation", "spread", "padding", "groups"};
    PyObject *values[] = {Py_BuildValue("nn", SIZE('Y'), SIZE('X')),
                          Py_BuildValue("nn", stride, stride),
                          Py_BuildValue("nn", dilation, dilation),
                          Py_BuildValue("nn", spread, spread),
                          Py_BuildValue("nnnn", padding, padding, padding, padding),
                          PyLong_FromSize_t(groups)};
    PyObject *geometry = PyObject_CallNoArgs(neuron_class);
    for (int i = 0; i < 6; i++) {
        PyObject *value = twisted() ? make_garbage() : Py_XNewRef(values[i]);
        if (!value || !geometry || (!twisted() && PyObject_SetAttrString(geometry, names[i], value) < 0))
            PyErr_Clear();
        Py_XDECREF(value);
        Py_XDECREF(values[i]);
    }
    return geometry;
}

static PyObject *make_number(const dsr_arg *argument) {
    if (twisted())
        return make_garbage();
    if (strcmp(argument->name, "kernel_size") == 0)
        return PyLong_FromSize_t(SIZE('Y'));
    if (strcmp(argument->name, "stride") == 0)
        return PyLong_FromSize_t(stride);
    if (strcmp(argument->name, "padding") == 0)
        return PyLong_FromSize_t(padding);
    if (strcmp(argument->name, "table_bits") == 0)
        return PyLong_FromSize_t(table_bits);
    if (strcmp(argument->name, "most") == 0)
        return PyLong_FromLong(MOST);
    if (strcmp(argument->name, "timesteps") == 0)
        return PyLong_FromSize_t(SIZE('T'));
    static const double positive[] = {1, 0.5, 2, 0.1, 3.7, 0x1p-126, 0x1p126, 1e-3, 1e30};
    switch (argument->kind) {
    case ARG_NEURON:
        return make_neuron();
    case ARG_GEOMETRY:
        return make_geometry();
    case ARG_POSITIVE:
        return PyFloat_FromDouble(positive[take() % 9]);
    case ARG_NUMBER:
        return PyFloat_FromDouble(positive[take() % 9] * ((int)(take() % 3) - 1));
    case ARG_CHANCE:
        return PyFloat_FromDouble(take() / 255.0);
    case ARG_COUNT:
        return PyLong_FromLong(take() % 8 == 7 ? HUGE_SIZE : (long)(take() % 40) + 1);
    case ARG_SIZE:
        return PyLong_FromLong(take() % 3);
    default:
        return PyLong_FromUnsignedLongLong(take_long());
    }
}

/* Values of an array: small numbers, or any bits (NaN, infinity), or zeros. */
__attribute__((no_sanitize("address", "undefined", "coverage"))) static void fill(buffer *b, int type) {
    unsigned mode = take() % 4;
    uint64_t state = take() + 1;
    if (mode == 0 || type == NPY_OBJECT) {
        memset(b->data, 0, b->bytes);
        return;
    }
    for (size_t i = 0; i < b->bytes; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->data[i] = (char)(state >> 56);
    }
    if (mode == 3)
        return;
    if (type == NPY_FLOAT32)
        for (size_t i = 0; i + 4 <= b->bytes; i += 4)
            memcpy(b->data + i, &(float){(float)(b->data[i] / 64.0)}, 4);
    if (type == NPY_FLOAT64)
        for (size_t i = 0; i + 8 <= b->bytes; i += 8)
            memcpy(b->data + i, &(double){b->data[i] / 64.0}, 8);
}

static buffer *add_buffer(size_t count, int output) {
    buffer *b = &buffers[buffer_count];
    b->data = malloc(count);
    if (!b->data)
        return NULL;
    b->bytes = count;
    b->output = output;
    buffer_count++;
    return b;
}

static PyObject *make_array(const dsr_arg *argument, int real) {
    static const int types[] = {NPY_FLOAT32, NPY_FLOAT64,  NPY_UINT32, NPY_INT64, NPY_INT32,      NPY_HALF,
                                NPY_BOOL,    NPY_LONGLONG, NPY_UINT64, NPY_INT8,  NPY_LONGDOUBLE, NPY_CFLOAT};
    if ((argument->role == ARG_MAYBE || argument->role == ARG_MAYBE_OUT) && take() % 3 == 0)
        return Py_NewRef(Py_None);
    int type = argument->kind == ARG_REAL  ? real
               : argument->kind == ARG_F32 ? NPY_FLOAT32
               : argument->kind == ARG_F64 ? NPY_FLOAT64
               : argument->kind == ARG_U32 ? NPY_UINT32
                                           : NPY_INT64;
    npy_intp shape[8], steps[8];
    int axes = 0, flags = NPY_ARRAY_WRITEABLE, swap = 0, as_subclass = 0;
    size_t skipped = 0, first = 0; /* bytes before the array, and from its start to element 0 */
    for (const char *axis = argument->axes; *axis; axis++)
        shape[axes++] = (npy_intp)SIZE(*axis);
    unsigned twist = twisted() ? take() % 13 + 1 : 0;
    if (twist == 1)
        return make_garbage();
    if (twist == 2)
        type = types[take() % 12];
    if (twist == 3 && axes > 1)
        axes--;
    if (twist == 4)
        shape[axes++] = take() % 3;
    if (twist == 5)
        shape[take() % (unsigned)axes] += (int)(take() % 3) - 1;
    if (twist == 6)
        flags = 0;
    if (twist == 7)
        swap = 1;
    if (twist == 8)
        skipped = 1 + take() % 3;
    if (twist == 9)
        as_subclass = 1;
    PyArray_Descr *descr = PyArray_DescrFromType(type);
    size_t each = (size_t)PyDataType_ELSIZE(descr), total = each;
    for (int i = axes - 1; i >= 0; i--) {
        if (shape[i] < 0)
            shape[i] = 0;
        steps[i] = (npy_intp)total;
        total *= (size_t)shape[i] ? (size_t)shape[i] : 1;
    }
    for (int i = 0; i < axes; i++)
        total = shape[i] ? total : 0;
    if (total > MOST_BYTES) /* an axis of HUGE_SIZE beside one that a twist has made longer than 0 */
        total = 0, shape[0] = 0;
    char *data = NULL;
    if (twist == 10 && axes > 1 && total) { /* transposed */
        int a = (int)(take() % (unsigned)axes), b = (int)(take() % (unsigned)axes);
        npy_intp size = shape[a], step = steps[a];
        shape[a] = shape[b], steps[a] = steps[b], shape[b] = size, steps[b] = step;
    } else if (twist == 11 && total) /* every element the same */
        memset(steps, 0, sizeof steps);
    else if (twist == 12 && total && axes) { /* backwards */
        int a = (int)(take() % (unsigned)axes);
        first = (size_t)((shape[a] - 1) * steps[a]);
        steps[a] = -steps[a];
    } else if (twist == 13 && buffer_count) { /* in the memory of another argument */
        buffer *other = &buffers[take() % buffer_count];
        if (other->bytes >= total) {
            size_t offset = (other->bytes - total) / 8 * (take() % 9);
            data = other->data + (take() % 8 ? offset / each * each : offset);
            if (argument->role == ARG_OUT || argument->role == ARG_MAYBE_OUT)
                other->output = 1;
        }
    }
    if (!data) {
        buffer *b = add_buffer(skipped + total, argument->role == ARG_OUT || argument->role == ARG_MAYBE_OUT);
        if (!b)
            return Py_NewRef(Py_None);
        fill(b, type);
        data = b->data + skipped + first;
    }
    if (swap)
        Py_SETREF(descr, PyArray_DescrNewByteorder(descr, NPY_SWAP));
    return PyArray_NewFromDescr(as_subclass ? (PyTypeObject *)subclass : &PyArray_Type, descr, axes, shape, steps, data,
                                flags, NULL);
}

/* ---- the call and what must hold afterwards --------------------------------------------------------------------- */
static void fail(const char *what) {
    fprintf(stderr, "FINDING %s: %s\n", entry ? entry->name : "set_threads", what);
    if (PyErr_Occurred())
        PyErr_Print();
    abort();
}

static void check_error(const char *name) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
        !PyErr_ExceptionMatches(PyExc_MemoryError))
        fail("an error of an undocumented kind");
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : NULL;
    const char *message = text ? PyUnicode_AsUTF8AndSize(text, NULL) : "";
    size_t length = strlen(name);
    if (!message || strncmp(message, name, length) != 0 || message[length] != ':') {
        fprintf(stderr, "the message: %s\n", message ? message : "not a text");
        fail("a message that does not begin with the name");
    }
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

static void show(PyObject **arguments, size_t given) {
    for (size_t i = 0; i < given; i++) {
        PyObject *text = dsr_describe_given(arguments[i]);
        const char *shown = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
        fprintf(stderr, "%s %s: %s\n", entry->name, i < entry->count ? entry->arguments[i].name : "one too many",
                shown ? shown : "?");
        Py_XDECREF(text);
        PyErr_Clear();
    }
}

static void call_entry_of_input(size_t index) {
    PyObject *arguments[DSR_MOST_ARGUMENTS + 1] = {0};
    entry = dsr_entries[index];
    draw_sizes();
    int real = take() % 2 ? NPY_FLOAT32 : NPY_FLOAT64;
    for (size_t i = 0; i < entry->count; i++) {
        arguments[i] = i && take() == 255                    ? Py_NewRef(arguments[take() % i])
                       : entry->arguments[i].kind <= ARG_I64 ? make_array(&entry->arguments[i], real)
                                                             : make_number(&entry->arguments[i]);
        if (!arguments[i]) { /* a shape that is too much for NumPy */
            PyErr_Clear();
            arguments[i] = Py_NewRef(Py_None);
        }
    }
    size_t given = entry->count;
    if (take() == 255) {
        given = take() % (entry->count + 2);
        if (given > entry->count)
            arguments[entry->count] = Py_NewRef(Py_None);
    }
    for (size_t i = 0; i < buffer_count; i++)
        buffers[i].before = checksum(&buffers[i]);
    if (getenv("DSR_FUZZ_SHOW"))
        show(arguments, given);
    PyObject *result = PyObject_Vectorcall(functions[index], arguments, given, NULL);
    calls++;
    if (getenv("DSR_FUZZ_FAIL"))
        fail("told to");
    int changes = result != NULL;
    if (result) {
        accepted++;
        if (entry->returns == RETURNS_NUMBER ? !PyFloat_CheckExact(result) : result != Py_None)
            fail("an unexpected result");
        Py_DECREF(result);
    } else {
        refused++;
        changes = PyErr_ExceptionMatches(PyExc_MemoryError);
        check_error(entry->name);
    }
    for (size_t i = 0; i < buffer_count; i++)
        if (!(changes && buffers[i].output) && checksum(&buffers[i]) != buffers[i].before)
            fail(changes ? "an input was changed" : "a refused call changed an array");
    for (size_t i = 0; i < DSR_MOST_ARGUMENTS + 1; i++)
        Py_XDECREF(arguments[i]);
    for (size_t i = 0; i < buffer_count; i++)
        free(buffers[i].data);
    buffer_count = 0;
}

static void call_set_threads(void) {
    entry = NULL;
    PyObject *number = take() % 2 ? PyLong_FromLong((long)(take() % 4)) : make_garbage();
    PyObject *result = PyObject_CallOneArg(functions[DSR_ENTRY_COUNT], number);
    if (!result)
        check_error("set_threads");
    Py_XDECREF(result);
    Py_DECREF(number);
    /* not as many threads as garbage may ask for */
    result = PyObject_CallFunction(functions[DSR_ENTRY_COUNT], "i", 2);
    Py_XDECREF(result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes = data;
    bytes_left = size;
    unsigned many = take() % 3 + 1; /* calls after each other */
    while (many-- && bytes_left) {
        size_t index = take() % (DSR_ENTRY_COUNT + 1);
        if (index == DSR_ENTRY_COUNT)
            call_set_threads();
        else
            call_entry_of_input(index);
        if (PyErr_Occurred())
            fail("an error left behind");
    }
    return 0;
}

/* ---- setting up ------------------------------------------------------------------------------------------------- */
static const char PREPARE[] = "import numpy\n"
                              "class Subclass(numpy.ndarray): pass\n"
                              "def raising(error):\n"
                              "    def fail(self): raise error\n"
                              "    return type('Raises', (), dict.fromkeys(('__float__', '__index__', '__repr__',\n"
                              "        '__array__', '__len__'), fail))()\n"
                              "class Neuron: pass\n"
                              "objects = [raising(e) for e in (OverflowError(), ZeroDivisionError(), ValueError(),\n"
                              "    KeyboardInterrupt())]\n";

static void report(void) {
    fprintf(stderr, "calls: %lu, accepted: %lu, refused: %lu\n", calls, accepted, refused);
}

static int prepare(void) {
    import_array1(-1);
    PyObject *module = PyImport_ImportModule("_core"), *main_module = PyImport_AddModule("__main__");
    if (!module || !main_module)
        return -1;
    for (size_t i = 0; i < DSR_ENTRY_COUNT; i++)
        functions[i] = PyObject_GetAttrString(module, dsr_entries[i]->name);
    functions[DSR_ENTRY_COUNT] = PyObject_GetAttrString(module, "set_threads");
    PyObject *globals = PyModule_GetDict(main_module);
    PyObject *code = Py_CompileString(PREPARE, "prepare", Py_file_input);
    PyObject *done = code ? PyEval_EvalCode(code, globals, globals) : NULL;
    PyObject *objects = done ? PyDict_GetItemString(globals, "objects") : NULL;
    subclass = done ? PyDict_GetItemString(globals, "Subclass") : NULL;
    neuron_class = done ? PyDict_GetItemString(globals, "Neuron") : NULL;
    if (!objects || !subclass || !neuron_class)
        return -1;
    for (Py_ssize_t i = 0; i < 4; i++)
        raises[i] = PyList_GetItem(objects, i);
    return DSR_ENTRY_COUNT < sizeof functions / sizeof *functions ? 0 : -1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    PyImport_AppendInittab("_core", PyInit__core);
    Py_InitializeEx(0);
    if (prepare() < 0) {
        PyErr_Print();
        exit(3);
    }
    dsr_set_threads(2);
    atexit(report);
    return 0;
}
