// Traces of ranks in the Trace Event Format, which Perfetto and chrome://tracing read: a process a
// rank, a thread each for its compute thread, its communication thread and the writing of
// checkpoints; complete events ("X") in microseconds from the first one, on rank 0's clock.
//
// Thread safety: one thread. Ownership: the stream owns the traces. Events of a thread are in the
// order of their starts, and of two with one start the longer comes first.
#pragma once

#include <memory>
#include <vector>

#include "coordinator/api/http_types.h"
#include "proto/train.pb.h"

namespace weft::api {

std::unique_ptr<BodyStream> chrome_trace(std::vector<proto::RankTrace> ranks);

}  // namespace weft::api
