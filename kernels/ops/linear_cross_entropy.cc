// The loss of a language model without its logits in memory: rows are taken in chunks; of each the
// logits are computed, turned into their gradient where they lie, multiplied back into the
// gradients of input and table, and forgotten. Rows whose label is ignored take no part, and no
// time: of a masked language model that is most of them. The plain composition, which is the
// fallback and the oracle, is cross_entropy_sum(linear(x, table, bias)).
//
// Numerical policy: a row's log-sum-exp as rows.h; the gradients of table and bias are summed over
// the chunks in the order of the rows. bf16: logits, loss and these gradients are fp32, the logits'
// gradient is rounded before it is multiplied; on a GPU halves' logits are rounded too, and all
// rows take part (kernels/cuda/gpu_losses.cc).
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 25;  // of logits
constexpr int64_t kChunkRowsMin = 16;
constexpr int64_t kColumnsMin = 256;  // whose sum over the rows is worth a thread

// Equal chunks; what they are depends on the sizes only.
int64_t chunk_rows(int64_t rows, const VocabularyShard& shard, int64_t width) {
  // Every part takes the same chunks, though their widths differ by one.
  if (shard.vocabulary > 0) width = (shard.vocabulary + shard.parts - 1) / shard.parts;
  const int64_t most = std::max(kChunkRowsMin, kChunkElements / std::max<int64_t>(1, width));
  const int64_t count = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::max<int64_t>(1, (rows + count - 1) / count);
}

// The rows whose label counts. Where the vocabulary is in parts all do: what is combined over the
// parts is then of a size that follows from the shapes.
std::vector<int64_t> rows_that_count(const Tensor& labels, const TokenLoss& loss) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < labels.elements(); ++row) {
    const bool ignored = labels.data<int64_t>()[row] == loss.ignore_index;
    if (!ignored || loss.shard.vocabulary > 0) rows.push_back(row);
  }
  return rows;
}

// Inputs: x [..., H], table [V/t, H], labels [...] and, where there is one, bias [V/t]. Output: the
// sum.
class LinearCrossEntropy final : public ForwardOp {
 public:
  LinearCrossEntropy(const TokenLoss& loss, bool x_wanted, bool table_wanted, bool bias_wanted)
      : loss_(loss), x_wanted_(x_wanted), table_wanted_(table_wanted), bias_wanted_(bias_wanted) {}
  std::string_view name() const override { return "linear_cross_entropy"; }
  bool rounds(size_t) const override { return false; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor x = as_rows(cx, inputs[0]), table = as_contiguous(cx.pool, inputs[1]);
    const Tensor labels = as_contiguous(cx.pool, inputs[2]);
    const Tensor bias = inputs.size() > 3 ? as_contiguous(cx.pool, inputs[3]) : Tensor();
    WEFT_CHECK(table.shape().dims() == 2 && table.dim(1) == x.dim(1) &&
                   table.dtype() == x.dtype() && labels.elements() == x.dim(0),
               "loss of {} with a table {} and {} labels", inputs[0].shape().to_string(),
               table.shape().to_string(), labels.elements());
    WEFT_CHECK(!bias || (bias.elements() == table.dim(0) && bias.dtype() == x.dtype()),
               "a bias {} beside a table {}", bias.shape().to_string(), table.shape().to_string());
    if (!cx.device().is_cpu()) {
      auto [total, dx, dtable, dbias] = cuda::backend(cx).linear_cross_entropy(
          x, table, bias, labels, loss_, {x_wanted_, table_wanted_, bias_wanted_});
      if (dx) dx_ = shaped(dx, inputs[0].shape());
      dtable_ = std::move(dtable);
      dbias_ = std::move(dbias);
      return {total};
    }
    const LabelRule rule(loss_, table.dim(0));
    rule.check(labels);
    const std::vector<int64_t> rows = rows_that_count(labels, loss_);
    const bool all = std::ssize(rows) == x.dim(0);
    if (x_wanted_) {
      dx_ = all ? Tensor::empty(cx.allocator, inputs[0].shape(), x.dtype())
                : Tensor::empty(cx.allocator, {std::ssize(rows), x.dim(1)}, x.dtype());
    }
    const DType sums = gradient_dtype(x.dtype());
    if (table_wanted_) dtable_ = Tensor::empty(cx.allocator, table.shape(), sums);
    if (bias_wanted_) dbias_ = Tensor::zeros(cx.allocator, bias.shape(), sums);
    const Tensor wide_bias = bias ? cpu::converted(cx.pool, bias, sums) : Tensor();
    double total = 0;
    const auto go = [&]<typename T>() {
      if (all) {
        total = all_chunks<T>(cx, rule, x, table, wide_bias, labels.data<int64_t>());
      } else {
        total = chunks_of<T>(cx, rule, rows, x, table, wide_bias, labels.data<int64_t>());
        if (dx_) dx_ = spread<T>(cx, rows, dx_, inputs[0].shape());
      }
    };
    if (x.dtype() == DType::kBF16) {
      go.template operator()<bfloat16>();
    } else {
      dispatch_floating(x.dtype(), go);
    }
    return {Tensor::full(cx.allocator, Shape{}, total, sums)};
  }

  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    const Tensor& dy = output_grads[0];
    const bool on_gpu = !cx.device().is_cpu();
    const double factor = on_gpu ? 1 : seed_factor(loss_, dy);
    for (Tensor* gradient : {&dx_, &dtable_, &dbias_}) {
      if (!*gradient) continue;
      if (on_gpu) reseed(cx, loss_, dy, *gradient);
      if (static_cast<float>(factor) != 1.0F) *gradient = scale(cx, *gradient, factor);
    }
    std::vector<Tensor> gradients{std::move(dx_), std::move(dtable_)};
    if (dbias_) gradients.insert(gradients.end(), {Tensor(), std::move(dbias_)});
    return gradients;
  }

 private:
  // The gradient of the logits in what it is multiplied in: where it lies, or rounded to `room`.
  template <typename T>
  static const T* narrow(Context& cx, const cpu::Sum<T>* values, const Tensor& room,
                         int64_t count) {
    if constexpr (std::is_same_v<T, cpu::Sum<T>>) {
      return values;
    } else {
      cx.pool.parallel_for(count, 1 << 14, [&](int64_t begin, int64_t end) {
        cpu::round(values + begin, room.data<T>() + begin, end - begin);
      });
      return room.data<T>();
    }
  }

  // As all_chunks, of some rows.
  template <typename T>
  double chunks_of(Context& cx, const LabelRule& rule, const std::vector<int64_t>& rows,
                   const Tensor& x, const Tensor& table, const Tensor& bias,
                   const int64_t* labels) {
    const int64_t hidden = x.dim(1);
    const Tensor some = Tensor::empty(cx.allocator, {std::ssize(rows), hidden}, x.dtype());
    std::vector<int64_t> some_labels;
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(x.data<T>() + rows[i] * hidden, hidden,
                  some.data<T>() + static_cast<int64_t>(i) * hidden);
      some_labels.push_back(labels[rows[i]]);
    }
    return all_chunks<T>(cx, rule, some, table, bias, some_labels.data());
  }

  // `from`, a row for each of `rows`, in their places among zeros.
  template <typename T>
  static Tensor spread(Context& cx, const std::vector<int64_t>& rows, const Tensor& from,
                       const Shape& shape) {
    const int64_t hidden = from.dim(1);
    Tensor to = Tensor::zeros(cx.allocator, shape, from.dtype());
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(from.data<T>() + static_cast<int64_t>(i) * hidden, hidden,
                  to.data<T>() + rows[i] * hidden);
    }
    return to;
  }

  // Each of the rows := bias.
  template <typename S>
  static void fill_rows(Context& cx, const Tensor& bias, S* rows, int64_t count) {
    const int64_t width = bias.elements();
    cx.pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        std::copy_n(bias.data<S>(), width, rows + row * width);
      }
    });
  }

  // dbias_ += each of the rows.
  template <typename S>
  void add_rows(Context& cx, const S* rows, int64_t count) const {
    const int64_t width = dbias_.elements();
    cx.pool.parallel_for(width, kColumnsMin, [&](int64_t begin, int64_t end) {
      cpu::rows<S>().add_rows(rows + begin, width, count, dbias_.data<S>() + begin, end - begin);
    });
  }

  template <typename T>
  double all_chunks(Context& cx, const LabelRule& rule, const Tensor& x, const Tensor& table,
                    const Tensor& bias, const int64_t* labels) {
    const int64_t rows = x.dim(0), hidden = x.dim(1), width = table.dim(0);
    const int64_t step = chunk_rows(rows, loss_.shard, width);
    using S = cpu::Sum<T>;
    const Shape chunk_shape{std::min(step, rows), width};
    const Tensor logits = Tensor::empty(cx.allocator, chunk_shape, DTypeOf<S>::value);
    const bool rounded = !std::is_same_v<T, S> && (dx_ || dtable_);
    const Tensor room = rounded ? Tensor::empty(cx.allocator, chunk_shape, x.dtype()) : Tensor();
    const cpu::Matrix<T> weights{table.data<T>(), hidden, false};
    if (rows == 0 && dtable_) std::fill_n(dtable_.data<S>(), dtable_.elements(), S{0});
    double total = 0;
    for (int64_t first = 0; first < rows; first += step) {
      const int64_t count = std::min(step, rows - first);
      const cpu::Matrix<T> chunk{x.data<T>() + first * hidden, hidden, false};
      S* values = logits.data<S>();
      if (bias) fill_rows(cx, bias, values, count);
      cpu::gemm(cx.pool, count, width, hidden, chunk, cpu::Matrix<T>{weights.data, hidden, true},
                values, width, /*accumulate=*/static_cast<bool>(bias));
      total += rule.loss_and_gradient(cx, values, labels + first, count);
      if (dbias_) add_rows(cx, values, count);
      if (!dx_ && !dtable_) continue;
      const T* gradient = narrow<T>(cx, values, room, count * width);
      if (dx_) {
        cpu::gemm(cx.pool, count, hidden, width, cpu::Matrix<T>{gradient, width, false}, weights,
                  dx_.data<T>() + first * hidden, hidden);
      }
      if (dtable_) {
        cpu::gemm(cx.pool, width, hidden, count, cpu::Matrix<T>{gradient, width, true}, chunk,
                  dtable_.data<S>(), hidden, first > 0);
      }
    }
    return total;
  }

  const TokenLoss loss_;
  const bool x_wanted_, table_wanted_, bias_wanted_;
  Tensor dx_, dtable_, dbias_;  // for an output gradient of loss_.seed
};

}  // namespace

Tensor linear_cross_entropy_sum(Context& cx, const Tensor& x, const Tensor& table,
                                const Tensor& labels, const TokenLoss& loss, const Tensor& bias) {
  if (cx.block_count > 1) {  // the plain composition
    const Tensor logits = linear(cx, x, table, bias, WeightLayout::kOutIn);
    return cross_entropy_sum(cx, logits, labels, loss);
  }
  const auto wanted = [&](const Tensor& input) {
    return cx.tape != nullptr && input && input.requires_grad();
  };
  std::vector<Tensor> inputs{x, table, labels};
  if (bias) inputs.push_back(bias);
  return run<LinearCrossEntropy>(cx, std::move(inputs), with_seed(cx, loss), wanted(x),
                                 wanted(table), wanted(bias));
}

}  // namespace weft::ops
