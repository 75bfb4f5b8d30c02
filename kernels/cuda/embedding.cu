// Rows of a table by number, and the sum of gradients back into them. Numerical policy: the look-up
// copies. In the sum the places that name a row were brought together (sort.cu) and are added in
// their order, in fp32: the same bits every time. So are those of a block of the places, if there
// are several, and the blocks' sums in the tree of Context::block_count: the CPU's bits.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void look_up_kernel(const int64_t* ids, const T* table, int64_t first_id, int64_t rows,
                               int64_t n, int64_t width, T* out) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t row = ids[i / width] - first_id;
    out[i] = row >= 0 && row < rows ? table[row * width + i % width] : narrow<T>(0.0F);
  }
}

// A thread a row of the table and kCount of its features. Rows of dy are read kRowsAtOnce at a time
// and added one after the other.
constexpr int kRowsAtOnce = 8;

// Of the elements [at, end) of the segments' list; dy: from the first feature on.
template <typename T, int kCount>
__device__ void add_rows(const Segments& segments, int64_t at, int64_t end, const T* dy,
                         int64_t width, float (&total)[kCount]) {
  for (; at + kRowsAtOnce <= end; at += kRowsAtOnce) {
    Packed<T, kCount> rows[kRowsAtOnce];
    WEFT_UNROLL for (int i = 0; i < kRowsAtOnce; ++i) {
      rows[i] = load_packed<kCount>(dy + segments.order[at + i] * width);
    }
    WEFT_UNROLL for (int i = 0; i < kRowsAtOnce; ++i) {
      const Vector<T, kCount> row = unpack(rows[i]);
      WEFT_UNROLL for (int j = 0; j < kCount; ++j) total[j] += widen(row.at[j]);
    }
  }
  for (; at < end; ++at) {
    const Vector<T, kCount> row = load_vector<kCount>(dy + segments.order[at] * width);
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) total[j] += widen(row.at[j]);
  }
}

// Equal blocks, the first of which have one element more where they do not divide the whole: as
// cpu::block_start.
struct EqualBlocks {
  int64_t whole, count;
  __device__ int64_t start(int64_t block) const {
    return whole / count * block + min(block, whole % count);
  }
  __device__ int64_t of(int64_t element) const {
    const int64_t each = whole / count, longer = whole % count * (each + 1);
    return element < longer ? element / (each + 1) : whole % count + (element - longer) / each;
  }
};

constexpr int kTreeLevels = 16;

// Sums of some of 2^kTreeLevels blocks, in ascending order, merged in the tree that halves these. A
// node is complete when a block behind it comes; a block that does not come adds nothing.
template <int kCount>
class TreeSum {
 public:
  __device__ void add(int64_t block, const float (&sum)[kCount]) {
    if (last_ >= 0) {
      int level = 0;
      for (; (last_ ^ block) >> (level + 1) != 0; ++level) merge(level);
      WEFT_UNROLL for (int j = 0; j < kCount; ++j) waiting_[level][j] = node_[j];
      waits_ |= 1U << level;
    }
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) node_[j] = sum[j];
    last_ = block;
  }
  __device__ void finish(float (&total)[kCount]) {
    for (int level = 0; level < kTreeLevels; ++level) merge(level);
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) total[j] = node_[j];
  }

 private:
  // The node that the last block is in, with the half to its left.
  __device__ void merge(int level) {
    if ((waits_ >> level & 1U) == 0) return;
    waits_ &= ~(1U << level);
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) node_[j] = waiting_[level][j] + node_[j];
  }

  float node_[kCount] = {}, waiting_[kTreeLevels][kCount];
  unsigned waits_ = 0;  // bit i: a left half of 2^i blocks
  int64_t last_ = -1;
};

// The same of each block of places, merged.
template <typename T, int kCount>
__device__ void add_blocks(const Segments& segments, int64_t at, int64_t end, const T* dy,
                           int64_t width, int64_t blocks, float (&total)[kCount]) {
  const EqualBlocks places{segments.elements, blocks};
  TreeSum<kCount> sum;
  while (at < end) {
    const int64_t block = places.of(segments.order[at]), next = places.start(block + 1);
    int64_t stop = at + 1;
    while (stop < end && segments.order[stop] < next) ++stop;
    float of_block[kCount] = {};
    add_rows(segments, at, stop, dy, width, of_block);
    sum.add(block, of_block);
    at = stop;
  }
  sum.finish(total);
}

template <typename T, int kCount, bool kInBlocks>
__global__ void ordered_sum_kernel(Segments segments, const T* dy, int64_t padding_row,
                                   int64_t width, int64_t blocks, float* dtable) {
  const int64_t parts = width / kCount, n = segments.count * parts;
  for (int64_t item = first_element(); item < n; item += elements_of_grid()) {
    const int64_t row = item / parts, feature = item % parts * kCount;
    const int64_t end = segments.start[row + 1];
    const int64_t begin = row == padding_row ? end : segments.start[row];
    float total[kCount] = {};
    if constexpr (kInBlocks) {
      add_blocks(segments, begin, end, dy + feature, width, blocks, total);
    } else {
      add_rows(segments, begin, end, dy + feature, width, total);
    }
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) dtable[row * width + feature + j] = total[j];
  }
}

}  // namespace

template <typename T>
void embedding(const int64_t* ids, const T* table, int64_t first_id, int64_t rows, int64_t count,
               int64_t width, T* out, cudaStream_t stream) {
  const int64_t n = count * width;
  launch(stream, blocks_of(n), kThreads, look_up_kernel<T>, ids, table, first_id, rows, n, width,
         out);
}
template <typename T>
void embedding_backward(const Segments& segments, const T* dy, int64_t padding_row, int64_t width,
                        int64_t blocks, float* dtable, cudaStream_t stream) {
  check_arguments(blocks > 0 && (blocks & (blocks - 1)) == 0 && blocks >> kTreeLevels <= 1,
                  "blocks of an embedding's gradient are a power of two");
  const auto start = [&]<int kCount, bool kInBlocks>() {
    launch(stream, blocks_of(segments.count * width / kCount), kThreads,
           ordered_sum_kernel<T, kCount, kInBlocks>, segments, dy, padding_row, width, blocks,
           dtable);
  };
  const auto start_in = [&]<int kCount>() {
    if (blocks > 1) return start.template operator()<kCount, true>();
    start.template operator()<kCount, false>();
  };
  if ((rows_take_vectors<T>)(width, dy)) return start_in.template operator()<kVectorWidth<T>>();
  start_in.template operator()<1>();
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void embedding<T>(const int64_t*, const T*, int64_t, int64_t, int64_t, int64_t, T*, \
                             cudaStream_t);                                                    \
  template void embedding_backward<T>(const Segments&, const T*, int64_t, int64_t, int64_t,    \
                                      float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
