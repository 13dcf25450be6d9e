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

static inline void make_row_code(dsr_row_code *code, uint32_t table_bits) {
    uint32_t sums = (1u << table_bits) - 1;
    memset(code, 0, sizeof *code);
    code->table_bits = table_bits;
    code->rows = DSR_WORD / table_bits * sums;
    for (uint32_t byte = 0; byte < 256; byte++)
        for (uint32_t k = 0; k < 8 / table_bits; k++) {
            uint32_t value = byte >> k * table_bits & sums;
            if (value)
                code->row[byte][code->count[byte]++] = (uint8_t)(k * sums + value - 1);
        }
}

#endif
