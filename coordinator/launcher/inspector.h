// Questions about what a job's ranks do at this moment, on their way from whoever asks (any thread)
// to the supervisor, which sends them to the nodes, and back. Nothing of it is stored: a
// coordinator that is started again knows of no trace.
//
// Thread safety: every call from any thread; stacks() waits. Ownership: values. Invariants: 1. a
// job has one trace at most, the newest; the kTracesMax newest of all are kept, each within
// kTraceBytesMax.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "proto/base/clock.h"
#include "proto/job.pb.h"
#include "proto/node.pb.h"

namespace weft {

class Inspector {
 public:
  static constexpr size_t kTracesMax = 4;
  static constexpr size_t kTraceBytesMax = size_t{256} << 20;
  static constexpr double kPartSeconds = 30;  // after a trace's first part, for the others

  explicit Inspector(const Clock& clock) : clock_(clock) {}

  // ---- whoever asks
  // What the job's ranks do; waits `seconds` at most for their stacks. A rank that does not answer
  // is shown as it was last heard of, and why.
  std::vector<proto::RankStack> stacks(const proto::Job& job, double seconds);
  // Records the next `steps` steps of the job's current attempt, in place of its trace before.
  void start_trace(const proto::Job& job, int steps);
  struct Trace {
    uint64_t request = 0;
    int32_t attempt = 0;
    int steps = 0;
    size_t ranks = 0;
    std::map<int, proto::RankTrace> parts;
    size_t bytes = 0;
    bool too_large = false;
    bool late = false;  // a part did not come in time
    Clock::Duration first_part{};
    bool complete() const { return ranks > 0 && parts.size() == ranks && !too_large; }
  };
  std::optional<Trace> trace(const std::string& job) const;

  // ---- the supervisor
  std::vector<proto::InspectAttempt> take_questions();
  // What heartbeats have told of those ranks.
  void known(uint64_t request, const std::vector<proto::RankNow>& ranks);
  void answer(const proto::AttemptInspected& answer);
  void answer(proto::TraceOfRank answer);

 private:
  struct Waiting {
    std::map<int, proto::RankStack> ranks;
    size_t answers = 0;
  };
  void ask(const proto::Job& job, uint64_t request, int trace_steps);

  const Clock& clock_;
  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable answered_;
  uint64_t last_request_ = 0;
  std::vector<proto::InspectAttempt> questions_;
  std::map<uint64_t, Waiting> waiting_;  // by request
  std::map<std::string, Trace> traces_;  // by job
};

}  // namespace weft
