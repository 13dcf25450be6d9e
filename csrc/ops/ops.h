/* Shared by the operations. Work is cut into pieces whose size depends on shapes only, so that the same sums are
 * taken in the same order for any number of threads. */
#ifndef DSR_OPS_H
#define DSR_OPS_H

#include "../dsr.h"

/* Threads for a region over `elements`: one where starting others costs more time than they save. */
int dsr_threads_for(size_t elements);

/* n elements are cut into blocks of `size`: how many there are, and how many elements block `index` has. */
static inline size_t dsr_blocks(size_t n, size_t size) {
    return n / size + (n % size != 0);
}

static inline size_t dsr_block_size(size_t n, size_t size, size_t index) {
    size_t rest = n - index * size;
    return rest < size ? rest : size;
}

/* 64-byte aligned memory, or NULL; size 0 gives memory too. */
void *dsr_scratch(size_t count, size_t size);
void dsr_release(void *memory);

#endif
