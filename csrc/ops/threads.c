/* Threads: OpenMP's for our tiles, one for BLAS. A GEMM with threads of its own inside our regions is 4 times slower,
 * and its idle worker spins on into the next loop. */
#define _GNU_SOURCE /* dl_iterate_phdr, dladdr */
#include "blas.h"
#include "ops.h"

#include <stddef.h>
#ifdef _OPENMP
    #include <omp.h>
#endif
#ifdef __linux__
    #include <link.h>
    #include <pthread.h>
#elif !defined(_WIN32)
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

#if defined(_OPENMP) && defined(__linux__)
/* The name of what has been loaded where an address lies. Not by dladdr: the dl functions of a new glibc are other ones
 * than those of glibc before 2.34, and what was linked with them would not be loaded there. */
typedef struct {
    uintptr_t address;
    const char *name;
} place;

static int lies_in(struct dl_phdr_info *object, size_t size, void *searched) {
    (void)size;
    place *found = searched;
    for (size_t i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_LOAD &&
            found->address - (object->dlpi_addr + object->dlpi_phdr[i].p_vaddr) < object->dlpi_phdr[i].p_memsz) {
            found->name = object->dlpi_name;
            return 1;
        }
    return 0;
}

static const char *library_of(uintptr_t address) {
    place found = {address, NULL};
    dl_iterate_phdr(lies_in, &found);
    return found.name;
}

/* Of LLVM's library; NULL where there is none. */
extern void kmp_set_blocktime(int) __attribute__((weak));

const char *dsr_openmp_library(void) {
    return library_of((uintptr_t)omp_get_max_threads);
}

static int is_llvm(void) {
    return kmp_set_blocktime && library_of((uintptr_t)kmp_set_blocktime) == dsr_openmp_library();
}
#elif defined(_OPENMP) && !defined(_WIN32)
const char *dsr_openmp_library(void) {
    Dl_info library;
    return dladdr((void *)omp_get_max_threads, &library) ? library.dli_fname : NULL;
}

static int is_llvm(void) {
    const char *path = dsr_openmp_library();
    void *library = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    int found = library && dlsym(library, "kmp_set_blocktime");
    if (library)
        dlclose(library);
    return found;
}
#else
const char *dsr_openmp_library(void) {
    return NULL;
}
#endif

#if defined(_OPENMP) && !defined(_WIN32)
/* OpenMP's threads do not exist in a forked child, where the next region would wait for them for ever. So they are
 * ended before a fork, and parent and child start new ones when they need them. */
static void end_threads(void) {
    omp_pause_resource_all(omp_pause_hard);
}

/* LLVM's library sees to forks itself, and while it does so holds the lock that omp_pause_resource_all waits for. It is
 * recognised as it runs: where this was compiled for libgomp.so.1, that name may be a link to LLVM's library. */
static void prepare_forks(void) {
    if (!is_llvm())
        pthread_atfork(end_threads, NULL, NULL);
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
