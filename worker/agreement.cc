#include "worker/agreement.h"

#include <array>

namespace weft {

Boundary agree(Rank& rank, const Boundary& mine) {
  const std::array<int64_t, 5> local = {mine.control, mine.writing ? 1 : 0, mine.stalled ? 1 : 0,
                                        mine.trace.request, mine.trace.steps};
  Tensor all = Tensor::from<int64_t>(*rank.allocator, {5}, local);
  rank.mesh.axis(Axis::kWorld).all_reduce(all, ReduceOp::kMax);
  const std::vector<int64_t> agreed = all.to_vector<int64_t>();
  return {static_cast<proto::ControlKind>(agreed[0]),
          agreed[1] != 0,
          agreed[2] != 0,
          {agreed[3], agreed[4]}};
}

}  // namespace weft
