/* Every kernel of one level and the table of them. A level file defines LEVEL and includes this; a kernel missing
 * here does not compile. */
#include "../dsr.h"

#include <string.h>

/* Vectors of the level. */
#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

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

#define DSR_PASTE(a, b) a##b
#define DSR_TABLE(level) DSR_PASTE(dsr_, level)
#define DSR_STRING(text) #text
#define DSR_LEVEL_NAME(level) DSR_STRING(level)
#define DSR_ENTRY(type, name, arguments) .name = name,

const dsr_kernels DSR_TABLE(LEVEL) = {.level = DSR_LEVEL_NAME(LEVEL), DSR_KERNELS(DSR_ENTRY)};
