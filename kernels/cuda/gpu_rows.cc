// Norms, softmax, and rows taken by number.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

int64_t width_of(const Tensor& x) { return x.shape()[-1]; }
int64_t rows_of(const Tensor& x) { return ops::row_count(x.shape()); }
int64_t blocks_of(int block_count, const Tensor& x) {
  return std::clamp<int64_t>(block_count, 1, std::max<int64_t>(1, rows_of(x)));
}

}  // namespace

void Gpu::softmax(const Tensor& x, const Tensor& y) {
  activate_device();
  const Tensor from = contiguous(x);
  for_floating(y, "softmax", [&]<typename T>() {
    cuda::softmax(from.data<T>(), y.data<T>(), rows_of(x), width_of(x), stream_);
  });
}

void Gpu::softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) {
  activate_device();
  const Tensor value = contiguous(y), gradient = contiguous(dy);
  for_floating(dx, "softmax", [&]<typename T>() {
    cuda::softmax_backward(value.data<T>(), gradient.data<T>(), dx.data<T>(), rows_of(y),
                           width_of(y), stream_);
  });
}

void Gpu::layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon,
                     const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  activate_device();
  const Tensor from = contiguous(x), weight = weights(gamma), bias = weights(beta);
  for_floating(y, "layer_norm", [&]<typename T>() {
    norm<T>({.x = from.data<T>(),
             .residual = nullptr,
             .gamma = weight.data<float>(),
             .beta = bias.data<float>(),
             .epsilon = static_cast<float>(epsilon),
             .rows = rows_of(x),
             .width = width_of(x),
             .sum = nullptr,
             .y = y.data<T>(),
             .mean = mean.data<float>(),
             .rstd = rstd.data<float>()},
            stream_);
  });
}

void Gpu::layer_norm_backward(int block_count, const Tensor& x, const Tensor& dy,
                              const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                              const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
  activate_device();
  const Tensor from = contiguous(x), gradient = contiguous(dy), weight = weights(gamma);
  const int64_t blocks = blocks_of(block_count, x);
  const Tensor room = scratch(Shape{norm_backward_scratch(rows_of(x), width_of(x), blocks)});
  for_floating(dx, "layer_norm", [&]<typename T>() {
    norm_backward<T>({.x = from.data<T>(),
                      .dy = gradient.data<T>(),
                      .dsum = nullptr,
                      .gamma = weight.data<float>(),
                      .mean = mean.data<float>(),
                      .rstd = rstd.data<float>(),
                      .rows = rows_of(x),
                      .width = width_of(x),
                      .dx = dx.data<T>(),
                      .dgamma = dgamma.data<float>(),
                      .dbeta = dbeta.data<float>(),
                      .blocks = blocks},
                     room.data<float>(), stream_);
  });
}

void Gpu::rms_norm(const Tensor& x, const Tensor& gamma, double epsilon, const Tensor& y,
                   const Tensor& rstd) {
  activate_device();
  const Tensor from = contiguous(x), weight = weights(gamma);
  for_floating(y, "rms_norm", [&]<typename T>() {
    norm<T>({.x = from.data<T>(),
             .residual = nullptr,
             .gamma = weight.data<float>(),
             .beta = nullptr,
             .epsilon = static_cast<float>(epsilon),
             .rows = rows_of(x),
             .width = width_of(x),
             .sum = nullptr,
             .y = y.data<T>(),
             .mean = nullptr,
             .rstd = rstd.data<float>()},
            stream_);
  });
}

void Gpu::rms_norm_backward(int block_count, const Tensor& x, const Tensor& dy, const Tensor& gamma,
                            const Tensor& rstd, const Tensor& dx, const Tensor& dgamma) {
  activate_device();
  const Tensor from = contiguous(x), gradient = contiguous(dy), weight = weights(gamma);
  const int64_t blocks = blocks_of(block_count, x);
  const Tensor room = scratch(Shape{norm_backward_scratch(rows_of(x), width_of(x), blocks)});
  for_floating(dx, "rms_norm", [&]<typename T>() {
    norm_backward<T>({.x = from.data<T>(),
                      .dy = gradient.data<T>(),
                      .dsum = nullptr,
                      .gamma = weight.data<float>(),
                      .mean = nullptr,
                      .rstd = rstd.data<float>(),
                      .rows = rows_of(x),
                      .width = width_of(x),
                      .dx = dx.data<T>(),
                      .dgamma = dgamma.data<float>(),
                      .dbeta = nullptr,
                      .blocks = blocks},
                     room.data<float>(), stream_);
  });
}

void Gpu::embedding(const Tensor& ids, const Tensor& table, int64_t first_id, const Tensor& out) {
  activate_device();
  const Tensor number = contiguous(ids), rows = contiguous(table);
  for_floating(out, "embedding", [&]<typename T>() {
    cuda::embedding(number.data<int64_t>(), rows.data<T>(), first_id, table.dim(0), ids.elements(),
                    table.dim(1), out.data<T>(), stream_);
  });
}

void Gpu::embedding_backward(const Tensor& ids, const Tensor& dy, int64_t first_id,
                             int64_t padding_id, int block_count, const Tensor& dtable) {
  activate_device();
  const Tensor gradient = contiguous(dy);
  const Members places = members_of(ids, first_id, dtable.dim(0), ops::Numbers::kNone);
  const Segments rows{places.start.data<int64_t>(), places.order.data<int64_t>(), dtable.dim(0),
                      ids.elements()};
  const int64_t padding_row = padding_id < 0 ? -1 : padding_id - first_id;
  for_floating(dy, "embedding", [&]<typename T>() {
    cuda::embedding_backward(rows, gradient.data<T>(), padding_row, dtable.dim(1),
                             std::max(1, block_count), dtable.data<float>(), stream_);
  });
}

void Gpu::gather_rows(const Tensor& x, const Tensor& index, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x), number = contiguous(index);
  for_floating(out, "gather_rows", [&]<typename T>() {
    cuda::gather_rows(from.data<T>(), number.data<int64_t>(), out.data<T>(), x.dim(0), x.dim(1),
                      x.dim(2), outside(ops::Numbers::kGatherRows), stream_);
  });
}

void Gpu::gather_rows_backward(const Tensor& dy, const Tensor& index, const Tensor& dx) {
  activate_device();
  const Tensor gradient = contiguous(dy), number = contiguous(index);
  for_floating(dx, "gather_rows", [&]<typename T>() {
    cuda::gather_rows_backward(gradient.data<T>(), number.data<int64_t>(), dx.data<T>(), dx.dim(0),
                               dx.dim(1), dx.dim(2), stream_);
  });
}

}  // namespace weft::cuda
