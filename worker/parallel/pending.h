// A collective that was started and goes on beside the rank's own work.
//
// Thread safety: a value of one thread. Ownership: shares the outcome with whoever runs the
// collective; letting go of it neither stops nor waits. Invariant: a default one is complete. A
// failure crosses threads as a Status: an exception object would be shared by both.
#pragma once

#include <chrono>
#include <future>
#include <utility>

#include "proto/base/status.h"

namespace weft {

class Activity;

// What `work` throws, as a Status; ok: nothing. What is no StatusError is kInternal.
template <typename Work>
Status failure_of(const Work& work) {
  try {
    work();
  } catch (const StatusError& error) {
    return error.status();
  } catch (const std::exception& error) {
    return {Code::kInternal, error.what()};
  }
  return {};
}

class Pending {
 public:
  Pending() = default;
  explicit Pending(std::future<Status> outcome) : outcome_(std::move(outcome)) {}

  // Something was started that was not waited for yet.
  explicit operator bool() const { return outcome_.valid(); }
  // Whether wait() would return at once.
  bool complete() const {
    return !outcome_.valid() ||
           outcome_.wait_for(std::chrono::seconds(0)) != std::future_status::timeout;
  }
  // Results may be read, inputs written again: on the CPU it returns once that is so; on a device
  // at once, and what is queued from then on comes after the collective. Throws StatusError where
  // the collective failed. A second call returns at once.
  void wait();
  // Whose compute thread waits in wait().
  Pending watched_by(Activity& activity) &&;

 private:
  std::future<Status> outcome_;
  Activity* activity_ = nullptr;  // null: nobody's
};

}  // namespace weft
