// What the forward kernels of attention do with a tile of products in accumulators (ptx.cuh): the
// softmax's running maximum and sum, and what is stored in the end. Internal to them.
#pragma once

#include "kernels/cuda/attention_tile.cuh"

namespace weft::cuda {

template <typename T>
struct ForwardResults {
  AttentionResult<T> out;
  float* log_sum_exp;
};

// What a thread keeps of its rows g and g + 8.
struct RunningRows {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0F, 0.0F};  // of this thread's columns
};

// Turns products into weights relative to the running maximum. first: the thread's first query and
// the tile's first key; keep: what all that was summed so far shrinks by. kPlain: a score is a
// product times a scale above 0, no weight is dropped, and there are no calls of functions.
template <typename T, bool kPlain, int kTiles>
__device__ void softmax_step(const Attention& a, const ScorePlace& first, bool masked,
                             float (&scores)[kTiles][4], RunningRows& rows, float (&keep)[2]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const float scale = kPlain ? a.scale_log2 : 1.0F;
  ScorePlace at = first;
  if (kPlain && masked) {
    at.key += 2 * (lane % 4);
    hide<false>(a, at, scores);
  }
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    at.query = first.query + 8 * half;
    float largest = -INFINITY;
    WEFT_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      at.key = first.key + i / 2 * 8 + 2 * (lane % 4) + i % 2;
      if (!kPlain) score = score_of<T>(a, at, score).value;
      if (!kPlain && masked && !is_visible(a, at)) score = -INFINITY;
      largest = fmaxf(largest, score);
    }
    largest = fmaxf(rows.largest[half], max_of_quad(largest) * scale);
    const float base = largest == -INFINITY ? 0.0F : largest;
    keep[half] = exp2_fast(rows.largest[half] - base);
    rows.largest[half] = largest;
    rows.total[half] *= keep[half];
    WEFT_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = exp2_fast(kPlain ? fmaf(score, scale, -base) : score - base);
      rows.total[half] += score;
      if (kPlain || !a.drops) continue;
      at.key = first.key + i / 2 * 8 + 2 * (lane % 4) + i % 2;
      score *= drop_factor(a, at);
    }
  }
}

template <int kTiles>
__device__ void shrink(float (&out)[kTiles][4], const float (&keep)[2]) {
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    WEFT_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      out[tile][2 * half] *= keep[half];
      out[tile][2 * half + 1] *= keep[half];
    }
  }
}

// The sink of a head joins the sum of a row as a score that no value belongs to.
template <typename T>
__device__ void add_sink(const void* sinks, int64_t head, float& largest, float& total,
                         float& grown) {
  const float sink = widen(static_cast<const T*>(sinks)[head]) * kLog2e;
  const float now = fmaxf(largest, sink);
  if (now == -INFINITY) return;
  grown = exp2f(largest - now);
  total = total * grown + exp2f(sink - now);
  largest = now;
}

// first: the first query of the warp.
template <int kTiles, typename T>
__device__ void finish(const Attention& a, const ForwardResults<T>& to, const ScorePlace& first,
                       const RunningRows& rows, const float (&out)[kTiles][4]) {
  const AttentionShape& shape = a.shape;
  const int lane = static_cast<int>(threadIdx.x % 32);
  float factor[2];
  WEFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    float total = sum_of_quad(rows.total[half]), largest = rows.largest[half], grown = 1.0F;
    if (a.rules.sinks != nullptr) add_sink<T>(a.rules.sinks, first.head, largest, total, grown);
    factor[half] = total > 0.0F ? grown / total : 0.0F;
    const int64_t query = first.query + lane / 4 + 8 * half;
    if (lane % 4 != 0 || query >= shape.queries) continue;
    const int64_t at = (first.row * shape.heads + first.head) * shape.queries + query;
    to.log_sum_exp[at] = total > 0.0F ? largest * kLn2 + logf(total) : -INFINITY;
  }
  store_rows(out, factor, to.out, first.row, first.head, first.query, shape.queries,
             shape.value_width);
}

}  // namespace weft::cuda
