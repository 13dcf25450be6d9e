/* Chooses the level once, at import. */
#include "../dsr.h"

#include <string.h>

#if defined(__x86_64__)
    #include <cpuid.h>

/* Whether the processor has these features of leaf 7, and the system saves these registers (bits of XCR0). The
 * processor itself is asked: __builtin_cpu_supports says no to everything in the run-time libraries of some compilers
 * (zig's). */
static int has(unsigned features, unsigned registers) {
    unsigned a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved & registers) != registers || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b & features) == features;
}

static int has_avx2(void) {
    return has(bit_AVX2, 0x06);
}

static int has_avx512(void) {
    return has(bit_AVX2 | bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL, 0xe6);
}
#endif

const dsr_kernels *dsr_kernel = &dsr_scalar;

#define ADDRESS_OF_LEVEL(name, supported) &dsr_##name,
#define IS_SUPPORTED(name, supported) supported,

const char *dsr_select_level(const char *wanted) {
    const dsr_kernels *const levels[] = {DSR_LEVELS(ADDRESS_OF_LEVEL)};
    const int supported[] = {DSR_LEVELS(IS_SUPPORTED)};
    size_t count = sizeof levels / sizeof *levels;
    while (count && wanted && strcmp(levels[count - 1]->level, wanted) != 0)
        count--;
    if (!count)
        return NULL;
    while (!supported[count - 1])
        count--;
    dsr_kernel = levels[count - 1];
    return dsr_kernel->level;
}
