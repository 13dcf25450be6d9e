/* Winograd's convolutions F(4x4, 3x3), F(2x2, 3x3) and F(2x2, 2x2) (Lavin and Gray 2016): 4x4 outputs of 3x3 taps from
 * the products of 36 sums of a 6x6 window with 36 sums of the taps, where the plain way takes 144; 2x2 outputs from 16
 * instead of 36, or of 2x2 taps from 9 instead of 16. The sums of a window and of the products are here, for n lanes at
 * a time.
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

static inline __attribute__((always_inline)) void spread_window(const float *const *pixels, float *sums, size_t step,
                                                                size_t n, int side) {
    for (size_t l = 0; l < n; l += ROW_LANES) {
        any_vector d[36];
        for (int i = 0; i < side; i++) {
            for (int j = 0; j < side; j++)
                d[j * side + i] = load_lanes(pixels[j * side + i] + l, n - l);
            spread(d + i, side, side);
        }
        for (int i = 0; i < side; i++) {
            spread(d + i * side, 1, side);
            for (int j = 0; j < side; j++)
                store_lanes(d[i * side + j], sums + (size_t)(i * side + j) * step + l, n - l);
        }
    }
}

static inline __attribute__((always_inline)) void
gather_products(const float *products, size_t step, float *const *pixels, size_t n, int side, int outputs) {
    for (size_t l = 0; l < n; l += ROW_LANES) {
        any_vector m[36];
        for (int i = 0; i < side; i++) {
            for (int j = 0; j < side; j++)
                m[j * side + i] = load_lanes(products + (size_t)(j * side + i) * step + l, n - l);
            gather(m + i, side, side);
        }
        for (int i = 0; i < outputs; i++) {
            gather(m + i * side, 1, side);
            for (int j = 0; j < outputs; j++)
                if (pixels[i * outputs + j])
                    store_lanes(m[i * side + j], pixels[i * outputs + j] + l, n - l);
        }
    }
}

/* side**2 pixels of n lanes into as many rows of sums, `step` floats apart. */
static void winograd_spread(const float *const *pixels, float *sums, size_t step, size_t n, int side) {
    if (side == 3)
        spread_window(pixels, sums, step, n, 3);
    else if (side == 4)
        spread_window(pixels, sums, step, n, 4);
    else
        spread_window(pixels, sums, step, n, 6);
}

/* side**2 rows of products, `step` floats apart, into 2x2 pixels of n lanes, 4x4 of side 6; NULL: not wanted. */
static void winograd_gather(const float *products, size_t step, float *const *pixels, size_t n, int side) {
    if (side == 3)
        gather_products(products, step, pixels, n, 3, 2);
    else if (side == 4)
        gather_products(products, step, pixels, n, 4, 2);
    else
        gather_products(products, step, pixels, n, 6, 4);
}
