/* Spike encoders; spikes are 0 and 1 (delta: -1, 0, 1). Included once per real type. No value, NaN included, is cast
 * to an integer: a value outside its range gives some train, never undefined behaviour. */

/* Spike where a uniform number of [0, 1) is below the rate. `first`, a multiple of 4, is the stream position. */
static void NAME(encode_bernoulli)(const REAL *rate, REAL *train, size_t n, uint64_t first, uint64_t seed) {
    uint32_t word[DSR_CHUNK + 4];
    random_words(first, seed, word, n);
    for (size_t i = 0; i < n; i++)
        train[i] = (double)word[i] * 0x1p-32 < (double)rate[i] ? 1 : 0;
}

/* One spike, the earlier the larger the value: at T-1 - round(value (T-1)). */
static void NAME(encode_latency)(const REAL *value, REAL *train, size_t timesteps, size_t n, size_t stride) {
    REAL last = (REAL)(timesteps - 1);
    for (size_t t = 0; t < timesteps; t++) {
        REAL wanted = (REAL)(timesteps - 1 - t);
        REAL *out = train + t * stride;
        /* round(value * last) == wanted, without a call to floor */
        for (size_t i = 0; i < n; i++) {
            REAL scaled = value[i] * last + (REAL)0.5;
            out[i] = ((scaled >= wanted) & (scaled < wanted + 1)) ? 1 : 0;
        }
    }
}

/* Binary digits of the value, most significant first, one a step, repeated every `bits` steps. */
static void NAME(encode_phase)(const REAL *value, REAL *train, size_t timesteps, size_t n, size_t stride, size_t bits) {
    REAL rest[DSR_CHUNK];
    REAL weight = 0;
    for (size_t t = 0; t < timesteps; t++) {
        REAL *out = train + t * stride;
        if (t % bits == 0) {
            weight = 1;
            for (size_t i = 0; i < n; i++)
                rest[i] = value[i];
        }
        weight *= (REAL)0.5;
        for (size_t i = 0; i < n; i++) {
            REAL spike = rest[i] >= weight ? 1 : 0;
            out[i] = spike;
            rest[i] -= spike * weight;
        }
    }
}

/* Send on delta: +1 / -1 when the signal left the last transmitted level by `threshold` or more. */
static void NAME(encode_delta)(const REAL *signal, REAL *train, size_t timesteps, size_t n, size_t stride,
                               REAL threshold) {
    REAL level[DSR_CHUNK];
    for (size_t i = 0; i < n; i++)
        level[i] = timesteps ? signal[i] : 0;
    for (size_t t = 0; t < timesteps; t++) {
        const REAL *x = signal + t * stride;
        REAL *out = train + t * stride;
        for (size_t i = 0; i < n; i++) {
            REAL change = x[i] - level[i];
            REAL up = change >= threshold ? 1 : 0, down = change <= -threshold ? 1 : 0;
            out[i] = up - down;
            level[i] += (up - down) * threshold;
        }
    }
}
