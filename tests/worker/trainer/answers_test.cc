// An encoder that learns to find answers: on every mesh and level of ZeRO alike, in evaluations
// too, whose questions have windows on several ranks.
#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kAnswers = R"(
name: answers
kind: pretrain
model:
  family: bert
  config: {num_hidden_layers: 2, num_attention_heads: 3, hidden_size: 24, intermediate_size: 40,
           max_position_embeddings: 48, vocab_size: 1000, pad_token_id: 996,
           hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}
tokenizer: {type: tokenizer_json, from: obj-tokenizer}
tasks:
  - {name: find, type: question_answering,
     data: {train: obj-questions, validation: obj-questions, format: jsonl, stride: 6}}
training:
  {steps: 40, batch_size: 9, micro_batch_size: 2, sequence_length: 30, seed: 17,
   optimizer: {type: adamw, learning_rate: 5.0e-3, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

class Answers : public TaskTrainer {
 protected:
  Answers() : TaskTrainer(kAnswers) {}
  void SetUp() override {
    TaskTrainer::SetUp();
    write_pair_tokenizer(WEFT_SOURCE_DIR);
    fs::create_directories(folder_ / "obj-questions");
    std::ofstream rows(folder_ / "obj-questions" / "questions.jsonl");
    const std::string before = "speak the man and so on ", behind = " who goes by the way";
    for (int i = 0; i < 24; ++i) {
      std::string context;
      for (int k = 0; k < i % 4; ++k) context += before;
      const auto start = std::ssize(context);
      context += "king" + behind;
      for (int k = 0; k < i % 3; ++k) context += behind;
      nlohmann::json answers{{"text", {"king"}}, {"answer_start", {start}}};
      if (i % 8 == 7) {  // it has none
        context = before + behind;
        answers = {{"text", nlohmann::json::array()}, {"answer_start", nlohmann::json::array()}};
      }
      rows << nlohmann::json{{"question", "who is it"}, {"context", context}, {"answers", answers}}
           << "\n";
    }
  }
};

TEST_F(Answers, AreFound) {
  MemoryCluster cluster;
  run(launch({}), cluster);
  const std::vector<double> losses = values(cluster, "validation_loss");
  ASSERT_EQ(losses.size(), 2U);
  EXPECT_LT(losses[1], losses[0]);
  EXPECT_GT(values(cluster, "validation_exact_match").back(), 0.9);
  EXPECT_GE(values(cluster, "validation_f1").back(),
            values(cluster, "validation_exact_match").back());
  EXPECT_GT(values(cluster, "validation_accuracy").back(), 0.9);
  EXPECT_GT(values(cluster, "validation_labels").back(), 30) << "windows, not questions";
}

TEST_F(Answers, EveryMeshAndLevelHasTheSameCurve) {
  expect_one_curve({"validation_accuracy", "validation_exact_match", "validation_f1"}, 1e-2);
}

}  // namespace
}  // namespace weft
