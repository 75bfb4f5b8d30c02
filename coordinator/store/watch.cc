#include "coordinator/store/watch.h"

namespace weft {

std::unique_ptr<WatchHub::Ticket> WatchHub::subscribe(const std::string& job, unsigned topics,
                                                      std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  const uint64_t id = next_id_++;
  watchers_[id] = Watcher{job, topics, std::move(wake)};
  return std::make_unique<Ticket>(*this, id);
}

void WatchHub::notify(const std::string& job, unsigned topics) {
  std::lock_guard lock(mutex_);
  for (const auto& [id, watcher] : watchers_) {
    if ((watcher.topics & topics) == 0) continue;
    if (watcher.job.empty() || watcher.job == job) watcher.wake();
  }
}

void WatchHub::drop(uint64_t id) {
  std::lock_guard lock(mutex_);
  watchers_.erase(id);
}

}  // namespace weft
