#include "kernels/cuda/tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace weft::cuda {
namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));

// Of the driver, which programs are not linked with.
decltype(&::cuTensorMapEncodeTiled) encoder() {
  static const auto found = [] {
    constexpr unsigned kSince = 12000;  // the version of CUDA that brought the function
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               kSince, cudaEnableDefault, &result);
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) function = nullptr;
    return reinterpret_cast<decltype(&::cuTensorMapEncodeTiled)>(function);
  }();
  return found;
}

}  // namespace

bool make_tensor_map(const MappedArray& x, TensorMap& map) {
  if (encoder() == nullptr) return false;
  const cuuint64_t extents[4] = {static_cast<cuuint64_t>(x.features),
                                 static_cast<cuuint64_t>(x.tokens),
                                 static_cast<cuuint64_t>(x.heads), static_cast<cuuint64_t>(x.rows)};
  const int64_t steps[3] = {x.token_step, x.head_step, x.row_step};
  cuuint64_t strides[3], packed = (extents[0] * 2 + 15) / 16 * 16;
  for (int i = 0; i < 3; ++i) {  // where there is one only, the step may be anything
    strides[i] = extents[i + 1] == 1 ? packed : static_cast<cuuint64_t>(steps[i]) * 2;
    packed = strides[i] * extents[i + 1];
  }
  const cuuint32_t box[4] = {64, static_cast<cuuint32_t>(x.box_tokens), 1, 1};
  const cuuint32_t every[4] = {1, 1, 1, 1};
  const CUresult result =
      encoder()(reinterpret_cast<CUtensorMap*>(&map),
                x.bfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
                const_cast<void*>(x.data), extents, strides, box, every,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS;
}

}  // namespace weft::cuda
