// Packs: a few vectors of AVX2 whose operations go in turns. Those of one vector wait for each
// other, and a processor looks ahead no further than two or three vectors. Included by map_body.h,
// rules as there.

struct Pack {
  static constexpr int kVectors = 4;
  Lanes<float> of[kVectors];
  Pack() = default;
  Pack(float x) {
    Lanes<float> same = x - Lanes<float>{};  // of -0 it, too
    asm volatile("" : "+x"(same));           // in a register, instead of four loads
    for (auto& vector : of) vector = same;
  }
};
struct PackMask {
  LanesOf<int>::Type of[Pack::kVectors];
};
template <typename Result = Pack, typename F, typename... Packs>
[[gnu::always_inline]] inline Result each(const F& f, const Packs&... packs) {
  Result result;
#pragma GCC unroll 4
  for (int k = 0; k < Pack::kVectors; ++k) result.of[k] = f(packs.of[k]...);
  return result;
}
inline Pack operator+(const Pack& x, const Pack& y) {
  return each([](const auto& a, const auto& b) { return a + b; }, x, y);
}
inline Pack operator-(const Pack& x, const Pack& y) {
  return each([](const auto& a, const auto& b) { return a - b; }, x, y);
}
inline Pack operator-(const Pack& x) {
  return each([](const auto& a) { return -a; }, x);
}
inline Pack operator*(const Pack& x, const Pack& y) {
  return each([](const auto& a, const auto& b) { return a * b; }, x, y);
}
inline Pack operator/(const Pack& x, const Pack& y) {
  return each([](const auto& a, const auto& b) { return a / b; }, x, y);
}
inline PackMask operator<(const Pack& x, const Pack& y) {
  return each<PackMask>([](const auto& a, const auto& b) { return a < b; }, x, y);
}
inline PackMask operator<=(const Pack& x, const Pack& y) {
  return each<PackMask>([](const auto& a, const auto& b) { return a <= b; }, x, y);
}
inline PackMask operator>(const Pack& x, const Pack& y) { return y < x; }
inline PackMask operator>=(const Pack& x, const Pack& y) { return y <= x; }
inline PackMask operator==(const Pack& x, const Pack& y) {
  return each<PackMask>([](const auto& a, const auto& b) { return a == b; }, x, y);
}
inline Pack chosen(const PackMask& mask, const Pack& x, const Pack& y) {
  return each([](const auto& m, const auto& a, const auto& b) { return m ? a : b; }, mask, x, y);
}

// The compiler otherwise computes one vector after the other: here it needs all of them.
inline Pack in_turns(Pack x) {
  static_assert(Pack::kVectors == 4);
  asm("" : "+x"(x.of[0]), "+x"(x.of[1]), "+x"(x.of[2]), "+x"(x.of[3]));
  return x;
}

// A pack of S: floats as they lie, of bf16 each vector's evens before its odds.
template <typename S>
constexpr int64_t kPackOf = Pack::kVectors* kLanesOf<float>;
inline Pack pack_at(const float* x) {
  Pack pack;
  for (int k = 0; k < Pack::kVectors; ++k) pack.of[k] = lanes_at(x + k * kLanesOf<float>);
  return pack;
}
inline Pack pack_at(const bfloat16* x) {
  Pack pack;
  for (int k = 0; k < Pack::kVectors; k += 2) {
    const Lanes<bfloat16> words = lanes_at(x + k * kLanesOf<float>);
    pack.of[k] = evens_of(words);
    pack.of[k + 1] = odds_of(words);
  }
  return pack;
}
template <typename S, typename To>
[[gnu::always_inline]] inline void put_pack(const To& to, int64_t i, const Pack& pack) {
  for (int k = 0; k < Pack::kVectors; k += 2) {
    const int64_t at = i + k * kLanesOf<float>;
    if constexpr (sizeof(S) == sizeof(float)) {
      to.put(at, pack.of[k]);
      to.put(at + kLanesOf<float>, pack.of[k + 1]);
    } else {
      to.put(at, pack.of[k], pack.of[k + 1]);
    }
  }
}
template <typename F, typename To, typename S, typename... From>
WEFT_ONE_BODY [[gnu::flatten]] void map_packs(const F& f, const To& to, int64_t begin, int64_t end,
                                              const S* first, const From*... others) {
  const F g = f;
  const To here = to;
  for (int64_t i = begin; i < end; i += kPackOf<S>) {
    put_pack<S>(here, i, g(pack_at(first + i), pack_at(others + i)...));
  }
}
