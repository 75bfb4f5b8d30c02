// A CUDA device made of fibers: runs a grid block by block, each thread of a block on a stack of
// its own, switching only where the threads of a block meet (barriers, warp operations). Which
// block, warp and thread goes first is set by the schedule: a kernel that lacks a barrier sees
// different values under another order. Forward and reverse, a warp runs up to the next barrier
// before another starts; seeded, they take turns.
//
// Found and thrown as a Fault: a barrier that some threads of the block do not reach or reach at
// another line; a warp operation whose mask names lanes that do not come, or leaves out the caller;
// a shuffle from a lane outside the mask. Shared variables hold kPoison bytes when a block starts.
//
// Thread safety: one launch at a time in the process. Ownership: stacks are pooled for the life of
// the process. Invariants: 1. the same kernel, arguments and schedule run in the same order.
#pragma once

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

// Runs thread_body once for every thread of the grid. Throws Fault.
void run_grid(Extent grid, Extent block, const std::function<void()>& thread_body);

// ---- called by the running thread
using Where = std::source_location;
void barrier(const Where& where);
// A meeting of the lanes in `mask`, each with its bits; returns those of `source`, a lane of it.
uint64_t warp_exchange(unsigned mask, uint64_t bits, int source, const Where& where);
// The lanes of `mask` for which `vote` is true.
unsigned warp_ballot(unsigned mask, bool vote, const Where& where);
int lane();  // 0 to 31

}  // namespace weft::cuda_on_cpu
