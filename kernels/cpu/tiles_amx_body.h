// The products of tiles.h by a unit of amx.h. Included inside a namespace of its own, after
// tiles_body.h, with the flags of _amx.cc.
//
// Tiles 0 to 3 are sums, 16 rows by up to 4 times 16 columns; 4 is a piece of the left side, 16
// rows by 16 words, 5 of the right side, 16 words by 16 columns; 6 and 7 are the same of the words
// that are left over.

constexpr int64_t kWordBytes = 4, kAmxWords = kAmxBytes / kWordBytes;

inline AmxShapes shapes_of(int64_t rows, int64_t words_left) {
  AmxShapes shapes;
  const auto set = [&shapes](int tile, int64_t tile_rows, int64_t bytes) {
    shapes.rows[tile] = static_cast<uint8_t>(tile_rows);
    shapes.row_bytes[tile] = static_cast<uint16_t>(bytes);
  };
  for (int tile = 0; tile < 5; ++tile) set(tile, rows, kAmxBytes);
  set(5, kAmxRows, kAmxBytes);
  if (words_left > 0) {
    set(6, rows, words_left * kWordBytes);
    set(7, words_left, kAmxBytes);
  }
  return shapes;
}

// The sides of a product and where its sums lie; distances of rows in bytes.
struct AmxSides {
  const char* a;
  int64_t a_bytes;
  const char* b;
  int64_t b_bytes;
  char* out;
  int64_t out_bytes;
};

template <typename Unit, int kA, int kB, int... kColumn>
inline void multiply_columns(const char* b, int64_t b_bytes,
                             std::integer_sequence<int, kColumn...>) {
  ((Unit::template load<kB>(b + kColumn * kAmxBytes, b_bytes),
    Unit::template multiply_add<kColumn, kA, kB>()),
   ...);
}

// One row of tiles.
template <typename Unit, int... kColumn>
inline void multiply_rows(const AmxSides& s, int64_t words, bool fresh,
                          std::integer_sequence<int, kColumn...> columns) {
  if (fresh) {
    (Unit::template zero<kColumn>(), ...);
  } else {
    (Unit::template load<kColumn>(s.out + kColumn * kAmxBytes, s.out_bytes), ...);
  }
  int64_t at = 0;
  for (; at + kAmxWords <= words; at += kAmxWords) {
    Unit::template load<4>(s.a + at * kWordBytes, s.a_bytes);
    multiply_columns<Unit, 4, 5>(s.b + at * s.b_bytes, s.b_bytes, columns);
  }
  if (at < words) {
    Unit::template load<6>(s.a + at * kWordBytes, s.a_bytes);
    multiply_columns<Unit, 6, 7>(s.b + at * s.b_bytes, s.b_bytes, columns);
  }
  (Unit::template store<kColumn>(s.out + kColumn * kAmxBytes, s.out_bytes), ...);
}

// out[m, 16 kColumns] := a[m, words] b[words, 16 kColumns] + (fresh ? 0 : out).
template <typename Unit, int kColumns>
void multiply(int64_t m, int64_t words, AmxSides s, bool fresh) {
  for (int64_t row = 0; row < m; row += kAmxRows) {
    const int64_t rows = m - row < kAmxRows ? m - row : kAmxRows;
    if (row == 0 || rows < kAmxRows) Unit::shape(shapes_of(rows, words % kAmxWords));
    multiply_rows<Unit>(s, words, fresh, std::make_integer_sequence<int, kColumns>());
    s.a += kAmxRows * s.a_bytes;
    s.out += kAmxRows * s.out_bytes;
  }
  Unit::release();
}

constexpr int64_t kLaneBytes = kTileLanes * kWordBytes;
constexpr int kLaneColumns = kLaneBytes / kAmxBytes;

template <typename Unit>
void amx_scores(int64_t m, int64_t features, float factor, Operand a, const void* b, float* out) {
  multiply<Unit, kLaneColumns>(
      m, (features + 1) / 2,
      {static_cast<const char*>(a.data), a.stride_bytes, static_cast<const char*>(b), kLaneBytes,
       reinterpret_cast<char*>(out), kLaneBytes},
      true);
  if (factor == 1) return;
  for (int64_t i = 0; i < m * kTileLanes; i += F32::kLanes) {
    store<F32>(out + i, load<F32>(out + i) * factor);
  }
}

template <typename Unit>
void amx_collect(int64_t m, int64_t keys, Operand a, const void* b, bool fresh, const float* shrink,
                 float* out) {
  for (int64_t i = 0; i < m * kTileLanes && !fresh && shrink != nullptr; i += F32::kLanes) {
    store<F32>(out + i, load<F32>(out + i) * load<F32>(shrink + i % kTileLanes));
  }
  multiply<Unit, kLaneColumns>(
      m, (keys + 1) / 2,
      {static_cast<const char*>(a.data), a.stride_bytes, static_cast<const char*>(b), kLaneBytes,
       reinterpret_cast<char*>(out), kLaneBytes},
      fresh);
}

template <typename Unit>
void amx_spread(int64_t m, int64_t width, const void* a, const void* b, bool fresh, float* out) {
  for (int64_t from = 0; from < width;) {
    const AmxSides sides{static_cast<const char*>(a),
                         kLaneBytes / 2,
                         static_cast<const char*>(b) + from * kWordBytes,
                         width * kWordBytes,
                         reinterpret_cast<char*>(out + from),
                         width * kWordBytes};
    if (width - from >= 64) {
      multiply<Unit, 4>(m, kTileLanes / 2, sides, fresh);
      from += 64;
    } else if (width - from >= 32) {
      multiply<Unit, 2>(m, kTileLanes / 2, sides, fresh);
      from += 32;
    } else {
      multiply<Unit, 1>(m, kTileLanes / 2, sides, fresh);
      from += 16;
    }
  }
}

// to[d, w] := the pair (x[2 w, d], x[2 w + 1, d]), zero beyond the rows.
inline Operand amx_by_row(TileRows<const bfloat16> x, int64_t count, int64_t features,
                          void* scratch) {
  const int64_t words = (count + 1) / 2;
  float* to = static_cast<float*>(scratch);  // words, moved as vectors of floats
  for (int64_t w = 0; w < words; w += F32::kLanes) {
    const int64_t wide = words - w;
    const __mmask16 keep = wide >= F32::kLanes ? 0xFFFF : (1U << wide) - 1;
    for (int64_t d = 0; d < features; d += F32::kLanes) {
      const int64_t valid = features - d;
      const __mmask16 mask = valid >= F32::kLanes ? 0xFFFF : (1U << valid) - 1;
      F32::Vec rows[F32::kLanes];
      for (int64_t i = 0; i < F32::kLanes; ++i) {
        const int64_t row = 2 * (w + i);
        const bfloat16* from = x.data + row * x.stride + d;
        const __m256i first = _mm256_maskz_loadu_epi16(row < count ? mask : 0, from);
        const __m256i second =
            _mm256_maskz_loadu_epi16(row + 1 < count ? mask : 0, from + x.stride);
        const __m512i pair = _mm512_or_si512(_mm512_cvtepu16_epi32(first),
                                             _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
        rows[i] = _mm512_castsi512_ps(pair);
      }
      transpose_block<F32>(rows);
      for (int64_t i = 0; i < F32::kLanes && i < valid; ++i) {
        _mm512_mask_storeu_ps(to + (d + i) * words + w, keep, rows[i]);
      }
    }
  }
  return {scratch, words * kWordBytes, kWordBytes};
}

// All but the products is that of processors with AVX512_BF16.
template <typename Unit>
TileKernels<bfloat16> amx_table() {
  TileKernels<bfloat16> k = tiles_bf16_avx512bf16;
  k.by_row = amx_by_row;
  k.scores = amx_scores<Unit>;
  k.collect = amx_collect<Unit>;
  k.spread = amx_spread<Unit>;
  return k;
}
