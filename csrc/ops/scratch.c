/* Memory of the operations. */
#include "ops.h"

#include <stdlib.h>

void *dsr_scratch(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 64) / size)
        return NULL;
    size_t bytes = (count * size + 64) / 64 * 64; /* a whole number of alignments, as C11 requires */
    return aligned_alloc(64, bytes);
}
