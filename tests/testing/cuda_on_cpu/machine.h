// A CUDA device made of fibers: runs a grid block by block, each thread of a block on a stack of
// its own, switching only where the threads of a block meet (barriers, warp operations). Which
// block, warp and thread goes first is set by the schedule: a kernel that lacks a barrier sees
// different values under another order. Forward and reverse, a warp runs up to the next barrier
// before another starts; seeded, they take turns.
//
// Found and thrown as a Fault: a barrier that some threads of the block do not reach or reach at
// another line; a warp operation whose mask names lanes that do not come, or leaves out the caller;
// a shuffle from a lane outside the mask; a wait that nothing ends; a vector at an address
// that is not a multiple of its bytes; dynamic shared memory written outside its bounds. Shared
// memory holds kPoison bytes when a block starts.
//
// Thread safety: one launch at a time in the process. Ownership: stacks are pooled for the life of
// the process. Invariants: 1. the same kernel, arguments and schedule run in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>

namespace weft::cuda_on_cpu {

enum class Order { kForward, kReverse, kSeeded };
struct Schedule {
  Order order = Order::kForward;
  uint64_t seed = 0;  // of kSeeded
};
std::string name_of(const Schedule& schedule);
void set_schedule(const Schedule& schedule);  // of the launches from now on
const Schedule& schedule();

class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

constexpr int kPoison = 0xFF;  // makes NaN of a float and -1 of an integer

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};
// Where the running thread finds itself; written by the machine before it goes on.
struct Position {
  Extent thread{0, 0, 0}, block{0, 0, 0}, block_size, grid_size;
};
extern Position position;

// Runs thread_body once for every thread of the grid, with shared_bytes of dynamic shared memory a
// block. Throws Fault.
void run_grid(Extent grid, Extent block, size_t shared_bytes,
              const std::function<void()>& thread_body);

// ---- called by the running thread
using Where = std::source_location;
std::string line_of(const Where& where);  // "file:line"
// Returns for how many threads of the block `vote` is true.
int barrier(bool vote, const Where& where);
// A meeting of the lanes in `mask`: once all have come, `complete` is called once, with each lane's
// part (null where the mask has no lane), and may throw Fault; then they go on. Lanes meet only at
// one line, with one mask and one `complete`.
using Complete = void (*)(void* const* parts, unsigned mask, const Where& where);
void meet_in_warp(unsigned mask, void* part, Complete complete, const Where& where);
// The same of the 128 threads of an aligned group of four warps.
constexpr unsigned kGroupThreads = 128;
void meet_in_group(void* part, Complete complete, const Where& where);
// Waits until `ready`, which is asked only while no other thread can go on (as late as may be).
void wait_until(const std::function<bool()>& ready, const Where& where);
unsigned thread_in_block();  // row-major
inline int lane() { return static_cast<int>(thread_in_block() % 32); }
// Dynamic shared memory, aligned to 1024 bytes.
void* dynamic_shared();
// Throws Fault unless [at, at + bytes) is shared memory of the block, dynamic or not.
void check_shared(const void* at, size_t bytes, const Where& where);
// Throws Fault unless the address is a multiple of `bytes`.
void check_aligned(const void* at, size_t bytes, const Where& where);
// What is on its way to the running thread and to its block; kept until the block ends.
struct ThreadTraffic;
struct BlockTraffic;
ThreadTraffic& thread_traffic();
BlockTraffic& block_traffic();

}  // namespace weft::cuda_on_cpu
