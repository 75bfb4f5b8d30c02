#include "coordinator/scheduler/plan.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "coordinator/scheduler/fit.h"
#include "coordinator/scheduler/profile.h"
#include "coordinator/scheduler/reason.h"

namespace weft {
namespace {

constexpr int64_t kSoonMs = 1000;                  // processes that are being ended
constexpr int64_t kVeryLongMs = int64_t{1} << 50;  // a run without a limit
constexpr size_t kReservationsMax = 64;            // further jobs only fill gaps

class Planner {
 public:
  Planner(const Snapshot& snapshot, int64_t now_ms)
      : snapshot_(snapshot), now_ms_(now_ms), profile_(now_ms, {}), unreserved_(profile_) {
    for (const SnapshotNode& node : snapshot.nodes) {
      if (node.usable) usable_.push_back(node);
    }
    std::sort(usable_.begin(), usable_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    std::vector<int> free;
    busy_.resize(usable_.size());
    for (const SnapshotNode& node : usable_) {
      free.push_back(node.slots);
      groups_.push_back(node.group());
    }
    std::vector<std::pair<int64_t, std::vector<SlotCount>>> releases;
    for (const SlotHolder& holder : snapshot.holders) {
      std::vector<SlotCount> counts;
      for (const NodeSlots& part : holder.placement) {
        const int node = index_of(part.node);
        if (node < 0) continue;
        counts.push_back({node, static_cast<int>(part.slots.size())});
        free[static_cast<size_t>(node)] -= static_cast<int>(part.slots.size());
        for (int slot : part.slots) busy_[static_cast<size_t>(node)].insert(slot);
      }
      const int64_t end =
          holder.ends_ms == 0 ? now_ms + kVeryLongMs : std::max(holder.ends_ms, now_ms + kSoonMs);
      releases.emplace_back(end, std::move(counts));
    }
    profile_ = Profile(now_ms, std::move(free), usable_);
    for (const auto& [end, counts] : releases) profile_.release(counts, end);
    unreserved_ = profile_;
  }

  Plan run() {
    std::vector<const PendingJob*> order;
    for (const PendingJob& job : snapshot_.pending) order.push_back(&job);
    std::sort(order.begin(), order.end(), [](const PendingJob* a, const PendingJob* b) {
      return std::tuple(-a->priority, a->submit_sequence, a->job) <
             std::tuple(-b->priority, b->submit_sequence, b->job);
    });
    for (const PendingJob* job : order) place(*job);
    return std::move(plan_);
  }

 private:
  int index_of(const std::string& name) const {
    for (size_t i = 0; i < usable_.size(); ++i) {
      if (usable_[i].name == name) return static_cast<int>(i);
    }
    return -1;
  }

  void place(const PendingJob& job) {
    if (Status status = check_feasible(snapshot_.nodes, job); !status.ok()) {
      // Who wrote the number of slots, and how, is not known here.
      const bool of_slots = status.field() == GangSource{}.field;
      plan_.waits[job.job] = {
          "can never start: " + (of_slots ? "it " + status.rule() : status.to_string()), true, 0};
      return;
    }
    const bool may_start = !snapshot_.draining && job.leaving.empty() && job.eligible_ms <= now_ms_;
    if (may_start && !usable_.empty()) {
      const int64_t duration =
          job.time_limit_seconds == 0 ? Profile::kForever : job.time_limit_seconds * 1000;
      const int64_t until = duration >= Profile::kForever ? duration : now_ms_ + duration;
      if (auto counts = profile_.fit(job, now_ms_, until)) {
        for (Profile* profile : {&profile_, &unreserved_}) {
          profile->occupy(*counts, now_ms_, std::min(until, now_ms_ + kVeryLongMs));
        }
        start(job, *counts);
        return;
      }
    }
    wait(job);
  }

  void start(const PendingJob& job, const std::vector<SlotCount>& counts) {
    blockers_.clear();
    PlannedStart& start = plan_.starts.emplace_back();
    start.job = job.job;
    start.attempt_before = job.attempt;
    start.gang = job;
    for (const SlotCount& count : counts) {
      const auto node = static_cast<size_t>(count.node);
      NodeSlots& part = start.placement.emplace_back();
      part.node = usable_[node].name;
      for (int slot = 0; static_cast<int>(part.slots.size()) < count.slots; ++slot) {
        if (busy_[node].insert(slot).second) part.slots.push_back(slot);
      }
    }
  }

  void wait(const PendingJob& job) {
    PlannedWait& wait = plan_.waits[job.job];
    const std::vector<int> free = free_for(job, free_now(), usable_);
    const bool fits_now = !usable_.empty() && fit_reachable(free, groups_, job.slots, job.nodes);
    wait.reason = reason_to_wait(snapshot_, plan_.starts, job, now_ms_, free,
                                 fits_now ? blocker_of(job) : nullptr);
    if (usable_.empty() || reservations_.size() >= kReservationsMax) return;
    // What has no limit must never be in the way of an earlier reservation, and is itself expected
    // to end, so that later jobs get theirs behind it.
    const bool endless = job.time_limit_seconds == 0;
    const int64_t duration = endless ? kVeryLongMs : job.time_limit_seconds * 1000;
    int64_t from = std::max(now_ms_, job.eligible_ms);
    if (!job.leaving.empty()) from = std::max(from, now_ms_ + kSoonMs);
    auto place = profile_.earliest(job, from, endless ? Profile::kForever : duration);
    if (!place) return;
    profile_.occupy(place->counts, place->start_ms, place->start_ms + duration);
    if (place->start_ms < now_ms_ + kVeryLongMs) wait.expected_ms = place->start_ms;
    reservations_.push_back({&job, std::move(*place), duration});
  }

  // The first job in order whose reservation, with those before it, leaves no room for this one
  // now; null: none does.
  const PendingJob* blocker_of(const PendingJob& job) {
    const auto [known, fresh] = blockers_.try_emplace({job, job.time_limit_seconds}, nullptr);
    if (!fresh && known->second != nullptr) return known->second;
    const int64_t until =
        job.time_limit_seconds == 0 ? Profile::kForever : now_ms_ + job.time_limit_seconds * 1000;
    Profile profile = unreserved_;
    for (const Reservation& each : reservations_) {
      profile.occupy(each.place.counts, each.place.start_ms,
                     each.place.start_ms + each.duration_ms);
      if (profile.fit(job, now_ms_, until)) continue;
      return known->second = each.job;
    }
    return nullptr;
  }

  std::vector<int> free_now() const {
    std::vector<int> free;
    for (size_t i = 0; i < usable_.size(); ++i) {
      free.push_back(usable_[i].slots - static_cast<int>(busy_[i].size()));
    }
    return free;
  }

  const Snapshot& snapshot_;
  const int64_t now_ms_;
  std::vector<SnapshotNode> usable_;  // in name order; the profile's node indices
  std::vector<int> groups_;           // as usable_
  std::vector<std::set<int>> busy_;   // slots of each usable node that are held or just given
  struct Reservation {
    const PendingJob* job;
    Profile::Place place;
    int64_t duration_ms;
  };
  Profile profile_;
  Profile unreserved_;                     // holders and starts only
  std::vector<Reservation> reservations_;  // in the order of the jobs
  // Of gangs alike, with the same time limit, since the last start.
  std::map<std::pair<Gang, int64_t>, const PendingJob*> blockers_;
  Plan plan_;
};

}  // namespace

Plan plan(const Snapshot& snapshot, int64_t now_ms) { return Planner(snapshot, now_ms).run(); }

}  // namespace weft
