#include "tests/testing/cuda_on_cpu/machine.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <cstring>
#include <optional>
#include <vector>

#include "tests/testing/cuda_on_cpu/annotate.h"

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

Schedule schedule_now;

enum class State { kRunnable, kAtBarrier, kInWarp, kDone };

struct Thread {
  context::fiber fiber;  // where it goes on
  FiberNote note;
  State state = State::kRunnable;
  Where where;  // of the meeting it waits at
  unsigned mask = 0;
  uint64_t bits = 0;  // its own before the meeting, the result after it
  int source = 0;
  bool ballot = false;
};

std::string line_of(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}
bool same_line(const Where& a, const Where& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

class Shuffler {
 public:
  explicit Shuffler(const Schedule& schedule) : schedule_(schedule), state_(schedule.seed) {}
  std::vector<size_t> order_of(size_t n) {
    std::vector<size_t> order(n);
    for (size_t i = 0; i < n; ++i) order[i] = schedule_.order == Order::kReverse ? n - 1 - i : i;
    if (schedule_.order == Order::kSeeded) {
      for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[next() % i]);
    }
    return order;
  }
  // The first, or any if seeded.
  size_t choose(size_t n) { return schedule_.order == Order::kSeeded ? next() % n : 0; }

 private:
  uint64_t next() {  // SplitMix64 (Steele et al. 2014)
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }
  const Schedule schedule_;
  uint64_t state_;
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

 private:
  void run_rounds();
  void drain();
  void start(size_t index);
  void resume(size_t index);
  bool step_warp(size_t warp);
  void run_to_barrier();
  void release_group(size_t first, unsigned lane);
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
  std::vector<Thread> threads_;
};

Block* block_now = nullptr;

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

// Lets the lanes go on that wait for each other at one line with one mask, if none is missing.
void Block::release_group(size_t first, unsigned lane) {
  const Thread& leader = threads_[first + lane];
  unsigned ballot = 0;
  uint64_t bits[kLanes] = {};
  for (unsigned other = 0; other < kLanes; ++other) {
    if ((leader.mask >> other & 1) == 0) continue;
    if (first + other >= threads_.size()) return;
    const Thread& thread = threads_[first + other];
    if (thread.state != State::kInWarp || thread.mask != leader.mask ||
        !same_line(thread.where, leader.where)) {
      return;
    }
    bits[other] = thread.bits;
    if (thread.bits != 0) ballot |= 1U << other;
  }
  for (unsigned other = 0, mask = leader.mask; other < kLanes; ++other) {
    if ((mask >> other & 1) == 0) continue;
    Thread& thread = threads_[first + other];
    if (!thread.ballot && (mask >> thread.source & 1) == 0) {
      fault_ = line_of(thread.where) + ": " + place(first + other) + " reads lane " +
               std::to_string(thread.source) + ", which is outside the mask";
    }
    thread.bits = thread.ballot ? ballot : bits[thread.source];
    thread.state = State::kRunnable;
  }
}

// Runs the warp's threads up to their next meetings and lets those go on whose meeting within the
// warp is complete. False if none can.
bool Block::step_warp(size_t warp) {
  const size_t first = warp * kLanes;
  const size_t lanes = std::min<size_t>(kLanes, threads_.size() - first);
  for (const size_t lane : shuffler_.order_of(lanes)) {
    if (threads_[first + lane].state == State::kRunnable) resume(first + lane);
    if (fault_) throw Fault(*fault_);
  }
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if (threads_[first + lane].state == State::kInWarp) release_group(first, lane);
  }
  if (fault_) throw Fault(*fault_);
  return std::any_of(threads_.begin() + static_cast<ptrdiff_t>(first),
                     threads_.begin() + static_cast<ptrdiff_t>(first + lanes),
                     [](const Thread& thread) { return thread.state == State::kRunnable; });
}

// Each warp up to the barrier or its end: one after the other, so that the first is as far ahead of
// the last as it can be, or, seeded, in turns.
void Block::run_to_barrier() {
  std::vector<size_t> warps = shuffler_.order_of((threads_.size() + kLanes - 1) / kLanes);
  while (!warps.empty()) {
    const size_t chosen = shuffler_.choose(warps.size());
    if (step_warp(warps[chosen])) continue;
    warps.erase(warps.begin() + static_cast<ptrdiff_t>(chosen));
  }
}

// Nothing runs and no warp can go on: all threads must be at one barrier.
void Block::release_barrier() {
  const Thread* leader = nullptr;
  for (size_t i = 0; i < threads_.size(); ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == State::kInWarp) {
      throw Fault(line_of(thread.where) + ": lanes of the mask of " + place(i) +
                  " never reach this warp operation");
    }
    if (thread.state == State::kAtBarrier) leader = &thread;
  }
  for (size_t i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
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

void run_grid(Extent grid, Extent size, const std::function<void()>& thread_body) {
  Shuffler shuffler(schedule_now);
  position.block_size = size;
  position.grid_size = grid;
  for (const size_t index : shuffler.order_of(size_t{grid.x} * grid.y * grid.z)) {
    const unsigned at = static_cast<unsigned>(index);
    position.block = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    if (__start_weft_shared != nullptr) {
      std::memset(__start_weft_shared, kPoison,
                  static_cast<size_t>(__stop_weft_shared - __start_weft_shared));
    }
    Block block(size, thread_body, shuffler);
    block_now = &block;
    block.run();
  }
  block_now = nullptr;
}

void barrier(const Where& where) { block_now->wait(State::kAtBarrier, where); }

int lane() { return static_cast<int>(block_now->running() % kLanes); }

uint64_t warp_exchange(unsigned mask, uint64_t bits, int source, const Where& where) {
  if ((mask >> lane() & 1) == 0) throw Fault(line_of(where) + ": the caller is not in the mask");
  Thread& self = block_now->self();
  self.mask = mask;
  self.bits = bits;
  self.source = source;
  self.ballot = false;
  block_now->wait(State::kInWarp, where);
  return self.bits;
}

unsigned warp_ballot(unsigned mask, bool vote, const Where& where) {
  if ((mask >> lane() & 1) == 0) throw Fault(line_of(where) + ": the caller is not in the mask");
  Thread& self = block_now->self();
  self.mask = mask;
  self.bits = vote ? 1 : 0;
  self.ballot = true;
  block_now->wait(State::kInWarp, where);
  return static_cast<unsigned>(self.bits);
}

}  // namespace weft::cuda_on_cpu
