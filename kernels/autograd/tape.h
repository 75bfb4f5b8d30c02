// The tape: ops in the order in which they ran, walked backwards once.
//
// Thread safety: the rank's compute thread. Ownership: owns the recorded ops and what they saved.
// Invariants: 1. an entry and what it saved are released as soon as its vjp has run. 2. gradients
// of leaves are added to what the leaf already holds (accumulation over micro-batches). 3. the
// order of the backward pass, and so every sum, depends on the recorded order only. 4. the gradient
// of a leaf of a half type is summed in fp32; that of a result has the result's dtype.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <unordered_set>
#include <vector>

#include "kernels/autograd/op.h"

namespace weft {

class Activity;

class Tape {
 public:
  // `activity`, where there is one, is told which op runs, forwards and backwards, and of which
  // layer it is; it outlives the tape.
  explicit Tape(Activity* activity = nullptr);
  virtual ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  virtual void record(std::unique_ptr<Op> op, std::span<const Tensor> inputs,
                      std::span<const Tensor> outputs);

  // Adds d(sum(seed * output)) / d(leaf) to every leaf; an empty seed is ones. Leaves the tape
  // empty, so an output has one backward pass; a second one is WEFT_CHECKed.
  void backward(Context& cx, const Tensor& output, const Tensor& seed = Tensor());

  // d(sum(seed * output)) / d(target) for each target, leaf or not; an empty handle where there is
  // none. No leaf's gradient changes. Leaves the tape empty.
  std::vector<Tensor> gradients(Context& cx, const Tensor& output, const Tensor& seed,
                                std::span<const Tensor> targets);

  // Called when the backward pass is done with a leaf: the gradient that it has from this pass, if
  // any, is complete.
  void on_leaf_ready(std::function<void(const Tensor& leaf)> hook);

  // Takes each gradient of a leaf that an op of this pass gives, fp32 of a half type, and gives
  // what is added to the leaf. Op::add_to_leaves is not asked then.
  void complete_leaves(std::function<Tensor(const Tensor& leaf, Tensor gradient)> complete);

  // Gradients of these leaves (ids) that come as rows (Op::row_gradient) go to `take` and are not
  // added; such a leaf is ready once no other gradient is to come.
  void take_rows(std::unordered_set<uint64_t> leaves,
                 std::function<void(const Tensor& leaf, RowGradient rows)> take);

  // How many rows of this leaf, one of those, take is going to be handed.
  int64_t row_count(const Tensor& leaf) const;

  // Gradients of these leaves (ids) wait, where their op can do that (Op::puts_leaves_off), until
  // all others are computed and before() has been called; the one that was put off last comes
  // first.
  void put_off(std::unordered_set<uint64_t> leaves, std::function<void()> before);

  // Ids of the leaves that were recorded, those aside of which nothing but rows is to come.
  std::unordered_set<uint64_t> leaves() const;

  void clear();
  size_t size() const;
  Activity* activity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Runs `block` without recording its insides, and runs it again in the backward pass (activation
// checkpointing). `block` must be a pure function of its input and of tensors that it captures
// (parameters, or results that were recorded outside); those get their gradients through the tape.
Tensor checkpointed(Context& cx, const std::function<Tensor(Context&, const Tensor&)>& block,
                    const Tensor& input);

}  // namespace weft
