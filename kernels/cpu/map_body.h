// Elementwise loops for rows_body.h and vectors_body.h; rules as there.
//
// Loops whose products and sums a compiler may contract go by whole groups of lanes and finish on
// a padded copy, both by one function that is not inlined: contraction differs between a vector
// loop and what is left of it, and an element's value must not depend on where its row was cut.

constexpr int kGroup = 64;
#define WEFT_ONE_BODY __attribute__((noinline, noclone))

template <typename F, typename T>
WEFT_ONE_BODY void map_group(const F& f, const T* x, T* y) {
  const F g = f;
#pragma omp simd
  for (int i = 0; i < kGroup; ++i) y[i] = g(x[i]);
}
template <typename F, typename T>
WEFT_ONE_BODY void map_group(const F& f, const T* x, const T* y, T* z) {
  const F g = f;
#pragma omp simd
  for (int i = 0; i < kGroup; ++i) z[i] = g(x[i], y[i]);
}
template <typename F, typename T>
WEFT_ONE_BODY void map_group(const F& f, const T* x, const T* y, const T* z, T* w) {
  const F g = f;
#pragma omp simd
  for (int i = 0; i < kGroup; ++i) w[i] = g(x[i], y[i], z[i]);
}

template <typename T>
inline void copy_row(const T* from, T* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Asks for a group of the next row, or of nobody's. A loop that reads a row from the nearest cache
// fetches the next one meanwhile.
template <typename T>
inline void fetch_group(const T* x) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  for (int line = 0; line < kGroup; line += kLine) __builtin_prefetch(x + line);
}

// The sum of f(rows[i]...) over [0, n), in four vectors of partial sums: in one, each addition
// would wait for the one before. f takes elements or vectors of them. kFetch: of the first row the
// next one is fetched.
template <typename T, bool kFetch = false, typename F, typename... Rows>
inline T sum_over(int64_t n, const F& f, const T* first, const Rows*... rows) {
  typedef T Lanes __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));
  const auto at = [](const T* row) -> const Lanes& { return *reinterpret_cast<const Lanes*>(row); };
  Lanes a{}, b{}, c{}, d{};
  int64_t i = 0;
  const auto term = [&](int64_t k) { return f(at(first + k), at(rows + k)...); };
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    if (kFetch && i % kGroup == 0) fetch_group(first + n + i);
    a += term(i);
    b += term(i + kLanes);
    c += term(i + 2 * kLanes);
    d += term(i + 3 * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) a += term(i);
  a = (a + b) + (c + d);
  for (int64_t lane = 0; i < n; ++i, ++lane) a[lane] += f(first[i], rows[i]...);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) a[lane] += a[lane + half];
  }
  return a[0];
}

// act(i) for i in [0, n), as one vector loop that fetches the row after x.
template <typename T, typename Act>
inline void last_reading(const T* x, int64_t n, const Act& act) {
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    fetch_group(x + n + i);
#pragma omp simd
    for (int64_t j = 0; j < kGroup; ++j) act(i + j);
  }
#pragma omp simd
  for (int64_t j = i; j < n; ++j) act(j);
}

// to[i] = f(from[0][i], from[1][i], ...)
template <typename F, typename T, typename... From>
void map(const F& f, int64_t n, T* to, const T* first, From... others) {
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) map_group(f, first + i, (others + i)..., to + i);
  if (i == n) return;
  constexpr int kCount = 1 + static_cast<int>(sizeof...(others));
  const T* const rows[kCount] = {first + i, (others + i)...};
  T rest[kCount][kGroup] = {};
  for (int k = 0; k < kCount; ++k) copy_row(rows[k], rest[k], n - i);
  if constexpr (kCount == 1) map_group(f, rest[0], rest[0]);
  if constexpr (kCount == 2) map_group(f, rest[0], rest[1], rest[0]);
  if constexpr (kCount == 3) map_group(f, rest[0], rest[1], rest[2], rest[0]);
  copy_row(rest[0], to + i, n - i);
}
