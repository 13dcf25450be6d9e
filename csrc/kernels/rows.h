/* Convolutions over spikes as sums of rows: work is done for spikes only.
 *
 * A row is DSR_ROW floats side by side: the weights of that many output channels for one input bit (forward), or the
 * gradients of that many output channels at one lane (weight gradient). A target (an output lane of a pixel, or an
 * input channel) has a list of the rows that its set bits select; their sum grows in registers and is added to the
 * target's accumulator once. In denser trains 2 or 4 neighbouring bits form a group with a table of the 3 or 15 sums of
 * their rows, and a group that is not all zero selects one row.
 *
 * Order of summation: the rows of a list in order, from +0, then one addition to the accumulator. It depends neither on
 * the level nor on the length of a vector: EXACT.
 *
 * Measured (Zen 3, AVX2, one thread, 10 % of the bits set): 190 to 320 GMAC/s, where OpenBLAS has 40 and a float
 * convolution of PyTorch 40 to 57. The sums run at 1.2 additions of 8 floats a cycle, limited by the additions' latency
 * and by mispredicted ends of lists. Sorting targets by the length of their lists, so that ends are predicted, loses 2
 * to 20 %: accumulators are then no longer visited in order. Look-ups of all sums of 3 or 4 channels by vpermps lose to
 * this below 50 % of the bits set, on AVX2.
 */

enum { ROW_LANES = VECTOR_BYTES / 4, ROW_VECTORS = DSR_ROW / ROW_LANES };
typedef float row_vector __attribute__((vector_size(ROW_LANES * 4), may_alias));
typedef float quad __attribute__((vector_size(16), may_alias, aligned(4)));
typedef uint8_t bytes16 __attribute__((vector_size(16), may_alias, aligned(1)));
typedef uint16_t halves16 __attribute__((vector_size(32), may_alias, aligned(2)));

typedef float any_vector __attribute__((vector_size(ROW_LANES * 4), may_alias, aligned(4)));

/* A whole vector, or the n < ROW_LANES floats that are left. */
static inline any_vector load_lanes(const float *from, size_t n) {
    any_vector v = {0};
    if (n >= ROW_LANES)
        return *(const any_vector *)from;
    memcpy(&v, from, n * sizeof *from);
    return v;
}

static inline void store_lanes(any_vector v, float *to, size_t n) {
    if (n >= ROW_LANES)
        *(any_vector *)to = v;
    else
        memcpy(to, &v, n * sizeof *to);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* The rows that each word selects, as numbers below 120 in 32 bytes per word, and their count. */
static void expand_words(const dsr_row_code *code, const uint32_t *words, size_t n, uint8_t *rows, uint8_t *counts) {
    const uint64_t step = 0x0101010101010101u * (code->rows / 4);
    for (size_t i = 0; i < n; i++) {
        uint8_t *at = rows + 32 * i;
        uint32_t word = words[i];
        uint64_t first = 0;
        for (int k = 0; k < 4; k++, word >>= 8, first += step) {
            uint64_t numbers;
            memcpy(&numbers, code->row[word & 255], 8);
            numbers += first;
            memcpy(at, &numbers, 8);
            at += code->count[word & 255];
        }
        counts[i] = (uint8_t)(at - (rows + 32 * i));
    }
}

/* Lists of n targets, each out of the words of `sources`: number r of a source becomes offset r * step + first. Lists
 * begin at `lists` + `end` and are padded to a multiple of 4 with offset 0, a row of zeros; ends[i] is the end of list
 * i. Returns the last end. */
static uint32_t build_lists(const dsr_row_source *sources, size_t count, uint16_t step, size_t n, uint16_t *lists,
                            uint32_t end, uint32_t *ends) {
    uint16_t *at = lists + end;
    for (size_t i = 0; i < n; i++) {
        uint16_t *from = at;
        for (size_t s = 0; s < count; s++) {
            const uint8_t *rows = sources[s].rows + 32 * i;
            size_t selected = sources[s].counts[i];
            *(halves16 *)at = __builtin_convertvector(*(const bytes16 *)rows, halves16) * step + sources[s].first;
            if (__builtin_expect(selected > 16, 0))
                *(halves16 *)(at + 16) =
                    __builtin_convertvector(*(const bytes16 *)(rows + 16), halves16) * step + sources[s].first;
            at += selected;
        }
        memset(at, 0, 4 * sizeof *at);
        at = from + ((size_t)(at - from) + 3) / 4 * 4;
        ends[i] = (uint32_t)(at - lists);
    }
    return (uint32_t)(at - lists);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* sum += the next four rows of a list. */
static inline __attribute__((always_inline)) void add_rows(const float *rows, const uint16_t *list, row_vector *sum) {
    uint64_t offsets;
    memcpy(&offsets, list, 8);
    for (int k = 0; k < 4; k++) {
        const char *row = (const char *)rows + 8 * (size_t)(uint16_t)(offsets >> 16 * k);
        for (int v = 0; v < ROW_VECTORS; v++)
            sum[v] += *(const row_vector *)(row + (size_t)v * sizeof(row_vector));
    }
}

/* sums += sum and the rest of a list, from `at` on. Sums of an empty list are not written. */
static inline __attribute__((always_inline)) void finish_rows(const float *rows, const uint16_t *list,
                                                              const uint16_t *at, const uint16_t *end, row_vector *sum,
                                                              float *sums) {
    for (; at != end; at += 4)
        add_rows(rows, at, sum);
    if (list == end)
        return;
    for (int v = 0; v < ROW_VECTORS; v++)
        *(row_vector *)(sums + v * ROW_LANES) += sum[v];
}

/* The sums of two lists, four rows of each in turn, since additions to the same register wait for each other. */
static inline __attribute__((always_inline)) void sum_two(const float *rows, const uint16_t *list, const uint16_t *end,
                                                          const uint16_t *last, float *sums) {
    const size_t both = (size_t)(end - list < last - end ? end - list : last - end);
    row_vector a[ROW_VECTORS], b[ROW_VECTORS];
    for (int v = 0; v < ROW_VECTORS; v++)
        a[v] = b[v] = (row_vector){0};
    for (size_t i = 0; i < both; i += 4) {
        add_rows(rows, list + i, a);
        add_rows(rows, end + i, b);
    }
    finish_rows(rows, list, list + both, end, a, sums);
    finish_rows(rows, end, end + both, last, b, sums + DSR_ROW);
}

/* sums[i][DSR_ROW] += the rows of list i, for n lists, of which the first begins at `start`. rows and sums are aligned
 * to 64 bytes. Four accumulators of AVX2 (four of AVX-512, of two lists; eight of NEON) stay in registers; on x86 the
 * row is the memory operand of the addition. Instructions per row (gcc 12): AVX2 7, NEON 16.5. Two lists in step save
 * 5 % of a pass of cifar_fast on AVX-512. */
static void sum_rows(const float *rows, const uint16_t *lists, uint32_t start, const uint32_t *ends, size_t n,
                     float *sums) {
    const uint16_t *list = lists + start;
    size_t i = 0;
    for (; ROW_VECTORS <= 2 && i + 2 <= n; i += 2, list = lists + ends[i - 1], sums += 2 * DSR_ROW)
        sum_two(rows, list, lists + ends[i], lists + ends[i + 1], sums);
    for (; i < n; i++, sums += DSR_ROW) {
        row_vector sum[ROW_VECTORS];
        for (int v = 0; v < ROW_VECTORS; v++)
            sum[v] = (row_vector){0};
        finish_rows(rows, list, list, lists + ends[i], sum, sums);
        list = lists + ends[i];
    }
}

/* sums[i][DSR_ROW] = the sum of each source's weights where the word of lane i, offset + i, has the bits; for n lanes.
 * Lanes go in step so that bits and weights are loaded once for as many as registers hold. */
typedef uint32_t row_bits __attribute__((vector_size(ROW_LANES * 4), may_alias));
enum { MASKED_LANES = ROW_VECTORS < 8 ? 8 / ROW_VECTORS : 1 };

static inline __attribute__((always_inline)) void sum_masked_lanes(const dsr_mask_source *sources, size_t count,
                                                                   size_t lane, int lanes, float *sums) {
    row_vector sum[MASKED_LANES][ROW_VECTORS] = {{{0}}};
    for (size_t s = 0; s < count; s++)
        for (int v = 0; v < ROW_VECTORS; v++) {
            row_bits bits = *(const row_bits *)(sources[s].bits + v * ROW_LANES);
            row_bits weights = *(const row_bits *)(sources[s].weights + v * ROW_LANES);
            for (int l = 0; l < lanes; l++) {
                row_bits is_set = (row_bits)((sources[s].words[lane + (size_t)l] & bits) != 0);
                sum[l][v] += (row_vector)(is_set & weights);
            }
        }
    for (int l = 0; l < lanes; l++)
        for (int v = 0; v < ROW_VECTORS; v++)
            *(row_vector *)(sums + l * DSR_ROW + v * ROW_LANES) = sum[l][v];
}

static void sum_masked(const dsr_mask_source *sources, size_t count, size_t offset, size_t n, float *sums) {
    size_t i = 0;
    for (; i + MASKED_LANES <= n; i += MASKED_LANES)
        sum_masked_lanes(sources, count, offset + i, MASKED_LANES, sums + i * DSR_ROW);
    for (; i < n; i++)
        sum_masked_lanes(sources, count, offset + i, 1, sums + i * DSR_ROW);
}

/* Lanes l .. of one channel as below: `vectors` whole vectors, or the first `rest` lanes of one. */
static inline __attribute__((always_inline)) void masked_step(const dsr_mask_source *sources, size_t count, size_t c,
                                                              size_t l, int vectors, size_t rest, float bias,
                                                              float amplitude, float *out, int accumulate) {
    any_vector sum[4] = {{0}};
    for (size_t s = 0; s < count; s++) {
        uint32_t bit, weight;
        memcpy(&bit, sources[s].bits + c, sizeof bit);
        memcpy(&weight, sources[s].weights + c, sizeof weight);
        for (int v = 0; v < vectors; v++) {
            row_bits words =
                (row_bits)load_lanes((const float *)(const void *)sources[s].words + l + v * ROW_LANES, rest);
            sum[v] += (any_vector)((row_bits)((words & bit) != 0) & weight);
        }
    }
    for (int v = 0; v < vectors; v++) {
        float *to = out + l + v * ROW_LANES;
        any_vector value = amplitude * sum[v] + bias;
        if (accumulate)
            value += load_lanes(to, rest);
        store_lanes(value, to, rest);
    }
}

/* The same for the channels of a current, from lanes to lanes: to[c * stride + l] = bias[c] + amplitude * sum, or that
 * added where `accumulate`. */
static void masked_lanes(const dsr_mask_source *sources, size_t count, size_t n, size_t channels, const float *bias,
                         float amplitude, float *to, size_t stride, int accumulate) {
    for (size_t c = 0; c < channels; c++, to += stride) {
        const float start = bias ? bias[c] : 0;
        size_t l = 0;
        for (; l + 4 * ROW_LANES <= n; l += 4 * ROW_LANES)
            masked_step(sources, count, c, l, 4, ROW_LANES, start, amplitude, to, accumulate);
        for (; l + ROW_LANES <= n; l += ROW_LANES)
            masked_step(sources, count, c, l, 1, ROW_LANES, start, amplitude, to, accumulate);
        if (l < n)
            masked_step(sources, count, c, l, 1, n - l, start, amplitude, to, accumulate);
    }
}

/* sums = amplitude * sum over t of weights[t] bit(t); `stride` is the distance from channel to channel of the sums. */
static void sum_words(const uint32_t *words, const float *weights, float *sums, size_t channels, size_t pixels,
                      size_t timesteps, size_t batch, size_t stride, const float *amplitude) {
    for (size_t p = 0; p < pixels; p++, words += timesteps * batch, sums += batch)
        for (size_t c = 0; c < channels; c++)
            for (size_t b = 0; b < batch; b += ROW_LANES) {
                any_vector sum = {0};
                for (size_t t = 0; t < timesteps; t++) {
                    row_bits bits =
                        (row_bits)load_lanes((const float *)(const void *)(words + t * batch + b), batch - b);
                    row_bits weight = (row_bits)(weights[t] - (row_vector){0});
                    sum += (any_vector)((row_bits)((bits & (1u << c)) != 0) & weight);
                }
                store_lanes(amplitude[c] * sum, sums + c * stride + b, batch - b);
            }
}

/* table: a row of zeros, then the sums of each group of rows: sum m of group g and phase p is row
 * 1 + (g * (2^table_bits - 1) + m - 1) * phases + p. The single rows are [groups][table_bits][phases]. */
static void build_table(const float *rows, size_t groups, uint32_t table_bits, size_t phases, float *table) {
    size_t length = phases * DSR_ROW, sums = ((size_t)1 << table_bits) - 1;
    memset(table, 0, DSR_ROW * sizeof *table);
    table += DSR_ROW;
    for (size_t g = 0; g < groups; g++, rows += table_bits * length, table += sums * length)
        for (size_t m = 1; m <= sums; m++) {
            size_t lowest = 0, rest = m & (m - 1);
            while (!(m >> lowest & 1))
                lowest++;
            const float *row = rows + lowest * length;
            float *sum = table + (m - 1) * length;
            if (!rest) {
                memcpy(sum, row, length * sizeof *sum);
                continue;
            }
            const float *others = table + (rest - 1) * length;
            for (size_t i = 0; i < length; i += ROW_LANES)
                *(row_vector *)(sum + i) = *(const row_vector *)(others + i) + *(const row_vector *)(row + i);
        }
}

/* ---- from lanes to rows and back --------------------------------------------------------------------------------- */
#if defined(__clang__) || __GNUC__ >= 12
    #define SHUFFLE(a, b, w, x, y, z) __builtin_shufflevector(a, b, w, x, y, z)
#else
typedef int quad_index __attribute__((vector_size(16)));
    #define SHUFFLE(a, b, w, x, y, z) __builtin_shuffle(a, b, (quad_index){w, x, y, z})
#endif

/* Four rows become four columns. */
static inline void transpose4(const float *from, size_t from_stride, float *to, size_t to_stride) {
    quad a = *(const quad *)from, b = *(const quad *)(from + from_stride);
    quad c = *(const quad *)(from + 2 * from_stride), d = *(const quad *)(from + 3 * from_stride);
    quad ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    quad AB = SHUFFLE(a, b, 2, 6, 3, 7), CD = SHUFFLE(c, d, 2, 6, 3, 7);
    *(quad *)to = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(quad *)(to + to_stride) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *(quad *)(to + 2 * to_stride) = SHUFFLE(AB, CD, 0, 1, 4, 5);
    *(quad *)(to + 3 * to_stride) = SHUFFLE(AB, CD, 2, 3, 6, 7);
}

/* to[c * stride + l] = bias[c] + amplitude * sums[l][c], or that added where `accumulate`. */
static void rows_to_lanes(const float *sums, size_t lanes, size_t channels, const float *bias, float amplitude,
                          float *to, size_t stride, int accumulate) {
    size_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        size_t l = 0;
        for (; l + 4 <= lanes; l += 4) {
            float block[16] __attribute__((aligned(16)));
            transpose4(sums + l * DSR_ROW + c, DSR_ROW, block, 4);
            for (size_t i = 0; i < 4; i++) {
                quad *out = (quad *)(to + (c + i) * stride + l);
                quad value = amplitude * *(const quad *)(block + 4 * i) + (bias ? bias[c + i] : 0);
                if (accumulate)
                    value += *out;
                *out = value;
            }
        }
        for (; l < lanes; l++)
            for (size_t i = 0; i < 4; i++) {
                float value = amplitude * sums[l * DSR_ROW + c + i] + (bias ? bias[c + i] : 0);
                float *out = to + (c + i) * stride + l;
                *out = accumulate ? *out + value : value;
            }
    }
    for (; c < channels; c++)
        for (size_t l = 0; l < lanes; l++) {
            float value = amplitude * sums[l * DSR_ROW + c] + (bias ? bias[c] : 0);
            to[c * stride + l] = accumulate ? to[c * stride + l] + value : value;
        }
}

/* rows[l][c] = from[c * stride + l]; channels from `channels` to DSR_ROW are zeros. */
static void lanes_to_rows(const float *from, size_t lanes, size_t channels, size_t stride, float *rows) {
    size_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        size_t l = 0;
        for (; l + 4 <= lanes; l += 4)
            transpose4(from + c * stride + l, stride, rows + l * DSR_ROW + c, DSR_ROW);
        for (; l < lanes; l++)
            for (size_t i = 0; i < 4; i++)
                rows[l * DSR_ROW + c + i] = from[(c + i) * stride + l];
    }
    for (; c < DSR_ROW; c++)
        for (size_t l = 0; l < lanes; l++)
            rows[l * DSR_ROW + c] = c < channels ? from[c * stride + l] : 0;
}

/* Lanes first .. first + lanes of the gradient weights * constant + slope * values of one pixel; values NULL: without
 * them; weights NULL: 1. */
static void gradient_lanes(const float *constant, const float *weights, const float *values, float slope, size_t batch,
                           size_t first, size_t lanes, float *dense) {
    size_t b = first % batch, t = first / batch;
    for (size_t l = 0; l < lanes; b = 0, t++) {
        size_t n = batch - b < lanes - l ? batch - b : lanes - l;
        float weight = weights ? weights[t] : 1;
        if (values)
            for (size_t i = 0; i < n; i++)
                dense[l + i] = weight * constant[b + i] + slope * values[first + l + i];
        else
            for (size_t i = 0; i < n; i++)
                dense[l + i] = weight * constant[b + i];
        l += n;
    }
}
