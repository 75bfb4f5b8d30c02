// Traces of a training over ranks that are threads, and the clocks' offsets.
#include <gmock/gmock.h>

#include <algorithm>

#include "cluster/comm/watched_communicator.h"
#include "proto/base/activity.h"
#include "tests/testing/late_communicator.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/clock_offset.h"
#include "worker/trace_message.h"

namespace weft {
namespace {

// Asks for a trace, on its rank, before the first step.
class Tracing final : public Progress {
 public:
  Tracing(MemoryCluster& cluster, int steps) : inner_(cluster) {
    request_.emplace();
    request_->set_request(5);
    request_->set_trace_steps(steps);
  }
  Status send(proto::RankEnvelope message) override { return inner_.send(std::move(message)); }
  Status flush() override { return inner_.flush(); }
  std::optional<proto::Control> take_control() override { return inner_.take_control(); }
  Status put_chunk(const std::string& hash, std::string_view bytes) override {
    return inner_.put_chunk(hash, bytes);
  }
  Result<std::string> get_chunk(const std::string& hash) override { return inner_.get_chunk(hash); }
  std::optional<proto::Inspect> take_trace_request() override {
    return std::exchange(request_, std::nullopt);
  }
  void send_trace(proto::RankTrace trace) override { traces.push_back(std::move(trace)); }

  std::vector<proto::RankTrace> traces;

 private:
  MemoryProgress inner_;
  std::optional<proto::Inspect> request_;
};

struct Interval {
  int64_t start, end;
};

class TraceTest : public Trainer {
 protected:
  // The traces of all ranks, by rank.
  std::vector<proto::RankTrace> traces(const proto::LaunchRecord& record, int steps) {
    const proto::ParallelSpec& mesh = record.spec().parallel();
    const MeshDegrees degrees{mesh.data(), mesh.sequence(), mesh.tensor()};
    std::vector<proto::RankTrace> found(static_cast<size_t>(degrees.world()));
    MemoryCluster cluster;
    testing::run_mesh(degrees, [&](Rank& outer) {
      Communicator& world = outer.mesh.axis(Axis::kWorld);
      const int number = world.rank();
      Activity activity;
      auto watched =
          comm::watched(testing::prompt(world.split(0, number)), activity, {.compare = true});
      Rank rank{make_caching_allocator(), std::make_unique<ThreadPool>(1),
                std::move(*Mesh::create(std::move(watched), degrees)), Logger()};
      rank.activity = &activity;
      Tracing progress(cluster, steps);
      const Status status = run_training(rank, record, progress);
      if (!status.ok()) throw StatusError(status);
      EXPECT_EQ(activity.now().phase, nullptr);
      ASSERT_EQ(progress.traces.size(), 1u);
      found[static_cast<size_t>(number)] = std::move(progress.traces[0]);
    });
    return found;
  }
  static std::vector<Interval> spans(const proto::RankTrace& trace, Lane lane,
                                     const std::string& name, const std::string& detail = "") {
    std::vector<Interval> found;
    for (const proto::TraceSpan& span : trace.spans()) {
      if (span.lane() != static_cast<int>(lane) || trace.names(span.name()) != name) continue;
      if (!detail.empty() && trace.names(span.detail()) != detail) continue;
      found.push_back({span.start_ns(), span.start_ns() + span.duration_ns()});
    }
    return found;
  }
};

TEST_F(TraceTest, HasEveryLayerAndCollectiveOfItsSteps) {
  const auto all = traces(record(kTwoTasks, {.data = 2, .tensor = 2}), 4);
  for (const proto::RankTrace& trace : all) {
    EXPECT_EQ(trace.request(), 5u);
    EXPECT_EQ(trace.first_step(), 1);
    EXPECT_EQ(trace.steps(), 4);
    EXPECT_FALSE(trace.truncated());
    EXPECT_EQ(trace.clock_offset_ns(), 0);  // one clock
    EXPECT_EQ(spans(trace, Lane::kCompute, kStepSpan).size(), 4u);
    EXPECT_EQ(spans(trace, Lane::kCompute, "optimizer").size(), 4u);
    // Rows of data index 0: 3 of 5 in two micro-batches; of index 1: 2 in one.
    const auto forwards = spans(trace, Lane::kCompute, "forward").size();
    EXPECT_GE(forwards, 4u);
    EXPECT_EQ(spans(trace, Lane::kCompute, "layer", "forward").size(), 2 * forwards);
    EXPECT_EQ(spans(trace, Lane::kCompute, "layer", "backward").size(), 2 * forwards);
    EXPECT_GT(spans(trace, Lane::kCommunication, "all_gather", "tensor").size(), 8u);
    EXPECT_EQ(spans(trace, Lane::kCommunication, "reduce_scatter", "replica").size(),
              spans(all[0], Lane::kCommunication, "reduce_scatter", "replica").size());
    for (const proto::TraceSpan& span : trace.spans()) {
      EXPECT_GE(span.duration_ns(), 0);
      EXPECT_GE(span.bytes(), 0);
    }
  }
}

TEST_F(TraceTest, EndsWithTheTrainingAndHasItsCheckpoint) {
  proto::LaunchRecord short_one = record(kTwoTasks, {.data = 2});
  short_one.mutable_spec()->mutable_training()->set_steps(8);
  for (const proto::RankTrace& trace : traces(short_one, 1000)) {
    EXPECT_EQ(trace.steps(), 8);
    EXPECT_GE(spans(trace, Lane::kCompute, "checkpoint").size(), 1u);
    EXPECT_TRUE(std::ranges::any_of(trace.spans(), [&](const proto::TraceSpan& span) {
      return trace.names(span.name()) == "chunk" && span.lane() >= static_cast<int>(Lane::kStorage);
    }));  // by any of the threads
    EXPECT_GE(spans(trace, Lane::kCompute, "evaluation").size(), 1u);
  }
}

// Gradients of a deep model in small buckets are under way while the backward pass goes on.
TEST_F(TraceTest, ShowsCommunicationBesideTheBackwardPass) {
  proto::LaunchRecord deep = record(kTwoTasks, {.data = 2});
  deep.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
  for (const proto::RankTrace& trace : traces(deep, 10)) {
    bool beside = false;
    for (const Interval& sum : spans(trace, Lane::kCommunication, "reduce_scatter", "replica")) {
      for (const Interval& layer : spans(trace, Lane::kCompute, "layer", "backward")) {
        beside = beside || (sum.start < layer.end && layer.start < sum.end);
      }
    }
    EXPECT_TRUE(beside);
  }
}

// The sum of the first attention's matrix is no more bytes than the rows at level 1, twice as many
// at level 0: once a step its layer is come back to, behind all others.
TEST_F(TraceTest, ShowsAWeightGradientThatIsPutOff) {
  for (const int zero : {0, 1}) {
    proto::LaunchRecord deep = record(kTwoTasks, {.data = 2});
    deep.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    deep.mutable_spec()->mutable_parallel()->set_zero(zero);
    for (const proto::RankTrace& trace : traces(deep, 4)) {
      const size_t passes = spans(trace, Lane::kCompute, "backward").size();
      EXPECT_EQ(spans(trace, Lane::kCompute, "layer", "backward").size(),
                2 * passes + 4 * static_cast<size_t>(zero));
    }
  }
}

// Keys that are not there yet hold up a rank of a ring, which its trace tells as a wait beside
// their transfer.
TEST_F(TraceTest, TellsTheWaitsOfARing) {
  proto::LaunchRecord ring = record(kTwoTasks, {.sequence = 2});
  ring.mutable_spec()->mutable_parallel()->set_sequence_attention(proto::SEQUENCE_ATTENTION_RING);
  for (const proto::RankTrace& trace : traces(ring, 30)) {
    const auto transfers = spans(trace, Lane::kCommunication, "send_receive", "ring");
    ASSERT_FALSE(transfers.empty());
    for (const char* phase : {"forward", "backward"}) {
      bool waited = false;
      for (const Interval& wait : spans(trace, Lane::kCompute, kWaitSpan, phase)) {
        for (const Interval& transfer : transfers) {
          waited = waited || (wait.start < transfer.end && transfer.start < wait.end);
        }
      }
      EXPECT_TRUE(waited) << "rank " << trace.rank() << ", " << phase;
    }
  }
}

TEST(ClockOffset, IsWithinItsErrorOfTheTruth) {
  testing::run_ranks(3, [](Rank& rank) {
    const int64_t apart = int64_t{rank.mesh.index(Axis::kWorld)} * 7'000'000'000;
    const ClockOffset found = measure_clock(rank, [&] { return Activity::clock_ns() + apart; });
    EXPECT_GE(found.error_ns, 0);
    EXPECT_LE(std::abs(found.offset_ns - apart), found.error_ns);
    EXPECT_LT(found.error_ns, 1'000'000'000);
    EXPECT_EQ(measure_clock(rank).offset_ns, 0);  // one machine, one clock
  });
}

TEST(TraceSoFar, EndsInTheCollectiveThatTheRankIsIn) {
  Activity activity;
  EXPECT_FALSE(trace_so_far(activity, 0));
  activity.start_recording({.request = 5, .first_step = 7, .clock_offset_ns = 3});
  { const Activity::Recorded step(&activity, Lane::kCompute, kStepSpan, 7); }
  {
    CollectiveCall call;
    call.name = "all_reduce";
    call.group = std::make_shared<RankGroup>();
    call.bytes = 64;
    const Activity::Collective waits(activity, call);
    const auto trace = trace_so_far(activity, 5);
    ASSERT_TRUE(trace);
    EXPECT_TRUE(trace->cut());
    EXPECT_EQ(trace->first_step(), 7);
    EXPECT_EQ(trace->steps(), 1);
    EXPECT_EQ(trace->clock_offset_ns(), 3);
    ASSERT_EQ(trace->spans_size(), 2);
    EXPECT_EQ(trace->names(trace->spans(1).name()), "all_reduce");
    EXPECT_EQ(trace->spans(1).bytes(), 64);
    EXPECT_FALSE(trace_so_far(activity, 6)) << "another's request";
  }
  EXPECT_EQ(activity.take_recording().spans.size(), 2u) << "it goes on";
  EXPECT_FALSE(trace_so_far(activity, 5));
}

}  // namespace
}  // namespace weft
