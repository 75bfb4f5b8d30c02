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

proto::AttemptExit exit_of(const std::string& node, int code, const std::string& message) {
  proto::AttemptExit exit;
  exit.set_node(node);
  exit.set_exit_code(code);
  exit.set_message(message);
  return exit;
}

TEST(AttemptEnd, WhoKnowsAReasonTellsIt) {
  auto head = exit_of("a", 205, "");
  head.set_head(true);
  const auto other = exit_of("b", 137, "the shepherd on b was killed by signal 9 (Killed)");
  EXPECT_EQ(cause_of({head, other}).message, other.message());
  EXPECT_TRUE(cause_of({head, other}).retryable);
  EXPECT_EQ(cause_of({head, exit_of("b", 0, "")}).message,
            "mpirun on a ended with exit code 205 and no reason; see its log");
  head.set_message("rank 0 on a was killed by signal 9 (Killed)");
  EXPECT_EQ(cause_of({head, other}).message, head.message());
  EXPECT_EQ(cause_of({exit_of("a", 0, "")}).message,
            "the ranks ended without saying that training is over");
}

TEST(AttemptEnd, DamagedInputsOfAnyNodeArePermanent) {
  auto bad = exit_of("b", 1, "staging object obj-1: a.txt: chunk 12 has other bytes");
  bad.set_permanent(true);
  const EndCause cause = cause_of({exit_of("a", 137, "the agent was told to end"), bad});
  EXPECT_FALSE(cause.retryable);
  EXPECT_EQ(cause.message, bad.message());
  JobEdit edit = running(0, 5);
  end_attempt(edit, cause, {}, 1000);
  EXPECT_EQ(edit.job.state(), proto::JOB_STATE_FAILED);
}

TEST(AttemptEnd, AKillForLackOfMemoryIsPermanent) {
  const auto head = exit_of("a", 137, "rank 1 on b was killed by signal 9 (Killed)");
  auto other = exit_of("b", 1, "");
  EXPECT_TRUE(cause_of({head, other}).retryable) << "somebody killed it";
  other.set_out_of_memory(true);
  const EndCause cause = cause_of({head, other});
  EXPECT_FALSE(cause.retryable);
  EXPECT_TRUE(cause.message.starts_with("out of memory: rank 1 on b was killed")) << cause.message;
  EXPECT_NE(cause.message.find("training.micro_batch_size"), std::string::npos);
  EXPECT_TRUE(cause_of({exit_of("a", 1, "rank 1 on b exited with code 1"), other}).retryable)
      << "it was another process that was killed";
  auto planned = head;
  planned.set_planned(true);
  EXPECT_TRUE(cause_of({planned, other}).planned);
}

}  // namespace
}  // namespace weft
