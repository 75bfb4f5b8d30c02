// What a rank tells, applied to its job in one synced write.
//
// Thread safety: as the stores'. Ownership: none. Invariants: those of JobStore::apply_rank; a
// checkpoint is committed only while all its chunks are here.
#pragma once

#include <string>

#include "coordinator/launcher/attempt_end.h"
#include "coordinator/store/content.h"
#include "coordinator/store/job_store.h"
#include "proto/base/clock.h"
#include "proto/train.pb.h"

namespace weft {

struct RankWorld {
  JobStore& store;
  Content& content;
  const Clock& clock;
  RestartPolicy policy;
};

struct RankAnswer {
  enum class Kind {
    kReply,  // durable, or refused for good: send `reply`
    kRetry,  // the store cannot write now: try this message again later, before the rank's next
             // ones
    kDrop,   // an earlier message is missing: it will come again in order
  };
  Kind kind = Kind::kReply;
  proto::RankReply reply;
};

RankAnswer apply_rank_message(const RankWorld& world, const proto::RankEnvelope& envelope);

}  // namespace weft
