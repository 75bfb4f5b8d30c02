#include "kernels/autograd/op.h"

#include <algorithm>

#include "kernels/autograd/in_single.h"
#include "kernels/autograd/tape.h"

namespace weft {

std::vector<Tensor> Op::forward(Context& cx, std::span<const Tensor> inputs) {
  std::vector<Tensor> outputs;
  for (const TensorSpec& spec : shape_rule(inputs)) {
    outputs.push_back(Tensor::empty(cx.allocator, spec.shape, spec.dtype));
  }
  cpu(cx, inputs, outputs);
  return outputs;
}

std::vector<Tensor> apply(Context& cx, std::unique_ptr<Op> op, std::vector<Tensor> inputs) {
  if (needs_single(*op, inputs)) op = in_single(std::move(op));
  std::vector<Tensor> outputs;
  {
    const NoGrad inside(cx);
    outputs = op->forward(cx, inputs);
  }
  const bool recorded =
      cx.tape != nullptr &&
      std::any_of(inputs.begin(), inputs.end(), [](const Tensor& x) { return x.requires_grad(); });
  if (recorded) cx.tape->record(std::move(op), inputs, outputs);
  return outputs;
}

Tensor apply_one(Context& cx, std::unique_ptr<Op> op, std::vector<Tensor> inputs) {
  std::vector<Tensor> outputs = apply(cx, std::move(op), std::move(inputs));
  WEFT_CHECK(outputs.size() == 1, "{} outputs", outputs.size());
  return std::move(outputs[0]);
}

}  // namespace weft
