// The one thread of a rank that works on what the rank has started, in that order. Where nothing is
// left to do, a caller that would only wait stands in for it: no wake-up there and none back.
//
// Thread safety: all calls from the rank's compute thread and from the thread itself.
// Ownership: shared by the rank's communicators; the last one joins it, so work that waits for
// other ranks must be made to give up before. Invariants: 1. work is done one piece after the
// other, whoever does it. 2. what a piece captured is destroyed before its outcome is told. 3. the
// thread and callers flush denormals, as every thread that computes.
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
  // Does `work` on the caller where nothing that was started is left to do, else starts it and
  // waits for it; inside a piece of work, does it at once. Throws StatusError where `work` throws.
  void call(const std::function<void()>& work);
  bool idle();  // nothing that was started is left to do
  // Whether the calling thread stands in: nothing of the rank runs beside it.
  static bool rank_waits();
  // Waits until everything that was started is done; on the thread itself, returns at once.
  void wait_idle();

 private:
  struct Piece {
    std::function<void()> work;
    std::promise<Status> outcome;
  };
  bool on_it() const;
  bool claim();  // true where nothing was left to do; the caller is busy then
  Status run_here(const std::function<void()>& work);
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Piece> queue_;
  bool busy_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace weft::comm
