/* Optimisers, shared out in chunks. */
#include "ops.h"

enum { CHUNK = 1 << 14 };

dsr_status dsr_sgd_update(float *value, const float *grad, float *buffer, size_t n, dsr_sgd sgd) {
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(n))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)dsr_blocks(n, CHUNK); i++) {
        size_t at = (size_t)i * CHUNK;
        dsr_kernel->sgd_update(value + at, grad + at, buffer + at, dsr_block_size(n, CHUNK, (size_t)i), sgd);
    }
    return DSR_OK;
}
