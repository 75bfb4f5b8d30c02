// What a rank does now, as the message that tells it and in words.
//
// Thread safety: pure.
#pragma once

#include "proto/base/activity.h"
#include "proto/train.pb.h"

namespace weft {

proto::RankNow rank_now(const Activity::Now& now, int rank);

// "rank 3 waits since 31 s in all_reduce of 4.0 MiB F32 on the tensor axis (ranks 2, 3; call 12) at
// worker/step.cc:60, step 120 in backward of layer 2": what people read of one rank.
std::string describe(const proto::RankNow& now);
// Stopped by a signal or a debugger, or gone.
bool is_halted(const proto::RankNow& now);

}  // namespace weft
