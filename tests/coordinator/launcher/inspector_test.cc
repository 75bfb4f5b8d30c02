#include "coordinator/launcher/inspector.h"

#include <gmock/gmock.h>

#include <future>

#include "coordinator/launcher/trace_summary.h"
#include "proto/base/activity.h"
#include "tests/coordinator/launcher/fake_agent.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

class InspectorTest : public SupervisorTest {
 protected:
  InspectorTest() {
    a_.connect(*supervisor_);
    b_.connect(*supervisor_);
    id_ = submit(2);
    bring_up(id_, 1, {&a_, &b_});
  }
  // What the agent was asked, once the supervisor has passed it on.
  static proto::Inspect asked(FakeAgent& agent, const std::function<void()>& step) {
    std::vector<proto::NodeFrame> frames;
    while (frames.empty()) {
      step();
      frames = agent.take(proto::NodeFrame::kInspect);
    }
    return frames.back().inspect().inspect();
  }
  void answer(FakeAgent& agent, uint64_t request, int rank) {
    proto::NodeFrame frame;
    *frame.mutable_inspected()->mutable_attempt() = ref(id_, 1);
    frame.mutable_inspected()->set_request(request);
    proto::RankStack& stack = *frame.mutable_inspected()->add_ranks();
    stack.mutable_now()->set_rank(rank);
    stack.mutable_now()->set_step(9);
    stack.add_threads()->add_frames("weft::run_step");
    agent.channel->deliver(frame);
  }
  void send_trace(FakeAgent& agent, const proto::RankTrace& trace) {
    proto::NodeFrame frame;
    *frame.mutable_trace()->mutable_attempt() = ref(id_, 1);
    *frame.mutable_trace()->mutable_trace() = trace;
    agent.channel->deliver(frame);
    step();
  }
  static proto::RankTrace part(uint64_t request, int rank) {
    proto::RankTrace trace;
    trace.set_request(request);
    trace.set_rank(rank);
    trace.add_names("");
    trace.add_names("step");
    trace.add_spans()->set_name(1);
    return trace;
  }

  FakeAgent a_{"n1", 1}, b_{"n2", 1};
  std::string id_;
};

TEST_F(InspectorTest, StacksOfThoseThatAnswerAndWhatIsKnownOfTheOthers) {
  b_.now.resize(1);
  b_.now[0].set_job(id_);
  b_.now[0].set_attempt(1);
  b_.now[0].add_ranks()->set_rank(1);
  b_.now[0].mutable_ranks(0)->set_pid(77);
  b_.now[0].mutable_ranks(0)->set_step(8);
  live(1, {&a_, &b_});
  auto stacks = std::async(std::launch::async, [&] { return inspector_.stacks(job(id_), 0.5); });
  const proto::Inspect question = asked(a_, [&] { supervisor_->step(); });
  EXPECT_EQ(question.trace_steps(), 0);
  answer(a_, question.request(), 1);  // not its own: left aside
  answer(a_, question.request(), 0);
  step();
  step(0.5);
  const std::vector<proto::RankStack> found = stacks.get();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].now().step(), 9);
  EXPECT_EQ(found[0].node(), "n1");
  EXPECT_EQ(found[0].threads(0).frames(0), "weft::run_step");
  EXPECT_EQ(found[0].problem(), "");
  EXPECT_EQ(found[1].now().step(), 8);
  EXPECT_EQ(found[1].node(), "n2");
  EXPECT_THAT(found[1].problem(), HasSubstr("has not answered"));
}

TEST_F(InspectorTest, AnswersAsSoonAsAllAreThere) {
  auto stacks = std::async(std::launch::async, [&] { return inspector_.stacks(job(id_), 60); });
  const uint64_t request = asked(a_, [&] { supervisor_->step(); }).request();
  answer(a_, request, 0);
  answer(b_, request, 1);
  supervisor_->step();
  EXPECT_EQ(stacks.get()[1].problem(), "");
}

TEST_F(InspectorTest, ATraceIsCompleteOnceEveryPartIsThere) {
  CoordinatorService service({*store_, *content_, clock_, "", "test", nullptr, &inspector_});
  EXPECT_EQ(service.trace(id_).error().code(), Code::kNotFound);
  EXPECT_EQ(service.start_trace(id_, 0).error().field(), "steps");
  ASSERT_EQ(service.start_trace(id_, 3)->state(), "recording");
  const proto::Inspect question = asked(b_, [&] { supervisor_->step(); });
  EXPECT_EQ(question.trace_steps(), 3);
  send_trace(a_, part(question.request(), 0));
  send_trace(a_, part(question.request(), 1));  // not its own
  send_trace(b_, part(question.request() + 1, 1));
  proto::RankTrace broken = part(question.request(), 1);
  broken.mutable_spans(0)->set_name(7);
  send_trace(b_, broken);
  EXPECT_EQ(service.trace(id_)->state(), "recording");
  EXPECT_EQ(service.start_trace(id_, 1).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(service.trace_parts(id_).error().code(), Code::kFailedPrecondition);
  send_trace(b_, part(question.request(), 1));
  EXPECT_EQ(service.trace(id_)->state(), "complete");
  const auto parts = service.trace_parts(id_);
  ASSERT_TRUE(parts);
  ASSERT_EQ(parts->size(), 2u);
  EXPECT_EQ((*parts)[1].node(), "n2");
}

TEST_F(InspectorTest, ATraceThatWillNotBeCompleteSaysSo) {
  CoordinatorService service({*store_, *content_, clock_, "", "test", nullptr, &inspector_});
  ASSERT_TRUE(service.start_trace(id_, 1));
  const uint64_t request = asked(a_, [&] { supervisor_->step(); }).request();
  send_trace(a_, part(request, 0));
  live(31, {&a_, &b_});
  EXPECT_EQ(service.trace(id_)->state(), "incomplete");
  EXPECT_THAT(service.trace(id_)->problem(), HasSubstr("only 1 of 2 ranks"));
  EXPECT_EQ(service.trace_parts(id_)->size(), 1u) << "what there is can be had";
  ASSERT_TRUE(service.start_trace(id_, 1));
  finish(a_, id_, 1, 2, "succeeded");
  EXPECT_THAT(service.trace(id_)->problem(), HasSubstr("attempt 1 ended"));
  EXPECT_EQ(service.start_trace(id_, 1).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(service.stack(id_).error().code(), Code::kFailedPrecondition);
}

// Rank 1 is stopped, so the step of rank 0 does not end either.
TEST_F(InspectorTest, ATraceOfAStoppedRankIsEndedWithWhatThereIs) {
  CoordinatorService service({*store_, *content_, clock_, "", "test", nullptr, &inspector_});
  const auto tell = [&](FakeAgent& agent, int rank, const std::string& process, uint64_t progress) {
    agent.now.assign(1, {});
    agent.now[0].set_job(id_);
    agent.now[0].set_attempt(1);
    proto::RankNow& now = *agent.now[0].add_ranks();
    now.set_rank(rank);
    now.set_process(process);
    now.set_progress(progress);
  };
  tell(a_, 0, "sleeping", 10);
  tell(b_, 1, "stopped", 10);
  ASSERT_TRUE(service.start_trace(id_, 2));
  const uint64_t request = asked(a_, [&] { supervisor_->step(); }).request();
  live(8, {&a_, &b_});
  tell(a_, 0, "sleeping", 11);
  live(8, {&a_, &b_});
  const proto::JobTrace waiting = service.trace(id_).value();
  EXPECT_EQ(waiting.state(), "recording");
  EXPECT_GT(waiting.quiet_seconds(), 2);
  EXPECT_LT(waiting.quiet_seconds(), 8.5) << "rank 0 did something";
  ASSERT_EQ(waiting.missing_size(), 2);
  EXPECT_EQ(waiting.missing(1).rank(), 1);
  EXPECT_EQ(waiting.missing(1).node(), "n2");
  EXPECT_EQ(waiting.missing(1).problem(), "its process is stopped");
  live(7, {&b_});  // n1 is not heard of
  EXPECT_THAT(service.trace(id_)->missing(0).problem(),
              HasSubstr("nothing was heard of it for 7 s"));
  EXPECT_EQ(service.end_trace(id_)->state(), "recording") << "rank 0 is asked";
  const proto::Inspect end = asked(a_, [&] { supervisor_->step(); });
  EXPECT_TRUE(end.trace_now());
  EXPECT_EQ(end.request(), request);
  proto::RankTrace cut = part(request, 0);
  cut.set_cut(true);
  send_trace(a_, cut);
  live(4, {&a_, &b_});
  const proto::JobTrace over = service.trace(id_).value();
  EXPECT_EQ(over.state(), "incomplete");
  EXPECT_THAT(over.problem(), HasSubstr("1 of 2 ranks have sent what they had"));
  EXPECT_EQ(over.ranks_size(), 1);
  EXPECT_EQ(over.missing_size(), 2) << "of rank 0 the end";
  EXPECT_EQ(service.trace_parts(id_)->size(), 1u);
  // It went on: the whole takes the place of what was cut.
  send_trace(a_, part(request, 0));
  send_trace(b_, part(request, 1));
  EXPECT_EQ(service.trace(id_)->state(), "complete");
  EXPECT_EQ(service.end_trace(id_)->state(), "complete");
}

TEST_F(InspectorTest, ATraceThatNobodyRecordedFails) {
  CoordinatorService service({*store_, *content_, clock_, "", "test", nullptr, &inspector_});
  EXPECT_EQ(service.end_trace(id_).error().code(), Code::kNotFound);
  ASSERT_TRUE(service.start_trace(id_, 2));
  ASSERT_TRUE(service.end_trace(id_));
  live(4, {&a_, &b_});
  EXPECT_EQ(service.trace(id_)->state(), "failed");
  EXPECT_EQ(service.trace_parts(id_).error().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(service.start_trace(id_, 2));
}

// A step of 10 s: two collectives of 4 s and 1 s, the first of which is waited for in its last
// second, the second from before its beginning.
TEST(TraceSummary, HiddenIsWhatNobodyWaitedFor) {
  proto::RankTrace trace;
  for (const char* name : {"", kStepSpan, kWaitSpan, "all_reduce"}) trace.add_names(name);
  const auto add = [&](int name, Lane lane, double start, double seconds, int64_t bytes = 0) {
    proto::TraceSpan& span = *trace.add_spans();
    span.set_name(name);
    span.set_lane(static_cast<int>(lane));
    span.set_start_ns(static_cast<int64_t>(start * 1e9));
    span.set_duration_ns(static_cast<int64_t>(seconds * 1e9));
    span.set_bytes(bytes);
  };
  add(3, Lane::kCommunication, 2, 4, 100);
  add(2, Lane::kCompute, 5, 1.5);
  add(3, Lane::kCommunication, 8, 1, 20);
  add(2, Lane::kCompute, 7.5, 2);
  add(1, Lane::kCompute, 0, 10);
  add(3, Lane::kCommunication, 10.5, 1, 3);  // after the last step
  const proto::RankTraceSummary summary = summary_of(trace);
  EXPECT_DOUBLE_EQ(summary.seconds(), 10);
  EXPECT_DOUBLE_EQ(summary.compute_seconds(), 6.5);
  EXPECT_DOUBLE_EQ(summary.communication_seconds(), 5);
  EXPECT_DOUBLE_EQ(summary.hidden_share(), 0.6);
  EXPECT_EQ(summary.bytes(), 123);
  EXPECT_FALSE(summary_of(proto::RankTrace()).has_hidden_share());
}

}  // namespace
}  // namespace weft
