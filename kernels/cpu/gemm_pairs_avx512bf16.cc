// Products of bf16 of our own, for processors with AVX512_BF16: vdpbf16ps adds two products to each
// float of a vector (rounding to nearest, subnormals as zero). A word is such a pair of bf16, which
// follow each other in the summed extent.
//
// Words are taken from panels of 48 columns of b, packed where they are used, and of 48 rows of a,
// unless a's rows are words as they lie. A block of 8 x 48 sums stays in registers, a panel of b in
// the second-level cache while all rows of a pass by it. In between the next panel is packed: the
// multiplication leaves ports, registers and time for it.
//
// Numerical policy: an element's sum runs over k in order, kDepth at a time, whose sums are added
// up in fp32: its bits do not depend on m, n or how the operands lie. bf16 is rounded once.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"

namespace weft::cpu {
namespace {

#include "kernels/cpu/gemm_pairs_packing.h"

constexpr int64_t kDepth = 768;
constexpr int64_t kChunk = 8;  // words

struct alignas(64) Words {
  int32_t pairs[kLanes];
};

inline __m512 load(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }
inline __m512 load(const bfloat16* from, __mmask16 mask) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(float* to, __mmask16 mask, __m512 sums) { _mm512_mask_storeu_ps(to, mask, sums); }
inline void store(bfloat16* to, __mmask16 mask, __m512 sums) {
  const __m256bh narrow = _mm512_cvtneps_pbh(sums);
  _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<const __m256i&>(narrow));
}

inline void store_past_caches(float* to, __m512 sums) { _mm512_stream_ps(to, sums); }
inline void store_past_caches(bfloat16* to, __m512 sums) { store(to, first_lanes(kLanes), sums); }

// Word w of row i of a at data + i * row + w * word (bytes).
struct Left {
  const char* data;
  int64_t row, word;
};

template <typename Out>
struct Target {
  Out* data;
  int64_t stride, columns;  // from one row to the next; that are there
  float factor;
  bool add;             // what is there, and
  const float* so_far;  // these, where there are such
  int64_t so_far_stride;
  bool past_caches;  // the lines, which are whole, are written there
};

struct Nothing {
  void between() {}
};

// out := factor * (a b) + what is to be added, of R rows and 16 V columns, which run over `deep`
// words. side.between() is called after each kChunk of them.
template <int R, int V, typename Out, typename Side>
void block(const Left& a, const int32_t* b, int64_t deep, const Target<Out>& out, Side& side) {
  __mmask16 masks[V];
  for (int j = 0; j < V; ++j) masks[j] = first_lanes(out.columns - j * kLanes);
  __m512 sums[R][V];
  const auto each = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < V; ++j) {
        f(sums[i][j], out.data + i * out.stride + j * kLanes, masks[j], i, j);
      }
    }
  };
  each([&](__m512& sum, Out* to, __mmask16, int, int) {
    sum = _mm512_setzero_ps();
    if (!out.past_caches) __builtin_prefetch(to, 1);
  });
  const char* left = a.data;
  const int64_t row = a.row, word = a.word;
  const auto add_word = [&]() __attribute__((always_inline)) {
    __m512bh right[V];
#pragma GCC unroll 3
    for (int j = 0; j < V; ++j) {
      right[j] = reinterpret_cast<__m512bh>(_mm512_load_si512(b + j * kLanes));
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, left + i * row, sizeof(pair));
      const __m512bh all = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 3
      for (int j = 0; j < V; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], all, right[j]);
    }
    left += word;
    b += kPanel;
  };
  if constexpr (!std::is_same_v<Side, Nothing>) {
    for (; deep >= kChunk; deep -= kChunk) {
#pragma GCC unroll 1
      for (int64_t w = 0; w < kChunk; ++w) add_word();
      side.between();
    }
  }
#pragma GCC unroll 1
  for (; deep > 0; --deep) add_word();
  const __m512 factor = _mm512_set1_ps(out.factor);
  if (out.so_far != nullptr) {
    each([&](__m512& sum, const Out*, __mmask16, int i, int j) {
      const __m512 before = _mm512_load_ps(out.so_far + i * out.so_far_stride + j * kLanes);
      sum = _mm512_fmadd_ps(sum, factor, before);
    });
    if (out.add) {
      each([&](__m512& sum, const Out* to, __mmask16 mask, int, int) {
        sum = _mm512_add_ps(sum, load(to, mask));
      });
    }
  } else if (out.add) {
    each([&](__m512& sum, const Out* to, __mmask16 mask, int, int) {
      sum = _mm512_fmadd_ps(sum, factor, load(to, mask));
    });
  } else {
    each([&](__m512& sum, const Out*, __mmask16, int, int) { sum = _mm512_mul_ps(sum, factor); });
  }
  if (out.past_caches) {
    each([&](__m512& sum, Out* to, __mmask16, int, int) { store_past_caches(to, sum); });
  } else {
    each([&](__m512& sum, Out* to, __mmask16 mask, int, int) { store(to, mask, sum); });
  }
}

template <typename Out>
using Block = void (*)(const Left&, const int32_t*, int64_t, const Target<Out>&, Nothing&);
template <typename Out, size_t... I>
constexpr std::array<Block<Out>, sizeof...(I)> blocks(std::index_sequence<I...>) {
  return {block<I / kVectors + 1, I % kVectors + 1, Out, Nothing>...};
}
// By rows and vectors of columns, each less one.
template <typename Out>
constexpr auto kBlocks = blocks<Out>(std::make_index_sequence<kRows * kVectors>());

// What a thread packs into; grows to what it has needed so far.
struct Rooms {
  std::vector<Words> left, right, sums;
  bool ready = false;  // the next product's first panel is packed, in this half of `right`
  int64_t half = 0;
};
int32_t* room_of(std::vector<Words>& room, int64_t count) {
  const auto lines = static_cast<size_t>((count + kLanes - 1) / kLanes);
  if (room.size() < lines) room.resize(lines);
  return room.data()->pairs;
}

// A product, kDepth of k after each other and of each b's panels; the sums of all but the last stay
// with the thread. kAlong: how panels lie that are packed beside it.
template <bool kAlong, typename Out>
class Multiplication {
 public:
  explicit Multiplication(const Product<bfloat16, Out>& p)
      : p_(p),
        across_((p.n + kPanel - 1) / kPanel),
        count_(across_ * ((p.k + kDepth - 1) / kDepth)),
        deepest_(words(std::min(p.k, kDepth))) {
    Rooms& room = rooms();
    const int64_t panels = (p.m + kPanel - 1) / kPanel;
    if (p.a.transposed || p.k % 2 != 0) left_ = room_of(room.left, panels * kPanel * deepest_);
    right_ = room_of(room.right, 2 * kPanel * deepest_);
    const bool whole = p.k <= kDepth;
    if (!whole) so_far_ = reinterpret_cast<float*>(room_of(room.sums, p.m * across_ * kPanel));
    const uintptr_t lines = reinterpret_cast<uintptr_t>(p.out) | (p.out_stride * sizeof(Out));
    past_caches_ = p.past_caches && whole && !p.accumulate && lines % sizeof(Words) == 0;
  }

  void run() {
    bool packed = std::exchange(rooms().ready, false) && p_.follows;
    first_half_ = packed ? rooms().half : 0;
    for (int64_t i = 0; i < count_; ++i) {
      if (!packed) pack(right_panel(i));
      packed = Packing<kAlong>::can(right_panel(i + 1));
      pass(i, packed);
    }
    rooms().ready = packed;
    rooms().half = (first_half_ + count_) % 2;
    if (past_caches_) _mm_sfence();  // such writes are not ordered with others
  }

 private:
  static Rooms& rooms() {
    thread_local Rooms rooms;
    return rooms;
  }
  struct Part {
    int64_t first, k;  // of the summed extent
    int64_t column;
  };
  Part part(int64_t index) const {
    const int64_t first = index / across_ * kDepth;
    return {first, std::min(kDepth, p_.k - first), index % across_ * kPanel};
  }
  // Those after the last one are the next product's.
  Panel right_panel(int64_t index) const {
    int32_t* const to = right_ + (first_half_ + index) % 2 * kPanel * deepest_;
    if (index >= count_) {
      const bool there = p_.next_n > 0;
      const int64_t column = there ? (index - count_) * kPanel : 0;
      const Matrix<bfloat16> b = (there ? p_.next_b : p_.b).from(0, column);
      return {b.data, b.row_stride, p_.next_n - column, std::min(p_.k, kDepth), b.transposed, to};
    }
    const Part at = part(index);
    return {p_.b.from(at.first, at.column).data,
            p_.b.row_stride,
            p_.n - at.column,
            at.k,
            p_.b.transposed,
            to};
  }
  Panel left_panel(const Part& at, int64_t row) const {
    return {p_.a.from(row, at.first).data, p_.a.row_stride, p_.m - row, at.k, !p_.a.transposed,
            left_ + row * words(at.k)};
  }
  // a's rows are words as they lie.
  bool in_place(const Part& at) const { return !p_.a.transposed && at.k % 2 == 0; }

  // All rows of a by one panel of b, while the next one is packed, if it is to be.
  void pass(int64_t index, bool pack_next) {
    const Part now = part(index);
    const auto begin = [&](const Panel& panel, const bfloat16* then, int64_t rows) {
      packing_.begin(panel, then, rows / kRows * (words(now.k) / kChunk));
    };
    const auto begin_right = [&](int64_t rows) {
      if (pack_next) begin(right_panel(index + 1), right_panel(index + 2).from, rows);
    };
    if (in_place(now) || now.column > 0) {
      begin_right(p_.m);
      rows(now, right_panel(index).to, 0, p_.m);
      return;
    }
    bool packed = false;  // of a, too, each panel while the one before is multiplied
    for (int64_t row = 0; row < p_.m; row += kPanel) {
      const int64_t count = std::min(kPanel, p_.m - row);
      if (!packed) pack(left_panel(now, row));
      const Panel next = left_panel(now, row + kPanel);
      packed = Packing<kAlong>::can(next);
      if (packed) {
        begin(next, left_panel(now, row + 2 * kPanel).from, count);
      } else if (next.count <= 0) {
        begin_right(count);
      }
      rows(now, right_panel(index).to, row, row + count);
    }
  }

  // The rows from `begin` to `end` of a part, by its panel of b: into the sums so far or, of the
  // last part, into the result.
  void rows(const Part& now, const int32_t* right, int64_t begin, int64_t end) {
    const bool first = now.first == 0, last = now.first + now.k == p_.k;
    const int64_t columns = std::min(kPanel, p_.n - now.column), stride = across_ * kPanel;
    for (int64_t row = begin; row < end; row += kRows) {
      const int64_t count = std::min(kRows, end - row);
      float* const sums = so_far_ == nullptr ? nullptr : so_far_ + row * stride + now.column;
      const float* const so_far = first ? nullptr : sums;
      if (last) {
        Out* const out = p_.out + row * p_.out_stride + now.column;
        const bool past_caches = past_caches_ && count == kRows && columns == kPanel;
        multiply<Out>(
            now, right, row, count,
            {out, p_.out_stride, columns, p_.factor, p_.accumulate, so_far, stride, past_caches});
      } else {
        multiply<float>(now, right, row, count,
                        {sums, stride, columns, p_.factor, false, so_far, stride, false});
      }
    }
    packing_.finish();
  }
  template <typename To>
  void multiply(const Part& now, const int32_t* right, int64_t row, int64_t count,
                const Target<To>& target) {
    const int64_t deep = words(now.k);
    if (count == kRows && target.columns > kPanel - kLanes) {
      return block<kRows, kVectors>(left(now, row), right, deep, target, packing_);
    }
    const auto which = static_cast<size_t>((count - 1) * kVectors + (target.columns - 1) / kLanes);
    Nothing nothing;
    kBlocks<To>[which](left(now, row), right, deep, target, nothing);
  }
  Left left(const Part& now, int64_t row) const {
    if (in_place(now)) {
      return {reinterpret_cast<const char*>(p_.a.from(row, now.first).data), p_.a.row_stride * 2,
              4};
    }
    const int32_t* const panel = left_panel(now, row / kPanel * kPanel).to;
    return {reinterpret_cast<const char*>(panel + row % kPanel), 4, kPanel * 4};
  }

  const Product<bfloat16, Out> p_;
  const int64_t across_, count_;  // panels of b, of one part of k and of all
  const int64_t deepest_;         // words of the deepest part
  int64_t first_half_ = 0;        // of the room, that the first panel lies in
  int32_t *left_ = nullptr, *right_ = nullptr;
  float* so_far_ = nullptr;  // where k has several parts: sums, rows of whole panels
  bool past_caches_ = false;
  Packing<kAlong> packing_;
};

template <typename Out>
void multiply_parts(const Product<bfloat16, Out>& p) {
  if (p.b.transposed) {
    Multiplication<true, Out>(p).run();
  } else {
    Multiplication<false, Out>(p).run();
  }
}

}  // namespace

void multiply_pairs(const Product<bfloat16, float>& p) { multiply_parts(p); }
void multiply_pairs(const Product<bfloat16>& p) { multiply_parts(p); }

}  // namespace weft::cpu
