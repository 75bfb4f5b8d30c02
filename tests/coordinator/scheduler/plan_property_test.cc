// A seeded random cluster lives for thousands of steps: jobs come, run, end (never later than their
// limit), fail and go back, nodes come and go. After every plan the invariants of plan.h hold.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "coordinator/scheduler/fit.h"
#include "coordinator/scheduler/plan.h"

namespace weft {
namespace {

struct World {
  explicit World(unsigned seed) : random(seed) {
    const int nodes = pick(1, 5);
    for (int i = 0; i < nodes; ++i) {
      const bool loopback = pick(0, 4) == 0;
      snapshot.nodes.push_back({"n" + std::to_string(i), pick(1, 4), true,
                                loopback ? "127.0.0.1" : "", pick(0, 3) == 0, pick(0, 3),
                                pick(0, 3)});
    }
  }
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

  std::vector<int> groups() const {
    std::vector<int> groups;
    for (const auto& node : snapshot.nodes) groups.push_back(node.group());
    return groups;
  }
  bool fits(const std::vector<int>& free, const PendingJob& job) const {
    return fit_reachable(free_for(job, free, snapshot.nodes), groups(), job.slots, job.nodes)
        .has_value();
  }

  void submit() {
    PendingJob job;
    job.job = "job-" + std::to_string(++submitted);
    job.submit_sequence = submitted;
    job.slots = pick(1, 6);
    job.nodes = pick(0, 3) == 0 ? pick(1, 3) : 0;
    job.priority = pick(0, 4) == 0 ? pick(-2, 2) : 0;
    job.time_limit_seconds = pick(0, 2) == 0 ? 0 : pick(1, 40);
    if (pick(0, 2) == 0) job.gpu = pick(0, 1) == 0;
    if (pick(0, 1) == 0) job.memory = {pick(0, 3), pick(0, 3), pick(0, 3)};
    std::vector<int> capacity;
    for (const auto& node : snapshot.nodes) capacity.push_back(node.slots);
    if (check_feasible(snapshot.nodes, job).ok() && fits(capacity, job)) {
      snapshot.pending.push_back(job);
      alive.insert(job.job);
      jobs[job.job] = job;
    }
  }

  void apply(const Plan& result) {
    for (const PlannedStart& start : result.starts) {
      const PendingJob job = jobs[start.job];
      snapshot.holders.push_back(
          {start.job, start.placement,
           job.time_limit_seconds == 0 ? 0 : now_ms + job.time_limit_seconds * 1000});
      std::erase_if(snapshot.pending, [&](const auto& p) { return p.job == start.job; });
    }
  }

  void live() {
    now_ms += pick(0, 3000);
    for (PendingJob& job : snapshot.pending) {
      if (!job.leaving.empty()) {  // they are gone
        job.leaving.clear();
        std::erase_if(snapshot.holders, [&](const auto& h) { return h.job == job.job; });
      }
    }
    std::vector<SlotHolder> leaving;
    for (size_t i = 0; i < snapshot.holders.size();) {
      const SlotHolder holder = snapshot.holders[i];
      const bool over = holder.ends_ms != 0 && holder.ends_ms <= now_ms;
      if (!over && pick(0, 7) != 0) {
        ++i;
        continue;
      }
      snapshot.holders.erase(snapshot.holders.begin() + static_cast<std::ptrdiff_t>(i));
      if (pick(0, 3) == 0) {  // failed: back to the queue
        PendingJob again = jobs[holder.job];
        again.attempt = ++jobs[holder.job].attempt;
        again.eligible_ms = now_ms + pick(0, 2000);
        if (pick(0, 1) == 0) {  // and its processes are still there for a while
          leaving.push_back({holder.job, holder.placement, now_ms});
          for (const auto& part : holder.placement) again.leaving.push_back(part.node);
        }
        snapshot.pending.push_back(again);
      } else {
        alive.erase(holder.job);
      }
    }
    snapshot.holders.insert(snapshot.holders.end(), leaving.begin(), leaving.end());
    if (pick(0, 9) == 0) {
      auto& node =
          snapshot.nodes[static_cast<size_t>(pick(0, static_cast<int>(snapshot.nodes.size()) - 1))];
      node.usable = !node.usable;
    }
  }

  std::mt19937 random;
  Snapshot snapshot;
  int64_t now_ms = 1'000'000;
  int submitted = 0;
  std::set<std::string> alive;
  std::map<std::string, PendingJob> jobs;
};

void check_slots(const World& world, const Plan& result) {
  std::map<std::string, SnapshotNode> nodes;
  for (const auto& node : world.snapshot.nodes) nodes[node.name] = node;
  std::set<std::pair<std::string, int>> taken;
  for (const auto& holder : world.snapshot.holders) {
    for (const auto& part : holder.placement) {
      for (int slot : part.slots) ASSERT_TRUE(taken.insert({part.node, slot}).second);
    }
  }
  for (const auto& start : result.starts) {
    const PendingJob& job = world.jobs.at(start.job);
    int slots = 0, least = 1 << 20, most = 0;
    std::set<std::string> distinct;
    for (const auto& part : start.placement) {
      const SnapshotNode& node = nodes.at(part.node);
      ASSERT_TRUE(node.usable);
      const int64_t of_node = node.gpu ? job.memory.gpu_host : job.memory.host;
      ASSERT_TRUE(node.slot_bytes == 0 || of_node <= node.slot_bytes) << "too little memory";
      ASSERT_TRUE(!node.gpu || node.gpu_bytes == 0 || job.memory.gpu <= node.gpu_bytes);
      ASSERT_TRUE(distinct.insert(part.node).second);
      const int count = static_cast<int>(part.slots.size());
      slots += count;
      least = std::min(least, count);
      most = std::max(most, count);
      for (int slot : part.slots) {
        ASSERT_TRUE(slot >= 0 && slot < nodes.at(part.node).slots);
        ASSERT_TRUE(taken.insert({part.node, slot}).second) << "slot given twice";
      }
    }
    ASSERT_EQ(slots, job.slots) << "gang in part";
    if (job.nodes > 0) {
      ASSERT_EQ(static_cast<int>(distinct.size()), job.nodes);
      ASSERT_LE(most - least, 1);
    }
    std::set<int> groups;
    for (const auto& name : distinct) groups.insert(nodes.at(name).group());
    ASSERT_EQ(groups.size(), 1u) << "ranks that cannot work together";
    ASSERT_EQ(job.gpu.value_or(nodes.at(*distinct.begin()).gpu), nodes.at(*distinct.begin()).gpu);
    for (const PendingJob& pending : world.snapshot.pending) {
      if (pending.job != start.job) continue;
      ASSERT_LE(pending.eligible_ms, world.now_ms);
      ASSERT_TRUE(pending.leaving.empty()) << "its last attempt is still there";
    }
  }
}

bool before(const PendingJob& a, const PendingJob& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.submit_sequence < b.submit_sequence;
}

// Without the later ones, no earlier job would have a better start.
void check_order(const World& world, const Plan& result) {
  for (const auto& waiting : world.snapshot.pending) {
    if (!result.waits.contains(waiting.job)) continue;
    Snapshot alone = world.snapshot;
    std::erase_if(alone.pending, [&](const auto& p) { return before(waiting, p); });
    const Plan without = plan(alone, world.now_ms);
    ASSERT_TRUE(without.waits.contains(waiting.job)) << waiting.job << " was passed";
    ASSERT_EQ(without.waits.at(waiting.job).expected_ms, result.waits.at(waiting.job).expected_ms);
    // Once the others have started, its known start is still there.
    const int64_t expected = result.waits.at(waiting.job).expected_ms;
    if (expected == 0) continue;
    World after = world;
    after.apply(result);
    const Plan next = plan(after.snapshot, world.now_ms);
    if (next.waits.contains(waiting.job)) {
      ASSERT_NE(next.waits.at(waiting.job).expected_ms, 0) << waiting.job;
      ASSERT_LE(next.waits.at(waiting.job).expected_ms, expected) << waiting.job << " was delayed";
    }
  }
}

// When the job fits beside what holds slots and these starts, by their limits alone; -1: never
// known.
int64_t fits_at(const World& world, const PendingJob& job,
                const std::vector<PlannedStart>& starts) {
  std::vector<SlotHolder> holders = world.snapshot.holders;
  for (const PlannedStart& start : starts) {
    const int64_t limit = world.jobs.at(start.job).time_limit_seconds;
    holders.push_back({start.job, start.placement, limit == 0 ? 0 : world.now_ms + limit * 1000});
  }
  std::set<int64_t> times{world.now_ms};
  for (const auto& holder : holders) times.insert(std::max(holder.ends_ms, world.now_ms + 1000));
  for (int64_t time : times) {
    std::vector<int> free;
    for (const auto& node : world.snapshot.nodes) {
      int count = node.usable ? node.slots : 0;
      for (const auto& holder : holders) {
        const bool gone =
            holder.ends_ms != 0 && std::max(holder.ends_ms, world.now_ms + 1000) <= time;
        for (const auto& part : holder.placement) {
          if (!gone && part.node == node.name) count -= static_cast<int>(part.slots.size());
        }
      }
      free.push_back(std::max(0, count));
    }
    if (world.fits(free, job)) return time;
  }
  return -1;
}

// The first job that waits for slots alone: what starts after it does not move its known start.
void check_first_waiting(const World& world, const Plan& result) {
  const PendingJob* first = nullptr;
  for (const PendingJob& job : world.snapshot.pending) {
    if (!result.waits.contains(job.job) || job.eligible_ms > world.now_ms) continue;
    if (!job.leaving.empty()) continue;
    if (fits_at(world, job, {}) < 0) continue;
    if (first == nullptr || before(job, *first)) first = &job;
  }
  if (first == nullptr) return;
  std::vector<int> capacity;
  for (const auto& node : world.snapshot.nodes) capacity.push_back(node.usable ? node.slots : 0);
  for (const PendingJob& job : world.snapshot.pending) {
    // One that backs off, or whose processes are leaving, has a reservation too, which may come
    // first.
    const bool reserved = result.waits.contains(job.job) && before(job, *first);
    if (reserved && world.fits(capacity, job)) return;
  }
  std::vector<PlannedStart> earlier;
  for (const PlannedStart& start : result.starts) {
    if (before(world.jobs.at(start.job), *first)) earlier.push_back(start);
  }
  const int64_t alone = fits_at(world, *first, earlier);
  if (alone < 0) return;
  const int64_t with_all = fits_at(world, *first, result.starts);
  ASSERT_TRUE(with_all >= 0 && with_all <= alone) << first->job << " was delayed";
}

TEST(PlanProperties, HoldOverThousandsOfSteps) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    World world(seed);
    for (int step = 0; step < 120; ++step) {
      for (int i = world.pick(0, 2); i > 0; --i) world.submit();
      const Plan result = plan(world.snapshot, world.now_ms);
      SCOPED_TRACE(testing::Message() << "seed " << seed << " step " << step);
      check_slots(world, result);
      check_first_waiting(world, result);
      if (step % 6 == 0) check_order(world, result);
      std::set<std::string> seen;
      for (const auto& start : result.starts) seen.insert(start.job);
      for (const auto& [job, wait] : result.waits) {
        EXPECT_FALSE(wait.reason.empty());
        EXPECT_TRUE(seen.insert(job).second) << "started and waiting";
      }
      EXPECT_EQ(seen.size(), world.snapshot.pending.size()) << "forgotten";
      world.apply(result);
      if (testing::Test::HasFailure()) return;
      world.live();
    }
    // Left alone, with every node back, everything that has come ends.
    for (auto& node : world.snapshot.nodes) node.usable = true;
    for (int step = 0; step < 3000 && !world.alive.empty(); ++step) {
      world.apply(plan(world.snapshot, world.now_ms));
      world.live();
      for (auto& node : world.snapshot.nodes) node.usable = true;
    }
    EXPECT_TRUE(world.alive.empty()) << "seed " << seed << ": something starves";
  }
}

TEST(PlanProperties, TheSameSnapshotGivesTheSamePlan) {
  World world(7);
  for (int i = 0; i < 30; ++i) world.submit();
  const Plan a = plan(world.snapshot, world.now_ms);
  std::shuffle(world.snapshot.pending.begin(), world.snapshot.pending.end(), world.random);
  std::shuffle(world.snapshot.nodes.begin(), world.snapshot.nodes.end(), world.random);
  const Plan b = plan(world.snapshot, world.now_ms);
  ASSERT_EQ(a.starts.size(), b.starts.size());
  for (size_t i = 0; i < a.starts.size(); ++i) EXPECT_EQ(a.starts[i].job, b.starts[i].job);
}

}  // namespace
}  // namespace weft
