#include "tests/testing/cuda_on_cpu/streams.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "tests/testing/cuda_on_cpu/shuffler.h"

namespace weft::cuda_on_cpu {
namespace {

constexpr size_t kGuardBytes = 1024;
constexpr int kGuard = 0xA5;

struct Block {
  std::vector<std::byte> room;  // guard, the bytes, guard
  size_t bytes = 0;
  bool pinned = false;
};

struct Device {
  std::vector<std::unique_ptr<Stream>> streams;  // in the order of creation
  std::map<const void*, Block> memory;           // by first byte
  size_t events = 0;
  int captures = 0;  // that forbid calls of all threads
};
Device& device() {
  static Device the_device;
  return the_device;
}

std::condition_variable_any changed;  // something was queued, or has run
std::atomic<int> others{0};

constexpr int kOwnGpus = 1000;  // the first of those that nobody was told to share
std::atomic<int> own_gpus{0};
thread_local int number_of_gpu = -1, place_of_gpu = 0;
std::optional<std::vector<int>> numbers_of_process;
thread_local int own_captures = 0;  // that forbid calls of this thread

using Lock = std::unique_lock<std::recursive_mutex>;

bool can_run(const Stream& stream) {
  if (stream.queue.empty()) return false;
  const Stream::Item& head = stream.queue.front();
  if (head.ready) return head.ready();
  return head.waits_for == nullptr || *head.waits_for >= head.count;
}

void run_head(Stream& stream) {
  const Stream::Item item = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (item.work) item.work();
  changed.notify_all();
}

Stream* next_to_run(Shuffler& shuffler) {
  for (const size_t index : shuffler.order_of(device().streams.size())) {
    if (can_run(*device().streams[index])) return device().streams[index].get();
  }
  return nullptr;
}

// Runs heads of streams in the schedule's order until `enough`. The caller holds the mutex once.
void run_until(Lock& lock, const std::function<bool()>& enough) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::seconds kStuck{20};
  constexpr std::chrono::milliseconds kLook{1};  // another process notifies nobody
  Shuffler shuffler(schedule());
  auto moved = Clock::now();
  while (!enough()) {
    Stream* const next = next_to_run(shuffler);
    if (next != nullptr) {
      run_head(*next);
    } else if (others == 0 || Clock::now() - moved > kStuck) {
      throw Fault("a stream waits for an event that nothing records");
    }
    const bool told =
        next == nullptr && changed.wait_for(lock, kLook) == std::cv_status::no_timeout;
    if (next != nullptr || told) moved = Clock::now();
  }
}

void run_until_empty(Lock& lock, Stream* stream) {
  run_until(lock, [stream] {
    if (stream != nullptr) return stream->queue.empty();
    return std::all_of(device().streams.begin(), device().streams.end(),
                       [](const auto& each) { return each->queue.empty(); });
  });
}

const std::map<const void*, Block>::value_type* block_of(const void* at) {
  auto found = device().memory.upper_bound(at);
  if (found == device().memory.begin()) return nullptr;
  --found;
  const auto* first = static_cast<const std::byte*>(found->first);
  return static_cast<const std::byte*>(at) < first + found->second.bytes ? &*found : nullptr;
}

}  // namespace

std::recursive_mutex& device_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

void expect_others(int change) {
  others += change;
  changed.notify_all();
}

std::vector<int> gpu_numbers() {
  if (numbers_of_process) return *numbers_of_process;
  if (number_of_gpu < 0) number_of_gpu = kOwnGpus + own_gpus++;
  return {number_of_gpu};
}

void set_gpu_number(int number) { number_of_gpu = number; }
void set_gpu_numbers(std::vector<int> numbers) { numbers_of_process = std::move(numbers); }

int chosen_gpu() { return place_of_gpu; }
bool choose_gpu(int place) {
  if (place < 0 || place >= std::ssize(gpu_numbers())) return false;
  place_of_gpu = place;
  return true;
}

Stream* create_stream() {
  const Lock lock(device_mutex());
  device().streams.push_back(std::make_unique<Stream>());
  return device().streams.back().get();
}

void destroy_stream(Stream* stream) {
  Lock lock(device_mutex());
  run_until_empty(lock, stream);
  std::erase_if(device().streams, [&](const auto& owned) { return owned.get() == stream; });
}

void enqueue(Stream* stream, std::function<void()> work) {
  Lock lock(device_mutex());
  changed.notify_all();
  if (stream == nullptr) {
    run_until_empty(lock, nullptr);
    work();
  } else if (stream->capture != nullptr) {
    std::vector<Node>& nodes = stream->capture->nodes;
    nodes.push_back({std::move(work), stream->captured_after});
    stream->captured_after = {nodes.size() - 1};
  } else {
    stream->queue.push_back({std::move(work)});
  }
}

void enqueue_when(Stream* stream, std::function<bool()> ready, std::function<void()> work) {
  const Lock lock(device_mutex());
  changed.notify_all();
  stream->queue.push_back({std::move(work), nullptr, 0, std::move(ready)});
}

bool advance(Stream* stream) {
  const Lock lock(device_mutex());
  if (others == 0) return stream->queue.empty();
  Shuffler shuffler(schedule());
  while (Stream* next = next_to_run(shuffler)) run_head(*next);
  return stream->queue.empty();
}

void record(Event* event, Stream* stream) {
  const Lock lock(device_mutex());
  if (stream != nullptr && stream->capture != nullptr) {
    event->capture = stream->capture;
    event->captured_after = stream->captured_after;
    return;
  }
  event->capture = nullptr;
  const uint64_t count = ++event->recorded;
  enqueue(stream, [done = event->done, count] { *done = std::max(*done, count); });
}

void wait_for(Stream* stream, Event* event) {
  Lock lock(device_mutex());
  if (event->capture != nullptr) {
    stream->capture = event->capture;
    stream->captured_after.insert(event->captured_after.begin(), event->captured_after.end());
  } else if (stream == nullptr) {
    run_until(lock, [event, count = event->recorded] { return *event->done >= count; });
  } else {
    stream->queue.push_back({nullptr, event->done, event->recorded});
  }
}

void run_stream(Stream* stream) {
  Lock lock(device_mutex());
  run_until_empty(lock, stream);
}

void run_until_done(Event* event) {
  Lock lock(device_mutex());
  run_until(lock, [event, count = event->recorded] { return *event->done >= count; });
}

void run_graph(const std::vector<Node>& nodes) {
  Shuffler shuffler(schedule());
  std::vector<bool> done(nodes.size(), false);
  const auto is_done = [&](size_t node) { return done[node]; };
  for (size_t left = nodes.size(); left > 0; --left) {
    for (const size_t index : shuffler.order_of(nodes.size())) {
      const std::set<size_t>& after = nodes[index].after;
      if (done[index] || !std::all_of(after.begin(), after.end(), is_done)) continue;
      nodes[index].work();
      done[index] = true;
      break;
    }
  }
}

bool end_capture(Stream* stream, std::vector<Node>& nodes) {
  const Lock lock(device_mutex());
  const std::shared_ptr<Capture> capture = stream->capture;
  std::set<size_t> last;
  for (size_t i = 0; i < capture->nodes.size(); ++i) last.insert(i);
  for (const Node& node : capture->nodes) {
    for (const size_t before : node.after) last.erase(before);
  }
  const bool joined = std::includes(stream->captured_after.begin(), stream->captured_after.end(),
                                    last.begin(), last.end());
  nodes = capture->nodes;
  if (capture->forbids == Forbids::kAllThreads) --device().captures;
  if (capture->forbids == Forbids::kItsThread) --own_captures;
  for (const auto& each : device().streams) {
    if (each->capture != capture) continue;
    each->capture = nullptr;
    each->captured_after.clear();
    each->captures_first = false;
  }
  return joined;
}

void begin_capture(Stream* stream, Forbids forbids) {
  const Lock lock(device_mutex());
  stream->capture = std::make_shared<Capture>();
  stream->capture->forbids = forbids;
  stream->captured_after.clear();
  stream->captures_first = true;
  if (forbids == Forbids::kAllThreads) ++device().captures;
  if (forbids == Forbids::kItsThread) ++own_captures;
}

bool capture_forbids_calls() {
  const Lock lock(device_mutex());
  return device().captures > 0 || own_captures > 0;
}

bool spoil_capture(Stream* stream) {
  const Lock lock(device_mutex());
  if (stream == nullptr || stream->capture == nullptr) return false;
  stream->capture->valid = false;
  return true;
}

void* allocate(size_t bytes, bool pinned) {
  const Lock lock(device_mutex());
  Block block{std::vector<std::byte>(bytes + 2 * kGuardBytes + 256, std::byte{kGuard}), bytes,
              pinned};
  void* at = block.room.data() + kGuardBytes;
  size_t space = block.room.size() - kGuardBytes;
  at = std::align(256, bytes, at, space);
  std::memset(at, kPoison, bytes);
  device().memory.emplace(at, std::move(block));
  return at;
}

void release(void* memory) {
  const Lock lock(device_mutex());
  const auto found = device().memory.find(memory);
  if (found == device().memory.end()) throw Fault("memory is freed that was not allocated");
  const Block& block = found->second;
  const auto* begin = static_cast<const std::byte*>(memory);
  const std::byte *first = block.room.data(), *last = first + block.room.size();
  const auto touched = [](std::byte value) { return value != std::byte{kGuard}; };
  const bool written =
      std::any_of(first, begin, touched) || std::any_of(begin + block.bytes, last, touched);
  const std::string size = std::to_string(block.bytes);
  device().memory.erase(found);
  if (written) throw Fault("an allocation of " + size + " bytes was written outside its bounds");
}

bool is_pinned(const void* at) {
  const Lock lock(device_mutex());
  const auto* block = block_of(at);
  return block != nullptr && block->second.pinned;
}
bool is_device(const void* at) {
  const Lock lock(device_mutex());
  const auto* block = block_of(at);
  return block != nullptr && !block->second.pinned;
}

Alive alive() {
  const Lock lock(device_mutex());
  size_t bytes = 0;
  for (const auto& [at, block] : device().memory) bytes += block.bytes;
  return {device().streams.size(), device().events, device().memory.size(), bytes};
}

void count_event(int change) {
  const Lock lock(device_mutex());
  device().events = static_cast<size_t>(static_cast<int64_t>(device().events) + change);
}

}  // namespace weft::cuda_on_cpu
