/* The three codes, made once: to make one takes as long as a small convolution. */
#include "row_code.h"

static dsr_row_code codes[3];

static void make_code(dsr_row_code *code, uint32_t table_bits) {
    uint32_t sums = (1u << table_bits) - 1;
    code->table_bits = table_bits;
    code->rows = DSR_WORD / table_bits * sums;
    for (uint32_t byte = 0; byte < 256; byte++)
        for (uint32_t k = 0; k < 8 / table_bits; k++) {
            uint32_t value = byte >> k * table_bits & sums;
            if (value)
                code->row[byte][code->count[byte]++] = (uint8_t)(k * sums + value - 1);
        }
}

/* When the library is loaded, before there are threads. */
__attribute__((constructor)) static void make_codes(void) {
    for (uint32_t i = 0; i < 3; i++)
        make_code(&codes[i], 1u << i);
}

const dsr_row_code *dsr_row_code_of(unsigned table_bits) {
    return &codes[table_bits / 2];
}
