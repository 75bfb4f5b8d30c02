#include "coordinator/launcher/watchdog.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cluster/process/rank_now.h"
#include "proto/base/activity.h"

namespace weft {
namespace {

constexpr size_t kToldMax = 4;  // ranks of each kind that a verdict describes

}  // namespace

double Watchdog::Seen::quiet_seconds() const {
  return std::chrono::duration<double>(heard - since).count();
}

double Watchdog::Seen::told_quiet_seconds() const { return quiet_seconds() - now.age_seconds(); }

void Watchdog::hear(const proto::RankNow& now, Time at) {
  Seen& seen = seen_[now.rank()];
  const bool first = seen.now.pid() == 0;
  if (first || now.progress() != seen.now.progress() || now.pid() != seen.now.pid()) {
    seen.since = at;
  }
  seen.now = now;
  seen.heard = at;
}

std::vector<proto::RankNow> Watchdog::ranks(Time at) const {
  std::vector<proto::RankNow> all;
  for (const auto& [rank, seen] : seen_) {
    proto::RankNow& now = all.emplace_back(seen.now);
    const double passed = std::chrono::duration<double>(at - seen.heard).count();
    now.set_age_seconds(now.age_seconds() + passed);
  }
  return all;
}

// Whether `rank` has not begun the call that `waiting` is in, though it takes part in it.
bool Watchdog::lacks(const Seen& rank, const Seen& waiting) {
  const proto::CollectiveNow& call = waiting.now.collective();
  for (const proto::GroupCalls& each : rank.now.groups()) {
    if (each.group() == call.group()) return each.calls() < call.number();
  }
  return false;
}

// Whoever is in no collective, or lacks nobody, may go on, and then those that wait for them only;
// what is left waits in circles.
std::vector<int> Watchdog::deadlocked() const {
  std::set<int> stuck;
  for (const auto& [rank, seen] : seen_) {
    if (seen.now.has_collective() && seen.told_quiet_seconds() >= kDeadlockSeconds) {
      stuck.insert(rank);
    }
  }
  while (true) {
    const auto free = std::find_if(stuck.begin(), stuck.end(), [&](int rank) {
      return std::none_of(stuck.begin(), stuck.end(),
                          [&](int other) { return lacks(seen_.at(other), seen_.at(rank)); });
    });
    if (free == stuck.end()) return {stuck.begin(), stuck.end()};
    stuck.erase(free);
  }
}

// Those whose calls are lacking first: they are what the others wait for.
std::string Watchdog::story(double seconds, const std::vector<int>& of) const {
  std::vector<std::string> culprits, waiting;
  for (const int rank : of) {
    const Seen& seen = seen_.at(rank);
    const bool lacking =
        is_halted(seen.now) || std::any_of(of.begin(), of.end(), [&](int other) {
          return seen_.at(other).now.has_collective() && lacks(seen, seen_.at(other));
        });
    (lacking ? culprits : waiting).push_back(describe(seen.now));
  }
  const auto some = [](const std::vector<std::string>& texts) {
    const size_t count = std::min(texts.size(), kToldMax);
    const std::string more =
        count < texts.size() ? fmt::format("; and {} more", texts.size() - count) : "";
    return fmt::format(
        "{}{}", fmt::join(texts.begin(), texts.begin() + static_cast<ptrdiff_t>(count), "; "),
        more);
  };
  std::string text = fmt::format("no rank has got anything done for {:.0f} s", seconds);
  if (!waiting.empty()) text += ": " + some(waiting);
  if (!culprits.empty()) text += (waiting.empty() ? ": " : "; what is missing: ") + some(culprits);
  return text;
}

std::optional<std::string> Watchdog::verdict(int ranks, double hang_seconds) const {
  if (hang_seconds <= 0 || std::ssize(seen_) < ranks) return std::nullopt;
  if (const std::vector<int> circle = deadlocked(); !circle.empty()) {
    return "deadlock: ranks wait for each other's collectives: " + story(kDeadlockSeconds, circle);
  }
  double quiet = hang_seconds;
  bool collective = false;
  std::vector<int> all;
  for (const auto& [rank, seen] : seen_) {
    if (seen.quiet_seconds() < hang_seconds || seen.now.phase() == kStoringPhase)
      return std::nullopt;
    quiet = std::max(quiet, seen.quiet_seconds());
    collective = collective || seen.now.has_collective();
    all.push_back(rank);
  }
  if (!collective) return std::nullopt;
  return "hung: " + story(quiet, all);
}

}  // namespace weft
