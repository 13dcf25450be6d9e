/* Convolutions of integer weights over spikes: as kernels/rows.h, with twice as many channels in a vector.
 *
 * A row is DSR_INTEGER_ROW 16-bit weights side by side, 128 bytes as a row of floats, so that lists of rows are the
 * same; only here they may lie at any address. Sums of rows have 16 bits, in registers and from list to list:
 * dsr_integer_weights.together is the number of blocks, in order, of which any subset of rows has a sum that fits.
 * Sums are widened to 32 bits when so many blocks are added. All is modulo 2^16 and 2^32: EXACT, in any order.
 *
 * Measured (Sapphire Rapids, one thread, 256 channels of 7x7, 128 lanes): dense products of bytes 0 and 1 by vpdpbusd
 * take as long as these sums at 20 % of the bits set, and 1.6 times as long at 8 %; tiles of AMX 0.3 times as long. */

enum { SHORT_LANES = VECTOR_BYTES / 2, SHORT_VECTORS = DSR_INTEGER_ROW / SHORT_LANES };
enum { INTEGER_VECTORS = DSR_INTEGER_ROW / ROW_LANES };
typedef uint16_t short_vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef uint16_t any_shorts __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(2)));
typedef int16_t half_vector __attribute__((vector_size(VECTOR_BYTES / 2), may_alias));
typedef int32_t signed_vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef uint32_t integer_vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef uint32_t any_integers __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(4)));

/* sums[i] = the rows of list i, where `first`, else sums[i] += them; for n lists, the first of which is at `lists`. */
static void sum_integer_rows(const int16_t *rows, const uint16_t *lists, const uint32_t *ends, size_t n, int first,
                             int16_t *sums) {
    const uint16_t *list = lists;
    for (size_t i = 0; i < n; i++, sums += DSR_INTEGER_ROW) {
        const uint16_t *end = lists + ends[i];
        short_vector sum[SHORT_VECTORS];
        for (int v = 0; v < SHORT_VECTORS; v++)
            sum[v] = first ? (short_vector){0} : ((const short_vector *)sums)[v];
        while (list != end) {
            uint64_t offsets;
            memcpy(&offsets, list, 8);
            for (int k = 0; k < 4; k++) {
                const char *row = (const char *)rows + 8 * (size_t)(uint16_t)(offsets >> 16 * k);
                for (int v = 0; v < SHORT_VECTORS; v++)
                    sum[v] += *(const any_shorts *)(row + (size_t)v * sizeof(short_vector));
            }
            list += 4;
        }
        for (int v = 0; v < SHORT_VECTORS; v++)
            ((short_vector *)sums)[v] = sum[v];
    }
}

/* to[i] = start + current[i] + sums[i] 2^shift, for n rows, in 32 bits; current and sums NULL: 0. `to` may be
 * `current`; both may lie at any address. */
static void widen_integer_rows(const int16_t *sums, unsigned shift, const int32_t *start, const int32_t *current,
                               size_t n, int32_t *to) {
    const any_integers *more = (const any_integers *)current;
    for (size_t i = 0; i < n * INTEGER_VECTORS; i++) {
        integer_vector x = ((const integer_vector *)start)[i % INTEGER_VECTORS];
        if (sums)
            x += (integer_vector) __builtin_convertvector(((const half_vector *)sums)[i], signed_vector) << shift;
        if (more)
            x += more[i];
        ((any_integers *)to)[i] = x;
    }
}

/* As build_table of rows.h. */
static void build_integer_table(const int16_t *rows, size_t groups, uint32_t table_bits, size_t phases,
                                int16_t *table) {
    size_t length = phases * DSR_INTEGER_ROW, sums = ((size_t)1 << table_bits) - 1;
    memset(table, 0, DSR_INTEGER_ROW * sizeof *table);
    table += DSR_INTEGER_ROW;
    for (size_t g = 0; g < groups; g++, rows += table_bits * length, table += sums * length)
        for (size_t m = 1; m <= sums; m++) {
            size_t lowest = 0, rest = m & (m - 1);
            while (!(m >> lowest & 1))
                lowest++;
            const int16_t *row = rows + lowest * length;
            int16_t *sum = table + (m - 1) * length;
            if (!rest) {
                memcpy(sum, row, length * sizeof *sum);
                continue;
            }
            const int16_t *others = table + (rest - 1) * length;
            for (size_t i = 0; i < length; i += SHORT_LANES)
                *(short_vector *)(sum + i) = *(const short_vector *)(others + i) + *(const any_shorts *)(row + i);
        }
}

/* Of each pair of 16-bit integers in a, that times its partner in b, and both products added. */
static inline integer_vector multiply_pairs(integer_vector a, integer_vector b) {
#if defined(__x86_64__) && VECTOR_BYTES == 64
    return (integer_vector)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__x86_64__) && VECTOR_BYTES == 32
    return (integer_vector)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (integer_vector)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    signed_vector low = ((signed_vector)(a << 16) >> 16) * ((signed_vector)(b << 16) >> 16);
    signed_vector high = ((signed_vector)a >> 16) * ((signed_vector)b >> 16);
    return (integer_vector)low + (integer_vector)high;
#endif
}

/* sum 2^shift, to the nearest, halves up. */
static inline integer_vector shifted(integer_vector sum, int shift) {
    if (shift >= 0)
        return sum << shift;
    return (integer_vector)((signed_vector)(sum + (1u << (-shift - 1))) >> -shift);
}

/* Targets whose sums are kept in registers side by side, so that weights are loaded once for all of them. */
enum { VALUE_TARGETS = VECTOR_BYTES == 64 ? 4 : 1 };

static inline __attribute__((always_inline)) void sum_pairs(const int16_t *rows, const uint32_t *pairs, size_t count,
                                                            int targets, int shift, int32_t *sums) {
    integer_vector sum[VALUE_TARGETS][INTEGER_VECTORS] = {{{0}}};
    for (size_t p = 0; p < count; p++, rows += 2 * DSR_INTEGER_ROW)
        for (int v = 0; v < INTEGER_VECTORS; v++) {
            integer_vector weights = *(const integer_vector *)(rows + 2 * v * ROW_LANES);
            for (int i = 0; i < targets; i++)
                sum[i][v] += multiply_pairs((integer_vector){0} + pairs[(size_t)i * count + p], weights);
        }
    for (int i = 0; i < targets; i++)
        for (int v = 0; v < INTEGER_VECTORS; v++)
            ((any_integers *)sums)[i * INTEGER_VECTORS + v] += shifted(sum[i][v], shift);
}

/* sums[i] += the rows times the values of target i, times 2^shift, for n targets. Rows and values lie in pairs, `count`
 * of them: rows as [pair][DSR_INTEGER_ROW][2], values as [target][pair], the first of a pair in the lower half. Sums
 * may lie at any address. */
static void sum_value_rows(const int16_t *rows, const uint32_t *pairs, size_t count, size_t n, int shift,
                           int32_t *sums) {
    size_t i = 0;
    for (; i + VALUE_TARGETS <= n; i += VALUE_TARGETS)
        sum_pairs(rows, pairs + i * count, count, VALUE_TARGETS, shift, sums + i * DSR_INTEGER_ROW);
    for (; i < n; i++)
        sum_pairs(rows, pairs + i * count, count, 1, shift, sums + i * DSR_INTEGER_ROW);
}

/* Cut off at +-DSR_INTEGER_LIMIT. */
static inline signed_vector clipped(signed_vector u) {
#if defined(__x86_64__) && VECTOR_BYTES == 64
    __m512i most = _mm512_set1_epi32(DSR_INTEGER_LIMIT), least = _mm512_set1_epi32(-DSR_INTEGER_LIMIT);
    return (signed_vector)_mm512_max_epi32(_mm512_min_epi32((__m512i)u, most), least);
#elif defined(__x86_64__) && VECTOR_BYTES == 32
    __m256i most = _mm256_set1_epi32(DSR_INTEGER_LIMIT), least = _mm256_set1_epi32(-DSR_INTEGER_LIMIT);
    return (signed_vector)_mm256_max_epi32(_mm256_min_epi32((__m256i)u, most), least);
#else
    signed_vector most = u > DSR_INTEGER_LIMIT, least = u < -DSR_INTEGER_LIMIT;
    return (u & ~(most | least)) | (DSR_INTEGER_LIMIT & most) | (-DSR_INTEGER_LIMIT & least);
#endif
}

/* The potentials after spikes where u >= fire, which become vector k of the word. */
static inline signed_vector fired(signed_vector u, signed_vector fire, signed_vector reset, word_bits *word, int k) {
#if defined(__x86_64__) && VECTOR_BYTES == 64
    __mmask16 fires = _mm512_cmpge_epi32_mask((__m512i)u, (__m512i)fire);
    *word |= (uint32_t)fires << (k * ROW_LANES);
    return (signed_vector)_mm512_mask_sub_epi32((__m512i)u, fires, (__m512i)u, (__m512i)reset);
#else
    signed_vector fires = u >= fire;
    *word = add_bits(*word, (row_mask)fires, k);
    return (signed_vector)((integer_vector)u - (integer_vector)(fires & reset));
#endif
}

/* x with the weights added whose bits are set in vector k of a word. */
static inline integer_vector with_spikes(integer_vector x, uint32_t word, signed_vector weights, int k) {
#if defined(__x86_64__) && VECTOR_BYTES == 64
    __mmask16 set = (__mmask16)(word >> (k * ROW_LANES));
    return (integer_vector)_mm512_mask_add_epi32((__m512i)x, set, (__m512i)x, (__m512i)weights);
#else
    row_mask set = ((int32_t)(word >> (k * ROW_LANES)) & lane_bits()) != 0;
    return x + (integer_vector)(set & weights);
#endif
}

/* Neurons whose currents are one half of integer rows, the 32 channels of a word; potentials, [n][DSR_INTEGER_ROW], the
 * same half, NULL: 0. Sums, words and potentials of a step are `n` (0, if they are of one step), `stride` and 0 apart.
 */
static inline __attribute__((always_inline)) void run_integer_rows(const int32_t *sums, uint32_t *words,
                                                                   int16_t *potentials, size_t timesteps, size_t n,
                                                                   size_t stride, const dsr_integer_neurons *neurons,
                                                                   int leaky, int added) {
    const signed_vector *reset = (const signed_vector *)neurons->reset, *fire = (const signed_vector *)neurons->fire;
    const signed_vector *shortcut_weight = (const signed_vector *)neurons->shortcut_weight;
    const size_t pitch = neurons->one_step ? 0 : n;
    for (size_t i = 0; i < n; i++) {
        signed_vector v[ROW_VECTORS];
        for (int k = 0; k < ROW_VECTORS; k++) {
            half_vector kept = {0};
            if (potentials)
                memcpy(&kept, potentials + i * DSR_INTEGER_ROW + k * ROW_LANES, sizeof kept);
            v[k] = __builtin_convertvector(kept, signed_vector);
        }
        for (size_t t = 0; t < timesteps; t++) {
            const integer_vector *sum = (const integer_vector *)(sums + (t * pitch + i) * DSR_INTEGER_ROW);
            word_bits word = {0};
            for (int k = 0; k < ROW_VECTORS; k++) {
                integer_vector x = sum[k];
                if (added)
                    x = with_spikes(x, neurons->shortcut[t * stride + i], shortcut_weight[k], k);
                if (leaky) {
                    integer_vector product = (integer_vector)v[k] * (uint32_t)neurons->decay;
                    v[k] = (signed_vector)(product + (1u << (DSR_DECAY_BITS - 1))) >> DSR_DECAY_BITS;
                }
                v[k] = fired(clipped((signed_vector)((integer_vector)v[k] + x)), fire[k], reset[k], &word, k);
            }
            words[t * stride + i] = word_of(word) & neurons->exists;
        }
        for (int k = 0; potentials && k < ROW_VECTORS; k++) {
            half_vector kept = __builtin_convertvector(v[k], half_vector);
            memcpy(potentials + i * DSR_INTEGER_ROW + k * ROW_LANES, &kept, sizeof kept);
        }
    }
}

static void integer_neuron_rows(const int32_t *sums, uint32_t *words, int16_t *potentials, size_t timesteps, size_t n,
                                size_t stride, const dsr_integer_neurons *neurons) {
    if (neurons->decay != 1 << DSR_DECAY_BITS)
        run_integer_rows(sums, words, potentials, timesteps, n, stride, neurons, 1, neurons->shortcut != NULL);
    else if (neurons->shortcut)
        run_integer_rows(sums, words, potentials, timesteps, n, stride, neurons, 0, 1);
    else
        run_integer_rows(sums, words, potentials, timesteps, n, stride, neurons, 0, 0);
}
