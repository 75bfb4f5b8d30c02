// A disk that stalls for longer than a lease. The supervisor runs on a thread of its own and waits
// in a write, while the test's thread delivers what agents send.
#include <gmock/gmock.h>

#include <thread>

#include "tests/coordinator/launcher/fake_agent.h"

namespace weft {
namespace {

class StallTest : public SupervisorTest {
 protected:
  // The disk stalls as soon as the supervisor writes; `meanwhile` runs until it flows again.
  void stalled(const std::function<void()>& meanwhile) {
    disk_->stall();
    std::thread thread([this] { supervisor_->step(); });
    disk_->wait_for_writer();
    meanwhile();
    disk_->flow();
    thread.join();
    step();
  }
  // Heartbeats for so long, each answered at once.
  void beat_for(int seconds, std::vector<FakeAgent*> agents) {
    for (int second = 0; second < seconds; ++second) {
      clock_.advance(std::chrono::seconds(1));
      for (FakeAgent* agent : agents) {
        agent->beat();
        ASSERT_EQ(agent->take(proto::NodeFrame::kLease).size(), 1u) << "after " << second << " s";
      }
    }
  }
  proto::RankEnvelope metric(const std::string& id, int rank, uint64_t sequence) {
    auto message = envelope(id, 1, rank, sequence);
    message.mutable_metrics()->add_records()->set_step(static_cast<int64_t>(sequence));
    return message;
  }
};

TEST_F(StallTest, AJobKeepsItsAttemptWhileTheDiskStallsForLongerThanALease) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  a.take(proto::NodeFrame::kLease);
  a.take(proto::NodeFrame::kRankReply);
  a.rank(metric(id, 0, 2));
  stalled([&] {
    beat_for(50, {&a, &b});
    for (uint64_t sequence = 3; sequence <= 6; ++sequence) {
      a.rank(metric(id, 0, sequence));
      a.rank(metric(id, 0, sequence - 1));  // repeated, as after a reconnect
      beat_for(10, {&a, &b});
    }
    EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).size(), 0u) << "nothing is durable yet";
    EXPECT_EQ(store_->metrics(id, 0, 100).value().size(), 0u);
  });
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(job(id).attempt(), 1);
  EXPECT_EQ(job(id).restarts(), 0);
  for (const auto& node : store_->nodes()) EXPECT_EQ(node.state(), proto::NODE_STATE_READY);
  const auto stored = store_->metrics(id, 0, 100).value();
  ASSERT_EQ(stored.size(), 5u) << "each once";
  for (size_t i = 0; i < stored.size(); ++i) {
    EXPECT_EQ(stored[i].step(), static_cast<int64_t>(i) + 2) << "in order";
  }
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).size(), 9u);
  live(60, {&a, &b});
  EXPECT_EQ(job(id).attempt(), 1);
  finish(a, id, 1, 7, "succeeded");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_SUCCEEDED);
}

TEST_F(StallTest, AnAgentThatReconnectsMeanwhileKeepsItsLease) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.rank(metric(id, 0, 2));
  stalled([&] {
    beat_for(20, {});
    a.dial(*supervisor_);
    EXPECT_EQ(a.take(proto::NodeFrame::kWelcome).size(), 1u) << "at once";
    a.rank(metric(id, 0, 2));
    beat_for(40, {&a});
  });
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(job(id).attempt(), 1);
  EXPECT_EQ(store_->metrics(id, 0, 100).value().size(), 1u);
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).back().rank_reply().reply().sequence(), 2u);
  EXPECT_EQ(a.take(proto::NodeFrame::kWelcome).size(), 0u) << "one answer a hello";
}

TEST_F(StallTest, AMessageOfAnAttemptThatEndedMeanwhileIsStale) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.take(proto::NodeFrame::kRankReply);
  auto failed = envelope(id, 1, 0, 2);
  failed.mutable_failed()->set_message("out of memory");
  failed.mutable_failed()->set_retryable(true);
  a.rank(failed);
  stalled([&] {
    beat_for(40, {&a});
    a.rank(metric(id, 0, 3));
  });
  const auto replies = a.take(proto::NodeFrame::kRankReply);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[1].rank_reply().reply().code(), "stale");
  EXPECT_EQ(store_->metrics(id, 0, 100).value().size(), 0u);
}

// The stall is in the write that tells of a lost node: what comes from it later renews nothing.
TEST_F(StallTest, ALeaseThatIsOverIsNotRenewedByALateHeartbeat) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  clock_.advance(std::chrono::seconds(33));
  b.beat();
  clock_.advance(std::chrono::seconds(1));
  b.take(proto::NodeFrame::kLease);
  stalled([&] {
    a.take(proto::NodeFrame::kLease);
    a.beat();
    EXPECT_EQ(a.take(proto::NodeFrame::kLease).size(), 0u);
    beat_for(40, {&b});
  });
  EXPECT_EQ(store_->nodes().at(0).state(), proto::NODE_STATE_LOST);
  EXPECT_EQ(store_->nodes().at(1).state(), proto::NODE_STATE_READY);
  live(4, {&b});
  EXPECT_EQ(job(id).placement().nodes(0).name(), "n2");
}

// One node's exit is taken, and the end of training is on its way, when another job's write stalls.
TEST_F(StallTest, WhatArrivesDuringAStallIsTakenBeforeTimeIsUp) {
  FakeAgent a("n1", 1), b("n2", 1), c("n3", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  c.connect(*supervisor_);
  const std::string other = submit(1);
  bring_up(other, 1, {&c});
  for (FakeAgent* agent : {&a, &b, &c}) agent->take(proto::NodeFrame::kLease);
  b.exit(ref(id, 1), 0, "");
  step();
  c.rank(metric(other, 0, 2));
  stalled([&] {
    beat_for(40, {&a, &b, &c});
    auto finished = envelope(id, 1, 0, 2);
    finished.mutable_finished()->set_outcome("succeeded");
    finished.mutable_finished()->set_step(100);
    a.rank(finished);
  });
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_SUCCEEDED);
}

TEST_F(StallTest, TheInboxIsBounded) {
  SupervisorOptions options;
  options.inbox_bytes_max = 50'000;
  restart(options);
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.rank(metric(id, 0, 2));
  stalled([&] {
    for (int i = 0; i < 10'000 && a.channel->open; ++i) {
      a.beat();  // only the newest waits
    }
    EXPECT_TRUE(a.channel->open);
    auto large = metric(id, 0, 3);
    large.mutable_metrics()->mutable_records(0)->set_task(std::string(60'000, 'x'));
    a.rank(large);
    EXPECT_FALSE(a.channel->open);
    a.dial(*supervisor_);
    beat_for(40, {&a});
  });
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(job(id).step(), 2);
  a.rank(metric(id, 0, 3));
  step();
  EXPECT_EQ(job(id).step(), 3);
}

TEST_F(SupervisorTest, AKnownNodeMayReconnectWhileTheDiskIsFull) {
  FakeAgent a("n1", 1), stranger("n2", 1);
  a.connect(*supervisor_);
  disk_->full = true;
  a.connect(*supervisor_);
  EXPECT_EQ(a.take(proto::NodeFrame::kWelcome).size(), 1u);
  stranger.connect(*supervisor_);
  EXPECT_EQ(stranger.take(proto::NodeFrame::kRefused).size(), 1u);
}

}  // namespace
}  // namespace weft
