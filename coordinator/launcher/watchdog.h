// What the ranks of one attempt do, as their agents tell with each heartbeat, and whether they will
// ever get any further.
//
// Two things are found. Stuck: for `hang_seconds` no rank has got anything done (no op, no piece of
// a message, no phase), and at least one of them is in a collective; a peer is stopped, or spins,
// or has not come. Deadlocked: ranks wait in collectives for each other in a circle, each for a
// call that another has not begun, which no time resolves; that takes kDeadlockSeconds of rest. A
// job that is merely slow gets something done all the time somewhere. Ranks that wait for a disk
// (kStoringPhase) and nodes that are not heard of are never judged.
//
// Thread safety: as std::map. Ownership: values. Time is the caller's, monotonic.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proto/base/clock.h"
#include "proto/train.pb.h"

namespace weft {

class Watchdog {
 public:
  using Time = Clock::Duration;
  static constexpr double kDeadlockSeconds = 4;

  // From a heartbeat that was heard at `at`.
  void hear(const proto::RankNow& now, Time at);
  // Why the attempt, of so many ranks, should end: names ranks, collectives and steps. hang_seconds
  // 0: never.
  std::optional<std::string> verdict(int ranks, double hang_seconds) const;
  // By rank, as last heard; times in them go on to `at`.
  std::vector<proto::RankNow> ranks(Time at) const;

 private:
  struct Seen {
    proto::RankNow now;
    Time heard{};  // last
    Time since{};  // first heard of with this progress
    double quiet_seconds() const;
    // By what it told itself, so that the states of several ranks are of the same time.
    double told_quiet_seconds() const;
  };
  // Of those that wait in a circle.
  std::vector<int> deadlocked() const;
  static bool lacks(const Seen& rank, const Seen& waiting);
  std::string story(double seconds, const std::vector<int>& of) const;

  std::map<int, Seen> seen_;
};

}  // namespace weft
