// The products of kernels/cpu/tiles_amx_body.h: their instructions by what the manual says of them,
// the products by their definition, and, where the processor has AMX, both bit by bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/tiles.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/kernels/tiles_amx_on_cpu.h"
#include "tests/testing/amx_on_cpu.h"

namespace weft {
namespace {

using cpu::kTileLanes;
using cpu::TileKernels;
using testing::AmxOnCpu;

// One row of pairs by one column of them, onto `sum`.
template <typename Unit>
float pairs_product(const std::vector<std::pair<float, float>>& a,
                    const std::vector<std::pair<float, float>>& b, float sum) {
  const auto words = [](const std::vector<std::pair<float, float>>& pairs) {
    std::vector<uint32_t> all;
    for (const auto& [first, second] : pairs) {
      all.push_back(uint32_t{bfloat16(first).bits} | uint32_t{bfloat16(second).bits} << 16);
    }
    return all;
  };
  const std::vector<uint32_t> left = words(a), right = words(b);
  cpu::AmxShapes shapes;
  const std::array<std::array<size_t, 2>, 3> each{{{1, 1}, {1, a.size()}, {a.size(), 1}}};
  for (size_t i = 0; i < each.size(); ++i) {
    shapes.rows[i] = static_cast<uint8_t>(each[i][0]);
    shapes.row_bytes[i] = static_cast<uint16_t>(each[i][1] * 4);
  }
  Unit::shape(shapes);
  Unit::template load<0>(&sum, 4);
  Unit::template load<1>(left.data(), 4);
  Unit::template load<2>(right.data(), 4);
  Unit::template multiply_add<0, 1, 2>();
  Unit::template store<0>(&sum, 4);
  Unit::release();
  return sum;
}

template <typename Unit>
void expect_the_manual() {
  constexpr float kLarge = 0x1p24F, kSmallest = std::numeric_limits<float>::min();
  using Pairs = std::vector<std::pair<float, float>>;
  const Pairs ones{{1, 1}, {1, 1}};
  // First and second elements are summed apart: 2^24 + 1 is 2^24.
  EXPECT_EQ(pairs_product<Unit>({{kLarge, 1}, {1, -kLarge}}, ones, 0), 1);
  EXPECT_EQ(pairs_product<Unit>({{kLarge, -kLarge}, {1, 1}}, ones, 0), 1);
  // In the order of the pairs: the ones vanish in turn, or first become two.
  const Pairs three{{1, 1}, {1, 1}, {1, 1}};
  EXPECT_EQ(pairs_product<Unit>({{kLarge, 0}, {1, 0}, {1, 0}}, three, 0), kLarge);
  EXPECT_EQ(pairs_product<Unit>({{1, 0}, {1, 0}, {kLarge, 0}}, three, 0), kLarge + 2);
  // The old value comes last.
  EXPECT_EQ(pairs_product<Unit>({{1, 1}}, {{1, 1}}, kLarge), kLarge + 2);
  EXPECT_EQ(pairs_product<Unit>({{1, 0}, {1, 0}}, ones, kLarge), kLarge + 2);
  // A product is not rounded before it is added.
  const float near = 1 + 0x1p-7F;
  EXPECT_EQ(pairs_product<Unit>({{-1, 0}, {near, 0}}, {{1 + 0x1p-6F, 0}, {near, 0}}, 0), 0x1p-14F);
  // Subnormals are zero, coming in and going out, also that of the sum.
  EXPECT_EQ(pairs_product<Unit>({{kSmallest / 2, 0}}, {{0x1p10F, 0}}, 0), 0);
  EXPECT_EQ(pairs_product<Unit>({{kSmallest, 0}}, {{0.5F, 0}}, 0), 0);
  EXPECT_EQ(pairs_product<Unit>({{kSmallest, 0}}, {{1, 0}}, kSmallest / 2), kSmallest);
  EXPECT_TRUE(std::isnan(pairs_product<Unit>({{INFINITY, 0}}, {{0, 0}}, 0)));
}

TEST(Amx, TheMeaningIsTheManuals) { expect_the_manual<AmxOnCpu>(); }

// ---- products -----------------------------------------------------------------------------------

struct Sizes {
  int64_t keys, features;
};

// Elements that are told apart, NaN where none may be read.
struct Rows {
  std::vector<bfloat16> memory;
  int64_t stride;
  Rows(int64_t count, int64_t features, int salt) : stride(features + 3) {
    memory.assign(static_cast<size_t>(count * stride), bfloat16(NAN));
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < features; ++d) {
        memory[static_cast<size_t>(i * stride + d)] =
            bfloat16(static_cast<float>((i * 37 + d * 11 + salt) % 29 - 14) / 8);
      }
    }
  }
  cpu::TileRows<const bfloat16> rows() const { return {memory.data(), stride}; }
  double at(int64_t i, int64_t d) const {
    return double{float{memory[static_cast<size_t>(i * stride + d)]}};
  }
};

using Buffer = std::vector<float>;
Buffer buffer(int64_t floats, float value) { return Buffer(static_cast<size_t>(floats), value); }

// scores, collect and spread of one tile, with what they take packed by the table.
struct Products {
  Buffer scores, collected, spread;
};

constexpr int64_t kQueries = 61;

Products products_of(const TileKernels<bfloat16>& k, const Sizes& s) {
  const Rows keys(s.keys, s.features, 1), queries(kQueries, s.features, 5);
  const Rows weights(s.keys, kTileLanes, 7);
  const int64_t width = (s.features + 15) / 16 * 16, memory = (s.keys + 2) * (width + 2);
  Products out{buffer(s.keys * kTileLanes, NAN), buffer(s.features * kTileLanes, 2),
               buffer(s.keys * width, 3)};
  Buffer left = buffer(memory, NAN), right = buffer((width + 2) * kTileLanes, NAN);
  k.pack_lanes(queries.rows(), kQueries, s.features, right.data());
  k.scores(s.keys, s.features, 0.5F, k.by_feature(keys.rows(), s.keys, s.features, left.data()),
           right.data(), out.scores.data());
  // The right side of collect is laid out by pack_lanes' inverse: pairs of rows of weights.
  std::vector<uint32_t> pairs(static_cast<size_t>((s.keys + 1) / 2 * kTileLanes), 0);
  std::vector<bfloat16> elements;
  for (int64_t j = 0; j < s.keys; ++j) {
    for (int64_t q = 0; q < kTileLanes; ++q) {
      const bfloat16 weight = weights.memory[static_cast<size_t>(j * weights.stride + q)];
      elements.push_back(weight);
      pairs[static_cast<size_t>(j / 2 * kTileLanes + q)] |= uint32_t{weight.bits} << j % 2 * 16;
    }
  }
  const Buffer shrink = buffer(kTileLanes, 0.25F);
  const cpu::Operand by_row = k.by_row(keys.rows(), s.keys, s.features, left.data());
  k.collect(s.features, s.keys, by_row, pairs.data(), false, shrink.data(), out.collected.data());
  k.pack_rows(queries.rows(), kQueries, s.features, width, right.data());
  k.spread(s.keys, width, elements.data(), right.data(), false, out.spread.data());
  return out;
}

// The products above in double.
Products expected_products(const Sizes& s) {
  const Rows keys(s.keys, s.features, 1), queries(kQueries, s.features, 5);
  const Rows weights(s.keys, kTileLanes, 7);
  const int64_t width = (s.features + 15) / 16 * 16;
  Products out{buffer(s.keys * kTileLanes, 0), buffer(s.features * kTileLanes, 0),
               buffer(s.keys * width, 0)};
  const auto sum = [](int64_t count, auto&& term) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += term(i);
    return total;
  };
  for (int64_t q = 0; q < kTileLanes; ++q) {
    for (int64_t j = 0; j < s.keys; ++j) {
      out.scores[static_cast<size_t>(j * kTileLanes + q)] = static_cast<float>(
          q < kQueries
              ? 0.5 * sum(s.features, [&](int64_t d) { return keys.at(j, d) * queries.at(q, d); })
              : 0);
    }
    for (int64_t d = 0; d < s.features; ++d) {
      out.collected[static_cast<size_t>(d * kTileLanes + q)] = static_cast<float>(
          0.5 + sum(s.keys, [&](int64_t j) { return keys.at(j, d) * weights.at(j, q); }));
    }
  }
  for (int64_t j = 0; j < s.keys; ++j) {
    for (int64_t d = 0; d < width; ++d) {
      out.spread[static_cast<size_t>(j * width + d)] = static_cast<float>(
          3 + (d < s.features
                   ? sum(kQueries, [&](int64_t q) { return weights.at(j, q) * queries.at(q, d); })
                   : 0));
    }
  }
  return out;
}

void expect_near(const Buffer& actual, const Buffer& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    // Terms are multiples of 1/64 and small: every order of them gives the exact sum.
    ASSERT_EQ(actual[i], expected[i]) << what << " " << i;
  }
}

std::vector<Sizes> all_sizes() {
  std::vector<Sizes> all;
  for (const int64_t keys : {1, 2, 15, 16, 17, 31, 50, 64}) {
    for (const int64_t features : {1, 16, 31, 32, 33, 64, 80, 96, 112, 128}) {
      all.push_back({keys, features});
    }
  }
  return all;
}

TEST(Amx, ProductsAreTheirDefinition) {
  if (!cpu::supported(cpu::Level::kBf16)) GTEST_SKIP() << "packs by AVX512_BF16";
  flush_denormals();
  for (const Sizes& sizes : all_sizes()) {
    const std::string what =
        std::to_string(sizes.keys) + " keys of " + std::to_string(sizes.features);
    const Products actual = products_of(testing::tiles_amx_on_cpu(), sizes);
    const Products expected = expected_products(sizes);
    expect_near(actual.scores, expected.scores, "scores of " + what);
    expect_near(actual.collected, expected.collected, "collect of " + what);
    expect_near(actual.spread, expected.spread, "spread of " + what);
  }
}

// Runs the instructions themselves; without AMX nothing can.
TEST(Amx, TheProcessorDoesWhatTheMeaningSays) {
  if (!cpu::supported(cpu::Level::kAmx)) GTEST_SKIP() << "no AMX here";
  expect_the_manual<cpu::AmxUnit>();
  for (const Sizes& sizes : all_sizes()) {
    const Products actual = products_of(cpu::tiles_at<bfloat16>(cpu::Level::kAmx), sizes);
    const Products meant = products_of(testing::tiles_amx_on_cpu(), sizes);
    EXPECT_EQ(actual.scores, meant.scores);
    EXPECT_EQ(actual.collected, meant.collected);
    EXPECT_EQ(actual.spread, meant.spread);
  }
}

}  // namespace
}  // namespace weft
