#include "cluster/comm/threads/meeting.h"

#include <cstring>

#include "proto/base/check.h"
#include "proto/base/status.h"

namespace weft::comm {

Meeting::Meeting(std::shared_ptr<World> world, int size)
    : world_(std::move(world)),
      size_(size),
      board_(static_cast<size_t>(size)),
      mailboxes_(static_cast<size_t>(size) * static_cast<size_t>(size)),
      left_(static_cast<size_t>(size)) {}

void Meeting::throw_broken() const {
  throw StatusError(Status(Code::kUnavailable, world_->lost ? world_->reason : "a rank has left"));
}

void Meeting::arrive(int rank, Published mine) {
  std::unique_lock lock(world_->mutex);
  if (anyone_gone()) throw_broken();
  board_[static_cast<size_t>(rank)] = std::move(mine);
  if (++waiting_ == size_) {
    waiting_ = 0;
    ++generation_;
    world_->changed.notify_all();
    return;
  }
  const uint64_t before = generation_;
  world_->changed.wait(lock, [&] { return generation_ != before || anyone_gone(); });
  if (generation_ == before) throw_broken();
}

void Meeting::depart() {
  std::unique_lock lock(world_->mutex);
  if (++waiting_ == size_) {
    waiting_ = 0;
    ++generation_;
    world_->changed.notify_all();
    return;
  }
  const uint64_t before = generation_;
  world_->changed.wait(lock, [&] { return generation_ != before; });
}

void Meeting::leave(int rank) {
  const std::lock_guard lock(world_->mutex);
  left_[static_cast<size_t>(rank)] = true;
  ++leavers_;
  world_->changed.notify_all();
}

void Meeting::exchange(int rank, const void* send, size_t send_bytes, int to, void* receive,
                       size_t receive_bytes, int from) {
  std::unique_lock lock(world_->mutex);
  if (gone(to) || gone(from)) throw_broken();
  Mailbox& sent = mailbox(rank, to);
  Mailbox& incoming = mailbox(from, rank);
  sent = {Mail::kPosted, send, send_bytes};
  world_->changed.notify_all();
  const auto withdraw = [&] {  // nobody may read `send` once we have thrown
    world_->changed.wait(lock, [&] { return sent.state != Mail::kTaking; });
    sent.state = Mail::kEmpty;
    throw_broken();
  };
  world_->changed.wait(lock, [&] { return incoming.state == Mail::kPosted || gone(from); });
  if (incoming.state != Mail::kPosted) withdraw();
  incoming.state = Mail::kTaking;
  const Mailbox mail = incoming;
  WEFT_CHECK(mail.bytes == receive_bytes, "sent {} bytes, expected {}", mail.bytes, receive_bytes);
  lock.unlock();
  if (mail.bytes != 0) std::memmove(receive, mail.data, mail.bytes);
  lock.lock();
  incoming.state = Mail::kEmpty;
  world_->changed.notify_all();
  world_->changed.wait(lock, [&] {
    return sent.state == Mail::kEmpty || (gone(to) && sent.state == Mail::kPosted);
  });
  if (sent.state != Mail::kEmpty) withdraw();
}

}  // namespace weft::comm
