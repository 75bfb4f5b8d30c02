// Activation checkpointing (Chen et al. 2016): the block's insides are not kept but computed twice.
#include <unordered_set>

#include "kernels/autograd/tape.h"
#include "kernels/tensor/strided.h"

namespace weft {
namespace {

using BlockFunction = std::function<Tensor(Context&, const Tensor&)>;

// The block's input as the block sees it: where it is no leaf outside, neither is it here, so that
// the gradients of its readers are rounded and added up alike.
Tensor inside(const Tensor& input) {
  Tensor x = input.detach();
  if (!input.requires_grad()) return x;
  if (input.leaf()) return x.set_requires_grad(true);
  x.mark_result();
  return x;
}

// Keeps no op, only which tensors that need a gradient come into the block from outside.
class InputFinder final : public Tape {
 public:
  InputFinder(const Tensor& block_input, Activity* activity) : Tape(activity) {
    inside_.insert(block_input.id());
  }

  void record(std::unique_ptr<Op>, std::span<const Tensor> inputs,
              std::span<const Tensor> outputs) override {
    for (const Tensor& input : inputs) {
      if (input.requires_grad() && inside_.insert(input.id()).second) captured_.push_back(input);
    }
    for (const Tensor& output : outputs) {
      if (!output || !is_floating(output.dtype())) continue;
      output.mark_result();
      inside_.insert(output.id());
    }
  }
  std::vector<Tensor> captured() && { return std::move(captured_); }

 private:
  std::unordered_set<uint64_t> inside_;
  std::vector<Tensor> captured_;
};

// Inputs: the block's input, then what it captures.
class Checkpointed final : public Op {
 public:
  Checkpointed(BlockFunction block, Activity* activity)
      : block_(std::move(block)), activity_(activity) {}
  std::string_view name() const override { return "checkpointed"; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor>) const override { return {}; }
  void cpu(Context&, std::span<const Tensor>, std::span<Tensor>) override {}

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs.begin(), inputs.end()};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    Tape tape(activity_);
    Context inner = cx;
    inner.tape = &tape;
    std::vector<Tensor> targets(saved.begin(), saved.end());
    targets[0] = inside(saved[0]);
    const Tensor output = block_(inner, targets[0]);
    return tape.gradients(inner, output, output_grads[0], targets);
  }

 private:
  const BlockFunction block_;
  Activity* const activity_;
};

}  // namespace

Tensor checkpointed(Context& cx, const BlockFunction& block, const Tensor& input) {
  if (cx.tape == nullptr) return block(cx, input);
  const Tensor inner_input = inside(input);
  InputFinder finder(inner_input, cx.tape->activity());
  Context inner = cx;
  inner.tape = &finder;
  const Tensor result = block(inner, inner_input);
  std::vector<Tensor> inputs = std::move(finder).captured();
  inputs.insert(inputs.begin(), input);
  if (!result.requires_grad()) return result;
  const Tensor output = result.detach();
  cx.tape->record(std::make_unique<Checkpointed>(block, cx.tape->activity()), inputs,
                  std::span(&output, 1));
  return output;
}

}  // namespace weft
