// Products by every library against sums in double; tiles, blocks and the choice of libraries.
#include "kernels/cpu/gemm.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/environment.h"
#include "kernels/cpu/gemm_choice.h"
#include "kernels/cpu/gemm_libraries.h"
#include "kernels/cpu/level.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/tensor.h"

namespace weft::cpu {
namespace {

// The whole process computes with `library`, and bf16 with `bf16`, while it lives.
class Forced {
 public:
  Forced(GemmLibrary library, GemmLibrary bf16) : before_(gemm_choice()) {
    GemmChoice choice;
    choice.libraries.fill(library);
    choice.libraries.back() = bf16;
    choose_gemm(choice);
  }
  ~Forced() { choose_gemm(before_); }
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;

 private:
  const GemmChoice before_;
};

constexpr GemmLibrary kLibraries[] = {GemmLibrary::kOpenBlas, GemmLibrary::kOneDnn};
// Of bf16; one that this processor cannot run is widened.
constexpr GemmLibrary kOfBf16[] = {GemmLibrary::kOneDnn, GemmLibrary::kWidened,
                                   GemmLibrary::kPairs};

template <typename T>
std::vector<T> drawn(int64_t count, uint64_t stream) {
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>(static_cast<float>(normal_at({5, stream}, i)));
  }
  return values;
}

struct Sizes {
  int64_t m, n, k;
};
// The last one is, by OpenBLAS, a product in parts of the sums.
constexpr Sizes kSizes[] = {{1, 1, 1},      {1, 300, 70},  {7, 5, 3},       {64, 64, 64},
                            {33, 129, 1},   {300, 7, 200}, {130, 300, 110}, {10, 50, 801},
                            {53, 97, 1540}, {20, 40, 6007}};

// How far a sum of k terms may be off, in units of the sum of the terms' magnitudes.
template <typename Out, typename S>
double tolerance(int64_t k) {
  const double rounding = std::is_same_v<Out, bfloat16> ? 0x1p-8 : 0;
  return rounding + static_cast<double>(std::numeric_limits<S>::epsilon()) *
                        (2 + std::sqrt(static_cast<double>(k)));
}

// One product with its row strides wider than the rows, and what is between them left alone.
template <typename T, typename Out>
void check(const Sizes& s, bool a_transposed, bool b_transposed, bool accumulate, Sum<T> factor) {
  ThreadPool pool(2);
  const int64_t lda = (a_transposed ? s.m : s.k) + 3, ldb = (b_transposed ? s.k : s.n) + 5;
  const int64_t ldc = s.n + 2;
  const auto a = drawn<T>((a_transposed ? s.k : s.m) * lda, 1);
  const auto b = drawn<T>((b_transposed ? s.n : s.k) * ldb, 2);
  const auto before = drawn<Out>(s.m * ldc, 3);
  auto out = before;
  const Matrix<T> ma{a.data(), lda, a_transposed}, mb{b.data(), ldb, b_transposed};
  gemm(pool, s.m, s.n, s.k, ma, mb, out.data(), ldc, accumulate, factor);
  for (int64_t row = 0; row < s.m; ++row) {
    for (int64_t column = 0; column < ldc; ++column) {
      const size_t at = static_cast<size_t>(row * ldc + column);
      if (column >= s.n) {
        ASSERT_EQ(static_cast<double>(out[at]), static_cast<double>(before[at]))
            << "between the rows";
        continue;
      }
      const double first = accumulate ? static_cast<double>(before[at]) : 0;
      double sum = first, magnitude = std::abs(first);
      for (int64_t i = 0; i < s.k; ++i) {
        const double term = static_cast<double>(factor) *
                            static_cast<double>(*ma.from(row, i).data) *
                            static_cast<double>(*mb.from(i, column).data);
        sum += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(static_cast<double>(out[at]), sum, (tolerance<Out, Sum<T>>(s.k)) * magnitude)
          << s.m << " x " << s.n << " x " << s.k << (a_transposed ? " T" : " N")
          << (b_transposed ? "T" : "N") << " at " << row << ", " << column;
    }
  }
}

template <typename T, typename Out = T>
void check_all() {
  for (const Sizes& sizes : kSizes) {
    for (int form = 0; form < 4; ++form) {
      check<T, Out>(sizes, form / 2 != 0, form % 2 != 0, false, 1);
      check<T, Out>(sizes, form / 2 != 0, form % 2 != 0, true, 0.5F);
    }
  }
}

TEST(Gemm, EveryLibraryMultiplies) {
  for (const GemmLibrary library : kLibraries) {
    const Forced forced(library, GemmLibrary::kWidened);
    check_all<float>();
  }
  for (const GemmLibrary library : kOfBf16) {
    const Forced forced(GemmLibrary::kOpenBlas, library);
    check_all<bfloat16, float>();
    check_all<bfloat16>();
  }
  check_all<double>();
}

// The same matrix stored the other way round.
std::vector<bfloat16> turned(const std::vector<bfloat16>& x, int64_t rows, int64_t columns) {
  std::vector<bfloat16> result(x.size());
  for (int64_t i = 0; i < rows * columns; ++i) {
    result[static_cast<size_t>(i % columns * rows + i / columns)] = x[static_cast<size_t>(i)];
  }
  return result;
}

TEST(Gemm, PairsHaveTheSameBitsHoweverAProductIsCutAndStored) {
  if (!supported(Level::kBf16)) GTEST_SKIP() << "no AVX512_BF16 here";
  const Forced forced(GemmLibrary::kOpenBlas, GemmLibrary::kPairs);
  const Sizes s{190, 210, 901};
  const auto a = drawn<bfloat16>(s.m * s.k, 1), b = drawn<bfloat16>(s.k * s.n, 2);
  const auto a_turned = turned(a, s.m, s.k), b_turned = turned(b, s.k, s.n);
  ThreadPool pool(2);
  std::vector<float> whole(static_cast<size_t>(s.m * s.n));
  gemm<bfloat16>(pool, s.m, s.n, s.k, {a.data(), s.k, false}, {b.data(), s.n, false}, whole.data(),
                 s.n);
  constexpr int64_t kRow = 61, kColumn = 57;  // where the part begins
  const int64_t rows = s.m - kRow, columns = s.n - kColumn;
  const Matrix<bfloat16> lefts[] = {{a.data(), s.k, false}, {a_turned.data(), s.m, true}};
  const Matrix<bfloat16> rights[] = {{b.data(), s.n, false}, {b_turned.data(), s.k, true}};
  for (const Matrix<bfloat16>& left : lefts) {
    for (const Matrix<bfloat16>& right : rights) {
      std::vector<float> part(static_cast<size_t>(rows * columns));
      gemm(pool, rows, columns, s.k, left.from(kRow, 0), right.from(0, kColumn), part.data(),
           columns);
      for (int64_t i = 0; i < rows * columns; ++i) {
        const int64_t row = kRow + i / columns, column = kColumn + i % columns;
        ASSERT_EQ(part[static_cast<size_t>(i)], whole[static_cast<size_t>(row * s.n + column)])
            << i << ' ' << left.transposed << right.transposed;
      }
    }
  }
}

// Of a transposed left side: large ones are written past the caches, where their lines are whole.
TEST(Gemm, GradientsOfWeightsHaveTheBitsOfTheProduct) {
  const Forced forced(GemmLibrary::kOpenBlas, GemmLibrary::kPairs);
  const auto allocator = make_caching_allocator();
  ThreadPool pool(2);
  for (const Sizes& s : {Sizes{801, 672, 9}, {800, 657, 20}, {800, 672, 801}}) {
    const auto a = drawn<bfloat16>(s.m * s.k, 1), b = drawn<bfloat16>(s.k * s.n, 2);
    const auto a_turned = turned(a, s.m, s.k);
    const auto product = [&](const Matrix<bfloat16>& left) {
      const Tensor out = Tensor::zeros(*allocator, {s.m, s.n});
      gemm(pool, s.m, s.n, s.k, left, {b.data(), s.n, false}, out.data<float>(), s.n);
      return out.to_vector<float>();
    };
    EXPECT_EQ(product({a_turned.data(), s.m, true}), product({a.data(), s.k, false}));
  }
}

TEST(Gemm, NothingToSumIsZeroOrWhatWasThere) {
  ThreadPool pool(1);
  std::vector<float> out = {1, 2, 3, 4};
  gemm<float>(pool, 2, 2, 0, {nullptr, 0, false}, {nullptr, 2, false}, out.data(), 2, true);
  EXPECT_EQ(out, (std::vector<float>{1, 2, 3, 4}));
  gemm<float>(pool, 2, 1, 0, {nullptr, 0, false}, {nullptr, 2, false}, out.data(), 2);
  EXPECT_EQ(out, (std::vector<float>{0, 2, 0, 4}));
}

TEST(Gemm, TheBitsDoNotDependOnThePool) {
  for (const Sizes& s : {Sizes{200, 900, 130}, Sizes{20, 40, 6007}}) {
    const auto a = drawn<float>(s.m * s.k, 1), b = drawn<float>(s.k * s.n, 2);
    for (const GemmLibrary library : kLibraries) {
      const Forced forced(library, GemmLibrary::kWidened);
      for (const bool transposed : {false, true}) {
        std::vector<std::vector<float>> results;
        for (const int threads : {1, 2, 5}) {
          ThreadPool pool(threads);
          results.emplace_back(static_cast<size_t>(s.m * s.n));
          gemm<float>(pool, s.m, s.n, s.k, {a.data(), s.k, false},
                      {b.data(), transposed ? s.k : s.n, transposed}, results.back().data(), s.n);
        }
        EXPECT_EQ(results[0], results[1]);
        EXPECT_EQ(results[0], results[2]);
      }
    }
  }
}

// What a thread has turned around for the tiles of one product is not taken for another's, also
// where its first tile is none that is turned around: it is low, or has too many columns.
TEST(Gemm, ATransposedRightSideIsReadAnewByEachProduct) {
  const Forced forced(GemmLibrary::kOneDnn, GemmLibrary::kWidened);
  const auto check = [](const Sizes& s, int threads) {
    ThreadPool pool(threads);
    const auto a = drawn<float>(s.m * s.k, 1);
    auto b = drawn<float>(s.k * s.n, 2);
    std::vector<float> before(static_cast<size_t>(s.m * s.n)), after = before;
    const auto multiply = [&](std::vector<float>& out) {
      gemm<float>(pool, s.m, s.n, s.k, {a.data(), s.k, false}, {b.data(), s.k, true}, out.data(),
                  s.n);
    };
    multiply(before);
    for (float& x : b) x *= 2;
    multiply(after);
    for (float& x : before) x *= 2;
    EXPECT_TRUE(after == before) << s.m << " x " << s.n << " x " << s.k;
  };
  check({300, 100, 700}, 1);    // whose tiles share all columns
  check({130, 768, 768}, 3);    // tiles of 80 and 50 rows; the last thread begins with one of 50
  check({1024, 700, 6000}, 1);  // tiles of 384 and 316 columns
}

// The tiles that are handed out are those of the whole product.
TEST(Gemm, TilesAreTakenOnce) {
  const auto allocator = make_caching_allocator();
  ThreadPool pool(3);
  for (const Sizes& s : {Sizes{300, 1000, 40}, Sizes{5, 3, 0}, Sizes{1, 2000, 700}}) {
    const auto a = drawn<bfloat16>(s.m * s.k, 1), b = drawn<bfloat16>(s.k * s.n, 2);
    const Matrix<bfloat16> ma{a.data(), s.k, false}, mb{b.data(), s.n, false};
    for (const int blocks : {0, 4}) {
      std::vector<float> whole(static_cast<size_t>(s.m * s.n)), taken = whole;
      gemm_in_blocks(pool, *allocator, blocks, s.m, s.n, s.k, ma, mb, whole.data());
      gemm_tiles<bfloat16>(pool, *allocator, blocks, s.m, s.n, s.k, ma, mb,
                           [&](const GemmTile& tile, const float* sums) {
                             for (int64_t i = 0; i < tile.rows * tile.columns; ++i) {
                               const int64_t row = tile.row + i / tile.columns;
                               const int64_t column = tile.column + i % tile.columns;
                               taken[static_cast<size_t>(row * s.n + column)] += sums[i];
                             }
                           });
      EXPECT_EQ(taken, whole);
    }
  }
}

TEST(Gemm, DoneSeesEveryElementOnce) {
  const auto allocator = make_caching_allocator();
  ThreadPool pool(3);
  for (const Sizes& s :
       {Sizes{300, 1000, 40}, Sizes{5, 3, 0}, Sizes{1, 2000, 700}, Sizes{20, 40, 6007}}) {
    const auto a = drawn<float>(s.m * s.k, 1), b = drawn<float>(s.k * s.n, 2);
    std::vector<float> plain(static_cast<size_t>(s.m * s.n)), out = plain;
    const Matrix<float> ma{a.data(), s.k, false}, mb{b.data(), s.n, false};
    for (const int blocks : {0, 4}) {
      gemm_in_blocks(pool, *allocator, blocks, s.m, s.n, s.k, ma, mb, plain.data());
      gemm_in_blocks(pool, *allocator, blocks, s.m, s.n, s.k, ma, mb, out.data(),
                     [&](const GemmTile& tile) {
                       for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
                         for (int64_t i = 0; i < tile.columns; ++i) {
                           out[static_cast<size_t>(row * s.n + tile.column + i)] += 1;
                         }
                       }
                     });
      for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], plain[i] + 1) << i;
    }
  }
}

// Blocks spread over ranks: each computes its node of the tree from its part of k alone, and the
// results are added in pairs, as a reduction over a tree of ranks does.
TEST(Gemm, BlocksGiveTheSameBitsHoweverTheyAreSpread) {
  constexpr int kBlocks = 8;
  const auto allocator = make_caching_allocator();
  const Sizes s{40, 70, 333};
  const auto a = drawn<float>(s.m * s.k, 1), b = drawn<float>(s.k * s.n, 2);
  std::vector<float> whole(static_cast<size_t>(s.m * s.n));
  ThreadPool pool(2);
  gemm_in_blocks<float>(pool, *allocator, kBlocks, s.m, s.n, s.k, {a.data(), s.k, false},
                        {b.data(), s.n, false}, whole.data());
  for (const int ranks : {1, 2, 4, 8}) {
    std::vector<std::vector<float>> parts;
    for (int rank = 0; rank < ranks; ++rank) {
      const int first = kBlocks / ranks * rank, last = kBlocks / ranks * (rank + 1);
      const int64_t begin = block_start(s.k, kBlocks, first);
      const int64_t length = block_start(s.k, kBlocks, last) - begin;
      // What this rank holds: its columns of a and rows of b, in memory of their own.
      std::vector<float> own_a;
      for (int64_t row = 0; row < s.m; ++row) {
        const auto from = a.begin() + row * s.k + begin;
        own_a.insert(own_a.end(), from, from + length);
      }
      const std::vector<float> own_b(b.begin() + begin * s.n, b.begin() + (begin + length) * s.n);
      ThreadPool own_pool(1 + rank % 2);
      parts.emplace_back(whole.size());
      gemm_node<float>(own_pool, *allocator, kBlocks, first, last, s.m, s.n, s.k,
                       {own_a.data(), length, false}, {own_b.data(), s.n, false},
                       parts.back().data());
    }
    for (int apart = 1; apart < ranks; apart *= 2) {
      for (int rank = 0; rank + apart < ranks; rank += 2 * apart) {
        auto& sum = parts[static_cast<size_t>(rank)];
        const auto& other = parts[static_cast<size_t>(rank + apart)];
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
      }
    }
    EXPECT_EQ(parts[0], whole) << ranks << " ranks";
  }
}

TEST(GemmChoice, TextAndBack) {
  GemmChoice choice;
  choice.libraries = {GemmLibrary::kOneDnn, GemmLibrary::kOpenBlas, GemmLibrary::kOneDnn,
                      GemmLibrary::kWidened};
  EXPECT_EQ(to_string(choice), "large=onednn,small=openblas,thin=onednn,bf16=widened");
  EXPECT_EQ(parse_gemm_choice(to_string(choice), GemmChoice()).value(), choice);
  EXPECT_EQ(parse_gemm_choice("bf16=pairs", choice).value().of(GemmClass::kBf16),
            GemmLibrary::kPairs);
  const GemmChoice changed = parse_gemm_choice("large=openblas", choice).value();
  EXPECT_EQ(to_string(changed), "large=openblas,small=openblas,thin=onednn,bf16=widened");
  for (const char* wrong : {"huge=onednn", "large=mkl", "large", "large=", "=onednn",
                            "large=widened", "large=pairs", "bf16=openblas"}) {
    const auto refused = parse_gemm_choice(wrong, choice);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_NE(refused.error().to_string().find(wrong), std::string::npos);
  }
}

TEST(GemmChoice, IsDecidedOnce) { EXPECT_EQ(gemm_choice(), gemm_choice()); }

TEST(GemmChoice, ClassesBySize) {
  EXPECT_EQ(gemm_class(64, 64, 64), GemmClass::kSmall);
  EXPECT_EQ(gemm_class(256, 384, 768), GemmClass::kLarge);
  EXPECT_EQ(gemm_class(1, 50257, 768), GemmClass::kThin);
  EXPECT_EQ(gemm_class(3000, 7, 4), GemmClass::kThin);
}

// Where a limit refuses OpenBLAS its buffer, it tries for ever.
TEST(Gemm, OpenBlasNeedsNoMemoryOnceItsBufferIsSetAside) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "what a sanitizer maps for itself is more than the limit";
#endif
  const auto multiplies = [] {
    ::alarm(20);
    const Forced forced(GemmLibrary::kOpenBlas, GemmLibrary::kWidened);
    reserve_buffers(1);
    std::vector<float> a(256 * 256, 1.0F), b(256 * 256, 1.0F), out(256 * 256);
    const rlimit limit{1 << 20, RLIM_INFINITY};  // less than there is: nothing more is granted
    ::setrlimit(RLIMIT_DATA, &limit);
    multiply(Product<float>{
        256, 256, 256, {a.data(), 256}, {b.data(), 256}, out.data(), 256, false, 1.0F});
    return out[5] == 256;
  };
  EXPECT_EXIT(std::_Exit(multiplies() ? 7 : 1), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace weft::cpu
