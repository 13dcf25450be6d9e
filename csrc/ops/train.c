/* Operations on time-first trains, float32 and float64. */
#include "ops.h"

#include <string.h>

#define REAL float
#define NAME(stem) stem##_f32
#define KERNEL(stem) dsr_kernel->stem##_f32
#include "train_real.h"
#undef REAL
#undef NAME
#undef KERNEL

#define REAL double
#define NAME(stem) stem##_f64
#define KERNEL(stem) dsr_kernel->stem##_f64
#include "train_real.h"
#undef REAL
#undef NAME
#undef KERNEL

dsr_status dsr_neuron_forward(dsr_dtype dtype, const void *current, const void *v_init, void *output, void *v_final,
                              size_t timesteps, size_t n, dsr_neuron neuron) {
    if (dtype == DSR_F32)
        neuron_forward_f32(current, v_init, output, v_final, timesteps, n, &neuron);
    else
        neuron_forward_f64(current, v_init, output, v_final, timesteps, n, &neuron);
    return DSR_OK;
}

dsr_status dsr_firing_rate(dsr_dtype dtype, const void *train, const double *weights, void *rate, size_t timesteps,
                           size_t n) {
    return dtype == DSR_F32 ? firing_rate_f32(train, weights, rate, timesteps, n)
                            : firing_rate_f64(train, weights, rate, timesteps, n);
}

dsr_status dsr_rate(dsr_dtype dtype, const void *mean_current, void *rate, size_t n, dsr_neuron neuron) {
    if (dtype == DSR_F32)
        rate_f32(mean_current, rate, n, &neuron);
    else
        rate_f64(mean_current, rate, n, &neuron);
    return DSR_OK;
}

dsr_status dsr_backward(dsr_dtype dtype, const void *grad_output, const void *current, const double *weights,
                        void *grad_current, double *grad_threshold, size_t timesteps, size_t n, dsr_neuron neuron) {
    return dtype == DSR_F32
               ? backward_f32(grad_output, current, weights, grad_current, grad_threshold, timesteps, n, &neuron)
               : backward_f64(grad_output, current, weights, grad_current, grad_threshold, timesteps, n, &neuron);
}

dsr_status dsr_rate_backward(dsr_dtype dtype, const void *grad_rate, const void *mean_current, void *grad_current,
                             double *grad_threshold, size_t n, dsr_neuron neuron) {
    return dsr_backward(dtype, grad_rate, mean_current, NULL, grad_current, grad_threshold, 0, n, neuron);
}

dsr_status dsr_encode_bernoulli(dsr_dtype dtype, const void *rate, void *train, size_t timesteps, size_t n,
                                uint64_t seed) {
    if (dtype == DSR_F32)
        encode_bernoulli_f32(rate, train, timesteps, n, seed);
    else
        encode_bernoulli_f64(rate, train, timesteps, n, seed);
    return DSR_OK;
}

dsr_status dsr_encode_latency(dsr_dtype dtype, const void *value, void *train, size_t timesteps, size_t n) {
    if (dtype == DSR_F32)
        encode_latency_f32(value, train, timesteps, n);
    else
        encode_latency_f64(value, train, timesteps, n);
    return DSR_OK;
}

dsr_status dsr_encode_phase(dsr_dtype dtype, const void *value, void *train, size_t timesteps, size_t n, size_t bits) {
    if (dtype == DSR_F32)
        encode_phase_f32(value, train, timesteps, n, bits);
    else
        encode_phase_f64(value, train, timesteps, n, bits);
    return DSR_OK;
}

dsr_status dsr_encode_delta(dsr_dtype dtype, const void *signal, void *train, size_t timesteps, size_t n,
                            double threshold) {
    if (dtype == DSR_F32)
        encode_delta_f32(signal, train, timesteps, n, threshold);
    else
        encode_delta_f64(signal, train, timesteps, n, threshold);
    return DSR_OK;
}
