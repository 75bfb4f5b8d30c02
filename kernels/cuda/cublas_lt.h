// cuBLASLt as a table of its functions: loaded when it is first wanted, so that programs start
// without it, and given by the tests' harness in place of the library.
//
// Thread safety: cublas_lt() from any thread; the functions as NVIDIA says. Ownership: the library
// stays loaded.
#pragma once

#include <cublasLt.h>

#include "proto/base/status.h"

namespace weft::cuda {

struct CublasLt {
  decltype(&::cublasLtGetVersion) version;
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtDestroy) destroy;
  decltype(&::cublasLtMatmulDescCreate) description_create;
  decltype(&::cublasLtMatmulDescDestroy) description_destroy;
  decltype(&::cublasLtMatmulDescSetAttribute) description_set;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create;
  decltype(&::cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&::cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) choose;
  decltype(&::cublasLtMatmul) matmul;
};

// Error: kUnavailable, naming the library or the function that is missing.
Result<const CublasLt*> cublas_lt();

}  // namespace weft::cuda
