// What one rank is doing now, for whoever asks while it does it: step, phase, layer, op, and the
// collective that it is in, with its peers and the line that called it; and, while it is recorded,
// what it did when.
//
// Thread safety: phases, layers and ops are told by the rank's compute thread, collectives by the
// thread that runs them, one at a time; now() from any thread. No call waits for anything but a
// mutex that is held for a copy. Ownership: outlives everything that tells it something.
// Invariants:
// 1. an op costs a few relaxed stores; while nothing is recorded a span costs a relaxed load. 2.
// names are literals. 3. what a scope tells ends with it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

namespace weft {

// The phase of a rank that waits for the disks of others: as long as it takes.
inline constexpr const char* kStoringPhase = "storing";

// The ranks of one communicator.
struct RankGroup {
  const char* axis = "";            // "tensor", ...; "world"
  std::vector<int> ranks;           // of the world, in the group's order
  std::atomic<uint64_t> calls = 0;  // begun so far
};

struct CollectiveCall {
  const char* name = nullptr;
  std::shared_ptr<const RankGroup> group;
  uint64_t number = 0;  // among the calls of its group, from 1
  int64_t elements = 0;
  int64_t bytes = 0;
  const char* dtype = "";  // "" where nothing but a signal is exchanged
  std::source_location site;
  // Where the compute thread stood when it called.
  const char* op = nullptr;
  int layer = -1;
};

// What a trace has a line for.
enum class Lane : uint8_t { kCompute, kCommunication, kStorage /* and further threads of it */ };

inline constexpr const char* kStepSpan = "step";
inline constexpr const char* kWaitSpan = "wait";  // the compute thread waits for a collective

struct Span {
  const char* name = nullptr;
  const char* detail = nullptr;  // the axis of a collective, the phase of a layer
  Lane lane = Lane::kCompute;
  int64_t number = -1;               // of the layer or step; -1: none
  int64_t start_ns = 0, end_ns = 0;  // on the monotonic clock
  int64_t bytes = 0;
};

// "worker/step.cc:62" of a call's site.
std::string place_of(const std::source_location& site);

class Activity {
 public:
  static int64_t clock_ns();  // the monotonic clock of spans

  struct Now {
    int64_t step = 0;             // the one that is being worked on, from 1; 0: none yet
    const char* phase = nullptr;  // null: between phases, as are the others
    int layer = -1;
    const char* op = nullptr;
    double phase_seconds = 0;  // so long in that phase
    uint64_t progress = 0;     // grows with each op, collective and phase
    bool in_collective = false;
    CollectiveCall collective;
    double collective_seconds = 0;
    std::vector<std::pair<std::shared_ptr<const RankGroup>, uint64_t>> groups;  // and their calls
    bool waits = false;  // the compute thread does nothing but wait for a collective
  };
  Now now() const;

  void add_group(const std::shared_ptr<const RankGroup>& group);
  void set_step(int64_t step) { step_.store(step, std::memory_order_relaxed); }
  // Something was done that is no op (a row was read, a tensor loaded).
  void tick() {
    // One thread writes: a load and a store do.
    progress_.store(progress_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  // What a recording is of.
  struct RecordingHead {
    uint64_t request = 0;
    int64_t first_step = 0;
    int64_t clock_offset_ns = 0, clock_error_ns = 0;  // worker/clock_offset.h
  };
  struct Recording {
    RecordingHead head;
    std::vector<Span> spans;  // in the order of their ends
    bool truncated = false;
  };
  // Spans that end from now on are kept, at most kSpansMax of them.
  static constexpr size_t kSpansMax = size_t{1} << 17;
  void start_recording(const RecordingHead& head);
  Recording take_recording();  // and stops
  // And goes on; the collective that it is in ends now. Nothing: nothing is recorded.
  std::optional<Recording> recording_so_far() const;

  // Scopes; a null activity is told nothing.
  // Something that only a trace shows.
  class Recorded {
   public:
    Recorded(Activity* activity, Lane lane, const char* name, int64_t number = -1,
             int64_t bytes = 0, const char* detail = nullptr);
    ~Recorded();
    Recorded(const Recorded&) = delete;
    Recorded& operator=(const Recorded&) = delete;

   private:
    friend class Activity;
    void end();  // under the mutex

    Activity* activity_;
    Span span_;
  };
  class Phase {
   public:
    Phase(Activity* activity, const char* name);
    ~Phase();
    Phase(const Phase&) = delete;
    Phase& operator=(const Phase&) = delete;

   private:
    Activity* const activity_;
    const char* before_ = nullptr;
    Recorded recorded_;
  };
  class Layer {
   public:
    Layer(Activity* activity, int layer);
    ~Layer();
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

   private:
    Activity* const activity_;
    int before_ = -1;
    Recorded recorded_;
  };
  class Op {
   public:
    Op(Activity* activity, const char* name) : activity_(activity) {
      if (activity_ == nullptr) return;
      before_ = activity_->op_.load(std::memory_order_relaxed);
      activity_->op_.store(name, std::memory_order_relaxed);
      activity_->tick();
    }
    ~Op() {
      if (activity_ != nullptr) activity_->op_.store(before_, std::memory_order_relaxed);
    }
    Op(const Op&) = delete;
    Op& operator=(const Op&) = delete;

   private:
    Activity* const activity_;
    const char* before_ = nullptr;
  };
  // The compute thread waits.
  class Wait {
   public:
    explicit Wait(Activity* activity);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    Activity* const activity_;
    Recorded recorded_;
  };
  class Collective {
   public:
    Collective(Activity& activity, CollectiveCall call);
    ~Collective();
    Collective(const Collective&) = delete;
    Collective& operator=(const Collective&) = delete;

   private:
    Activity& activity_;
    Recorded recorded_;
  };

  const char* op() const { return op_.load(std::memory_order_relaxed); }
  int layer() const { return layer_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> step_ = 0;
  std::atomic<const char*> phase_ = nullptr;
  std::atomic<int64_t> phase_since_ns_ = 0;
  std::atomic<int> layer_ = -1;
  std::atomic<const char*> op_ = nullptr;
  std::atomic<uint64_t> progress_ = 0;     // the compute thread's
  std::atomic<uint64_t> collectives_ = 0;  // done
  std::atomic<int> waits_ = 0;
  std::atomic<bool> recording_ = false;

  mutable std::mutex mutex_;  // guards the rest
  CollectiveCall call_;       // the present one, if it has a name
  int64_t call_since_ns_ = 0;
  std::vector<std::weak_ptr<const RankGroup>> groups_;
  Recording recorded_;
};

}  // namespace weft
