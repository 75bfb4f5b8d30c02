// Rows of a table by number, and the sum of gradients back into them. Numerical policy: fp32. The
// look-up copies. The sum uses atomic additions: rows that several ids share are summed in no fixed
// order, so their last bits may differ from run to run.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void look_up_kernel(const int64_t* ids, const float* table, int64_t first_id,
                               int64_t rows, int64_t n, int64_t width, float* out) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t row = ids[i / width] - first_id;
    out[i] = row >= 0 && row < rows ? table[row * width + i % width] : 0.0F;
  }
}

__global__ void scatter_add_kernel(const int64_t* ids, const float* dy, int64_t first_id,
                                   int64_t padding_id, int64_t rows, int64_t n, int64_t width,
                                   float* dtable) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t id = ids[i / width], row = id - first_id;
    if (row < 0 || row >= rows || (padding_id >= 0 && id == padding_id)) continue;
    atomicAdd(&dtable[row * width + i % width], dy[i]);
  }
}

}  // namespace

void embedding(const int64_t* ids, const float* table, int64_t first_id, int64_t rows,
               int64_t count, int64_t width, float* out, cudaStream_t stream) {
  const int64_t n = count * width;
  launch(stream, blocks_of(n), kThreads, look_up_kernel, ids, table, first_id, rows, n, width, out);
}

void embedding_scatter_add(const int64_t* ids, const float* dy, int64_t first_id,
                           int64_t padding_id, int64_t rows, int64_t count, int64_t width,
                           float* dtable, cudaStream_t stream) {
  const int64_t n = count * width;
  launch(stream, blocks_of(n), kThreads, scatter_add_kernel, ids, dy, first_id, padding_id, rows, n,
         width, dtable);
}

}  // namespace weft::cuda
