// Dropout (Srivastava et al. 2014). The mask is drawn again in the backward pass, never kept.
#include "kernels/cpu/past_caches.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/half_rows.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

class Dropout final : public Op {
 public:
  Dropout(double rate, RandomKey key, GlobalIndex where)
      : rate_(rate), key_(key), where_(std::move(where)) {}
  std::string_view name() const override { return "dropout"; }
  bool native(DType half) const override { return half == DType::kBF16; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Shape& shape = inputs[0].shape();
    WEFT_CHECK(where_.global.dims() == shape.dims() &&
                   static_cast<int>(where_.offset.size()) == shape.dims(),
               "dropout of {} as a part of {}", shape.to_string(), where_.global.to_string());
    for (int dim = 0; dim < shape.dims(); ++dim) {
      const int64_t offset = where_.offset[static_cast<size_t>(dim)];
      WEFT_CHECK(offset >= 0 && offset + shape[dim] <= where_.global[dim], "dim {}: {} + {} of {}",
                 dim, offset, shape[dim], where_.global[dim]);
    }
    return {inputs[0].spec()};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]);
    const Shape& shape = x.shape();
    // The strides of the global tensor over the local shape walk the global index.
    const Strides global = row_major_strides(where_.global), local = row_major_strides(shape);
    int64_t start = 0;
    for (size_t dim = 0; dim < where_.offset.size(); ++dim)
      start += where_.offset[dim] * global[dim];
    const size_t dims = static_cast<size_t>(shape.dims());
    const StridedLoop<2> loop(shape, {std::span(global).first(dims), std::span(local).first(dims)});
    const int64_t step = loop.inner_stride(0);
    dispatch_rows(x.dtype(), [&]<typename T>() {
      const T* from = x.data<T>();
      T* to = outputs[0].data<T>();
      const DropRule rule(rate_);
      const auto kept = static_cast<Wide<T>>(rule.factor);
      loop.run(cx.pool, 2048, [&](int64_t n, const std::array<int64_t, 2>& at, int64_t first) {
        // After a row such writes are waited for, which shows in a short one.
        const cpu::PastCaches past(n >= 4096 ? x.bytes() : 0);
        // Draws run along the innermost global dim; elsewhere they come one by one.
        const int64_t length = step == 1 ? n : 1;
        for (int64_t done = 0; done < n; done += length) {
          const uint64_t index = static_cast<uint64_t>(start + at[0] + done * step);
          cpu::rows<T>().drop(key_.seed, key_.stream, index, rule.dropped, kept,
                              from + first + done, past, to + first + done, length);
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).dropout(inputs[0], rate_, key_, where_, outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {dropout(cx, output_grads[0], rate_, key_, where_)};
  }

 private:
  const double rate_;
  const RandomKey key_;
  const GlobalIndex where_;
};

}  // namespace

Tensor dropout(Context& cx, const Tensor& x, double rate, RandomKey key, const GlobalIndex& where) {
  WEFT_CHECK(rate >= 0 && rate < 1, "a dropout rate of {}", rate);
  return rate == 0 ? x : run<Dropout>(cx, {x}, rate, key, where);
}

}  // namespace weft::ops
