// What a rank's trace comes to: how long it computed and communicated, and how much of the latter
// was hidden behind the former.
//
// Thread safety: pure.
#pragma once

#include "proto/api.pb.h"
#include "proto/train.pb.h"

namespace weft {

// Hidden is the time in which a collective is under way and the compute thread does not wait for
// one; everything within the trace's steps.
proto::RankTraceSummary summary_of(const proto::RankTrace& trace);

}  // namespace weft
