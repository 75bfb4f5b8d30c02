// Sums. Numerical policy: elements are widened and added in fp32, in an order that depends on the
// extents (and the block count) only; sum() and sum_of_squares() add what each thread has summed in
// double. sum_of_squares() cuts each array, from its start, into pieces of kPieceElements; a thread
// of a block adds every kThreads-th four of a piece, the block its threads in its tree, and one
// block the pieces, in the order of the arrays.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/pieces.cuh"
#include "kernels/cuda/slices.cuh"
#include "kernels/cuda/vector.cuh"

namespace weft::cuda {
namespace {

constexpr int kMergeThreads = 1024;

template <typename T>
__global__ void sum_kernel(const T* x, int64_t n, double* partials) {
  double* warps = shared_memory<double>();
  float own = 0.0F;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) own += widen(x[i]);
  const double total = block_reduce<Add>(static_cast<double>(own), warps);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

constexpr int kArraysMax = 128;  // of a launch
using Table = PieceTable<FloatArray, kArraysMax>;

// A block a piece: partials [pieces].
__global__ void squares_kernel(const __grid_constant__ Table table, double* partials) {
  constexpr int kWide = kVectorWidth<float>;
  double* warps = shared_memory<double>();
  for (int64_t piece = blockIdx.x; piece < table.first[table.count]; piece += gridDim.x) {
    const int owner = table.owner_of(piece);
    const FloatArray& x = table.array[owner];
    const bool vectors = takes_vectors(x.data);
    const int64_t begin = (piece - table.first[owner]) * kPieceElements;
    const int64_t end = min(begin + kPieceElements, x.count);
    float own = 0.0F;
    with_alignment(vectors && (end - begin) % kWide == 0, [&](auto aligned) {
      const auto load = [&](int64_t at) {
        const int count = static_cast<int>(min(end - at, int64_t{kWide}));
        return load_some_packed<kWide>(x.data + at, count, aligned.value);
      };
      const auto add = [&](const Packed<float, kWide>& packed) {
        const Vector<float, kWide> values = unpack(packed);
        WEFT_UNROLL
        for (int j = 0; j < kWide; ++j) own += values.at[j] * values.at[j];
      };
      in_batches<4>(begin + threadIdx.x * kWide, end, kThreads * kWide, load, add);
    });
    const double total = block_reduce<Add>(static_cast<double>(own), warps);
    if (threadIdx.x == 0) partials[piece] = total;
  }
}

// One block.
template <typename Out>
__global__ void merge_kernel(const double* partials, int64_t count, Out* out) {
  double* warps = shared_memory<double>();
  double total = 0.0;
  in_batches<8>(
      threadIdx.x, count, kMergeThreads, [&](int64_t i) { return partials[i]; },
      [&](double partial) { total += partial; });
  total = block_reduce<Add>(total, warps);
  if (threadIdx.x == 0) *out = static_cast<Out>(total);
}

template <typename Out>
void merge(const double* partials, int64_t count, Out* out, cudaStream_t stream) {
  launch_shared(stream, 1, kMergeThreads, kWarp * sizeof(double), merge_kernel<Out>, partials,
                count, out);
}

// What sum_middle is cut into: blocks of the extent (block i from i * extent / blocks on), and
// slices of each.
struct Cut {
  int64_t outer, extent, inner, blocks, slices;
  __device__ int64_t begin(int64_t block) const { return block * extent / blocks; }
};
// The rows of one slice.
struct Rows {
  int64_t begin, end;
};
__device__ inline Rows rows_of_slice(const Cut& cut, int64_t block, int64_t slice) {
  const int64_t each = cut.inner == 1 ? kSliceElements : kSliceRows;
  const int64_t begin = cut.begin(block) + slice * each, end = cut.begin(block + 1);
  return {min(begin, end), min(begin + each, end)};
}

// inner == 1: a block a slice. partials [outer, blocks, slices].
template <typename T>
__global__ void sum_rows_kernel(const T* x, Cut cut, int64_t items, float* partials) {
  float* warps = shared_memory<float>();
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t outer = item / cut.slices / cut.blocks;
    const Rows rows = rows_of_slice(cut, item / cut.slices % cut.blocks, item % cut.slices);
    float total = 0.0F;
    for (int64_t i = rows.begin + threadIdx.x; i < rows.end; i += blockDim.x) {
      total += widen(x[outer * cut.extent + i]);
    }
    total = block_reduce<Add>(total, warps);
    if (threadIdx.x == 0) partials[item] = total;
  }
}

// A block sums kWarp columns of a slice: thread (x, y) takes column x of every row y + k kTileRows.
// partials [outer, blocks, slices, inner].
template <typename T>
__global__ void sum_columns_kernel(const T* x, Cut cut, int64_t tiles, int64_t items,
                                   float* partials) {
  float* sums = shared_memory<float>();  // [kTileRows, kWarp]
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t column = item % tiles * kWarp + threadIdx.x, slice = item / tiles;
    const int64_t outer = slice / cut.slices / cut.blocks;
    const Rows rows = rows_of_slice(cut, slice / cut.slices % cut.blocks, slice % cut.slices);
    float total = 0.0F;
    for (int64_t i = rows.begin + threadIdx.y; i < rows.end && column < cut.inner; i += kTileRows) {
      total += widen(x[(outer * cut.extent + i) * cut.inner + column]);
    }
    sums[threadIdx.y * kWarp + threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < cut.inner) {
      for (int y = 1; y < kTileRows; ++y) total += sums[y * kWarp + threadIdx.x];
      partials[slice * cut.inner + column] = total;
    }
    __syncthreads();  // all have read: the next columns may write
  }
}

// The sum of a block's slices, in order.
__device__ inline float sum_of_block(const float* partials, const Cut& cut, int64_t outer,
                                     int64_t block, int64_t column) {
  float total = 0.0F;
  for (int64_t slice = 0; slice < cut.slices; ++slice) {
    total += partials[((outer * cut.blocks + block) * cut.slices + slice) * cut.inner + column];
  }
  return total;
}

template <typename T>
__global__ void merge_tree_kernel(const float* partials, Cut cut, float factor, T* out) {
  const int64_t n = cut.outer * cut.inner;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const float total = sum_of_tree(cut.blocks, [&](int64_t block) {
      return sum_of_block(partials, cut, i / cut.inner, block, i % cut.inner);
    });
    out[i] = narrow<T>(factor * total);
  }
}

Cut cut_of(int64_t outer, int64_t extent, int64_t inner, int64_t blocks) {
  if (blocks > extent) blocks = extent;
  if (blocks < 1) blocks = 1;
  return {outer, extent, inner, blocks, slices_of((extent + blocks - 1) / blocks, inner)};
}

}  // namespace

template <typename T, typename Out>
void sum(const T* x, int64_t n, double* partials, Out* out, cudaStream_t stream) {
  unsigned blocks = blocks_of(n);
  if (blocks > kPartials) blocks = kPartials;
  launch_shared(stream, blocks, kThreads, kWarp * sizeof(double), sum_kernel<T>, x, n, partials);
  (merge)(partials, blocks, out, stream);
}

int64_t sum_of_squares_scratch(std::span<const FloatArray> xs) {
  int64_t pieces = 0;
  for (const FloatArray& x : xs) pieces += pieces_of(x.count);
  return pieces;
}
void sum_of_squares(std::span<const FloatArray> xs, double* partials, double* out,
                    cudaStream_t stream) {
  Table table;
  int64_t done = 0;
  const auto flush = [&] {
    launch_shared(stream, blocks_of(table.pieces(), 1), kThreads, kWarp * sizeof(double),
                  squares_kernel, table, partials + done);
    done += table.pieces();
    table = {};
  };
  for (const FloatArray& x : xs) {
    if (table.add(x, x.count)) continue;
    flush();
    (void)table.add(x, x.count);
  }
  flush();
  (merge)(partials, done, out, stream);
}

int64_t sum_middle_scratch(int64_t outer, int64_t extent, int64_t inner, int64_t blocks) {
  const Cut cut = cut_of(outer, extent, inner, blocks);
  return outer * inner * cut.blocks * cut.slices;
}

template <typename T>
void sum_middle(const T* x, int64_t outer, int64_t extent, int64_t inner, double factor,
                int64_t blocks, float* scratch, T* out, cudaStream_t stream) {
  const Cut cut = cut_of(outer, extent, inner, blocks);
  const int64_t slices = outer * cut.blocks * cut.slices, tiles = (inner + kWarp - 1) / kWarp;
  if (inner == 1) {
    launch_shared(stream, blocks_of(slices, 1), row_threads(extent), kWarp * sizeof(float),
                  sum_rows_kernel<T>, x, cut, slices, scratch);
  } else {
    launch_shared(stream, blocks_of(slices * tiles, 1), dim3(kWarp, kTileRows),
                  kWarp * kTileRows * sizeof(float), sum_columns_kernel<T>, x, cut, tiles,
                  slices * tiles, scratch);
  }
  launch(stream, blocks_of(outer * inner), kThreads, merge_tree_kernel<T>, scratch, cut,
         static_cast<float>(factor), out);
}

#define WEFT_INSTANTIATE(T)                                                                     \
  template void sum<T, float>(const T*, int64_t, double*, float*, cudaStream_t);                \
  template void sum<T, double>(const T*, int64_t, double*, double*, cudaStream_t);              \
  template void sum_middle<T>(const T*, int64_t, int64_t, int64_t, double, int64_t, float*, T*, \
                              cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
