// Convolution, as products with the matrix of columns of one piece of the samples after the other,
// and pooling.
#include <algorithm>
#include <array>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

using Sizes = cpu::ConvolutionSizes;

constexpr int64_t kColumnsMax = int64_t{1} << 26;  // elements of a piece's columns

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

// f(first sample, sizes of the piece)
template <typename F>
void for_pieces(const Sizes& sizes, F f) {
  const int64_t of_sample = sizes.channels * sizes.taps() * sizes.places();
  const int64_t step = std::clamp<int64_t>(kColumnsMax / std::max<int64_t>(1, of_sample), 1,
                                           std::max<int64_t>(1, sizes.samples));
  for (int64_t first = 0; first < sizes.samples; first += step) {
    Sizes piece = sizes;
    piece.samples = std::min(step, sizes.samples - first);
    f(first, piece);
  }
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
    const Shape samples{piece.samples * sizes.channels * sizes.places_in()};
    const Tensor in = shaped(from, samples, first * sizes.channels * sizes.places_in());
    matmul(weights, columns_of(piece, in), 1, results_of(piece, y, first));
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

// A product a sample; the products are summed over the samples.
void Gpu::convolve_weights(const Sizes& sizes, int block_count, const Tensor& x, const Tensor& dy,
                           const Tensor& dweight) {
  activate_device();
  const Tensor from = contiguous(x), gradient = contiguous(dy);
  const Shape matrices{sizes.samples, sizes.groups, sizes.group_outputs(), rows_of_columns(sizes)};
  const Tensor products = scratch(matrices, dweight.dtype());
  for_pieces(sizes, [&](int64_t first, const Sizes& piece) {
    const Shape samples{piece.samples * sizes.channels * sizes.places_in()};
    const Tensor in = shaped(from, samples, first * sizes.channels * sizes.places_in());
    const Tensor out = shaped(
        products, {piece.samples, piece.groups, piece.group_outputs(), rows_of_columns(piece)},
        first * sizes.weights());
    matmul(results_of(piece, gradient, first), ops::transposed_view(columns_of(piece, in)), 1, out);
  });
  sum_middle(products, {1, sizes.samples, sizes.weights()}, 1, block_count, dweight);
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
