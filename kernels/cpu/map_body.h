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
