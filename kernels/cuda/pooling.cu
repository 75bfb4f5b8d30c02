// Pooling over planes. Numerical policy: means are summed in fp32 in the order of the window and
// rounded once; a gradient sums the windows that hold its place, in fp32, in their order.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

struct Range {
  int64_t begin, end;
};
// Places of the input that window `index` of dim d holds.
__device__ Range window_of(const PoolWindow& w, int d, int64_t index) {
  if (w.adaptive) {
    return {index * w.in[d] / w.out[d], ((index + 1) * w.in[d] + w.out[d] - 1) / w.out[d]};
  }
  const int64_t first = index * w.stride[d] - w.padding[d], last = first + w.kernel[d];
  return {first < 0 ? 0 : first, last < w.in[d] ? last : w.in[d]};
}
// Windows of dim d that hold a place of the input.
__device__ Range windows_with(const PoolWindow& w, int d, int64_t place) {
  if (w.adaptive) {
    return {place * w.out[d] / w.in[d], ((place + 1) * w.out[d] + w.in[d] - 1) / w.in[d]};
  }
  const int64_t shifted = place + w.padding[d], before = shifted - w.kernel[d];
  const int64_t end = shifted / w.stride[d] + 1;
  return {before < 0 ? 0 : before / w.stride[d] + 1, end < w.out[d] ? end : w.out[d]};
}

__device__ float places_counted(const PoolWindow& w, Range up, Range across) {
  const int64_t count = w.count_padding ? w.kernel[0] * w.kernel[1]
                                        : (up.end - up.begin) * (across.end - across.begin);
  return static_cast<float>(count);
}

template <typename T>
__global__ void max_pool_kernel(PoolWindow w, const T* x, T* y, int64_t* place, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t plane = i / w.out[1] / w.out[0];
    const Range up = window_of(w, 0, i / w.out[1] % w.out[0]);
    const Range across = window_of(w, 1, i % w.out[1]);
    const T* from = x + plane * w.in[0] * w.in[1];
    int64_t best = up.begin * w.in[1] + across.begin;
    float largest = widen(from[best]);
    for (int64_t row = up.begin; row < up.end; ++row) {
      for (int64_t column = across.begin; column < across.end; ++column) {
        const int64_t at = row * w.in[1] + column;
        const float value = widen(from[at]);
        if (largest != largest || !(value > largest || value != value)) continue;
        largest = value;
        best = at;
      }
    }
    y[i] = from[best];
    place[i] = best;
  }
}

template <typename T>
__global__ void max_pool_backward_kernel(PoolWindow w, const T* dy, const int64_t* place, T* dx,
                                         int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t within = i % (w.in[0] * w.in[1]), plane = i / (w.in[0] * w.in[1]);
    const Range up = windows_with(w, 0, within / w.in[1]);
    const Range across = windows_with(w, 1, within % w.in[1]);
    float sum = 0.0F;
    for (int64_t row = up.begin; row < up.end; ++row) {
      for (int64_t column = across.begin; column < across.end; ++column) {
        const int64_t at = (plane * w.out[0] + row) * w.out[1] + column;
        if (place[at] == within) sum += widen(dy[at]);
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

template <typename T>
__global__ void average_pool_kernel(PoolWindow w, const T* x, T* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t plane = i / w.out[1] / w.out[0];
    const Range up = window_of(w, 0, i / w.out[1] % w.out[0]);
    const Range across = window_of(w, 1, i % w.out[1]);
    float sum = 0.0F;
    for (int64_t row = up.begin; row < up.end; ++row) {
      for (int64_t column = across.begin; column < across.end; ++column) {
        sum += widen(x[(plane * w.in[0] + row) * w.in[1] + column]);
      }
    }
    y[i] = narrow<T>(sum / places_counted(w, up, across));
  }
}

template <typename T>
__global__ void average_pool_backward_kernel(PoolWindow w, const T* dy, T* dx, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t within = i % (w.in[0] * w.in[1]), plane = i / (w.in[0] * w.in[1]);
    const Range up = windows_with(w, 0, within / w.in[1]);
    const Range across = windows_with(w, 1, within % w.in[1]);
    float sum = 0.0F;
    for (int64_t row = up.begin; row < up.end; ++row) {
      for (int64_t column = across.begin; column < across.end; ++column) {
        const float counted = places_counted(w, window_of(w, 0, row), window_of(w, 1, column));
        sum += widen(dy[(plane * w.out[0] + row) * w.out[1] + column]) / counted;
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

int64_t results_of(const PoolWindow& w, int64_t planes) { return planes * w.out[0] * w.out[1]; }
int64_t places_of(const PoolWindow& w, int64_t planes) { return planes * w.in[0] * w.in[1]; }

}  // namespace

template <typename T>
void max_pool(const PoolWindow& window, const T* x, T* y, int64_t* place, int64_t planes,
              cudaStream_t stream) {
  const int64_t n = results_of(window, planes);
  launch(stream, blocks_of(n), kThreads, max_pool_kernel<T>, window, x, y, place, n);
}
template <typename T>
void max_pool_backward(const PoolWindow& window, const T* dy, const int64_t* place, T* dx,
                       int64_t planes, cudaStream_t stream) {
  const int64_t n = places_of(window, planes);
  launch(stream, blocks_of(n), kThreads, max_pool_backward_kernel<T>, window, dy, place, dx, n);
}
template <typename T>
void average_pool(const PoolWindow& window, const T* x, T* y, int64_t planes, cudaStream_t stream) {
  const int64_t n = results_of(window, planes);
  launch(stream, blocks_of(n), kThreads, average_pool_kernel<T>, window, x, y, n);
}
template <typename T>
void average_pool_backward(const PoolWindow& window, const T* dy, T* dx, int64_t planes,
                           cudaStream_t stream) {
  const int64_t n = places_of(window, planes);
  launch(stream, blocks_of(n), kThreads, average_pool_backward_kernel<T>, window, dy, dx, n);
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void max_pool<T>(const PoolWindow&, const T*, T*, int64_t*, int64_t, cudaStream_t); \
  template void max_pool_backward<T>(const PoolWindow&, const T*, const int64_t*, T*, int64_t, \
                                     cudaStream_t);                                            \
  template void average_pool<T>(const PoolWindow&, const T*, T*, int64_t, cudaStream_t);       \
  template void average_pool_backward<T>(const PoolWindow&, const T*, T*, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
