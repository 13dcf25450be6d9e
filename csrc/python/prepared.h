/* Calls whose arguments are checked once, and which are made again and again on the same memory. */
#ifndef DSR_PREPARED_H
#define DSR_PREPARED_H

#include "bind.h"

/* Makes the type of prepared calls; once, at import. */
int dsr_make_prepared_type(void);

/* prepare(calls): from a tuple of tuples (function of this module, its arguments ...). Calling what it returns makes
 * all of these calls, in order, without the GIL. */
PyObject *dsr_prepare(PyObject *module, PyObject *calls);

/* The entry behind a function of this module; NULL, without an error, if it is anything else. */
const dsr_entry *dsr_entry_of(PyObject *function);

/* Sets the exception of a status that is not DSR_OK; NULL. */
PyObject *dsr_to_exception(const dsr_call *call, dsr_status status);

#endif
