/* Memory of the operations. */
#include "ops.h"

#include <math.h>
#include <stdlib.h>

void *dsr_scratch(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 64) / size)
        return NULL;
    size_t bytes = (count * size + 64) / 64 * 64; /* a whole number of alignments, as C11 wants */
    return aligned_alloc(64, bytes);
}

double dsr_time_weights(double *weights, size_t timesteps, dsr_time time) {
    double sum = 0;
    for (size_t t = 0; t < timesteps; t++) {
        weights[t] = exp(-(time.delta_t / time.tau) * (double)(timesteps - 1 - t));
        sum += weights[t];
    }
    return sum;
}
