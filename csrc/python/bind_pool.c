/* Pooling of images in the lanes layout. */
#include "bind.h"

static int check_pool(const dsr_call *c, size_t kernel, size_t stride, size_t padding) {
    if (padding > kernel / 2)
        return dsr_refuse(c, "padding", "at most half the kernel size");
    return dsr_check_windows(c, 'H', 'I', kernel, stride, padding) < 0 ||
                   dsr_check_windows(c, 'W', 'J', kernel, stride, padding) < 0
               ? -1
               : 0;
}

static dsr_pool pool_of(const dsr_call *c, size_t kernel, size_t stride, size_t padding) {
    return (dsr_pool){.channels = AXIS(c, 'C'),
                      .height = AXIS(c, 'H'),
                      .width = AXIS(c, 'W'),
                      .lanes = AXIS(c, 'L'),
                      .kernel = kernel,
                      .stride = stride,
                      .padding = padding,
                      .out_height = AXIS(c, 'I'),
                      .out_width = AXIS(c, 'J')};
}

#define WINDOW(A, S)                                                                                                   \
    A(S, COUNT, kernel_size, NULL, IN)                                                                                 \
    A(S, COUNT, stride, NULL, IN)                                                                                      \
    A(S, SIZE, padding, NULL, IN)

#define AVG_POOL(A, S)                                                                                                 \
    A(S, F32, input, "CHWL", IN)                                                                                       \
    WINDOW(A, S)                                                                                                       \
    A(S, F32, out, "CIJL", OUT)
ARGUMENTS(avg_pool, AVG_POOL)

CHECK(avg_pool) {
    return check_pool(c, a->kernel_size, a->stride, a->padding);
}

OPERATION(avg_pool, check_avg_pool, RETURNS_NOTHING) {
    return dsr_avg_pool(a->input, a->out, pool_of(c, a->kernel_size, a->stride, a->padding));
}

#define AVG_POOL_BACKWARD(A, S)                                                                                        \
    A(S, F32, grad_output, "CIJL", IN)                                                                                 \
    WINDOW(A, S)                                                                                                       \
    A(S, F32, out, "CHWL", OUT)
ARGUMENTS(avg_pool_backward, AVG_POOL_BACKWARD)

CHECK(avg_pool_backward) {
    return check_pool(c, a->kernel_size, a->stride, a->padding);
}

OPERATION(avg_pool_backward, check_avg_pool_backward, RETURNS_NOTHING) {
    return dsr_avg_pool_backward(a->grad_output, a->out, pool_of(c, a->kernel_size, a->stride, a->padding));
}

#define POOL_PLANES(A, S)                                                                                              \
    A(S, U32, words, "CHWL", IN)                                                                                       \
    WINDOW(A, S)                                                                                                       \
    A(S, U32, out, "KCIJL", OUT)
ARGUMENTS(pool_planes, POOL_PLANES)

CHECK(pool_planes) {
    size_t most = a->kernel_size * a->kernel_size, digits = 0;
    while (most >> digits)
        digits++;
    if (dsr_expect_axis(c, 'K', digits, "binary digits of kernel_size**2") < 0)
        return -1;
    return check_pool(c, a->kernel_size, a->stride, a->padding);
}

OPERATION(pool_planes, check_pool_planes, RETURNS_NOTHING) {
    return dsr_pool_planes(a->words, a->out, AXIS(c, 'K'), pool_of(c, a->kernel_size, a->stride, a->padding));
}
