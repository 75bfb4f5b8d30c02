#include "coordinator/launcher/watchdog.h"

#include <gmock/gmock.h>

#include "tests/coordinator/launcher/fake_agent.h"

namespace weft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kTensor = 11, kReplica = 22;

// A rank that has begun so many calls of each group.
proto::RankNow at_work(int rank, uint64_t progress, uint64_t tensor, uint64_t replica) {
  proto::RankNow now;
  now.set_rank(rank);
  now.set_pid(100 + rank);
  now.set_process("sleeping");
  now.set_step(7);
  now.set_phase("backward");
  now.set_layer(2);
  now.set_op("linear");
  now.set_progress(progress);
  now.set_age_seconds(0.5);
  const auto add = [&](uint64_t group, uint64_t calls) {
    now.add_groups()->set_group(group);
    now.mutable_groups()->rbegin()->set_calls(calls);
  };
  add(kTensor, tensor);
  add(kReplica, replica);
  return now;
}

proto::RankNow in_call(int rank, uint64_t progress, uint64_t tensor, uint64_t replica,
                       uint64_t group) {
  proto::RankNow now = at_work(rank, progress, tensor, replica);
  proto::CollectiveNow& call = *now.mutable_collective();
  call.set_name("all_reduce");
  call.set_axis(group == kTensor ? "tensor" : "replica");
  call.set_group(group);
  call.set_number(group == kTensor ? tensor : replica);
  call.set_bytes(4 << 20);
  call.set_dtype("F32");
  call.set_site("worker/step.cc:60");
  call.set_seconds(31);
  call.add_ranks(0);
  call.add_ranks(1);
  return now;
}

class WatchdogTest : public ::testing::Test {
 protected:
  void hear(const proto::RankNow& now) { dog_.hear(now, time_); }
  void pass(int seconds) { time_ += std::chrono::seconds(seconds); }
  std::string verdict(double limit = 30) { return dog_.verdict(2, limit).value_or(""); }

  Watchdog dog_;
  Watchdog::Time time_{0};
};

TEST_F(WatchdogTest, NamesARankThatDoesNotCome) {
  proto::RankNow stopped = at_work(1, 50, 11, 3);
  stopped.set_process("stopped");
  for (int second = 0; second < 30; second += 2, pass(2)) {
    hear(in_call(0, 70, 12, 3, kTensor));
    stopped.set_age_seconds(second);
    hear(stopped);
    EXPECT_EQ(verdict(), "") << second;
  }
  hear(in_call(0, 70, 12, 3, kTensor));
  hear(stopped);
  EXPECT_THAT(verdict(),
              AllOf(HasSubstr("hung: no rank has got anything done for 30 s: rank 0 waits "
                              "since 31 s in all_reduce of 4.0 MiB F32 on the tensor axis "
                              "(ranks 0, 1; call 12) at worker/step.cc:60, step 7"),
                    HasSubstr("what is missing: rank 1 is stopped (process 101) at step 7 "
                              "in backward of layer 2, op linear")));
  EXPECT_EQ(verdict(0), "") << "never";
}

TEST_F(WatchdogTest, LeavesAloneWhoeverIsSlow) {
  for (int second = 0; second < 600; second += 2, pass(2)) {
    hear(in_call(0, 70, 12, 3, kTensor));
    hear(at_work(1, 50 + static_cast<uint64_t>(second) / 20, 11, 3));  // an op in 20 s
    ASSERT_EQ(verdict(), "") << second;
  }
}

TEST_F(WatchdogTest, JudgesOnlyWhatIsHeardOf) {
  hear(in_call(0, 70, 12, 3, kTensor));
  hear(at_work(1, 50, 11, 3));
  for (int second = 0; second < 100; second += 2, pass(2)) hear(in_call(0, 70, 12, 3, kTensor));
  EXPECT_EQ(verdict(), "") << "nothing was heard of rank 1's node";
  EXPECT_EQ(dog_.verdict(3, 30), std::nullopt) << "a rank that was never heard of";
}

TEST_F(WatchdogTest, WaitsForDisksAndForWhomNobodyWaits) {
  proto::RankNow storing = at_work(1, 50, 11, 3);
  storing.set_phase("storing");
  for (int second = 0; second < 100; second += 2, pass(2)) {
    hear(in_call(0, 70, 12, 3, kTensor));
    hear(storing);
  }
  EXPECT_EQ(verdict(), "");
  for (int second = 0; second < 100; second += 2, pass(2)) {
    hear(at_work(0, 71, 12, 3));
    hear(at_work(1, 51, 11, 3));
  }
  EXPECT_EQ(verdict(), "") << "no rank is in a collective";
}

// Each is in a call that the other has not begun: long before the limit.
TEST_F(WatchdogTest, FindsACircleSoon) {
  for (int second = 0; second < 6; second += 2, pass(2)) {
    hear(in_call(0, 70, 12, 3, kTensor));
    hear(in_call(1, 50, 11, 4, kReplica));
    EXPECT_EQ(verdict(300), "") << second;
  }
  hear(in_call(0, 70, 12, 3, kTensor));
  hear(in_call(1, 50, 11, 4, kReplica));
  EXPECT_THAT(verdict(300), AllOf(HasSubstr("deadlock"), HasSubstr("rank 0 waits since 31 s"),
                                  HasSubstr("rank 1 waits since 31 s"), HasSubstr("call 12) at"),
                                  HasSubstr("call 4) at")));
}

// A rank that is ahead waits in the next call for one that is still in the call before: a slow
// link.
TEST_F(WatchdogTest, TakesNoSlowLinkForACircle) {
  for (int second = 0; second < 20; second += 2, pass(2)) {
    hear(in_call(0, 70, 12, 4, kReplica));
    hear(in_call(1, 50, 12, 3, kTensor));  // rank 0 has begun this one
    ASSERT_EQ(verdict(300), "") << second;
  }
}

TEST_F(WatchdogTest, StartsAnewWithANewProcess) {
  hear(in_call(0, 70, 12, 3, kTensor));
  hear(at_work(1, 50, 11, 3));
  pass(40);
  proto::RankNow other = at_work(1, 50, 11, 3);
  other.set_pid(999);
  hear(in_call(0, 70, 12, 3, kTensor));
  hear(other);
  EXPECT_EQ(verdict(), "");
}

class HungAttempt : public SupervisorTest {
 protected:
  void tell(FakeAgent& agent, const std::string& id, const std::vector<proto::RankNow>& ranks) {
    agent.now.clear();
    proto::AttemptNow& now = agent.now.emplace_back();
    now.set_job(id);
    now.set_attempt(job(id).attempt());
    for (const proto::RankNow& rank : ranks) *now.add_ranks() = rank;
  }
};

TEST_F(HungAttempt, StartsAgainAndSaysWhy) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  ASSERT_TRUE(store_->edit_job(id, [](JobEdit& edit) {
    edit.job.mutable_spec()->set_hang_seconds(20);
    return Status();
  }));
  bring_up(id, 1, {&a, &b});
  tell(a, id, {in_call(0, 70, 12, 3, kTensor)});
  tell(b, id, {at_work(1, 50, 11, 3)});
  live(19, {&a, &b});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  live(4, {&a, &b});
  EXPECT_NE(job(id).state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(job(id).restarts(), 1);
  std::string why;
  const auto events = store_->events(id, 0, 1000).value();
  for (const auto& event : events) {
    if (event.type() == "restarted") why = event.message();
  }
  EXPECT_THAT(why,
              AllOf(HasSubstr("attempt 1: hung"), HasSubstr("what is missing: rank 1 is at step 7"),
                    Not(HasSubstr("rank 2"))));
}

}  // namespace
}  // namespace weft
