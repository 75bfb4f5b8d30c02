#include <memory>

#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "worker/models/model.h"

namespace weft {
namespace {

// Passes its input on, and on the way back opens the unit that the gradient is about to reach.
class OpenAgain final : public ops::ForwardOp {
 public:
  OpenAgain(ParameterGate& gate, int64_t unit) : gate_(gate), unit_(unit) {}
  std::string_view name() const override { return "open_again"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    return {inputs[0].detach()};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    // Unit 0 holds embeddings, whose gradient does not need them.
    gate_.open(unit_, unit_ > 1 ? std::optional(unit_ - 1) : std::nullopt);
    return {output_grads[0]};
  }

 private:
  ParameterGate& gate_;
  const int64_t unit_;
};

}  // namespace

Tensor Trunk::token_logits(Context& cx, const TokenBatch& batch, const Tensor& hidden) {
  const TokenHead head = token_head(cx, batch, hidden);
  return ops::linear(cx, head.input, head.table, Tensor(), ops::WeightLayout::kOutIn);
}

Tensor Trunk::open_again(Context& cx, int64_t unit, const Tensor& x) const {
  if (gate_ == nullptr || !gate_->closes()) return x;
  return apply_one(cx, std::make_unique<OpenAgain>(*gate_, unit), {x});
}

}  // namespace weft
