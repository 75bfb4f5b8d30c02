#include "kernels/tensor/thread_pool.h"

#include <xmmintrin.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/tensor/pinning.h"
#include "proto/base/check.h"

namespace weft {
namespace {

constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;

thread_local bool inside_parallel = false;

}  // namespace

void flush_denormals() {
  constexpr unsigned kWanted = kFlushToZero | kDenormalsAreZero;
  const unsigned now = _mm_getcsr();
  if ((now & kWanted) != kWanted) _mm_setcsr(now | kWanted);
}

struct ThreadPool::State {
  State() = default;
  ~State() {  // also of a pool that did not get all of its threads
    stop = true;
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
    for (std::thread& thread : threads) thread.join();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // Constant after construction.
  int size = 1;
  std::vector<std::thread> threads;
  // Written by the caller before `generation` moves on, read by the threads after it has.
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t count = 0, chunk = 0;
  std::vector<std::exception_ptr> errors;  // one a thread
  bool stop = false;

  std::atomic<uint32_t> generation{0};
  std::atomic<int> running{0};

  void run_part(int part) {
    const int64_t begin = std::min(count, part * chunk), end = std::min(count, begin + chunk);
    if (begin >= end) return;
    inside_parallel = true;
    try {
      (*body)(begin, end);
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
    inside_parallel = false;
  }

  void serve(int part) {
    flush_denormals();
    uint32_t seen = 0;
    while (true) {
      generation.wait(seen, std::memory_order_acquire);
      seen = generation.load(std::memory_order_acquire);
      if (stop) return;
      run_part(part);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads, std::span<const int> cpus) : state_(std::make_unique<State>()) {
  WEFT_CHECK(threads >= 1, "a pool of {} threads", threads);
  flush_denormals();
  state_->size = threads;
  state_->errors.resize(static_cast<size_t>(threads));
  const std::vector<int> pins(cpus.begin(), cpus.end());
  if (!pins.empty()) pin_to(pins[0]);
  for (int part = 1; part < threads; ++part) {
    const int cpu = pins.empty() ? -1 : pins[static_cast<size_t>(part) % pins.size()];
    state_->threads.emplace_back([state = state_.get(), part, cpu] {
      if (cpu >= 0) pin_to(cpu);
      state->serve(part);
    });
  }
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const { return state_->size; }

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  flush_denormals();
  const int64_t parts_max = std::max<int64_t>(1, count / std::max<int64_t>(1, grain));
  const int64_t parts = std::min<int64_t>(state_->size, parts_max);
  if (parts == 1 || inside_parallel) {
    body(0, count);
    return;
  }
  state_->body = &body;
  state_->count = count;
  state_->chunk = (count + parts - 1) / parts;
  state_->running.store(state_->size - 1, std::memory_order_relaxed);
  state_->generation.fetch_add(1, std::memory_order_release);
  state_->generation.notify_all();
  state_->run_part(0);
  for (int left = state_->running.load(std::memory_order_acquire); left > 0;
       left = state_->running.load(std::memory_order_acquire)) {
    state_->running.wait(left, std::memory_order_acquire);
  }
  for (std::exception_ptr& error : state_->errors) {
    if (!error) continue;
    const std::exception_ptr first = std::exchange(error, nullptr);
    for (std::exception_ptr& other : state_->errors) other = nullptr;
    std::rethrow_exception(first);
  }
}

}  // namespace weft
