#include "coordinator/launcher/attempt_end.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

JobEdit running(int restarts, int max_restarts) {
  JobEdit edit;
  edit.job.set_state(proto::JOB_STATE_RUNNING);
  edit.job.set_attempt(2);
  edit.job.set_restarts(restarts);
  edit.job.mutable_spec()->set_max_restarts(max_restarts);
  return edit;
}

TEST(AttemptEnd, AFailureCostsARestartAndWaits) {
  JobEdit edit = running(1, 2);
  end_attempt(edit, {"rank 1 exited on signal 9"}, {}, 1000);
  EXPECT_EQ(edit.job.state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(edit.job.restarts(), 2);
  EXPECT_GT(edit.job.eligible_ms(), 1000);
  edit.job.set_state(proto::JOB_STATE_RUNNING);
  end_attempt(edit, {"rank 1 exited on signal 9"}, {}, 2000);
  EXPECT_EQ(edit.job.state(), proto::JOB_STATE_FAILED);
}

TEST(AttemptEnd, APlannedStopCostsNothing) {
  JobEdit edit = running(2, 2);
  end_attempt(edit, {"the agent was told to end", true, true}, {}, 1000);
  EXPECT_EQ(edit.job.state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(edit.job.restarts(), 2);
  EXPECT_LE(edit.job.eligible_ms(), 1000);
  ASSERT_EQ(edit.events.size(), 1U);
  EXPECT_EQ(edit.events[0].type(), "queued");
}

TEST(AttemptEnd, APlannedStopStillEndsWhatWasBeingCancelled) {
  JobEdit edit = running(0, 2);
  edit.job.set_state(proto::JOB_STATE_CANCELLING);
  end_attempt(edit, {"the agent was told to end", true, true}, {}, 1000);
  EXPECT_EQ(edit.job.state(), proto::JOB_STATE_CANCELLED);
}

}  // namespace
}  // namespace weft
