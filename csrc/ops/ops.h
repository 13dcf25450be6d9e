/* Shared by the operations. Work is cut into pieces whose size depends on shapes only, so that the same sums are
 * taken in the same order for any number of threads. */
#ifndef DSR_OPS_H
#define DSR_OPS_H

#include "../dsr.h"

/* Threads for a region over `elements`: one where waking others costs more than it brings. */
int dsr_team(size_t elements);

static inline size_t dsr_pieces(size_t n, size_t piece) {
    return n / piece + (n % piece != 0);
}

static inline size_t dsr_piece(size_t n, size_t piece, size_t index) {
    size_t rest = n - index * piece;
    return rest < piece ? rest : piece;
}

/* 64-byte aligned memory, or NULL; size 0 gives memory too. Freed with free. */
void *dsr_scratch(size_t count, size_t size);

/* T weights exp(-(delta_t/tau)(T-1-t)) of the representation of a LIF train; returns their sum. */
double dsr_time_weights(double *weights, size_t timesteps, dsr_time time);

#endif
