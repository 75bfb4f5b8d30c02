#include "coordinator/scheduler/applier.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

class ApplierTest : public testing::Test {
 protected:
  void submit(const std::string& id) {
    JobEdit edit;
    edit.job.set_id(id);
    edit.job.set_state(proto::JOB_STATE_QUEUED);
    ASSERT_TRUE(store_->create_job(edit));
  }
  Result<proto::Job> start(const std::string& id, int attempt, std::vector<int> slots) {
    return apply_start(*store_, {id, attempt, {{"n1", slots}}}, clock_);
  }
  SimulatedClock clock_{1000};
  std::unique_ptr<JobStore> store_ = JobStore::open(make_memory_key_value(), clock_).value();
};

TEST_F(ApplierTest, StartsOnceAndWithTheEvent) {
  submit("job-1");
  const auto job = start("job-1", 0, {0, 1});
  ASSERT_TRUE(job);
  EXPECT_EQ(job->attempt(), 1);
  EXPECT_EQ(job->state(), proto::JOB_STATE_STARTING);
  EXPECT_EQ(store_->events("job-1", 0, 9).value().at(0).type(), "starting");
  EXPECT_EQ(start("job-1", 0, {0, 1}).error().code(), Code::kStale);
}

TEST_F(ApplierTest, RefusesSlotsThatAnActiveJobHolds) {
  submit("job-1");
  submit("job-2");
  ASSERT_TRUE(start("job-1", 0, {0, 1}));
  EXPECT_EQ(start("job-2", 0, {1, 2}).error().code(), Code::kStale);
  EXPECT_EQ(store_->job("job-2").value().attempt(), 0);
  EXPECT_TRUE(start("job-2", 0, {2, 3}));
}

TEST_F(ApplierTest, RefusesAGangThatTheJobNoLongerAsksFor) {
  submit("job-1");
  ASSERT_TRUE(store_->edit_job("job-1", [](JobEdit& edit) {
    edit.job.mutable_spec()->mutable_resources()->set_slots(2);
    return Status();
  }));
  EXPECT_EQ(start("job-1", 0, {0}).error().code(), Code::kStale);
  const PlannedStart two{"job-1", 0, {{"n1", {0, 1}}}, {.slots = 2}};
  EXPECT_TRUE(apply_start(*store_, two, clock_));
}

TEST_F(ApplierTest, RefusesAnotherAttemptAndABackOff) {
  submit("job-1");
  EXPECT_EQ(start("job-1", 1, {0}).error().code(), Code::kStale);
  ASSERT_TRUE(store_->edit_job("job-1", [](JobEdit& edit) {
    edit.job.set_eligible_ms(1500);
    return Status();
  }));
  EXPECT_EQ(start("job-1", 0, {0}).error().code(), Code::kStale);
  clock_.advance(std::chrono::seconds(1));
  EXPECT_TRUE(start("job-1", 0, {0}));
}

}  // namespace
}  // namespace weft
