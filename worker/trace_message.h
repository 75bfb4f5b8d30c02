// What a rank recorded, as the message that carries it.
//
// Thread safety: pure.
#pragma once

#include <optional>

#include "proto/base/activity.h"
#include "proto/train.pb.h"

namespace weft {

// `steps` are done since the recording began. The rank fills in its number.
proto::RankTrace trace_message(const Activity::Recording& recording, int64_t steps);
// Of a recording whose steps do not end, as where a peer is stopped; from any thread. Nothing: it
// is no recording for that request.
std::optional<proto::RankTrace> trace_so_far(const Activity& activity, uint64_t request);

}  // namespace weft
