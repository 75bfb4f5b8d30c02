// Cross-entropy whose logits are sharded over the vocabulary: the rule is ops::LabelRule's, what is
// combined over the axis three numbers a row.
#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {
namespace {

ops::TokenLoss over_axis(Communicator& comm, int64_t first, int64_t whole, ops::TokenLoss loss) {
  if (comm.size() == 1) return loss;
  loss.shard.vocabulary = whole;
  loss.shard.parts = comm.size();
  loss.shard.first = first;
  loss.shard.maximum = [&comm](Tensor x) { comm.all_reduce(x, ReduceOp::kMax); };
  loss.shard.sum = [&comm](Tensor x) { comm.all_reduce(x, ReduceOp::kSum); };
  return loss;
}

// Where this rank's part of a vocabulary begins.
int64_t first_of(const Communicator& comm, int64_t width, int64_t vocabulary) {
  const Part own = part_of(vocabulary, comm.size(), comm.rank());
  WEFT_CHECK(width == own.length, "{} logits of a part of {}", width, own.length);
  return own.start;
}

}  // namespace

Tensor vocabulary_cross_entropy(Context& cx, Communicator& comm, const Tensor& logits,
                                const Tensor& labels, int64_t vocabulary,
                                const ops::TokenLoss& loss) {
  return split_cross_entropy(cx, comm, logits, labels,
                             first_of(comm, logits.shape()[-1], vocabulary), vocabulary, loss);
}

Tensor split_cross_entropy(Context& cx, Communicator& comm, const Tensor& logits,
                           const Tensor& labels, int64_t first, int64_t whole,
                           const ops::TokenLoss& loss) {
  return ops::cross_entropy_sum(cx, logits, labels, over_axis(comm, first, whole, loss));
}

Tensor vocabulary_linear_cross_entropy(Context& cx, Communicator& comm, const Tensor& x,
                                       const Tensor& table, const Tensor& labels,
                                       int64_t vocabulary, const ops::TokenLoss& loss,
                                       const Tensor& bias) {
  const int64_t first = first_of(comm, table.dim(0), vocabulary);
  return ops::linear_cross_entropy_sum(cx, x, table, labels,
                                       over_axis(comm, first, vocabulary, loss), bias);
}

}  // namespace weft::parallel
