#include "kernels/cpu/convolution.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/cpu/convolution_onednn.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vectors.h"

namespace weft::cpu {
namespace {

constexpr int64_t kColumnElements = int64_t{1} << 18;  // of a piece, about
constexpr int64_t kPlacesMin = 128, kPlacesMax = 1024, kRowsWanted = 256, kItemsWanted = 8;

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// Channels of a group whose taps are [first, first + count).
struct Channels {
  int64_t first = 0, count = 0;
};
// Places of the result [first, first + count).
struct Places {
  int64_t first = 0, count = 0;
};

// Pieces of the places of the result for columns of so many rows.
class Pieces {
 public:
  Pieces(const ConvolutionSizes& s, int64_t rows) : places_(s.places()) {
    const int64_t wanted = kColumnElements / std::max<int64_t>(1, rows) / 64 * 64;
    length_ = std::clamp(wanted, kPlacesMin, kPlacesMax);
  }
  int64_t count() const { return parts(places_, length_); }
  int64_t length() const { return std::min(length_, places_); }
  Places operator[](int64_t index) const {
    return {index * length_, std::min(length_, places_ - index * length_)};
  }

 private:
  const int64_t places_;
  int64_t length_;
};

// Runs of channels of a group, whose taps make a product worth its while. They do not depend on the
// number of samples, which differs from mesh to mesh.
class Runs {
 public:
  explicit Runs(const ConvolutionSizes& s) : channels_(s.group_channels()) {
    const int64_t wanted = kRowsWanted / std::max<int64_t>(1, s.taps());
    length_ = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, channels_));
  }
  int64_t count() const { return parts(channels_, length_); }
  int64_t length() const { return length_; }
  Channels operator[](int64_t index) const {
    return {index * length_, std::min(length_, channels_ - index * length_)};
  }

 private:
  const int64_t channels_;
  int64_t length_;
};

// The part [begin, end) of a row of the result, at `height`; `column` is where it starts among the
// places.
struct RowPart {
  int64_t height, begin, end, column;
};
template <typename F>
void for_row_parts(const ConvolutionSizes& s, Places places, F f) {
  const int64_t width = s.out[1];
  for (int64_t at = places.first; at < places.first + places.count;) {
    const int64_t begin = at % width;
    const int64_t end = std::min(width, begin + places.first + places.count - at);
    f(RowPart{at / width, begin, end, at - places.first});
    at += end - begin;
  }
}

// Of the places [begin, end) of a row those whose tap lies inside of the input's row.
struct Inside {
  int64_t begin, end;
};
Inside inside(const ConvolutionSizes& s, const RowPart& part, int64_t tap) {
  const int64_t stride = s.stride[1], shift = s.before[1] - tap * s.dilation[1];
  const int64_t first = shift > 0 ? parts(shift, stride) : 0;
  const int64_t last = s.in[1] + shift > 0 ? parts(s.in[1] + shift, stride) : 0;
  const int64_t begin = std::clamp(first, part.begin, part.end);
  return {begin, std::clamp(last, begin, part.end)};
}

// f(row, part, height, inside, first): for each row of columns and part of a row of the result, the
// input's height (-1: outside), the places inside and where the first of them is in its row.
template <typename F>
void for_taps(const ConvolutionSizes& s, int64_t channels, Places places, F f) {
  for (int64_t row = 0; row < channels * s.taps(); ++row) {
    const int64_t tap = row % s.taps(), up = tap / s.kernel[1], across = tap % s.kernel[1];
    for_row_parts(s, places, [&](const RowPart& part) {
      int64_t height = part.height * s.stride[0] - s.before[0] + up * s.dilation[0];
      if (height >= s.in[0]) height = -1;
      const Inside in = inside(s, part, across);
      const int64_t first = in.begin * s.stride[1] - s.before[1] + across * s.dilation[1];
      f(row, part, std::max<int64_t>(height, -1), in, first);
    });
  }
}

// columns[rows of the channels' taps, places] from x [channels, in].
template <typename T>
void gather_columns(const ConvolutionSizes& s, const T* x, int64_t channels, Places places,
                    T* columns) {
  for_taps(s, channels, places,
           [&](int64_t row, const RowPart& part, int64_t height, Inside in, int64_t first) {
             T* to = columns + row * places.count + part.column;
             if (height < 0) {
               std::fill_n(to, part.end - part.begin, T{0});
               return;
             }
             const T* from = x + row / s.taps() * s.places_in() + height * s.in[1] + first;
             std::fill(to, to + in.begin - part.begin, T{0});
             T* middle = to + in.begin - part.begin;
             const int64_t count = in.end - in.begin, stride = s.stride[1];
             if (stride == 1) {
               std::copy_n(from, count, middle);
             } else {
               for (int64_t i = 0; i < count; ++i) middle[i] = from[i * stride];
             }
             std::fill(middle + count, to + part.end - part.begin, T{0});
           });
}

// The reverse: x += what the columns say of each place.
template <typename T>
void scatter_columns(const ConvolutionSizes& s, const T* columns, int64_t channels, Places places,
                     T* x) {
  for_taps(s, channels, places,
           [&](int64_t row, const RowPart& part, int64_t height, Inside in, int64_t first) {
             if (height < 0 || in.begin == in.end) return;
             const T* from = columns + row * places.count + part.column + in.begin - part.begin;
             T* to = x + row / s.taps() * s.places_in() + height * s.in[1] + first;
             const int64_t count = in.end - in.begin, stride = s.stride[1];
             if (stride == 1) {
               rows<T>().add(from, to, count);
             } else {
               for (int64_t i = 0; i < count; ++i) to[i * stride] += from[i];
             }
           });
}

// x itself is the matrix of columns.
bool is_pointwise(const ConvolutionSizes& s) {
  using Pair = ConvolutionSizes::Pair;
  return s.taps() == 1 && s.stride == Pair{1, 1} && s.before == Pair{0, 0} && s.in == s.out;
}

// The columns of a run of channels at some places, as the right side of a product: made in a buffer
// of the thread, or lying in x.
template <typename T>
class Columns {
 public:
  explicit Columns(const ConvolutionSizes& s) : s_(s) {}
  // x: the first of the channels in its sample.
  Matrix<T> of(const T* x, int64_t channels, Places places) {
    if (is_pointwise(s_)) return {x + places.first, s_.places_in(), false};
    gather_columns(s_, x, channels, places, buffer(channels, places));
    return {buffer_.data(), places.count, false};
  }
  T* buffer(int64_t channels, Places places) {
    const size_t elements = static_cast<size_t>(channels * s_.taps() * places.count);
    if (buffer_.size() < elements) buffer_.resize(elements);
    return buffer_.data();
  }

 private:
  const ConvolutionSizes& s_;
  std::vector<T> buffer_;
};

// parts[first] += the others of [first, last), in a tree.
template <typename T>
void merge(ThreadPool& pool, T* parts, int64_t size, int64_t first, int64_t last) {
  if (last - first <= 1) return;
  const int64_t middle = node_middle(first, last);
  merge(pool, parts, size, first, middle);
  merge(pool, parts, size, middle, last);
  pool.parallel_for(size, 16384, [&](int64_t begin, int64_t end) {
    rows<T>().add(parts + middle * size + begin, parts + first * size + begin, end - begin);
  });
}

// The gradient of the weights of a group that belong to a run of channels, of samples [begin, end).
template <typename T>
void sum_weights(ThreadPool& pool, const ConvolutionSizes& s, int64_t group, Channels channels,
                 int64_t begin, int64_t end, const T* x, const T* dy, T* dweight) {
  const int64_t outputs = s.group_outputs(), row = s.group_channels() * s.taps();
  const Pieces pieces(s, channels.count * s.taps());
  Columns<T> columns(s);
  T* out = dweight + group * outputs * row + channels.first * s.taps();
  for (int64_t i = 0; i < outputs; ++i) std::fill_n(out + i * row, channels.count * s.taps(), T{0});
  for (int64_t sample = begin; sample < end; ++sample) {
    const int64_t channel = sample * s.channels + group * s.group_channels() + channels.first;
    const int64_t output = sample * s.out_channels + group * outputs;
    for (int64_t piece = 0; piece < pieces.count(); ++piece) {
      const Places places = pieces[piece];
      Matrix<T> right = columns.of(x + channel * s.places_in(), channels.count, places);
      right.transposed = true;
      gemm<T, T>(pool, outputs, channels.count * s.taps(), places.count,
                 {dy + output * s.places() + places.first, s.places(), false}, right, out, row,
                 true);
    }
  }
}

// f(item, first sample, the one behind the last, where their sum goes) for the items of so many
// blocks of samples, whose sums are merged into dweight.
template <typename T, typename F>
void sum_blocks(ThreadPool& pool, Allocator& allocator, const ConvolutionSizes& s, int64_t blocks,
                int64_t items, T* dweight, F f) {
  const size_t bytes = static_cast<size_t>(blocks * s.weights()) * sizeof(T);
  T* sums = blocks > 1 ? static_cast<T*>(allocator.allocate(bytes)) : dweight;
  pool.parallel_for(blocks * items, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i / items;
      f(i % items, block_start(s.samples, blocks, block), block_start(s.samples, blocks, block + 1),
        sums + block * s.weights());
    }
  });
  if (blocks <= 1) return;
  merge(pool, sums, s.weights(), 0, blocks);
  std::copy_n(sums, s.weights(), dweight);
  allocator.release(sums, bytes);
}

// Blocks of samples which make up for too few items.
int64_t blocks_beside(const ConvolutionSizes& s, int64_t blocks, int64_t items) {
  const int64_t most = std::max<int64_t>(1, s.samples);
  return blocks > 1 ? blocks : std::clamp<int64_t>(kItemsWanted / items, 1, most);
}

template <typename T>
void sum_weights_onednn(ThreadPool& pool, Allocator& allocator, const ConvolutionSizes& s,
                        int64_t blocks, const T* x, const T* dy, float* dweight) {
  sum_blocks(pool, allocator, s, blocks_beside(s, blocks, 1), 1, dweight,
             [&](int64_t, int64_t begin, int64_t end, float* sum) {
               convolve_weights_onednn(s, begin, end, x, dy, sum);
             });
}

}  // namespace

template <typename T>
void convolve(ThreadPool& pool, const ConvolutionSizes& s, const T* x, const T* weight,
              const T* bias, T* y) {
  const int64_t outputs = s.group_outputs(), row = s.group_channels() * s.taps();
  const Pieces pieces(s, row);
  if (s.places() == 0 || outputs == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (onednn_convolves<T>(s)) return convolve_onednn(pool, s, x, weight, bias, y);
  }
  pool.parallel_for(s.samples * s.groups * pieces.count(), 1, [&](int64_t begin, int64_t end) {
    Columns<T> columns(s);
    for (int64_t item = begin; item < end; ++item) {
      const Places places = pieces[item % pieces.count()];
      const int64_t group = item / pieces.count();  // of all samples
      const T* from = x + group * s.group_channels() * s.places_in();
      const int64_t first = group % s.groups * outputs;  // output channel
      T* to = y + group * outputs * s.places() + places.first;
      gemm<T, T>(pool, outputs, places.count, row, {weight + first * row, row, false},
                 columns.of(from, s.group_channels(), places), to, s.places());
      for (int64_t o = 0; o < outputs && bias != nullptr; ++o, to += s.places()) {
        vectors<T>().binary(Binary::kAdd, to, 1, bias + first + o, 0, to, places.count);
      }
    }
  });
}

template <typename T>
void convolve_back(ThreadPool& pool, const ConvolutionSizes& s, const T* dy, const T* weight,
                   T* dx) {
  if constexpr (std::is_same_v<T, float>) {
    if (onednn_convolves_back<T>(s)) return convolve_back_onednn(pool, s, dy, weight, dx);
  }
  const Runs runs(s);
  const int64_t outputs = s.group_outputs(), row = s.group_channels() * s.taps();
  const Pieces pieces(s, runs.length() * s.taps());
  pool.parallel_for(s.samples * s.groups * runs.count(), 1, [&](int64_t begin, int64_t end) {
    Columns<T> columns(s);
    for (int64_t item = begin; item < end; ++item) {
      const Channels channels = runs[item % runs.count()];
      const int64_t group = item / runs.count();  // of all samples
      T* to = dx + (group * s.group_channels() + channels.first) * s.places_in();
      std::fill_n(to, channels.count * s.places_in(), T{0});
      const T* left = weight + group % s.groups * outputs * row + channels.first * s.taps();
      for (int64_t piece = 0; piece < pieces.count(); ++piece) {
        const Places places = pieces[piece];
        T* buffer = columns.buffer(channels.count, places);
        gemm<T, T>(pool, channels.count * s.taps(), places.count, outputs, {left, row, true},
                   {dy + group * outputs * s.places() + places.first, s.places(), false}, buffer,
                   places.count);
        scatter_columns(s, buffer, channels.count, places, to);
      }
    }
  });
}

template <typename T>
void convolve_weights(ThreadPool& pool, Allocator& allocator, const ConvolutionSizes& s,
                      int64_t blocks, const T* x, const T* dy, WeightSum<T>* dweight) {
  if (s.weights() == 0) return;
  const Runs runs(s);
  const int64_t items = s.groups * runs.count();
  if constexpr (std::is_same_v<T, float>) {
    if (onednn_convolves<T>(s))
      return sum_weights_onednn(pool, allocator, s, blocks, x, dy, dweight);
  }
  sum_blocks(pool, allocator, s, blocks_beside(s, blocks, items), items, dweight,
             [&](int64_t item, int64_t begin, int64_t end, T* sum) {
               sum_weights(pool, s, item / runs.count(), runs[item % runs.count()], begin, end, x,
                           dy, sum);
             });
}

bool convolves_in_bf16(const ConvolutionSizes& sizes) { return onednn_convolves<bfloat16>(sizes); }
bool convolves_back_in_bf16(const ConvolutionSizes& sizes) {
  return onednn_convolves_back<bfloat16>(sizes);
}

template <>
void convolve(ThreadPool& pool, const ConvolutionSizes& s, const bfloat16* x,
              const bfloat16* weight, const bfloat16* bias, bfloat16* y) {
  if (s.places() != 0) convolve_onednn(pool, s, x, weight, bias, y);
}
template <>
void convolve_back(ThreadPool& pool, const ConvolutionSizes& s, const bfloat16* dy,
                   const bfloat16* weight, bfloat16* dx) {
  convolve_back_onednn(pool, s, dy, weight, dx);
}
template <>
void convolve_weights(ThreadPool& pool, Allocator& allocator, const ConvolutionSizes& s,
                      int64_t blocks, const bfloat16* x, const bfloat16* dy, float* dweight) {
  if (s.weights() != 0) sum_weights_onednn(pool, allocator, s, blocks, x, dy, dweight);
}

#define WEFT_CONVOLVE(T)                                                                          \
  template void convolve(ThreadPool&, const ConvolutionSizes&, const T*, const T*, const T*, T*); \
  template void convolve_back(ThreadPool&, const ConvolutionSizes&, const T*, const T*, T*);      \
  template void convolve_weights(ThreadPool&, Allocator&, const ConvolutionSizes&, int64_t,       \
                                 const T*, const T*, T*);
WEFT_CONVOLVE(float)
WEFT_CONVOLVE(double)
#undef WEFT_CONVOLVE

}  // namespace weft::cpu
