// An encoder that learns which choice is right: on every mesh and level of ZeRO alike, in
// evaluations too, whose last batch leaves ranks without a question.
#include <nlohmann/json.hpp>

#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kChoices = R"(
name: choices
kind: pretrain
model:
  family: bert
  config: {num_hidden_layers: 2, num_attention_heads: 3, hidden_size: 24, intermediate_size: 40,
           max_position_embeddings: 48, vocab_size: 1000, pad_token_id: 996,
           hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}
tokenizer: {type: tokenizer_json, from: obj-tokenizer}
tasks:
  - {name: right, type: multiple_choice, labels: 3,
     data: {train: obj-choices, validation: obj-choices, format: jsonl}}
training:
  {steps: 40, batch_size: 12, micro_batch_size: 3, sequence_length: 40, seed: 17,
   optimizer: {type: adamw, learning_rate: 5.0e-3, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

class Choices : public TaskTrainer {
 protected:
  Choices() : TaskTrainer(kChoices) {}
  void SetUp() override {
    TaskTrainer::SetUp();
    write_pair_tokenizer(WEFT_SOURCE_DIR);
    fs::create_directories(folder_ / "obj-choices");
    std::ofstream rows(folder_ / "obj-choices" / "choices.jsonl");
    for (int i = 0; i < 33; ++i) {  // the last batch of an evaluation has one question
      nlohmann::json choices{"no way", "not so", "never here"};
      choices[static_cast<size_t>(i * 7 % 3)] = "this one";
      rows << nlohmann::json{{"text", "row " + std::to_string(i)},
                             {"choices", choices},
                             {"label", i * 7 % 3}}
           << "\n";
    }
  }
};

TEST_F(Choices, AreToldApart) {
  MemoryCluster cluster;
  run(launch({}), cluster);
  const std::vector<double> losses = values(cluster, "validation_loss");
  ASSERT_EQ(losses.size(), 2U);
  EXPECT_LT(losses[1], losses[0]);
  EXPECT_GT(values(cluster, "validation_accuracy").back(), 0.9);  // by chance a third
  EXPECT_EQ(values(cluster, "validation_labels").back(), 33);
}

TEST_F(Choices, EveryMeshAndLevelHasTheSameCurve) {
  expect_one_curve({"validation_accuracy"}, 1e-2);
}

}  // namespace
}  // namespace weft
