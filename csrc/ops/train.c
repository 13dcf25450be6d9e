/* Operations on time-first trains, float32 and float64. */
#include "ops.h"

#include <math.h>
#include <stdlib.h>
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

static const dsr_time NOT_LEAKY = {0, 0};

dsr_status dsr_if_forward(dsr_dtype dtype, const void *current, void *output, size_t timesteps, size_t n,
                          double v_threshold, double alpha) {
    if (dtype == DSR_F32)
        if_forward_f32(current, output, timesteps, n, v_threshold, alpha);
    else
        if_forward_f64(current, output, timesteps, n, v_threshold, alpha);
    return DSR_OK;
}

dsr_status dsr_lif_forward(dsr_dtype dtype, const void *current, void *output, size_t timesteps, size_t n,
                           double v_threshold, dsr_time time, double alpha) {
    if (dtype == DSR_F32)
        lif_forward_f32(current, output, timesteps, n, v_threshold, time, alpha);
    else
        lif_forward_f64(current, output, timesteps, n, v_threshold, time, alpha);
    return DSR_OK;
}

dsr_status dsr_firing_rate(dsr_dtype dtype, const void *train, void *rate, size_t timesteps, size_t n) {
    return dsr_weighted_firing_rate(dtype, train, rate, timesteps, n, NOT_LEAKY);
}

dsr_status dsr_weighted_firing_rate(dsr_dtype dtype, const void *train, void *rate, size_t timesteps, size_t n,
                                    dsr_time time) {
    return dtype == DSR_F32 ? time_mean_f32(train, rate, timesteps, n, time)
                            : time_mean_f64(train, rate, timesteps, n, time);
}

static dsr_status map_rate(dsr_dtype dtype, const void *mean_current, void *rate, size_t n, double divisor,
                           double top) {
    if (dtype == DSR_F32)
        rate_f32(mean_current, rate, n, divisor, top);
    else
        rate_f64(mean_current, rate, n, divisor, top);
    return DSR_OK;
}

dsr_status dsr_if_rate(dsr_dtype dtype, const void *mean_current, void *rate, size_t n, double v_threshold) {
    return map_rate(dtype, mean_current, rate, n, 1, v_threshold);
}

dsr_status dsr_lif_rate(dsr_dtype dtype, const void *mean_current, void *rate, size_t n, double v_threshold,
                        dsr_time time) {
    double top = dtype == DSR_F32 ? (float)v_threshold / (float)time.delta_t : v_threshold / time.delta_t;
    return map_rate(dtype, mean_current, rate, n, time.tau, top);
}

static dsr_status backward(dsr_dtype dtype, const void *grad, const void *current, void *grad_current,
                           double *grad_threshold, size_t timesteps, size_t n, double v_threshold, dsr_time time,
                           double divisor) {
    return dtype == DSR_F32
               ? backward_f32(grad, current, grad_current, grad_threshold, timesteps, n, v_threshold, time, divisor)
               : backward_f64(grad, current, grad_current, grad_threshold, timesteps, n, v_threshold, time, divisor);
}

dsr_status dsr_if_backward(dsr_dtype dtype, const void *grad_output, const void *current, void *grad_current,
                           double *grad_threshold, size_t timesteps, size_t n, double v_threshold) {
    return backward(dtype, grad_output, current, grad_current, grad_threshold, timesteps, n, v_threshold, NOT_LEAKY, 1);
}

dsr_status dsr_lif_backward(dsr_dtype dtype, const void *grad_output, const void *current, void *grad_current,
                            double *grad_threshold, size_t timesteps, size_t n, double v_threshold, dsr_time time) {
    return backward(dtype, grad_output, current, grad_current, grad_threshold, timesteps, n, v_threshold, time, 1);
}

dsr_status dsr_if_rate_backward(dsr_dtype dtype, const void *grad_rate, const void *mean_current, void *grad_current,
                                double *grad_threshold, size_t n, double v_threshold, double divisor) {
    return backward(dtype, grad_rate, mean_current, grad_current, grad_threshold, 0, n, v_threshold, NOT_LEAKY,
                    divisor);
}

dsr_status dsr_lif_rate_backward(dsr_dtype dtype, const void *grad_rate, const void *mean_current, void *grad_current,
                                 double *grad_threshold, size_t n, double v_threshold, dsr_time time, double divisor) {
    return backward(dtype, grad_rate, mean_current, grad_current, grad_threshold, 0, n, v_threshold, time, divisor);
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
