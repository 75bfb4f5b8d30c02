// Reductions over segments, whose elements stand in a list of their own (in order of elements), a
// thread a segment and column. Numerical policy: sums in fp32 in the order of the elements, rounded
// once, the same bits every time; of equal maxima the first, of several NaNs the last, as the
// CPU's.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/outside.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// How many of the sorted values are smaller than `bound`.
__device__ inline int64_t count_below(const int64_t* sorted, int64_t n, int64_t bound) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t probe = low + (high - low) / 2;
    if (sorted[probe] < bound) {
      low = probe + 1;
    } else {
      high = probe;
    }
  }
  return low;
}

__global__ void starts_kernel(const int64_t* sorted, int64_t n, int64_t first, int64_t count,
                              int64_t* start, Outside outside) {
  if (first_element() == 0 && n > 0 && noted_inside(outside, sorted[0], count)) {
    (void)noted_inside(outside, sorted[n - 1], count);
  }
  for (int64_t s = first_element(); s <= count; s += elements_of_grid()) {
    start[s] = count_below(sorted, n, first + s);
  }
}

// Element e is of the last segment that begins at or before it.
__global__ void segments_of_offsets_kernel(const int64_t* offsets, int64_t count, int64_t n,
                                           int64_t* segment) {
  for (int64_t e = first_element(); e < n; e += elements_of_grid()) {
    segment[e] = count_below(offsets, count + 1, e + 1) - 1;
  }
}

template <typename T>
__global__ void segment_sum_kernel(Segments segments, const T* x, int64_t n, int64_t inner,
                                   bool adds, T* out) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t column = i % inner, s = i / inner % segments.count;
    const int64_t outer = i / inner / segments.count;
    const int64_t begin = segments.start[s], end = segments.start[s + 1];
    if (adds && begin == end) continue;
    float total = adds ? widen(out[i]) : 0.0F;
    for (int64_t at = begin; at < end; ++at) {
      total += widen(x[(outer * segments.elements + segments.order[at]) * inner + column]);
    }
    out[i] = narrow<T>(total);
  }
}

template <typename T>
__global__ void segment_max_kernel(Segments segments, const T* x, int64_t inner, T* out,
                                   int64_t* place) {
  const int64_t n = segments.count * inner;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t column = i % inner, s = i / inner;
    float largest = 0.0F;
    int64_t best = -1;
    for (int64_t at = segments.start[s]; at < segments.start[s + 1]; ++at) {
      const int64_t element = segments.order[at];
      const float value = widen(x[element * inner + column]);
      if (best >= 0 && !(value > largest || value != value)) continue;
      largest = value;
      best = element;
    }
    out[i] = narrow<T>(largest);
    place[i] = best;
  }
}

template <typename T>
__global__ void segment_max_backward_kernel(const T* dy, const int64_t* place, int64_t n,
                                            int64_t inner, T* dx) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    if (place[i] >= 0) dx[place[i] * inner + i % inner] = dy[i];
  }
}

template <typename T>
__global__ void segment_softmax_kernel(Segments segments, const T* x, int64_t inner, T* y) {
  const int64_t n = segments.count * inner;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t column = i % inner, s = i / inner;
    const int64_t begin = segments.start[s], end = segments.start[s + 1];
    float largest = -INFINITY, total = 0.0F;
    for (int64_t at = begin; at < end; ++at) {
      largest = fmaxf(largest, widen(x[segments.order[at] * inner + column]));
    }
    if (largest == -INFINITY) largest = 0.0F;
    for (int64_t at = begin; at < end; ++at) {
      total += expf(widen(x[segments.order[at] * inner + column]) - largest);
    }
    if (total == 0.0F) total = 1.0F;  // nothing but -infinity: zeros
    for (int64_t at = begin; at < end; ++at) {
      const int64_t place = segments.order[at] * inner + column;
      y[place] = narrow<T>(expf(widen(x[place]) - largest) / total);
    }
  }
}

}  // namespace

void segment_starts(const int64_t* sorted, int64_t n, int64_t first, int64_t count, int64_t* start,
                    const Outside& outside, cudaStream_t stream) {
  launch(stream, blocks_of(count + 1), kThreads, starts_kernel, sorted, n, first, count, start,
         outside);
}
void segments_of_offsets(const int64_t* offsets, int64_t count, int64_t n, int64_t* segment,
                         cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, segments_of_offsets_kernel, offsets, count, n, segment);
}
template <typename T>
void segment_sum(const Segments& segments, const T* x, int64_t outer, int64_t inner, bool adds,
                 T* out, cudaStream_t stream) {
  const int64_t n = outer * segments.count * inner;
  launch(stream, blocks_of(n), kThreads, segment_sum_kernel<T>, segments, x, n, inner, adds, out);
}
template <typename T>
void segment_max(const Segments& segments, const T* x, int64_t inner, T* out, int64_t* place,
                 cudaStream_t stream) {
  launch(stream, blocks_of(segments.count * inner), kThreads, segment_max_kernel<T>, segments, x,
         inner, out, place);
}
template <typename T>
void segment_max_backward(const T* dy, const int64_t* place, int64_t n, int64_t inner, T* dx,
                          cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, segment_max_backward_kernel<T>, dy, place, n, inner, dx);
}
template <typename T>
void segment_softmax(const Segments& segments, const T* x, int64_t inner, T* y,
                     cudaStream_t stream) {
  launch(stream, blocks_of(segments.count * inner), kThreads, segment_softmax_kernel<T>, segments,
         x, inner, y);
}

#define WEFT_INSTANTIATE(T)                                                                     \
  template void segment_sum<T>(const Segments&, const T*, int64_t, int64_t, bool, T*,           \
                               cudaStream_t);                                                   \
  template void segment_max<T>(const Segments&, const T*, int64_t, T*, int64_t*, cudaStream_t); \
  template void segment_max_backward<T>(const T*, const int64_t*, int64_t, int64_t, T*,         \
                                        cudaStream_t);                                          \
  template void segment_softmax<T>(const Segments&, const T*, int64_t, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
