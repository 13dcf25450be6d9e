/* Where the taps of a convolution, and of its input gradient, fall. */
#ifndef DSR_GATHER_H
#define DSR_GATHER_H

#include "ops.h"

/* One direction of what reads an image by taps: tap k of target i reads place start + i * pitch + k * step, which is
 * the source's pixel place / divisor if that is a whole number and inside, or zero. */
typedef struct {
    size_t size, targets, pitch, taps;
    ptrdiff_t start, step, divisor;
} gather_axis;

/* The pixel of a tap along one direction; SIZE_MAX: outside. */
static inline size_t gather_pixel(const gather_axis *axis, size_t target, size_t tap) {
    ptrdiff_t place = axis->start + (ptrdiff_t)(target * axis->pitch) + (ptrdiff_t)tap * axis->step;
    int inside = place >= 0 && place % axis->divisor == 0 && place / axis->divisor < (ptrdiff_t)axis->size;
    return inside ? (size_t)(place / axis->divisor) : SIZE_MAX;
}

static inline gather_axis forward_axis(const dsr_conv_axis *axis) {
    return (gather_axis){.size = axis->size,
                         .targets = axis->out,
                         .pitch = axis->stride,
                         .taps = axis->taps,
                         .start = -(ptrdiff_t)axis->before,
                         .step = (ptrdiff_t)axis->dilation,
                         .divisor = (ptrdiff_t)axis->spread};
}

/* The input gradient: an input pixel reads the outputs that have read it. */
static inline gather_axis scatter_axis(const dsr_conv_axis *axis) {
    return (gather_axis){.size = axis->out,
                         .targets = axis->size,
                         .pitch = 1,
                         .taps = axis->taps,
                         .start = (ptrdiff_t)axis->before,
                         .step = -(ptrdiff_t)axis->dilation,
                         .divisor = (ptrdiff_t)axis->stride};
}

#endif
