// What all ranks of an attempt do at a step's boundary: one small all-reduce (max) of what each
// knows.
//
// Thread safety: the rank's compute thread; a collective over the world.
#pragma once

#include "proto/train.pb.h"
#include "worker/parallel/rank.h"

namespace weft {

// A trace that was asked for: of so many steps, by a request with this number.
struct TraceWish {
  int64_t request = 0;  // 0: none
  int64_t steps = 0;
};

struct Boundary {
  // The strongest request that any rank has heard of: none < checkpoint < pause < cancel.
  proto::ControlKind control = proto::CONTROL_KIND_UNSPECIFIED;
  bool writing = false;  // some rank's checkpoint chunks are not durable yet
  bool stalled = false;  // and one was refused: no room, or no way to the coordinator
  TraceWish trace;       // rank 0's
};

Boundary agree(Rank& rank, const Boundary& mine);

}  // namespace weft
