/* Sums behind batch normalisation and its gradient, see partials.h. */

/* Sums of a and of a b over n values. */
static inline __attribute__((always_inline)) void sum_products(const float *a, const float *b, size_t n, double *sums,
                                                               double *products) {
    partial_vector sum[PARTIAL_VECTORS] = {0}, product[PARTIAL_VECTORS] = {0};
    double sum_of[DSR_PARTIALS], product_of[DSR_PARTIALS];
    size_t i = 0;
    for (; i + DSR_PARTIALS <= n; i += DSR_PARTIALS)
#pragma GCC unroll 8
        for (size_t j = 0; j < PARTIAL_VECTORS; j++) {
            partial_vector x = widen(a + i + j * PARTIAL_LANES);
            sum[j] += x;
            product[j] += x * widen(b + i + j * PARTIAL_LANES);
        }
    memcpy(sum_of, sum, sizeof sum);
    memcpy(product_of, product, sizeof product);
    for (size_t j = 0; i + j < n; j++) {
        sum_of[j] += (double)a[i + j];
        product_of[j] += (double)a[i + j] * (double)b[i + j];
    }
    *sums = dsr_add_partials(sum_of);
    *products = dsr_add_partials(product_of);
}

static void moments(const float *values, size_t n, double *sums, double *squares) {
    sum_products(values, values, n, sums, squares);
}

static void product_moments(const float *a, const float *b, size_t n, double *sums, double *products) {
    sum_products(a, b, n, sums, products);
}

static void expand_gradient(const float *constant, const float *values, float *dense, size_t pixels, size_t timesteps,
                            size_t batch, float slope) {
    for (size_t p = 0; p < pixels; p++)
        for (size_t t = 0; t < timesteps; t++) {
            size_t at = (p * timesteps + t) * batch;
            for (size_t b = 0; b < batch; b++)
                dense[at + b] = constant[p * batch + b] + slope * values[at + b];
        }
}

/* sum = sum over t of weights[t] values(t). */
static void weighted_sum(const float *values, const float *weights, float *sum, size_t pixels, size_t timesteps,
                         size_t batch) {
    for (size_t p = 0; p < pixels; p++) {
        float *out = sum + p * batch;
        for (size_t b = 0; b < batch; b++)
            out[b] = 0;
        for (size_t t = 0; t < timesteps; t++) {
            const float *x = values + (p * timesteps + t) * batch;
            float w = weights[t];
            for (size_t b = 0; b < batch; b++)
                out[b] += w * x[b];
        }
    }
}

/* out = a x + b y + c; y NULL: out = a x + c. */
static void affine(const float *x, const float *y, float *out, size_t n, float a, float b, float c) {
    if (y)
        for (size_t i = 0; i < n; i++)
            out[i] = a * x[i] + b * y[i] + c;
    else
        for (size_t i = 0; i < n; i++)
            out[i] = a * x[i] + c;
}
