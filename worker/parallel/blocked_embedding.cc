// Of tokens: a row is taken from the rank that has it, so that nothing is added up. Of distances:
// each block has what they look up for itself.
#include <array>
#include <vector>

#include "kernels/ops/common.h"
#include "kernels/tensor/strided.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

// Inputs: ids [B, T], table [V/t, H].
class Embedding final : public ops::ForwardOp {
 public:
  Embedding(const TensorAxis& axis, int64_t vocabulary, int64_t padding_id)
      : axis_(axis), vocabulary_(vocabulary), padding_id_(padding_id) {}
  std::string_view name() const override { return "blocked_embedding"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor ids = as_contiguous(cx.pool, inputs[0]);
    const Tensor& table = inputs[1];
    const int64_t width = table.dim(1), own = ids.elements() / axis_.comm.size();
    const Tensor rows = ops::embedding_values(cx, ids, table, axis_.part(vocabulary_).start);
    if (axis_.comm.size() == 1) return {ops::reshape(cx, rows, {1, own, width})};
    Tensor found = Tensor::empty(cx.allocator, {ids.elements(), width}, table.dtype());
    const std::vector<int64_t> counts(static_cast<size_t>(axis_.comm.size()), own * width);
    axis_.comm.all_to_all(rows, counts, found, counts);
    std::vector<int64_t> from(static_cast<size_t>(own));
    on_host<int64_t>(ids, [&](const int64_t* id) {
      for (int64_t i = 0; i < own; ++i) {
        from[static_cast<size_t>(i)] = owner(id[axis_.token_part().start + i]) * own + i;
      }
    });
    return {
        ops::embedding_values(cx, Tensor::from<int64_t>(cx.allocator, {1, own}, from), found, 0)};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    table_ = inputs[1].spec();
    return {inputs[0]};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor dy = gathered(cx, axis_.comm, ops::as_rows(cx, output_grads[0]));
    Context in_blocks = cx;
    in_blocks.block_count = axis_.token_blocks();
    return {Tensor(),
            ops::embedding_gradient(in_blocks, saved[0], dy, axis_.part(vocabulary_).start,
                                    {table_.shape, gradient_dtype(table_.dtype)}, padding_id_)};
  }

 private:
  int64_t owner(int64_t id) const { return part_with(vocabulary_, axis_.comm.size(), id); }

  const TensorAxis axis_;
  const int64_t vocabulary_, padding_id_;
  TensorSpec table_;
};

// Inputs: ids [blocks, n], table [rows, N] that is this rank's own. The table's gradient is a sum
// over the blocks.
class Copies final : public ops::ForwardOp {
 public:
  std::string_view name() const override { return "blocked_copies"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {ops::embedding_values(cx, inputs[0], inputs[1], 0)};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    table_ = inputs[1].spec();
    return {inputs[0]};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    Context in_blocks = cx;
    in_blocks.block_count = static_cast<int>(saved[0].dim(0));
    return {Tensor(), ops::embedding_gradient(in_blocks, saved[0], output_grads[0], 0,
                                              {table_.shape, gradient_dtype(table_.dtype)})};
  }

 private:
  TensorSpec table_;
};

}  // namespace

Tensor blocked_distance_bias(Context& cx, const TensorAxis& axis, const Tensor& table,
                             const Tensor& bucket) {
  const Tensor of_each =
      bucket.view({axis.token_blocks(), bucket.dim(0)}, std::array<int64_t, 2>{0, 1}, 0);
  const Tensor rows = ops::run<Copies>(cx, {as_contiguous(cx.pool, of_each), table});
  return ops::contiguous(cx, ops::permute(cx, rows, std::array{0, 2, 1}));
}

Tensor blocked_embedding(Context& cx, const TensorAxis& axis, const Tensor& ids,
                         const Tensor& table, int64_t vocabulary, int64_t padding_id) {
  return ops::run<Embedding>(cx, {ids, table}, axis, vocabulary, padding_id);
}

}  // namespace weft::parallel
