#include "worker/agreement.h"

#include <array>

namespace weft {

Boundary agree(Rank& rank, const Boundary& mine) {
  const std::array<int64_t, 2> local = {mine.control, mine.writing ? 1 : 0};
  Tensor both = Tensor::from<int64_t>(*rank.allocator, {2}, local);
  rank.mesh.axis(Axis::kWorld).all_reduce(both, ReduceOp::kMax);
  const std::vector<int64_t> agreed = both.to_vector<int64_t>();
  return {static_cast<proto::ControlKind>(agreed[0]), agreed[1] != 0};
}

}  // namespace weft
