// Cross-entropy whose logits are sharded over the vocabulary: the rule is ops::LabelRule's, what is
// combined over the axis three numbers a row.
#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {
namespace {

ops::TokenLoss over_axis(Communicator& comm, int64_t vocabulary, ops::TokenLoss loss) {
  if (comm.size() == 1) return loss;
  loss.shard.vocabulary = vocabulary;
  loss.shard.parts = comm.size();
  loss.shard.first = part_of(vocabulary, comm.size(), comm.rank()).start;
  loss.shard.maximum = [&comm](Tensor x) { comm.all_reduce(x, ReduceOp::kMax); };
  loss.shard.sum = [&comm](Tensor x) { comm.all_reduce(x, ReduceOp::kSum); };
  return loss;
}

void check_width(const Communicator& comm, int64_t width, int64_t vocabulary) {
  const int64_t expected = part_of(vocabulary, comm.size(), comm.rank()).length;
  WEFT_CHECK(width == expected, "{} logits of a part of {}", width, expected);
}

}  // namespace

Tensor vocabulary_cross_entropy(Context& cx, Communicator& comm, const Tensor& logits,
                                const Tensor& labels, int64_t vocabulary,
                                const ops::TokenLoss& loss) {
  check_width(comm, logits.shape()[-1], vocabulary);
  return ops::cross_entropy_sum(cx, logits, labels, over_axis(comm, vocabulary, loss));
}

Tensor vocabulary_linear_cross_entropy(Context& cx, Communicator& comm, const Tensor& x,
                                       const Tensor& table, const Tensor& labels,
                                       int64_t vocabulary, const ops::TokenLoss& loss,
                                       const Tensor& bias) {
  check_width(comm, table.dim(0), vocabulary);
  return ops::linear_cross_entropy_sum(cx, x, table, labels, over_axis(comm, vocabulary, loss),
                                       bias);
}

}  // namespace weft::parallel
