// One update of AdamW (Loshchilov and Hutter 2019) of many arrays, in the formula and the order of
// operations of worker/optimizer. Numerical policy: fp32 parameters, moments and arithmetic;
// gradients are widened; the working copy is the new parameter, rounded once, in bf16 ties away
// from zero (kernels/cpu/singles.h).
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pieces.cuh"
#include "kernels/cuda/vector.cuh"

namespace weft::cuda {
namespace {

constexpr int kArraysMax = 40;  // of a launch
constexpr int kWide = 4;        // elements that a thread updates at once

template <typename G, typename W>
using Table = PieceTable<AdamWArrays<G, W>, kArraysMax>;

template <typename G, typename W>
__device__ bool all_take_vectors(const AdamWArrays<G, W>& a) {
  return takes_vectors(a.g) && takes_vectors(a.p) && takes_vectors(a.m) && takes_vectors(a.v) &&
         takes_vectors(a.working);
}

// A parameter from what is kept of it and its working copy, and back to them.
template <typename W>
__device__ float joined(const float& kept, const W&) {
  return kept;
}
__device__ inline float joined(const bfloat16& low, const bfloat16& value) {
  const int32_t difference = static_cast<int16_t>(low.bits);
  return float_of_bits((uint32_t{value.bits} << 16) + static_cast<uint32_t>(difference));
}
template <typename W>
__device__ void split(float p, float& kept, W& working) {
  kept = p;
  working = narrow<W>(p);
}
__device__ inline void split(float p, bfloat16& low, bfloat16& value) {
  uint32_t word = bits_of_float(p);
  if ((word & 0x7FFFFFFFU) > 0x7F800000U) word = (word | 0x400000U) & 0xFFFF0000U;
  value.bits = static_cast<uint16_t>((word + 0x8000U) >> 16);
  low.bits = static_cast<uint16_t>(word);
}

// Elements [at, at + count) of the arrays.
template <typename G, typename W>
__device__ void update(const AdamWArrays<G, W>& a, float scale, int64_t at, int count,
                       bool aligned) {
  const AdamWConstants& c = a.constants;
  const Vector<G, kWide> g = load_some<kWide>(a.g + at, count, aligned);
  auto kept = load_some<kWide>(a.p + at, count, aligned);
  Vector<float, kWide> m = load_some<kWide>(a.m + at, count, aligned);
  Vector<float, kWide> v = load_some<kWide>(a.v + at, count, aligned);
  Vector<W, kWide> working;
  if constexpr (std::is_same_v<W, bfloat16>) {
    working = load_some<kWide>(a.working + at, count, aligned);
  }
  WEFT_UNROLL
  for (int j = 0; j < kWide; ++j) {
    const float value = widen(g.at[j]) * scale;
    const float first = c.beta1 * m.at[j] + c.rest1 * value;
    const float second = c.beta2 * v.at[j] + c.rest2 * value * value;
    m.at[j] = first;
    v.at[j] = second;
    const float p = c.keep * joined(kept.at[j], working.at[j]) -
                    c.step * first / (sqrtf(second) * c.root + c.epsilon);
    split(p, kept.at[j], working.at[j]);
  }
  store_some(a.p + at, kept, count, aligned);
  store_some(a.m + at, m, count, aligned);
  store_some(a.v + at, v, count, aligned);
  if (a.working != nullptr) store_some(a.working + at, working, count, aligned);
}

template <typename G, typename W>
__global__ void adamw_kernel(const __grid_constant__ Table<G, W> table, const float* factor) {
  for (int64_t piece = blockIdx.x; piece < table.first[table.count]; piece += gridDim.x) {
    const int owner = table.owner_of(piece);
    const AdamWArrays<G, W>& a = table.array[owner];
    const float scale = a.constants.gradient_scale * (factor == nullptr ? 1.0F : *factor);
    if (!isfinite(scale)) continue;  // an overflow under a loss scale: the step is left out
    const bool vectors = all_take_vectors(a);
    const int64_t begin = (piece - table.first[owner]) * kPieceElements;
    const int64_t end = min(begin + kPieceElements, a.n);
    for (int64_t at = begin + threadIdx.x * kWide; at < end; at += kThreads * kWide) {
      const int count = static_cast<int>(min(end - at, int64_t{kWide}));
      with_alignment(vectors && count == kWide,
                     [&](auto aligned) { update(a, scale, at, count, aligned.value); });
    }
  }
}

}  // namespace

template <typename G, typename W>
void adamw(std::span<const AdamWArrays<G, W>> updates, const float* factor, cudaStream_t stream) {
  Table<G, W> table;
  const auto flush = [&] {
    launch(stream, blocks_of(table.pieces(), 1), kThreads, adamw_kernel<G, W>, table, factor);
    table = {};
  };
  for (const AdamWArrays<G, W>& each : updates) {
    if (table.add(each, each.n)) continue;
    flush();
    (void)table.add(each, each.n);
  }
  flush();
}

#define WEFT_INSTANTIATE(G, W) \
  template void adamw<G, W>(std::span<const AdamWArrays<G, W>>, const float*, cudaStream_t);
WEFT_INSTANTIATE(float, float)
WEFT_INSTANTIATE(float, bfloat16)
WEFT_INSTANTIATE(float, float16)
WEFT_INSTANTIATE(bfloat16, bfloat16)
WEFT_INSTANTIATE(float16, float16)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
