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
  static constexpr double kCutSeconds = 3;    // after it was ended, for what ranks have so far

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
    Clock::Duration first_part{};
    std::optional<Clock::Duration> ended;  // by whoever asked for it
    std::map<int, proto::RankNow> heard;   // newest of each rank; their ages as of now
    std::map<int, Clock::Duration> heard_at;
    Clock::Duration heard_new{};  // when a rank had last got something done, or sent a part
    // As of now.
    bool over = false;  // no part will be waited for
    double quiet_seconds = 0;
    bool complete() const { return ranks > 0 && parts.size() == ranks && !too_large; }
    bool cut() const;  // some part lacks its last steps
  };
  // Ranks send what they have recorded so far.
  void end_trace(const proto::Job& job);
  std::optional<Trace> trace(const std::string& job) const;

  // ---- the supervisor
  std::vector<proto::InspectAttempt> take_questions();
  // What heartbeats have told of those ranks.
  void known(uint64_t request, const std::vector<proto::RankNow>& ranks);
  // What a heartbeat tells of a rank.
  void heard(const proto::AttemptNow& now);
  void answer(const proto::AttemptInspected& answer);
  void answer(proto::TraceOfRank answer);

 private:
  struct Waiting {
    std::map<int, proto::RankStack> ranks;
    size_t answers = 0;
  };
  proto::Inspect& ask(const proto::Job& job, uint64_t request);

  const Clock& clock_;
  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable answered_;
  uint64_t last_request_ = 0;
  std::vector<proto::InspectAttempt> questions_;
  std::map<uint64_t, Waiting> waiting_;  // by request
  std::map<std::string, Trace> traces_;  // by job
};

}  // namespace weft
