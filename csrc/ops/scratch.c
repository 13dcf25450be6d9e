/* Memory of the operations. Small blocks are kept for the next operation: malloc would put them together, and take them
 * apart again, in a time that is a tenth of a call for one sample. */
#include "ops.h"

#include <stdatomic.h>
#include <stdlib.h>
#ifdef _WIN32
    #include <malloc.h>
#endif

/* Sizes of blocks that are kept are powers of two, the largest 256 KiB; at most so many of each, 2 MiB in all. */
enum { SMALLEST_BITS = 8, SIZES = 11, KEPT = 4, HEADER = 64 };

/* A sanitizer has to see each block come and go. gcc says by a macro that it is at work, clang by a feature. */
#if defined(__SANITIZE_ADDRESS__)
    #define SANITIZED 1
#elif defined(__has_feature)
    #if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
        #define SANITIZED 1
    #endif
#endif
#ifndef SANITIZED
    #define SANITIZED 0
#endif

static _Atomic(void *) kept[SIZES][KEPT];

static void *allocate(size_t bytes) {
#ifdef _WIN32
    return _aligned_malloc(bytes, 64);
#else
    return aligned_alloc(64, bytes);
#endif
}

static void deallocate(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

/* SIZES: none is kept. */
static size_t kind_of(size_t bytes) {
    size_t kind = SANITIZED ? SIZES : 0;
    while (kind < SIZES && bytes > (size_t)1 << (SMALLEST_BITS + kind))
        kind += 1;
    return kind;
}

/* Before each block its kind is written. */
void *dsr_scratch(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 2 * HEADER) / size)
        return NULL;
    size_t bytes = (count * size + 63) / 64 * 64, kind = kind_of(bytes); /* whole alignments, as C11 requires */
    char *block = NULL;
    for (size_t i = 0; kind < SIZES && i < KEPT && !block; i++)
        block = atomic_exchange(&kept[kind][i], NULL);
    if (!block)
        block = allocate(HEADER + (kind < SIZES ? (size_t)1 << (SMALLEST_BITS + kind) : bytes));
    if (!block)
        return NULL;
    *(size_t *)(void *)block = kind;
    return block + HEADER;
}

void dsr_release(void *memory) {
    if (!memory)
        return;
    char *block = (char *)memory - HEADER;
    size_t kind = *(size_t *)(void *)block;
    for (size_t i = 0; kind < SIZES && i < KEPT && block; i++)
        block = atomic_exchange(&kept[kind][i], block);
    deallocate(block); /* that, or what another thread has put there meanwhile */
}
