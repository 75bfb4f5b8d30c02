// Dropout (Srivastava et al. 2014). Numerical policy: the mask is drawn from Philox at the
// element's index in the global array, never kept; kept elements are multiplied by
// DropRule's factor as a float, as on the CPU, so both give the same bits.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/philox.cuh"

namespace weft::cuda {
namespace {

// The places are those in the global array; of vectors they start at a multiple of the width.
template <typename T>
struct Dropped {
  DeviceKey key;
  int dropped;
  float kept;
  template <int kWidth>
  __device__ void operator()(Vector<T, kWidth>& y, const Vector<T, kWidth>& x,
                             const Vector<Place, kWidth>& place) const {
    static_assert(8 % kWidth == 0);  // of one counter
    const auto index = static_cast<uint64_t>(place.at[0].index);
    // In parentheses: no lookup by the key's namespace, which mutants share (tests/kernels/cuda).
    const PhiloxWords words = (words_of)(key, index / 8);
    WEFT_UNROLL
    for (int j = 0; j < kWidth; ++j) {
      const uint64_t at = static_cast<uint64_t>(j) + (kWidth == 8 ? 0 : index);
      y.at[j] = narrow<T>(kept_in(words, at, dropped) ? widen(x.at[j]) * kept : 0.0F);
    }
  }
};

}  // namespace

template <typename T>
void dropout(const T* x, std::span<const int64_t> extent, std::span<const int64_t> global,
             std::span<const int64_t> offset, double rate, DeviceKey key, T* y,
             cudaStream_t stream) {
  const int dims = static_cast<int>(extent.size());
  check_arguments(
      dims <= kDropoutDims && global.size() == extent.size() && offset.size() == extent.size(),
      "dropout: as many extents as offsets and global extents, at most kDropoutDims");
  check_arguments(rate >= 0 && rate < 1, "dropout: a rate in [0, 1)");
  int64_t stride = 1, start = 0;
  int64_t own[kDropoutDims] = {}, there[kDropoutDims] = {}, next = 1;
  for (int dim = dims; dim-- > 0;) {
    const size_t at = static_cast<size_t>(dim);
    own[dim] = next;
    there[dim] = stride;
    start += offset[at] * stride;
    stride *= global[at];
    next *= extent[at];
  }
  const std::span<const int64_t> local(own, extent.size()), in_global(there, extent.size());
  Walk<3> walk;
  check_arguments(make_walk<3>(extent, {local, in_global, local}, walk), "dropout: a walk");
  const DropRule rule(rate);
  const int64_t starts[3] = {0, start, 0};
  (map_from)(stream, Dropped<T>{key, rule.dropped, static_cast<float>(rule.factor)}, walk, starts,
             y, x, static_cast<const Place*>(nullptr));
}

#define WEFT_INSTANTIATE(T)                                                              \
  template void dropout<T>(const T*, std::span<const int64_t>, std::span<const int64_t>, \
                           std::span<const int64_t>, double, DeviceKey, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
