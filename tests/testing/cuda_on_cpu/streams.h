// Streams, events, graphs and memory of the device made of fibers. Work that is queued on a stream
// runs only when something waits for it, streams against each other in the order of the schedule
// (forward: the oldest stream as far as it goes; reverse: the newest; seeded: any), so that two
// pieces of work that no event orders run in both orders in a test. The null stream waits for all
// others and runs its work at once.
//
// Found and thrown as a Fault: a wait for an event that nothing records; memory written outside its
// bounds, when it is freed. Fresh device memory holds kPoison bytes.
//
// Thread safety: every call from any thread; device_mutex() is held while work runs, so that
// `ready` and work may share state that is guarded by it. What is stuck is a Fault at once, or,
// while expect_others() says that other threads or processes queue work too, once nothing has moved
// for a while. Ownership: streams, events, graphs and memory live until they are destroyed; alive()
// counts them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::cuda_on_cpu {

struct Node {  // of a graph
  std::function<void()> work;
  std::set<size_t> after;  // nodes that come first
};
// Which threads may not make calls that no graph can hold while something is captured.
enum class Forbids { kAllThreads, kItsThread, kNobody };
struct Capture {
  std::vector<Node> nodes;
  Forbids forbids = Forbids::kAllThreads;
  bool valid = true;  // false: something was asked of it that cannot be
};

}  // namespace weft::cuda_on_cpu

struct CUevent_st {
  uint64_t recorded = 0;  // how often
  // How often it has come to pass; streams that wait for it may outlive the event.
  std::shared_ptr<uint64_t> done = std::make_shared<uint64_t>(0);
  std::shared_ptr<weft::cuda_on_cpu::Capture> capture;
  std::set<size_t> captured_after;
};
struct CUstream_st {
  struct Item {
    std::function<void()> work;
    std::shared_ptr<const uint64_t> waits_for;  // an event's `done`
    uint64_t count = 0;                         // of its records
    std::function<bool()> ready;                // instead: asked until it is true
  };
  std::deque<Item> queue;
  std::shared_ptr<weft::cuda_on_cpu::Capture> capture;  // while work is kept for a graph
  std::set<size_t> captured_after;
  bool captures_first = false;  // it began the capture
};
struct CUgraph_st {
  std::vector<weft::cuda_on_cpu::Node> nodes;
};
struct CUgraphExec_st {
  std::vector<weft::cuda_on_cpu::Node> nodes;
};

namespace weft::cuda_on_cpu {

using Stream = CUstream_st;
using Event = CUevent_st;

Stream* create_stream();
void destroy_stream(Stream* stream);  // after its work
// Queues it; at once where the stream is null.
void enqueue(Stream* stream, std::function<void()> work);
// The same, once `ready` says so; the stream waits. Not while it is captured.
void enqueue_when(Stream* stream, std::function<bool()> ready, std::function<void()> work);
// Whether nothing of the stream is left; with others, what can run now does first, without waiting.
bool advance(Stream* stream);
std::recursive_mutex& device_mutex();
void expect_others(int change);
void record(Event* event, Stream* stream);
void wait_for(Stream* stream, Event* event);
void run_stream(Stream* stream);  // until nothing of it is left; null: of all
void run_until_done(Event* event);
// One graph's work, in an order of the schedule.
void run_graph(const std::vector<Node>& nodes);
void begin_capture(Stream* stream, Forbids forbids);
// What was kept. A stream that others joined has not joined back: false.
bool end_capture(Stream* stream, std::vector<Node>& nodes);
bool capture_forbids_calls();  // of this thread
// Whether the stream is captured. What waits for its work or asks after it ends that: the capture
// is no longer valid.
bool spoil_capture(Stream* stream);

// The GPUs that this thread sees, by numbers that tell each from every other one. A thread sees one
// of its own, unless it is told to share others', or the process is told which its machine has;
// what they hold all lies in the same memory.
std::vector<int> gpu_numbers();
void set_gpu_number(int number);                 // of this thread; from 0
void set_gpu_numbers(std::vector<int> numbers);  // of the process
int chosen_gpu();                                // of this thread: its place among gpu_numbers()
bool choose_gpu(int place);                      // false: there is no such one

void* allocate(size_t bytes, bool pinned);
void release(void* memory);  // checks its guards
bool is_pinned(const void* at);
bool is_device(const void* at);
struct Alive {
  size_t streams, events, allocations, bytes;
};
Alive alive();
void count_event(int change);

}  // namespace weft::cuda_on_cpu
