// The one thread of a rank that works on what the rank has started, in that order.
//
// Thread safety: all calls from the rank's compute thread and from the thread itself.
// Ownership: shared by the rank's communicators; the last one joins it, so work that waits for
// other ranks must be made to give up before. Invariants: 1. work is done one piece after the
// other. 2. what a piece captured is destroyed before its outcome is told. 3. the thread flushes
// denormals, as every thread that computes.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "proto/base/status.h"

namespace weft::comm {

class CommunicationThread {
 public:
  CommunicationThread() = default;
  ~CommunicationThread();  // finishes what was started
  CommunicationThread(const CommunicationThread&) = delete;
  CommunicationThread& operator=(const CommunicationThread&) = delete;

  // The thread itself is made at the first start. The outcome is what `work` throws
  // (worker/parallel/pending.h), or ok.
  std::future<Status> start(std::function<void()> work);
  // Starts `work` and waits for it; on the thread itself, does it at once. Throws StatusError where
  // `work` throws.
  void call(const std::function<void()>& work);
  bool idle();  // nothing that was started is left to do
  // Waits until everything that was started is done; on the thread itself, returns at once.
  void wait_idle();

 private:
  struct Piece {
    std::function<void()> work;
    std::promise<Status> outcome;
  };
  bool on_it() const { return std::this_thread::get_id() == thread_.get_id(); }
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Piece> queue_;
  bool busy_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace weft::comm
