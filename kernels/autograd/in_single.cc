#include "kernels/autograd/in_single.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/convert.h"

namespace weft {
namespace {

// The one floating dtype of the inputs, weights in fp32 that the op takes aside; F32 where there
// are several.
DType common_dtype(const Op& op, std::span<const Tensor> inputs) {
  DType common = DType::kU8;
  for (const Tensor& input : inputs) {
    if (!input || !is_floating(input.dtype()) || input.dtype() == common) continue;
    const bool weight = is_half(common) && input.dtype() == DType::kF32;
    if (weight && op.takes_weights_in_single()) continue;
    if (common != DType::kU8) return DType::kF32;
    common = input.dtype();
  }
  return common;
}

Tensor single(Context& cx, const Tensor& x) {
  if (!x || !is_half(x.dtype())) return x;
  Tensor wide = cpu::converted(cx.pool, x, DType::kF32);
  return wide.set_requires_grad(x.requires_grad());
}

bool same_elements(const Tensor& a, const Tensor& b) {
  return a && b && a.raw() == b.raw() && a.spec() == b.spec() &&
         std::equal(a.strides().begin(), a.strides().end(), b.strides().begin());
}

class InSingle final : public Op {
 public:
  explicit InSingle(std::unique_ptr<Op> op) : op_(std::move(op)) {}
  std::string_view name() const override { return op_->name(); }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    return op_->shape_rule(inputs);
  }
  void cpu(Context&, std::span<const Tensor>, std::span<Tensor>) override {
    WEFT_CHECK(false, "{} computes in forward()", name());
  }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    for (const Tensor& input : inputs) inputs_.push_back(single(cx, input));
    outputs_ = op_->forward(cx, inputs_);
    const DType dtype = common_dtype(*op_, inputs);
    std::vector<Tensor> rounded = outputs_;
    for (size_t i = 0; i < rounded.size(); ++i) {
      if (!rounded[i] || rounded[i].dtype() != DType::kF32 || !op_->rounds(i)) continue;
      rounded[i] = cpu::converted(cx.pool, rounded[i], dtype);
    }
    return rounded;
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    std::vector<Tensor> saved = op_->saves(inputs_, outputs_);
    for (Tensor& tensor : saved) {
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (same_elements(tensor, inputs_[i])) tensor = inputs[i];
      }
      if (!outputs_.empty() && same_elements(tensor, outputs_[0])) tensor = outputs[0].detach();
    }
    inputs_.clear();
    outputs_.clear();
    return saved;
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> wide, wide_grads;
    for (const Tensor& tensor : saved) wide.push_back(single(cx, tensor));
    for (const Tensor& gradient : output_grads) wide_grads.push_back(single(cx, gradient));
    return op_->vjp(cx, wide, wide_grads);
  }

 private:
  const std::unique_ptr<Op> op_;
  std::vector<Tensor> inputs_, outputs_;  // in fp32, from forward() to saves()
};

}  // namespace

bool needs_single(const Op& op, std::span<const Tensor> inputs) {
  bool half = false;
  for (const Tensor& input : inputs) half |= input && is_half(input.dtype());
  if (!half) return false;
  const DType dtype = common_dtype(op, inputs);
  if (!is_half(dtype)) return true;
  const bool on_gpu = std::any_of(inputs.begin(), inputs.end(), [](const Tensor& input) {
    return input && !input.device().is_cpu();
  });
  return on_gpu ? !op.native_on_gpu(dtype) : !op.native(dtype);
}

std::unique_ptr<Op> in_single(std::unique_ptr<Op> op) {
  return std::make_unique<InSingle>(std::move(op));
}

}  // namespace weft
