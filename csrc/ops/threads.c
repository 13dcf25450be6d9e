/* Threads: OpenMP's for our tiles, one for BLAS. A GEMM with threads of its own inside our regions is 4 times slower,
 * and its idle worker spins on into the next loop. */
#include "blas.h"
#include "ops.h"

#include <omp.h>
#include <pthread.h>

/* Starting threads costs some microseconds, the time of about this many elements. */
enum { WORTH_THREADS = 1 << 15 };

/* 0: what OpenMP says. A number of our own, since omp_set_num_threads would hold for the calling thread only. */
static _Atomic int threads_wanted = 0;

void dsr_set_threads(int threads) {
    threads_wanted = threads;
}

int dsr_get_threads(void) {
    int threads = threads_wanted ? threads_wanted : omp_get_max_threads();
    return threads < DSR_MOST_THREADS ? threads : DSR_MOST_THREADS;
}

int dsr_threads_for(size_t elements) {
    return elements > WORTH_THREADS ? dsr_get_threads() : 1;
}

/* OpenMP's threads do not exist in a forked child, where the next region would wait for them for ever. So they are
 * ended before a fork, and parent and child start new ones when they need them. */
static void end_threads(void) {
    omp_pause_resource_all(omp_pause_hard);
}

void dsr_threads_setup(void) {
    openblas_set_num_threads(1);
    pthread_atfork(end_threads, NULL, NULL);
}

const char *dsr_blas_config(void) {
    return openblas_get_config();
}

const char *dsr_blas_kernel(void) {
    return openblas_get_corename();
}
