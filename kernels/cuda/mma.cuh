// Products of tiles in shared memory by the tensor cores, one warp for 16 rows of the left one.
// Tiles are row-major with `pitch` elements a row, an odd multiple of 16 bytes, so that eight rows
// lie in different banks. `Left` is 16 rows by kDepth, `Right` kDepth by 16 columns in two tiles of
// 8; sums are m16n8 accumulators (ptx.cuh).
//
// Half-width: one product. Float: x = high + low, both of 10 bits of fraction, and high high +
// high low + low high, which leaves out 2^-22 of the product. Its k runs in the order 0, 2, 4, 6,
// 1, 3, 5, 7, on both sides, so that accumulators are a left operand as they lie.
#pragma once

#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {

template <typename T>
struct Mma {
  static constexpr int kDepth = 16;
  struct Left {
    uint32_t word[4];
  };
  struct Right {
    uint32_t word[2][2];
  };

  // Rows 0 to 15 at `rows`, from `column` on.
  __device__ static Left left(const T* rows, int pitch, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    Left a;
    load_matrices(a.word, rows + lane % 16 * pitch + column + lane / 16 * 8);
    return a;
  }
  // Columns kDepth * step on of accumulators.
  template <int kTiles>
  __device__ static Left left_of(const float (&sums)[kTiles][4], int step) {
    const float(&low)[4] = sums[2 * step], (&high)[4] = sums[2 * step + 1];
    return {{narrow_pair<T>(low[0], low[1]), narrow_pair<T>(low[2], low[3]),
             narrow_pair<T>(high[0], high[1]), narrow_pair<T>(high[2], high[3])}};
  }
  // The transposed of the 16 rows at `rows`, from `column` on.
  __device__ static Right right_transposed(const T* rows, int pitch, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    uint32_t r[4];
    load_matrices(r, rows + (lane / 16 * 8 + lane % 8) * pitch + column + lane / 8 % 2 * 8);
    return {{{r[0], r[1]}, {r[2], r[3]}}};
  }
  // kDepth rows at `rows`, 16 columns from `column` on.
  __device__ static Right right(const T* rows, int pitch, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    uint32_t r[4];
    load_matrices_transposed(r, rows + lane % 16 * pitch + column + lane / 16 * 8);
    return {{{r[0], r[1]}, {r[2], r[3]}}};
  }
  __device__ static void multiply(float (&first)[4], float (&second)[4], const Left& a,
                                  const Right& b) {
    multiply_add<T>(first, a.word, b.word[0]);
    multiply_add<T>(second, a.word, b.word[1]);
  }
};

template <>
struct Mma<float> {
  static constexpr int kDepth = 8;
  struct Left {
    uint32_t high[4], low[4];
  };
  struct Right {
    uint32_t high[2][2], low[2][2];
  };

  __device__ static void split(float value, uint32_t& high, uint32_t& low) {
    high = narrow_tf32(value);
    low = narrow_tf32(value - float_of_bits(high));
  }
  __device__ static Left left_from(float a, float b, float c, float d) {
    Left result;
    split(a, result.high[0], result.low[0]);
    split(b, result.high[1], result.low[1]);
    split(c, result.high[2], result.low[2]);
    split(d, result.high[3], result.low[3]);
    return result;
  }
  __device__ static Left left(const float* rows, int pitch, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float* at = rows + lane / 4 * pitch + column + 2 * (lane % 4);
    return left_from(at[0], at[8 * pitch], at[1], at[8 * pitch + 1]);
  }
  template <int kTiles>
  __device__ static Left left_of(const float (&sums)[kTiles][4], int step) {
    const float(&tile)[4] = sums[step];
    return left_from(tile[0], tile[2], tile[1], tile[3]);
  }
  __device__ static Right right_transposed(const float* rows, int pitch, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    Right b;
    WEFT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float* at = rows + (8 * i + lane / 4) * pitch + column + 2 * (lane % 4);
      split(at[0], b.high[i][0], b.low[i][0]);
      split(at[1], b.high[i][1], b.low[i][1]);
    }
    return b;
  }
  __device__ static Right right(const float* rows, int pitch, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    Right b;
    WEFT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float* at = rows + 2 * (lane % 4) * pitch + column + 8 * i + lane / 4;
      split(at[0], b.high[i][0], b.low[i][0]);
      split(at[pitch], b.high[i][1], b.low[i][1]);
    }
    return b;
  }
  __device__ static void multiply(float (&first)[4], float (&second)[4], const Left& a,
                                  const Right& b) {
    multiply_add_tf32(first, a.low, b.high[0]);
    multiply_add_tf32(first, a.high, b.low[0]);
    multiply_add_tf32(first, a.high, b.high[0]);
    multiply_add_tf32(second, a.low, b.high[1]);
    multiply_add_tf32(second, a.high, b.low[1]);
    multiply_add_tf32(second, a.high, b.high[1]);
  }
};

// sums [16, 8 kTiles] += a b^T over kWidth columns; a has 16 rows, b 8 kTiles.
template <int kWidth, typename T, int kTiles>
__device__ void add_product_transposed(float (&sums)[kTiles][4], const T* a, const T* b,
                                       int pitch) {
  WEFT_UNROLL_FOUR
  for (int column = 0; column < kWidth; column += Mma<T>::kDepth) {
    const typename Mma<T>::Left left = Mma<T>::left(a, pitch, column);
    WEFT_UNROLL
    for (int tile = 0; tile < kTiles; tile += 2) {
      Mma<T>::multiply(sums[tile], sums[tile + 1], left,
                       Mma<T>::right_transposed(b + 8 * tile * pitch, pitch, column));
    }
  }
}

// sums [16, 8 kTiles] += a b with a [16, 8 kInner] in accumulators, rounded to T, and b [8 kInner,
// 8 kTiles].
template <typename T, int kTiles, int kInner>
__device__ void add_product(float (&sums)[kTiles][4], const float (&a)[kInner][4], const T* b,
                            int pitch) {
  constexpr int kDepth = Mma<T>::kDepth;
  WEFT_UNROLL
  for (int step = 0; step < 8 * kInner / kDepth; ++step) {
    const typename Mma<T>::Left left = Mma<T>::left_of(a, step);
    WEFT_UNROLL
    for (int tile = 0; tile < kTiles; tile += 2) {
      Mma<T>::multiply(sums[tile], sums[tile + 1], left,
                       Mma<T>::right(b + step * kDepth * pitch, pitch, 8 * tile));
    }
  }
}

}  // namespace weft::cuda
