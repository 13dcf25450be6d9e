/* The same sources for processors with AVX2. */
#if defined(__x86_64__)
    #include <immintrin.h> /* before what follows, which clang would apply to it */
    #if defined(__clang__)
        #pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
    #else
        #pragma GCC target("avx2")
    #endif
    #define LEVEL avx2
    #define VECTOR_BYTES 32
    #define VECTOR_REGISTER "x"
    #include "../kernels/table.h"
    #if defined(__clang__)
        #pragma clang attribute pop
    #endif
#else
typedef int dsr_no_avx2; /* an empty translation unit is not C */
#endif
