#include "worker/models/token_dropout.h"

#include "kernels/ops/ops.h"

namespace weft {

Tensor token_dropout(Context& cx, const Rank& rank, const TokenBatch& batch, const Tensor& x,
                     double rate, const RandomKey& key, const DropoutPlace& place) {
  if (!batch.training || rate == 0) return x;
  const int index = rank.mesh.index(Axis::kSequence);
  if (rank.blocks > 0) {
    const int64_t first = batch.first_row * batch.tokens + batch.layout->runs(index)[0].start;
    const int64_t features = x.shape()[-1];
    const Tensor one_row = ops::reshape(cx, x, {1, x.elements() / features, features});
    return ops::dropout(cx, one_row, rate, key,
                        {{1, batch.rows * batch.tokens, place.features},
                         {0, first + place.among_own.start, place.first_feature}});
  }
  std::vector<Tensor> parts;
  int64_t at = 0;
  for (const Part& run : batch.layout->runs(index, place.among_own)) {
    const ops::GlobalIndex where{{batch.rows, batch.tokens, place.features},
                                 {batch.first_row, run.start, place.first_feature}};
    const Tensor part = ops::slice(cx, x, 1, at, run.length);
    parts.push_back(ops::dropout(cx, part, rate, key, where));
    at += run.length;
  }
  if (parts.empty()) return x;
  return parts.size() == 1 ? parts[0] : ops::concat(cx, parts, 1);
}

}  // namespace weft
