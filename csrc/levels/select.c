/* Chooses the level once, at import. */
#include "../dsr.h"

#include <string.h>

const dsr_kernels *dsr_kernel = &dsr_scalar;

#define ADDRESS_OF_LEVEL(name, supported) &dsr_##name,
#define IS_SUPPORTED(name, supported) (supported) != 0,

const char *dsr_select_level(const char *wanted) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
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
