// A kernel: one piece of arithmetic with an implementation for each device. An op: a kernel with a
// shape rule and a vjp, which is written with other ops and kernels. Where something runs is
// decided in run_kernel alone; ops that only move or combine what other ops compute need no kernel.
//
// An op object is one application of the op with its attributes (a dropout rate, a dim); the tape
// owns it until the backward pass has used it.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/autograd/context.h"
#include "kernels/tensor/tensor.h"

namespace weft {

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual std::string_view name() const = 0;
  // Computes into `outputs`, which the caller has made. Inputs may have any strides.
  virtual void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) = 0;
  // The same, queued on cx.stream(). By default throw_no_kernel(): it exists on the CPU only.
  virtual void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs);
};

// Throws StatusError(kInvalidArgument): `what` has no kernel for cx.device().
[[noreturn]] void throw_no_kernel(const Context& cx, std::string_view what);

// Runs the kernel on cx.device(), where all tensors are (empty handles aside). Records nothing.
void run_kernel(Context& cx, Kernel& kernel, std::span<const Tensor> inputs,
                std::span<Tensor> outputs);
// The same with one output, made here.
Tensor run_kernel(Context& cx, Kernel&& kernel, std::initializer_list<Tensor> inputs,
                  const TensorSpec& output);

// What an op adds to the gradient of a table that it looks rows up in: values[i] to row ids[i] -
// first_id, for ascending i; to none where there is no such row.
struct RowGradient {
  size_t input = 0;      // the op's, that the table is
  Tensor ids, values;    // int64 [...]; [..., H]
  int64_t first_id = 0;  // the table's first row
};

class Op : public Kernel {
 public:
  // Specs of the outputs; WEFT_CHECKs what the callers (models) have to get right.
  virtual std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const = 0;

  // By default outputs are allocated from shape_rule and the op's kernel runs; an op whose outputs
  // are views of its inputs, or which communicates, overrides forward() instead.
  virtual std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs);

  // Gradients of the inputs (an empty handle: none), given those of the outputs (an empty handle:
  // zero). `saved` holds the tensors named by saves(). Runs with no tape.
  virtual std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                                  std::span<const Tensor> output_grads) = 0;

  // Gradients of leaves among the inputs that can be had before the others, so that they are on
  // their way to other ranks while vjp, which then leaves them out, computes. By default none.
  virtual std::vector<Tensor> leaf_vjp(Context& cx, std::span<const Tensor> saved,
                                       std::span<const Tensor> output_grads);

  // Asked in place of leaf_vjp. True: vjp comes first and leaves out what leaf_vjp gives, which
  // follows when the vjps of other ops have run.
  virtual bool puts_leaves_off() { return false; }

  // Instead of both, where that costs less than making a gradient that is mostly zeros: adds the
  // gradients to what the leaves among the inputs already hold (held[i]; an empty handle: no leaf,
  // or nothing held). False: they are to be called.
  virtual bool add_to_leaves(Context& cx, std::span<const Tensor> saved,
                             std::span<const Tensor> output_grads, std::span<const Tensor> held);

  // Whether the only gradient that the op has is one of rows, and that gradient, instead of vjp.
  virtual bool gives_rows() const { return false; }
  virtual RowGradient row_gradient(std::span<const Tensor> saved,
                                   std::span<const Tensor> output_grads);

  // Whether the op's kernels take inputs of this half type as they are; an op that does not runs in
  // fp32 and its results are rounded (in_single.h). Inputs of several floating types: always so,
  // unless the op takes weights in fp32 beside a first input of a half type, which its results are
  // of then.
  virtual bool native(DType /*half*/) const { return false; }
  virtual bool native_on_gpu(DType half) const { return native(half); }
  virtual bool takes_weights_in_single() const { return false; }
  // Run in fp32 for want of a kernel: whether this result is rounded (a loss is not).
  virtual bool rounds(size_t /*output*/) const { return true; }

  // Which inputs and outputs the vjp needs; everything else is freed as soon as nobody holds it.
  // Also the place to keep shapes. Called once, right after forward.
  virtual std::vector<Tensor> saves(std::span<const Tensor> inputs,
                                    std::span<const Tensor> outputs) = 0;
};

// Runs the op and records it on cx.tape where an input requires a gradient.
std::vector<Tensor> apply(Context& cx, std::unique_ptr<Op> op, std::vector<Tensor> inputs);
Tensor apply_one(Context& cx, std::unique_ptr<Op> op, std::vector<Tensor> inputs);

}  // namespace weft
