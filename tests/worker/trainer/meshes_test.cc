// Every mesh of 1, 2, 4 and 8 ranks trains what one rank trains: the gradients of the first step,
// and losses, norms and weights of five, up to a few times the rounding error of one rank.
#include "tests/worker/trainer/distance.h"
#include "tests/worker/trainer/topology_fixture.h"

namespace weft {
namespace {

using testing::Distance;
using testing::Trace;

constexpr double kTimes = 8;

class Meshes : public Topology {
 protected:
  static std::string usual(const std::string& settings, const char* tasks = kLm,
                           const char* model = kGpt2) {
    std::string text = job(settings, tasks, "pretrain", model);
    text.replace(text.find("reproducible: topology"), 22, "reproducible: mesh");
    return text;
  }

  void expect_one_ranks_training(const char* tasks, const char* model) {
    const std::string text = usual("batch_size: 8", tasks, model);
    const std::string in_turn = usual("batch_size: 8, micro_batch_size: 1", tasks, model);
    for (const int steps : {1, kSteps}) {
      const Trace one = run(text, {}, 0, steps);
      const Distance own = distance(one, run(in_turn, {}, 0, steps));
      EXPECT_GT(own.gradients, 0);
      for (const MeshDegrees mesh : meshes(8)) {
        Distance apart = distance(one, run(text, mesh, 0, steps));
        if (steps > 1) apart.gradients = 0;  // then moments, of weights that are apart themselves
        EXPECT_EQ(beyond(apart, own, kTimes), "") << name_of(mesh) << ", " << steps << " steps";
      }
    }
  }
};

TEST_F(Meshes, TrainWhatOneRankTrains) { expect_one_ranks_training(kLm, kGpt2); }

// Rows of different lengths, so that there is padding, too.
TEST_F(Meshes, TrainWhatOneRankTrainsOfAnEncoder) { expect_one_ranks_training(kClasses, kBert); }

// The comparison finds a gradient that is counted twice on one of eight ranks: another rate.
TEST_F(Meshes, AnotherBatchIsFound) {
  const Trace one = run(usual("batch_size: 8"), {}, 0, 1);
  const Distance own = distance(one, run(usual("batch_size: 8, micro_batch_size: 1"), {}, 0, 1));
  const Distance apart = distance(one, run(usual("batch_size: 7"), {}, 0, 1));
  EXPECT_NE(beyond(apart, own, kTimes), "");
}

}  // namespace
}  // namespace weft
