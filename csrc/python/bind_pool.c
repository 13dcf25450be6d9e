/* Pooling of images in the lanes layout. */
#include "bind.h"

#define WINDOW(A, S)                                                                                                   \
    A(S, COUNT, kernel_h, NULL, IN)                                                                                    \
    A(S, COUNT, kernel_w, NULL, IN)                                                                                    \
    A(S, COUNT, stride_h, NULL, IN)                                                                                    \
    A(S, COUNT, stride_w, NULL, IN)                                                                                    \
    A(S, SIZE, padding_h, NULL, IN)                                                                                    \
    A(S, SIZE, padding_w, NULL, IN)

static int check_pool(const dsr_call *c, dsr_pool pool) {
    if (pool.padding_h > pool.kernel_h / 2)
        return dsr_refuse(c, "padding_h", "at most half the kernel size");
    if (pool.padding_w > pool.kernel_w / 2)
        return dsr_refuse(c, "padding_w", "at most half the kernel size");
    return dsr_check_windows(c, 'H', 'I', pool.kernel_h, pool.stride_h, pool.padding_h) < 0 ||
                   dsr_check_windows(c, 'W', 'J', pool.kernel_w, pool.stride_w, pool.padding_w) < 0
               ? -1
               : 0;
}

/* The pooling that a call asks for, by its arguments `a` and axes. */
#define POOL_OF(c, a)                                                                                                  \
    ((dsr_pool){.channels = AXIS(c, 'C'),                                                                              \
                .height = AXIS(c, 'H'),                                                                                \
                .width = AXIS(c, 'W'),                                                                                 \
                .lanes = AXIS(c, 'L'),                                                                                 \
                .kernel_h = (a)->kernel_h,                                                                             \
                .kernel_w = (a)->kernel_w,                                                                             \
                .stride_h = (a)->stride_h,                                                                             \
                .stride_w = (a)->stride_w,                                                                             \
                .padding_h = (a)->padding_h,                                                                           \
                .padding_w = (a)->padding_w,                                                                           \
                .out_height = AXIS(c, 'I'),                                                                            \
                .out_width = AXIS(c, 'J')})

#define VALUES_POOL(A, S)                                                                                              \
    A(S, F32, input, "CHWL", IN)                                                                                       \
    WINDOW(A, S)                                                                                                       \
    A(S, F32, out, "CIJL", OUT)
ARGUMENTS(avg_pool, VALUES_POOL)
ARGUMENTS(max_pool, VALUES_POOL)

CHECK(avg_pool) {
    return check_pool(c, POOL_OF(c, a));
}

CHECK(max_pool) {
    return check_pool(c, POOL_OF(c, a));
}

OPERATION(avg_pool, check_avg_pool, RETURNS_NOTHING) {
    return dsr_avg_pool(a->input, a->out, POOL_OF(c, a));
}

OPERATION(max_pool, check_max_pool, RETURNS_NOTHING) {
    return dsr_max_pool(a->input, a->out, POOL_OF(c, a));
}

#define AVG_POOL_BACKWARD(A, S)                                                                                        \
    A(S, F32, grad_output, "CIJL", IN)                                                                                 \
    WINDOW(A, S)                                                                                                       \
    A(S, F32, out, "CHWL", OUT)
ARGUMENTS(avg_pool_backward, AVG_POOL_BACKWARD)

CHECK(avg_pool_backward) {
    return check_pool(c, POOL_OF(c, a));
}

OPERATION(avg_pool_backward, check_avg_pool_backward, RETURNS_NOTHING) {
    return dsr_avg_pool_backward(a->grad_output, a->out, POOL_OF(c, a));
}

#define MAX_POOL_BACKWARD(A, S)                                                                                        \
    A(S, F32, grad_output, "CIJL", IN)                                                                                 \
    A(S, F32, input, "CHWL", IN)                                                                                       \
    WINDOW(A, S)                                                                                                       \
    A(S, F32, out, "CHWL", OUT)
ARGUMENTS(max_pool_backward, MAX_POOL_BACKWARD)

CHECK(max_pool_backward) {
    return check_pool(c, POOL_OF(c, a));
}

OPERATION(max_pool_backward, check_max_pool_backward, RETURNS_NOTHING) {
    return dsr_max_pool_backward(a->grad_output, a->input, a->out, POOL_OF(c, a));
}

#define OR_POOL(A, S)                                                                                                  \
    A(S, U32, words, "CHWL", IN)                                                                                       \
    WINDOW(A, S)                                                                                                       \
    A(S, U32, out, "CIJL", OUT)
ARGUMENTS(or_pool, OR_POOL)

CHECK(or_pool) {
    return check_pool(c, POOL_OF(c, a));
}

OPERATION(or_pool, check_or_pool, RETURNS_NOTHING) {
    return dsr_or_pool(a->words, a->out, POOL_OF(c, a));
}

#define POOL_PLANES(A, S)                                                                                              \
    A(S, U32, words, "CHWL", IN)                                                                                       \
    WINDOW(A, S)                                                                                                       \
    A(S, U32, out, "KCIJL", OUT)
ARGUMENTS(pool_planes, POOL_PLANES)

CHECK(pool_planes) {
    size_t most = a->kernel_h * a->kernel_w, digits = 0;
    while (most >> digits)
        digits++;
    if (dsr_expect_axis(c, 'K', digits, "binary digits of kernel_h * kernel_w") < 0)
        return -1;
    return check_pool(c, POOL_OF(c, a));
}

OPERATION(pool_planes, check_pool_planes, RETURNS_NOTHING) {
    return dsr_pool_planes(a->words, a->out, AXIS(c, 'K'), POOL_OF(c, a));
}
