#include "kernels/autograd/op.h"

#include <algorithm>

#include "kernels/autograd/in_single.h"
#include "kernels/autograd/tape.h"
#include "proto/base/activity.h"
#include "proto/base/status.h"

namespace weft {
namespace {

void check_devices(const Context& cx, const Kernel& kernel, std::span<const Tensor> tensors) {
  for (const Tensor& tensor : tensors) {
    WEFT_CHECK(!tensor || tensor.device() == cx.device(), "{} on {}: a tensor is on {}",
               kernel.name(), cx.device().to_string(), tensor.device().to_string());
  }
}

}  // namespace

void throw_no_kernel(const Context& cx, std::string_view what) {
  throw StatusError(Status(Code::kInvalidArgument,
                           std::string(what) + " has no kernel for " + cx.device().to_string()));
}

void Kernel::cuda(Context& cx, std::span<const Tensor>, std::span<Tensor>) {
  throw_no_kernel(cx, name());
}

std::vector<Tensor> Op::leaf_vjp(Context&, std::span<const Tensor>, std::span<const Tensor>) {
  return {};
}

bool Op::add_to_leaves(Context&, std::span<const Tensor>, std::span<const Tensor>,
                       std::span<const Tensor>) {
  return false;
}

RowGradient Op::row_gradient(std::span<const Tensor>, std::span<const Tensor>) {
  WEFT_CHECK(false, "{} gives no rows", name());
}

void run_kernel(Context& cx, Kernel& kernel, std::span<const Tensor> inputs,
                std::span<Tensor> outputs) {
  check_devices(cx, kernel, inputs);
  check_devices(cx, kernel, outputs);
  if (cx.device().is_cpu()) {
    kernel.cpu(cx, inputs, outputs);
  } else {
    kernel.cuda(cx, inputs, outputs);
  }
}

Tensor run_kernel(Context& cx, Kernel&& kernel, std::initializer_list<Tensor> inputs,
                  const TensorSpec& output) {
  Tensor result = Tensor::empty(cx.allocator, output.shape, output.dtype);
  run_kernel(cx, kernel, std::span(inputs.begin(), inputs.size()), std::span(&result, 1));
  return result;
}

std::vector<Tensor> Op::forward(Context& cx, std::span<const Tensor> inputs) {
  std::vector<Tensor> outputs;
  for (const TensorSpec& spec : shape_rule(inputs)) {
    outputs.push_back(Tensor::empty(cx.allocator, spec.shape, spec.dtype));
  }
  run_kernel(cx, *this, inputs, outputs);
  return outputs;
}

std::vector<Tensor> apply(Context& cx, std::unique_ptr<Op> op, std::vector<Tensor> inputs) {
  if (needs_single(*op, inputs)) op = in_single(std::move(op));
  std::vector<Tensor> outputs;
  {
    const Activity::Op now(cx.tape == nullptr ? nullptr : cx.tape->activity(), op->name().data());
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
