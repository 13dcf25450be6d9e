/* Every kernel of one level and the table of them; a kernel missing here does not compile. A level file includes this
 * after it has told the compiler the instruction set, and has defined
 *   LEVEL            its name
 *   VECTOR_BYTES     the width of its vectors: clang's way to set the instruction set defines no macro to read it from
 *   VECTOR_REGISTER  the constraint of inline assembly for its registers, if it has vectors of that width for sure
 */
#include "../dsr.h"

#include <string.h>

#include "partials.h"
#include "random.h"

#define REAL float
#define NAME(stem) stem##_f32
#include "neuron_step.h"
#include "neuron.h"
#include "gradient.h"
#include "encode.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(stem) stem##_f64
#include "neuron_step.h"
#include "neuron.h"
#include "gradient.h"
#include "encode.h"
#undef REAL
#undef NAME

#include "spikes.h"
#include "norm.h"
#include "pool.h"
#include "optim.h"
#include "rows.h"
#include "neuron_rows.h"
#include "integer_rows.h"
#include "winograd.h"
#include "depthwise.h"

#ifdef VECTOR_REGISTER
/* Does not compile where a vector is not one register, since the instruction set did not reach the compiler. */
static __attribute__((used)) void vector_is_one_register(row_vector *vector) {
    __asm__("" : "+" VECTOR_REGISTER(*vector));
}
#endif

#define DSR_PASTE(a, b) a##b
#define DSR_TABLE(level) DSR_PASTE(dsr_, level)
#define DSR_STRING(text) #text
#define DSR_LEVEL_NAME(level) DSR_STRING(level)
#define DSR_ENTRY(type, name, arguments) .name = name,

const dsr_kernels DSR_TABLE(LEVEL) = {
    .level = DSR_LEVEL_NAME(LEVEL), .vector_bytes = VECTOR_BYTES, DSR_KERNELS(DSR_ENTRY)};
