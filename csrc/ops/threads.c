/* Threads: OpenMP's for our tiles, one for BLAS. A GEMM with threads of its own inside our regions is 4 times slower,
 * and its idle worker spins on into the next loop. */
#define _GNU_SOURCE /* dladdr */
#include "blas.h"
#include "ops.h"

#include <stddef.h>
#ifdef _OPENMP
    #include <omp.h>
#endif
#ifndef _WIN32
    #include <dlfcn.h>
    #include <pthread.h>
#endif

/* Starting threads costs some microseconds, the time of about this many elements. */
enum { WORTH_THREADS = 1 << 15 };

/* 0: what OpenMP says. A number of our own, since omp_set_num_threads would hold for the calling thread only. */
static _Atomic int threads_wanted = 0;

void dsr_set_threads(int threads) {
    threads_wanted = threads;
}

int dsr_get_threads(void) {
#ifdef _OPENMP
    int threads = threads_wanted ? threads_wanted : omp_get_max_threads();
    return threads < DSR_MOST_THREADS ? threads : DSR_MOST_THREADS;
#else
    return 1;
#endif
}

int dsr_threads_for(size_t elements) {
    return elements > WORTH_THREADS ? dsr_get_threads() : 1;
}

int dsr_openmp_version(void) {
#ifdef _OPENMP
    return _OPENMP;
#else
    return 0;
#endif
}

const char *dsr_openmp_library(void) {
#if defined(_OPENMP) && !defined(_WIN32)
    Dl_info library;
    if (dladdr((void *)omp_get_max_threads, &library))
        return library.dli_fname;
#endif
    return NULL;
}

#if defined(_OPENMP) && !defined(_WIN32)
/* OpenMP's threads do not exist in a forked child, where the next region would wait for them for ever. So they are
 * ended before a fork, and parent and child start new ones when they need them. */
static void end_threads(void) {
    omp_pause_resource_all(omp_pause_hard);
}

/* LLVM's library sees to forks itself, and while it does so holds the lock that omp_pause_resource_all waits for. It is
 * recognised as it runs: where this was compiled for libgomp.so.1, that name may be a link to LLVM's library. */
static void prepare_forks(void) {
    const char *path = dsr_openmp_library();
    void *library = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (!library || !dlsym(library, "kmp_set_blocktime"))
        pthread_atfork(end_threads, NULL, NULL);
    if (library)
        dlclose(library);
}
#else
static void prepare_forks(void) {
}
#endif

void dsr_threads_setup(void) {
    openblas_set_num_threads(1);
    dsr_get_threads(); /* now OpenMP reads its settings, which hold while the module is loaded (dsr/ops/_openmp.py) */
    prepare_forks();
}

const char *dsr_blas_config(void) {
    return openblas_get_config();
}

const char *dsr_blas_kernel(void) {
    return openblas_get_corename();
}
