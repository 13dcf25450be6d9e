/* Neurons over time-first trains. The loop over neurons is innermost so that a vector holds neighbours; the potentials
 * of a chunk stay in the first cache. Included once per real type. */

static inline __attribute__((always_inline)) void NAME(run_neurons)(const REAL *current, const REAL *v_init,
                                                                    REAL *output, REAL *v_final, size_t timesteps,
                                                                    size_t n, size_t stride, const dsr_neuron *neuron,
                                                                    int leaky, int graded) {
    const NAME(step_numbers) numbers = NAME(numbers_of)(neuron);
    REAL v[DSR_CHUNK];
    for (size_t i = 0; i < n; i++)
        v[i] = v_init ? v_init[i] : 0;
    for (size_t t = 0; t < timesteps; t++) {
        const REAL *x = current + t * stride;
        REAL *o = output + t * stride;
        if (graded) {
            REAL k[DSR_CHUNK];
            for (size_t i = 0; i < n; i++) {
                v[i] = numbers.decay * v[i] + numbers.gain * x[i];
                k[i] = 0;
            }
            for (int value = 1 << (dsr_planes(neuron) - 1); value; value /= 2)
                for (size_t i = 0; i < n; i++) {
                    int fires;
                    GRADED_DIGIT(numbers, v[i], k[i], (REAL)value, fires, SELECT_NUMBER);
                }
            for (size_t i = 0; i < n; i++) {
                v[i] -= k[i] * numbers.v_threshold;
                o[i] = k[i] * numbers.amplitude;
            }
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            int fires;
            NEURON_STEP(leaky, numbers, v[i], x[i], fires, SELECT_NUMBER);
            o[i] = fires ? numbers.amplitude : 0;
        }
    }
    if (v_final)
        memcpy(v_final, v, n * sizeof *v);
}

static void NAME(neuron_forward)(const REAL *current, const REAL *v_init, REAL *output, REAL *v_final, size_t timesteps,
                                 size_t n, size_t stride, const dsr_neuron *neuron) {
    if (neuron->levels > 1)
        NAME(run_neurons)(current, v_init, output, v_final, timesteps, n, stride, neuron, 1, 1);
    else if (is_leaky(neuron))
        NAME(run_neurons)(current, v_init, output, v_final, timesteps, n, stride, neuron, 1, 0);
    else
        NAME(run_neurons)(current, v_init, output, v_final, timesteps, n, stride, neuron, 0, 0);
}
