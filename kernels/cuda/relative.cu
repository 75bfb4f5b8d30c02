// Scores by distance and segment (kernels/attention/relative.h) around their products: these
// shifted into their places, and gradients gathered by distance. Numerical policy: fp32, one
// rounding on the way out; a query's sums over features and keys are a warp's, a head's over
// queries those of eight warps, added in their order, so that the bits are the same every time,
// whatever else is in the call.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kOtherSegment = 1, kSegmentKinds = 2;

// The query `at` of those of the pairs.
struct RelativeQuery {
  int64_t row, head;
  int64_t index;        // among all queries of all rows and heads
  int64_t of_row;       // among those of all rows
  int64_t first;        // its distance to its first key
  bool stands = false;  // at a key's token
};
__device__ RelativeQuery relative_query(const RelativePairs& p, int64_t at) {
  const int64_t pair = p.first + at / p.queries, query = at % p.queries;
  RelativeQuery q{};
  q.row = pair / p.heads;
  q.head = pair % p.heads;
  q.index = pair * p.queries + query;
  q.of_row = q.row * p.queries + query;
  const int64_t place = p.places == nullptr ? 0 : p.places[q.of_row];
  q.first = p.places == nullptr ? p.queries - 1 - query : p.keys - 1 - place;
  q.stands = place >= 0 && place < p.keys;
  return q;
}

// A warp a query.
template <typename T>
__global__ void relative_scores_kernel(RelativePairs p, RelativeSegments<T> segments,
                                       const float* products, T* scores) {
  const int64_t n = p.count * p.queries, warps = elements_of_grid() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t at = first_element() / kWarp; at < n; at += warps) {
    const RelativeQuery query = relative_query(p, at);
    float terms[kSegmentKinds] = {};
    int64_t own = 0;
    const int64_t* others = nullptr;
    if (segments.vectors != nullptr) {
      own = segments.of_queries[query.of_row];
      others = segments.of_keys + query.row * p.keys;
      WEFT_UNROLL
      for (int kind = 0; kind < kSegmentKinds; ++kind) {
        for (int64_t d = lane; d < p.features; d += kWarp) {
          terms[kind] += (widen(segments.q[query.index * p.features + d]) +
                          widen(segments.bias[query.head * p.features + d])) *
                         widen(segments.vectors[(kind * p.heads + query.head) * p.features + d]);
        }
        terms[kind] = warp_reduce<Add>(terms[kind]);
      }
    }
    const float* from = products + at * p.width + query.first;
    T* to = scores + query.index * p.keys;
    for (int64_t key = lane; key < p.keys; key += kWarp) {
      float score = query.stands ? from[key] : NAN;
      if (others != nullptr) score += others[key] == own ? terms[0] : terms[kOtherSegment];
      to[key] = narrow<T>(p.scale * score);
    }
  }
}

// A warp a query.
template <typename T>
__global__ void relative_by_distance_kernel(RelativePairs p, RelativeSegments<T> segments,
                                            const T* dscores, T* by_distance, float* sums) {
  const int64_t n = p.count * p.queries, warps = elements_of_grid() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t at = first_element() / kWarp; at < n; at += warps) {
    const RelativeQuery query = relative_query(p, at);
    const T* from = dscores + query.index * p.keys;
    T* to = by_distance + at * p.width;
    for (int64_t distance = lane; distance < p.width; distance += kWarp) {
      const int64_t key = distance - query.first;
      const bool has = query.stands && key >= 0 && key < p.keys;
      to[distance] = has ? from[key] : narrow<T>(0.0F);
    }
    if (segments.vectors == nullptr) continue;
    const int64_t own = segments.of_queries[query.of_row];
    const int64_t* others = segments.of_keys + query.row * p.keys;
    float same = 0.0F, other = 0.0F;
    for (int64_t key = lane; key < p.keys; key += kWarp) {
      const float d = widen(from[key]);
      if (others[key] == own) {
        same += d;
      } else {
        other += d;
      }
    }
    same = warp_reduce<Add>(same);
    other = warp_reduce<Add>(other);
    if (lane == 0) {
      sums[at * kSegmentKinds] = same;
      sums[at * kSegmentKinds + kOtherSegment] = other;
    }
  }
}

// A block a pair and so many features as a warp has lanes; its warps take the queries in turn.
template <typename T>
__global__ void relative_queries_kernel(RelativePairs p, RelativeSegments<T> segments,
                                        const float* products, const float* sums, T* dq,
                                        RelativeVectors out) {
  float* partials = shared_memory<float>();  // [kinds of sums, kWarps, kWarp]
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t pair = blockIdx.x, d = static_cast<int64_t>(blockIdx.y) * kWarp + lane;
  const int64_t head = (p.first + pair) % p.heads;
  const bool segmented = segments.vectors != nullptr, has = d < p.features;
  float g[kSegmentKinds] = {}, bias = 0.0F;
  if (segmented && has) {
    bias = widen(segments.bias[head * p.features + d]);
    WEFT_UNROLL
    for (int kind = 0; kind < kSegmentKinds; ++kind) {
      g[kind] = widen(segments.vectors[(kind * p.heads + head) * p.features + d]);
    }
  }
  float position = 0.0F, segment = 0.0F, vectors[kSegmentKinds] = {};
  for (int64_t query = warp; query < p.queries && has; query += kWarps) {
    const int64_t at = pair * p.queries + query;
    const int64_t to = ((p.first + pair) * p.queries + query) * p.features + d;
    const float by_distance = products[at * p.product_features + d];
    float by_segment = 0.0F;
    if (segmented) {
      const float moved = widen(segments.q[to]) + bias;
      WEFT_UNROLL
      for (int kind = 0; kind < kSegmentKinds; ++kind) {
        const float sum = sums[at * kSegmentKinds + kind];
        by_segment += sum * g[kind];
        vectors[kind] += sum * moved;
      }
    }
    dq[to] = narrow<T>(p.scale * (by_distance + by_segment));
    position += by_distance;
    segment += by_segment;
  }
  const float own[] = {position, segment, vectors[0], vectors[kOtherSegment]};
  constexpr int kKinds = sizeof own / sizeof *own;
  WEFT_UNROLL
  for (int kind = 0; kind < kKinds; ++kind) {
    partials[(kind * kWarps + warp) * kWarp + lane] = own[kind];
  }
  __syncthreads();
  if (warp >= (segmented ? kKinds : 1) || !has) return;
  float total = 0.0F;
  for (int of = 0; of < kWarps; ++of) total += partials[(warp * kWarps + of) * kWarp + lane];
  total *= p.scale;
  const int64_t all = p.first + pair;
  if (warp == 0) out.position[all * p.features + d] = total;
  if (warp == 1) out.segment[all * p.features + d] = total;
  if (warp > 1) out.segments[(all * kSegmentKinds + warp - 2) * p.features + d] = total;
}

}  // namespace

template <typename T>
void relative_scores(const RelativePairs& pairs, const RelativeSegments<T>& segments,
                     const float* products, T* scores, cudaStream_t stream) {
  launch(stream, blocks_of(pairs.count * pairs.queries, kWarps), kThreads,
         relative_scores_kernel<T>, pairs, segments, products, scores);
}
template <typename T>
void relative_by_distance(const RelativePairs& pairs, const RelativeSegments<T>& segments,
                          const T* dscores, T* by_distance, float* sums, cudaStream_t stream) {
  launch(stream, blocks_of(pairs.count * pairs.queries, kWarps), kThreads,
         relative_by_distance_kernel<T>, pairs, segments, dscores, by_distance, sums);
}
template <typename T>
void relative_queries(const RelativePairs& pairs, const RelativeSegments<T>& segments,
                      const float* products, const float* sums, T* dq, const RelativeVectors& out,
                      cudaStream_t stream) {
  constexpr size_t kSumBytes = size_t{4} * kThreads * sizeof(float);
  const dim3 grid(static_cast<unsigned>(pairs.count),
                  static_cast<unsigned>((pairs.features + kWarp - 1) / kWarp));
  launch_shared(stream, grid, kThreads, kSumBytes, relative_queries_kernel<T>, pairs, segments,
                products, sums, dq, out);
}

#define WEFT_INSTANTIATE(T)                                                                        \
  template void relative_scores<T>(const RelativePairs&, const RelativeSegments<T>&, const float*, \
                                   T*, cudaStream_t);                                              \
  template void relative_by_distance<T>(const RelativePairs&, const RelativeSegments<T>&,          \
                                        const T*, T*, float*, cudaStream_t);                       \
  template void relative_queries<T>(const RelativePairs&, const RelativeSegments<T>&,              \
                                    const float*, const float*, T*, const RelativeVectors&,        \
                                    cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
