/* OpenBLAS under one name, whether it comes from PyPI (prefixed symbols) or from the system. */
#ifndef DSR_BLAS_H
#define DSR_BLAS_H

#include <cblas.h>

#ifdef DSR_BLAS_PREFIXED
    #define cblas_sgemm scipy_cblas_sgemm
    #define openblas_set_num_threads scipy_openblas_set_num_threads
    #define openblas_get_config scipy_openblas_get_config
    #define openblas_get_corename scipy_openblas_get_corename
#endif

#endif
