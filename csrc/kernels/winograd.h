/* Winograd's convolutions F(2x2, 3x3) and F(2x2, 2x2) (Lavin and Gray 2016): four outputs of 3x3 taps from the products
 * of 16 sums of a 4x4 window with 16 sums of the taps, where the plain way takes 36 (9 instead of 16 for 2x2 taps).
 * The sums of a window and of the products are here, for n lanes at a time.
 *
 * Only additions, in one order: the same bits on every level. */

/* One direction of a window: taps + 1 values, `pitch` apart, become the sums that the taps' sums are multiplied by. */
static inline __attribute__((always_inline)) void spread(any_vector *d, int pitch, int taps) {
    any_vector a = d[0], b = d[pitch], c = d[2 * pitch];
    if (taps == 2) {
        d[0] = a - b;
        d[2 * pitch] = c - b;
    } else {
        d[0] = a - c;
        d[pitch] = b + c;
        d[2 * pitch] = c - b;
        d[3 * pitch] = b - d[3 * pitch];
    }
}

/* One direction of the products: taps + 1 values become the two outputs. */
static inline __attribute__((always_inline)) void gather(any_vector *m, int pitch, int taps) {
    any_vector a = m[0], b = m[pitch], c = m[2 * pitch];
    m[0] = taps == 2 ? a + b : a + b + c;
    m[pitch] = taps == 2 ? b + c : b - c - m[3 * pitch];
}

static inline __attribute__((always_inline)) void spread_window(const float *const *pixels, float *sums, size_t step,
                                                                size_t n, int taps) {
    const int side = taps + 1;
    for (size_t l = 0; l < n; l += ROW_LANES) {
        any_vector d[16];
        for (int i = 0; i < side * side; i++)
            d[i] = load_lanes(pixels[i] + l, n - l);
        for (int i = 0; i < side; i++)
            spread(d + i, side, taps);
        for (int i = 0; i < side; i++)
            spread(d + i * side, 1, taps);
        for (int i = 0; i < side * side; i++)
            store_lanes(d[i], sums + (size_t)i * step + l, n - l);
    }
}

static inline __attribute__((always_inline)) void gather_products(const float *products, size_t step,
                                                                  float *const *pixels, size_t n, int taps) {
    const int side = taps + 1;
    for (size_t l = 0; l < n; l += ROW_LANES) {
        any_vector m[16];
        for (int i = 0; i < side * side; i++)
            m[i] = load_lanes(products + (size_t)i * step + l, n - l);
        for (int i = 0; i < side; i++)
            gather(m + i, side, taps);
        for (int i = 0; i < 2; i++)
            gather(m + i * side, 1, taps);
        for (int i = 0; i < 4; i++)
            if (pixels[i])
                store_lanes(m[i / 2 * side + i % 2], pixels[i] + l, n - l);
    }
}

/* (taps + 1)**2 pixels of n lanes into as many rows of sums, `step` floats apart. */
static void winograd_spread(const float *const *pixels, float *sums, size_t step, size_t n, int taps) {
    if (taps == 2)
        spread_window(pixels, sums, step, n, 2);
    else
        spread_window(pixels, sums, step, n, 3);
}

/* (taps + 1)**2 rows of products, `step` floats apart, into 2x2 pixels of n lanes; NULL: not wanted. */
static void winograd_gather(const float *products, size_t step, float *const *pixels, size_t n, int taps) {
    if (taps == 2)
        gather_products(products, step, pixels, n, 2);
    else
        gather_products(products, step, pixels, n, 3);
}
