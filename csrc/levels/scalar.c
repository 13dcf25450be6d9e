/* The plain C level: whatever the compiler makes of it for the oldest processor of the platform. On 64-bit Arm, whose
 * oldest has vectors, without them, so that there is something to compare with. */
#if defined(__aarch64__)
    #if defined(__clang__) && __clang_major__ < 16
        #pragma clang attribute push(__attribute__((target("no-neon"))), apply_to = function)
    #elif defined(__clang__)
        #pragma clang attribute push(__attribute__((target("nosimd"))), apply_to = function)
    #else
        #pragma GCC target("arch=armv8-a+nosimd")
    #endif
#endif
#if defined(__x86_64__)
    #include <immintrin.h>
#endif
#define LEVEL scalar
#define VECTOR_BYTES 16
#include "../kernels/table.h"
#if defined(__aarch64__) && defined(__clang__)
    #pragma clang attribute pop
#endif
