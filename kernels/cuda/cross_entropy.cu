// Cross-entropy over rows of logits and its gradient, which takes their place, a block a row.
// Numerical policy: fp32, exponentials as powers of two; the maximum and the sum of exponentials
// shifted by it are taken in one pass over the row: each thread rescales its sum when its maximum
// grows (Milakov and Gimelshein 2018), and the threads' sums are shifted to the row's maximum
// before they are added. The gradient is rounded once. Floor: each logit read once and written
// once; rows of up to kKeptRowBytes are kept in shared memory in between, wider ones are read
// again.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/outside.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

constexpr int kLossThreads = 768;  // two such blocks and the rows they keep fit an SM of sm_90a
constexpr float kLog2E = 1.4426950408889634F;

__device__ inline float shifted_exponential(float x, float shift) {
  return exp2f((x - shift) * kLog2E);
}

struct RowSums {
  float largest, total, plain;  // total: of exponentials shifted by the largest; plain: of logits
};

// To shared memory, whence each thread reads what it copied itself.
template <typename T>
__device__ void keep_row(const T* row, int64_t width, T* kept) {
  constexpr int kCount = kVectorWidth<T>;
  for (int64_t i = int64_t{threadIdx.x} * kCount; i < width; i += int64_t{blockDim.x} * kCount) {
    copy_16(kept + i, row + i, 16);
  }
  copies_commit();
  copies_wait<0>();
}

template <typename T, int kCount>
__device__ RowSums sums_of_row(const T* row, int64_t width, bool plain_wanted, float* partials) {
  float own = -INFINITY, total = 0.0F, plain = 0.0F;
  for (int64_t i = int64_t{threadIdx.x} * kCount; i < width; i += int64_t{blockDim.x} * kCount) {
    const Vector<T, kCount> vector = load_vector<kCount>(row + i);
    const int64_t left = width - i;
    float x[kCount], highest = -INFINITY;
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) {
      x[j] = widen(vector.at[j]);
      if (j >= left) x[j] = -INFINITY;
      highest = Max::combine(highest, x[j]);
    }
    if (plain_wanted) {
      WEFT_UNROLL for (int j = 0; j < kCount; ++j) plain += j < left ? x[j] : 0.0F;
    }
    if (highest > own) {
      total *= shifted_exponential(own, highest);
      own = highest;
    }
    if (own == -INFINITY) continue;
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) total += shifted_exponential(x[j], own);
  }
  RowSums sums{block_reduce<Max>(own, partials), 0.0F, 0.0F};
  if (own != -INFINITY) total *= shifted_exponential(own, sums.largest);
  sums.total = block_reduce<Add>(total, partials);
  if (plain_wanted) sums.plain = block_reduce<Add>(plain, partials);
  return sums;
}

// What the loss takes from the log of the sum: the label's logit, smoothed.
__device__ inline float smoothed(const LossRules& rules, float chosen, float plain) {
  if (rules.smoothing == 0.0F) return chosen;
  return chosen + rules.smoothing * (plain / static_cast<float>(rules.classes) - chosen);
}

// The softmax is factor / slope times the exponential shifted by `shift`; `label` is a column,
// maybe none of the row.
struct RowGradient {
  float shift, factor, slope;
  int64_t label;
};

// Behind the logits, up to the step, come zeros. from: the row, or where it is kept.
template <typename T, int kCount>
__device__ void write_gradient(const LossRules& rules, const LogitRows& rows, const T* from,
                               const RowGradient& g, T* row) {
  const float even = g.slope * (rules.smoothing / static_cast<float>(rules.classes));
  for (int64_t i = int64_t{threadIdx.x} * kCount; i < rows.step;
       i += int64_t{blockDim.x} * kCount) {
    const int64_t left = rows.width - i;
    Vector<T, kCount> vector{};
    if (left > 0) vector = load_vector<kCount>(from + i);
    float slope[kCount];
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) {
      slope[j] = g.factor * shifted_exponential(widen(vector.at[j]), g.shift) - even;
    }
    if (i <= g.label && g.label < i + kCount) {
      WEFT_UNROLL for (int j = 0; j < kCount; ++j) {
        if (i + j == g.label) slope[j] -= g.slope * (1.0F - rules.smoothing);
      }
    }
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) {
      vector.at[j] = narrow<T>(j < left ? slope[j] : 0.0F);
    }
    store_vector(row + i, vector);
  }
}

template <typename T, int kCount>
__device__ void clear_row(const LogitRows& rows, T* row) {
  Vector<T, kCount> zeros;
  WEFT_UNROLL for (int j = 0; j < kCount; ++j) zeros.at[j] = narrow<T>(0.0F);
  for (int64_t i = int64_t{threadIdx.x} * kCount; i < rows.step;
       i += int64_t{blockDim.x} * kCount) {
    store_vector(row + i, zeros);
  }
}

// Shared memory: kWarp partial sums and, if it keeps rows, one of them.
template <typename T, int kCount, bool kKeeps>
__global__ void __launch_bounds__(kLossThreads, 2)
    loss_and_gradient_kernel(T* logits, const int64_t* labels, LossRules rules, const float* dloss,
                             LogitRows rows, float* loss) {
  float* partials = shared_memory<float>();
  T* kept = reinterpret_cast<T*>(partials + kWarp);
  for (int64_t row = blockIdx.x; row < rows.count; row += gridDim.x) {
    T* at = logits + row * rows.step;
    const int64_t label = labels[row];
    if (label == rules.ignore_index) {
      clear_row<T, kCount>(rows, at);
      if (threadIdx.x == 0) loss[row] = 0.0F;
      continue;
    }
    // All read it before the barriers of the sums, behind which the gradient takes its place.
    const bool known = inside(label, rows.width);
    const float chosen = known ? widen(at[label]) : NAN;
    if (!known && threadIdx.x == 0) note(rules.outside, label, rules.classes);
    if constexpr (kKeeps) keep_row(at, rows.width, kept);
    const T* from = kKeeps ? kept : at;
    const RowSums sums = sums_of_row<T, kCount>(from, rows.width, rules.smoothing > 0.0F, partials);
    if (threadIdx.x == 0) {
      loss[row] = sums.largest + logf(sums.total) - smoothed(rules, chosen, sums.plain);
    }
    const RowGradient g{sums.largest, *dloss / sums.total, *dloss, label};
    write_gradient<T, kCount>(rules, rows, from, g, at);
  }
}

// The gradient of a row whose log-sum-exp is known.
template <typename T, int kCount>
__global__ void __launch_bounds__(kLossThreads, 2)
    gradient_kernel(T* logits, const int64_t* labels, const float* lse, LossRules rules,
                    const float* dloss, LogitRows rows) {
  for (int64_t row = blockIdx.x; row < rows.count; row += gridDim.x) {
    T* at = logits + row * rows.step;
    if (labels[row] == rules.ignore_index) {
      clear_row<T, kCount>(rows, at);
      continue;
    }
    const RowGradient g{lse[row], *dloss, *dloss, labels[row] - rules.first};
    write_gradient<T, kCount>(rules, rows, at, g, at);
  }
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kLossThreads, 2)
    terms_kernel(const T* logits, const int64_t* labels, LossRules rules, LogitRows rows,
                 float* maximum, float* terms) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows.count; row += gridDim.x) {
    const T* at = logits + row * rows.step;
    const bool ignored = labels[row] == rules.ignore_index;
    const RowSums sums =
        sums_of_row<T, kCount>(at, ignored ? 0 : rows.width, rules.smoothing > 0.0F, partials);
    if (threadIdx.x != 0) continue;
    const int64_t label = labels[row] - rules.first;
    const bool here = !ignored && label >= 0 && label < rows.width;
    maximum[row] = sums.largest;
    terms[row] = sums.total;
    terms[rows.count + row] = smoothed(rules, here ? widen(at[label]) : 0.0F, sums.plain);
  }
}

__global__ void shift_kernel(const float* own, const float* maximum, int64_t rows, float* terms) {
  for (int64_t row = first_element(); row < rows; row += elements_of_grid()) {
    if (own[row] != -INFINITY) terms[row] *= expf(own[row] - maximum[row]);
  }
}

__global__ void total_kernel(const int64_t* labels, const float* terms, LossRules rules,
                             int64_t rows, float* maximum_to_lse, float* loss) {
  for (int64_t row = first_element(); row < rows; row += elements_of_grid()) {
    const int64_t label = labels[row];
    const bool ignored = label == rules.ignore_index;
    const bool known = ignored || noted_inside(rules.outside, label, rules.classes);
    const float lse = maximum_to_lse[row] + logf(terms[row]);
    maximum_to_lse[row] = ignored ? 0.0F : lse;
    loss[row] = ignored ? 0.0F : lse - (known ? terms[rows + row] : NAN);
  }
}

template <typename T, int kCount>
__global__ void counted_rows_kernel(const T* x, const int64_t* labels, int64_t ignore_index,
                                    int64_t vectors_of_row, int64_t vectors, T* out) {
  for (int64_t i = first_element(); i < vectors; i += elements_of_grid()) {
    Vector<T, kCount> vector{};
    if (labels[i / vectors_of_row] != ignore_index) vector = load_vector<kCount>(x + i * kCount);
    store_vector(out + i * kCount, vector);
  }
}

template <typename T>
__global__ void reseed_kernel(const float* dy, const float* seed, int64_t n, T* gradient) {
  const float factor = *dy / *seed;
  if (factor == 1.0F) return;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    gradient[i] = narrow<T>(widen(gradient[i]) * factor);
  }
}

unsigned loss_threads(int64_t width) {
  return width >= 8 * kLossThreads ? kLossThreads : row_threads(width);
}

// Calls act.operator()<kCount>() with the elements that a thread may take at once.
template <typename T, typename Act>
void with_vectors(const T* logits, const LogitRows& rows, const Act& act) {
  check_arguments(rows.step >= rows.width, "rows of logits do not overlap");
  if ((rows_take_vectors<T>)(rows.step, logits)) {
    act.template operator()<kVectorWidth<T>>();
  } else {
    act.template operator()<1>();
  }
}

}  // namespace

template <typename T>
void loss_and_gradient(T* logits, const int64_t* labels, const LossRules& rules, const float* dloss,
                       const LogitRows& rows, float* loss, cudaStream_t stream) {
  const size_t row_bytes = static_cast<size_t>(rows.step) * sizeof(T);
  const auto start = [&]<int kCount, bool kKeeps>() {
    launch_shared(stream, blocks_of(rows.count, 1), loss_threads(rows.width),
                  kWarp * sizeof(float) + (kKeeps ? row_bytes : 0),
                  loss_and_gradient_kernel<T, kCount, kKeeps>, logits, labels, rules, dloss, rows,
                  loss);
  };
  if ((rows_take_vectors<T>)(rows.step, logits) && row_bytes <= kKeptRowBytes) {
    return start.template operator()<kVectorWidth<T>, true>();
  }
  with_vectors(logits, rows, [&]<int kCount>() { start.template operator()<kCount, false>(); });
}
template <typename T>
void loss_gradient(T* logits, const int64_t* labels, const float* lse, const LossRules& rules,
                   const float* dloss, const LogitRows& rows, cudaStream_t stream) {
  with_vectors(logits, rows, [&]<int kCount>() {
    launch(stream, blocks_of(rows.count, 1), loss_threads(rows.width), gradient_kernel<T, kCount>,
           logits, labels, lse, rules, dloss, rows);
  });
}
template <typename T>
void loss_terms(const T* logits, const int64_t* labels, const LossRules& rules,
                const LogitRows& rows, float* maximum, float* terms, cudaStream_t stream) {
  with_vectors(logits, rows, [&]<int kCount>() {
    launch_shared(stream, blocks_of(rows.count, 1), loss_threads(rows.width), kWarp * sizeof(float),
                  terms_kernel<T, kCount>, logits, labels, rules, rows, maximum, terms);
  });
}
void shift_terms(const float* own, const float* maximum, int64_t rows, float* terms,
                 cudaStream_t stream) {
  launch(stream, blocks_of(rows), kThreads, shift_kernel, own, maximum, rows, terms);
}
void loss_total(const int64_t* labels, const float* terms, const LossRules& rules, int64_t rows,
                float* maximum_to_lse, float* loss, cudaStream_t stream) {
  launch(stream, blocks_of(rows), kThreads, total_kernel, labels, terms, rules, rows,
         maximum_to_lse, loss);
}
template <typename T>
void counted_rows(const T* x, const int64_t* labels, int64_t ignore_index, int64_t rows,
                  int64_t width, T* out, cudaStream_t stream) {
  const auto start = [&]<int kCount>() {
    const int64_t vectors_of_row = width / kCount, vectors = rows * vectors_of_row;
    launch(stream, blocks_of(vectors), kThreads, counted_rows_kernel<T, kCount>, x, labels,
           ignore_index, vectors_of_row, vectors, out);
  };
  if ((rows_take_vectors<T>)(width, x, out)) return start.template operator()<kVectorWidth<T>>();
  start.template operator()<1>();
}
template <typename T>
void reseed(const float* dy, const float* seed, int64_t n, T* gradient, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, reseed_kernel<T>, dy, seed, n, gradient);
}

#define WEFT_INSTANTIATE(T)                                                                        \
  template void loss_and_gradient<T>(T*, const int64_t*, const LossRules&, const float*,           \
                                     const LogitRows&, float*, cudaStream_t);                      \
  template void loss_gradient<T>(T*, const int64_t*, const float*, const LossRules&, const float*, \
                                 const LogitRows&, cudaStream_t);                                  \
  template void loss_terms<T>(const T*, const int64_t*, const LossRules&, const LogitRows&,        \
                              float*, float*, cudaStream_t);                                       \
  template void counted_rows<T>(const T*, const int64_t*, int64_t, int64_t, int64_t, T*,           \
                                cudaStream_t);                                                     \
  template void reseed<T>(const float*, const float*, int64_t, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
