/* Sums behind batch normalisation and its gradient: DSR_PARTIALS partial sums in double, added in order. */

static double add_partials(const double *partial) {
    double sum = 0;
    for (size_t j = 0; j < DSR_PARTIALS; j++)
        sum += partial[j];
    return sum;
}

static void moments(const float *values, size_t n, double *sums, double *squares) {
    double sum[DSR_PARTIALS] = {0}, square[DSR_PARTIALS] = {0};
    size_t i = 0;
    for (; i + DSR_PARTIALS <= n; i += DSR_PARTIALS)
        for (size_t j = 0; j < DSR_PARTIALS; j++) {
            double x = values[i + j];
            sum[j] += x;
            square[j] += x * x;
        }
    for (size_t j = 0; i + j < n; j++) {
        double x = values[i + j];
        sum[j] += x;
        square[j] += x * x;
    }
    *sums = add_partials(sum);
    *squares = add_partials(square);
}

/* Of g(t) = constant, x(t) = values: the sums over pixels, t and b of g and of g x. Lane b goes to partial b % 16. */
static void gradient_moments(const float *constant, const float *values, size_t pixels, size_t timesteps, size_t batch,
                             double *sums, double *products) {
    double sum[DSR_PARTIALS] = {0}, product[DSR_PARTIALS] = {0};
    for (size_t p = 0; p < pixels; p++)
        for (size_t first = 0; first < batch; first += DSR_PARTIALS) {
            size_t n = batch - first < DSR_PARTIALS ? batch - first : DSR_PARTIALS;
            const float *g = constant + p * batch + first, *x = values + p * timesteps * batch + first;
            double time_sum[DSR_PARTIALS] = {0};
            for (size_t t = 0; t < timesteps; t++)
                for (size_t j = 0; j < n; j++)
                    time_sum[j] += (double)x[t * batch + j];
            for (size_t j = 0; j < n; j++) {
                sum[j] += (double)g[j];
                product[j] += (double)g[j] * time_sum[j];
            }
        }
    *sums = (double)timesteps * add_partials(sum);
    *products = add_partials(product);
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

static void sum_gradient(const float *constant, const float *values, const float *weights, float *sum, size_t pixels,
                         size_t timesteps, size_t batch, float slope, float total) {
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
        for (size_t b = 0; b < batch; b++)
            out[b] = total * constant[p * batch + b] + slope * out[b];
    }
}
