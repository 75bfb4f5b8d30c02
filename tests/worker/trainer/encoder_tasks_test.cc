// One encoder that learns from masked text, from words with tags and from labelled texts: on every
// mesh and level of ZeRO, over resumes, and what its evaluations say.
#include <cmath>

#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kThreeTasks = R"(
name: three
kind: multi_task
model:
  family: bert
  config: {num_hidden_layers: 2, num_attention_heads: 3, hidden_size: 24, intermediate_size: 40,
           max_position_embeddings: 32, vocab_size: 1000, pad_token_id: 996}
tokenizer: {type: tokenizer_json, from: obj-tokenizer}
tasks:
  - {name: masked, type: masked_lm, mask_rate: 0.2, weight: 2,
     data: {train: obj-text, validation: obj-text, format: text}}
  - {name: tags, type: token_classification, labels: 3,
     data: {train: obj-words, validation: obj-words, format: jsonl}}
  - {name: kind, type: sequence_classification, labels: 3,
     data: {train: obj-rows, validation: obj-rows, format: jsonl}}
training:
  {steps: 40, batch_size: 5, micro_batch_size: 2, sequence_length: 20, seed: 17,
   optimizer: {type: adamw, learning_rate: 1.0e-2, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

class EncoderTasks : public TaskTrainer {
 protected:
  EncoderTasks() : TaskTrainer(kThreeTasks) {}
  void SetUp() override {
    TaskTrainer::SetUp();
    fs::create_directories(folder_ / "obj-tokenizer");
    fs::copy_file(WEFT_SOURCE_DIR "/tests/worker/data/fixtures/bpe_tokenizer.json",
                  folder_ / "obj-tokenizer" / "tokenizer.json",
                  fs::copy_options::overwrite_existing);
    fs::create_directories(folder_ / "obj-words");
    std::ofstream words(folder_ / "obj-words" / "words.jsonl");
    for (int i = 0; i < 23; ++i) {
      words << R"({"text": ["the", "Weft", "River"], "label": ["O", "B-PLACE", "I-PLACE"]})"
               "\n";
      words << R"({"text": ["a", "plain", "row", "of"], "label": ["O", "O", "O", "O"]})"
               "\n";
    }
  }
};

TEST_F(EncoderTasks, LearnAllThree) {
  MemoryCluster cluster;
  run(launch({}), cluster);
  for (const char* task : {"masked", "tags", "kind"}) {
    const std::vector<double> losses = values(cluster, "validation_loss", task);
    ASSERT_EQ(losses.size(), 2U) << task;
    EXPECT_LT(losses[1], losses[0]) << task;
  }
  EXPECT_GT(values(cluster, "validation_perplexity", "masked").back(), 1);
  EXPECT_GT(values(cluster, "validation_accuracy", "masked").back(), 0.03);  // by chance 0.001
  EXPECT_EQ(values(cluster, "validation_f1", "tags").back(), 1);
  EXPECT_TRUE(values(cluster, "validation_f1", "kind").empty());
}

TEST_F(EncoderTasks, EveryMeshAndLevelHasTheSameCurve) {
  expect_one_curve({"validation_f1", "validation_accuracy"});
}

// The masks, too, go on where they were.
TEST_F(EncoderTasks, ResumeBitForBit) { expect_resumes_bit_for_bit({17, 33}); }

TEST_F(EncoderTasks, ATokenizerWithoutAMaskIsRefused) {
  proto::LaunchRecord attempt = launch({});
  attempt.mutable_spec()->mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  attempt.mutable_spec()->mutable_tokenizer()->clear_from();
  MemoryCluster cluster;
  try {
    static_cast<void>(train(attempt, cluster));
    FAIL() << "it ran";
  } catch (const StatusError& error) {
    EXPECT_NE(error.status().to_string().find("must have a mask token"), std::string::npos)
        << error.status().to_string();
  }
}

}  // namespace
}  // namespace weft
