// The gradients of layer and RMS normalization: dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy
// gamma (RMS: without mean(g)), plus what flows past the norm; dgamma = sum over rows of dy xhat,
// dbeta = sum of dy. Numerical policy: fp32; sums over a row as rows.cuh says. A column's sum runs
// over slices of kNormSliceRows rows; the rows of a slice, and then the slices, are added in
// kTileRows chains that are merged in order, and those of blocks of rows in a tree: no atomics, the
// same bits each time.
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/slices.cuh"

namespace weft::cuda {
namespace {

constexpr int64_t kNormSliceRows = 96;

// Of the longest block of rows; block i begins at row i rows / blocks.
int64_t block_slices(int64_t rows, int64_t blocks) {
  const int64_t longest = (rows + blocks - 1) / blocks;
  return (longest + kNormSliceRows - 1) / kNormSliceRows;
}

template <typename T, int kKeep>
__global__ void __launch_bounds__(kRowThreads)
    input_kernel(NormBackwardArguments<T> n, bool vectors) {
  const bool aligned = kKeep > 0 || vectors;
  constexpr int kWide = kVectorWidth<T>;
  float* partials = shared_memory<float>();
  const float width = static_cast<float>(n.width);
  for (int64_t row = first_row(); row < n.rows; row += rows_of_grid()) {
    const int64_t start = row * n.width;
    Packed<T, kWide> kept_x[kKeep > 0 ? kKeep : 1], kept_dy[kKeep > 0 ? kKeep : 1];
    for_vectors<kKeep, kWide>(kKeep > 0 ? n.width : 0, [&](int k, int64_t at, int) {
      kept_x[k] = load_packed<kWide>(n.x + start + at);
      kept_dy[k] = load_packed<kWide>(n.dy + start + at);
    });
    const float m = n.mean == nullptr ? 0.0F : n.mean[row], r = n.rstd[row];
    // Calls act(j, g, xhat) for the elements of a vector.
    const auto each_of = [&](int k, int64_t at, int count, const auto& act) {
      const Vector<T, kWide> x =
          kKeep > 0 ? unpack(kept_x[k]) : load_some<kWide>(n.x + start + at, count, aligned);
      const Vector<T, kWide> dy =
          kKeep > 0 ? unpack(kept_dy[k]) : load_some<kWide>(n.dy + start + at, count, aligned);
      const Vector<T, kWide> gamma = load_some<kWide>(n.gamma + at, count, aligned);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        act(j, widen(dy.at[j]) * widen(gamma.at[j]), (widen(x.at[j]) - m) * r);
      }
    };
    float total = 0.0F, along = 0.0F;  // behind the row's end dy and gamma are 0
    for_vectors<kKeep, kWide>(n.width, [&](int k, int64_t at, int count) {
      each_of(k, at, count, [&](int, float g, float hat) {
        total += g;
        along += g * hat;
      });
    });
    const float mean_g = n.mean == nullptr ? 0.0F : row_reduce<Add>(total, partials) / width;
    const float mean_along = row_reduce<Add>(along, partials) / width;
    for_vectors<kKeep, kWide>(n.width, [&](int k, int64_t at, int count) {
      Vector<T, kWide> past{}, dx;
      if (n.dsum != nullptr) past = load_some<kWide>(n.dsum + start + at, count, aligned);
      each_of(k, at, count, [&](int j, float g, float hat) {
        dx.at[j] = narrow<T>(widen(past.at[j]) + r * (g - mean_g - hat * mean_along));
      });
      store_some(n.dx + start + at, dx, count, aligned);
    });
  }
}

// Sums over the block's threads of one column, [kTileRows, kWarp kWide] of `room`, in order; in the
// threads of the first row.
template <int kWide>
__device__ void merge_chains(float (&sums)[kWide], float* room) {
  float* own = room + (threadIdx.y * kWarp + threadIdx.x) * kWide;
  __syncthreads();  // all have read what was there before
  WEFT_UNROLL
  for (int j = 0; j < kWide; ++j) own[j] = sums[j];
  __syncthreads();
  for (int y = 1; y < kTileRows && threadIdx.y == 0; ++y) {
    WEFT_UNROLL
    for (int j = 0; j < kWide; ++j) sums[j] += own[y * kWarp * kWide + j];
  }
}

// What a thread takes of a row.
template <typename T>
struct RowPart {
  Packed<T, kVectorWidth<T>> dy, x;
  float mean, rstd;
};

// A block sums kWarp vectors of columns of a slice: thread (x, y) takes those of x in every row y +
// k kTileRows. in_block: slices of a block of rows. sums [blocks, in_block, 2, width]: of gamma, of
// beta.
template <typename T>
__global__ void parameter_kernel(NormBackwardArguments<T> n, bool vectors, int64_t in_block,
                                 int64_t tiles, int64_t items, float* sums) {
  constexpr int kWide = kVectorWidth<T>;
  float* room = shared_memory<float>();
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t column = (item % tiles * kWarp + threadIdx.x) * kWide, slice = item / tiles;
    const int64_t block = slice / in_block, end = (block + 1) * n.rows / n.blocks;
    const int64_t first = block * n.rows / n.blocks + slice % in_block * kNormSliceRows;
    const int64_t last = min(first + kNormSliceRows, end);
    const int count = static_cast<int>(max(int64_t{0}, min(int64_t{kWide}, n.width - column)));
    float of_gamma[kWide] = {}, of_beta[kWide] = {};
    with_alignment(vectors, [&](auto aligned) {
      const auto load = [&](int64_t row) -> RowPart<T> {
        const int64_t at = row * n.width + column;
        return {load_some_packed<kWide>(n.dy + at, count, aligned.value),
                load_some_packed<kWide>(n.x + at, count, aligned.value),
                n.mean == nullptr ? 0.0F : n.mean[row], n.rstd[row]};
      };
      const auto add = [&](const RowPart<T>& part) {
        const Vector<T, kWide> dy = unpack(part.dy), x = unpack(part.x);
        WEFT_UNROLL
        for (int j = 0; j < kWide; ++j) {
          of_gamma[j] += widen(dy.at[j]) * (widen(x.at[j]) - part.mean) * part.rstd;
          of_beta[j] += widen(dy.at[j]);
        }
      };
      in_batches<4>(first + threadIdx.y, count > 0 ? last : first, kTileRows, load, add);
    });
    merge_chains(of_gamma, room);
    merge_chains(of_beta, room);
    if (threadIdx.y != 0) continue;
    float* to = sums + slice * 2 * n.width + column;
    WEFT_UNROLL
    for (int j = 0; j < kWide; ++j) {
      if (j >= count) continue;
      to[j] = of_gamma[j];
      to[n.width + j] = of_beta[j];
    }
  }
}

// A block merges kWarp columns of sums [blocks, in_block, 2, width]; kInBlocks: of several blocks,
// whose tree takes memory for each thread.
template <bool kInBlocks>
__global__ void merge_parameters_kernel(const float* sums, int64_t blocks, int64_t in_block,
                                        int64_t width, float* dgamma, float* dbeta) {
  float* room = shared_memory<float>();
  const int64_t columns = dbeta == nullptr ? width : 2 * width;
  for (int64_t tile = blockIdx.x; tile * kWarp < columns; tile += gridDim.x) {
    const int64_t column = tile * kWarp + threadIdx.x;
    const auto sum_of_block = [&](int64_t block) {
      const int64_t first = block * in_block, end = column < columns ? first + in_block : first;
      float total[1] = {};
      in_batches<8>(
          first + threadIdx.y, end, kTileRows,
          [&](int64_t slice) { return sums[slice * 2 * width + column]; },
          [&](float sum) { total[0] += sum; });
      merge_chains(total, room);
      return total[0];
    };
    const float total = kInBlocks ? sum_of_tree(blocks, sum_of_block) : sum_of_block(0);
    if (threadIdx.y != 0 || column >= columns) continue;
    (column < width ? dgamma[column] : dbeta[column - width]) = total;
  }
}

}  // namespace

int64_t norm_backward_scratch(int64_t rows, int64_t width, int64_t blocks) {
  return 2 * blocks * block_slices(rows, blocks) * width;
}

template <typename T>
void norm_backward(const NormBackwardArguments<T>& n, float* scratch, cudaStream_t stream) {
  constexpr int64_t kColumns = kWarp * kVectorWidth<T>;
  const bool aligned = (rows_take_vectors<T>)(n.width, n.x, n.dy, n.dsum, n.gamma, n.dx);
  const dim3 row = row_block<T>(n.width), tile(kWarp, kTileRows);
  with_kept<T>(n.width, aligned, [&]<int kKeep>() {
    launch_shared(stream, blocks_of_rows(n.rows, row), row, kWarp * sizeof(float),
                  input_kernel<T, kKeep>, n, aligned);
  });
  const int64_t in_block = block_slices(n.rows, n.blocks), slices = n.blocks * in_block;
  const int64_t tiles = (n.width + kColumns - 1) / kColumns;
  launch_shared(stream, blocks_of(slices * tiles, 1), tile, kTileRows * kColumns * sizeof(float),
                parameter_kernel<T>, n, aligned, in_block, tiles, slices * tiles, scratch);
  const auto merge = n.blocks > 1 ? merge_parameters_kernel<true> : merge_parameters_kernel<false>;
  launch_shared(stream, blocks_of(2 * n.width, kWarp), tile, kTileRows * kWarp * sizeof(float),
                merge, scratch, n.blocks, in_block, n.width, n.dgamma, n.dbeta);
}

#define WEFT_INSTANTIATE(T) \
  template void norm_backward<T>(const NormBackwardArguments<T>&, float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
