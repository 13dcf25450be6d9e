/* The time-first operations for one real type: chunks of neurons, shared out to threads. */

static void NAME(if_forward)(const REAL *current, REAL *output, size_t timesteps, size_t n, double v_threshold,
                             double alpha) {
    REAL v = (REAL)v_threshold, fire = (REAL)alpha * v;
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(if_forward)(current + at, output + at, timesteps, dsr_piece(n, DSR_CHUNK, (size_t)chunk), n, v, fire);
    }
}

static void NAME(lif_forward)(const REAL *current, REAL *output, size_t timesteps, size_t n, double v_threshold,
                              dsr_time time, double alpha) {
    double b = exp(-time.delta_t / time.tau);
    REAL v = (REAL)v_threshold, fire = (REAL)alpha * v, decay = (REAL)b, gain = (REAL)(1 - b);
    REAL amplitude = v / (REAL)time.delta_t;
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(lif_forward)
        (current + at, output + at, timesteps, dsr_piece(n, DSR_CHUNK, (size_t)chunk), n, v, fire, decay, gain,
         amplitude);
    }
}

/* weights as REAL and their norm; NULL and T for IF (time.delta_t == 0). */
static dsr_status NAME(representation)(REAL **weights, REAL *norm, size_t timesteps, dsr_time time) {
    *weights = NULL;
    *norm = (REAL)timesteps;
    if (time.delta_t == 0)
        return DSR_OK;
    double *exact = dsr_scratch(timesteps, sizeof *exact);
    REAL *rounded = dsr_scratch(timesteps, sizeof *rounded);
    if (!exact || !rounded) {
        free(exact);
        free(rounded);
        return DSR_NO_MEMORY;
    }
    *norm = (REAL)dsr_time_weights(exact, timesteps, time);
    for (size_t t = 0; t < timesteps; t++)
        rounded[t] = (REAL)exact[t];
    free(exact);
    *weights = rounded;
    return DSR_OK;
}

static dsr_status NAME(time_mean)(const REAL *train, REAL *rate, size_t timesteps, size_t n, dsr_time time) {
    REAL *weights, norm;
    dsr_status status = NAME(representation)(&weights, &norm, timesteps, time);
    if (status != DSR_OK)
        return status;
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(time_mean)
        (train + at, rate + at, timesteps, dsr_piece(n, DSR_CHUNK, (size_t)chunk), n, weights, norm, 1);
    }
    free(weights);
    return DSR_OK;
}

static void NAME(rate)(const REAL *mean_current, REAL *rate, size_t n, double divisor, double top) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(rate)
        (mean_current + at, rate + at, dsr_piece(n, DSR_CHUNK, (size_t)chunk), (REAL)divisor, (REAL)top);
    }
}

/* One chunk's gradient through the mapping; its share of the threshold's gradient is returned. */
static double NAME(rate_backward)(const REAL *grad, const REAL *mean_current, REAL *grad_current, size_t n, int leaky,
                                  REAL top, REAL divisor) {
    double above[DSR_PARTIALS] = {0};
    if (leaky)
        KERNEL(lif_rate_backward)(grad, mean_current, grad_current, n, top, divisor, above);
    else
        KERNEL(if_rate_backward)(grad, mean_current, grad_current, n, top, divisor, above);
    return dsr_add_partials(above);
}

/* timesteps == 0: grad and current have no time axis, they are the representations themselves. */
static dsr_status NAME(backward)(const REAL *grad, const REAL *current, REAL *grad_current, double *grad_threshold,
                                 size_t timesteps, size_t n, double v_threshold, dsr_time time, double divisor) {
    *grad_threshold = 0;
    if (!n) /* no weights for time steps that hold nothing */
        return DSR_OK;
    int leaky = time.delta_t != 0;
    REAL top = leaky ? (REAL)time.tau * (REAL)v_threshold / (REAL)time.delta_t : (REAL)v_threshold;
    REAL *weights = NULL, norm = 1;
    dsr_status status = DSR_OK;
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
    double *sums = dsr_scratch((size_t)chunks, sizeof *sums);
    if (!sums)
        return DSR_NO_MEMORY;
    if (timesteps)
        status = NAME(representation)(&weights, &norm, timesteps, time);
    if (status != DSR_OK) {
        free(sums);
        return status;
    }
    /* method: g = sum of d (IF) or T r(d) (LIF); every step receives g / T or g / (tau T). */
    REAL steps = (REAL)timesteps, factor = leaky ? steps : 1, share = leaky ? (REAL)time.tau * steps : steps;
#pragma omp parallel for schedule(static) num_threads(dsr_team((timesteps + 1) * n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK, count = dsr_piece(n, DSR_CHUNK, (size_t)chunk);
        if (!timesteps) {
            sums[chunk] =
                NAME(rate_backward)(grad + at, current + at, grad_current + at, count, leaky, top, (REAL)divisor);
            continue;
        }
        REAL g[DSR_CHUNK], z[DSR_CHUNK], input[DSR_CHUNK];
        KERNEL(time_mean)(grad + at, g, timesteps, count, n, weights, leaky ? norm : 1, factor);
        KERNEL(time_mean)(current + at, z, timesteps, count, n, weights, norm, 1);
        sums[chunk] = NAME(rate_backward)(g, z, input, count, leaky, top, share);
        for (size_t t = 0; t < timesteps; t++)
            memcpy(grad_current + t * n + at, input, count * sizeof *input);
    }
    double sum = 0;
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++)
        sum += sums[chunk];
    *grad_threshold = sum;
    free(sums);
    free(weights);
    return DSR_OK;
}

static void NAME(encode_bernoulli)(const REAL *rate, REAL *train, size_t timesteps, size_t n, uint64_t seed) {
    /* each step starts at a multiple of 4, a whole block of the generator */
    uint64_t row = dsr_pieces(n, 4) * 4;
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK, count = dsr_piece(n, DSR_CHUNK, (size_t)chunk);
        for (size_t t = 0; t < timesteps; t++)
            KERNEL(encode_bernoulli)(rate + at, train + t * n + at, count, t * row + at, seed);
    }
}

static void NAME(encode_latency)(const REAL *value, REAL *train, size_t timesteps, size_t n) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(encode_latency)(value + at, train + at, timesteps, dsr_piece(n, DSR_CHUNK, (size_t)chunk), n);
    }
}

static void NAME(encode_phase)(const REAL *value, REAL *train, size_t timesteps, size_t n, size_t bits) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(encode_phase)(value + at, train + at, timesteps, dsr_piece(n, DSR_CHUNK, (size_t)chunk), n, bits);
    }
}

static void NAME(encode_delta)(const REAL *signal, REAL *train, size_t timesteps, size_t n, double threshold) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_pieces(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_team(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(encode_delta)
        (signal + at, train + at, timesteps, dsr_piece(n, DSR_CHUNK, (size_t)chunk), n, (REAL)threshold);
    }
}
