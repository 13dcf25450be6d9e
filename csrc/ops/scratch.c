/* Memory of the operations. */
#include "ops.h"

#include <stdlib.h>
#ifdef _WIN32
    #include <malloc.h>
#endif

void *dsr_scratch(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 64) / size)
        return NULL;
    size_t bytes = (count * size + 64) / 64 * 64; /* a whole number of alignments, as C11 requires */
#ifdef _WIN32
    return _aligned_malloc(bytes, 64);
#else
    return aligned_alloc(64, bytes);
#endif
}

void dsr_release(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}
