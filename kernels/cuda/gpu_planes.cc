// Convolution, as products with the matrix of columns of one piece of the samples after the other,
// and pooling.
#include <algorithm>
#include <array>

#include "kernels/cpu/gemm.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

using Sizes = cpu::ConvolutionSizes;

ConvolutionWindow window_of(const Sizes& sizes) {
  ConvolutionWindow window{};
  for (size_t dim = 0; dim < 2; ++dim) {
    window.in[dim] = sizes.in[dim];
    window.out[dim] = sizes.out[dim];
    window.kernel[dim] = sizes.kernel[dim];
    window.stride[dim] = sizes.stride[dim];
    window.before[dim] = sizes.before[dim];
    window.dilation[dim] = sizes.dilation[dim];
  }
  return window;
}

PoolWindow window_of(const PoolSizes& sizes) {
  PoolWindow window{};
  for (size_t dim = 0; dim < 2; ++dim) {
    window.in[dim] = sizes.in[dim];
    window.out[dim] = sizes.out[dim];
    window.kernel[dim] = sizes.kernel[dim];
    window.stride[dim] = sizes.stride[dim];
    window.padding[dim] = sizes.padding[dim];
  }
  window.count_padding = sizes.count_padding;
  window.adaptive = sizes.adaptive;
  return window;
}

int64_t planes_of(const Tensor& x) { return x.dim(0) * x.dim(1); }

// Contiguous x seen in another shape, from an element on.
Tensor shaped(const Tensor& x, const Shape& shape, int64_t from = 0) {
  const Strides strides = row_major_strides(shape);
  return x.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), from);
}

// f(first sample, sizes of the piece) for the samples [begin, end); a sample takes columns and
// `beside` elements.
template <typename F>
void for_pieces(const Sizes& sizes, int64_t begin, int64_t end, int64_t beside, F f) {
  const int64_t of_sample = std::max(sizes.channels * sizes.taps() * sizes.places(), beside);
  const int64_t step = std::max<int64_t>(1, kColumnsMax / std::max<int64_t>(1, of_sample));
  for (int64_t first = begin; first < end; first += step) {
    Sizes piece = sizes;
    piece.samples = std::min(step, end - first);
    f(first, piece);
  }
}
template <typename F>
void for_pieces(const Sizes& sizes, F f) {
  for_pieces(sizes, 0, sizes.samples, 0, f);
}

// The samples of a piece of contiguous x.
Tensor samples_of(const Sizes& piece, const Tensor& x, int64_t first) {
  const int64_t of_sample = piece.channels * piece.places_in();
  return shaped(x, {piece.samples * of_sample}, first * of_sample);
}

// Samples of y as products have them: [N, G, O / G, places].
Tensor results_of(const Sizes& piece, const Tensor& y, int64_t first) {
  return shaped(y, {piece.samples, piece.groups, piece.group_outputs(), piece.places()},
                first * piece.out_channels * piece.places());
}

int64_t rows_of_columns(const Sizes& sizes) { return sizes.group_channels() * sizes.taps(); }

// The weights as left sides: [G, O / G, C / G taps].
Tensor matrices_of(const Sizes& sizes, const Tensor& weight) {
  return shaped(weight, {sizes.groups, sizes.group_outputs(), rows_of_columns(sizes)});
}

}  // namespace

Tensor Gpu::columns_of(const Sizes& piece, const Tensor& x) {
  const Tensor columns =
      scratch({piece.samples, piece.groups, rows_of_columns(piece), piece.places()}, x.dtype());
  for_floating(x, "convolution", [&]<typename T>() {
    gather_columns(window_of(piece), x.data<T>(), columns.data<T>(), piece.samples * piece.channels,
                   stream_);
  });
  return columns;
}

void Gpu::convolve(const Sizes& sizes, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const Tensor& y) {
  activate_device();
  const Tensor from = contiguous(x), weights = matrices_of(sizes, contiguous(weight));
  for_pieces(sizes, [&](int64_t first, const Sizes& piece) {
    matmul(weights, columns_of(piece, samples_of(piece, from, first)), 1,
           results_of(piece, y, first));
  });
  if (!bias) return;
  const Tensor results = shaped(y, {sizes.samples, sizes.out_channels, sizes.places()});
  binary(ops::Arithmetic::kAdd, results, shaped(contiguous(bias), {sizes.out_channels, 1}),
         results);
}

void Gpu::convolve_back(const Sizes& sizes, const Tensor& dy, const Tensor& weight,
                        const Tensor& dx) {
  activate_device();
  const Tensor gradient = contiguous(dy);
  const Tensor turned = ops::transposed_view(matrices_of(sizes, contiguous(weight)));
  for_pieces(sizes, [&](int64_t first, const Sizes& piece) {
    const Tensor columns =
        scratch({piece.samples, piece.groups, rows_of_columns(piece), piece.places()}, dy.dtype());
    matmul(turned, results_of(piece, gradient, first), 1, columns);
    for_floating(dx, "convolution", [&]<typename T>() {
      scatter_columns(window_of(piece), columns.data<T>(),
                      dx.data<T>() + first * sizes.channels * sizes.places_in(),
                      piece.samples * piece.channels, stream_);
    });
  });
}

void Gpu::convolve_weights(const Sizes& sizes, int block_count, const Tensor& x, const Tensor& dy,
                           const Tensor& dweight) {
  activate_device();
  const int64_t blocks = std::clamp<int64_t>(block_count, 1, std::max<int64_t>(1, sizes.samples));
  weights_of_blocks(sizes, contiguous(x), contiguous(dy), blocks, 0, blocks, dweight);
}

// A product a sample, of one piece of the samples after the other, summed.
void Gpu::weights_of_blocks(const Sizes& sizes, const Tensor& x, const Tensor& dy, int64_t blocks,
                            int64_t first, int64_t last, const Tensor& dweight) {
  if (last - first > 1) {
    const int64_t half = first + (last - first + 1) / 2;
    const Tensor other = scratch(dweight.shape());
    weights_of_blocks(sizes, x, dy, blocks, first, half, dweight);
    weights_of_blocks(sizes, x, dy, blocks, half, last, other);
    return add(other, dweight);
  }
  const int64_t begin = cpu::block_start(sizes.samples, blocks, first);
  const int64_t end = cpu::block_start(sizes.samples, blocks, last);
  if (begin == end) return fill(dweight, 0);
  for_pieces(sizes, begin, end, sizes.weights(), [&](int64_t sample, const Sizes& piece) {
    const Tensor products =
        scratch({piece.samples, piece.groups, piece.group_outputs(), rows_of_columns(piece)});
    matmul(results_of(piece, dy, sample),
           ops::transposed_view(columns_of(piece, samples_of(piece, x, sample))), 1, products);
    const Tensor sum = sample == begin ? dweight : scratch(dweight.shape());
    sum_middle(products, {1, piece.samples, sizes.weights()}, 1, 1, sum);
    if (sample != begin) add(sum, dweight);
  });
}

void Gpu::max_pool(const PoolSizes& sizes, const Tensor& x, const Tensor& y, const Tensor& place) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(y, "max_pool", [&]<typename T>() {
    cuda::max_pool(window_of(sizes), from.data<T>(), y.data<T>(), place.data<int64_t>(),
                   planes_of(x), stream_);
  });
}

void Gpu::max_pool_backward(const PoolSizes& sizes, const Tensor& dy, const Tensor& place,
                            const Tensor& dx) {
  activate_device();
  const Tensor gradient = contiguous(dy), places = contiguous(place);
  for_floating(dx, "max_pool", [&]<typename T>() {
    cuda::max_pool_backward(window_of(sizes), gradient.data<T>(), places.data<int64_t>(),
                            dx.data<T>(), planes_of(dx), stream_);
  });
}

void Gpu::average_pool(const PoolSizes& sizes, const Tensor& x, const Tensor& y) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(y, "average_pool", [&]<typename T>() {
    cuda::average_pool(window_of(sizes), from.data<T>(), y.data<T>(), planes_of(x), stream_);
  });
}

void Gpu::average_pool_backward(const PoolSizes& sizes, const Tensor& dy, const Tensor& dx) {
  activate_device();
  const Tensor gradient = contiguous(dy);
  for_floating(dx, "average_pool", [&]<typename T>() {
    cuda::average_pool_backward(window_of(sizes), gradient.data<T>(), dx.data<T>(), planes_of(dx),
                                stream_);
  });
}

}  // namespace weft::cuda
