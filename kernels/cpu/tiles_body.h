// The loops of tiles.h. Included once by each tiles_*.cc, inside a namespace of its own, with that
// file's instruction set and WEFT_VECTOR_BYTES; see tiles_products.h for what that forbids.
//
// Numerical policy: exp is a polynomial of degree 6 on [-ln2/2, ln2/2] (relative error below 2e-7)
// and 0 below -87.7; double uses the C library.

#include "kernels/cpu/tiles_products.h"

// NaN in b stays.
template <typename L>
inline typename L::Vec larger(const typename L::Vec& a, const typename L::Vec& b) {
  return a > b ? a : b;
}

inline F32::Vec exp_of(F32, const F32::Vec& x) {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23: its last bits count ones
  const F32::Vec low = F32::Vec{} - 88.03F;
  const F32::Vec c = larger<F32>(low, x);
  const F32::Vec shifted = c * 1.44269504F + kMagic, n = shifted - kMagic;
  const F32::Vec r = c - n * 0.693359375F + n * 2.12194440e-4F;
  F32::Vec p = r * 1.383674202e-3F + 8.374898468e-3F;
  p = p * r + 4.166823181e-2F;
  p = p * r + 0.1666641919F;
  p = p * r + 0.4999999203F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const F32::Int power = (reinterpret_cast<const F32::Int&>(shifted) + 127) << 23;
  return p * reinterpret_cast<const F32::Vec&>(power);
}
inline F64::Vec exp_of(F64, const F64::Vec& x) {
  F64::Vec y = x;
  for (int i = 0; i < F64::kLanes; ++i) y[i] = __builtin_exp(x[i]);
  return y;
}

// (1 - e) / (1 + e) with e = exp(-2 |x|) and the sign of x; a polynomial where that would cancel.
inline F32::Vec tanh_of(F32, const F32::Vec& x) {
  const F32::Vec a = x < 0 ? -x : x, z = x * x;
  F32::Vec p = -5.70498872745e-3F * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const F32::Vec near = p * z * x + x, e = exp_of(F32(), -2 * a);
  const F32::Vec size = (1 - e) / (1 + e), far = x < 0 ? -size : size;
  return a < 0.625F ? near : far;
}
inline F64::Vec tanh_of(F64, const F64::Vec& x) {
  F64::Vec y = x;
  for (int i = 0; i < F64::kLanes; ++i) y[i] = __builtin_tanh(x[i]);
  return y;
}

inline float widened(bfloat16 x) { return __builtin_bit_cast(float, uint32_t{x.bits} << 16); }
inline float widened(float x) { return x; }
inline double widened(double x) { return x; }
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(double x, double* to) { *to = x; }
inline void narrow(float x, bfloat16* to) {
  const uint32_t word = __builtin_bit_cast(uint32_t, x);
  const uint32_t nearest = (word + 0x7FFFU + (word >> 16 & 1U)) >> 16;
  const bool nan = (word & 0x7FFFFFFFU) > 0x7F800000U;
  to->bits = static_cast<uint16_t>(nan ? word >> 16 | 0x40U : nearest);
}

// ---- packing ----

// Whether the left side is taken from a copy where the tensor's rows are apart (heads of a joint
// projection): they share few sets of the first-level cache, which loses them between two stripes.
constexpr bool kGathers = kColumns < 4;

template <typename L, typename In>
Operand by_feature(TileRows<const In> x, int64_t count, int64_t features, void* scratch) {
  using Word = typename L::Word;
  if (__is_same(In, Word) && (!kGathers || x.stride == features)) {
    const int64_t stride = x.stride * static_cast<int64_t>(sizeof(In));
    return {x.data, stride, stride};
  }
  Word* to = static_cast<Word*>(scratch);
  for (int64_t i = 0; i < count; ++i) {
    const In* from = x.data + i * x.stride;
#pragma omp simd
    for (int64_t d = 0; d < features; ++d) to[i * features + d] = widened(from[d]);
  }
  const int64_t stride = features * static_cast<int64_t>(sizeof(Word));
  return {scratch, stride, stride};
}

// Transposes kLanes rows of kLanes in rounds that exchange blocks of kHalf, then kHalf / 2, ...
template <typename L, int kHalf, int... kIndex>
__attribute__((always_inline)) inline void exchange(typename L::Vec* rows,
                                                    std::integer_sequence<int, kIndex...> lanes) {
  using Int = typename L::Int;
  const Int low = {((kIndex & kHalf) == 0 ? kIndex : L::kLanes + kIndex - kHalf)...};
  const Int high = {((kIndex & kHalf) == 0 ? kIndex + kHalf : L::kLanes + kIndex)...};
#pragma GCC unroll 16
  for (int i = 0; i < L::kLanes; ++i) {
    if ((i & kHalf) != 0) continue;
    const typename L::Vec a = rows[i], b = rows[i + kHalf];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + kHalf] = __builtin_shuffle(a, b, high);
  }
  if constexpr (kHalf > 1) exchange<L, kHalf / 2>(rows, lanes);
}
template <typename L>
__attribute__((always_inline)) inline void transpose_block(typename L::Vec* rows) {
  exchange<L, L::kLanes / 2>(rows, std::make_integer_sequence<int, L::kLanes>());
}

// Up to kLanes elements, then zeros.
template <typename L, typename In>
inline typename L::Vec load_some(const In* from, int64_t count) {
  using Scalar = typename L::Scalar;
  if constexpr (__is_same(In, Scalar)) {
    if (count >= L::kLanes) return load<L>(from);
  }
  Scalar values[L::kLanes] = {};
  if (count >= L::kLanes) {
    for (int i = 0; i < L::kLanes; ++i) values[i] = widened(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) values[i] = widened(from[i]);
  }
  return load<L>(values);
}
template <typename L, typename Out>
inline void store_some(Out* to, const typename L::Vec& value, int64_t count) {
  if constexpr (__is_same(Out, typename L::Scalar)) {
    if (count >= L::kLanes) return store<L>(to, value);
  }
  typename L::Scalar values[L::kLanes];
  store<L>(values, value);
  if (count >= L::kLanes) {
    for (int i = 0; i < L::kLanes; ++i) narrow(values[i], to + i);
  } else {
    for (int64_t i = 0; i < count; ++i) narrow(values[i], to + i);
  }
}

// to[c * to_stride + q] := x[q, c] for kTileLanes q, zero from count on; load_row(q, c) gives
// kLanes of a row.
template <typename L, typename LoadRow>
__attribute__((always_inline)) inline void to_lanes(int64_t count, int64_t columns,
                                                    typename L::Scalar* to, int64_t to_stride,
                                                    const LoadRow& load_row) {
  for (int64_t q = 0; q < kTileLanes; q += L::kLanes) {
    for (int64_t c = 0; c < columns; c += L::kLanes) {
      typename L::Vec rows[L::kLanes];
      typename L::Scalar* at = to + c * to_stride + q;
      const int64_t valid = count - q, wide = columns - c;
      if (valid >= L::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < L::kLanes; ++i) rows[i] = load_row(q + i, c);
      } else {
        for (int i = 0; i < L::kLanes; ++i) {
          rows[i] = i < valid ? load_row(q + i, c) : typename L::Vec{};
        }
      }
      transpose_block<L>(rows);
      if (wide >= L::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < L::kLanes; ++i) store<L>(at + i * to_stride, rows[i]);
      } else {
        for (int i = 0; i < wide; ++i) store<L>(at + i * to_stride, rows[i]);
      }
    }
  }
}

template <typename L, typename In>
void transpose(TileRows<const In> x, int64_t count, int64_t columns, typename L::Scalar* to,
               int64_t to_stride) {
  to_lanes<L>(count, columns, to, to_stride, [&](int64_t q, int64_t c) {
    return load_some<L>(x.data + q * x.stride + c, columns - c);
  });
}
template <typename L, typename In>
void pack_lanes(TileRows<const In> x, int64_t count, int64_t features, void* to) {
  transpose<L>(x, count, features, static_cast<typename L::Scalar*>(to), kTileLanes);
}

template <typename L, typename In>
void pack_rows(TileRows<const In> x, int64_t count, int64_t features, int64_t width, void* to) {
  typename L::Word* at = static_cast<typename L::Word*>(to);
  for (int64_t q = 0; q < kTileLanes; ++q, at += width) {
    const In* from = x.data + q * x.stride;
    const int64_t valid = q < count ? features : 0;
#pragma omp simd
    for (int64_t d = 0; d < valid; ++d) at[d] = widened(from[d]);
    for (int64_t d = valid; d < width; ++d) at[d] = 0;
  }
}

template <typename L, typename Out>
void store_lanes(const typename L::Scalar* x, int64_t count, int64_t features,
                 const typename L::Scalar* factor, TileRows<Out> y) {
  for (int64_t q = 0; q < count; q += L::kLanes) {
    for (int64_t d = 0; d < features; d += L::kLanes) {
      typename L::Vec rows[L::kLanes];
      const int64_t wide = features - d, valid = count - q;
      const typename L::Scalar* from = x + d * kTileLanes + q;
      Out* to = y.data + q * y.stride + d;
      if (wide >= L::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < L::kLanes; ++i) rows[i] = load<L>(from + i * kTileLanes);
      } else {
        for (int i = 0; i < L::kLanes; ++i) {
          rows[i] = i < wide ? load<L>(from + i * kTileLanes) : typename L::Vec{};
        }
      }
      transpose_block<L>(rows);
      if (wide >= L::kLanes && valid >= L::kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < L::kLanes; ++i) {
          store_some<L>(to + i * y.stride, rows[i] * factor[q + i], L::kLanes);
        }
      } else {
        for (int i = 0; i < L::kLanes && i < valid; ++i) {
          store_some<L>(to + i * y.stride, rows[i] * factor[q + i], wide);
        }
      }
    }
  }
}

template <typename L, typename Out>
void store_rows(const typename L::Scalar* x, int64_t count, int64_t features, int64_t width,
                typename L::Scalar factor, TileRows<Out> y) {
  for (int64_t r = 0; r < count; ++r) {
    const typename L::Scalar* from = x + r * width;
    Out* to = y.data + r * y.stride;
#pragma omp simd
    for (int64_t d = 0; d < features; ++d) narrow(from[d] * factor, to + d);
  }
}

template <typename L, typename In>
void dots(TileRows<const In> a, TileRows<const In> b, int64_t count, int64_t features,
          typename L::Scalar* to) {
  for (int64_t r = 0; r < count; ++r) {
    const In *left = a.data + r * a.stride, *right = b.data + r * b.stride;
    typename L::Scalar total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t d = 0; d < features; ++d) total += widened(left[d]) * widened(right[d]);
    to[r] = total;
  }
}

// ---- scores ----

// row(j, first, past, entry): queries [first, past) of the tile, which stand one behind the other,
// meet key j at `entry` of the table and those after it.
template <typename Row>
__attribute__((always_inline)) inline void by_distance(int64_t keys, const DistanceTerms& terms,
                                                       const Row& row) {
  const int32_t reach = terms.reach, before = reach + static_cast<int32_t>(kTileLanes) - 1;
  for (int64_t first = 0, past = 1; first < terms.queries; first = past++) {
    const int32_t* own = terms.query_position + first;
    while (past < terms.queries && own[past - first] == own[0] + past - first) ++past;
    for (int64_t j = 0; j < keys; ++j) {
      const int32_t behind = own[0] - terms.key_position[j];
      row(j, first, past, before + (behind < -before ? -before : behind > reach ? reach : behind));
    }
  }
}

template <typename L>
void sum_distances(int64_t keys, const DistanceTerms& terms, const typename L::Scalar* d_scores,
                   typename L::Scalar* sums) {
  by_distance(keys, terms, [=](int64_t j, int64_t first, int64_t past, int64_t entry) {
    const typename L::Scalar* from = d_scores + j * kTileLanes + first;
#pragma omp simd
    for (int64_t q = 0; q < past - first; ++q) sums[entry + q] += from[q];
  });
}

template <typename L>
void adjust(int64_t keys, const ScoreTerms<typename L::Scalar>& terms, typename L::Scalar* scores,
            typename L::Scalar* slope) {
  using Vec = typename L::Vec;
  using Scalar = typename L::Scalar;
  if (terms.cap > 0) {
    const Scalar inverse = 1 / terms.cap;
    for (int64_t i = 0; i < keys * kTileLanes; i += L::kLanes) {
      const Vec t = tanh_of(L(), load<L>(scores + i) * inverse);
      store<L>(scores + i, t * terms.cap);
      if (slope != nullptr) store<L>(slope + i, 1 - t * t);
    }
  }
  for (int64_t j = 0; j < keys && terms.alibi_slope != 0; ++j) {
    const int32_t at = terms.key_position[j];
    Scalar* row = scores + j * kTileLanes;
#pragma omp simd
    for (int64_t q = 0; q < kTileLanes; ++q) {
      const int32_t apart = at - terms.query_position[q];
      row[q] -= terms.alibi_slope * static_cast<Scalar>(apart < 0 ? -apart : apart);
    }
  }
  if (terms.distance_bias != nullptr) {
    const Scalar* table = terms.distance_bias;
    by_distance(keys, terms.distances, [=](int64_t j, int64_t first, int64_t past, int64_t entry) {
      Scalar* row = scores + j * kTileLanes + first;
#pragma omp simd
      for (int64_t q = 0; q < past - first; ++q) row[q] += table[entry + q];
    });
  }
  if (terms.bias != nullptr) {
    constexpr Scalar kHidden = -static_cast<Scalar>(__builtin_inff());
#pragma omp simd
    for (int64_t i = 0; i < keys * kTileLanes; ++i) {
      const Scalar score = scores[i] + terms.bias[i];
      const bool low = score < terms.least && score > kHidden;
      scores[i] = low ? terms.least : score;
    }
  }
}

template <typename L>
void hide(int64_t keys, const HideTerms& terms, typename L::Scalar* scores) {
  using Scalar = typename L::Scalar;
  constexpr Scalar kHidden = -static_cast<Scalar>(__builtin_inff());
  for (int64_t j = 0; j < keys; ++j) {
    Scalar* row = scores + j * kTileLanes;
    if (terms.valid != nullptr && terms.valid[j] == 0) {
      for (int64_t q = 0; q < kTileLanes; ++q) row[q] = kHidden;
      continue;
    }
    if (terms.query_position != nullptr) {
      const int32_t first = terms.key_position[j] - terms.right;
      const int32_t last = terms.key_position[j] + terms.left;
#pragma omp simd
      for (int64_t q = 0; q < kTileLanes; ++q) {
        const int32_t own = terms.query_position[q];
        row[q] = own < first ? kHidden : row[q];
        row[q] = own > last ? kHidden : row[q];
      }
    }
    if (terms.query_document != nullptr) {
      const int32_t document = terms.key_document[j];
#pragma omp simd
      for (int64_t q = 0; q < kTileLanes; ++q) {
        row[q] = terms.query_document[q] == document ? row[q] : kHidden;
      }
    }
  }
}

// The part of soften for the vector at lane `lane`; keep_weight(j, weight) stores it.
template <typename L, typename KeepWeight>
__attribute__((always_inline)) inline void soften_lane(
    int64_t lane, int64_t keys, const typename L::Scalar* scores, const typename L::Scalar* keep,
    typename L::Scalar* largest, typename L::Scalar* total, typename L::Scalar* shrink,
    const KeepWeight& keep_weight) {
  using Vec = typename L::Vec;
  const Vec nothing = Vec{} - static_cast<typename L::Scalar>(__builtin_inff());
  const Vec before = load<L>(largest + lane);
  Vec now = before;
  for (int64_t j = 0; j < keys; ++j) now = larger<L>(now, load<L>(scores + j * kTileLanes + lane));
  const Vec shift = now == nothing ? Vec{} : now, factor = exp_of(L(), before - shift);
  Vec sum = load<L>(total + lane) * factor;
  for (int64_t j = 0; j < keys; ++j) {
    const Vec weight = exp_of(L(), load<L>(scores + j * kTileLanes + lane) - shift);
    sum += weight;
    keep_weight(j, keep == nullptr ? weight : weight * load<L>(keep + j * kTileLanes + lane));
  }
  store<L>(largest + lane, now);
  store<L>(total + lane, sum);
  store<L>(shrink + lane, factor);
}

template <typename L>
void soften(int64_t keys, const typename L::Scalar* scores, const typename L::Scalar* keep,
            void* weights, typename L::Scalar* largest, typename L::Scalar* total,
            typename L::Scalar* shrink) {
  typename L::Scalar* to = static_cast<typename L::Scalar*>(weights);
  for (int64_t lane = 0; lane < kTileLanes; lane += L::kLanes) {
    soften_lane<L>(lane, keys, scores, keep, largest, total, shrink,
                   [to, lane](int64_t j, const typename L::Vec& weight) {
                     store<L>(to + j * kTileLanes + lane, weight);
                   });
  }
}

template <typename L>
struct Gradient {
  typename L::Vec weight, d_score;
};
template <typename L>
__attribute__((always_inline)) inline Gradient<L> gradient_at(
    int64_t at, int64_t lane, const GradientTerms<typename L::Scalar>& terms) {
  using Vec = typename L::Vec;
  const Vec p = exp_of(L(), load<L>(terms.scores + at) - load<L>(terms.log_sum_exp + lane));
  Vec weight = p, d_weight = load<L>(terms.d_weights + at);
  if (terms.keep != nullptr) {
    const Vec keep = load<L>(terms.keep + at);
    weight = p * keep;
    d_weight = d_weight * keep;
  }
  Vec d_score = p * (d_weight - load<L>(terms.delta + lane));
  if (terms.slope != nullptr) d_score = d_score * load<L>(terms.slope + at);
  return {weight, d_score};
}

template <typename L>
void gradient(int64_t keys, const GradientTerms<typename L::Scalar>& terms, void* weights,
              void* d_scores, void*) {
  typename L::Scalar* to = static_cast<typename L::Scalar*>(weights);
  typename L::Scalar* d_to = static_cast<typename L::Scalar*>(d_scores);
  for (int64_t at = 0; at < keys * kTileLanes; at += L::kLanes) {
    const Gradient<L> g = gradient_at<L>(at, at % kTileLanes, terms);
    store<L>(to + at, g.weight);
    store<L>(d_to + at, g.d_score);
  }
}

template <typename L>
void gradient_only(int64_t keys, const GradientTerms<typename L::Scalar>& terms,
                   typename L::Scalar* d_scores) {
  for (int64_t at = 0; at < keys * kTileLanes; at += L::kLanes) {
    store<L>(d_scores + at, gradient_at<L>(at, at % kTileLanes, terms).d_score);
  }
}

// What every table of element In shares; the rest is its products, packing and words.
template <typename L, typename In>
constexpr TileKernels<In> table() {
  TileKernels<In> k{};
  k.step = 1;
  k.word_bytes = sizeof(typename L::Word);
  k.copies = kGathers || !__is_same(In, typename L::Word);
  k.by_feature = by_feature<L, In>;
  k.by_row = by_feature<L, In>;
  k.pack_lanes = pack_lanes<L, In>;
  k.pack_rows = pack_rows<L, In>;
  k.scores = scores<L, 1>;
  k.collect = collect<L, 1>;
  k.spread = spread<L, 1>;
  k.adjust = adjust<L>;
  k.hide = hide<L>;
  k.soften = soften<L>;
  k.gradient = gradient<L>;
  k.gradient_only = gradient_only<L>;
  k.sum_distances = sum_distances<L>;
  k.store_lanes = store_lanes<L, In>;
  k.store_lanes_wide = store_lanes<L, typename L::Scalar>;
  k.store_rows = store_rows<L, In>;
  k.store_rows_wide = store_rows<L, typename L::Scalar>;
  k.transpose = transpose<L, typename L::Scalar>;
  k.dots = dots<L, In>;
  return k;
}
