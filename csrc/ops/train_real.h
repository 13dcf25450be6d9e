/* The time-first operations for one real type: chunks of neurons, shared out to threads. */

static void NAME(neuron_forward)(const REAL *current, const REAL *v_init, REAL *output, REAL *v_final, size_t timesteps,
                                 size_t n, const dsr_neuron *neuron) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(neuron_forward)
        (current + at, v_init ? v_init + at : NULL, output + at, v_final ? v_final + at : NULL, timesteps,
         dsr_block_size(n, DSR_CHUNK, (size_t)chunk), n, neuron);
    }
}

/* The weights as REAL, or NULL where there are none, and what a weighted sum is divided by: their sum, or T. */
static dsr_status NAME(representation)(const double *weights, REAL **rounded, REAL *norm, size_t timesteps) {
    *rounded = NULL;
    *norm = (REAL)timesteps;
    if (!weights)
        return DSR_OK;
    *rounded = dsr_scratch(timesteps, sizeof **rounded);
    if (!*rounded)
        return DSR_NO_MEMORY;
    double sum = 0;
    for (size_t t = 0; t < timesteps; t++) {
        (*rounded)[t] = (REAL)weights[t];
        sum += weights[t];
    }
    *norm = (REAL)sum;
    return DSR_OK;
}

static dsr_status NAME(firing_rate)(const REAL *train, const double *weights, REAL *rate, size_t timesteps, size_t n) {
    REAL *rounded, norm;
    dsr_status status = NAME(representation)(weights, &rounded, &norm, timesteps);
    if (status != DSR_OK)
        return status;
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(time_mean)
        (train + at, rate + at, timesteps, dsr_block_size(n, DSR_CHUNK, (size_t)chunk), n, rounded, norm, 1);
    }
    dsr_release(rounded);
    return DSR_OK;
}

static void NAME(rate)(const REAL *mean_current, REAL *rate, size_t n, const dsr_neuron *neuron) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(rate)(mean_current + at, rate + at, dsr_block_size(n, DSR_CHUNK, (size_t)chunk), neuron);
    }
}

/* One chunk's gradient through the mapping; its share of the threshold's gradient is returned. */
static double NAME(chunk_backward)(const REAL *grad, const REAL *mean_current, REAL *grad_current, size_t n,
                                   const dsr_neuron *neuron, REAL divisor) {
    double above[DSR_PARTIALS] = {0};
    KERNEL(rate_backward)(grad, mean_current, grad_current, n, neuron, divisor, above);
    return dsr_add_partials(above);
}

/* timesteps == 0: grad and current have no time axis, they are the representations themselves. */
static dsr_status NAME(backward)(const REAL *grad, const REAL *current, const double *weights, REAL *grad_current,
                                 double *grad_threshold, size_t timesteps, size_t n, const dsr_neuron *neuron) {
    *grad_threshold = 0;
    if (!n) /* no weights for time steps that hold nothing */
        return DSR_OK;
    REAL *rounded, norm, divisor = (REAL)neuron->divisor;
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
    double *sums = dsr_scratch((size_t)chunks, sizeof *sums);
    dsr_status status = sums ? NAME(representation)(weights, &rounded, &norm, timesteps) : DSR_NO_MEMORY;
    if (status != DSR_OK) {
        dsr_release(sums);
        return status;
    }
    /* method: g is the sum of the gradients, or T times their weighted mean; every step receives g / (divisor T). */
    REAL steps = (REAL)timesteps, share = divisor * steps, grad_norm = rounded ? norm : 1, factor = rounded ? steps : 1;
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for((timesteps + 1) * n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK, count = dsr_block_size(n, DSR_CHUNK, (size_t)chunk);
        if (!timesteps) {
            sums[chunk] = NAME(chunk_backward)(grad + at, current + at, grad_current + at, count, neuron, divisor);
            continue;
        }
        REAL g[DSR_CHUNK], z[DSR_CHUNK], input[DSR_CHUNK];
        KERNEL(time_mean)(grad + at, g, timesteps, count, n, rounded, grad_norm, factor);
        KERNEL(time_mean)(current + at, z, timesteps, count, n, rounded, norm, 1);
        sums[chunk] = NAME(chunk_backward)(g, z, input, count, neuron, share);
        for (size_t t = 0; t < timesteps; t++)
            memcpy(grad_current + t * n + at, input, count * sizeof *input);
    }
    double sum = 0;
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++)
        sum += sums[chunk];
    *grad_threshold = sum;
    dsr_release(sums);
    dsr_release(rounded);
    return DSR_OK;
}

static void NAME(encode_bernoulli)(const REAL *rate, REAL *train, size_t timesteps, size_t n, uint64_t seed) {
    /* each step starts at a multiple of 4, a whole block of the generator */
    uint64_t row = dsr_blocks(n, 4) * 4;
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK, count = dsr_block_size(n, DSR_CHUNK, (size_t)chunk);
        for (size_t t = 0; t < timesteps; t++)
            KERNEL(encode_bernoulli)(rate + at, train + t * n + at, count, t * row + at, seed);
    }
}

static void NAME(encode_latency)(const REAL *value, REAL *train, size_t timesteps, size_t n) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(encode_latency)(value + at, train + at, timesteps, dsr_block_size(n, DSR_CHUNK, (size_t)chunk), n);
    }
}

static void NAME(encode_phase)(const REAL *value, REAL *train, size_t timesteps, size_t n, size_t bits) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(encode_phase)(value + at, train + at, timesteps, dsr_block_size(n, DSR_CHUNK, (size_t)chunk), n, bits);
    }
}

static void NAME(encode_delta)(const REAL *signal, REAL *train, size_t timesteps, size_t n, double threshold) {
    ptrdiff_t chunks = (ptrdiff_t)dsr_blocks(n, DSR_CHUNK);
#pragma omp parallel for schedule(static) num_threads(dsr_threads_for(timesteps *n))
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = (size_t)chunk * DSR_CHUNK;
        KERNEL(encode_delta)
        (signal + at, train + at, timesteps, dsr_block_size(n, DSR_CHUNK, (size_t)chunk), n, (REAL)threshold);
    }
}
