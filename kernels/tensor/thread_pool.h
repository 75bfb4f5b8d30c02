// The one pool that does all CPU work of a rank. Size 1 runs on the caller.
//
// Thread safety: parallel_for from the rank's compute thread only; it is not reentrant: a nested
// call runs on the calling thread. Ownership: the rank owns it. Invariants: 1. every thread flushes
// denormals (FTZ and DAZ). 2. the split of a range depends on the range, the grain and the pool's
// size only, so results are reproducible with the same thread count. An exception in a body reaches
// the caller.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace weft {

class ThreadPool {
 public:
  // cpus: the processors to pin the threads to, in turn; empty: no pinning. The caller is thread 0.
  explicit ThreadPool(int threads, std::span<const int> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  // body(begin, end) over disjoint parts of [0, count), each of at least `grain` elements but for
  // the last; returns when all are done.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t, int64_t)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Sets flush-to-zero and denormals-are-zero on the calling thread.
void flush_denormals();

}  // namespace weft
