// Products of bf16 of our own, for processors with AVX512_BF16: vdpbf16ps adds two products to each
// float of a vector (rounding to nearest, subnormals as zero). A word is such a pair of bf16, which
// follow each other in the summed extent.
//
// Words are taken from panels of 48 columns of b, packed where they are used, and of 48 rows of a,
// unless a's rows are words as they lie. A block of 8 x 48 sums stays in registers, a panel of b in
// the second-level cache while all rows of a pass by it and what the next one is packed from comes.
//
// Numerical policy: an element's sum runs over k in order, kDepth at a time, whose sums are added
// up in fp32: its bits do not depend on m, n or how the operands lie. bf16 is rounded once.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"

namespace weft::cpu {
namespace {

constexpr int64_t kLanes = 16, kRows = 8, kVectors = 3, kPanel = kLanes * kVectors;
constexpr int64_t kDepth = 768;

struct alignas(64) Words {
  int32_t pairs[kLanes];
};
constexpr int64_t words(int64_t k) { return (k + 1) / 2; }

constexpr uint32_t first_of(int64_t count) {
  return count >= 32 ? ~0U : (1U << std::max<int64_t>(0, count)) - 1;
}
constexpr __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>(first_of(count)); }

// Packing: panel[w * kPanel + r] := word w of row r of a, or of column r of b.

// What permutex2var takes to join two vectors element by element: the first 16, the last 16.
alignas(64) constexpr std::array<int16_t, 64> kJoin = [] {
  std::array<int16_t, 64> order{};
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int16_t>(i / 2 + i % 2 * 32);
  return order;
}();

// One word of each column of two stored rows, of which the second may not be there.
inline void join_rows(const bfloat16* first, const bfloat16* second, int64_t columns,
                      int32_t* panel) {
  const uint32_t mask = first_of(columns), both = second == nullptr ? 0 : mask;
  const __mmask16 rest = first_lanes(columns - 32), both_rest = second == nullptr ? 0 : rest;
  const __m512i x = _mm512_maskz_loadu_epi16(mask, first);
  const __m512i y = _mm512_maskz_loadu_epi16(both, second);
  const __m256i x_rest = _mm256_maskz_loadu_epi16(rest, first + 32);
  const __m256i y_rest = _mm256_maskz_loadu_epi16(both_rest, second + 32);
  const __m512i low = _mm512_load_si512(kJoin.data()), high = _mm512_load_si512(&kJoin[32]);
  _mm512_store_si512(panel, _mm512_permutex2var_epi16(x, low, y));
  _mm512_store_si512(panel + 16, _mm512_permutex2var_epi16(x, high, y));
  _mm512_store_si512(panel + 32, _mm512_permutex2var_epi16(_mm512_castsi256_si512(x_rest), low,
                                                           _mm512_castsi256_si512(y_rest)));
}

// Transposes a 16 x 16 matrix of words.
inline void transpose(__m512i (&x)[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int half = i; half < 16; half += 8) {
      y[half] = _mm512_shuffle_i32x4(x[half], x[half + 4], 0x88);
      y[half + 4] = _mm512_shuffle_i32x4(x[half], x[half + 4], 0xDD);
    }
  }
  for (int i = 0; i < 8; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xDD);
  }
}

// Of stored rows along k.
void transpose_rows(const bfloat16* from, int64_t stride, int64_t rows, int64_t k, int32_t* panel) {
  for (int64_t w = 0; w < words(k); w += kLanes) {
    const int64_t deep = std::min(kLanes, words(k) - w);
    for (int64_t r = 0; r < kPanel; r += kLanes) {
      __m512i block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const uint32_t mask = r + i < rows ? first_of(k - 2 * w) : 0;
        block[i] = _mm512_maskz_loadu_epi16(mask, from + (r + i) * stride + 2 * w);
      }
      transpose(block);
      for (int64_t i = 0; i < deep; ++i) {
        _mm512_store_si512(panel + (w + i) * kPanel + r, block[i]);
      }
    }
  }
}

// along: the stored rows run along k, and are the panel's; else across it. count: as many rows or
// columns as are there, of which the panel is the first 48.
void pack(const bfloat16* from, int64_t stride, bool along, int64_t count, int64_t k,
          int32_t* panel) {
  if (along) return transpose_rows(from, stride, count, k, panel);
  for (int64_t i = 0; i < k; i += 2, from += 2 * stride, panel += kPanel) {
    join_rows(from, i + 1 < k ? from + stride : nullptr, count, panel);
  }
}

// Fetches what a panel of b will be packed from, a part at a time.
class Fetch {
 public:
  Fetch(const Matrix<bfloat16>& b, int64_t k, int64_t parts)
      : at_(b.data),
        stride_(b.row_stride),
        width_(b.transposed ? k : kPanel),
        rows_left_(b.transposed ? kPanel : k),
        rows_of_part_((rows_left_ + parts - 1) / parts) {}
  void next_part() {
    constexpr int64_t kLine = 32;  // elements
    for (int64_t i = 0; i < rows_of_part_ && rows_left_ > 0; ++i, --rows_left_, at_ += stride_) {
      for (int64_t j = 0; j < width_; j += kLine) _mm_prefetch(at_ + j, _MM_HINT_T1);
      _mm_prefetch(at_ + width_ - 1, _MM_HINT_T1);
    }
  }

 private:
  const bfloat16* at_;
  const int64_t stride_, width_;
  int64_t rows_left_;
  const int64_t rows_of_part_;
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
  bool add;
};

// out := factor * (a b) + (add ? out : 0), of R rows and 16 V columns, which run over `deep` words.
template <int R, int V, typename Out>
void block(const Left& a, const int32_t* b, int64_t deep, const Target<Out>& out) {
  __mmask16 masks[V];
  for (int j = 0; j < V; ++j) masks[j] = first_lanes(out.columns - j * kLanes);
  __m512 sums[R][V];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < V; ++j) {
      sums[i][j] = _mm512_setzero_ps();
      __builtin_prefetch(out.data + i * out.stride + j * kLanes, 1);
    }
  }
  const char* left = a.data;
  for (int64_t w = 0; w < deep; ++w, left += a.word, b += kPanel) {
    __m512bh right[V];
#pragma GCC unroll 3
    for (int j = 0; j < V; ++j) {
      right[j] = reinterpret_cast<__m512bh>(_mm512_load_si512(b + j * kLanes));
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, left + i * a.row, sizeof(pair));
      const __m512bh all = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 3
      for (int j = 0; j < V; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], all, right[j]);
    }
  }
  const __m512 factor = _mm512_set1_ps(out.factor);
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < V; ++j) {
      Out* const to = out.data + i * out.stride + j * kLanes;
      const __m512 before = out.add ? load(to, masks[j]) : _mm512_setzero_ps();
      store(to, masks[j], _mm512_fmadd_ps(sums[i][j], factor, before));
    }
  }
}

template <typename Out>
using Block = void (*)(const Left&, const int32_t*, int64_t, const Target<Out>&);
template <typename Out, size_t... I>
constexpr std::array<Block<Out>, sizeof...(I)> blocks(std::index_sequence<I...>) {
  return {block<I / kVectors + 1, I % kVectors + 1, Out>...};
}
// By rows and vectors of columns, each less one.
template <typename Out>
constexpr auto kBlocks = blocks<Out>(std::make_index_sequence<kRows * kVectors>());

// Room for so many words; grows to what the thread has needed so far.
int32_t* room_of(std::vector<Words>& room, int64_t count) {
  const auto lines = static_cast<size_t>((count + kLanes - 1) / kLanes);
  if (room.size() < lines) room.resize(lines);
  return room.data()->pairs;
}

// The rows of a, packed unless they are words as they lie.
class LeftSide {
 public:
  LeftSide(const Matrix<bfloat16>& a, int64_t m, int64_t k, std::vector<Words>& room)
      : a_(a), deep_(words(k)) {
    if (!a.transposed && k % 2 == 0) return;
    int32_t* const panels = room_of(room, (m + kPanel - 1) / kPanel * kPanel * deep_);
    for (int64_t i = 0; i < m; i += kPanel) {
      pack(a.from(i, 0).data, a.row_stride, !a.transposed, m - i, k, panels + i * deep_);
    }
    panels_ = panels;
  }
  Left from(int64_t row) const {
    if (panels_ == nullptr) {
      return {reinterpret_cast<const char*>(a_.from(row, 0).data), a_.row_stride * 2, 4};
    }
    const int32_t* const panel = panels_ + row / kPanel * kPanel * deep_;
    return {reinterpret_cast<const char*>(panel + row % kPanel), 4, kPanel * 4};
  }

 private:
  const Matrix<bfloat16> a_;
  const int64_t deep_;
  const int32_t* panels_ = nullptr;
};

// Of k <= kDepth.
template <typename Out>
void multiply_part(const Product<bfloat16, Out>& p) {
  thread_local std::vector<Words> left_room, right_room;
  const LeftSide left(p.a, p.m, p.k, left_room);
  int32_t* const panel = room_of(right_room, kPanel * words(p.k));
  for (int64_t j = 0; j < p.n; j += kPanel) {
    const int64_t columns = std::min(kPanel, p.n - j);
    pack(p.b.from(0, j).data, p.b.row_stride, p.b.transposed, columns, p.k, panel);
    Fetch next(p.b.from(0, j + kPanel), p.k, (p.m + kRows - 1) / kRows);
    for (int64_t i = 0; i < p.m; i += kRows) {
      next.next_part();
      const int64_t rows = std::min(kRows, p.m - i);
      const auto which = static_cast<size_t>((rows - 1) * kVectors + (columns - 1) / kLanes);
      kBlocks<Out>[which](
          left.from(i), panel, words(p.k),
          {p.out + i * p.out_stride + j, p.out_stride, columns, p.factor, p.accumulate});
    }
  }
}

}  // namespace

void multiply_pairs(const Product<bfloat16, float>& p) {
  for (int64_t first = 0; first < p.k; first += kDepth) {
    multiply_part(Product<bfloat16, float>{p.m, p.n, std::min(kDepth, p.k - first),
                                           p.a.from(0, first), p.b.from(first, 0), p.out,
                                           p.out_stride, p.accumulate || first > 0, p.factor});
  }
}

void multiply_pairs(const Product<bfloat16>& p) {
  if (p.k <= kDepth) return multiply_part(p);
  thread_local std::vector<float> sums;
  if (std::ssize(sums) < p.m * p.n) sums.resize(static_cast<size_t>(p.m * p.n));
  multiply_pairs(
      Product<bfloat16, float>{p.m, p.n, p.k, p.a, p.b, sums.data(), p.n, false, p.factor});
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; j += kLanes) {
      const __mmask16 mask = first_lanes(p.n - j);
      bfloat16* const to = p.out + i * p.out_stride + j;
      const __m512 before = p.accumulate ? load(to, mask) : _mm512_setzero_ps();
      store(to, mask, _mm512_add_ps(load(sums.data() + i * p.n + j, mask), before));
    }
  }
}

}  // namespace weft::cpu
