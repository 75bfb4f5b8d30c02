// How often and how soon a job that fails is started again, on simulated time.
#include <gmock/gmock.h>

#include "tests/coordinator/launcher/fake_agent.h"

namespace weft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RestartsTest : public SupervisorTest {
 protected:
  void SetUp() override { agent_.connect(*supervisor_); }
  // Its launcher dies; returns the seconds until it is eligible again.
  double fail(const std::string& id) {
    agent_.exit(ref(id, job(id).attempt()), 137, "killed");
    step();
    return static_cast<double>(job(id).eligible_ms() - clock_.wall_ms()) / 1000;
  }
  void come_back(const std::string& id) {
    const int attempt = job(id).attempt();
    while (job(id).state() == proto::JOB_STATE_QUEUED) live(1, {&agent_});
    ASSERT_EQ(job(id).attempt(), attempt + 1);
    bring_up(id, attempt + 1, {&agent_});
  }
  void checkpoint(const std::string& id, uint64_t sequence, int64_t at_step) {
    const std::string bytes = "weights of " + std::to_string(at_step);
    ASSERT_TRUE(content_->put_chunk(sha256_hex(bytes), bytes).ok());
    agent_.rank(commit(id, job(id).attempt(), sequence, bytes, at_step));
    step();
    ASSERT_EQ(last_event(id), "checkpoint");
  }
  FakeAgent agent_{"n1", 1};
};

TEST_F(RestartsTest, TheWaitDoublesWithoutProgressAndStartsAgainAfterACheckpoint) {
  const std::string id = submit(1, 0, 5);
  bring_up(id, 1, {&agent_});
  std::vector<double> waits;
  for (int i = 0; i < 3; ++i) {
    waits.push_back(fail(id));
    come_back(id);
  }
  EXPECT_EQ(job(id).restarts(), 3);
  checkpoint(id, 2, 10);
  EXPECT_EQ(job(id).restarts(), 0);
  for (int i = 0; i < 2; ++i) {
    waits.push_back(fail(id));
    come_back(id);
  }
  EXPECT_THAT(waits, ElementsAre(2, 4, 8, 2, 4));
}

TEST_F(RestartsTest, AnyNumberOfFailuresFarApartEndsNoJob) {
  const std::string id = submit(1, 0, 1);
  bring_up(id, 1, {&agent_});
  for (int i = 1; i <= 6; ++i) {
    checkpoint(id, 2, 10 * i);
    EXPECT_EQ(fail(id), 2);
    come_back(id);
  }
  EXPECT_EQ(job(id).restarts(), 1);
  fail(id);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_FAILED) << "twice since the last checkpoint";
}

// A job that fails at the same place ends, though each attempt writes the same checkpoint again.
TEST_F(RestartsTest, ACheckpointThatGoesNoFurtherIsNoProgress) {
  const std::string id = submit(1, 0, 2);
  bring_up(id, 1, {&agent_});
  checkpoint(id, 2, 10);
  for (int i = 0; i < 2; ++i) {
    fail(id);
    come_back(id);
    checkpoint(id, 2, 10);
  }
  EXPECT_EQ(job(id).restarts(), 2);
  fail(id);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_FAILED);
  EXPECT_THAT(job(id).reason(), HasSubstr("max_restarts (2) is used up"));
}

// Without checkpoints only the wait starts again: max_restarts still ends a job that never gets
// further.
TEST_F(RestartsTest, AnAttemptThatTrainedForLongWaitsOnlyShortly) {
  const std::string id = submit(1, 0, 3);
  bring_up(id, 1, {&agent_});
  EXPECT_EQ(fail(id), 2);
  come_back(id);
  EXPECT_EQ(fail(id), 4);
  come_back(id);
  live(301, {&agent_});
  EXPECT_EQ(fail(id), 2);
  EXPECT_EQ(job(id).restarts(), 3);
  come_back(id);
  live(301, {&agent_});
  fail(id);
  EXPECT_EQ(job(id).state(), proto::JOB_STATE_FAILED);
}

}  // namespace
}  // namespace weft
