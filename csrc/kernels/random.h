/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter-based generator.
 * Number i of a stream is word i % 4 of block i / 4, so any thread can draw any part of a stream. */

/* Four words for counter (block, 0) and key seed. */
static inline void philox(uint64_t block, uint64_t seed, uint32_t word[4]) {
    uint32_t x0 = (uint32_t)block, x1 = (uint32_t)(block >> 32), x2 = 0, x3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * x0, q = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(q >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)q;
        x2 = (uint32_t)(p >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = x0;
    word[1] = x1;
    word[2] = x2;
    word[3] = x3;
}

/* Numbers first .. first + n - 1 of the stream; first is a multiple of 4, room for n rounded up to a multiple of 4. */
static void random_words(uint64_t first, uint64_t seed, uint32_t *word, size_t n) {
    for (size_t i = 0; i < n; i += 4)
        philox(first / 4 + i / 4, seed, word + i);
}
