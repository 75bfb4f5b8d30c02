// What a plan counts of models whose scores have terms by distance and segment.
#include "tests/worker/planner/planner_fixture.h"

namespace weft {
namespace {

using testing::job;
using testing::plan;
using testing::Site;

// Four products more of the scores with terms by distance, of 16 features here, and one more of the
// forward pass; and 12 + 14 e bytes of each, e being 4 or 2, all of them 12 + 2 e more where blocks
// run again. A processor as fast has neither.
TEST(Planner, TermsByDistanceTakeTheirTimeOnAGpu) {
  constexpr const char* kModel =
      "n_layer: 4, n_head: 8, d_model: 128, d_inner: 256, vocab_size: 1000";
  const auto seconds = [](const std::string& training, bool gpu) {
    const proto::JobSpec spec =
        job(kModel, "batch_size: 8, micro_batch_size: 8, sequence_length: 64, " + training,
            "{tensor: 1}", "xlnet",
            "sequence_classification, labels: 3, data: {train: obj-rows, format: jsonl}");
    const proto::JobPlan found = plan(spec, {.gpu = gpu}, {1});
    EXPECT_TRUE(found.has_chosen()) << found.reason();
    EXPECT_EQ(found.chosen().device() == proto::COMPUTE_DEVICE_GPU, gpu);
    return found.chosen().compute_seconds();
  };
  const Site site;
  const double scores = 8.0 * 64 * 64 * 8 * 4;
  const auto more = [&](const std::string& training) {
    return seconds(training, true) - seconds(training, false);
  };
  const double product = scores * 16 * 2 / 0.65;
  EXPECT_NEAR(more("activation_checkpointing: none") /
                  (5 * product / site.speed.flops + scores * (12 + 14 * 4) / site.speed.memory),
              1, 1e-9);
  EXPECT_NEAR(more("precision: bf16, activation_checkpointing: full") /
                  (6 * product / site.speed.half_flops +
                   scores * (12 + 14 * 2 + 12 + 2 * 2) / site.speed.memory),
              1, 1e-9);
}

}  // namespace
}  // namespace weft
