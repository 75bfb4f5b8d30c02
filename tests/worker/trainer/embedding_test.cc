// An encoder that learns embeddings: on every mesh and level of ZeRO alike, in evaluations too,
// whose last batch leaves ranks without rows.
#include <cmath>

#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kPairs = R"(
name: pairs
kind: pretrain
model:
  family: bert
  config: {num_hidden_layers: 2, num_attention_heads: 3, hidden_size: 24, intermediate_size: 40,
           max_position_embeddings: 32, vocab_size: 257, hidden_dropout_prob: 0.0,
           attention_probs_dropout_prob: 0.0}
tokenizer: {type: byte}
tasks:
  - {name: near, type: embedding,
     data: {train: obj-pairs, validation: obj-pairs, format: jsonl}}
training:
  {steps: 30, batch_size: 8, sequence_length: 24, seed: 17,
   optimizer: {type: adamw, learning_rate: 1.0e-2, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 15}
checkpoint: {every_steps: 7}
)";

class Embeddings : public TaskTrainer {
 protected:
  Embeddings() : TaskTrainer(kPairs) {}
  void SetUp() override {
    TaskTrainer::SetUp();
    fs::create_directories(folder_ / "obj-pairs");
    std::ofstream rows(folder_ / "obj-pairs" / "pairs.jsonl");
    for (int i = 0; i < 33; ++i) {  // the last batch of an evaluation has one pair
      const std::string letters(static_cast<size_t>(2 + i % 7), static_cast<char>('a' + i % 11));
      rows << R"({"text": "the )" << letters << R"(", "text_pair": ")" << letters << " of " << i
           << "\"}\n";
    }
  }
};

TEST_F(Embeddings, BringPairsTogether) {
  MemoryCluster cluster;
  run(launch({}), cluster);
  const std::vector<double> losses = values(cluster, "validation_loss");
  ASSERT_EQ(losses.size(), 2U);
  EXPECT_LT(losses[1], losses[0]);
  EXPECT_GT(values(cluster, "validation_accuracy").back(), 0.6);  // by chance a quarter
}

// Of a logit, 20 x cosine, in fp32: a loss near 0 is the difference of two of these.
constexpr double kRounding = 20 * 0x1p-23;

TEST_F(Embeddings, EveryMeshAndLevelHasTheSameCurve) {
  expect_one_curve({"validation_accuracy"}, 0, kRounding);
}

TEST_F(Embeddings, ResumeBitForBit) { expect_resumes_bit_for_bit({17}); }

}  // namespace
}  // namespace weft
