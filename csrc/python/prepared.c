#include "prepared.h"

typedef struct {
    const dsr_entry *entry;
    dsr_call call;
    PyObject *arrays[DSR_MOST_ARGUMENTS]; /* NULL: no array; they live as long as `kept` does */
    size_t sizes[DSR_MOST_ARGUMENTS];
} prepared_call;

typedef struct {
    PyObject_HEAD PyObject *kept; /* the tuple of calls */
    prepared_call *calls;
    size_t count;
} prepared;

static PyTypeObject *prepared_type;

static int prepare_call(prepared_call *to, PyObject *given) {
    const dsr_entry *entry =
        PyTuple_CheckExact(given) && PyTuple_Size(given) > 0 ? dsr_entry_of(PyTuple_GetItem(given, 0)) : NULL;
    if (!entry || entry->returns != RETURNS_NOTHING) {
        PyErr_SetString(PyExc_TypeError, "prepare: argument 'calls': expected tuples of a function of dsr._core that "
                                         "returns None and its arguments");
        return -1;
    }
    PyObject *objects[DSR_MOST_ARGUMENTS] = {NULL};
    size_t count = (size_t)PyTuple_Size(given) - 1;
    for (size_t i = 0; i < count && i < DSR_MOST_ARGUMENTS; i++)
        objects[i] = PyTuple_GetItem(given, (Py_ssize_t)i + 1);
    to->entry = entry;
    to->call = (dsr_call){.function = entry->name, .arguments = entry->arguments, .count = entry->count};
    if (dsr_read_arguments(&to->call, objects, (Py_ssize_t)count) < 0 || (entry->check && entry->check(&to->call) < 0))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (entry->arguments[i].axes && objects[i] != Py_None) {
            to->arrays[i] = objects[i];
            dsr_memory_of(objects[i], &to->sizes[i]);
        }
    return 0;
}

PyObject *dsr_prepare(PyObject *module, PyObject *calls) {
    (void)module;
    if (!PyTuple_CheckExact(calls))
        return PyErr_Format(PyExc_TypeError, "prepare: argument 'calls': expected a tuple of calls");
    prepared *made = PyObject_New(prepared, prepared_type);
    if (!made)
        return NULL;
    size_t count = (size_t)PyTuple_Size(calls);
    made->kept = Py_NewRef(calls);
    made->count = count;
    made->calls = PyMem_Calloc(count ? count : 1, sizeof *made->calls);
    int failed = !made->calls;
    if (failed)
        PyErr_NoMemory();
    for (size_t i = 0; !failed && i < count; i++)
        failed = prepare_call(&made->calls[i], PyTuple_GetItem(calls, (Py_ssize_t)i)) < 0;
    if (failed)
        Py_CLEAR(made);
    return (PyObject *)made;
}

/* ndarray.resize(refcheck=False) takes the memory of an array away although a call refers to it. */
static int memory_is_there(const prepared_call *p) {
    for (size_t i = 0; i < p->call.count; i++) {
        if (!p->arrays[i])
            continue;
        void *const *wanted = (void *const *)(const void *)(p->call.values + p->call.arguments[i].offset);
        size_t size;
        if (dsr_memory_of(p->arrays[i], &size) == *wanted && size == p->sizes[i])
            continue;
        PyErr_Format(PyExc_RuntimeError,
                     "%s: argument '%s': expected the memory that the call was prepared with, but "
                     "the array has other memory now",
                     p->call.function, p->call.arguments[i].name);
        return 0;
    }
    return 1;
}

static PyObject *run_prepared(PyObject *self, PyObject *arguments, PyObject *keywords) {
    prepared *p = (prepared *)self;
    if (PyTuple_Size(arguments) || (keywords && PyDict_Size(keywords)))
        return PyErr_Format(PyExc_TypeError, "prepared calls: expected no arguments");
    for (size_t i = 0; i < p->count; i++)
        if (!memory_is_there(&p->calls[i]))
            return NULL;
    size_t done = 0;
    dsr_status status = DSR_OK;
    Py_BEGIN_ALLOW_THREADS;
    for (; done < p->count; done++) {
        prepared_call *each = &p->calls[done];
        status = each->call.empty ? DSR_OK : each->entry->run(&each->call);
        if (status != DSR_OK)
            break;
    }
    Py_END_ALLOW_THREADS;
    if (status != DSR_OK)
        return dsr_to_exception(&p->calls[done].call, status);
    Py_RETURN_NONE;
}

static void release(PyObject *self) {
    prepared *p = (prepared *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(p->calls);
    Py_XDECREF(p->kept);
    PyObject_Free(self);
    Py_DECREF(type);
}

int dsr_make_prepared_type(void) {
    static PyType_Slot slots[] = {{Py_tp_call, run_prepared},
                                  {Py_tp_dealloc, release},
                                  {Py_tp_doc, "Calls of this module whose arguments are bound; see prepare."},
                                  {0, NULL}};
    static PyType_Spec spec = {.name = "dsr._core.Prepared",
                               .basicsize = sizeof(prepared),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                               .slots = slots};
    if (!prepared_type)
        prepared_type = (PyTypeObject *)PyType_FromSpec(&spec);
    return prepared_type ? 0 : -1;
}
