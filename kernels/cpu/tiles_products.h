// Vectors and the products of tiles.h. Part of tiles_body.h: included inside a namespace of each
// tiles_*.cc with that file's instruction set, so nothing here may call an inline function of
// another header, whose code the linker would share between the levels.
//
// A product keeps kRows rows by a few vectors of results in registers while it walks the depth;
// for each step it loads vectors of b and broadcasts one word of a per row.

constexpr int kVectorBytes = WEFT_VECTOR_BYTES;
constexpr int kRows = 6;                                   // 6 by 4 of 32 registers, or
constexpr int kColumns = WEFT_VECTOR_BYTES == 64 ? 4 : 2;  // 6 by 2 of 16
// Steps of depth in a turn of the loop: of 6 by 2 products the loop's own operations are a tenth,
// and what else GCC keeps in the 16 registers makes it spill one that every step loads.
constexpr int kSteps = WEFT_VECTOR_BYTES == 64 ? 1 : 4;

// One element type in vectors: Scalar is what sums are of, Word and Right what products take.
struct F32 {
  using Scalar = float;
  using Word = float;
  typedef float Vec __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  using Right = Vec;
  static constexpr int kLanes = kVectorBytes / 4;
  static Right right(const Word* from) { return *reinterpret_cast<const Vec*>(from); }
  static Vec multiply_add(Word a, Right b, Vec sum) { return sum + a * b; }
};

struct F64 {
  using Scalar = double;
  using Word = double;
  typedef double Vec __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t Int __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  using Right = Vec;
  static constexpr int kLanes = kVectorBytes / 8;
  static Right right(const Word* from) { return *reinterpret_cast<const Vec*>(from); }
  static Vec multiply_add(Word a, Right b, Vec sum) { return sum + a * b; }
};

template <typename T>
struct LanesOf {
  using type = F32;
};
template <>
struct LanesOf<double> {
  using type = F64;
};

template <typename L>
inline typename L::Vec load(const typename L::Scalar* from) {
  return *reinterpret_cast<const typename L::Vec*>(from);
}
template <typename L>
inline void store(typename L::Scalar* to, const typename L::Vec& value) {
  *reinterpret_cast<typename L::Vec*>(to) = value;
}

inline int64_t up_to(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

// Word (row i, step p) of the left side stands at data + i * row_bytes + p * step_bytes.
struct Left {
  const char* data;
  int64_t row_bytes, step_bytes;
};
// Row p of the right side at data + p * width, of the result at out + i * width.
template <typename L>
struct Sides {
  const typename L::Word* right;
  int64_t right_width;
  typename L::Scalar* out;
  int64_t out_width;
};

// M rows by N vectors; start(to, column) and finish(to, sum) are called once for each vector.
template <typename L, int M, int N, typename Start, typename Finish>
__attribute__((always_inline)) inline void block(Left left, int64_t depth, Sides<L> s,
                                                 const Start& start, const Finish& finish) {
  typename L::Vec sum[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[i][j] = start(s.out + i * s.out_width + j * L::kLanes, j);
  }
#pragma GCC unroll kSteps
  for (int64_t p = 0; p < depth; ++p) {
    typename L::Right right[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) right[j] = L::right(s.right + p * s.right_width + j * L::kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      typename L::Word word;
      __builtin_memcpy(&word, left.data + i * left.row_bytes + p * left.step_bytes, sizeof(word));
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[i][j] = L::multiply_add(word, right[j], sum[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) finish(s.out + i * s.out_width + j * L::kLanes, sum[i][j]);
  }
}

// All m rows of N vectors.
template <typename L, int N, typename Start, typename Finish>
__attribute__((always_inline)) inline void stripe(int64_t m, Left left, int64_t depth, Sides<L> s,
                                                  const Start& start, const Finish& finish) {
  for (; m >= kRows; m -= kRows) {
    block<L, kRows, N>(left, depth, s, start, finish);
    left.data += kRows * left.row_bytes;
    s.out += kRows * s.out_width;
  }
  switch (m) {
    case 5:
      return block<L, 5, N>(left, depth, s, start, finish);
    case 4:
      return block<L, 4, N>(left, depth, s, start, finish);
    case 3:
      return block<L, 3, N>(left, depth, s, start, finish);
    case 2:
      return block<L, 2, N>(left, depth, s, start, finish);
    case 1:
      return block<L, 1, N>(left, depth, s, start, finish);
    default:
      return;
  }
}

template <typename L>
constexpr int64_t kStripe = kColumns* L::kLanes;

template <typename L, int kStep>
void scores(int64_t m, int64_t features, typename L::Scalar factor, Operand a, const void* b,
            typename L::Scalar* out) {
  using Vec = typename L::Vec;
  const Left left{static_cast<const char*>(a.data), a.stride_bytes, sizeof(typename L::Word)};
  const int64_t depth = up_to(features, kStep) / kStep;
  for (int64_t lane = 0; lane < kTileLanes; lane += kStripe<L>) {
    stripe<L, kColumns>(
        m, left, depth,
        {static_cast<const typename L::Word*>(b) + lane, kTileLanes, out + lane, kTileLanes},
        [](auto*, int) { return Vec{}; },
        [factor](auto* to, const Vec& sum) { store<L>(to, sum * factor); });
  }
}

template <typename L, int kStep>
void collect(int64_t m, int64_t keys, Operand a, const void* b, bool fresh,
             const typename L::Scalar* shrink, typename L::Scalar* out) {
  using Vec = typename L::Vec;
  const Left left{static_cast<const char*>(a.data), sizeof(typename L::Word), a.stride_bytes};
  const int64_t depth = up_to(keys, kStep) / kStep;
  for (int64_t lane = 0; lane < kTileLanes; lane += kStripe<L>) {
    stripe<L, kColumns>(
        m, left, depth,
        {static_cast<const typename L::Word*>(b) + lane, kTileLanes, out + lane, kTileLanes},
        [fresh, shrink, lane](auto* from, int column) {
          if (fresh) return Vec{};
          const Vec old = load<L>(from);
          return shrink == nullptr ? old : old * load<L>(shrink + lane + column * L::kLanes);
        },
        [](auto* to, const Vec& sum) { store<L>(to, sum); });
  }
}

template <typename L, int kStep, int N>
void spread_stripe(int64_t m, int64_t width, const void* a, const void* b, bool fresh,
                   typename L::Scalar* out, int64_t from) {
  using Vec = typename L::Vec;
  constexpr int64_t kWord = sizeof(typename L::Word);
  stripe<L, N>(
      m, Left{static_cast<const char*>(a), kTileLanes / kStep * kWord, kWord}, kTileLanes / kStep,
      Sides<L>{static_cast<const typename L::Word*>(b) + from, width, out + from, width},
      [fresh](auto* to, int) { return fresh ? Vec{} : load<L>(to); },
      [](auto* to, const Vec& sum) { store<L>(to, sum); });
}

template <typename L, int kStep>
void spread(int64_t m, int64_t width, const void* a, const void* b, bool fresh,
            typename L::Scalar* out) {
  // Stripes as even as can be: five vectors are three and two.
  int64_t left = width / L::kLanes;
  for (int64_t from = 0; left > 0;) {
    const int64_t stripes = (left + kColumns - 1) / kColumns, now = (left + stripes - 1) / stripes;
    switch (now) {
      case 4:
        spread_stripe<L, kStep, kColumns>(m, width, a, b, fresh, out, from);
        break;
      case 3:
        spread_stripe<L, kStep, kColumns == 4 ? 3 : 1>(m, width, a, b, fresh, out, from);
        break;
      case 2:
        spread_stripe<L, kStep, 2>(m, width, a, b, fresh, out, from);
        break;
      default:
        spread_stripe<L, kStep, 1>(m, width, a, b, fresh, out, from);
    }
    from += now * L::kLanes;
    left -= now;
  }
}
