// A time in which the cluster comes to rest: no attempt is started, and running ones stop in a
// checkpoint and go back to the queue. It ends by itself, so that nobody who asked for it and went
// away leaves a cluster behind that does nothing; it is not stored.
//
// Thread safety: every call from any thread. Ownership: refers to the clock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "proto/base/clock.h"

namespace weft {

class Drain {
 public:
  explicit Drain(const Clock& clock) : clock_(clock) {}
  // From now on for so long; 0 ends it.
  void begin(int seconds) { until_ns_ = now_ns() + int64_t{seconds} * 1'000'000'000; }
  bool active() const { return now_ns() < until_ns_; }

 private:
  int64_t now_ns() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(clock_.monotonic()).count();
  }
  const Clock& clock_;
  std::atomic<int64_t> until_ns_{0};
};

}  // namespace weft
