/* Convolutions of one input and one output channel a group, where a GEMM would have a single row. */
#ifndef DSR_DEPTHWISE_H
#define DSR_DEPTHWISE_H

#include "gather.h"

static inline int dsr_is_depthwise(const dsr_conv *conv) {
    return conv->groups > 1 && conv->groups == conv->in_channels && conv->groups == conv->out_channels;
}

/* As dsr_conv2d and its gradients, without a spread. */
dsr_status dsr_depthwise(const float *input, const float *weight, const float *bias, float *output,
                         const dsr_conv *conv);
dsr_status dsr_depthwise_input_gradient(const float *grad_output, const float *weight, float *grad_input,
                                        const dsr_conv *conv);
dsr_status dsr_depthwise_weight_gradient(const float *grad_output, const float *input, float *grad_weight,
                                         const dsr_conv *conv);

/* As dsr_conv2d_spikes_weight_gradient, with any spread. */
dsr_status dsr_depthwise_spikes_weight_gradient(const dsr_gradient *gradient, const uint32_t *transposed,
                                                float amplitude, float *grad_weight, const dsr_conv *conv,
                                                size_t batch);

#endif
