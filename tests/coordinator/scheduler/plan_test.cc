#include "coordinator/scheduler/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft {
namespace {

using testing::HasSubstr;

Snapshot two_nodes() {
  Snapshot snapshot;
  snapshot.nodes = {{"n1", 2, true}, {"n2", 2, true}};
  return snapshot;
}
PendingJob pending(const std::string& id, int sequence, int slots, int64_t limit = 0) {
  PendingJob job;
  job.job = id;
  job.submit_sequence = sequence;
  job.slots = slots;
  job.time_limit_seconds = limit;
  return job;
}
std::string started(const Plan& plan) {
  std::string text;
  for (const auto& start : plan.starts) text += start.job + " ";
  return text;
}

TEST(Plan, PriorityThenOrderOfSubmission) {
  Snapshot snapshot = two_nodes();
  snapshot.pending = {pending("c", 3, 2), pending("b", 2, 2), pending("a", 1, 2)};
  EXPECT_EQ(started(plan(snapshot, 0)), "a b ");
  snapshot.pending[0].priority = 1;
  EXPECT_EQ(started(plan(snapshot, 0)), "c a ");
}

TEST(Plan, AGangIsSpreadAsAskedFor) {
  Snapshot snapshot = two_nodes();
  snapshot.pending = {pending("a", 1, 2)};
  snapshot.pending[0].nodes = 2;
  const Plan spread = plan(snapshot, 0);
  ASSERT_EQ(spread.starts.size(), 1u);
  ASSERT_EQ(spread.starts[0].placement.size(), 2u);
  EXPECT_EQ(spread.starts[0].placement[0].slots, std::vector<int>{0});
  snapshot.pending[0].nodes = 0;
  EXPECT_EQ(plan(snapshot, 0).starts[0].placement.size(), 1u);
}

TEST(Plan, ALoopbackAddressSharesNoGangWithANetwork) {
  Snapshot snapshot = two_nodes();
  snapshot.nodes[0].loopback = "127.0.0.1";
  snapshot.pending = {pending("gang", 1, 2), pending("small", 2, 1)};
  snapshot.pending[0].nodes = 2;
  const Plan waits = plan(snapshot, 0);
  EXPECT_EQ(started(waits), "small ");  // nothing is kept for a gang that time does not help
  EXPECT_THAT(waits.waits.at("gang").reason,
              HasSubstr("waits for 2 slots on 2 nodes: other nodes cannot reach n1 at 127.0.0.1"));
  EXPECT_FALSE(waits.waits.at("gang").infeasible);
  snapshot.nodes.push_back({"n3", 2, true});
  const Plan found = plan(snapshot, 0);
  ASSERT_EQ(found.starts.size(), 2u);
  ASSERT_EQ(found.starts[0].placement.size(), 2u);
  EXPECT_EQ(found.starts[0].placement[0].node, "n2");
  EXPECT_EQ(found.starts[0].placement[1].node, "n3");
  snapshot.nodes[1].loopback = snapshot.nodes[2].loopback = "127.0.0.1";  // all on one machine
  EXPECT_EQ(started(plan(snapshot, 0)), "gang small ");
}

TEST(Plan, RanksOnGpusAndOnCpusShareNoGang) {
  Snapshot snapshot = two_nodes();
  snapshot.nodes[1].gpu = true;
  snapshot.pending = {pending("gpus", 1, 2), pending("cpus", 2, 2), pending("either", 3, 2)};
  snapshot.pending[0].gpu = true;
  snapshot.pending[1].gpu = false;
  const Plan found = plan(snapshot, 0);
  ASSERT_EQ(started(found), "gpus cpus ");
  EXPECT_EQ(found.starts[0].placement[0].node, "n2");
  EXPECT_EQ(found.starts[1].placement[0].node, "n1");
  EXPECT_THAT(found.waits.at("either").reason, HasSubstr("waits for 2 slots: 0 free of 4"));
  snapshot.pending = {pending("both", 1, 4)};
  EXPECT_THAT(plan(snapshot, 0).waits.at("both").reason,
              HasSubstr("all known nodes of one device have 2 slots on 1 node"));
  snapshot.nodes[1].gpu = false;
  snapshot.pending = {pending("gpus", 1, 1)};
  snapshot.pending[0].gpu = true;
  EXPECT_THAT(plan(snapshot, 0).waits.at("gpus").reason,
              HasSubstr("no known node has ranks that compute on GPUs"));
}

// What was planned for the memory of the largest node runs on no smaller one, now or later.
TEST(Plan, ARankRunsOnlyWhereItsMemoryIs) {
  Snapshot snapshot{{{"large", 2, true}, {"small", 2, true}}, {}, {}};
  snapshot.nodes[0].slot_bytes = 64'000;
  snapshot.nodes[1].slot_bytes = 8'000;
  snapshot.holders = {{"run", {{"large", {0}}}, 50'000}};
  snapshot.pending = {pending("two", 1, 2), pending("one", 2, 1), pending("light", 3, 2)};
  snapshot.pending[0].memory.host = snapshot.pending[1].memory.host = 32'000;
  snapshot.pending[2].memory.host = 8'000;
  const Plan first = plan(snapshot, 0);
  EXPECT_EQ(started(first), "light ");
  EXPECT_EQ(first.starts[0].placement[0].node, "small");
  EXPECT_EQ(first.waits.at("two").expected_ms, 50'000);
  EXPECT_THAT(
      first.waits.at("two").reason,
      HasSubstr("waits for 2 slots: 1 free of 2; 1 held by run; small has too little memory "
                "for a rank"));
  EXPECT_THAT(first.waits.at("one").reason, HasSubstr("behind two"));
  snapshot.holders.clear();
  EXPECT_EQ(started(plan(snapshot, 50'000)), "two light ");
  snapshot.nodes[0].slot_bytes = 16'000;  // it came back with less
  const Plan never = plan(snapshot, 60'000);
  EXPECT_EQ(started(never), "light ");
  EXPECT_TRUE(never.waits.at("two").infeasible);
  EXPECT_EQ(
      never.waits.at("two").reason,
      "can never start: it asks for 2 ranks, but too few of the 4 slots of all known nodes have "
      "the memory that a rank needs");
  snapshot.nodes[0].slot_bytes = 0;  // it is not known
  EXPECT_EQ(started(plan(snapshot, 70'000)), "two light ");
}

TEST(Plan, ASmallJobPassesOnlyWhereNobodyIsDelayed) {
  Snapshot snapshot = two_nodes();
  snapshot.holders = {{"run", {{"n1", {0, 1}}}, 100'000}};
  snapshot.pending = {pending("large", 1, 4, 50), pending("long", 2, 1, 200),
                      pending("short", 3, 1, 90), pending("endless", 4, 1)};
  const Plan first = plan(snapshot, 0);
  EXPECT_EQ(started(first), "short ");
  EXPECT_EQ(first.waits.at("large").expected_ms, 100'000);
  EXPECT_THAT(first.waits.at("large").reason,
              HasSubstr("waits for 4 slots: 2 free of 4; 2 held by run"));
  EXPECT_THAT(first.waits.at("long").reason, HasSubstr("behind large, which came earlier"));
}

TEST(Plan, WithoutATimeLimitTheWaitingJobsSlotsAreKeptForIt) {
  Snapshot snapshot = two_nodes();
  snapshot.holders = {{"run", {{"n1", {0}}}, 0}};
  snapshot.pending = {pending("large", 1, 2), pending("endless", 2, 2)};
  snapshot.pending[0].nodes = 1;
  EXPECT_EQ(started(plan(snapshot, 0)), "large ") << "it fits on n2";
  snapshot.pending[0] = pending("large", 1, 4);
  const Plan second = plan(snapshot, 0);
  EXPECT_EQ(started(second), "") << "an endless job would take what large waits for";
  EXPECT_EQ(second.waits.at("large").expected_ms, 0);
  snapshot.pending[1].time_limit_seconds = 60;
  EXPECT_EQ(started(plan(snapshot, 0)), "endless ");
}

TEST(Plan, WhatCannotStartNowDoesNotBlockOthers) {
  Snapshot snapshot = two_nodes();
  snapshot.nodes[1].usable = false;
  snapshot.pending = {pending("huge", 1, 9), pending("lost", 2, 4), pending("ok", 3, 2)};
  const Plan result = plan(snapshot, 0);
  EXPECT_EQ(started(result), "ok ");
  EXPECT_TRUE(result.waits.at("huge").infeasible);
  EXPECT_FALSE(result.waits.at("lost").infeasible);
  EXPECT_THAT(result.waits.at("lost").reason,
              HasSubstr("not reachable: n2; 'weft resume lost --parallel auto' goes on with"));
}

TEST(Plan, WhoHoldsSlotsIsToldOfTheNodesThatCount) {
  Snapshot snapshot = two_nodes();
  snapshot.nodes[1].usable = false;
  snapshot.holders = {{"here", {{"n1", {0}}}, 0}, {"away", {{"n2", {0, 1}}}, 0}};
  snapshot.pending = {pending("a", 1, 2)};
  const std::string reason = plan(snapshot, 0).waits.at("a").reason;
  EXPECT_EQ(reason, "waits for 2 slots: 1 free of 2; 1 held by here");
}

TEST(Plan, WaitsForTheBackOffAndForTheLastAttemptToBeGone) {
  Snapshot snapshot = two_nodes();
  snapshot.pending = {pending("a", 1, 1), pending("b", 2, 1)};
  snapshot.pending[0].eligible_ms = 5000;
  snapshot.pending[1].leaving = {"n2"};
  snapshot.pending[1].attempt = 3;
  const Plan result = plan(snapshot, 1000);
  EXPECT_EQ(started(result), "");
  EXPECT_THAT(result.waits.at("a").reason,
              HasSubstr("backs off after a failure until 00:00:06 UTC"));
  EXPECT_THAT(result.waits.at("b").reason, HasSubstr("attempt 3 has ended on n2"));
  EXPECT_EQ(started(plan(Snapshot{{}, {}, {pending("c", 1, 1)}}, 0)), "");
}

TEST(Plan, WhoIsBehindAJobThatIsHeldBackIsToldOfThat) {
  Snapshot snapshot{{{"n1", 1, true}}, {}, {pending("a", 1, 1), pending("b", 2, 1)}};
  snapshot.pending[0].eligible_ms = 5000;
  EXPECT_EQ(plan(snapshot, 1000).waits.at("b").reason,
            "behind a, which came earlier and backs off after a failure until 00:00:06 UTC");
  snapshot.pending[1].time_limit_seconds = 3;  // over before a may start
  EXPECT_EQ(started(plan(snapshot, 1000)), "b ");
  snapshot.pending[1].time_limit_seconds = 0;
  snapshot.pending[0].priority = 1;
  snapshot.pending[0].attempt = 2;
  snapshot.pending[0].leaving = {"n1"};
  EXPECT_EQ(plan(snapshot, 1000).waits.at("b").reason,
            "behind a, which has a higher priority and waits until attempt 2 has ended on n1");
  snapshot.pending[0].leaving.clear();
  snapshot.nodes.push_back({"n2", 1, true});  // a slot that a does not need
  EXPECT_EQ(started(plan(snapshot, 1000)), "b ");
}

// Two nodes of different sizes: the first job in the queue waits for the large one, the second for
// the small one, and each later job is behind the one whose slots it would take.
TEST(Plan, WhoIsBehindIsToldOfTheJobThatBlocksIt) {
  Snapshot snapshot{{{"big", 4, true}, {"small", 2, true}}, {}, {}};
  snapshot.holders = {{"run-big", {{"big", {0}}}, 0}, {"run-small", {{"small", {0}}}, 0}};
  snapshot.pending = {pending("wants-big", 1, 4), pending("wants-small", 2, 2),
                      pending("later", 3, 1)};
  for (PendingJob& job : snapshot.pending) job.nodes = 1;
  // 3 + 1 slots are free. wants-big's reservation is on `big`; without wants-small, `later` would
  // start on `small`.
  const Plan result = plan(snapshot, 0);
  EXPECT_EQ(started(result), "");
  EXPECT_THAT(result.waits.at("wants-big").reason, HasSubstr("held by run-big"));
  EXPECT_THAT(result.waits.at("wants-small").reason, HasSubstr("behind wants-big"));
  EXPECT_THAT(result.waits.at("later").reason, HasSubstr("behind wants-small"));
  snapshot.pending.erase(snapshot.pending.begin() + 1);
  EXPECT_EQ(started(plan(snapshot, 0)), "later ");
}

TEST(Plan, SlotsThatAnotherJobTakesInTheSamePlanAreToldOf) {
  Snapshot snapshot{{{"n1", 2, true}}, {}, {pending("a", 1, 1), pending("b", 2, 2)}};
  const Plan result = plan(snapshot, 0);
  EXPECT_EQ(started(result), "a ");
  EXPECT_EQ(result.waits.at("b").reason, "waits for 2 slots: 1 free of 2; 1 held by a");
}

}  // namespace
}  // namespace weft
