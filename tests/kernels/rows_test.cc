// The row loops of every level of x86-64 that this processor has, float against double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/past_caches.h"
#include "kernels/cpu/rows_levels.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/testing/keep_denormals.h"

namespace weft::cpu {
namespace {

struct Level {
  std::string name;
  const RowKernels<float>* f32;
  const RowKernels<double>* f64;
};

std::vector<Level> levels() {
  std::vector<Level> all = {{"v2", &rows_f32_v2, &rows_f64_v2}};
  if (__builtin_cpu_supports("x86-64-v3")) all.push_back({"v3", &rows_f32_v3, &rows_f64_v3});
  if (__builtin_cpu_supports("x86-64-v4")) all.push_back({"v4", &rows_f32_v4, &rows_f64_v4});
  return all;
}

template <typename T>
using Row = std::vector<T>;

template <typename T>
Row<T> drawn(int64_t n, uint64_t stream, double scale = 2) {
  Row<T> row(static_cast<size_t>(n));
  for (size_t i = 0; i < row.size(); ++i) {
    // Rounded to float first, so that both types start from the same values.
    row[i] = static_cast<T>(static_cast<float>(scale * normal_at({8, stream}, i)));
  }
  return row;
}

// Every function over one row; the results one after the other.
template <typename T>
Row<T> everything(const RowKernels<T>& k, int64_t n) {
  const Row<T> x = drawn<T>(n, 1), dy = drawn<T>(n, 2), gamma = drawn<T>(n, 3);
  Row<T> all, y(x.size());
  const auto keep = [&] { all.insert(all.end(), y.begin(), y.end()); };
  for (int curve = 0; curve <= static_cast<int>(Curve::kSigmoid); ++curve) {
    k.curve(static_cast<Curve>(curve), x.data(), y.data(), n);
    keep();
    k.curve_backward(static_cast<Curve>(curve), x.data(), dy.data(), y.data(), n);
    keep();
  }
  const Row<T> weights = drawn<T>(n, 5);
  k.softmax_gradient(weights.data(), dy.data(), T(0.25), T(0.5), y.data(), n);
  keep();
  all.push_back(k.exp_shifted(x.data(), T(3), T(0.5), y.data(), n));
  keep();
  y = x;
  k.scale(T(3), y.data(), n);
  k.add(dy.data(), y.data(), n);
  k.multiply(gamma.data(), y.data(), n);
  keep();
  k.draw_kept(1, 2, 5, 32768, T(2), y.data(), n);
  keep();
  for (const T value : {k.log_sum_exp(x.data(), n), k.sum(x.data(), n), k.max(x.data(), n),
                        k.dot(x.data(), dy.data(), n)}) {
    all.push_back(value);
  }
  return all;
}

TEST(Rows, EveryLevelFollowsDouble) {
  for (const int64_t n : {1, 2, 7, 16, 17, 53, 256, 769}) {
    const Row<double> expected = everything(rows_f64_v2, n);
    for (const Level& level : levels()) {
      const Row<float> actual = everything(*level.f32, n);
      const Row<double> wide = everything(*level.f64, n);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(actual[i], expected[i], 8e-6 * (1 + std::abs(expected[i])))
            << level.name << " n " << n << " at " << i;
        ASSERT_NEAR(wide[i], expected[i], 1e-13 * (1 + std::abs(expected[i])))
            << level.name << " n " << n << " at " << i;
      }
    }
  }
}

// A row of a million elements far from zero.
TEST(Rows, LongSumsKeepTheirDigits) {
  constexpr int64_t kLength = 1 << 20;
  Row<float> x = drawn<float>(kLength, 1, 1);
  for (float& value : x) value += 100;
  const Row<double> wide(x.begin(), x.end());
  const double expected = rows_f64_v2.sum(wide.data(), kLength);
  for (const Level& level : levels()) {
    EXPECT_NEAR(level.f32->sum(x.data(), kLength) / expected, 1, 1.2e-7) << level.name;
  }
}

// The same row at sixteen different addresses gives the same bits.
TEST(Rows, TheAddressDoesNotMatter) {
  constexpr int64_t kLength = 133;
  const Row<float> x = drawn<float>(kLength, 1);
  for (const Level& level : levels()) {
    Row<float> buffer(kLength + 16);
    for (size_t shift = 0; shift < 16; ++shift) {
      std::copy(x.begin(), x.end(), buffer.begin() + static_cast<std::ptrdiff_t>(shift));
      const float* moved = buffer.data() + shift;
      EXPECT_EQ(level.f32->sum(moved, kLength), level.f32->sum(x.data(), kLength));
      EXPECT_EQ(level.f32->dot(moved, moved, kLength), level.f32->dot(x.data(), x.data(), kLength));
      EXPECT_EQ(level.f32->log_sum_exp(moved, kLength), level.f32->log_sum_exp(x.data(), kLength));
    }
  }
}

// Several rows at once are added to sums as one after the other: to the bit.
TEST(Rows, SeveralRowsAreOneAfterTheOther) {
  constexpr int64_t kRows = 11;
  for (const int64_t n : {1, 17, 133, 256}) {
    const Row<float> x = drawn<float>(kRows * n, 1), start = drawn<float>(n, 6);
    for (const Level& level : levels()) {
      for (int64_t rows = 0; rows <= kRows; ++rows) {
        Row<float> sum = start, one = start;
        level.f32->add_rows(x.data(), n, rows, sum.data(), n);
        for (int64_t row = 0; row < rows; ++row) level.f32->add(x.data() + row * n, one.data(), n);
        ASSERT_EQ(sum, one) << level.name << " " << rows << " rows of " << n;
      }
    }
  }
}

// A draw that is kept is the same whether its number is asked for or what it keeps; with elements
// that just stay, of a vector and of what is left behind the last one.
TEST(Rows, DroppedIsWhatIsNotKept) {
  constexpr int64_t kLength = 813;
  const RandomKey key{3, 4};
  const Row<float> x = drawn<float>(kLength, 1);
  alignas(64) float past_caches[kLength];
  const auto border = [&](uint64_t at) {
    int dropped = 65535;
    while (!kept_at(key, at, dropped)) --dropped;
    return dropped;
  };
  for (const uint64_t first : {uint64_t{0}, uint64_t{1}, uint64_t{6}, (uint64_t{1} << 35) - 9}) {
    for (const int dropped : {40000, border(first + 17), border(first + kLength - 1)}) {
      for (const Level& level : levels()) {
        Row<float> keep(x.size()), y(x.size());
        level.f32->draw_kept(3, 4, first, dropped, 2.0F, keep.data(), kLength);
        level.f32->drop(3, 4, first, dropped, 2.0F, x.data(), false, y.data(), kLength);
        {
          const PastCaches past(int64_t{1} << 30);
          level.f32->drop(3, 4, first, dropped, 2.0F, x.data(), past, past_caches, kLength);
        }
        for (size_t i = 0; i < x.size(); ++i) {
          const bool kept = kept_at(key, first + i, dropped);
          ASSERT_EQ(keep[i], kept ? 2.0F : 0.0F) << level.name << " " << first << " " << i;
          ASSERT_EQ(y[i], kept ? 2 * x[i] : 0.0F) << level.name << " " << first << " " << i;
          ASSERT_EQ(past_caches[i], y[i]) << level.name << " " << first << " " << i;
        }
      }
    }
  }
}

// Relative error of exp over its whole range, through exp_shifted.
TEST(Rows, ExpIsAccurate) {
  Row<float> x, y;
  for (int i = -87000; i <= 88000; i += 7) x.push_back(static_cast<float>(i) * 0.001F);
  y.resize(x.size());
  for (const Level& level : levels()) {
    level.f32->exp_shifted(x.data(), 0, 1, y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(y[i] / std::exp(static_cast<double>(x[i])), 1, 2.5e-7)
          << level.name << " " << x[i];
    }
    for (float value : {-0.0008F, -3.3F, -19.9F}) {  // wherever in the row it stands
      Row<float> same(31, value), powers(31);
      level.f32->exp_shifted(same.data(), 0, 1, powers.data(), 31);
      for (float power : powers) EXPECT_EQ(power, powers[0]) << level.name << " " << value;
    }
    const float edges[] = {-INFINITY, -1000, 1000, INFINITY, NAN};
    Row<float> line(64), results(64);  // whole vectors of them, and a rest
    for (size_t i = 0; i < line.size(); ++i) line[i] = edges[i % 5];
    level.f32->exp_shifted(line.data(), 0, 1, results.data(), 63);
    for (size_t i = 0; i < 63; ++i) {
      if (i % 5 == 4) {
        EXPECT_TRUE(std::isnan(results[i])) << level.name << " " << i;
      } else {
        EXPECT_EQ(results[i], i % 5 < 2 ? 0 : INFINITY) << level.name << " " << i;
      }
    }
  }
}

// Of GELU by erf, left of 0: |x| times the normal distribution, whose relative error math_body.h
// promises (AVX-512: gelu_avx512_body.h), and the slope.
TEST(Rows, GeluByErfIsAccurate) {
  Row<float> x, ones, y, slope;
  for (int i = -12900; i <= 12900; ++i) x.push_back(static_cast<float>(i) * 0.001003F);
  ones.assign(x.size(), 1);
  y.resize(x.size());
  slope.resize(x.size());
  const auto n = static_cast<int64_t>(x.size());
  for (const Level& level : levels()) {
    level.f32->curve(Curve::kGeluErf, x.data(), y.data(), n);
    level.f32->curve_backward(Curve::kGeluErf, x.data(), ones.data(), slope.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      const double at = x[i], normal = std::erfc(-at / std::sqrt(2.0)) / 2;
      const bool v4 = level.name == "v4";  // what is rounded last is the product
      const double bound = at > -4 ? (v4 ? 4.1e-7 : 7e-7) : (v4 ? 1.1e-6 : 5.1e-6);
      ASSERT_NEAR(y[i], at * normal, bound * std::abs(at) * normal) << level.name << " " << at;
      const double bell = std::exp(-at * at / 2) / std::sqrt(2 * std::acos(-1.0));
      ASSERT_NEAR(slope[i], normal + at * bell, v4 ? (at < 0 ? 1e-7 : 1.3e-7) : 2.5e-7)
          << level.name << " " << at;
    }
    const float behind[] = {-14, 14};  // where it is no normal number
    float values[2], slopes[2];
    level.f32->curve(Curve::kGeluErf, behind, values, 2);
    level.f32->curve_backward(Curve::kGeluErf, behind, ones.data(), slopes, 2);
    EXPECT_TRUE(values[0] == 0 && values[1] == 14 && slopes[0] == 0 && slopes[1] == 1)
        << level.name;
  }
}

// Far out a curve is 0 or x, its slope 0 or 1, and no product of 0 and infinity makes a NaN: but of
// infinities in SiLU, as in PyTorch.
template <typename T>
void expect_edges(const RowKernels<T>& k, const std::string& level) {
  const T infinite = std::numeric_limits<T>::infinity();
  const T edges[] = {-infinite, T(-3e38), T(-1e38), T(-1e15), T(-1e3), T(-0.0),
                     T(NAN),    T(1e3),   T(1e15),  T(1e38),  T(3e38), infinite};
  constexpr size_t kEdges = std::size(edges);
  constexpr int64_t kCount = 9 * kEdges;  // whole vectors of them, and a rest
  Row<T> x, y(kCount), slope(kCount);
  for (size_t i = 0; i < y.size(); ++i) x.push_back(edges[i % kEdges]);
  const Row<T> ones(x.size(), T(1));
  for (const Curve curve : {Curve::kGeluErf, Curve::kGeluTanh, Curve::kSilu}) {
    const std::string what = level + " curve " + std::to_string(static_cast<int>(curve)) + " of ";
    k.curve(curve, x.data(), y.data(), kCount);
    k.curve_backward(curve, x.data(), ones.data(), slope.data(), kCount);
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(y[i]) && std::isnan(slope[i])) << what << x[i];
        continue;
      }
      if (curve == Curve::kSilu && std::isinf(x[i])) {
        EXPECT_TRUE(x[i] > 0 ? y[i] == x[i] : std::isnan(y[i])) << what << x[i];
        EXPECT_TRUE(std::isnan(slope[i])) << what << x[i];
        continue;
      }
      EXPECT_EQ(y[i], x[i] > 0 ? x[i] : 0) << what << x[i];
      const double limit = x[i] == 0 ? 0.5 : x[i] > 0;
      EXPECT_NEAR(slope[i], limit, 2e-7 * limit) << what << x[i];
    }
  }
}
TEST(Rows, CurvesOfFarNumbersAreTheirLimits) {
  const auto expect = [](const std::string& what) {
    for (const Level& level : levels()) {
      expect_edges(*level.f32, level.name + what);
      expect_edges(*level.f64, level.name + " double" + what);
    }
  };
  const testing::KeepDenormals kept;
  expect("");
  flush_denormals();
  expect(" flushed");
}

}  // namespace
}  // namespace weft::cpu
