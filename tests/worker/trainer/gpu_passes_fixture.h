// Steps whose passes are recorded on a GPU or not, and what came of them, to be compared.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {

class GpuPasses : public Trainer {
 protected:
  struct Outcome {
    std::vector<double> losses, norms;
    std::vector<std::vector<float>> weights;
    RecordedPasses::Counts counts;
  };
  // Of rank 0, the tasks in turn; `between` is called before each step.
  Outcome train(const proto::LaunchRecord& launch, int steps, bool recorded, const PlaceRank& place,
                const std::function<void(Training&, Rank&, int)>& between = {}) {
    Outcome outcome;
    on_ranks(
        launch,
        [&](Rank& rank, const auto& spec, Training& training) {
          if (!recorded) training.passes.reset();
          Outcome mine;
          for (int step = 0; step < steps; ++step) {
            if (between) between(training, rank, step);
            TrainingTask& task = training.tasks[static_cast<size_t>(step) % training.tasks.size()];
            const StepResult result = run_step(rank, spec, training, task, 3e-3);
            training.state.set_step(step + 1);
            mine.losses.push_back(result.loss);
            mine.norms.push_back(result.gradient_norm);
          }
          for (const AdamW::State& state : training.optimizer->states()) {
            mine.weights.push_back(state.master.to_vector());
          }
          if (training.passes) mine.counts = training.passes->counts();
          if (rank.mesh.index(Axis::kWorld) == 0) outcome = std::move(mine);
        },
        place);
    return outcome;
  }
  static void expect_same(const Outcome& a, const Outcome& b) {
    EXPECT_EQ(a.losses, b.losses);
    EXPECT_EQ(a.norms, b.norms);
    EXPECT_EQ(a.weights, b.weights);
  }
};

}  // namespace weft
