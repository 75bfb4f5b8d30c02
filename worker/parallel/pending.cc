#include "worker/parallel/pending.h"

#include "proto/base/activity.h"

namespace weft {

void Pending::wait() {
  if (!outcome_.valid()) return;
  const Activity::Wait wait(complete() ? nullptr : activity_);
  outcome_.get();
}

Pending Pending::watched_by(Activity& activity) && {
  activity_ = &activity;
  return std::move(*this);
}

}  // namespace weft
