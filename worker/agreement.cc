#include "worker/agreement.h"

#include <array>

namespace weft {

Boundary agree(Rank& rank, const Boundary& mine) {
  const std::array<int64_t, 4> local = {mine.control, mine.writing ? 1 : 0, mine.trace.request,
                                        mine.trace.steps};
  Tensor all = Tensor::from<int64_t>(*rank.allocator, {4}, local);
  rank.mesh.axis(Axis::kWorld).all_reduce(all, ReduceOp::kMax);
  const std::vector<int64_t> agreed = all.to_vector<int64_t>();
  return {static_cast<proto::ControlKind>(agreed[0]), agreed[1] != 0, {agreed[2], agreed[3]}};
}

}  // namespace weft
