// Products in cells: the sums of double, and bits that do not depend on what else is computed.
#include "kernels/cpu/gemm_cells.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/cpu/gemm_choice.h"
#include "kernels/ops/random.h"

namespace weft::cpu {
namespace {

using Extents = std::vector<Extent>;

class GemmCells : public ::testing::Test {
 protected:
  template <typename T>
  static std::vector<T> drawn(int64_t count, uint64_t stream) {
    std::vector<T> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<T>(static_cast<float>(normal_at({5, stream}, i)));
    }
    return values;
  }
  // [rows, columns] of those that the cells cover.
  template <typename T>
  std::vector<float> product(const CellCut& cut, const Matrix<T>& a, const Matrix<T>& b,
                             int64_t rows, int64_t columns, int threads = 2) {
    return products<T>(cut, {&a, 1}, {&b, 1}, rows, columns, threads);
  }
  // Of several that are added up.
  template <typename T>
  std::vector<float> products(const CellCut& cut, std::span<const Matrix<T>> a,
                              std::span<const Matrix<T>> b, int64_t rows, int64_t columns,
                              int threads = 2) {
    ThreadPool pool(threads);
    std::vector<float> out(static_cast<size_t>(rows * columns), -1);
    gemm_cells<T>(pool, *allocator_, cut, a, b, [&](const GemmTile& tile, const float* sums) {
      for (int64_t i = 0; i < tile.rows * tile.columns; ++i) {
        const int64_t row = tile.row + i / tile.columns, column = tile.column + i % tile.columns;
        out[static_cast<size_t>(row * columns + column)] = sums[i];
      }
    });
    return out;
  }
  static std::vector<Extents> one_by_one(const Extents& blocks) {
    std::vector<Extents> depth;
    for (const Extent& block : blocks) depth.push_back({block});
    return depth;
  }

  std::unique_ptr<Allocator> allocator_ = make_caching_allocator();
};

TEST_F(GemmCells, AreTheProduct) {
  constexpr int64_t kM = 96, kN = 80, kK = 64;
  const auto a = drawn<float>(kM * kK, 1), b = drawn<float>(kK * kN, 2);
  const CellCut cut{parts_of(equal_blocks(kM, 4), 16), parts_of(equal_blocks(kN, 2), 25),
                    one_by_one(equal_blocks(kK, 8))};
  for (const bool a_turned : {false, true}) {
    for (const bool b_turned : {false, true}) {
      const Matrix<float> left{a.data(), a_turned ? kM : kK, a_turned};
      const Matrix<float> right{b.data(), b_turned ? kK : kN, b_turned};
      const auto c = product(cut, left, right, kM, kN);
      EXPECT_EQ(product(cut, left, right, kM, kN, 1), c);
      for (int64_t i = 0; i < kM * kN; ++i) {
        double sum = 0;
        for (int64_t k = 0; k < kK; ++k) {
          const int64_t row = i / kN, column = i % kN;
          sum += double{a[static_cast<size_t>(a_turned ? k * kM + row : row * kK + k)]} *
                 double{b[static_cast<size_t>(b_turned ? column * kK + k : k * kN + column)]};
        }
        ASSERT_NEAR(c[static_cast<size_t>(i)], sum, 1e-4) << i;
      }
    }
  }
}

// As ranks of an axis hold them: some of the rows, of the columns, and of the sum, where the bits
// of both halves add up to those of the whole.
template <typename T>
class GemmShards : public GemmCells {};
using Types = ::testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(GemmShards, Types);

TYPED_TEST(GemmShards, HaveTheBitsOfTheWhole) {
  using T = TypeParam;
  constexpr int64_t kM = 160, kN = 128, kK = 192;
  const auto a = this->template drawn<T>(kM * kK, 1), b = this->template drawn<T>(kK * kN, 2);
  const Matrix<T> left{a.data(), kK, false}, right{b.data(), kN, false};
  const auto cells = [](int64_t size, int64_t blocks) {
    return parts_of(equal_blocks(size, blocks), 40);
  };
  const auto depth = [](int64_t size, int64_t blocks) {
    return GemmCells::one_by_one(equal_blocks(size, blocks));
  };
  const auto whole =
      this->product(CellCut{cells(kM, 4), cells(kN, 4), depth(kK, 4)}, left, right, kM, kN);
  const auto rows = this->product(CellCut{cells(kM / 2, 2), cells(kN, 4), depth(kK, 4)},
                                  left.from(kM / 2, 0), right, kM / 2, kN);
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), whole.begin() + kM / 2 * kN));
  // A shard of the columns lies with strides of its own.
  std::vector<T> shard;
  for (int64_t k = 0; k < kK; ++k) {
    shard.insert(shard.end(), b.begin() + k * kN + kN / 2, b.begin() + (k + 1) * kN);
  }
  const auto columns = this->product(CellCut{cells(kM, 4), cells(kN / 2, 2), depth(kK, 4)}, left,
                                     Matrix<T>{shard.data(), kN / 2, false}, kM, kN / 2);
  for (int64_t i = 0; i < kM * kN / 2; ++i) {
    ASSERT_EQ(columns[static_cast<size_t>(i)],
              whole[static_cast<size_t>(i / (kN / 2) * kN + kN / 2 + i % (kN / 2))]);
  }
  const auto half = [&](int64_t first) {
    return this->product(CellCut{cells(kM, 4), cells(kN, 4), depth(kK / 2, 2)}, left.from(0, first),
                         right.from(first, 0), kM, kN);
  };
  const auto lower = half(0), upper = half(kK / 2);
  for (size_t i = 0; i < whole.size(); ++i) ASSERT_EQ(lower[i] + upper[i], whole[i]) << i;
}

// Runs that lie apart are one block of the sum.
TEST_F(GemmCells, ABlockMayHaveSeveralRuns) {
  constexpr int64_t kM = 8, kN = 8, kK = 12;
  const auto a = drawn<float>(kM * kK, 1), b = drawn<float>(kK * kN, 2);
  const Matrix<float> left{a.data(), kK, false}, right{b.data(), kN, false};
  const Extents rows{{0, kM}}, columns{{0, kN}};
  const auto apart =
      product(CellCut{rows, columns, {{{0, 2}, {6, 2}}, {{2, 4}, {8, 4}}}}, left, right, kM, kN);
  const auto whole = product(CellCut{rows, columns, {{{0, kK}}}}, left, right, kM, kN);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(apart[i], whole[i], 1e-4);
}

// Two matrices of other widths side by side have the bits of one that holds the runs of both.
TEST_F(GemmCells, ABlockMayRunOverSeveralMatrices) {
  constexpr int64_t kM = 8, kN = 6, kK = 12, kLeft = 8;
  const Extents rows{{0, 3}, {3, 5}}, columns{{0, kN}};
  const CellCut one{rows, columns, {{{0, 4}, {8, 2}}, {{4, 4}, {10, 2}}}};
  const CellCut two{rows, columns, {{{0, 4, 0}, {0, 2, 1}}, {{4, 4, 0}, {2, 2, 1}}}};
  for (const bool a_turned : {false, true}) {
    for (const bool b_turned : {false, true}) {
      // The first kLeft of the sum and the rest, as they are stored.
      const auto halves = [](const std::vector<float>& all, int64_t width, bool by_lines) {
        std::array<std::vector<float>, 2> each;
        for (size_t i = 0; i < all.size(); ++i) {
          const auto at = static_cast<int64_t>(i);
          each[(by_lines ? at / width : at % width) < kLeft ? 0 : 1].push_back(all[i]);
        }
        return each;
      };
      const auto a = drawn<float>(kM * kK, 1), b = drawn<float>(kK * kN, 2);
      const auto lefts = halves(a, a_turned ? kM : kK, a_turned);
      const auto rights = halves(b, b_turned ? kK : kN, !b_turned);
      const auto matrix = [](const std::vector<float>& x, int64_t width, bool turned) {
        return Matrix<float>{x.data(), width, turned};
      };
      const std::array left = {matrix(lefts[0], a_turned ? kM : kLeft, a_turned),
                               matrix(lefts[1], a_turned ? kM : kK - kLeft, a_turned)};
      const std::array right = {matrix(rights[0], b_turned ? kLeft : kN, b_turned),
                                matrix(rights[1], b_turned ? kK - kLeft : kN, b_turned)};
      EXPECT_EQ(products<float>(two, left, right, kM, kN),
                product(one, matrix(a, a_turned ? kM : kK, a_turned),
                        matrix(b, b_turned ? kK : kN, b_turned), kM, kN));
    }
  }
}

}  // namespace
}  // namespace weft::cpu
