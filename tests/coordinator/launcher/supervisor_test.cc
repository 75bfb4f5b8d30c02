#include <gmock/gmock.h>

#include <cmath>

#include "tests/coordinator/launcher/fake_agent.h"

namespace weft {
namespace {

using testing::HasSubstr;

TEST_F(SupervisorTest, AGangStartsOnceEveryNodeIsPrepared) {
  FakeAgent a("n1", 1), b("n2", 1);
  const std::string id = submit(2, 2);
  EXPECT_THAT(job(id).reason(), HasSubstr("no node has joined"));
  a.connect(*supervisor_);
  EXPECT_EQ(a.take(proto::NodeFrame::kWelcome).at(0).welcome().lease_seconds(), 30);
  EXPECT_TRUE(job(id).infeasible()) << "one node of one slot is all that is known";
  b.connect(*supervisor_);
  step();
  ASSERT_EQ(job(id).state(), proto::JOB_STATE_STARTING);
  EXPECT_EQ(job(id).attempt(), 1);
  const auto record = a.take(proto::NodeFrame::kPrepare).at(0).prepare().record();
  EXPECT_EQ(record.ranks_size(), 2);
  EXPECT_EQ(record.ranks(1).node(), "n2");
  EXPECT_EQ(record.ranks(1).threads(), 2);
  a.prepared(ref(id, 1));
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kStart).size(), 0u);
  b.prepared(ref(id, 1));
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kStart).size(), 1u);
  EXPECT_EQ(b.take(proto::NodeFrame::kStart).size(), 0u);
}

TEST_F(SupervisorTest, TrainsReportsAndSucceeds) {
  FakeAgent a("n1", 2);
  a.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a});
  auto metrics = envelope(id, 1, 0, 2);
  auto& record = *metrics.mutable_metrics()->add_records();
  record.set_step(7);
  (*record.mutable_values())["loss"] = 2.5;
  (*record.mutable_values())["tokens_per_second"] = 9;  // of that step alone
  metrics.mutable_metrics()->set_tokens_per_second(640);
  metrics.mutable_metrics()->set_seconds_left(12);
  a.rank(metrics);
  a.rank(metrics);  // repeated
  step();
  EXPECT_EQ(job(id).step(), 7);
  EXPECT_EQ(job(id).loss(), 2.5);
  EXPECT_EQ(job(id).tokens_per_second(), 640);
  EXPECT_EQ(job(id).seconds_left(), 12);
  EXPECT_EQ(store_->metrics(id, 0, 10).value().size(), 1u);
  a.take(proto::NodeFrame::kRankReply);
  finish(a, id, 1, 3, "succeeded");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_SUCCEEDED);
  EXPECT_FALSE(job(id).has_tokens_per_second());
  EXPECT_FALSE(job(id).has_seconds_left());
  const auto replies = a.take(proto::NodeFrame::kRankReply);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].rank_reply().reply().sequence(), 3u);
  EXPECT_EQ(replies[0].rank_reply().reply().code(), "");
}

TEST_F(SupervisorTest, ValidationLossOfTasksIsTheMeanByTheirWeights) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  ASSERT_TRUE(store_->edit_job(id, [](JobEdit& edit) {
    for (const auto& [name, weight] : {std::pair{"lm", 1.0}, {"kind", 3.0}, {"unmeasured", 4.0}}) {
      proto::TaskSpec& task = *edit.job.mutable_spec()->add_tasks();
      task.set_name(name);
      task.set_weight(weight);
    }
    return Status();
  }));
  bring_up(id, 1, {&a});
  auto metrics = envelope(id, 1, 0, 2);
  const auto evaluate = [&](int64_t at, double lm, double kind) {
    for (const auto& [name, loss] : {std::pair{"lm", lm}, {"kind", kind}}) {
      proto::MetricRecord& record = *metrics.mutable_metrics()->add_records();
      record.set_task(name);
      record.set_step(at);
      (*record.mutable_values())["validation_loss"] = loss;
    }
  };
  evaluate(10, 8, 9);  // replaced by the later one, in the same message
  evaluate(20, 4, 2);
  a.rank(metrics);
  step();
  EXPECT_EQ(job(id).validation_loss(), 2.5);
}

TEST_F(SupervisorTest, SlotsAreFreeOnlyWhenTheProcessesAreGone) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string first = submit(1);
  const std::string second = submit(1);
  EXPECT_THAT(job(second).reason(), HasSubstr("1 held by " + first));
  bring_up(first, 1, {&a});
  finish(a, first, 1, 2, "succeeded");
  live(3, {&a});
  EXPECT_EQ(job(second).state(), proto::JOB_STATE_QUEUED) << "the ranks are still there";
  EXPECT_EQ(a.take(proto::NodeFrame::kStop).size(), 0u) << "they leave by themselves";
  a.exit(ref(first, 1), 0, "");
  step();
  EXPECT_EQ(job(second).state(), proto::JOB_STATE_STARTING);
}

TEST_F(SupervisorTest, PauseAndCancelTravelToTheRanks) {
  FakeAgent a("n1", 1), b("n2", 1);
  a.connect(*supervisor_);
  b.connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  ASSERT_TRUE(ask_for_checkpoint(id));
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kControl).at(0).control().control().kind(),
            proto::CONTROL_KIND_CHECKPOINT);
  set_state(id, proto::JOB_STATE_PAUSING);
  EXPECT_EQ(b.take(proto::NodeFrame::kControl).back().control().control().kind(),
            proto::CONTROL_KIND_PAUSE);
  live(3, {&a, &b});
  EXPECT_EQ(a.take(proto::NodeFrame::kControl).size(), 1u) << "told once a connection";
  a.connect(*supervisor_);
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kControl).size(), 1u);
  finish(a, id, 1, 2, "paused");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_PAUSED);
  set_state(id, proto::JOB_STATE_QUEUED);
  EXPECT_THAT(job(id).reason(), HasSubstr("attempt 1 has ended on n1, n2"));
  a.exit(ref(id, 1), 0, "");
  b.exit(ref(id, 1), 0, "");
  step();
  EXPECT_EQ(job(id).attempt(), 2);
  set_state(id, proto::JOB_STATE_CANCELLING);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_CANCELLED) << "no rank was there yet";
  EXPECT_EQ(a.take(proto::NodeFrame::kStop).size(), 1u);
}

// Writes checkpoints and counts what it is asked for.
class RequestTest : public SupervisorTest {
 protected:
  void SetUp() override {
    a.connect(*supervisor_);
    id = submit(1);
    bring_up(id, 1, {&a});
    ASSERT_TRUE(content_->put_chunk(sha256_hex("w"), "w").ok());
  }
  void write(const std::string& why, int64_t request = 0) {
    ++sequence_;
    auto message = commit(id, job(id).attempt(), sequence_, "w", static_cast<int64_t>(sequence_));
    message.mutable_checkpoint()->set_why(why);
    message.mutable_checkpoint()->mutable_manifest()->set_request(request);
    a.rank(message);
    step();
  }
  std::vector<int64_t> asked() {  // requests that the node has been told of since the last look
    std::vector<int64_t> numbers;
    for (const auto& frame : a.take(proto::NodeFrame::kControl)) {
      EXPECT_EQ(frame.control().control().kind(), proto::CONTROL_KIND_CHECKPOINT);
      numbers.push_back(frame.control().control().request());
    }
    return numbers;
  }
  FakeAgent a{"n1", 1};
  std::string id;
  uint64_t sequence_ = 1;  // the last one used: bring_up's
};
using Numbers = std::vector<int64_t>;

TEST_F(RequestTest, EachIsToldUntilItIsAnswered) {
  for (const int64_t request : {1, 2, 3}) {
    ASSERT_EQ(ask_for_checkpoint(id).value().checkpoint_requests(), request);
    step();
    EXPECT_EQ(asked(), Numbers{request});
    write("interval", request - 1);  // that one was begun before
    EXPECT_EQ(job(id).checkpoint_requests_answered(), request - 1);
    a.connect(*supervisor_);
    step();
    EXPECT_EQ(asked(), Numbers{request}) << "a new connection may have lost it";
    write("request", request);
    EXPECT_EQ(job(id).checkpoint_requests_answered(), request);
    a.connect(*supervisor_);
    live(3, {&a});
    EXPECT_EQ(asked(), Numbers{});
  }
}

TEST_F(RequestTest, OneDuringAnAnswerIsAnsweredToo) {
  ASSERT_TRUE(ask_for_checkpoint(id));
  step();
  ASSERT_TRUE(ask_for_checkpoint(id));
  step();
  EXPECT_EQ(asked(), (Numbers{1, 2}));
  write("request", 1);
  EXPECT_EQ(job(id).checkpoint_requests_answered(), 1);
  write("request", 2);
  EXPECT_EQ(job(id).checkpoint_requests_answered(), 2);
  write("request", 99);  // never asked
  EXPECT_EQ(job(id).checkpoint_requests_answered(), 2);
}

// The coordinator is killed between its answer to the person and the first word to a node.
TEST_F(RequestTest, OneThatWasAcknowledgedOutlivesTheCoordinator) {
  ASSERT_TRUE(ask_for_checkpoint(id));
  restart_from_disk();
  EXPECT_EQ(asked(), Numbers{});
  a.connect(*supervisor_);
  step();
  EXPECT_EQ(asked(), Numbers{1});
  restart_from_disk();  // nor is it lost after that word
  a.connect(*supervisor_);
  step();
  EXPECT_EQ(asked(), Numbers{1});
  write("request", 1);
  restart_from_disk();
  a.connect(*supervisor_);
  live(3, {&a});
  EXPECT_EQ(asked(), Numbers{}) << "answered once, asked no more";
}

TEST_F(RequestTest, OneThatAnAttemptDidNotAnswerIsAskedOfTheNext) {
  ASSERT_TRUE(ask_for_checkpoint(id));
  step();
  EXPECT_EQ(asked(), Numbers{1});
  a.exit(ref(id, 1), 137, "rank 0 was killed");
  live(10, {&a});
  EXPECT_EQ(job(id).attempt(), 2);
  EXPECT_EQ(asked(), Numbers{}) << "its ranks are not there yet";
  bring_up(id, 2, {&a});
  step();
  EXPECT_EQ(asked(), Numbers{1});
  sequence_ = 1;
  write("end");
  EXPECT_EQ(job(id).checkpoint_requests_answered(), 1) << "the last one answers everything";
}

// Streams and pages of checkpoints go by their times.
TEST_F(SupervisorTest, CheckpointsOfOneMomentStayInOrder) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  ASSERT_TRUE(content_->put_chunk(sha256_hex("w"), "w").ok());
  for (uint64_t sequence = 2; sequence < 4; ++sequence) {
    a.rank(commit(id, 1, sequence, "w", static_cast<int64_t>(sequence)));
  }
  step();
  const auto found = store_->checkpoints(id).value();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_LT(found[0].created_ms(), found[1].created_ms());
  EXPECT_EQ(found[1].state().step(), 3);
}

TEST_F(SupervisorTest, ACheckpointNeedsItsChunksAndTheNewestStay) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  a.take(proto::NodeFrame::kRankReply);
  a.rank(commit(id, 1, 2, "never put", 10));
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRankReply).at(0).rank_reply().reply().code(),
            "failed_precondition");
  for (int i = 0; i < 4; ++i) {
    const std::string bytes = "tensor " + std::to_string(i);
    proto::NodeFrame put;
    put.mutable_chunk_put()->set_hash(sha256_hex(bytes));
    put.mutable_chunk_put()->set_data(bytes);
    a.channel->deliver(put);
    a.rank(commit(id, 1, static_cast<uint64_t>(3 + i), bytes, 20 + i));
    step(0.01);
    EXPECT_TRUE(a.take(proto::NodeFrame::kChunkPutResult).at(0).chunk_put_result().stored());
  }
  const auto kept = store_->checkpoints(id).value();
  ASSERT_EQ(kept.size(), 2u) << "keep_last";
  EXPECT_EQ(kept[1].state().step(), 23);
  EXPECT_EQ(job(id).checkpoint(), kept[1].id());
  a.exit(ref(id, 1), 137, "rank 0 was killed");
  step(3);
  ASSERT_EQ(job(id).state(), proto::JOB_STATE_QUEUED);
  live(3, {&a});
  EXPECT_EQ(a.take(proto::NodeFrame::kPrepare).at(0).prepare().record().resume().id(),
            kept[1].id());
}

// The lowest validation loss stays beside the newest; one that is no number is not the lowest.
TEST_F(SupervisorTest, TheBestCheckpointStays) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  ASSERT_TRUE(store_->edit_job(id, [](JobEdit& edit) {
    edit.job.mutable_spec()->mutable_checkpoint()->set_keep_best(true);
    return Status();
  }));
  bring_up(id, 1, {&a});
  ASSERT_TRUE(content_->put_chunk(sha256_hex("w"), "w").ok());
  uint64_t sequence = 1;
  const auto steps_after = [&](std::optional<double> loss) {
    ++sequence;
    auto message = commit(id, 1, sequence, "w", static_cast<int64_t>(sequence));
    if (loss) message.mutable_checkpoint()->mutable_manifest()->set_validation_loss(*loss);
    a.rank(message);
    step();
    std::vector<int64_t> steps;
    const auto all = store_->checkpoints(id).value();
    for (const auto& kept : all) steps.push_back(kept.state().step());
    return steps;
  };
  const auto best = [&] { return store_->checkpoint(job(id).best_checkpoint())->state().step(); };
  using Steps = std::vector<int64_t>;
  EXPECT_EQ(steps_after(std::nan("")), Steps{2});
  EXPECT_EQ(job(id).best_checkpoint(), "");
  EXPECT_EQ(steps_after(3.0), (Steps{2, 3}));
  EXPECT_EQ(best(), 3);
  EXPECT_EQ(steps_after(1.0), (Steps{3, 4}));
  EXPECT_EQ(best(), 4);
  EXPECT_EQ(steps_after(2.0), (Steps{4, 5}));
  EXPECT_EQ(steps_after(std::nullopt), (Steps{4, 5, 6}));
  EXPECT_EQ(steps_after(1.0), (Steps{4, 6, 7})) << "of two alike the first";
  EXPECT_EQ(best(), 4);
  EXPECT_EQ(steps_after(0.5), (Steps{7, 8}));
  EXPECT_EQ(best(), 8);
  EXPECT_EQ(job(id).checkpoint(), store_->checkpoints(id).value().back().id());
}

TEST_F(SupervisorTest, TheTimeLimitEndsAJob) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  ASSERT_TRUE(store_->edit_job(id, [](JobEdit& edit) {
    edit.job.mutable_spec()->mutable_resources()->set_time_limit_seconds(20);
    return Status();
  }));
  live(21, {&a});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_CANCELLING);
  EXPECT_EQ(a.take(proto::NodeFrame::kControl).size(), 1u);
  finish(a, id, 1, 2, "cancelled");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_FAILED);
  EXPECT_THAT(job(id).reason(), HasSubstr("time limit of 20 s"));
}

TEST_F(SupervisorTest, DaemonsStartOnlyThroughTheHeadOfACurrentAttempt) {
  FakeAgent a("n1", 1), b("n2", 1), c("n3", 1);
  for (FakeAgent* agent : {&a, &b, &c}) agent->connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  const auto ask = [&](FakeAgent& from, const std::string& to, int attempt) {
    proto::NodeFrame frame;
    *frame.mutable_remote_orted()->mutable_attempt() = ref(id, attempt);
    frame.mutable_remote_orted()->set_from_node(from.info.name());
    frame.mutable_remote_orted()->set_to_node(to);
    from.channel->deliver(frame);
    step();
  };
  ask(a, "n2", 1);
  EXPECT_EQ(b.take(proto::NodeFrame::kRemoteOrted).size(), 1u);
  ask(b, "n1", 1);
  EXPECT_EQ(a.take(proto::NodeFrame::kRemoteOrted).size(), 0u);
  ask(a, "n3", 1);
  EXPECT_EQ(c.take(proto::NodeFrame::kRemoteOrted).size(), 0u);
  ask(a, "n2", 2);
  EXPECT_EQ(b.take(proto::NodeFrame::kRemoteOrted).size(), 0u);
  EXPECT_EQ(a.take(proto::NodeFrame::kRemoteOrtedResult).size(), 2u);
  proto::NodeFrame result;
  *result.mutable_remote_orted_result()->mutable_attempt() = ref(id, 1);
  result.mutable_remote_orted_result()->set_to_node("n1");
  result.mutable_remote_orted_result()->set_started(true);
  c.channel->deliver(result);
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRemoteOrtedResult).size(), 0u) << "n3 has no part in it";
  b.channel->deliver(result);
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRemoteOrtedResult).size(), 1u);
}

TEST_F(SupervisorTest, ADaemonThatIsAskedForOutlivesLostConnections) {
  FakeAgent a("n1", 1), b("n2", 1);
  for (FakeAgent* agent : {&a, &b}) agent->connect(*supervisor_);
  const std::string id = submit(2);
  bring_up(id, 1, {&a, &b});
  b.channel->close({Code::kUnavailable, "cable"});
  step();
  proto::NodeFrame ask;
  *ask.mutable_remote_orted()->mutable_attempt() = ref(id, 1);
  ask.mutable_remote_orted()->set_from_node("n1");
  ask.mutable_remote_orted()->set_to_node("n2");
  a.channel->deliver(ask);
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRemoteOrtedResult).size(), 0u) << "it may come back";
  for (int i = 0; i < 2; ++i) {  // the second time the answer was lost
    b.connect(*supervisor_);
    EXPECT_EQ(b.take(proto::NodeFrame::kRemoteOrted).size(), 1u) << i;
  }
  proto::NodeFrame result;
  *result.mutable_remote_orted_result()->mutable_attempt() = ref(id, 1);
  result.mutable_remote_orted_result()->set_started(true);
  b.channel->deliver(result);
  step();
  EXPECT_EQ(a.take(proto::NodeFrame::kRemoteOrtedResult).size(), 1u);
  b.connect(*supervisor_);
  EXPECT_EQ(b.take(proto::NodeFrame::kRemoteOrted).size(), 0u);
}

TEST_F(SupervisorTest, LogsAreAcknowledgedByWhatIsStored) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  proto::NodeFrame log;
  *log.mutable_log()->mutable_attempt() = ref(id, 1);
  log.mutable_log()->set_data("hello");
  a.channel->deliver(log);
  a.channel->deliver(log);
  step();
  const auto acks = a.take(proto::NodeFrame::kLogAck);
  ASSERT_EQ(acks.size(), 2u);
  EXPECT_EQ(acks[1].log_ack().offset(), 5);
  EXPECT_EQ(store_->read_log(id, 1, 0, 0, 100).value(), "hello");
}

TEST_F(SupervisorTest, ADrainStopsJobsInACheckpointAndStartsNothingUntilItIsOver) {
  FakeAgent a("n1", 2);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  drain_.begin(60);
  const std::string later = submit(1);
  EXPECT_EQ(job(later).state(), proto::JOB_STATE_QUEUED);
  EXPECT_THAT(job(later).reason(), HasSubstr("coming to rest"));
  const auto controls = a.take(proto::NodeFrame::kControl);
  ASSERT_EQ(controls.size(), 1u);
  EXPECT_EQ(controls[0].control().control().kind(), proto::CONTROL_KIND_PAUSE);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_RUNNING) << "nobody asked for a pause of it";
  finish(a, id, 1, 2, "paused");
  a.exit(ref(id, 1), 0, "");
  live(10, {&a});
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(job(id).attempt(), 1);
  EXPECT_EQ(job(id).restarts(), 0);
  live(60, {&a});
  EXPECT_EQ(job(id).attempt(), 2);
  EXPECT_EQ(job(later).attempt(), 1);
}

TEST_F(SupervisorTest, ACancelDuringADrainHolds) {
  FakeAgent a("n1", 1);
  a.connect(*supervisor_);
  const std::string id = submit(1);
  bring_up(id, 1, {&a});
  drain_.begin(60);
  step();
  set_state(id, proto::JOB_STATE_CANCELLING);
  finish(a, id, 1, 2, "paused");
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_CANCELLED);
}

}  // namespace
}  // namespace weft
