/* Chooses the level once, at import. */
#include "../dsr.h"

#include <string.h>

const dsr_kernels *dsr_kernel = &dsr_scalar;

const char *dsr_select_level(const char *wanted) {
    /* best first */
    const dsr_kernels *levels[3];
    int supported[3], count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    levels[count] = &dsr_avx512;
    supported[count++] = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    levels[count] = &dsr_avx2;
    supported[count++] = __builtin_cpu_supports("avx2") != 0;
#endif
    levels[count] = &dsr_scalar;
    supported[count++] = 1;

    int first = 0;
    if (wanted)
        while (first < count && strcmp(levels[first]->level, wanted) != 0)
            first++;
#if !defined(__x86_64__)
    /* the names of other platforms' levels mean "as good as it gets" here */
    if (first == count && (strcmp(wanted, "avx2") == 0 || strcmp(wanted, "avx512") == 0))
        first = 0;
#endif
    if (first == count)
        return NULL;
    while (!supported[first])
        first++;
    dsr_kernel = levels[first];
    return dsr_kernel->level;
}
