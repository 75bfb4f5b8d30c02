// Losses over a vocabulary. A language model's logits are there a chunk of rows at a time, in
// columns filled up to kLogitColumns, so that the products that make them and their gradients' take
// the library's fast algorithms whatever the vocabulary's size: the table gets rows of zeros, the
// gradient columns of zeros.
#include <algorithm>
#include <array>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

int64_t filled_up(int64_t width) {
  return (width + kLogitColumns - 1) / kLogitColumns * kLogitColumns;
}

// Equal chunks, the same for every part of the vocabulary, though their widths differ by one.
int64_t chunk_rows(int64_t rows, const ops::VocabularyShard& shard, int64_t width, DType dtype) {
  if (shard.vocabulary > 0) width = (shard.vocabulary + shard.parts - 1) / shard.parts;
  const int64_t row_bytes = filled_up(width) * static_cast<int64_t>(size_of(dtype));
  const int64_t most = std::max<int64_t>(1, kLogitBytesMax / std::max<int64_t>(1, row_bytes));
  const int64_t count = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::max<int64_t>(1, (rows + count - 1) / count);
}

Tensor rows_of(const Tensor& x, int64_t first, int64_t count) {  // of a contiguous matrix
  const int64_t width = x.dim(1);
  return x.view({count, width}, std::array<int64_t, 2>{width, 1}, first * width);
}
Tensor part_of(const Tensor& x, int64_t first, int64_t count) {  // of a vector
  return x.view({count}, std::array<int64_t, 1>{1}, first);
}
LogitRows rows_of(const Tensor& logits) {
  return {logits.dim(0), logits.dim(1), logits.strides()[0]};
}
Tensor turned(const Tensor& x) {
  return x.view({x.dim(1), x.dim(0)}, std::array{x.strides()[1], x.strides()[0]}, 0);
}

}  // namespace

LossRules Gpu::loss_rules(const ops::TokenLoss& loss, int64_t width) const {
  return {.ignore_index = loss.ignore_index,
          .smoothing = static_cast<float>(loss.smoothing),
          .first = loss.shard.first,
          .classes = loss.shard.vocabulary == 0 ? width : loss.shard.vocabulary,
          .outside = outside(ops::Numbers::kLabel)};
}

void Gpu::row_losses(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                     const Tensor& dtotal, const Tensor& losses) {
  const ops::VocabularyShard& shard = loss.shard;
  const LogitRows rows = rows_of(logits);
  const LossRules rules = loss_rules(loss, rows.width);
  const auto* label = labels.data<int64_t>();
  const auto* slope = dtotal ? dtotal.data<float>() : nullptr;
  for_floating(logits, "cross_entropy", [&]<typename T>() {
    T* at = static_cast<T*>(logits.raw());
    if (shard.vocabulary == 0 && dtotal) {
      return loss_and_gradient(at, label, rules, slope, rows, losses.data<float>(), stream_);
    }
    const Tensor own = scratch({rows.count}), terms = scratch({2, rows.count});
    cuda::loss_terms<T>(at, label, rules, rows, own.data<float>(), terms.data<float>(), stream_);
    Tensor maximum = own;
    if (shard.vocabulary != 0) {
      maximum = scratch({rows.count});
      copy(own, maximum);
      shard.maximum(maximum);
      shift_terms(own.data<float>(), maximum.data<float>(), rows.count, terms.data<float>(),
                  stream_);
      shard.sum(terms);
    }
    loss_total(label, terms.data<float>(), rules, rows.count, maximum.data<float>(),
               losses.data<float>(), stream_);
    if (dtotal) {
      cuda::loss_gradient(at, label, maximum.data<float>(), rules, slope, rows, stream_);
    }
  });
}

void Gpu::add_all(const Tensor& losses, const Tensor& total) {
  const Tensor partials = scratch(Shape{kPartials}, DType::kF64);
  cuda::sum(losses.data<float>(), losses.elements(), partials.data<double>(), total.data<float>(),
            stream_);
}

void Gpu::cross_entropy(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                        const Tensor& dtotal, const Tensor& total) {
  activate_device();
  const int64_t rows = labels.elements(), width = logits.shape()[-1];
  const Tensor losses = scratch({rows});
  row_losses(logits.view({rows, width}, std::array<int64_t, 2>{width, 1}, 0), contiguous(labels),
             loss, dtotal, losses);
  add_all(losses, total);
}

Gpu::LinearLoss Gpu::linear_cross_entropy(const Tensor& x, const Tensor& table, const Tensor& bias,
                                          const Tensor& labels, const ops::TokenLoss& loss,
                                          const WantedGradients& wanted) {
  activate_device();
  const int64_t rows = x.dim(0), hidden = x.dim(1), width = table.dim(0), step = filled_up(width);
  Tensor weights = table;
  if (step != width) {
    weights = scratch({step, hidden}, table.dtype());
    copy(table, rows_of(weights, 0, width));
    fill(rows_of(weights, width, step - width), 0);
  }
  LinearLoss result{scratch(Shape{}), Tensor(), Tensor(), Tensor()};
  if (wanted.x) result.dx = scratch(x.shape(), x.dtype());
  if (wanted.table) result.dtable = scratch({step, hidden});
  if (wanted.table && rows == 0) fill(result.dtable, 0);
  if (wanted.bias) result.dbias = scratch({step, 1});
  if (wanted.bias && rows == 0) fill(result.dbias, 0);
  const bool backwards = wanted.x || wanted.table || wanted.bias;
  const Tensor losses = scratch({rows});
  const Tensor label = contiguous(labels).view({rows}, std::array<int64_t, 1>{1}, 0);
  const int64_t most = chunk_rows(rows, loss.shard, width, x.dtype());
  const Tensor room = scratch({std::min(most, rows), step}, x.dtype());
  Tensor ones, spare;  // spare: where no gradient of x lends its room
  if (wanted.table && !wanted.x) spare = scratch({std::min(most, rows), hidden}, x.dtype());
  if (wanted.bias) {
    ones = scratch({std::min(most, rows), 1}, x.dtype());
    fill(ones, 1);
  }
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    const Tensor part = rows_of(x, first, count), logits = rows_of(room, 0, count);
    matmul(part, turned(weights), 1, logits);
    const Tensor own = logits.view({count, width}, logits.strides(), 0);
    if (bias) binary(ops::Arithmetic::kAdd, own, bias, own);
    row_losses(own, part_of(label, first, count), loss, backwards ? loss.device_seed : Tensor(),
               part_of(losses, first, count));
    if (wanted.table) {
      // Zeros in the gradient of the logits do not hide a NaN in a row that does not count.
      const Tensor counted = wanted.x ? rows_of(result.dx, first, count) : rows_of(spare, 0, count);
      for_floating(part, "linear_cross_entropy", [&]<typename T>() {
        counted_rows(static_cast<const T*>(part.raw()),
                     part_of(label, first, count).data<int64_t>(), loss.ignore_index, count, hidden,
                     counted.data<T>(), stream_);
      });
      product_onto(turned(logits), counted, first > 0, result.dtable);
    }
    if (wanted.x) matmul(logits, weights, 1, rows_of(result.dx, first, count));
    if (wanted.bias) {
      product_onto(turned(logits), rows_of(ones, 0, count), first > 0, result.dbias);
    }
  }
  add_all(losses, result.total);
  if (wanted.table) result.dtable = rows_of(result.dtable, 0, width);
  if (wanted.bias) result.dbias = part_of(result.dbias, 0, width);
  return result;
}

void Gpu::loss_terms(const Tensor& logits, const Tensor& labels, const ops::TokenLoss& loss,
                     const Tensor& largest, const Tensor& terms) {
  activate_device();
  const Tensor label = contiguous(labels);
  for_floating(logits, "cross_entropy", [&]<typename T>() {
    cuda::loss_terms<T>(static_cast<const T*>(logits.raw()), label.data<int64_t>(),
                        loss_rules(loss, logits.dim(1)), rows_of(logits), largest.data<float>(),
                        terms.data<float>(), stream_);
  });
}

void Gpu::loss_gradient(const Tensor& lse, const Tensor& labels, const ops::TokenLoss& loss,
                        const Tensor& dtotal, const Tensor& logits) {
  activate_device();
  const Tensor label = contiguous(labels);
  for_floating(logits, "cross_entropy", [&]<typename T>() {
    cuda::loss_gradient(static_cast<T*>(logits.raw()), label.data<int64_t>(), lse.data<float>(),
                        loss_rules(loss, logits.dim(1)), dtotal.data<float>(), rows_of(logits),
                        stream_);
  });
}

void Gpu::reseed(const Tensor& dy, const Tensor& seed, const Tensor& gradient) {
  activate_device();
  for_floating(gradient, "reseed", [&]<typename T>() {
    cuda::reseed(dy.data<float>(), seed.data<float>(), gradient.elements(), gradient.data<T>(),
                 stream_);
  });
}

}  // namespace weft::cuda
