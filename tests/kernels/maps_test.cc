// The elementwise loops of rows.h and vectors.h at every level that this processor has: past the
// caches or through them, at any address and of any length, and bf16 against float.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cpu/level.h"
#include "kernels/cpu/rows_levels.h"
#include "kernels/cpu/vectors_levels.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/random.h"
#include "tests/testing/gradient_check.h"

namespace weft::cpu {
namespace {

template <typename T>
struct Kernels {
  const RowKernels<T>* rows;
  const VectorKernels<T>* vectors;
};
struct Tables {
  std::string name;
  Kernels<float> f32;
  Kernels<double> f64;
  Kernels<bfloat16> bf16;
};

std::vector<Tables> tables() {
  std::vector<Tables> all{{"v2",
                           {&rows_f32_v2, &vectors_f32_v2},
                           {&rows_f64_v2, &vectors_f64_v2},
                           {&rows_bf16_v2, &vectors_bf16_v2}}};
  if (supported(Level::kV3)) {
    all.push_back({"v3",
                   {&rows_f32_v3, &vectors_f32_v3},
                   {&rows_f64_v3, &vectors_f64_v3},
                   {&rows_bf16_v3, &vectors_bf16_v3}});
  }
  if (supported(Level::kV4)) {
    all.push_back({"v4",
                   {&rows_f32_v4, &vectors_f32_v4},
                   {&rows_f64_v4, &vectors_f64_v4},
                   {&rows_bf16_v4, &vectors_bf16_v4}});
  }
  if (supported(Level::kBf16)) {
    all.push_back({"bf16",
                   {&rows_f32_v4, &vectors_f32_v4},
                   {&rows_f64_v4, &vectors_f64_v4},
                   {&rows_bf16_avx512bf16, &vectors_bf16_avx512bf16}});
  }
  return all;
}

class Maps : public ::testing::TestWithParam<Tables> {};

constexpr int64_t kMost = 300;

// A function of up to three rows with one result or two; sums get what is added to them, from
// another address on where results go past the caches.
template <typename T>
struct Function {
  std::string name;
  std::function<void(const T* x, const T* y, const T* z, Target<T> to, Target<T> second,
                     std::vector<float>& sums, int64_t n)>
      call;
};

template <typename T>
void add_half_functions(const Kernels<T>& k, std::vector<Function<T>>& all) {
  for (int i = 0; i <= static_cast<int>(Curve::kSigmoid); ++i) {
    const auto kind = static_cast<Curve>(i);
    const std::string name = "curve " + std::to_string(i);
    all.push_back({name, [=](const T* x, const T*, const T*, Target<T> to, Target<T>, auto&,
                             int64_t n) { k.rows->curve(kind, x, to, n); }});
    all.push_back(
        {name + " backward", [=](const T* x, const T* y, const T*, Target<T> to, Target<T>, auto&,
                                 int64_t n) { k.rows->curve_backward(kind, x, y, to, n); }});
    if constexpr (!std::is_same_v<T, double>) {
      all.push_back({name + " backward, sum", [=](const T* x, const T* y, const T*, Target<T> to,
                                                  Target<T>, auto& sums, int64_t n) {
                       k.rows->curve_backward_sum(kind, x, y, to, sums.data() + to.past, 1, n);
                     }});
    }
  }
  for (int i = 0; i <= static_cast<int>(Binary::kMaximum); ++i) {
    for (int steps = 0; steps < 4; ++steps) {
      all.push_back(
          {"binary " + std::to_string(i) + " steps " + std::to_string(steps),
           [=](const T* x, const T* y, const T*, Target<T> to, Target<T>, auto&, int64_t n) {
             k.vectors->binary(static_cast<Binary>(i), x, steps % 2, y, steps / 2, to, n);
           }});
    }
  }
  for (int i = 0; i <= static_cast<int>(Unary::kEluPlusOne); ++i) {
    const auto kind = static_cast<Unary>(i);
    const std::string name = "unary " + std::to_string(i);
    all.push_back({name, [=](const T* x, const T*, const T*, Target<T> to, Target<T>, auto&,
                             int64_t n) { k.vectors->unary(kind, 0.5F, 1.5F, x, to, n); }});
    all.push_back({name + " backward",
                   [=](const T* x, const T* y, const T*, Target<T> to, Target<T>, auto&,
                       int64_t n) { k.vectors->unary_backward(kind, 0.5F, 1.5F, x, y, to, n); }});
  }
  for (const int64_t step : {0, 1}) {
    all.push_back({"scale steps " + std::to_string(step * 3),
                   [=](const T* x, const T*, const T*, Target<T> to, Target<T>, auto&, int64_t n) {
                     k.vectors->scale(-1.3F, x, step, to, n);
                   }});
  }
  for (const bool larger : {false, true}) {
    all.push_back(
        {larger ? "larger backward" : "smaller backward",
         [=](const T* x, const T* y, const T* z, Target<T> to, Target<T> second, auto&, int64_t n) {
           k.vectors->extreme_backward(larger, x, y, z, to, second, n);
         }});
  }
  all.push_back({"swiglu", [=](const T* x, const T* y, const T*, Target<T> to, Target<T>, auto&,
                               int64_t n) { k.vectors->swiglu(x, y, to, n); }});
  all.push_back({"swiglu backward",
                 [=](const T* x, const T* y, const T* z, Target<T> to, Target<T> second, auto&,
                     int64_t n) { k.vectors->swiglu_backward(x, y, z, to, second, n); }});
}

template <typename T>
std::vector<Function<T>> functions(const Kernels<T>& k) {
  std::vector<Function<T>> all;
  add_half_functions(k, all);
  if constexpr (!std::is_same_v<T, double>) {
    all.push_back(
        {"curve backward, sum of rows",
         [=](const T* x, const T* y, const T*, Target<T> to, Target<T>, auto& sums, int64_t n) {
           k.rows->curve_backward_sum(Curve::kGeluErf, x, y, to, sums.data() + to.past, 3, n / 3);
         }});
  }
  if constexpr (!std::is_same_v<T, bfloat16>) {
    all.push_back({"rotate", [=](const T* x, const T* y, const T* z, Target<T> to, Target<T> second,
                                 auto&, int64_t n) {
                     k.vectors->rotate(x, y, z, z + 1, T{-1}, 64, to, second, n);
                   }});
  }
  return all;
}

// Values of every size, infinities and NaN among them.
template <typename T>
std::vector<T> drawn(uint64_t stream) {
  std::vector<T> all(kMost + 64);
  for (size_t i = 0; i < all.size(); ++i) {
    const double value = normal_at({3, stream}, i) * std::pow(10.0, static_cast<double>(i % 4) - 2);
    all[i] = static_cast<T>(static_cast<float>(value));
  }
  all[21] = T(std::numeric_limits<float>::infinity());
  all[22] = T(-std::numeric_limits<float>::infinity());
  all[40 + stream] = T(std::numeric_limits<float>::quiet_NaN());  // of two the bits may be either's
  all[50] = T(-0.0F);
  return all;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Results of n elements from `shift` elements after a line on, amid elements that must stay.
template <typename T>
struct Results {
  std::vector<T> first, second;
  std::vector<float> sums;
};
template <typename T>
Results<T> results(const Function<T>& f, bool past, int64_t shift, int64_t n) {
  const std::vector<T> x = drawn<T>(1), y = drawn<T>(2), z = drawn<T>(4);
  alignas(64) T to[kMost + 64], second[kMost + 64];
  std::fill(std::begin(to), std::end(to), T(7.0F));
  std::fill(std::begin(second), std::end(second), T(8.0F));
  Results<T> all;
  all.sums.assign(kMost + 64, 0.5F);
  // Inputs at another distance from a line than the result.
  f.call(x.data() + 5, y.data() + 3, z.data() + 2, {to + shift, past}, {second + shift + 1, past},
         all.sums, n);
  all.first.assign(to, to + kMost + 64);
  all.second.assign(second, second + kMost + 64);
  return all;
}

template <typename T>
void expect_same_past(const Kernels<T>& kernels, const std::string& level) {
  for (const Function<T>& f : functions(kernels)) {
    for (const int64_t n : {0, 1, 13, 16, 31, 64, 65, 133, 300}) {
      for (const int64_t shift : {0, 1, 16, 31}) {
        const Results<T> near = results(f, false, shift, n), past = results(f, true, shift, n);
        ASSERT_TRUE(same_bits(near.first, past.first) && same_bits(near.second, past.second))
            << level << " " << f.name << " n " << n << " shift " << shift;
        for (int64_t i = 0; i < kMost + 64; ++i) {
          if (i >= shift && i < shift + n) continue;
          ASSERT_EQ(static_cast<float>(past.first[static_cast<size_t>(i)]), 7.0F)
              << level << " " << f.name << " n " << n << " shift " << shift << " at " << i;
        }
        ASSERT_TRUE(std::equal(near.sums.begin(), near.sums.begin() + n, past.sums.begin() + 1,
                               [](float a, float b) { return a == b || (a != a && b != b); }))
            << level << " " << f.name << " n " << n << " shift " << shift;
      }
    }
  }
}

// Rows handed in together give, bit for bit, what they give one after the other.
template <typename T>
void expect_same_together(const Kernels<T>& kernels, const std::string& level) {
  constexpr int64_t kRows = 5;
  const std::vector<T> x = drawn<T>(1), dy = drawn<T>(2);
  for (int i = 0; i <= static_cast<int>(Curve::kSigmoid); ++i) {
    const auto kind = static_cast<Curve>(i);
    for (const int64_t n : {0, 1, 31, 32, 45, 64, 71}) {
      std::vector<T> alone(x.size()), together(x.size());
      std::vector<float> sums(x.size(), 0.5F), sums_together = sums;
      for (int64_t at = 0; at < kRows * n; at += n) {
        kernels.rows->curve_backward_sum(kind, x.data() + at, dy.data() + at, {alone.data() + at},
                                         sums.data(), 1, n);
      }
      kernels.rows->curve_backward_sum(kind, x.data(), dy.data(), {together.data()},
                                       sums_together.data(), kRows, n);
      ASSERT_TRUE(same_bits(alone, together) && same_bits(sums, sums_together))
          << level << " curve " << i << " n " << n;
    }
  }
}

TEST_P(Maps, SumsOfRowsAreThoseOfEach) {
  expect_same_together<float>(GetParam().f32, GetParam().name);
  expect_same_together<bfloat16>(GetParam().bf16, GetParam().name);
}

TEST_P(Maps, AreTheSamePastTheCaches) {
  expect_same_past<float>(GetParam().f32, GetParam().name);
  expect_same_past<double>(GetParam().f64, GetParam().name);
  expect_same_past<bfloat16>(GetParam().bf16, GetParam().name);
}

// To the bit what it is in a row of its own, wherever in a row it stands.
template <typename T>
void expect_same_alone(const Kernels<T>& kernels, const std::string& level) {
  const std::vector<T> x = drawn<T>(1), y = drawn<T>(2), z = drawn<T>(4);
  for (const Function<T>& f : functions(kernels)) {
    // One number for the whole row is another row's of its own.
    if (f.name.find("steps") != std::string::npos && !f.name.ends_with("steps 3")) continue;
    if (f.name.ends_with("sum of rows")) continue;  // of several rows at once
    std::vector<T> first(kMost), second(kMost, T(8.0F));
    std::vector<float> sums(kMost, 0.5F);
    for (int64_t i = 0; i < kMost; ++i) {
      std::vector<float> sum{0.5F};
      f.call(x.data() + i, y.data() + i, z.data() + i, {first.data() + i}, {second.data() + i}, sum,
             1);
      sums[static_cast<size_t>(i)] = sum[0];
    }
    for (int64_t n = 1; n <= kMost; ++n) {
      const int64_t from = (kMost - n) * 3 / 7;
      std::vector<T> a(first), b(second);
      std::vector<float> both(kMost, 0.5F);
      std::fill_n(a.begin() + from, n, T(7.0F));
      std::fill_n(b.begin() + from, n, T(8.0F));
      f.call(x.data() + from, y.data() + from, z.data() + from, {a.data() + from},
             {b.data() + from}, both, n);
      ASSERT_TRUE(same_bits(a, first) && same_bits(b, second))
          << level << " " << f.name << " " << n << " elements from " << from << " on";
      ASSERT_TRUE(std::memcmp(both.data(), sums.data() + from, static_cast<size_t>(n) * 4) == 0)
          << level << " " << f.name << " " << n << " elements from " << from << " on";
    }
  }
}

TEST_P(Maps, AnElementIsTheSameAlone) {
  expect_same_alone<float>(GetParam().f32, GetParam().name);
  expect_same_alone<double>(GetParam().f64, GetParam().name);
  expect_same_alone<bfloat16>(GetParam().bf16, GetParam().name);
}

// GELU, SiLU and SwiGLU, of bf16 less exact on AVX-512 (half_curves_test.cc): by how much more than
// its rounding a result may differ, given its operands.
double inexact_by(const std::string& level, const std::string& function, float value, float x,
                  float y, float z) {
  if (level == "v2" || level == "v3") return 0;
  const bool forward =
      function.starts_with("curve") && function.find("backward") == std::string::npos;
  for (const char* name : {"curve 0", "curve 1", "curve 3", "swiglu"}) {
    if (!function.starts_with(name)) continue;
    if (std::isinf(x)) return std::numeric_limits<double>::infinity();
    const double most = forward ? 0x1p-10 : std::abs(y) * std::max(1.0F, std::abs(z));
    return 0x1p-7 * std::abs(value) + 0x1p-12 * most;  // of GELU what is below 2^-22 is 0
  }
  return 0;
}

// Each result is float's, rounded once; sums are of what is not rounded.
TEST_P(Maps, OfBf16AreThoseOfFloatRounded) {
  std::vector<Function<float>> wide;
  add_half_functions(GetParam().f32, wide);
  std::vector<Function<bfloat16>> halves;
  add_half_functions(GetParam().bf16, halves);
  ASSERT_EQ(wide.size(), halves.size());
  std::vector<float> in[3];
  std::vector<bfloat16> half_in[3];
  for (uint64_t i = 0; i < 3; ++i) {
    half_in[i] = drawn<bfloat16>(i + 1);
    in[i].assign(half_in[i].begin(), half_in[i].end());
  }
  for (size_t f = 0; f < wide.size(); ++f) {
    for (const int64_t n : {1, 133, 300}) {
      std::vector<float> a(kMost), b(kMost), sums(kMost + 1, 0.5F), half_sums = sums;
      std::vector<bfloat16> half_a(kMost), half_b(kMost);
      wide[f].call(in[0].data(), in[1].data(), in[2].data(), a.data(), b.data(), sums, n);
      halves[f].call(half_in[0].data(), half_in[1].data(), half_in[2].data(), half_a.data(),
                     half_b.data(), half_sums, n);
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        for (const auto& [value, half] : {std::pair(a[i], half_a[i]), std::pair(b[i], half_b[i])}) {
          // The instruction takes numbers below the normal ones as 0.
          const float expected = std::abs(value) < std::numeric_limits<float>::min() ? 0 : value;
          const double apart =
              inexact_by(GetParam().name, wide[f].name, expected, in[0][i], in[1][i], in[2][i]);
          if (std::isinf(apart)) continue;
          if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(float{half})) << GetParam().name << " " << wide[f].name;
          } else if (std::abs(float{half}) >= std::numeric_limits<float>::min() || expected != 0) {
            const float rounded{bfloat16(expected)};
            ASSERT_TRUE(float{half} == rounded || std::abs(float{half} - rounded) <= apart)
                << GetParam().name << " " << wide[f].name << " n " << n << " at " << i;
          }
        }
        const double apart =
            inexact_by(GetParam().name, wide[f].name, sums[i] - 0.5F, in[0][i], in[1][i], in[2][i]);
        ASSERT_TRUE(sums[i] == half_sums[i] || std::abs(sums[i] - half_sums[i]) <= apart ||
                    std::isnan(sums[i]) || std::isinf(apart))
            << GetParam().name << " " << wide[f].name << " n " << n << " at " << i;
      }
    }
  }
}

// At each of bf16's 65,536 values, the instruction's zeros for what is below the normal numbers
// aside.
TEST_P(Maps, EveryBf16IsThatOfFloatRounded) {
  constexpr int64_t kAll = 65536;
  std::vector<bfloat16> x(kAll), y(kAll);
  for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(i);
  const std::vector<bfloat16> ones(kAll, bfloat16(1.0F));
  const std::vector<float> wide(x.begin(), x.end()), wide_ones(kAll, 1.0F);
  std::vector<float> value(kAll);
  const auto expect = [&](const std::string& name) {
    for (size_t i = 0; i < x.size(); ++i) {
      const float got{y[i]}, want{bfloat16(value[i])};
      constexpr float kLeast = std::numeric_limits<float>::min();
      const bool small = std::abs(value[i]) < kLeast && std::abs(got) <= kLeast;
      ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)) || small ||
                  std::abs(wide[i]) < kLeast)
          << GetParam().name << " " << name << " of " << wide[i] << ": " << got << ", not " << want;
    }
  };
  for (int i = 0; i <= static_cast<int>(Unary::kEluPlusOne); ++i) {
    const auto kind = static_cast<Unary>(i);
    GetParam().f32.vectors->unary(kind, 0.5F, 1.5F, wide.data(), value.data(), kAll);
    GetParam().bf16.vectors->unary(kind, 0.5F, 1.5F, x.data(), y.data(), kAll);
    expect("unary " + std::to_string(i));
    GetParam().f32.vectors->unary_backward(kind, 0.5F, 1.5F, wide.data(), wide_ones.data(),
                                           value.data(), kAll);
    GetParam().bf16.vectors->unary_backward(kind, 0.5F, 1.5F, x.data(), ones.data(), y.data(),
                                            kAll);
    expect("unary " + std::to_string(i) + " backward");
  }
  for (const Curve curve : {Curve::kRelu, Curve::kTanh, Curve::kSigmoid}) {
    const std::string name = "curve " + std::to_string(static_cast<int>(curve));
    GetParam().f32.rows->curve(curve, wide.data(), value.data(), kAll);
    GetParam().bf16.rows->curve(curve, x.data(), y.data(), kAll);
    expect(name);
    GetParam().f32.rows->curve_backward(curve, wide.data(), wide_ones.data(), value.data(), kAll);
    GetParam().bf16.rows->curve_backward(curve, x.data(), ones.data(), y.data(), kAll);
    expect(name + " backward");
  }
}

INSTANTIATE_TEST_SUITE_P(All, Maps, ::testing::ValuesIn(tables()),
                         [](const auto& level) { return level.param.name; });

// Ops whose result has just below 32 MiB, or above: pieces of two threads, which begin anywhere.
TEST(LargeMaps, AreAsSmallOnes) {
  testing::Bench bench(2);
  Context& cx = bench.context;
  constexpr int64_t kFrom = (int64_t{32} << 20) / 4, kPeriod = 1037;
  const auto made = [&](int64_t elements, uint64_t stream) {
    const Tensor x = Tensor::empty(cx.allocator, {elements}, DType::kF32);
    for (int64_t i = 0; i < elements; ++i) {
      x.data<float>()[i] =
          static_cast<float>(normal_at({9, stream}, static_cast<uint64_t>(i % kPeriod)));
    }
    return x;
  };
  const auto all = [&](int64_t n) {
    const Tensor x = made(n, 1), y = made(n, 2);
    return std::vector<Tensor>{ops::add(cx, x, y), ops::swiglu(cx, x, y), ops::exp(cx, x),
                               ops::activate(cx, x, ops::Activation::kGeluErf)};
  };
  const std::vector<Tensor> few = all(kPeriod);
  for (const int64_t n : {kFrom - 1, kFrom + 21}) {
    const std::vector<Tensor> many = all(n);
    for (size_t f = 0; f < few.size(); ++f) {
      for (int64_t at = 0; at < n; at += kPeriod) {
        const auto count = static_cast<size_t>(std::min(kPeriod, n - at));
        ASSERT_EQ(std::memcmp(many[f].data<float>() + at, few[f].data<float>(), count * 4), 0)
            << "op " << f << " of " << n << " elements, from " << at << " on";
      }
    }
  }
}

}  // namespace
}  // namespace weft::cpu
