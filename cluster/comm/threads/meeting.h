// Where the ranks of one thread communicator meet: a board for what each publishes, a barrier, and
// a mailbox for each ordered pair.
//
// Thread safety: all calls from any rank's thread. Ownership: shared by the ranks' communicators.
// Invariants: 1. what a rank publishes before arrive() is seen by all after it. 2. between arrive()
// and depart() published memory stays valid: depart() never throws, since ranks that have arrived
// depart without waiting for anything else.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace weft::comm {

// One lock for a world and everything split from it.
struct World {
  std::mutex mutex;
  std::condition_variable changed;
  bool lost = false;
  std::string reason;
};

class Meeting;

struct Published {
  const void* in = nullptr;
  void* out = nullptr;
  std::span<const int64_t> counts;
  int color = 0, key = 0;
  std::shared_ptr<Meeting> split;
};

class Meeting {
 public:
  Meeting(std::shared_ptr<World> world, int size);

  int size() const { return size_; }
  const std::shared_ptr<World>& world() const { return world_; }
  const Published& board(int rank) const { return board_[static_cast<size_t>(rank)]; }

  // Publishes and waits until all have. Throws StatusError(kUnavailable) where one cannot come.
  void arrive(int rank, Published mine);
  // Waits until all are done with each other's memory.
  void depart();
  // A rank that takes part no more; what waits for it throws.
  void leave(int rank);

  // Sends and receives at once.
  void exchange(int rank, const void* send, size_t send_bytes, int to, void* receive,
                size_t receive_bytes, int from);

 private:
  enum class Mail { kEmpty, kPosted, kTaking };
  struct Mailbox {
    Mail state = Mail::kEmpty;
    const void* data = nullptr;
    size_t bytes = 0;
  };
  Mailbox& mailbox(int from, int to) {
    return mailboxes_[static_cast<size_t>(from) * static_cast<size_t>(size_) +
                      static_cast<size_t>(to)];
  }
  bool gone(int rank) const { return world_->lost || left_[static_cast<size_t>(rank)]; }
  bool anyone_gone() const { return world_->lost || leavers_ > 0; }
  [[noreturn]] void throw_broken() const;

  const std::shared_ptr<World> world_;
  const int size_;
  // Guarded by world_->mutex (the board's slots: by the barrier).
  std::vector<Published> board_;
  std::vector<Mailbox> mailboxes_;
  int waiting_ = 0;
  uint64_t generation_ = 0;
  std::vector<bool> left_;  // by rank
  int leavers_ = 0;
};

}  // namespace weft::comm
