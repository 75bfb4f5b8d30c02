#include <gmock/gmock.h>

#include "tests/coordinator/launcher/fake_agent.h"

namespace weft {
namespace {

using testing::HasSubstr;

TEST_F(SupervisorTest, ARankThatDiesRestartsTheJobAfterABackOff) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  b.exit(ref(id, 1), 137, "");
  a.exit(ref(id, 1), 137, "rank 1 was killed by signal 9");
  step();
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(job(id).restarts(), 1);
  EXPECT_EQ(last_event(id), "restarted");
  EXPECT_THAT(job(id).reason(), HasSubstr("backs off"));
  live(3, {&a, &b});
  EXPECT_EQ(job(id).attempt(), 2);
  bring_up(id, 2, {&a, &b});
}

TEST_F(SupervisorTest, AJobFailsOnceItsRestartsAreUsedUp) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1, 0, 1);
  bring_up(id, 1, {&a});
  a.exit(ref(id, 1), 1, "boom");
  live(4, {&a});
  bring_up(id, 2, {&a});
  a.exit(ref(id, 2), 1, "boom");
  live(1, {&a});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_FAILED);
  EXPECT_THAT(job(id).reason(), HasSubstr("boom; max_restarts (1) is used up"));
}

TEST_F(SupervisorTest, AFailureThatWouldRepeatItselfFailsTheJobWithTheRanksWords) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  auto failed = envelope(id, 1, 1, 1);
  failed.mutable_failed()->set_message("train.jsonl: line 3 has no key \"text\"");
  b.rank(failed);
  step();
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_FAILED);
  EXPECT_THAT(job(id).reason(), HasSubstr("rank 1 reports: train.jsonl: line 3"));
  EXPECT_EQ(a.take(proto::NodeFrame::kStop).size(), 1u);
  EXPECT_EQ(b.take(proto::NodeFrame::kStop).size(), 1u);
}

TEST_F(SupervisorTest, ANodesSlotsAreGivenAwayOnlyAfterItsLease) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  b.connect(*supervisor_);
  a.channel->close({Code::kUnavailable, "cable"});
  live(29, {&b});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING) << "its ranks may well be alive";
  EXPECT_EQ(store_->nodes().at(0).state(), proto::NODE_STATE_READY);
  live(6, {&b});
  EXPECT_EQ(store_->nodes().at(0).state(), proto::NODE_STATE_LOST);
  live(4, {&b});
  EXPECT_EQ(job(id).attempt(), 2);
  EXPECT_EQ(job(id).placement().nodes(0).name(), "n2");
  // The old node is back with the old attempt: it is told to stop it, and what its rank says is
  // stale.
  a.connect(*supervisor_);
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kStop).size(), 1u);
  const auto before = store_->events(id, 0, 1000).value().size();
  finish(a, id, 1, 2, "succeeded");
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).back().rank_reply().reply().code(), "stale");
  EXPECT_EQ(store_->events(id, 0, 1000).value().size(), before);
  a.beat();  // tells what it has; the next grant answers
  step();
  a.beat();
  EXPECT_EQ(a.take(proto::NodeFrame::kLease).back().lease().revoked_size(), 1);
}

TEST_F(SupervisorTest, AReturningNodeGivesNoSlotAwayBeforeTheOldProcessesAreGone) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.channel->close({Code::kUnavailable, "cable"});
  step(40);
  ASSERT_EQ(job(id).state(), proto::JOB_STATE_QUEUED);
  step(10);
  a.connect(*supervisor_);
  live(2, {&a});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(a.take(proto::NodeFrame::kPrepare).size(), 0u);
  a.exit(ref(id, 1), 137, "stopped");
  live(1, {&a});
  EXPECT_EQ(job(id).attempt(), 2);
}

TEST_F(SupervisorTest, ARestartedCoordinatorFindsTheRunningJobAgain) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  restart();
  step(20);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  live(60, {&a, &b});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  EXPECT_EQ(job(id).attempt(), 1);
  EXPECT_EQ(a.take(proto::NodeFrame::kPrepare).size() + a.take(proto::NodeFrame::kStart).size(),
            0u);
  finish(a, id, 1, 2, "succeeded");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_SUCCEEDED);
}

TEST_F(SupervisorTest, ARestartDuringTheStartGoesOnWithIt) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  const auto first = a.take(proto::NodeFrame::kPrepare).at(0).prepare().record();
  a.prepared(ref(id, 1));
  step();
  restart();
  a.connect(*supervisor_);
  EXPECT_EQ(a.take(proto::NodeFrame::kPrepare).size(), 0u) << "it lists the attempt";
  b.connect(*supervisor_);
  const auto again = b.take(proto::NodeFrame::kPrepare).at(0).prepare().record();
  EXPECT_EQ(again.secret(), first.secret());
  a.prepared(ref(id, 1));
  b.prepared(ref(id, 1));
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kStart).size(), 1u);
  EXPECT_EQ(job(id).attempt(), 1);
}

TEST_F(SupervisorTest, NodesThatNeverComeBackLoseTheirJobAfterAWholeLease) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  restart();
  b.connect(*supervisor_);
  live(32, {&b});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  live(8, {&b});
  EXPECT_EQ(job(id).attempt(), 2);
  EXPECT_EQ(job(id).placement().nodes(0).name(), "n2");
}

TEST_F(SupervisorTest, ALostNodeIsForgottenUntilItComesBack) {
  FakeAgent a("n1", 1), b("n2", 2);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(3);
  bring_up(id, 1, {&b, &a});
  EXPECT_EQ(store_->forget_node("n1").code(), Code::kFailedPrecondition) << "it answers";
  EXPECT_EQ(store_->forget_node("n3").code(), Code::kNotFound);
  a.channel->close({Code::kUnavailable, "cable"});
  live(35, {&b});
  ASSERT_EQ(store_->nodes().at(0).state(), proto::NODE_STATE_LOST);
  if (is_active(job(id).state())) {
    EXPECT_THAT(store_->forget_node("n1").message(), testing::HasSubstr("still counts on"));
  }
  live(10, {&b});
  ASSERT_FALSE(is_active(job(id).state()));
  EXPECT_FALSE(job(id).infeasible()) << "it may come back";
  ASSERT_TRUE(store_->forget_node("n1").ok());
  live(3, {&b});
  EXPECT_EQ(store_->nodes().size(), 1u);
  EXPECT_TRUE(job(id).infeasible()) << "nobody waits for it any more";
  restart();
  live(1, {&b});
  EXPECT_EQ(store_->nodes().size(), 1u);
  FakeAgent again("n1", 1);
  again.connect(*supervisor_);
  live(3, {&again});
  EXPECT_EQ(store_->nodes().size(), 2u);
}

// The coordinator died between the write that tells of a lost node and the end of its attempt.
TEST_F(SupervisorTest, ANodeThatWasStoredAsLostLosesItsJobAfterARestart) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  proto::NodeInfo lost = store_->nodes().at(0);
  lost.set_state(proto::NODE_STATE_LOST);
  ASSERT_TRUE(store_->put_node(lost, true).ok());
  restart();
  b.connect(*supervisor_);
  live(32, {&b});
  EXPECT_EQ(job(id).attempt(), 1) << "it may come back within a lease";
  live(8, {&b});
  EXPECT_EQ(job(id).attempt(), 2);
  EXPECT_EQ(job(id).placement().nodes(0).name(), "n2");
}

TEST_F(SupervisorTest, ANodeThatForgotItsAttemptEndsIt) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.running.clear();
  live(4, {&a});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING) << "its exit may be on the way";
  live(5, {&a});
  EXPECT_EQ(job(id).restarts(), 1);
}

TEST_F(SupervisorTest, LostFramesComeAgainAndAreAppliedInOrder) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.take(proto::NodeFrame::kRankReply);
  const auto metrics = [&](uint64_t sequence, int64_t at) {
    auto message = envelope(id, 1, 0, sequence);
    message.mutable_metrics()->add_records()->set_step(at);
    return message;
  };
  a.rank(metrics(3, 8));  // 2 was lost
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).size(), 0u) << "not acknowledged";
  a.rank(metrics(2, 7));
  a.rank(metrics(3, 8));
  a.rank(metrics(2, 7));
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).size(), 3u);
  EXPECT_EQ(job(id).step(), 8);
  EXPECT_EQ(store_->metrics(id, 0, 10).value().size(), 2u);
}

TEST_F(SupervisorTest, AFullDiskHoldsTheRanksMessagesBack) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.take(proto::NodeFrame::kRankReply);
  disk_->full = true;
  for (uint64_t sequence = 2; sequence < 5; ++sequence) {
    auto message = envelope(id, 1, 0, sequence);
    message.mutable_metrics()->add_records()->set_step(static_cast<int64_t>(sequence));
    a.rank(message);
  }
  live(3, {&a});
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).size(), 0u);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  disk_->full = false;
  live(2, {&a});
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).size(), 3u);
  EXPECT_EQ(job(id).step(), 4);
}

TEST_F(SupervisorTest, AJobSaysWhichFullDiskItWaitsFor) {
  FakeAgent a("n1", 1), b("n2", 1);
  for (FakeAgent* agent : {&a, &b}) {
    agent->info.set_disk_bytes(int64_t{400} << 20);
    agent->info.set_disk_free_bytes(int64_t{100} << 20);
    agent->connect(*supervisor_);
  }
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  CoordinatorService service({*store_, *content_, clock_, "", "test"});
  live(2, {&a, &b});
  EXPECT_EQ(service.job(id)->reason(), "");
  b.info.set_disk_free_bytes(0);
  live(2, {&a, &b});
  const std::string reason = service.job(id)->reason();
  EXPECT_TRUE(
      reason.starts_with("disk full on node n2 (0 of 400 MiB free): waiting for room since"))
      << reason;
  live(5, {&a, &b});
  EXPECT_EQ(service.jobs({})->jobs[0].reason(), reason);
  auto metrics = envelope(id, 1, 0, 2);
  metrics.mutable_metrics()->add_records()->set_step(5);
  a.rank(metrics);
  step();
  EXPECT_EQ(job(id).reason(), "") << "it is not stored";
  b.info.set_disk_free_bytes(int64_t{100} << 20);
  live(2, {&a, &b});
  EXPECT_EQ(service.job(id)->reason(), "");
}

TEST_F(SupervisorTest, AJobWaitsForTheChunkStoreThatRefusesWrites) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  CoordinatorService service({*store_, *content_, clock_, "", "test"});
  chunks_.set_full(true);
  live(2, {&a});
  const std::string reason = service.job(id)->reason();
  EXPECT_TRUE(reason.starts_with("disk full on the coordinator's machine (")) << reason;
  chunks_.set_full(false);
  live(2, {&a});
  EXPECT_EQ(service.job(id)->reason(), "");
}

TEST_F(SupervisorTest, AFullDiskThatKeepsAJobFromStartingIsItsReason) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  a.channel->close({Code::kUnavailable, "gone"});
  const std::string id = submit(1);
  disk_->full = true;
  a.connect(*supervisor_);
  step(2);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_QUEUED);
  EXPECT_NE(job(id).reason().find("disk full"), std::string::npos) << job(id).reason();
  disk_->full = false;
  live(2, {&a});
  bring_up(id, 1, {&a});
}

// A job that writes checkpoints.
class ChunksTest : public SupervisorTest {
 protected:
  void SetUp() override {
    a.connect(*supervisor_);
    id = submit(1);
    bring_up(id, 1, {&a});
  }
  void put(const std::string& bytes, int attempt = 1) {
    proto::NodeFrame frame;
    frame.mutable_chunk_put()->set_hash(sha256_hex(bytes));
    frame.mutable_chunk_put()->set_data(bytes);
    *frame.mutable_chunk_put()->mutable_attempt() = ref(id, attempt);
    a.channel->deliver(frame);
    step();
  }
  void write(const std::string& bytes) {
    put(bytes);
    ++sequence_;
    a.rank(commit(id, 1, sequence_, bytes, static_cast<int64_t>(sequence_)));
    step();
  }
  bool here(const std::string& bytes) const { return chunks_.has(sha256_hex(bytes)); }
  FakeAgent a{"n1", 1};
  std::string id;
  uint64_t sequence_ = 1;
};

TEST_F(ChunksTest, WhatKeepLastDropsLeavesWithinAMinute) {
  for (int i = 0; i < 12; ++i) {
    write("state " + std::to_string(i));
    live(20, {&a});
    EXPECT_LE(chunks_.bytes(), 7 * (2 + 3)) << "2 are kept, 3 come in a minute";
  }
  put("the next one's");
  live(3 * 3600, {&a});  // the disk may be full
  EXPECT_TRUE(here("the next one's"));
  EXPECT_EQ(store_->checkpoints(id).value().size(), 2u);
  EXPECT_TRUE(here("state 10") && here("state 11"));
}

TEST_F(ChunksTest, ACommitThatComesAgainAfterItsChunksLeftIsNotRefused) {
  for (const char* state : {"one", "two", "three"}) write(state);
  live(61, {&a});
  ASSERT_FALSE(here("one"));
  a.take(proto::NodeFrame::kRankReply);
  a.rank(commit(id, 1, 2, "one", 2));
  step();
  const auto replies = a.take(proto::NodeFrame::kRankReply);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].rank_reply().reply().sequence(), 2u);
  EXPECT_EQ(replies[0].rank_reply().reply().code(), "");
}

TEST_F(ChunksTest, AnAttemptThatDiesInACheckpointGivesItsChunksBack) {
  write("stays");
  put("never committed");
  live(120, {&a});
  EXPECT_TRUE(here("never committed"));
  a.exit(ref(id, 1), 137, "rank 0 was killed");
  live(5, {&a});
  bring_up(id, 2, {&a});
  put("of the next attempt", 2);
  put("sent late");
  live(61, {&a});
  EXPECT_FALSE(here("never committed") || here("sent late"));
  EXPECT_TRUE(here("stays") && here("of the next attempt"));
}

TEST_F(ChunksTest, OnAFullDiskARemovalMakesRoomAtOnce) {
  write("old");
  write("new");
  live(3, {&a});
  ASSERT_TRUE(here("old"));
  chunks_.set_full(true);
  CoordinatorService service({*store_, *content_, clock_, "", "test"});
  ASSERT_TRUE(service.remove_checkpoint(store_->checkpoint_ids(id).value().front()).ok());
  live(2, {&a});
  EXPECT_FALSE(here("old"));
  EXPECT_TRUE(here("new"));
}

TEST_F(ChunksTest, AnAttemptThatOutlivesTheCoordinatorKeepsItsChunks) {
  put("before");
  restart_from_disk();
  a.running[id + "/1"] = ref(id, 1);
  a.connect(*supervisor_);
  live(3 * 3600, {&a});
  ASSERT_EQ(job(id).attempt(), 1);
  write("before");
  EXPECT_EQ(store_->checkpoints(id).value().size(), 1u);
}

TEST_F(SupervisorTest, TwoAgentsWithOneName) {
  FakeAgent a("n1", 1), other("n1", 1);
  a.connect(*supervisor_);
  other.connect(*supervisor_);
  EXPECT_EQ(other.take(proto::NodeFrame::kRefused).size(), 1u);
  EXPECT_FALSE(other.channel->open);
  a.connect(*supervisor_, false);  // the same agent, before its old connection was seen to end
  EXPECT_TRUE(a.channel->open);
  EXPECT_EQ(a.take(proto::NodeFrame::kWelcome).size(), 1u);
  a.channel->close({Code::kUnavailable, "gone"});
  step();
  other.connect(*supervisor_);
  EXPECT_TRUE(other.channel->open);
}

TEST_F(SupervisorTest, BadHellosAndStrangersAreRefused) {
  for (const char* name : {"", "../x", "a b", ".hidden"}) {
    FakeAgent bad(name, 1);
    bad.connect(*supervisor_);
    EXPECT_FALSE(bad.channel->open) << name;
  }
  FakeAgent none("n1", 0);
  none.connect(*supervisor_);
  EXPECT_FALSE(none.channel->open);
  auto stranger = std::make_shared<ScriptedChannel>();
  supervisor_->accept(stranger);
  proto::NodeFrame put;
  put.mutable_chunk_put()->set_hash(sha256_hex("x"));
  put.mutable_chunk_put()->set_data("x");
  stranger->deliver(put);
  step();
  EXPECT_FALSE(stranger->open);
  EXPECT_FALSE(chunks_.has(sha256_hex("x")));
  auto silent = std::make_shared<ScriptedChannel>();
  supervisor_->accept(silent);
  step();
  step(31);
  EXPECT_FALSE(silent->open);
}

TEST_F(SupervisorTest, RanksThatDoNotReactAreStopped) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  set_state(id, proto::JOB_STATE_CANCELLING);
  live(901, {&a});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(a.take(proto::NodeFrame::kStop).size(), 1u);
}

TEST_F(SupervisorTest, AMessageOfARankThatIsElsewhereIsLeftAside) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  finish(b, id, 1, 2, "succeeded");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
}

}  // namespace
}  // namespace weft
