#include "worker/parallel/pending.h"

#include "proto/base/activity.h"

namespace weft {

void Pending::wait() {
  if (!outcome_.valid()) return;
  const Activity::Wait wait(complete() ? nullptr : activity_);
  if (Status outcome = outcome_.get(); !outcome.ok()) throw StatusError(std::move(outcome));
}

Pending Pending::watched_by(Activity& activity) && {
  activity_ = &activity;
  return std::move(*this);
}

}  // namespace weft
