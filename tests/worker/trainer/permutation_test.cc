// XLNet learns a language by tokens that are predicted in orders of their own: on every mesh that
// it has, level of ZeRO and kind of recomputation alike, in half precision nearly so; beside other
// tasks, and resumed.
#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kPermuted = R"(
name: permuted
kind: pretrain
model:
  family: xlnet
  config: {n_layer: 2, n_head: 3, d_model: 24, d_inner: 40, vocab_size: 257}
tokenizer: {type: byte}
tasks:
  - {name: lm, type: permutation_lm, mask_rate: 0.25,
     data: {train: obj-text, validation: obj-text, format: text}}
training:
  {steps: 40, batch_size: 5, micro_batch_size: 2, sequence_length: 20, seed: 17,
   optimizer: {type: adamw, learning_rate: 1.0e-2, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

class PermutationTrainer : public TaskTrainer {
 protected:
  PermutationTrainer() : TaskTrainer(kPermuted) {}
};

TEST_F(PermutationTrainer, EveryMeshLevelAndRecomputationHasTheSameCurve) {
  expect_one_curve_of_recomputation();
}

TEST_F(PermutationTrainer, HalfPrecisionIsNear) { expect_half_precision_is_near(); }

TEST_F(PermutationTrainer, ResumesBitForBit) { expect_resumes_bit_for_bit({9}); }

// Held-out rows have the same predictions each time, five of each row of twenty.
TEST_F(PermutationTrainer, EvaluatesLossAccuracyAndPerplexity) {
  MemoryCluster cluster;
  run(launch({}), cluster);
  const std::vector<double> loss = values(cluster, "validation_loss"),
                            perplexity = values(cluster, "validation_perplexity"),
                            accuracy = values(cluster, "validation_accuracy");
  ASSERT_EQ(loss.size(), 2U);
  ASSERT_EQ(perplexity.size(), 2U);
  ASSERT_EQ(accuracy.size(), 2U);
  EXPECT_LT(loss[1], loss[0]);
  EXPECT_GT(accuracy[1], 0);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(perplexity[i], std::exp(loss[i]), 1e-6 * perplexity[i]);
  }
}

TEST_F(PermutationTrainer, APerplexityBeyondAllNumbersIsLeftOut) {
  proto::LaunchRecord wild = launch({});
  wild.mutable_spec()->mutable_training()->mutable_optimizer()->set_learning_rate(100);
  MemoryCluster cluster;
  run(wild, cluster);
  const std::vector<double> loss = values(cluster, "validation_loss"),
                            perplexity = values(cluster, "validation_perplexity");
  ASSERT_EQ(loss.size(), 2U);
  const auto told =
      std::ranges::count_if(loss, [](double each) { return std::isfinite(std::exp(each)); });
  EXPECT_LT(told, 2) << "a loss beyond 709 is looked for; they are " << loss[0] << " and "
                     << loss[1];
  EXPECT_EQ(std::ssize(perplexity), told);
  const auto& results = cluster.finishes.back().results();
  EXPECT_EQ(results.at("lm.validation_loss"), loss[1]);
  EXPECT_EQ(results.contains("lm.validation_perplexity"), std::isfinite(std::exp(loss[1])));
}

TEST_F(PermutationTrainer, LearnsBesideAClassification) {
  proto::LaunchRecord both = launch({2, 1, 1}, 3);
  proto::JobSpec& spec = *both.mutable_spec();
  spec.set_kind(proto::JOB_KIND_MULTI_TASK);
  proto::TaskSpec& classes = *spec.add_tasks();
  classes = spec.tasks(0);
  classes.clear_mask_rate();
  classes.set_name("kind");
  classes.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  classes.set_labels(3);
  for (std::string* of :
       {classes.mutable_data()->mutable_train(), classes.mutable_data()->mutable_validation()}) {
    *of = "obj-rows";
  }
  classes.mutable_data()->set_format(proto::DATA_FORMAT_JSONL);
  classes.mutable_data()->set_text("text");
  classes.mutable_data()->set_label("label");
  MemoryCluster cluster;
  run(both, cluster);
  for (const char* task : {"lm", "kind"}) {
    const std::vector<double> held_out = values(cluster, "validation_loss", task);
    ASSERT_EQ(held_out.size(), 2U) << task;
    EXPECT_LT(held_out[1], held_out[0]) << task;
  }
}

}  // namespace
}  // namespace weft
