/* Representations (time means) and the DSR gradient through the mapping between them. Included once per real type. */

/* mean = factor * (sum over t of weights[t] train[t]) / norm; weights NULL: all one. Sums run over t in order. */
static void NAME(time_mean)(const REAL *train, REAL *mean, size_t timesteps, size_t n, size_t stride,
                            const REAL *weights, REAL norm, REAL factor) {
    REAL sum[DSR_CHUNK];
    for (size_t i = 0; i < n; i++)
        sum[i] = 0;
    for (size_t t = 0; t < timesteps; t++) {
        const REAL *x = train + t * stride;
        if (weights) {
            REAL w = weights[t];
            for (size_t i = 0; i < n; i++)
                sum[i] += w * x[i];
        } else {
            for (size_t i = 0; i < n; i++)
                sum[i] += x[i];
        }
    }
    for (size_t i = 0; i < n; i++)
        mean[i] = factor * (sum[i] / norm);
}

/* clip(z / divisor, 0, top); a NaN stays NaN. */
static void NAME(rate)(const REAL *mean_current, REAL *rate, size_t n, REAL divisor, REAL top) {
    for (size_t i = 0; i < n; i++) {
        REAL z = mean_current[i] / divisor;
        z = z < 0 ? 0 : z;
        rate[i] = z > top ? top : z;
    }
}

/* The choice is made in REAL before it is widened: gcc 12 (-O3 -fno-trapping-math -mavx2) compiles a double chosen by a
 * float comparison to wrong sums. */
static void NAME(sum_above)(const REAL *grad, const REAL *mean_current, size_t n, REAL top, double *above) {
    REAL chosen[DSR_CHUNK];
    for (size_t i = 0; i < n; i++)
        chosen[i] = mean_current[i] > top ? grad[i] : 0;
    size_t i = 0;
    for (; i + DSR_PARTIALS <= n; i += DSR_PARTIALS)
        for (size_t j = 0; j < DSR_PARTIALS; j++)
            above[j] += (double)chosen[i + j];
    for (size_t j = 0; i + j < n; j++)
        above[j] += (double)chosen[i + j];
}

/* Gradient of the mapping: grad / divisor where the neuron is neither silent nor saturated, else 0. The gradients of
 * saturated neurons (z > top) add to `above`, DSR_PARTIALS partial sums in double. IF: closed interval [0, top]. */
static void NAME(if_rate_backward)(const REAL *grad, const REAL *mean_current, REAL *grad_current, size_t n, REAL top,
                                   REAL divisor, double *above) {
    for (size_t i = 0; i < n; i++) {
        REAL z = mean_current[i];
        grad_current[i] = (z >= 0) & (z <= top) ? grad[i] / divisor : 0;
    }
    NAME(sum_above)(grad, mean_current, n, top, above);
}

/* LIF: open interval (0, top). */
static void NAME(lif_rate_backward)(const REAL *grad, const REAL *mean_current, REAL *grad_current, size_t n, REAL top,
                                    REAL divisor, double *above) {
    for (size_t i = 0; i < n; i++) {
        REAL z = mean_current[i];
        grad_current[i] = (z > 0) & (z < top) ? grad[i] / divisor : 0;
    }
    NAME(sum_above)(grad, mean_current, n, top, above);
}
