/* The module dsr._core: the table of bind.h as functions, and a few questions about the build. */
#include "prepared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

PyObject *dsr_to_exception(const dsr_call *call, dsr_status status) {
    if (status == DSR_NO_MEMORY)
        return PyErr_Format(PyExc_MemoryError, "%s: no memory for scratch space", call->function);
    if (status == DSR_TOO_LARGE) { /* the channels of a weight gradient, or the time steps of neurons */
        char axis = AXIS_OF(call, 'T') && AXIS_OF(call, 'W') ? 'T' : 'N';
        return PyErr_Format(PyExc_ValueError,
                            "%s: argument '%s': expected fewer elements on axis %c, so that a tile of the convolution "
                            "selects fewer than 2**32 rows of weights, got %zu",
                            call->function, AXIS_OF(call, axis), axis, AXIS(call, axis));
    }
    return PyErr_Format(PyExc_SystemError, "%s: unknown status %d", call->function, (int)status);
}

/* Every function of the table: `self` is a capsule around its entry. */
static PyObject *call_entry(PyObject *self, PyObject *const *objects, Py_ssize_t given) {
    const dsr_entry *entry = PyCapsule_GetPointer(self, "dsr._core.entry");
    if (!entry)
        return NULL;
    dsr_call call = {.function = entry->name, .arguments = entry->arguments, .count = entry->count};
    if (dsr_read_arguments(&call, objects, given) < 0 || (entry->check && entry->check(&call) < 0))
        return NULL;
    if (call.empty &&
        entry->returns == RETURNS_NOTHING) /* other axes may be as long as they like, without an element in sight */
        Py_RETURN_NONE;
    dsr_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = entry->run(&call);
    Py_END_ALLOW_THREADS;
    if (status != DSR_OK)
        return dsr_to_exception(&call, status);
    if (entry->returns == RETURNS_NUMBER)
        return PyFloat_FromDouble(call.result);
    Py_RETURN_NONE;
}

const dsr_entry *dsr_entry_of(PyObject *function) {
    PyObject *capsule = PyCFunction_CheckExact(function) ? PyCFunction_GetSelf(function) : NULL;
    return capsule && PyCapsule_IsValid(capsule, "dsr._core.entry") ? PyCapsule_GetPointer(capsule, "dsr._core.entry")
                                                                    : NULL;
}

static PyObject *get_level(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyUnicode_FromString(dsr_kernel->level);
}

static PyObject *get_threads(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromLong(dsr_get_threads());
}

static PyObject *set_threads(PyObject *module, PyObject *number) {
    (void)module;
    PyObject *integer = PyNumber_Index(number);
    long threads = integer ? PyLong_AsLong(integer) : -1;
    int is_integer = integer != NULL;
    Py_XDECREF(integer);
    PyErr_Clear();
    if (threads < 1 || threads > DSR_MOST_THREADS) {
        PyObject *given = dsr_describe_given(number);
        if (given)
            PyErr_Format(is_integer ? PyExc_ValueError : PyExc_TypeError,
                         "set_threads: argument 'threads': expected an integer in [1, %d], got %U", DSR_MOST_THREADS,
                         given);
        Py_XDECREF(given);
        return NULL;
    }
    dsr_set_threads((int)threads);
    Py_RETURN_NONE;
}

static PyObject *get_blas(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return Py_BuildValue("(ss)", dsr_blas_config(), dsr_blas_kernel());
}

static PyObject *tuple_of(const char *const *names, size_t count) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple && i < count; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyTuple_SetItem(tuple, (Py_ssize_t)i, name) < 0) {
            Py_CLEAR(tuple);
        }
    }
    return tuple;
}

static PyObject *get_kernels(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#define KERNEL_NAME(type, name, arguments) #name,
    static const char *const names[] = {DSR_KERNELS(KERNEL_NAME)};
    return tuple_of(names, sizeof names / sizeof *names);
}

static PyObject *get_levels(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#define LEVEL_NAME(name, supported) #name,
    static const char *const names[] = {DSR_LEVELS(LEVEL_NAME)};
    return tuple_of(names, sizeof names / sizeof *names);
}

static PyObject *get_vectors(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#define VECTOR_BYTES_OF_LEVEL(name, supported) dsr_##name.vector_bytes,
    const size_t bytes[] = {DSR_LEVELS(VECTOR_BYTES_OF_LEVEL)};
    Py_ssize_t count = sizeof bytes / sizeof *bytes;
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++) {
        PyObject *number = PyLong_FromSize_t(bytes[i]);
        if (!number || PyTuple_SetItem(tuple, i, number) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *get_compiler(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#if defined(__clang__)
    return PyUnicode_FromString("clang " __clang_version__);
#else
    return PyUnicode_FromString("gcc " __VERSION__);
#endif
}

static PyObject *get_openmp(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return Py_BuildValue("(iz)", dsr_openmp_version(), dsr_openmp_library());
}

static PyMethodDef methods[] = {
    {"level", get_level, METH_NOARGS, "level()\n--\n\nstr: the instruction level in use"},
    {"levels", get_levels, METH_NOARGS, "levels()\n--\n\nthe instruction levels of this build, the lowest first"},
    {"vectors", get_vectors, METH_NOARGS, "vectors()\n--\n\nthe bytes of the vectors of each level, in this order"},
    {"compiler", get_compiler, METH_NOARGS, "compiler()\n--\n\nstr: name and version of the compiler of this build"},
    {"openmp", get_openmp, METH_NOARGS,
     "openmp()\n--\n\nthe date of OpenMP's specification, 0 where this build has none, and the library's file if "
     "known"},
    {"threads", get_threads, METH_NOARGS, "threads()\n--\n\nint: threads of the regions that follow"},
    {"set_threads", set_threads, METH_O, "set_threads(threads, /)\n--\n\nFor every thread of the process."},
    {"blas", get_blas, METH_NOARGS, "blas()\n--\n\nthe configuration and the kernel of OpenBLAS"},
    {"kernels", get_kernels, METH_NOARGS, "kernels()\n--\n\nnames of the kernels that each level has"},
    {"prepare", dsr_prepare, METH_O,
     "prepare(calls, /)\n--\n\nA call without arguments that makes all of these, checked now: tuples of a function of "
     "this module and its arguments."},
    {NULL, NULL, 0, NULL},
};

/* "name(first, second, /)" as inspect.signature reads it; malloc'ed. */
static char *signature(const dsr_entry *entry) {
    static const char end[] = ", /)\n--\n\n";
    size_t length = strlen(entry->name) + 1 + sizeof end;
    for (size_t i = 0; i < entry->count; i++)
        length += strlen(entry->arguments[i].name) + 2;
    char *text = malloc(length);
    if (!text)
        return NULL;
    char *to = text + sprintf(text, "%s(", entry->name);
    for (size_t i = 0; i < entry->count; i++)
        to += sprintf(to, i ? ", %s" : "%s", entry->arguments[i].name);
    memcpy(to, end, sizeof end);
    return text;
}

/* Made at the first import, and kept as long as the process: functions point to them. */
static PyMethodDef *definitions;

static int make_definitions(void) {
    PyMethodDef *made = calloc(DSR_ENTRY_COUNT, sizeof *made);
    for (size_t i = 0; made && i < DSR_ENTRY_COUNT; i++) {
        char *doc = signature(dsr_entries[i]);
        made[i] = (PyMethodDef){dsr_entries[i]->name, (PyCFunction)(void (*)(void))call_entry, METH_FASTCALL, doc};
        if (!doc) {
            while (i--)
                free((void *)made[i].ml_doc);
            free(made);
            made = NULL;
        }
    }
    definitions = made;
    return made ? 0 : -1;
}

static int add_entries(PyObject *module) {
    if (!definitions && make_definitions() < 0) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < DSR_ENTRY_COUNT; i++) {
        PyObject *capsule = PyCapsule_New((void *)dsr_entries[i], "dsr._core.entry", NULL);
        PyObject *function = capsule ? PyCFunction_NewEx(&definitions[i], capsule, NULL) : NULL;
        Py_XDECREF(capsule);
        int failed = !function || PyModule_AddObjectRef(module, dsr_entries[i]->name, function) < 0;
        Py_XDECREF(function);
        if (failed)
            return -1;
    }
    return 0;
}

static int execute(PyObject *module) {
    if (dsr_load_numpy() < 0 || dsr_make_prepared_type() < 0)
        return -1;
    const char *wanted = getenv("DSR_LEVEL");
    if (!dsr_select_level(wanted && *wanted ? wanted : NULL)) {
#define LISTED_LEVEL(name, supported) ", " #name
        PyErr_Format(PyExc_ValueError, "DSR_LEVEL: expected one of %s, got '%s'", &(DSR_LEVELS(LISTED_LEVEL))[2],
                     wanted);
        return -1;
    }
    dsr_threads_setup();
    return add_entries(module);
}

/* Slot 3 is Py_mod_multiple_interpreters, of Python 3.12; its value 0 says that sub-interpreters are not supported
 * (NumPy's are not). Older versions refuse the slot, so it is left out there. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "dsr._core", .m_doc = "The compiled part of dsr; see dsr.functional.",
    .m_methods = methods,  .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) {
    if (Py_Version >= 0x030C0000)
        slots[sizeof slots / sizeof *slots - 2] = (PyModuleDef_Slot){3, NULL};
    return PyModuleDef_Init(&definition);
}
