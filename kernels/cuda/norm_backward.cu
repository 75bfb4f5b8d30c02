// The gradients of layer and RMS normalization: dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy
// gamma (RMS: without mean(g)), plus what flows past the norm; dgamma = sum over rows of dy xhat,
// dbeta = sum of dy. Numerical policy: fp32; the order of a row's sums depends on its width and
// type alone. A column's sum runs over slices, whose rows follow from the number of rows; the rows
// of a slice, in as many chains as it takes rows at once, and then the slices, in kTileRows, are
// added in chains that are merged in order, and those of blocks of rows in a tree: no atomics.
#include <algorithm>

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/slices.cuh"

namespace weft::cuda {
namespace {

constexpr int64_t kSlices = 264;  // of a block of rows: two for each multiprocessor of sm_90
constexpr int64_t kSliceRowsLeast = 16;
// In one pass: threads of a block, which hold kPassVectors vectors of a row each: as many as their
// registers allow two blocks of the usual size on a multiprocessor.
constexpr int kPassThreads = 384, kPassThreadsUsual = 192, kPassVectors = 3;
constexpr int kPassSums = 4 * kPassThreads / kWarp;  // two of each warp, twice

// Block i of rows begins at row i rows / blocks; how many its slices have follows from the longest.
struct Slices {
  int64_t rows, in_block;
};
Slices slices_of_rows(int64_t rows, int64_t blocks) {
  const int64_t longest = (rows + blocks - 1) / blocks;
  const int64_t each = std::max(kSliceRowsLeast, (longest + kSlices - 1) / kSlices);
  return {each, (longest + each - 1) / each};
}
// The rows of a slice.
struct SliceRows {
  int64_t first, last;
};
template <typename T>
__device__ SliceRows rows_of_slice(const NormBackwardArguments<T>& n, const Slices& slices,
                                   int64_t slice) {
  const int64_t block = slice / slices.in_block, end = (block + 1) * n.rows / n.blocks;
  const int64_t first = block * n.rows / n.blocks + slice % slices.in_block * slices.rows;
  return {first, min(first + slices.rows, end)};
}

// Rows that are too wide for pass_kernel, or not aligned, are read twice, and once more for the
// sums.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    input_kernel(NormBackwardArguments<T> n, bool aligned) {
  constexpr int kWide = kVectorWidth<T>;
  float* partials = shared_memory<float>();
  const float width = static_cast<float>(n.width);
  for (int64_t row = first_row(); row < n.rows; row += rows_of_grid()) {
    const int64_t start = row * n.width;
    const float m = n.mean == nullptr ? 0.0F : n.mean[row], r = n.rstd[row];
    // Calls act(j, g, xhat) for the elements of a vector.
    const auto each_of = [&](int64_t at, int count, const auto& act) {
      const Vector<T, kWide> x = load_some<kWide>(n.x + start + at, count, aligned);
      const Vector<T, kWide> dy = load_some<kWide>(n.dy + start + at, count, aligned);
      const auto gamma = load_some_floats<kWide>(n.gamma + at, count, aligned);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        act(j, widen(dy.at[j]) * gamma.at[j], (widen(x.at[j]) - m) * r);
      }
    };
    float total = 0.0F, along = 0.0F;  // behind the row's end dy and gamma are 0
    for_vectors<0, 0, kWide>(n.width, [&](int, int64_t at, int count) {
      each_of(at, count, [&](int, float g, float hat) {
        total += g;
        along += g * hat;
      });
    });
    const float mean_g = n.mean == nullptr ? 0.0F : row_reduce<Add, 0>(total, partials) / width;
    const float mean_along = row_reduce<Add, 0>(along, partials) / width;
    for_vectors<0, 0, kWide>(n.width, [&](int, int64_t at, int count) {
      Vector<T, kWide> past{}, dx;
      if (n.dsum != nullptr) past = load_some<kWide>(n.dsum + start + at, count, aligned);
      each_of(at, count, [&](int j, float g, float hat) {
        dx.at[j] = narrow<T>(widen(past.at[j]) + r * (g - mean_g - hat * mean_along));
      });
      store_some(n.dx + start + at, dx, count, aligned);
    });
  }
}

// Both sums over the threads of a row, at most kPassThreads, in each of them. Of a warp, the lower
// lanes add the one up and the upper lanes the other. All threads of the block call it; partials
// [2, warps] may be used again behind the next but one barrier.
__device__ void two_sums(float& first, float& second, float* partials, int warps) {
  constexpr int kHalf = kWarp / 2;
  static_assert(kPassThreads <= kHalf * kWarp);
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const bool upper = lane >= kHalf;
  float sum = upper ? second : first;
  const auto add_up = [&] {
    for (int apart = kHalf / 2; apart > 0; apart /= 2)
      sum += __shfl_xor_sync(kAllLanes, sum, apart);
  };
  sum += __shfl_xor_sync(kAllLanes, upper ? first : second, kHalf);
  add_up();
  if (warps > 1) {
    if (lane % kHalf == 0) partials[(upper ? warps : 0) + warp] = sum;
    __syncthreads();
    sum = lane % kHalf < warps ? partials[(upper ? warps : 0) + lane % kHalf] : 0.0F;
    add_up();
  }
  first = __shfl_sync(kAllLanes, sum, 0);
  second = __shfl_sync(kAllLanes, sum, kHalf);
}

// What a thread of pass_kernel has of a row: of its warp's vectors those of its lane.
template <typename T>
struct Part {
  static constexpr int kWide = kVectorWidth<T>;
  static constexpr int kApart = kWarp * kWide;  // from one vector to the next
  float at[kPassVectors][kWide];
  __device__ static int column(int v) {
    const int thread = static_cast<int>(threadIdx.x);
    return thread / kWarp * kPassVectors * kApart + thread % kWarp * kWide + v * kApart;
  }
};

// The sums of the rows that are taken at once, in their order, in the threads of the first.
template <typename T>
__device__ void merge_rows(Part<T>& sums, Part<T>* room) {
  const unsigned own = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // what was there before has been read
  room[own] = sums;
  __syncthreads();
  for (unsigned y = 1; y < blockDim.y && threadIdx.y == 0; ++y) {
    const Part<T>& other = room[own + y * blockDim.x];
    WEFT_UNROLL
    for (int i = 0; i < kPassVectors * Part<T>::kWide; ++i) {
      sums.at[i / Part<T>::kWide][i % Part<T>::kWide] +=
          other.at[i / Part<T>::kWide][i % Part<T>::kWide];
    }
  }
}
template <typename T>
__device__ void store_part(const Part<T>& sums, int width, float* to) {
  WEFT_UNROLL
  for (int v = 0; v < kPassVectors; ++v) {
    if (Part<T>::column(v) >= width) continue;
    WEFT_UNROLL
    for (int j = 0; j < Part<T>::kWide; j += 4) {
      const float* four = sums.at[v] + j;
      store_vector(to + Part<T>::column(v) + j,
                   Vector<float, 4>{{four[0], four[1], four[2], four[3]}});
    }
  }
}

// A thread's part of the rows of its slice, under way to shared memory, where nobody else reads it;
// a warp's places lie together. kPast: there is dsum.
template <typename T, bool kPast>
struct RowsUnderWay {
  static constexpr int kWide = kVectorWidth<T>;
  static constexpr int kArrays = kPast ? 3 : 2;  // dy, x, dsum
  static constexpr int kStages = kPast ? 3 : 4;  // rows that are there or under way
  static constexpr int kPlaces = kStages * kArrays * kPassVectors;  // of a thread
  Packed<T, kWide>* room;
  int64_t next_at;  // the thread's first element of the row that comes next

  // Of the row of this round: dy (0), x (1) or dsum (2).
  __device__ Packed<T, kWide>& at(int round, int array, int v) const {
    return room[((round % kStages * kArrays + array) * kPassVectors + v) * kWarp];
  }
  // The row of this round, which comes next, if it is there.
  __device__ void start(const NormBackwardArguments<T>& n, int round, bool there) {
    const T *dy = n.dy + next_at, *x = n.x + next_at, *past = kPast ? n.dsum + next_at : nullptr;
    WEFT_UNROLL
    for (int v = 0; v < kPassVectors; ++v) {
      const int bytes = there && Part<T>::column(v) < n.width ? 16 : 0;
      copy_16(&at(round, 0, v), dy + v * Part<T>::kApart, bytes);
      copy_16(&at(round, 1, v), x + v * Part<T>::kApart, bytes);
      if constexpr (kPast) copy_16(&at(round, 2, v), past + v * Part<T>::kApart, bytes);
    }
    copies_commit();
    next_at += blockDim.y * n.width;
  }
};
// Of a row: g, xhat and, of the thread's or of all columns, the sums of g and of g xhat.
template <typename T>
struct RowTerms {
  Part<T> g, hat;
  float total = 0.0F, along = 0.0F;
};
// Of the thread's columns, over its rows.
template <typename T>
struct ColumnSums {
  Part<T> gamma{}, beta{};
};
// mean(x) and 1 / sqrt(variance + epsilon) of a row.
struct Scale {
  float mean = 0.0F, rstd = 0.0F;
};
// Takes a row's v-th vector. xhat is x rstd - mean rstd: the rounding of that product shifts the
// row by no more than the rounding of its mean did.
template <typename T, typename Elements>
__device__ void add_vector(int v, const Elements& dys, const Elements& xs, const Part<T>& gamma,
                           const Scale& scale, RowTerms<T>& terms, ColumnSums<T>& columns) {
  const auto dy = widened(dys), x = widened(xs);
  const float shift = -scale.mean * scale.rstd;
  WEFT_UNROLL
  for (int j = 0; j < Part<T>::kWide; ++j) {
    const float d = dy.at[j], g = d * gamma.at[v][j], hat = x.at[j] * scale.rstd + shift;
    terms.g.at[v][j] = g;
    terms.hat.at[v][j] = hat;
    terms.total += g;
    terms.along += g * hat;
    columns.gamma.at[v][j] += d * hat;
    columns.beta.at[v][j] += d;
  }
}
// dx = past + rstd g + (shift + slope xhat), of a row's v-th vector.
template <bool kPast, typename T, typename Elements>
__device__ void store_gradient(int v, const RowTerms<T>& terms, float rstd, float shift,
                               float slope, const Elements* pasts, T* dx) {
  Vector<float, Part<T>::kWide> past;
  if constexpr (kPast) past = widened(*pasts);
  Vector<T, Part<T>::kWide> all;
  WEFT_UNROLL
  for (int j = 0; j < Part<T>::kWide; ++j) {
    const float rest = terms.hat.at[v][j] * slope + (kPast ? past.at[j] + shift : shift);
    all.at[j] = narrow<T>(terms.g.at[v][j] * rstd + rest);
  }
  store_vector(dx + v * Part<T>::kApart, all);
}

// The thread's columns of gamma; zeros behind the row's end.
template <typename T>
__device__ Part<T> load_gamma(const float* gamma, int width) {
  Part<T> part{};
  WEFT_UNROLL
  for (int v = 0; v < kPassVectors; ++v) {
    if (Part<T>::column(v) >= width) continue;
    const auto loaded =
        load_some_floats<Part<T>::kWide>(gamma + Part<T>::column(v), Part<T>::kWide, true);
    WEFT_UNROLL
    for (int j = 0; j < Part<T>::kWide; ++j) part.at[v][j] = loaded.at[j];
  }
  return part;
}
template <typename T>
__device__ Scale load_scale(const NormBackwardArguments<T>& n, int64_t row, bool there) {
  Scale scale;
  if (there) scale.rstd = n.rstd[row];
  if (there && n.mean != nullptr) scale.mean = n.mean[row];
  return scale;
}

// All three gradients in one pass: a block takes a slice, blockDim.y rows at a time. Each thread
// owns the same columns of all of them. sums [slices, 2, width]: of gamma, of beta. Shared: the
// sums of warps; the rows under way, or then the sums of columns.
template <typename T, bool kPast>
__global__ void __launch_bounds__(kPassThreads)
    pass_kernel(NormBackwardArguments<T> n, Slices slices, float* sums) {
  using Rows = RowsUnderWay<T, kPast>;
  constexpr int kAhead = Rows::kStages - 1;
  const int y = static_cast<int>(threadIdx.y), at_once = static_cast<int>(blockDim.y);
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  const int width = static_cast<int>(n.width);
  float* const partials = shared_memory<float>() + y * 4 * warps;
  float* const room = shared_memory<float>() + kPassSums;
  const SliceRows slice = rows_of_slice(n, slices, blockIdx.x);
  int64_t row = slice.first + y;
  int left = static_cast<int>(slice.last - row);  // rows of the slice from there on
  T* dx = n.dx + row * n.width + Part<T>::column(0);
  Rows rows{reinterpret_cast<Packed<T, kVectorWidth<T>>*>(room) +
                (y * warps + thread / kWarp) * Rows::kPlaces * kWarp + thread % kWarp,
            row * n.width + Part<T>::column(0)};
  for (int round = 0; round < kAhead; ++round) rows.start(n, round, left > round * at_once);
  Scale next = load_scale(n, row, left > 0);
  const Part<T> gamma = load_gamma<T>(n.gamma, width);
  const float share = 1.0F / static_cast<float>(width);
  ColumnSums<T> columns;
  for (int round = 0; left + y > 0; ++round) {
    rows.start(n, round + kAhead, left > kAhead * at_once);
    const Scale scale = next;
    row += at_once;
    next = load_scale(n, row, left > at_once);
    copies_wait<kAhead>();
    RowTerms<T> terms;
    WEFT_UNROLL
    for (int v = 0; v < kPassVectors; ++v) {
      if (left <= 0 || Part<T>::column(v) >= width) continue;
      add_vector(v, rows.at(round, 0, v), rows.at(round, 1, v), gamma, scale, terms, columns);
    }
    two_sums(terms.total, terms.along, partials + round % 2 * 2 * warps, warps);
    const float slope = -scale.rstd * share * terms.along;
    const float shift = n.mean == nullptr ? 0.0F : -scale.rstd * share * terms.total;
    WEFT_UNROLL
    for (int v = 0; v < kPassVectors; ++v) {
      if (left <= 0 || Part<T>::column(v) >= width) continue;
      store_gradient<kPast>(v, terms, scale.rstd, shift, slope, &rows.at(round, 2, v), dx);
    }
    dx += at_once * n.width;
    left -= at_once;
  }
  copies_wait<0>();
  merge_rows(columns.gamma, reinterpret_cast<Part<T>*>(room));
  merge_rows(columns.beta, reinterpret_cast<Part<T>*>(room));
  if (y != 0) return;
  float* const to = sums + int64_t{blockIdx.x} * 2 * n.width;
  store_part(columns.gamma, width, to);
  store_part(columns.beta, width, to + n.width);
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
__global__ void parameter_kernel(NormBackwardArguments<T> n, bool vectors, Slices slices,
                                 int64_t tiles, int64_t items, float* sums) {
  constexpr int kWide = kVectorWidth<T>;
  float* room = shared_memory<float>();
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t column = (item % tiles * kWarp + threadIdx.x) * kWide, slice = item / tiles;
    const SliceRows rows = rows_of_slice(n, slices, slice);
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
      in_batches<4>(rows.first + threadIdx.y, count > 0 ? rows.last : rows.first, kTileRows, load,
                    add);
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
  return 2 * blocks * slices_of_rows(rows, blocks).in_block * width;
}

template <typename T>
void norm_backward(const NormBackwardArguments<T>& n, float* scratch, cudaStream_t stream) {
  if (n.width == 0) return;  // all gradients are empty
  constexpr int64_t kColumns = kWarp * kVectorWidth<T>;
  const bool aligned = (rows_take_vectors<T>)(n.width, n.x, n.dy, n.dsum, n.gamma, n.dx);
  const Slices slices = slices_of_rows(n.rows, n.blocks);
  const int64_t in_all = n.blocks * slices.in_block, tiles = (n.width + kColumns - 1) / kColumns;
  const dim3 tile(kWarp, kTileRows);
  if (aligned && n.width <= int64_t{kPassThreads} * kPassVectors * kVectorWidth<T>) {
    const auto warps = static_cast<unsigned>((tiles + kPassVectors - 1) / kPassVectors);
    const dim3 block(warps * kWarp, std::max(1U, kPassThreadsUsual / (warps * kWarp)));
    const auto start = [&]<bool kPast>() {
      const size_t places = RowsUnderWay<T, kPast>::kPlaces * kAccessBytes;
      launch_shared(
          stream, static_cast<unsigned>(in_all), block,
          kPassSums * sizeof(float) + std::max(places, sizeof(Part<T>)) * block.x * block.y,
          pass_kernel<T, kPast>, n, slices, scratch);
    };
    n.dsum != nullptr ? start.template operator()<true>() : start.template operator()<false>();
  } else {
    const dim3 row = row_block<T>(n.width);
    launch_shared(stream, blocks_of_rows(n.rows, row), row, kWarp * sizeof(float), input_kernel<T>,
                  n, aligned);
    launch_shared(stream, blocks_of(in_all * tiles, 1), tile, kTileRows * kColumns * sizeof(float),
                  parameter_kernel<T>, n, aligned, slices, tiles, in_all * tiles, scratch);
  }
  const auto merge = n.blocks > 1 ? merge_parameters_kernel<true> : merge_parameters_kernel<false>;
  launch_shared(stream, blocks_of(2 * n.width, kWarp), tile, kTileRows * kWarp * sizeof(float),
                merge, scratch, n.blocks, slices.in_block, n.width, n.dgamma, n.dbeta);
}

#define WEFT_INSTANTIATE(T) \
  template void norm_backward<T>(const NormBackwardArguments<T>&, float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
