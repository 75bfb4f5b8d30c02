// Time as an injected value, so that the coordinator and the agents also run on simulated time.
//
// Thread safety: every call may come from any thread. Ownership: the caller owns the clock and
// keeps it alive longer than its users. Invariants: 1. monotonic() never goes back. 2. Leases and
// timeouts use monotonic() only; wall() is for records that people read.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace weft {

class Clock {
 public:
  using Duration = std::chrono::nanoseconds;
  virtual ~Clock() = default;
  virtual Duration monotonic() const = 0;  // since an arbitrary start
  virtual int64_t wall_ms() const = 0;     // milliseconds since 1970-01-01 UTC
};

class SystemClock final : public Clock {
 public:
  Duration monotonic() const override;
  int64_t wall_ms() const override;
};

// Stands still until it is told to advance.
class SimulatedClock final : public Clock {
 public:
  explicit SimulatedClock(int64_t start_wall_ms = 0) : start_wall_ms_(start_wall_ms) {}
  Duration monotonic() const override { return Duration(now_ns_.load()); }
  int64_t wall_ms() const override { return start_wall_ms_ + now_ns_.load() / 1'000'000; }
  void advance(Duration by) { now_ns_.fetch_add(by.count()); }

 private:
  const int64_t start_wall_ms_;
  std::atomic<int64_t> now_ns_{0};
};

}  // namespace weft
