#include "kernels/cuda/cublas_lt.h"

#include "kernels/cuda/load_library.h"

namespace weft::cuda {
namespace {

Result<CublasLt> load() {
  WEFT_ASSIGN_OR_RETURN(LoadedLibrary library,
                        LoadedLibrary::open({"libcublasLt.so.13", "libcublasLt.so"}));
  CublasLt table{};
  library.find(table.version, "cublasLtGetVersion");
  library.find(table.create, "cublasLtCreate");
  library.find(table.destroy, "cublasLtDestroy");
  library.find(table.description_create, "cublasLtMatmulDescCreate");
  library.find(table.description_destroy, "cublasLtMatmulDescDestroy");
  library.find(table.description_set, "cublasLtMatmulDescSetAttribute");
  library.find(table.layout_create, "cublasLtMatrixLayoutCreate");
  library.find(table.layout_destroy, "cublasLtMatrixLayoutDestroy");
  library.find(table.layout_set, "cublasLtMatrixLayoutSetAttribute");
  library.find(table.preference_create, "cublasLtMatmulPreferenceCreate");
  library.find(table.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  library.find(table.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  library.find(table.choose, "cublasLtMatmulAlgoGetHeuristic");
  library.find(table.matmul, "cublasLtMatmul");
  WEFT_RETURN_IF_ERROR(library.complete());
  return table;
}

}  // namespace

Result<const CublasLt*> cublas_lt() {
  static const Result<CublasLt> loaded = load();
  if (!loaded) return fail(loaded.error());
  return &*loaded;
}

}  // namespace weft::cuda
