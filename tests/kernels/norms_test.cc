// The loops of norms.h at every level that this processor has: float against double, halves against
// float, rows at once against one after the other, past the caches against into them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/norms_levels.h"
#include "kernels/ops/random.h"

namespace weft::cpu {
namespace {

struct Loops {
  Level level;
  const NormKernels<float>* f32;
  const NormKernels<double>* f64;
  const NormKernels<bfloat16>* bf16;
};

std::vector<Loops> levels() {
  std::vector<Loops> all = {{Level::kV2, &norms_f32_v2, &norms_f64_v2, &norms_bf16_v2}};
  const auto add = [&](const Loops& loops) {
    if (supported(loops.level)) all.push_back(loops);
  };
  add({Level::kV3, &norms_f32_v3, &norms_f64_v3, &norms_bf16_v3});
  add({Level::kV4, &norms_f32_v4, &norms_f64_v4, &norms_bf16_v4});
  add({Level::kBf16, &norms_f32_v4, &norms_f64_v4, &norms_bf16_avx512bf16});
  return all;
}

class NormLevels : public ::testing::TestWithParam<Loops> {};

template <typename T>
using Row = std::vector<T>;

// Those of bfloat16 in every type, so that all start from the same values; the last one is -0.
template <typename T>
Row<T> drawn(int64_t n, uint64_t stream, double scale = 2) {
  Row<T> row(static_cast<size_t>(n));
  for (size_t i = 0; i < row.size(); ++i) {
    const bfloat16 half(scale * normal_at({8, stream}, i));
    row[i] = static_cast<T>(static_cast<float>(half));
  }
  if (!row.empty()) row.back() = T(-0.0F);
  return row;
}

// Of exponentials, as norms.h asks for.
template <typename W>
Row<W> room_for_row(int64_t n) {
  return Row<W>(static_cast<size_t>((n + 31) / 32 * 32));
}

struct Options {
  bool past = false;
  int64_t shift = 0;  // of the results' address, in elements
  int64_t rows = 3;
  bool at_once = true;
};

constexpr float kBehind = 7;  // stands behind what is written

// Every function over rows of S: the rows of results one after the other, and what is of W.
template <typename S>
struct Results {
  using W = typename NormKernels<S>::W;
  Row<S> rows;
  Row<W> sums;

  Results(const NormKernels<S>& k, int64_t n, const Options& options, const Row<S>& x)
      : Results(k, n, options, x, drawn<S>(options.rows * n, 2)) {}
  Results(const NormKernels<S>& k, int64_t n, const Options& options, const Row<S>& x,
          const Row<S>& dy) {
    const int64_t rows_at_once = options.at_once ? options.rows : 1, all = options.rows * n;
    const Row<W> gamma = drawn<W>(n, 3), beta = drawn<W>(n, 4);
    Row<W> mean(static_cast<size_t>(options.rows)), rstd(mean.size()), dgamma(gamma), dbeta(beta);
    struct alignas(64) Line {
      S values[64 / sizeof(S)];
    };
    std::vector<Line> room(static_cast<size_t>(all) * sizeof(S) / 64 + 3);
    S* const y = room.data()->values + options.shift;
    const auto keep = [&] {
      EXPECT_EQ(static_cast<float>(y[all]), kBehind);
      rows.insert(rows.end(), y, y + all);
    };
    const auto clear = [&] { std::fill_n(y, all + 1, S(kBehind)); };
    const auto each = [&](int64_t step, auto f) {
      clear();
      for (int64_t row = 0; row < options.rows; row += step) f(row, row * n);
      keep();
    };
    each(rows_at_once, [&](int64_t row, int64_t at) {
      k.layer_norm(x.data() + at, gamma.data(), beta.data(), W(1e-2), options.past, rows_at_once, n,
                   y + at, mean.data() + row, rstd.data() + row);
    });
    each(rows_at_once, [&](int64_t row, int64_t at) {
      k.layer_norm_backward(x.data() + at, dy.data() + at, gamma.data(), mean.data() + row,
                            rstd.data() + row, options.past, rows_at_once, n, y + at, dgamma.data(),
                            dbeta.data());
    });
    const auto keep_sums = [&](std::initializer_list<const Row<W>*> all_of) {
      for (const Row<W>* row : all_of) sums.insert(sums.end(), row->begin(), row->end());
    };
    keep_sums({&mean, &rstd, &dgamma, &dbeta});
    each(rows_at_once, [&](int64_t row, int64_t at) {
      k.rms_norm(x.data() + at, gamma.data(), W(1e-2), options.past, rows_at_once, n, y + at,
                 rstd.data() + row);
    });
    each(rows_at_once, [&](int64_t row, int64_t at) {
      k.rms_norm_backward(x.data() + at, dy.data() + at, gamma.data(), rstd.data() + row,
                          options.past, rows_at_once, n, y + at, dgamma.data());
    });
    keep_sums({&rstd, &dgamma});
    const bool in_place = std::is_same_v<S, W> && !options.past;
    Row<W> apart = room_for_row<W>(in_place ? 0 : n);
    each(rows_at_once, [&](int64_t, int64_t at) {
      k.softmax(x.data() + at, apart.data(), options.past, rows_at_once, n, y + at);
    });
    const Row<S> weights(y, y + all);
    each(1, [&](int64_t, int64_t at) {
      k.softmax_backward(weights.data() + at, dy.data() + at, options.past, n, y + at);
    });
    each(rows_at_once, [&](int64_t, int64_t at) {
      k.log_softmax(x.data() + at, options.past, rows_at_once, n, y + at);
    });
    const Row<S> logs(y, y + all);
    each(1, [&](int64_t, int64_t at) {
      k.log_softmax_backward(logs.data() + at, dy.data() + at, options.past, n, y + at);
    });
  }
  Results(const NormKernels<S>& k, int64_t n, const Options& options = {})
      : Results(k, n, options, drawn<S>(options.rows * n, 1)) {}
};

template <typename S>
Row<uint16_t> bits_of(const Row<S>& row) {
  Row<uint16_t> bits(row.size() * sizeof(S) / 2);
  std::copy_n(reinterpret_cast<const uint16_t*>(row.data()), bits.size(), bits.begin());
  return bits;
}
template <typename S>
void expect_same(const Results<S>& a, const Results<S>& b) {
  EXPECT_EQ(bits_of(a.rows), bits_of(b.rows));
  EXPECT_EQ(bits_of(a.sums), bits_of(b.sums));
}

constexpr int64_t kWidths[] = {1, 2, 7, 16, 17, 31, 32, 53, 64, 256, 769, 4099};

TEST_P(NormLevels, FloatFollowsDouble) {
  for (const int64_t n : kWidths) {
    const Results<double> expected(norms_f64_v2, n), wide(*GetParam().f64, n);
    const Results<float> actual(*GetParam().f32, n);
    const auto compare = [&](const auto& narrow, const auto& same, const auto& right) {
      ASSERT_EQ(narrow.size(), right.size());
      for (size_t i = 0; i < right.size(); ++i) {
        ASSERT_NEAR(narrow[i], right[i], 8e-6 * (1 + std::abs(right[i]))) << n << " at " << i;
        ASSERT_NEAR(same[i], right[i], 1e-13 * (1 + std::abs(right[i]))) << n << " at " << i;
      }
    };
    compare(actual.rows, wide.rows, expected.rows);
    compare(actual.sums, wide.sums, expected.sums);
  }
}

// A row of a million elements far from zero: a mean of 100 has no digit below 4e-6.
TEST_P(NormLevels, LongRowsKeepTheirDigits) {
  constexpr int64_t kLength = 1 << 20;
  Row<float> x = drawn<float>(kLength, 1, 1), y(x.size());
  for (float& value : x) value += 100;
  const Row<double> wide(x.begin(), x.end());
  const Row<float> ones(x.size(), 1), zeros(x.size(), 0);
  const Row<double> wide_ones(x.size(), 1), wide_zeros(x.size(), 0);
  Row<double> expected(x.size());
  double wide_mean = 0, wide_rstd = 0;
  norms_f64_v2.layer_norm(wide.data(), wide_ones.data(), wide_zeros.data(), 1e-5, false, 1, kLength,
                          expected.data(), &wide_mean, &wide_rstd);
  float mean = 0, rstd = 0;
  GetParam().f32->layer_norm(x.data(), ones.data(), zeros.data(), 1e-5F, false, 1, kLength,
                             y.data(), &mean, &rstd);
  EXPECT_NEAR(mean, wide_mean, 8e-6);
  EXPECT_NEAR(rstd, wide_rstd, 2e-7);
  double apart = 0;
  for (size_t i = 0; i < y.size(); ++i) apart = std::max(apart, std::abs(y[i] - expected[i]));
  EXPECT_LT(apart, 1e-5);
}

// To the bit, at addresses that allow it and at others. Rows of more than a page ask for the next.
TEST_P(NormLevels, PastTheCachesTheBitsAreTheSame) {
  for (const int64_t n : {1, 31, 64, 133, 160, 4096, 4099}) {
    const Results<float> near(*GetParam().f32, n);
    const Results<bfloat16> near_halves(*GetParam().bf16, n);
    for (const bool past : {false, true}) {
      for (const int64_t shift : {0, 3, 16}) {
        SCOPED_TRACE(testing::Message() << n << " shift " << shift << " past " << past);
        const Options options{.past = past, .shift = shift};
        expect_same(Results<float>(*GetParam().f32, n, options), near);
        expect_same(Results<bfloat16>(*GetParam().bf16, n, options), near_halves);
      }
    }
  }
}

// To the bit, whole lines of them or not, of a page, less or more, near or past the caches.
TEST_P(NormLevels, SeveralRowsAreOneAfterTheOther) {
  for (const int64_t n : {1, 17, 133, 256, 1111, 2112, 2125}) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 8, 19}) {
      SCOPED_TRACE(testing::Message() << rows << " rows of " << n);
      const Options at_once{.past = rows % 2 == 0, .rows = rows},
          one{.rows = rows, .at_once = false};
      expect_same(Results<float>(*GetParam().f32, n, at_once),
                  Results<float>(*GetParam().f32, n, one));
      expect_same(Results<bfloat16>(*GetParam().bf16, n, at_once),
                  Results<bfloat16>(*GetParam().bf16, n, one));
    }
  }
}

// Of each function the rounded result for the same halves in float; what follows the softmaxes
// starts from their rounded results, so it is compared function by function. Exponentials are as
// exact as that only below AVX-512 (softmaxes_of_halves_test.cc), and with AVX512_BF16 layer norm
// sums in another order (LayerNormOfHalvesFollowsDouble).
TEST_P(NormLevels, HalvesAreRoundedOnce) {
  const NormKernels<float>& single = *GetParam().f32;
  const NormKernels<bfloat16>& half = *GetParam().bf16;
  for (const int64_t n : kWidths) {
    SCOPED_TRACE(n);
    const size_t size = static_cast<size_t>(n);
    const Row<bfloat16> x = drawn<bfloat16>(n, 1), dy = drawn<bfloat16>(n, 2);
    const Row<float> wide_x = drawn<float>(n, 1), wide_dy = drawn<float>(n, 2);
    const Row<float> gamma = drawn<float>(n, 3), beta = drawn<float>(n, 4);
    Row<float> expected(size), sums(size), half_sums(size), more(size), half_more(size);
    Row<bfloat16> y(size), rounded(size);
    const auto check = [&](const char* what) {
      convert_at(GetParam().level).round_bf16(expected.data(), rounded.data(), n);
      EXPECT_EQ(bits_of(y), bits_of(rounded)) << what;
      EXPECT_EQ(half_sums, sums) << what;
      EXPECT_EQ(half_more, more) << what;
    };
    single.layer_norm(wide_x.data(), gamma.data(), beta.data(), 1e-2F, false, 1, n, expected.data(),
                      sums.data(), more.data());
    if (GetParam().level < Level::kBf16) {
      half.layer_norm(x.data(), gamma.data(), beta.data(), 1e-2F, false, 1, n, y.data(),
                      half_sums.data(), half_more.data());
      check("layer_norm");
    } else {
      half_sums = sums;
      half_more = more;
    }
    const float mean = sums[0], rstd = more[0];
    single.layer_norm_backward(wide_x.data(), wide_dy.data(), gamma.data(), &mean, &rstd, false, 1,
                               n, expected.data(), sums.data(), more.data());
    half.layer_norm_backward(x.data(), dy.data(), gamma.data(), &mean, &rstd, false, 1, n, y.data(),
                             half_sums.data(), half_more.data());
    check("layer_norm_backward");
    single.rms_norm(wide_x.data(), gamma.data(), 1e-2F, false, 1, n, expected.data(), sums.data());
    half.rms_norm(x.data(), gamma.data(), 1e-2F, false, 1, n, y.data(), half_sums.data());
    check("rms_norm");
    single.rms_norm_backward(wide_x.data(), wide_dy.data(), gamma.data(), &rstd, false, 1, n,
                             expected.data(), sums.data());
    half.rms_norm_backward(x.data(), dy.data(), gamma.data(), &rstd, false, 1, n, y.data(),
                           half_sums.data());
    check("rms_norm_backward");
    single.softmax_backward(wide_x.data(), wide_dy.data(), false, n, expected.data());
    half.softmax_backward(x.data(), dy.data(), false, n, y.data());
    check("softmax_backward");
    if (GetParam().level >= Level::kV4) continue;
    Row<float> apart = room_for_row<float>(n);
    single.softmax(wide_x.data(), apart.data(), false, 1, n, expected.data());
    half.softmax(x.data(), apart.data(), false, 1, n, y.data());
    check("softmax");
    single.log_softmax(wide_x.data(), false, 1, n, expected.data());
    half.log_softmax(x.data(), false, 1, n, y.data());
    check("log_softmax");
    single.log_softmax_backward(wide_x.data(), wide_dy.data(), false, n, expected.data());
    half.log_softmax_backward(x.data(), dy.data(), false, n, y.data());
    check("log_softmax_backward");
  }
}

// Halves about 0, and so far from it that their squares say little of what lies around the mean, or
// all the same.
TEST_P(NormLevels, LayerNormOfHalvesFollowsDouble) {
  constexpr double kEpsilon = 1e-5;
  for (const int64_t n : {1, 2, 31, 32, 33, 127, 128, 769, 4096, 5000}) {
    for (const double center : {0.0, 3.0, 5.0, 30.0, 1000.0}) {
      for (const double scale : {0.0, 1e-3, 1.0, 1e15}) {
        SCOPED_TRACE(testing::Message() << n << " center " << center << " scale " << scale);
        const Row<float> around = drawn<float>(n, 1, scale);
        Row<bfloat16> x(around.size()), y(x.size());
        const double middle = center * (scale == 0 ? 1 : scale);
        for (size_t i = 0; i < x.size(); ++i) x[i] = bfloat16(around[i] + middle);
        const Row<float> ones(x.size(), 1), zeros(x.size(), 0);
        float mean = 0, rstd = 0;
        GetParam().bf16->layer_norm(x.data(), ones.data(), zeros.data(),
                                    static_cast<float>(kEpsilon), false, 1, n, y.data(), &mean,
                                    &rstd);
        double sum = 0, squares = 0, most = 0;
        for (const bfloat16 v : x) {
          sum += static_cast<double>(v);
          most = std::max(most, std::abs(static_cast<double>(v)));
        }
        const double exact = sum / static_cast<double>(n);
        for (const bfloat16 v : x) squares += (v - exact) * (v - exact);
        const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + kEpsilon);
        EXPECT_NEAR(mean, exact, 3e-7 * most);
        EXPECT_NEAR(rstd, factor, 5e-6 * factor);
        for (size_t i = 0; i < x.size(); ++i) {
          const double right = (x[i] - exact) * factor;
          ASSERT_NEAR(y[i], right, 0x1p-8 * std::abs(right) + 4e-7 * most * factor + 1e-6) << i;
        }
      }
    }
  }
}

// Nothing to choose from, and rows that hold a NaN, wherever it stands.
template <typename S>
void expect_edges(const NormKernels<S>& k) {
  using W = typename NormKernels<S>::W;
  constexpr int64_t kLength = 45;
  Row<W> apart = room_for_row<W>(kLength);
  for (const bool past : {false, true}) {
    Row<S> x(kLength, S(-INFINITY)), y(kLength), logs(kLength);
    const auto run = [&] {
      k.softmax(x.data(), apart.data(), past, 1, kLength, y.data());
      k.log_softmax(x.data(), past, 1, kLength, logs.data());
    };
    run();
    for (int64_t i = 0; i < kLength; ++i) {
      EXPECT_EQ(static_cast<float>(y[static_cast<size_t>(i)]), 0);
      EXPECT_EQ(static_cast<float>(logs[static_cast<size_t>(i)]), 0);
    }
    for (const bool alone : {true, false}) {
      for (const size_t at : {0, 21, 44}) {
        std::fill(x.begin(), x.end(), S(alone ? -INFINITY : 1.0F));
        x[at] = S(NAN);
        run();
        for (size_t i = 0; i < x.size(); ++i) {
          EXPECT_TRUE(std::isnan(static_cast<float>(y[i]))) << alone << " " << at << " " << i;
          EXPECT_TRUE(std::isnan(static_cast<float>(logs[i]))) << alone << " " << at << " " << i;
        }
      }
    }
  }
}
TEST_P(NormLevels, SoftmaxesOfNothingAndOfNans) {
  expect_edges(*GetParam().f32);
  expect_edges(*GetParam().f64);
  expect_edges(*GetParam().bf16);
}

INSTANTIATE_TEST_SUITE_P(All, NormLevels, ::testing::ValuesIn(levels()), [](const auto& loops) {
  switch (loops.param.level) {
    case Level::kV2:
      return "v2";
    case Level::kV3:
      return "v3";
    case Level::kV4:
      return "v4";
    default:
      return "bf16";
  }
});

}  // namespace
}  // namespace weft::cpu
