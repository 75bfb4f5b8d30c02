#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm_libraries.h"

namespace weft::cpu {
namespace {

// Of tiles: the largest and the smallest, and units that the library likes.
struct TileSizes {
  int64_t rows, columns, rows_min, columns_min, rows_unit, columns_unit;
  bool packs_a;       // for each tile of columns, as b for each of rows
  int64_t parts = 1;  // at most so many of a sum are computed apart
};
// These keep the result in a core's second-level cache and cost the libraries a few percent at
// most.
constexpr TileSizes kLibrarySizes{256, 384, 64, 128, 16, 64, true};
// Of a weight's gradient, whose a is transposed and whose result nothing reads at once: oneDNN
// packs both sides in each call, too.
constexpr TileSizes kTransposedLibrarySizes{512, 768, 64, 128, 16, 64, true};
// OpenBLAS packs both sides in each call; a result beyond the second-level cache costs it less, and
// so does adding up parts of long sums, of which each has larger tiles.
constexpr TileSizes kOpenBlasSizes{512, 768, 64, 128, 16, 64, true, 8};
// Our own product packs a where it is transposed.
constexpr TileSizes kPairsSizes{512, 384, 64, 96, 16, 48, false};
constexpr TileSizes kTransposedPairsSizes{384, 768, 96, 96, 48, 48, true};
// As many tiles as threads share, or more; and of more, a multiple of kTilesEven, that these get as
// many each. The same for any number of threads, as what a library adds up goes by the tile.
constexpr int64_t kTilesWanted = 8, kTilesEven = 4;
constexpr int64_t kPartsMax = 16;  // that are looked at
// What packing an element takes, in the time of so many products of two elements.
constexpr double kPacking = 24;
// ... and adding an element of a part of the sums to another's.
constexpr double kAddingPart = 40;
// Elements of parts that are kept until they are added up.
constexpr int64_t kPartsKept = int64_t{1} << 21;
constexpr int64_t kRowsAdded = 16;  // of them at a time

template <typename T>
TileSizes tile_sizes(const Matrix<T>& a) {
  const GemmChoice& choice = gemm_choice();
  if (!std::is_same_v<T, bfloat16>) {
    const bool openblas = choice.of(GemmClass::kLarge) == GemmLibrary::kOpenBlas;
    if (openblas) return kOpenBlasSizes;
    return a.transposed ? kTransposedLibrarySizes : kLibrarySizes;
  }
  if (choice.of(GemmClass::kBf16) != GemmLibrary::kPairs) return kLibrarySizes;
  return a.transposed ? kTransposedPairsSizes : kPairsSizes;
}

constexpr int64_t kWholeMax = int64_t{1} << 22;  // m n k
// Elements of a weight's gradient, an fp32 product of bf16 whose left side is transposed, that is
// written past the caches: the backward pass goes on with other things.
constexpr int64_t kPastCachesMin = int64_t{1} << 19;

// Equal tiles, but for the last in each direction, and equal parts of their sums: those by which
// the product takes least.
class Tiling {
 public:
  Tiling(int64_t m, int64_t n, int64_t k, const TileSizes& sizes) : m_(m), n_(n), k_(k) {
    if (n <= kWholeMax / k / m) {
      rows_ = m;
      columns_ = n;
      return;
    }
    const auto widths = extents(n, sizes.columns, sizes.columns_min, sizes.columns_unit);
    double least = std::numeric_limits<double>::infinity();
    for (int64_t rows : extents(m, sizes.rows, sizes.rows_min, sizes.rows_unit)) {
      for (int64_t columns : widths) {
        for (int64_t sums = 1; sums <= sizes.parts && (sums - 1) * n <= kPartsKept / m; sums *= 2) {
          const double time = time_of(rows, columns, sums, sizes.packs_a);
          if (time >= least) continue;
          least = time;
          rows_ = rows;
          columns_ = columns;
          sums_ = sums;
        }
      }
    }
  }

  int64_t count() const { return parts(m_, rows_) * parts(n_, columns_); }
  int64_t sums() const { return sums_; }  // parts of k
  // Down the columns first, so that a thread's tiles share b.
  GemmTile operator[](int64_t index) const {
    const int64_t down = parts(m_, rows_);
    const int64_t row = index % down * rows_, column = index / down * columns_;
    return {row, std::min(rows_, m_ - row), column, std::min(columns_, n_ - column)};
  }

 private:
  static int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
  // What the extent may be cut into, in equal parts: from the largest tiles down to the smallest,
  // but no more than kPartsMax without need.
  static std::vector<int64_t> extents(int64_t whole, int64_t most, int64_t least, int64_t unit) {
    std::vector<int64_t> all;
    const int64_t fewest = parts(whole, most);
    const int64_t parts_max = std::max(fewest, std::min(whole / least, kPartsMax));
    for (int64_t count = fewest; count <= parts_max; ++count) {
      all.push_back(parts(parts(whole, count), unit) * unit);
    }
    return all;
  }

  // Of the whole, by the largest tile; that of the products alone is 1.
  double time_of(int64_t rows, int64_t columns, int64_t sums, bool packs_a) const {
    const auto down = static_cast<double>(rows), across = static_cast<double>(columns);
    const int64_t tiles = parts(m_, rows) * parts(n_, columns) * sums;
    const int64_t turns = std::max(kTilesWanted, parts(tiles, kTilesEven) * kTilesEven);
    const double packing = kPacking * (1 / down + (packs_a ? 1 / across : 0));
    const double products = (1 + packing) * static_cast<double>(turns) * down * across /
                            (static_cast<double>(m_ * sums) * static_cast<double>(n_));
    return products + kAddingPart * static_cast<double>(sums - 1) / static_cast<double>(k_);
  }

  const int64_t m_, n_, k_;
  int64_t rows_ = 0, columns_ = 0, sums_ = 1;
};

// a b, of which one thread takes the tiles from `first` to `last`.
template <typename T>
struct TiledProduct {
  const Tiling& tiling;
  int64_t first, last;
  int64_t k;
  Matrix<T> a, b;
  bool past_caches = false;

  template <typename Out>
  void multiply(int64_t index, Out* out, int64_t out_stride, bool accumulate, Sum<T> factor) const {
    const GemmTile tile = tiling[index];
    Product<T, Out> product{
        tile.rows,  tile.columns, k,     a.from(tile.row, 0), b.from(0, tile.column), out,
        out_stride, accumulate,   factor};
    product.follows = index > first;
    product.same_b = product.follows && tiling[index - 1].column == tile.column;
    product.past_caches = past_caches;
    if (index + 1 < last) {
      const GemmTile next = tiling[index + 1];
      product.next_b = b.from(0, next.column);
      product.next_n = next.columns;
    }
    cpu::multiply(product);
  }
};

// As gemm, each part of the sums by tiles of its own; they are then added up in their order.
template <typename T>
void gemm_in_parts(ThreadPool& pool, const Tiling& tiling, int64_t m, int64_t n, int64_t k,
                   Matrix<T> a, Matrix<T> b, Sum<T>* out, int64_t out_stride, bool accumulate,
                   Sum<T> factor, const TileFunction& done) {
  const int64_t count = tiling.count(), parts = tiling.sums();
  thread_local std::vector<Sum<T>> kept;
  kept.resize(std::max(kept.size(), static_cast<size_t>((parts - 1) * m * n)));
  Sum<T>* const others = kept.data();
  pool.parallel_for(count * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const GemmTile tile = tiling[index % count];
      const int64_t part = index / count, first = block_start(k, parts, part);
      Product<T, Sum<T>> product{tile.rows,
                                 tile.columns,
                                 block_start(k, parts, part + 1) - first,
                                 a.from(tile.row, first),
                                 b.from(first, tile.column),
                                 out + tile.row * out_stride + tile.column,
                                 out_stride,
                                 accumulate,
                                 factor};
      if (part > 0) {
        product.out = others + ((part - 1) * m + tile.row) * n + tile.column;
        product.out_stride = n;
        product.accumulate = false;
      }
      multiply(product);
    }
  });
  pool.parallel_for((m + kRowsAdded - 1) / kRowsAdded, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kRowsAdded; first < std::min(m, end * kRowsAdded);
         first += kRowsAdded) {
      const int64_t rows = std::min(kRowsAdded, m - first);
      for (int64_t row = first; row < first + rows; ++row) {
        for (int64_t part = 1; part < parts; ++part) {
          Sum<T>* const sums = out + row * out_stride;
          const Sum<T>* const more = others + ((part - 1) * m + row) * n;
          for (int64_t i = 0; i < n; ++i) sums[i] += more[i];
        }
      }
      if (done) done({first, rows, 0, n});
    }
  });
}

template <typename T>
void node(ThreadPool& pool, Allocator& allocator, int64_t blocks, int64_t first, int64_t last,
          int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, Sum<T>* out) {
  const int64_t begin = block_start(k, blocks, first);
  if (last - first == 1) {
    gemm(pool, m, n, block_start(k, blocks, last) - begin, a, b, out, n);
    return;
  }
  const int64_t middle = node_middle(first, last);
  node(pool, allocator, blocks, first, middle, m, n, k, a, b, out);
  const size_t bytes = static_cast<size_t>(m * n) * sizeof(Sum<T>);
  auto* other = static_cast<Sum<T>*>(allocator.allocate(bytes));
  const int64_t skipped = block_start(k, blocks, middle) - begin;
  node(pool, allocator, blocks, middle, last, m, n, k, a.from(0, skipped), b.from(skipped, 0),
       other);
  pool.parallel_for(m * n, 16384, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) out[i] += other[i];
  });
  allocator.release(other, bytes);
}

// Rows of sums from `from` to `to`, rounded where Out is narrower.
template <typename Out, typename S>
void store(const S* from, Out* to, int64_t count) {
  if constexpr (std::is_same_v<Out, S>) {
    std::copy_n(from, count, to);
  } else {
    round(from, to, count);
  }
}

}  // namespace

template <typename T, typename Out>
void gemm(ThreadPool& pool, int64_t m, int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, Out* out,
          int64_t out_stride, bool accumulate, Sum<T> factor, const TileFunction& done) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (int64_t row = 0; row < m && !accumulate; ++row)
      std::fill_n(out + row * out_stride, n, Out(0.0F));
    if (done) done({0, m, 0, n});
    return;
  }
  const Tiling tiling(m, n, k, tile_sizes(a));
  if constexpr (std::is_same_v<Out, Sum<T>>) {
    if (tiling.sums() > 1) {
      gemm_in_parts(pool, tiling, m, n, k, a, b, out, out_stride, accumulate, factor, done);
      return;
    }
  }
  const bool past_caches =
      !std::is_same_v<T, Out> && a.transposed && !accumulate && n >= kPastCachesMin / m;
  pool.parallel_for(tiling.count(), 1, [&](int64_t begin, int64_t end) {
    const TiledProduct<T> tiles{tiling, begin, end, k, a, b, past_caches};
    for (int64_t index = begin; index < end; ++index) {
      const GemmTile tile = tiling[index];
      tiles.multiply(index, out + tile.row * out_stride + tile.column, out_stride, accumulate,
                     factor);
      if (done) done(tile);
    }
  });
}

template <typename T, typename Out>
void gemm_in_blocks(ThreadPool& pool, Allocator& allocator, int blocks, int64_t m, int64_t n,
                    int64_t k, Matrix<T> a, Matrix<T> b, Out* out, const TileFunction& done) {
  if (blocks <= 1 || m == 0 || n == 0) {
    gemm(pool, m, n, k, a, b, out, n, false, Sum<T>{1}, done);
    return;
  }
  gemm_tiles<T>(pool, allocator, blocks, m, n, k, a, b, [&](const GemmTile& tile, Sum<T>* sums) {
    for (int64_t row = 0; row < tile.rows; ++row) {
      store(sums + row * tile.columns, out + (tile.row + row) * n + tile.column, tile.columns);
    }
    if (done) done(tile);
  });
}

template <typename T>
void gemm_tiles(ThreadPool& pool, Allocator& allocator, int blocks, int64_t m, int64_t n, int64_t k,
                Matrix<T> a, Matrix<T> b, const TakeTile<T>& take) {
  if (m == 0 || n == 0) return;
  if (blocks > 1 || k == 0) {
    const size_t bytes = static_cast<size_t>(m * n) * sizeof(Sum<T>);
    auto* sums = static_cast<Sum<T>*>(allocator.allocate(bytes));
    node<T>(pool, allocator, std::max(1, blocks), 0, std::max(1, blocks), m, n, k, a, b, sums);
    pool.parallel_for(m, 1 + kWholeMax / 64 / n, [&](int64_t begin, int64_t end) {
      take({begin, end - begin, 0, n}, sums + begin * n);
    });
    allocator.release(sums, bytes);
    return;
  }
  TileSizes sizes = tile_sizes(a);
  sizes.parts = 1;
  const Tiling tiling(m, n, k, sizes);
  pool.parallel_for(tiling.count(), 1, [&](int64_t begin, int64_t end) {
    thread_local std::vector<Sum<T>> sums;
    const TiledProduct<T> tiles{tiling, begin, end, k, a, b};
    for (int64_t index = begin; index < end; ++index) {
      const GemmTile tile = tiling[index];
      sums.resize(std::max(sums.size(), static_cast<size_t>(tile.rows * tile.columns)));
      tiles.multiply(index, sums.data(), tile.columns, false, Sum<T>{1});
      take(tile, sums.data());
    }
  });
}

template <typename T>
void gemm_node(ThreadPool& pool, Allocator& allocator, int blocks, int first, int last, int64_t m,
               int64_t n, int64_t k, Matrix<T> a, Matrix<T> b, Sum<T>* out) {
  node<T>(pool, allocator, blocks, first, last, m, n, k, a, b, out);
}

#define WEFT_GEMM(T, Out)                                                                          \
  template void gemm(ThreadPool&, int64_t, int64_t, int64_t, Matrix<T>, Matrix<T>, Out*, int64_t,  \
                     bool, Sum<T>, const TileFunction&);                                           \
  template void gemm_in_blocks(ThreadPool&, Allocator&, int, int64_t, int64_t, int64_t, Matrix<T>, \
                               Matrix<T>, Out*, const TileFunction&);
#define WEFT_GEMM_SUMS(T)                                                                      \
  template void gemm_tiles(ThreadPool&, Allocator&, int, int64_t, int64_t, int64_t, Matrix<T>, \
                           Matrix<T>, const TakeTile<T>&);                                     \
  template void gemm_node(ThreadPool&, Allocator&, int, int, int, int64_t, int64_t, int64_t,   \
                          Matrix<T>, Matrix<T>, Sum<T>*);
WEFT_GEMM(float, float)
WEFT_GEMM(double, double)
WEFT_GEMM(bfloat16, float)
WEFT_GEMM(bfloat16, bfloat16)
WEFT_GEMM_SUMS(float)
WEFT_GEMM_SUMS(double)
WEFT_GEMM_SUMS(bfloat16)
#undef WEFT_GEMM
#undef WEFT_GEMM_SUMS

}  // namespace weft::cpu
