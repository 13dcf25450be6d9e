/* The same sources for processors with AVX-512 (F, BW, DQ, VL). */
#if defined(__x86_64__)
    #include <immintrin.h> /* before what follows, which clang would apply to it */
    #if defined(__clang__)
        #pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2"))),               \
                                     apply_to = function)
    #else
        #pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,prefer-vector-width=512")
    #endif
    #define LEVEL avx512
    #define VECTOR_BYTES 64
    #define VECTOR_REGISTER "x"
    #include "../kernels/table.h"
    #if defined(__clang__)
        #pragma clang attribute pop
    #endif
#else
typedef int dsr_no_avx512; /* an empty translation unit is not C */
#endif
