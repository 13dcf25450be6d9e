/* What the forward convolution over spikes and its weight gradient share. */
#ifndef DSR_ROW_CODE_H
#define DSR_ROW_CODE_H

#include "ops.h"

#include <string.h>

/* Lists hold rows as offsets in units of 8 bytes, so that 16 bits reach 512 KiB. */
static inline uint16_t row_offset(size_t row) {
    return (uint16_t)(row * (DSR_ROW / 2));
}

/* Whether the ends of `lists` lists of at most `longest` offsets each fit 32 bits. */
static inline int ends_fit(size_t lists, size_t longest) {
    return lists <= UINT32_MAX / longest;
}

static inline size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* The code of 1, 2 or 4 bits that share a table. */
const dsr_row_code *dsr_row_code_of(unsigned table_bits);

#endif
