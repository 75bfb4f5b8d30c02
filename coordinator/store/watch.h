// Wakes readers after a change was stored. It carries no data: readers re-read from the store by
// sequence, so a slow reader never holds up a writer.
//
// Thread safety: every call from any thread. Ownership: a Ticket refers to its hub, which must live
// longer. Callbacks run on the notifying thread, under the hub's mutex.
// Invariants: 1. A callback must return at once and must not subscribe, notify or drop its ticket.
// 2. After ~Ticket the callback is neither running nor called again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace weft {

class WatchHub {
 public:
  class Ticket {
   public:
    Ticket(WatchHub& hub, uint64_t id) : hub_(hub), id_(id) {}
    ~Ticket() { hub_.drop(id_); }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

   private:
    WatchHub& hub_;
    const uint64_t id_;
  };

  // job "": every job. `topics`: bits of Topic (topics.h).
  std::unique_ptr<Ticket> subscribe(const std::string& job, unsigned topics,
                                    std::function<void()> wake);
  void notify(const std::string& job, unsigned topics);

 private:
  struct Watcher {
    std::string job;
    unsigned topics;
    std::function<void()> wake;
  };
  void drop(uint64_t id);

  std::mutex mutex_;  // guards the rest
  uint64_t next_id_ = 1;
  std::map<uint64_t, Watcher> watchers_;
};

}  // namespace weft
