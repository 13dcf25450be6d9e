/* Depthwise convolutions: a channel has no other whose rows or columns it could share, so its taps are added lane by
 * lane. Sums are taken in one order, whatever the length of a vector: EXACT.
 *
 * The gradients of a channel's taps add up DSR_TAP_SUMS lanes side by side: those of one call from +0, in order, then
 * once to sums[tap][0 .. DSR_TAP_SUMS], which are aligned to 64 bytes. */

/* out[l] = start + the taps' weight * values[l], in order. */
static inline __attribute__((always_inline)) void taps_step(const dsr_tap *taps, size_t count, float start, size_t l,
                                                            int vectors, size_t rest, float *out) {
    any_vector sum[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = start - (any_vector){0};
    for (size_t tap = 0; tap < count; tap++)
        for (int v = 0; v < vectors; v++)
            sum[v] += taps[tap].weight * load_lanes(taps[tap].values + l + v * ROW_LANES, rest);
    for (int v = 0; v < vectors; v++)
        store_lanes(sum[v], out + l + v * ROW_LANES, rest);
}

static void add_taps(const dsr_tap *taps, size_t count, float start, size_t n, float *out) {
    size_t l = 0;
    for (; l + 4 * ROW_LANES <= n; l += 4 * ROW_LANES)
        taps_step(taps, count, start, l, 4, ROW_LANES, out);
    for (; l + ROW_LANES <= n; l += ROW_LANES)
        taps_step(taps, count, start, l, 1, ROW_LANES, out);
    if (l < n)
        taps_step(taps, count, start, l, 1, n - l, out);
}

enum { TAP_VECTORS = DSR_TAP_SUMS / ROW_LANES };
typedef row_vector tap_sums[TAP_VECTORS];

static inline __attribute__((always_inline)) void add_sums(const tap_sums *sum, int taps, float *const *sums) {
    for (int t = 0; t < taps; t++)
        for (int v = 0; v < TAP_VECTORS; v++)
            *(row_vector *)(sums[t] + v * ROW_LANES) += sum[t][v];
}

/* grad * values, of some taps. */
static inline __attribute__((always_inline)) void products_of(const float *grad, const float *const *values, int taps,
                                                              size_t n, float *const *sums) {
    tap_sums sum[3] = {{{0}}};
    size_t l = 0;
    for (; l + DSR_TAP_SUMS <= n; l += DSR_TAP_SUMS)
        for (int v = 0; v < TAP_VECTORS; v++) {
            any_vector g = *(const any_vector *)(grad + l + v * ROW_LANES);
            for (int t = 0; t < taps; t++)
                sum[t][v] += (row_vector)(g * *(const any_vector *)(values[t] + l + v * ROW_LANES));
        }
    if (l < n)
        for (int t = 0; t < taps; t++) {
            float g[DSR_TAP_SUMS] = {0}, x[DSR_TAP_SUMS] = {0};
            memcpy(g, grad + l, (n - l) * sizeof *g);
            memcpy(x, values[t] + l, (n - l) * sizeof *x);
            for (int v = 0; v < TAP_VECTORS; v++)
                sum[t][v] +=
                    (row_vector)(*(const any_vector *)(g + v * ROW_LANES) * *(const any_vector *)(x + v * ROW_LANES));
        }
    add_sums(sum, taps, sums);
}

static void sum_tap_products(const float *grad, const float *const *values, size_t taps, size_t n, float *const *sums) {
    for (; taps >= 3; taps -= 3, values += 3, sums += 3)
        products_of(grad, values, 3, n, sums);
    for (; taps; taps--, values++, sums++)
        products_of(grad, values, 1, n, sums);
}

static const uint32_t bit_of_lane[DSR_WORD] __attribute__((aligned(64))) = {
    1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,  1u << 8,  1u << 9,  1u << 10,
    1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15, 1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21,
    1u << 22, 1u << 23, 1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};

/* grad where the bit is set, of some taps. */
static inline __attribute__((always_inline)) void masked_of(const float *grad, const uint32_t *const *words, int taps,
                                                            size_t pitch, size_t n, float *const *sums) {
    tap_sums sum[3] = {{{0}}};
    for (size_t w = 0; w < n / DSR_WORD; w++, grad += DSR_WORD)
        for (int i = 0; i < DSR_WORD / ROW_LANES; i++) {
            row_bits g = (row_bits) * (const any_vector *)(grad + i * ROW_LANES);
            row_bits bit = *(const row_bits *)(bit_of_lane + i * ROW_LANES);
            for (int t = 0; t < taps; t++)
                sum[t][i % TAP_VECTORS] += (row_vector)((row_bits)((words[t][w * pitch] & bit) != 0) & g);
        }
    add_sums(sum, taps, sums);
}

/* Lane l is bit l % 32 of word l / 32, and words are `pitch` apart; n is a multiple of 32. */
static void sum_masked_taps(const float *grad, const uint32_t *const *words, size_t taps, size_t pitch, size_t n,
                            float *const *sums) {
    for (; taps >= 3; taps -= 3, words += 3, sums += 3)
        masked_of(grad, words, 3, pitch, n, sums);
    for (; taps; taps--, words++, sums++)
        masked_of(grad, words, 1, pitch, n, sums);
}
