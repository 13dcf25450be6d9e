/* Whether two arrays have the same bits: a copy of weights, and the weights as they are now. */
#include "ops.h"

#include <string.h>

enum { COMPARED = 1 << 16 };

dsr_status dsr_compare(const float *a, const float *b, size_t n, double *different) {
    double tiles = 0; /* exact: a whole number below 2^53 */
#pragma omp parallel for schedule(static) reduction(+ : tiles) num_threads(dsr_threads_for(n / 8))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)dsr_blocks(n, COMPARED); i++) {
        size_t at = (size_t)i * COMPARED;
        tiles += memcmp(a + at, b + at, dsr_block_size(n, COMPARED, (size_t)i) * sizeof *a) != 0;
    }
    *different = tiles;
    return DSR_OK;
}
