#include "tests/testing/cuda_on_cpu/machine.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "tests/testing/cuda_on_cpu/annotate.h"
#include "tests/testing/cuda_on_cpu/shuffler.h"
#include "tests/testing/cuda_on_cpu/traffic.h"

// The bounds of the section in which the macro __shared__ puts variables (the linker defines them
// where there is such a section).
extern "C" {
extern char __start_weft_shared[] __attribute__((weak));
extern char __stop_weft_shared[] __attribute__((weak));
}

namespace weft::cuda_on_cpu {

Position position;

namespace {

namespace context = boost::context;

constexpr unsigned kLanes = 32;
constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kSharedAlignment = 1024, kGuardBytes = 4096;
constexpr int kGuard = 0xA5;

Schedule schedule_now;

enum class State { kRunnable, kAtBarrier, kMeeting, kWaiting, kDone };

struct Thread {
  context::fiber fiber;  // where it goes on
  FiberNote note;
  State state = State::kRunnable;
  Where where;                  // of the barrier, meeting or wait it is at
  bool vote = false;            // kAtBarrier
  unsigned span = 0, mask = 0;  // kMeeting: of so many threads; of these lanes, if of a warp
  void* part = nullptr;
  Complete complete = nullptr;
  const std::function<bool()>* ready = nullptr;  // kWaiting
  std::unique_ptr<ThreadTraffic> traffic;        // made when it is asked for
};

bool same_line(const Where& a, const Where& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

// The dynamic shared memory of the running block, between guards.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes)
      : bytes_(bytes), room_(bytes + 2 * kGuardBytes + kSharedAlignment) {
    void* at = room_.data() + kGuardBytes;
    size_t space = room_.size() - kGuardBytes;
    begin_ = static_cast<std::byte*>(std::align(kSharedAlignment, bytes, at, space));
    std::memset(room_.data(), kGuard, room_.size());
  }
  void poison() { std::memset(begin_, kPoison, bytes_); }
  void check_guards() const {
    const auto touched = [](const std::byte* from, const std::byte* to) {  // all are as the first
      return *from != std::byte{kGuard} ||
             std::memcmp(from, from + 1, static_cast<size_t>(to - from) - 1) != 0;
    };
    if (touched(room_.data(), begin_) || touched(begin_ + bytes_, room_.data() + room_.size())) {
      throw Fault("dynamic shared memory was written outside its " + std::to_string(bytes_) +
                  " bytes");
    }
  }
  std::byte* begin() const { return begin_; }
  bool holds(const void* at, size_t bytes) const {
    const auto* from = static_cast<const std::byte*>(at);
    return from >= begin_ && from + bytes <= begin_ + bytes_;
  }

 private:
  const size_t bytes_;
  std::vector<std::byte> room_;
  std::byte* begin_;
};

struct Abandoned {};  // thrown through the threads of a block that has failed

class Block {
 public:
  Block(Extent size, const std::function<void()>& body, Shuffler& shuffler)
      : size_(size), body_(body), shuffler_(shuffler), threads_(size_t{size.x} * size.y * size.z) {}
  void run();
  // Of the running thread.
  Thread& self() { return threads_[running_]; }
  size_t running() const { return running_; }
  void wait(State state, const Where& where);
  int votes() const { return votes_; }
  BlockTraffic& traffic() { return traffic_; }

 private:
  void run_rounds();
  void drain();
  void start(size_t index);
  void resume(size_t index);
  bool step_warp(size_t warp);
  void run_to_barrier();
  bool complete_meeting(size_t index);
  bool end_waits();
  void release_barrier();
  std::string place(size_t index) const { return "thread " + std::to_string(index); }

  const Extent size_;
  const std::function<void()>& body_;
  Shuffler& shuffler_;
  std::optional<std::string> fault_;
  bool abandoned_ = false;
  context::fiber scheduler_;
  FiberNote scheduler_note_;
  size_t running_ = 0;
  int votes_ = 0;  // of the last barrier
  BlockTraffic traffic_;
  std::vector<size_t> lane_order_;  // of the warp that takes a step
  std::vector<Thread> threads_;
};

Block* block_now = nullptr;
SharedMemory* shared_now = nullptr;

context::pooled_fixedsize_stack& stacks() {
  static context::pooled_fixedsize_stack pool(kStackBytes);
  return pool;
}

void Block::start(size_t index) {
  const auto entry = [this, index](context::fiber&& scheduler) {
    FiberNote::arrived(nullptr, &scheduler_note_);
    scheduler_ = std::move(scheduler);
    try {
      if (!abandoned_) body_();
    } catch (const Fault& fault) {
      if (!fault_) fault_ = fault.what();
    } catch (const Abandoned&) {
    }
    threads_[index].state = State::kDone;
    FiberNote::leave_for_good(scheduler_note_);
    return std::move(scheduler_);
  };
  context::pooled_fixedsize_stack allocator = stacks();  // a handle to the pool
  const context::stack_context stack = allocator.allocate();
  threads_[index].note.of_stack(stack.sp, stack.size);
  threads_[index].fiber =
      context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                     std::move(allocator), entry);
}

void Block::resume(size_t index) {
  running_ = index;
  const unsigned at = static_cast<unsigned>(index);
  position.thread = {at % size_.x, at / size_.x % size_.y, at / size_.x / size_.y};
  Thread& thread = threads_[index];
  thread.note.enter(scheduler_note_);
  thread.fiber = std::move(thread.fiber).resume();
  FiberNote::arrived(&scheduler_note_, nullptr);
}

void Block::wait(State state, const Where& where) {
  Thread& thread = self();
  thread.state = state;
  thread.where = where;
  scheduler_note_.enter(thread.note);
  scheduler_ = std::move(scheduler_).resume();
  FiberNote::arrived(&thread.note, &scheduler_note_);
  if (abandoned_) throw Abandoned();
}

// Lets the threads of a meeting go on, if none is missing.
bool Block::complete_meeting(size_t index) {
  const Thread& leader = threads_[index];
  const size_t first = index - index % leader.span;
  const bool of_warp = leader.span == kLanes;
  void* parts[kGroupThreads] = {};
  for (size_t i = 0; i < leader.span; ++i) {
    if (of_warp && (leader.mask >> i & 1) == 0) continue;
    if (first + i >= threads_.size()) return false;
    const Thread& thread = threads_[first + i];
    if (thread.state != State::kMeeting || thread.span != leader.span ||
        thread.mask != leader.mask || thread.complete != leader.complete ||
        !same_line(thread.where, leader.where)) {
      return false;
    }
    parts[i] = thread.part;
  }
  leader.complete(parts, leader.mask, leader.where);
  for (size_t i = 0; i < leader.span; ++i) {
    if (parts[i] != nullptr) threads_[first + i].state = State::kRunnable;
  }
  return true;
}

// Lets those go on whose condition holds now. False if there is none.
bool Block::end_waits() {
  bool any = false;
  for (Thread& thread : threads_) {
    if (thread.state != State::kWaiting || !(*thread.ready)()) continue;
    thread.state = State::kRunnable;
    any = true;
  }
  return any;
}

// Runs the warp's threads up to their next meetings and lets those go on whose meeting is complete.
// False if none of them can.
bool Block::step_warp(size_t warp) {
  const size_t first = warp * kLanes;
  const size_t lanes = std::min<size_t>(kLanes, threads_.size() - first);
  shuffler_.put_order_of(lanes, lane_order_);
  for (const size_t lane : lane_order_) {
    if (threads_[first + lane].state == State::kRunnable) resume(first + lane);
    if (fault_) throw Fault(*fault_);
  }
  for (size_t lane = 0; lane < lanes; ++lane) {
    if (threads_[first + lane].state == State::kMeeting) complete_meeting(first + lane);
  }
  return std::any_of(threads_.begin() + static_cast<ptrdiff_t>(first),
                     threads_.begin() + static_cast<ptrdiff_t>(first + lanes),
                     [](const Thread& thread) { return thread.state == State::kRunnable; });
}

// Each warp up to the barrier or its end: one after the other, so that the first is as far ahead of
// the last as it can be, or, seeded, in turns.
void Block::run_to_barrier() {
  const auto runnable = [](const Thread& thread) { return thread.state == State::kRunnable; };
  do {
    std::vector<size_t> warps = shuffler_.order_of((threads_.size() + kLanes - 1) / kLanes);
    while (!warps.empty()) {
      const size_t chosen = shuffler_.choose(warps.size());
      if (step_warp(warps[chosen])) continue;
      warps.erase(warps.begin() + static_cast<ptrdiff_t>(chosen));
    }
  } while (std::any_of(threads_.begin(), threads_.end(), runnable) || end_waits());
}

// Nothing runs and no warp can go on: all threads must be at one barrier.
void Block::release_barrier() {
  const Thread* leader = nullptr;
  for (size_t i = 0; i < threads_.size(); ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == State::kMeeting) {
      throw Fault(line_of(thread.where) + ": lanes of the mask of " + place(i) +
                  " never reach this warp operation");
    }
    if (thread.state == State::kWaiting) {
      throw Fault(line_of(thread.where) + ": nothing ends the wait of " + place(i));
    }
    if (thread.state == State::kAtBarrier) leader = &thread;
  }
  votes_ = 0;
  for (size_t i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    votes_ += thread.vote ? 1 : 0;
    if (thread.state == State::kDone || !same_line(thread.where, leader->where)) {
      throw Fault(
          line_of(leader->where) + ": divergent barrier: " + place(i) +
          (thread.state == State::kDone ? " has returned" : " waits at " + line_of(thread.where)));
    }
    thread.state = State::kRunnable;
  }
}

void Block::run() {
  for (size_t i = 0; i < threads_.size(); ++i) start(i);
  try {
    run_rounds();
  } catch (const Fault&) {
    drain();
    throw;
  }
}

// Unwinds the stacks of the threads that have not returned.
void Block::drain() {
  abandoned_ = true;
  for (size_t i = 0; i < threads_.size(); ++i) {
    if (threads_[i].state != State::kDone) resume(i);
  }
}

void Block::run_rounds() {
  while (true) {
    run_to_barrier();
    if (std::all_of(threads_.begin(), threads_.end(),
                    [](const Thread& thread) { return thread.state == State::kDone; })) {
      return;
    }
    release_barrier();
  }
}

}  // namespace

std::string name_of(const Schedule& schedule) {
  if (schedule.order == Order::kForward) return "forward";
  if (schedule.order == Order::kReverse) return "reverse";
  return "seed " + std::to_string(schedule.seed);
}

void set_schedule(const Schedule& schedule) { schedule_now = schedule; }
const Schedule& schedule() { return schedule_now; }

void run_grid(Extent grid, Extent size, size_t shared_bytes,
              const std::function<void()>& thread_body) {
  Shuffler shuffler(schedule_now);
  SharedMemory shared(shared_bytes);
  shared_now = &shared;
  position.block_size = size;
  position.grid_size = grid;
  for (const size_t index : shuffler.order_of(size_t{grid.x} * grid.y * grid.z)) {
    const unsigned at = static_cast<unsigned>(index);
    position.block = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    if (__start_weft_shared != nullptr) {
      std::memset(__start_weft_shared, kPoison,
                  static_cast<size_t>(__stop_weft_shared - __start_weft_shared));
    }
    shared.poison();
    Block block(size, thread_body, shuffler);
    block_now = &block;
    block.run();
    shared.check_guards();
  }
  block_now = nullptr;
  shared_now = nullptr;
}

std::string line_of(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

unsigned thread_in_block() { return static_cast<unsigned>(block_now->running()); }
ThreadTraffic& thread_traffic() {
  std::unique_ptr<ThreadTraffic>& traffic = block_now->self().traffic;
  if (traffic == nullptr) traffic = std::make_unique<ThreadTraffic>();
  return *traffic;
}
BlockTraffic& block_traffic() { return block_now->traffic(); }
void* dynamic_shared() { return shared_now->begin(); }

void check_shared(const void* at, size_t bytes, const Where& where) {
  const auto* from = static_cast<const char*>(at);
  const bool in_variable = __start_weft_shared != nullptr && from >= __start_weft_shared &&
                           from + bytes <= __stop_weft_shared;
  if (in_variable || shared_now->holds(at, bytes)) return;
  throw Fault(line_of(where) + ": an address outside shared memory");
}

void check_aligned(const void* at, size_t bytes, const Where& where) {
  if (reinterpret_cast<uintptr_t>(at) % bytes == 0) return;
  throw Fault(line_of(where) + ": a vector of " + std::to_string(bytes) + " bytes, not aligned");
}

int barrier(bool vote, const Where& where) {
  block_now->self().vote = vote;
  block_now->wait(State::kAtBarrier, where);
  return block_now->votes();
}

void meet_in_warp(unsigned mask, void* part, Complete complete, const Where& where) {
  if ((mask >> lane() & 1) == 0) throw Fault(line_of(where) + ": the caller is not in the mask");
  Thread& self = block_now->self();
  self.span = kLanes;
  self.mask = mask;
  self.part = part;
  self.complete = complete;
  block_now->wait(State::kMeeting, where);
}

void meet_in_group(void* part, Complete complete, const Where& where) {
  Thread& self = block_now->self();
  self.span = kGroupThreads;
  self.mask = 0;
  self.part = part;
  self.complete = complete;
  block_now->wait(State::kMeeting, where);
}

void wait_until(const std::function<bool()>& ready, const Where& where) {
  block_now->self().ready = &ready;
  block_now->wait(State::kWaiting, where);
}

}  // namespace weft::cuda_on_cpu
