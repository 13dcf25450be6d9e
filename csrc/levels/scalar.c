/* The plain C level: whatever the compiler makes of it for the oldest processor of the platform. */
#define LEVEL scalar
#include "../kernels/table.h"
