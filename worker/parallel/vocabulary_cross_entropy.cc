// Cross-entropy whose logits are sharded over the vocabulary (Shoeybi et al. 2019, section 3):
// three numbers a row cross the axis instead of its logits.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/ops/common.h"
#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {
namespace {

// Inputs: logits [..., V/t], labels [...]. Outputs: the sum, and the global log-sum-exp of each
// row.
class VocabularyCrossEntropy final : public ops::ForwardOp {
 public:
  VocabularyCrossEntropy(Communicator& comm, int64_t vocabulary, int64_t ignore_index)
      : comm_(comm),
        vocabulary_(vocabulary),
        ignore_index_(ignore_index),
        part_(part_of(vocabulary, comm.size(), comm.rank())) {}
  std::string_view name() const override { return "vocabulary_cross_entropy"; }
  bool rounds(size_t) const override { return false; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor x = as_contiguous(cx.pool, inputs[0]), labels = as_contiguous(cx.pool, inputs[1]);
    check(x, labels);
    return dispatch_floating(x.dtype(), [&]<typename T>() { return compute<T>(cx, x, labels); });
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], outputs[1].detach()};
  }

  // d logits = dy (softmax(logits) - one_hot(label)), of this rank's part of the vocabulary.
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor x = as_contiguous(cx.pool, saved[0]), labels = as_contiguous(cx.pool, saved[1]);
    Tensor dx = Tensor::empty(cx.allocator, x.shape(), x.dtype());
    const int64_t width = part_.length;
    const int64_t* label = labels.data<int64_t>();
    dispatch_floating(x.dtype(), [&]<typename T>() {
      const T dy = *output_grads[0].data<T>();
      const T* lse = saved[2].data<T>();
      cx.pool.parallel_for(labels.elements(), grain(), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          T* to = dx.data<T>() + row * width;
          if (label[row] == ignore_index_) {
            std::fill_n(to, width, T{0});
            continue;
          }
          cpu::rows<T>().exp_shifted(x.data<T>() + row * width, lse[row], dy, to, width);
          if (here(label[row])) to[label[row] - part_.start] -= dy;
        }
      });
    });
    return {dx};
  }

 private:
  int64_t grain() const { return 1 + 4096 / (part_.length + 1); }
  bool here(int64_t label) const {
    return label >= part_.start && label < part_.start + part_.length;
  }

  void check(const Tensor& x, const Tensor& labels) const {
    Shape rows = x.shape();
    WEFT_CHECK(rows.dims() >= 1 && rows[-1] == part_.length, "logits {} of a part of {}",
               rows.to_string(), part_.length);
    rows = Shape(rows.extents().first(static_cast<size_t>(rows.dims() - 1)));
    WEFT_CHECK(rows == labels.shape(), "logits {} with labels {}", x.shape().to_string(),
               labels.shape().to_string());
    // Every rank has the same labels, so either all throw or none does.
    const int64_t* label = labels.data<int64_t>();
    for (int64_t row = 0; row < labels.elements(); ++row) {
      if (label[row] == ignore_index_ || (label[row] >= 0 && label[row] < vocabulary_)) continue;
      throw StatusError(Status::invalid("label", std::to_string(label[row]),
                                        fmt::format("must be in [0, {})", vocabulary_)));
    }
  }

  template <typename T>
  std::vector<Tensor> compute(Context& cx, const Tensor& x, const Tensor& labels) {
    const int64_t count = labels.elements(), width = part_.length;
    const int64_t* label = labels.data<int64_t>();
    Tensor highest = Tensor::empty(cx.allocator, {count}, x.dtype());
    T* maximum = highest.data<T>();
    cx.pool.parallel_for(count, grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        maximum[row] = cpu::rows<T>().max(x.data<T>() + row * width, width);
      }
    });
    comm_.all_reduce(highest, ReduceOp::kMax);
    // Sums of exponentials, then the labels' logits: each rank adds its part.
    Tensor terms = Tensor::zeros(cx.allocator, {2, count}, x.dtype());
    T* sums = terms.data<T>();
    T* chosen = sums + count;
    cx.pool.parallel_for(count, grain(), [&](int64_t begin, int64_t end) {
      Tensor scratch = Tensor::empty(cx.allocator, {width}, x.dtype());
      for (int64_t row = begin; row < end; ++row) {
        if (label[row] == ignore_index_) continue;
        const T* from = x.data<T>() + row * width;
        sums[row] = cpu::rows<T>().exp_shifted(from, maximum[row], T{1}, scratch.data<T>(), width);
        if (here(label[row])) chosen[row] = from[label[row] - part_.start];
      }
    });
    comm_.all_reduce(terms, ReduceOp::kSum);
    double total = 0;
    for (int64_t row = 0; row < count; ++row) {
      if (label[row] == ignore_index_) continue;
      maximum[row] += std::log(sums[row]);  // now the log-sum-exp
      total += static_cast<double>(maximum[row]) - static_cast<double>(chosen[row]);
    }
    return {Tensor::full(cx.allocator, Shape{}, total, x.dtype()), highest};
  }

  Communicator& comm_;
  const int64_t vocabulary_, ignore_index_;
  const Part part_;
};

}  // namespace

Tensor vocabulary_cross_entropy(Context& cx, Communicator& comm, const Tensor& logits,
                                const Tensor& labels, int64_t vocabulary, int64_t ignore_index) {
  if (comm.size() == 1) return ops::cross_entropy_sum(cx, logits, labels, ignore_index);
  return apply(cx, std::make_unique<VocabularyCrossEntropy>(comm, vocabulary, ignore_index),
               {logits, labels})[0];
}

}  // namespace weft::parallel
