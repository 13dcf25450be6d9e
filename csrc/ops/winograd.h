/* Dense convolutions of 2x2 or 3x3 taps and stride 1 by Winograd's method, for gradients. */
#ifndef DSR_WINOGRAD_H
#define DSR_WINOGRAD_H

#include "ops.h"

/* Output pixel (i, j) takes tap (a, b) from source pixel (first_y + i - a, first_x + j - b), or zero outside of it. */
typedef struct {
    const float *source; /* [channels][height][width][lanes] */
    size_t channels, height, width, lanes;
    const float *weights; /* tap (a, b) of an output o and a channel c is at o * output_step + c * channel_step + a *
                             tap_y + b * tap_x */
    size_t output_step, channel_step, tap_y, tap_x;
    size_t outputs, rows, columns;
    ptrdiff_t first_y, first_x;
    int taps;
    /* where output pixels go: output (o, i, j) begins at target + o * plane + i * row + j * column */
    float *target;
    size_t plane, row, column;
} dsr_small_conv;

/* Whether it is faster than gathering all taps; depends on shapes only. */
int dsr_winograd_pays(const dsr_small_conv *conv);
dsr_status dsr_winograd(const dsr_small_conv *conv);

/* The gradient of a 3x3 kernel (winograd_weights.c); whether that is faster depends on shapes only. */
int dsr_winograd_weights_pay(const dsr_conv *conv);
dsr_status dsr_winograd_weights(const float *grad_output, const float *input, float *grad_weight, dsr_conv conv);

#endif
