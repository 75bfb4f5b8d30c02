// Jobs that go on, on their own mesh and on others.
#include <fmt/format.h>

#include "tests/coordinator/service/service_fixture.h"

namespace weft {
namespace {

using testing::HasSubstr;

class ResumeTest : public ServiceTest {
 protected:
  using ServiceTest::ServiceTest;

  proto::JobEvent last_event(const std::string& id) {
    return service_.events(id, 0, 100).value().items.back();
  }
  // Refused with this field and a rule that has `rule` in it; the job is as it was.
  void expect_refused(const std::string& id, const std::string& change, const std::string& field,
                      const std::string& rule) {
    const std::string before = write_json(*service_.job(id));
    const auto job = resume(id, change);
    ASSERT_FALSE(job) << change;
    EXPECT_EQ(job.error().field(), field) << job.error().to_string();
    EXPECT_THAT(job.error().to_string(), HasSubstr(rule));
    EXPECT_EQ(write_json(*service_.job(id)), before) << change;
  }
};

TEST_F(ResumeTest, APausedJobGoesOnOnAnotherMesh) {
  join("a", 4);
  const std::string id = submit_with(R"({"tensor": 2, "zero": 0, "bucket_bytes": 65536})");
  ASSERT_TRUE(service_.pause(id));
  const auto job = resume(id, R"({"parallel": {"data": 4, "zero": 1}})");
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_EQ(job->state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(job->spec().parallel().data(), 4);
  EXPECT_EQ(job->spec().parallel().tensor(), 1);
  EXPECT_EQ(job->spec().resources().slots(), 4);
  EXPECT_EQ(job->spec().training().batch_size(), 8);
  EXPECT_EQ(job->spec().training().micro_batch_size(), 2) << "rows of a rank, of 8 before";
  EXPECT_GT(job->rank_memory().host_bytes(), 0);
  const proto::JobEvent event = last_event(id);
  EXPECT_THAT(event.message(),
              HasSubstr("on data 4 x sequence 1 x tensor 1, zero 1 instead of data "
                        "1 x sequence 1 x tensor 2; the loss curve goes on to 1e-4"));
  EXPECT_EQ(event.data().at("mesh_before"), "data 1 x sequence 1 x tensor 2");
  // Said again it changes nothing, in the queue or once it runs; another mesh has to wait then.
  const int64_t events = event.sequence();
  ASSERT_TRUE(resume(id, R"({"parallel": {"data": 4, "zero": 1}})"));
  set_state(id, proto::JOB_STATE_RUNNING);
  ASSERT_TRUE(resume(id, R"({"parallel": {"data": 4, "zero": 1}})"));
  EXPECT_EQ(last_event(id).sequence(), events);
  expect_refused(id, R"({"parallel": {"data": 2}})", "state", "pause it before");
  set_state(id, proto::JOB_STATE_CANCELLED);
  expect_refused(id, R"({"parallel": {"data": 2}})", "state", "only a paused or failed job");
}

TEST_F(ResumeTest, AMeshSaysWhatItsAttentionIs) {
  join("a", 4);
  const std::string id = submit_with(R"({"sequence": 2})");
  EXPECT_EQ(service_.job(id)->spec().parallel().sequence_attention(),
            proto::SEQUENCE_ATTENTION_ULYSSES);
  ASSERT_TRUE(service_.pause(id));
  ASSERT_TRUE(resume(id, R"({"parallel": {"sequence": 2, "sequence_attention": "ring"}})"));
  EXPECT_THAT(last_event(id).message(),
              HasSubstr("on data 1 x sequence 2 (ring) x tensor 1 instead "
                        "of data 1 x sequence 2 (ulysses) x tensor 1"));
}

TEST_F(ResumeTest, ARefusalSaysWhatElseCanBeDone) {
  const std::string id = submit();
  set_state(id, proto::JOB_STATE_PAUSING);
  expect_refused(id, "{}", "state", "wait until it is paused");
  ASSERT_TRUE(store_->edit_job(id, [](JobEdit& edit) {
    edit.job.set_state(proto::JOB_STATE_SUCCEEDED);
    edit.job.set_checkpoint("ckpt-1");
    return Status();
  }));
  expect_refused(id, "{}", "state", "from its weights with model.from: ckpt-1");
}

TEST_F(ResumeTest, AFailedJobIsQueuedAgain) {
  const std::string id = submit();
  ASSERT_TRUE(store_->edit_job(id, [](JobEdit& edit) {
    edit.job.set_state(proto::JOB_STATE_FAILED);
    edit.job.set_finished_ms(5);
    edit.job.set_restarts(5);
    edit.job.set_time_limit_reached(true);
    edit.job.set_checkpoint("ckpt-1");
    return Status();
  }));
  const auto job = resume(id);
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_EQ(job->state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(job->finished_ms(), 0);
  EXPECT_EQ(job->restarts(), 0);
  EXPECT_FALSE(job->time_limit_reached());
  EXPECT_EQ(last_event(id).message(), "resumed by request, from ckpt-1");
}

TEST_F(ResumeTest, WhatSubmissionRefusesIsRefused) {
  join("a", 2, int64_t{2} << 30);
  const std::string id = submit_with(R"({"tensor": 2})", R"({"batch_size": 2})");
  ASSERT_TRUE(service_.pause(id));
  expect_refused(id, R"({"parallel": {"data": 3}})", "parallel.data",
                 "must be at most training.batch_size = 2");
  expect_refused(id, R"({"parallel": {"data": 0}})", "parallel.data",
                 "must be between 1 and 65536");
  expect_refused(id, R"({"parallel": {"tensor": 3}})", "parallel.tensor", "3");
  expect_refused(id, R"({"parallel": {"data": 2, "tensor": 2}})", "parallel", "4");
  expect_refused(id, R"({"resources": {"slots": 1}})", "resources.slots",
                 "must be parallel.data x parallel.sequence x parallel.tensor = 2");
  expect_refused(id, R"({"resources": {"nodes": 2}})", "resources.nodes", "2");
  expect_refused(id, R"({"parallel": {"mode": "auto", "data": 2}})", "parallel.data",
                 "cannot stand beside parallel: auto");
  EXPECT_EQ(resume("job-none", R"({"parallel": {"data": 2}})").error().code(), Code::kNotFound);
}

TEST_F(ResumeTest, ResourcesAloneKeepTheMesh) {
  join("a", 2);
  join("b", 2);
  const std::string id = submit_with(R"({"tensor": 2})");
  const auto job = resume(id, R"({"resources": {"nodes": 2, "threads_per_slot": 3}})");
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_EQ(job->spec().resources().nodes(), 2);
  EXPECT_EQ(job->spec().resources().slots(), 2);
  EXPECT_EQ(job->spec().parallel().tensor(), 2);
  EXPECT_THAT(last_event(id).message(), HasSubstr("with other resources"));
}

// A job that waits for a node that is gone takes what is left.
TEST_F(ResumeTest, AutoChoosesAnewOnTheNodesThatThereAre) {
  join("a", 2, int64_t{8} << 30);
  join("b", 2, int64_t{8} << 30);
  const std::string id = submit_with(R"({"data": 2, "tensor": 2})", R"({"micro_batch_size": 1})");
  proto::NodeInfo lost = store_->nodes()[1];
  lost.set_state(proto::NODE_STATE_LOST);
  ASSERT_TRUE(store_->put_node(lost, true).ok());
  const auto job = resume(id, R"({"parallel": "auto"})");
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_LE(job->spec().resources().slots(), 2);
  EXPECT_EQ(job->spec().parallel().mode(), proto::PARALLEL_MODE_UNSPECIFIED);
  EXPECT_EQ(job->plan().chosen().slots(), job->spec().resources().slots());
  EXPECT_GT(job->spec().training().micro_batch_size(), 1) << "chosen anew, too";
  EXPECT_EQ(last_event(id).type(), "planned");
  // A mesh of one's own after it: nothing is planned any more.
  const auto own = resume(id, R"({"parallel": {"tensor": 2}})");
  ASSERT_TRUE(own) << own.error().to_string();
  EXPECT_FALSE(own->has_plan());
}

TEST_F(ResumeTest, TopologyInvariantTrainingKeepsItsRowsAtOnce) {
  join("a", 8);
  const std::string topology = R"({"reproducible": "topology", "micro_batch_size": 2})";
  const std::string id = submit_with(R"({"data": 2})", topology);
  ASSERT_TRUE(service_.pause(id));
  expect_refused(id, R"({"parallel": {"data": 8}})", "parallel.data",
                 "must divide the rows at once, training.micro_batch_size x parallel.data = 4");
  auto job = resume(id, R"({"parallel": {"data": 4}})");
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_EQ(job->spec().training().micro_batch_size(), 1);
  EXPECT_THAT(last_event(id).message(), HasSubstr("the loss curve goes on bit for bit"));
  job = resume(id, R"({"parallel": {"tensor": 2}})");
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_EQ(job->spec().training().micro_batch_size(), 4);
  for (const int slots : {1, 2, 4, 8}) {
    job = resume(id, fmt::format(R"({{"parallel": "auto", "resources": {{"slots": {}}}}})", slots));
    if (!job) continue;  // no mesh of so many keeps them
    EXPECT_EQ(job->spec().training().micro_batch_size() * job->spec().parallel().data(), 4);
  }
  EXPECT_EQ(job->spec().resources().slots(), 8);
}

// The coordinator ends in the moment of a write: before it, or after it and before the answer.
class DyingDisk final : public KeyValue {
 public:
  enum class Death { kNone, kBefore, kAfter };
  struct Shared {
    std::unique_ptr<KeyValue> bytes = make_memory_key_value();
    Death death = Death::kNone;
  };
  explicit DyingDisk(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  Status write(const WriteSet& set) override {
    const Status died(Code::kUnavailable, "the coordinator has died");
    if (shared_->death == Death::kBefore) return died;
    const Status status = shared_->bytes->write(set);
    return shared_->death == Death::kAfter ? died : status;
  }
  Result<std::optional<std::string>> get(const std::string& key) const override {
    return shared_->bytes->get(key);
  }
  Status scan(const std::string& from, const std::string& to,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    return shared_->bytes->scan(from, to, visit);
  }
  Result<std::optional<std::pair<std::string, std::string>>> last(
      const std::string& from, const std::string& to) const override {
    return shared_->bytes->last(from, to);
  }

 private:
  std::shared_ptr<Shared> shared_;
};

class DyingTest : public ResumeTest {
 protected:
  DyingTest() : DyingTest(std::make_shared<DyingDisk::Shared>()) {}
  explicit DyingTest(const std::shared_ptr<DyingDisk::Shared>& disk)
      : ResumeTest(std::make_unique<DyingDisk>(disk)), disk_(disk) {}

  // What a coordinator that is started again says of the job, and to the same request again.
  void resume_over(DyingDisk::Death death, int data_afterwards) {
    const std::string id = submit_with(R"({"tensor": 2})");
    ASSERT_TRUE(service_.pause(id));
    disk_->death = death;
    EXPECT_FALSE(resume(id, R"({"parallel": {"data": 2}})")) << "nothing is acknowledged";
    disk_->death = DyingDisk::Death::kNone;
    const auto store = JobStore::open(std::make_unique<DyingDisk>(disk_), clock_).value();
    Content content(chunks_, *store, clock_);
    CoordinatorService again({*store, content, clock_, "", "test"});
    EXPECT_EQ(again.job(id)->spec().parallel().data(), data_afterwards);
    EXPECT_EQ(again.job(id)->state(),
              data_afterwards == 2 ? proto::JOB_STATE_QUEUED : proto::JOB_STATE_PAUSED);
    proto::ResumeRequest change;
    change.mutable_parallel()->set_data(2);
    for (int i = 0; i < 2; ++i) {
      const auto job = again.resume(id, change);
      ASSERT_TRUE(job) << job.error().to_string();
      EXPECT_EQ(job->spec().parallel().data(), 2);
      EXPECT_EQ(job->state(), proto::JOB_STATE_QUEUED);
    }
    const auto events = again.events(id, 0, 100).value().items;
    EXPECT_EQ(std::ranges::count(events, "queued", [](const auto& e) { return e.type(); }), 1);
  }

  std::shared_ptr<DyingDisk::Shared> disk_;
};

TEST_F(DyingTest, AnAnswerThatWasLostIsGivenAgain) { resume_over(DyingDisk::Death::kAfter, 2); }
TEST_F(DyingTest, WhatWasNotWrittenIsNotDone) { resume_over(DyingDisk::Death::kBefore, 1); }

}  // namespace
}  // namespace weft
