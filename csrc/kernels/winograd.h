/* Winograd's convolutions F(4x4, 3x3), F(2x2, 3x3) and F(2x2, 2x2) (Lavin and Gray 2016): 4x4 outputs of 3x3 taps from
 * the products of 36 sums of a 6x6 window with 36 sums of the taps, where the plain way takes 144; 2x2 outputs from 16
 * instead of 36, or of 2x2 taps from 9 instead of 16. The sums of the taps, of a window and of the products are here.
 *
 * One order of additions and multiplications: the same bits on every level. */

/* One direction of a window: `side` values, `pitch` apart, become the sums that the taps' sums are multiplied by. */
static inline __attribute__((always_inline)) void spread(any_vector *d, int pitch, int side) {
    any_vector a = d[0], b = d[pitch], c = d[2 * pitch];
    if (side == 3) {
        d[0] = a - b;
        d[2 * pitch] = c - b;
    } else if (side == 4) {
        d[0] = a - c;
        d[pitch] = b + c;
        d[2 * pitch] = c - b;
        d[3 * pitch] = b - d[3 * pitch];
    } else {
        any_vector e = d[3 * pitch], f = d[4 * pitch], g = d[5 * pitch];
        any_vector even = f - 4 * c, odd = e - 4 * b, outer = f - c, inner = 2 * (e - b);
        d[0] = 4 * a - 5 * c + f;
        d[pitch] = even + odd;
        d[2 * pitch] = even - odd;
        d[3 * pitch] = outer + inner;
        d[4 * pitch] = outer - inner;
        d[5 * pitch] = 4 * b - 5 * e + g;
    }
}

/* One direction of the products: `side` values become the outputs. */
static inline __attribute__((always_inline)) void gather(any_vector *m, int pitch, int side) {
    any_vector a = m[0], b = m[pitch], c = m[2 * pitch];
    if (side == 3) {
        m[0] = a + b;
        m[pitch] = b + c;
    } else if (side == 4) {
        m[0] = a + b + c;
        m[pitch] = b - c - m[3 * pitch];
    } else {
        any_vector e = m[3 * pitch], f = m[4 * pitch], g = m[5 * pitch];
        any_vector sum = b + c, difference = b - c, far_sum = e + f, far_difference = e - f;
        m[0] = a + sum + far_sum;
        m[pitch] = difference + 2 * far_difference;
        m[2 * pitch] = sum + 4 * far_sum;
        m[3 * pitch] = difference + 8 * far_difference + g;
    }
}

/* One direction of the taps: 2 or 3 values, `pitch` apart, become `side` sums. */
static inline __attribute__((always_inline)) void spread_taps(const row_vector *g, int pitch, row_vector *sums,
                                                              int sums_pitch, int side) {
    row_vector a = g[0], b = g[pitch];
    if (side == 3) {
        sums[0] = a;
        sums[sums_pitch] = a + b;
        sums[2 * sums_pitch] = b;
        return;
    }
    row_vector c = g[2 * pitch];
    if (side == 4) {
        row_vector outer = 0.5F * (a + c), inner = 0.5F * b;
        sums[0] = a;
        sums[sums_pitch] = outer + inner;
        sums[2 * sums_pitch] = outer - inner;
        sums[3 * sums_pitch] = c;
    } else {
        row_vector outer = (a + c) / 6, inner = b / 6, far_outer = a / 24 + c / 6, far_inner = b / 12;
        sums[0] = a / 4;
        sums[sums_pitch] = -outer - inner;
        sums[2 * sums_pitch] = inner - outer;
        sums[3 * sums_pitch] = far_outer + far_inner;
        sums[4 * sums_pitch] = far_outer - far_inner;
        sums[5 * sums_pitch] = c;
    }
}

/* The transpose of `gather` for side 6: 4 gradients of outputs become 6 of products. */
static inline __attribute__((always_inline)) void widen_tile(any_vector *g, int pitch) {
    any_vector a = g[0], b = g[pitch], c = g[2 * pitch], d = g[3 * pitch];
    any_vector even = a + c, odd = b + d, far_even = a + 4 * c, far_odd = 2 * b + 8 * d;
    g[pitch] = even + odd;
    g[2 * pitch] = even - odd;
    g[3 * pitch] = far_even + far_odd;
    g[4 * pitch] = far_even - far_odd;
    g[5 * pitch] = d;
}

/* The transpose of `spread_taps` for side 6: 6 gradients of sums become 3 of taps. */
static inline __attribute__((always_inline)) void collect_taps(row_vector *s, int pitch) {
    row_vector a = s[0], b = s[pitch], c = s[2 * pitch], d = s[3 * pitch], e = s[4 * pitch], f = s[5 * pitch];
    row_vector sum = (b + c) / 6, difference = (c - b) / 6, far_sum = d + e, far_difference = (d - e) / 12;
    s[0] = a / 4 - sum + far_sum / 24;
    s[pitch] = difference + far_difference;
    s[2 * pitch] = far_sum / 6 - sum + f;
}

/* Floats of a cache line. Windows and tiles of the next channel lie a plane away, too far for the processor to prefetch
 * them by itself. With prefetching, a gradient of 64 channels on 32x32 pixels takes 4.1 ms, without 4.7 (AVX-512). */
enum { CACHE_LINE = 16 };

static inline __attribute__((always_inline)) void spread_kernel(const float *const *taps, float *sums, size_t step,
                                                                int side, int size) {
    for (int v = 0; v < ROW_VECTORS; v++, sums += ROW_LANES) {
        row_vector g[9], half[18], whole[36];
        for (int i = 0; i < size * size; i++)
            g[i] = *(const row_vector *)(taps[i] + v * ROW_LANES);
        for (int i = 0; i < size; i++)
            spread_taps(g + i, size, half + i, size, side);
        for (int i = 0; i < side; i++)
            spread_taps(half + i * size, 1, whole + i * side, 1, side);
        for (int i = 0; i < side * side; i++)
            *(row_vector *)(sums + (size_t)i * step) = whole[i];
    }
}

static inline __attribute__((always_inline)) void spread_windows(const float *const *pixels, const size_t *steps,
                                                                 size_t channels, float *sums, size_t channel_step,
                                                                 size_t step, size_t n, int side) {
    const float *from[36];
    memcpy(from, pixels, (size_t)(side * side) * sizeof *from);
    for (size_t c = 0; c < channels; c++, sums += channel_step) {
        for (size_t l = 0; l < n; l += ROW_LANES) {
            any_vector d[36];
            for (int i = 0; i < side; i++) {
                for (int j = 0; j < side; j++)
                    d[j * side + i] = load_lanes(from[j * side + i] + l, n - l);
                spread(d + i, side, side);
            }
            if (c + 1 < channels && l % CACHE_LINE == 0)
                for (int i = 0; i < side * side; i++)
                    __builtin_prefetch(from[i] + steps[i] + l);
            for (int i = 0; i < side; i++) {
                spread(d + i * side, 1, side);
                for (int j = 0; j < side; j++)
                    store_lanes(d[i * side + j], sums + (size_t)(i * side + j) * step + l, n - l);
            }
        }
        for (int i = 0; i < side * side; i++)
            from[i] += steps[i];
    }
}

static inline __attribute__((always_inline)) void gather_products(const float *products, size_t row_step, size_t step,
                                                                  float *const *pixels, size_t plane, size_t rows,
                                                                  size_t n, int side, int outputs) {
    for (size_t r = 0; r < rows; r++, products += row_step)
        for (size_t l = 0; l < n; l += ROW_LANES) {
            any_vector m[36];
            if (l % CACHE_LINE == 0)
                for (int i = 0; i < outputs * outputs; i++)
                    if (pixels[i])
                        __builtin_prefetch(pixels[i] + r * plane + l, 1);
            for (int i = 0; i < side; i++) {
                for (int j = 0; j < side; j++)
                    m[j * side + i] = load_lanes(products + (size_t)(j * side + i) * step + l, n - l);
                gather(m + i, side, side);
            }
            for (int i = 0; i < outputs; i++) {
                gather(m + i * side, 1, side);
                for (int j = 0; j < outputs; j++)
                    if (pixels[i * outputs + j])
                        store_lanes(m[i * side + j], pixels[i * outputs + j] + r * plane + l, n - l);
            }
        }
}

/* Rows of DSR_ROW weights for each of 2x2 or 3x3 taps, into side**2 rows of sums, `step` floats apart; all aligned to
 * 64 bytes. */
static void winograd_taps(const float *const *taps, float *sums, size_t step, int side) {
    if (side == 3)
        spread_kernel(taps, sums, step, 3, 2);
    else if (side == 4)
        spread_kernel(taps, sums, step, 4, 3);
    else
        spread_kernel(taps, sums, step, 6, 3);
}

/* side**2 pixels of n lanes into as many rows of sums, `step` floats apart; for channels whose pixels are steps[pixel]
 * floats apart, and their sums channel_step. */
static void winograd_spread(const float *const *pixels, const size_t *steps, size_t channels, float *sums,
                            size_t channel_step, size_t step, size_t n, int side) {
    if (side == 3)
        spread_windows(pixels, steps, channels, sums, channel_step, step, n, 3);
    else if (side == 4)
        spread_windows(pixels, steps, channels, sums, channel_step, step, n, 4);
    else
        spread_windows(pixels, steps, channels, sums, channel_step, step, n, 6);
}

/* side**2 rows of products, `step` floats apart, into 2x2 pixels of n lanes, 4x4 of side 6; NULL: not wanted. For
 * `rows` outputs, whose products are row_step floats apart, and their pixels `plane`. */
static void winograd_gather(const float *products, size_t row_step, size_t step, float *const *pixels, size_t plane,
                            size_t rows, size_t n, int side) {
    if (side == 3)
        gather_products(products, row_step, step, pixels, plane, rows, n, 3, 2);
    else if (side == 4)
        gather_products(products, row_step, step, pixels, plane, rows, n, 4, 2);
    else
        gather_products(products, row_step, step, pixels, plane, rows, n, 6, 4);
}

/* A tile of 4x4 pixels, n floats each, into 36 rows of sums, `step` floats apart. */
static void winograd_widen(const float *const *pixels, float *sums, size_t step, size_t n) {
    for (size_t l = 0; l < n; l += ROW_LANES) {
        any_vector g[36];
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++)
                g[j * 6 + i] = load_lanes(pixels[j * 4 + i] + l, n - l);
            widen_tile(g + i, 6);
        }
        for (int i = 0; i < 6; i++) {
            widen_tile(g + i * 6, 1);
            for (int j = 0; j < 6; j++)
                store_lanes(g[i * 6 + j], sums + (size_t)(i * 6 + j) * step + l, n - l);
        }
    }
}

/* 36 rows of DSR_ROW products, `step` floats apart, into the 9 rows of taps; all aligned to 64 bytes. */
static void winograd_collect(const float *products, size_t step, float *taps) {
    for (int v = 0; v < ROW_VECTORS; v++) {
        row_vector s[36];
        for (int i = 0; i < 6; i++) {
            for (int j = 0; j < 6; j++)
                s[j * 6 + i] = *(const row_vector *)(products + (size_t)(j * 6 + i) * step + v * ROW_LANES);
            collect_taps(s + i, 6);
        }
        for (int i = 0; i < 3; i++) {
            collect_taps(s + i * 6, 1);
            for (int j = 0; j < 3; j++)
                *(row_vector *)(taps + (i * 3 + j) * DSR_ROW + v * ROW_LANES) = s[i * 6 + j];
        }
    }
}
