// A collective that was started and goes on beside the rank's own work.
//
// Thread safety: a value of one thread. Ownership: shares the outcome with whoever runs the
// collective; letting go of it neither stops nor waits. Invariant: a default one is complete.
#pragma once

#include <chrono>
#include <future>
#include <utility>

namespace weft {

class Activity;

class Pending {
 public:
  Pending() = default;
  explicit Pending(std::future<void> outcome) : outcome_(std::move(outcome)) {}

  // Something was started that was not waited for yet.
  explicit operator bool() const { return outcome_.valid(); }
  // Whether wait() would return at once.
  bool complete() const {
    return !outcome_.valid() ||
           outcome_.wait_for(std::chrono::seconds(0)) != std::future_status::timeout;
  }
  // Results may be read, inputs written again: on the CPU it returns once that is so; on a device
  // at once, and what is queued from then on comes after the collective. Throws what the collective
  // threw. A second call returns at once.
  void wait();
  // Whose compute thread waits in wait().
  Pending watched_by(Activity& activity) &&;

 private:
  std::future<void> outcome_;
  Activity* activity_ = nullptr;  // null: nobody's
};

}  // namespace weft
