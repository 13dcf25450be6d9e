/* IF and LIF neurons over time-first trains (method: u = v + I or decay v + (1 - decay) I; spike where u >= fire;
 * reset by subtraction of v_threshold). The loop over neurons is innermost so that a vector holds neighbours; the
 * potentials of a chunk live in the first cache. Included once per real type. */

static void NAME(if_forward)(const REAL *current, REAL *output, size_t timesteps, size_t n, size_t stride,
                             REAL v_threshold, REAL fire) {
    REAL v[DSR_CHUNK];
    for (size_t i = 0; i < n; i++)
        v[i] = 0;
    for (size_t t = 0; t < timesteps; t++) {
        const REAL *x = current + t * stride;
        REAL *o = output + t * stride;
        for (size_t i = 0; i < n; i++) {
            REAL u = v[i] + x[i];
            REAL s = u >= fire ? v_threshold : 0;
            o[i] = s;
            v[i] = u - s;
        }
    }
}

static void NAME(lif_forward)(const REAL *current, REAL *output, size_t timesteps, size_t n, size_t stride,
                              REAL v_threshold, REAL fire, REAL decay, REAL gain, REAL amplitude) {
    REAL v[DSR_CHUNK];
    for (size_t i = 0; i < n; i++)
        v[i] = 0;
    for (size_t t = 0; t < timesteps; t++) {
        const REAL *x = current + t * stride;
        REAL *o = output + t * stride;
        for (size_t i = 0; i < n; i++) {
            REAL u = decay * v[i] + gain * x[i];
            o[i] = u >= fire ? amplitude : 0;
            v[i] = u - (u >= fire ? v_threshold : 0);
        }
    }
}
