// Packing of bf16 operands in panels of words. Included once by gemm_pairs_avx512bf16.cc, inside
// its namespace.

constexpr int64_t kLanes = 16, kRows = 8, kVectors = 3, kPanel = kLanes * kVectors;

constexpr int64_t words(int64_t k) { return (k + 1) / 2; }

constexpr uint32_t first_of(int64_t count) {
  return count >= 32 ? ~0U : (1U << std::max<int64_t>(0, count)) - 1;
}
constexpr __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>(first_of(count)); }

// A part of an operand that is packed: to[w * kPanel + r] := word w of row r of a, or of column r
// of b.
struct Panel {
  const bfloat16* from;
  int64_t stride;
  int64_t count;  // rows or columns that are there, of which the panel is the first 48
  int64_t k;
  bool along;  // the stored rows run along k, and are the panel's; else across it
  int32_t* to;
};

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

void pack(const Panel& panel) {
  if (panel.along) {
    return transpose_rows(panel.from, panel.stride, panel.count, panel.k, panel.to);
  }
  const bfloat16* from = panel.from;
  int32_t* to = panel.to;
  for (int64_t i = 0; i < panel.k; i += 2, from += 2 * panel.stride, to += kPanel) {
    join_rows(from, i + 1 < panel.k ? from + panel.stride : nullptr, panel.count, to);
  }
}

// A whole panel that is packed while something else is multiplied, a unit at a time: one word of
// 48 columns where the stored rows run across k, four words of 16 rows where they run along it.
// What a unit reads was fetched kAhead units before.
template <bool kAlong>
class Packing {
 public:
  static bool can(const Panel& panel) {
    return panel.along == kAlong && panel.count >= kPanel && panel.k % (2 * kWords) == 0;
  }

  // Of what can be packed so, spread over that many calls of between(). then: where the panel
  // begins that is packed next.
  void begin(const Panel& panel, const bfloat16* then, int64_t calls) {
    const int64_t units = panel.k / (2 * kWords) * kUnits;
    from_ = panel.from;
    to_ = panel.to;
    stride_ = panel.stride;
    unit_ = 0;
    left_ = units;
    const int64_t ahead = kAlong ? kAhead / kUnits * 2 * kWords : 2 * kAhead * stride_;
    const int64_t whole = kAlong ? panel.k : panel.k * stride_;
    ahead_ = units > kAhead ? ahead : 0;
    ahead_at_the_end_ = then - panel.from - whole + ahead;
    burst_ = (units + calls - 1) / std::max<int64_t>(1, calls);
    every_ = std::max<int64_t>(1, calls * burst_ / units);
    wait_ = every_;
  }
  void between() {
    if (--wait_ > 0) return;
    wait_ = every_;
    for (int64_t i = 0; i < burst_; ++i) {
      if (left_ == 0) {
        wait_ = kNever;
        return;
      }
      unit();
    }
  }
  void finish() {
    while (left_ > 0) unit();
    wait_ = kNever;
  }

 private:
  static constexpr int64_t kNever = int64_t{1} << 40, kAhead = 24;
  // Words that are packed together, in that many units: 16 of three times 16 rows, or one.
  static constexpr int64_t kWords = kAlong ? kLanes : 1, kUnits = kAlong ? kVectors * 4 : 1;

  void unit() {
    if (left_-- == kAhead) ahead_ = ahead_at_the_end_;
    if constexpr (kAlong) {
      four_words();
    } else {
      one_word();
    }
  }

  void one_word() {
    const bfloat16 *const second = from_ + stride_, *const ahead = from_ + ahead_;
    for (const bfloat16* row : {ahead, ahead + stride_}) {
      _mm_prefetch(row, _MM_HINT_T0);
      _mm_prefetch(row + kPanel - 1, _MM_HINT_T0);
    }
    join_rows(from_, second, kPanel, to_);
    from_ += 2 * stride_;
    to_ += kPanel;
  }

  // Lane l of rows[i] gets four words of row 4 l + i; then each lane is transposed.
  void four_words() {
    const bfloat16* ahead = from_ + ahead_ + unit_ % 4 * (4 * stride_ - 8);
    for (int i = 0; i < 4; ++i, ahead += stride_) _mm_prefetch(ahead, _MM_HINT_T0);
    __m512i rows[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const auto words = [&](int lane) {
        const bfloat16* const at = from_ + (4 * lane + i) * stride_;
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
      };
      rows[i] = _mm512_broadcast_i32x4(words(0));
      rows[i] = _mm512_mask_broadcast_i32x4(rows[i], 0x00F0, words(1));
      rows[i] = _mm512_mask_broadcast_i32x4(rows[i], 0x0F00, words(2));
      rows[i] = _mm512_mask_broadcast_i32x4(rows[i], 0xF000, words(3));
    }
    const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]);
    const __m512i b = _mm512_unpackhi_epi32(rows[0], rows[1]);
    const __m512i c = _mm512_unpacklo_epi32(rows[2], rows[3]);
    const __m512i d = _mm512_unpackhi_epi32(rows[2], rows[3]);
    _mm512_store_si512(to_, _mm512_unpacklo_epi64(a, c));
    _mm512_store_si512(to_ + kPanel, _mm512_unpackhi_epi64(a, c));
    _mm512_store_si512(to_ + 2 * kPanel, _mm512_unpacklo_epi64(b, d));
    _mm512_store_si512(to_ + 3 * kPanel, _mm512_unpackhi_epi64(b, d));
    next_four();
  }
  void next_four() {
    from_ += 8;
    to_ += 4 * kPanel;
    if (++unit_ % 4 != 0) return;
    from_ += kLanes * stride_ - 2 * kLanes;
    to_ += kLanes - kLanes * kPanel;
    if (unit_ < kUnits) return;
    unit_ = 0;
    from_ += 2 * kLanes - kPanel * stride_;
    to_ += kLanes * kPanel - kPanel;
  }

  const bfloat16* from_ = nullptr;
  int32_t* to_ = nullptr;
  int64_t stride_ = 0, unit_ = 0, left_ = 0;       // unit_: of the words that are packed together
  int64_t ahead_ = 0, ahead_at_the_end_ = 0;       // what is fetched lies there from from_
  int64_t burst_ = 0, every_ = 1, wait_ = kNever;  // units at once, and calls between them
};
