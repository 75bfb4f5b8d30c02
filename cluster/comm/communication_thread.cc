#include "cluster/comm/communication_thread.h"

#include <pthread.h>

#include <utility>

#include "kernels/tensor/pinning.h"
#include "kernels/tensor/thread_pool.h"
#include "worker/parallel/pending.h"
#include "worker/parallel/refusals.h"

namespace weft::comm {
namespace {

// Of a caller that does a piece itself.
thread_local const CommunicationThread* stands_in_for = nullptr;

}  // namespace

CommunicationThread::~CommunicationThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

std::future<Status> CommunicationThread::start(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });  // or throws: nothing waits
  queue_.push_back({std::move(work), {}});
  std::future<Status> outcome = queue_.back().outcome.get_future();
  changed_.notify_all();
  return outcome;
}

void CommunicationThread::call(const std::function<void()>& work) {
  if (on_it()) return work();
  Status outcome = claim() ? run_here(work) : start(work).get();
  if (!outcome.ok()) throw StatusError(std::move(outcome));
}

bool CommunicationThread::claim() {
  const std::lock_guard lock(mutex_);
  if (busy_ || !queue_.empty()) return false;
  return busy_ = true;
}

Status CommunicationThread::run_here(const std::function<void()>& work) {
  flush_denormals();
  stands_in_for = this;
  Status outcome = failure_of([&] { tell_refusals(work); });
  stands_in_for = nullptr;
  const std::lock_guard lock(mutex_);
  busy_ = false;
  if (!queue_.empty()) changed_.notify_all();
  return outcome;
}

bool CommunicationThread::rank_waits() { return stands_in_for != nullptr; }

bool CommunicationThread::on_it() const {
  return stands_in_for == this || std::this_thread::get_id() == thread_.get_id();
}

bool CommunicationThread::idle() {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && !busy_;
}

void CommunicationThread::wait_idle() {
  if (on_it()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return queue_.empty() && !busy_; });
}

void CommunicationThread::run() {
  ::pthread_setname_np(::pthread_self(), "communication");
  run_anywhere();
  flush_denormals();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !busy_ && (stopping_ || !queue_.empty()); });
    if (queue_.empty()) return;
    Piece piece = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    Status outcome = failure_of([&] { tell_refusals(piece.work); });
    piece.work = nullptr;
    lock.lock();
    busy_ = false;  // together with the outcome: whoever has it finds the thread idle
    piece.outcome.set_value(std::move(outcome));
    changed_.notify_all();
  }
}

}  // namespace weft::comm
