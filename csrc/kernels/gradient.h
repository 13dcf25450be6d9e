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

/* clip(z / divisor, 0, levels amplitude); a NaN stays NaN. */
static void NAME(rate)(const REAL *mean_current, REAL *rate, size_t n, const dsr_neuron *neuron) {
    REAL divisor = (REAL)neuron->divisor, top = (REAL)neuron->levels * (REAL)neuron->amplitude;
    for (size_t i = 0; i < n; i++) {
        REAL z = mean_current[i] / divisor;
        z = z < 0 ? 0 : z;
        rate[i] = z > top ? top : z;
    }
}

/* Adds the gradients of neurons with z > top; masked as bits, so that a NaN there counts and one elsewhere does not. */
static void NAME(sum_above)(const REAL *grad, const REAL *mean_current, size_t n, REAL top, double *above) {
    partial_vector sum[PARTIAL_VECTORS];
    memcpy(sum, above, sizeof sum);
    size_t i = 0;
    for (; i + DSR_PARTIALS <= n; i += DSR_PARTIALS)
#pragma GCC unroll 8
        for (size_t j = 0; j < PARTIAL_VECTORS; j++) {
            const REAL *g = grad + i + j * PARTIAL_LANES, *z = mean_current + i + j * PARTIAL_LANES;
            NAME(partial_bits) chosen = *(const NAME(partial_bits) *)g & (*(const NAME(partial_values) *)z > top);
            sum[j] += __builtin_convertvector((NAME(partial_values))chosen, partial_vector);
        }
    memcpy(above, sum, sizeof sum);
    /* Chosen in REAL, then widened: gcc 12 (-O3 -fno-trapping-math -mavx2) compiles a double chosen by a float
     * comparison to wrong sums. */
    REAL rest[DSR_PARTIALS];
    for (size_t j = 0; i + j < n; j++)
        rest[j] = mean_current[i + j] > top ? grad[i + j] : 0;
    for (size_t j = 0; i + j < n; j++)
        above[j] += (double)rest[j];
}

/* Gradient of the mapping: grad / divisor where the neuron is neither silent nor saturated, else 0. The gradients of
 * saturated neurons (z > top) add to `above`, DSR_PARTIALS partial sums in double. */
static void NAME(rate_backward)(const REAL *grad, const REAL *mean_current, REAL *grad_current, size_t n,
                                const dsr_neuron *neuron, REAL divisor, double *above) {
    REAL top = (REAL)neuron->top;
    if (neuron->closed)
        for (size_t i = 0; i < n; i++) {
            REAL z = mean_current[i], share = grad[i] / divisor;
            grad_current[i] = ((z >= 0) & (z <= top)) ? share : 0;
        }
    else
        for (size_t i = 0; i < n; i++) {
            REAL z = mean_current[i], share = grad[i] / divisor;
            grad_current[i] = ((z > 0) & (z < top)) ? share : 0;
        }
    NAME(sum_above)(grad, mean_current, n, top, above);
}
