/* The same sources for 64-bit Arm, where every processor has NEON. */
#if defined(__aarch64__)
    #include <arm_neon.h>
    #define LEVEL neon
    #define VECTOR_BYTES 16
    #define VECTOR_REGISTER "w"
    #define WORD_OF_LANES(lanes) vaddvq_u32((uint32x4_t)(lanes))
    #include "../kernels/table.h"
#else
typedef int dsr_no_neon; /* an empty translation unit is not C */
#endif
