// One encoder that learns from masked text, from words with tags and from labelled texts: on every
// mesh and level of ZeRO, over resumes, and what its evaluations say.
#include <cmath>

#include "tests/worker/trainer/trainer_fixture.h"

namespace weft {
namespace {

constexpr const char* kThreeTasks = R"(
name: three
kind: multi_task
model:
  family: bert
  config: {num_hidden_layers: 2, num_attention_heads: 3, hidden_size: 24, intermediate_size: 40,
           max_position_embeddings: 32, vocab_size: 1000, pad_token_id: 996}
tokenizer: {type: byte_level_bpe, from: obj-tokenizer}
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

class EncoderTasks : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
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

  proto::LaunchRecord launch(MeshDegrees mesh, int zero = 0) {
    proto::LaunchRecord launch = record(kThreeTasks, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    return launch;
  }
  void run(const proto::LaunchRecord& launch, MemoryCluster& cluster) {
    const Status status = train(launch, cluster);
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  // Of each validation record of the task, in order.
  static std::vector<double> values(MemoryCluster& cluster, const std::string& task,
                                    const std::string& name) {
    std::vector<double> found;
    for (const proto::MetricRecord& record : cluster.metrics) {
      const auto value = record.values().find(name);
      if (record.task() == task && value != record.values().end()) found.push_back(value->second);
    }
    return found;
  }
};

TEST_F(EncoderTasks, LearnAllThree) {
  MemoryCluster cluster;
  run(launch({}), cluster);
  for (const char* task : {"masked", "tags", "kind"}) {
    const std::vector<double> losses = values(cluster, task, "validation_loss");
    ASSERT_EQ(losses.size(), 2U) << task;
    EXPECT_LT(losses[1], losses[0]) << task;
  }
  EXPECT_GT(values(cluster, "masked", "validation_perplexity").back(), 1);
  EXPECT_GT(values(cluster, "masked", "validation_accuracy").back(), 0.03);  // by chance 0.001
  EXPECT_EQ(values(cluster, "tags", "validation_f1").back(), 1);
  EXPECT_TRUE(values(cluster, "kind", "validation_f1").empty());
}

TEST_F(EncoderTasks, EveryMeshAndLevelHasTheSameCurve) {
  MemoryCluster alone;
  run(launch({}), alone);
  const auto one = alone.losses();
  for (const MeshDegrees mesh :
       {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2}, MeshDegrees{1, 1, 3},
        MeshDegrees{2, 1, 2}, MeshDegrees{1, 2, 2}}) {
    for (const int zero : {0, 2, 3}) {
      if (mesh.data * mesh.sequence == 1 && zero > 0) continue;
      MemoryCluster cluster;
      run(launch(mesh, zero), cluster);
      const auto losses = cluster.losses();
      ASSERT_EQ(losses.size(), one.size());
      for (const auto& [step, loss] : one) {
        EXPECT_NEAR(losses.at(step), loss, 1e-4 * loss)
            << mesh.data << "x" << mesh.sequence << "x" << mesh.tensor << " zero " << zero
            << " step " << step;
      }
      for (const char* name : {"validation_f1", "validation_accuracy"}) {
        EXPECT_EQ(values(cluster, "tags", name), values(alone, "tags", name)) << name;
      }
    }
  }
}

// The masks, too, go on where they were.
TEST_F(EncoderTasks, ResumeBitForBit) {
  proto::LaunchRecord attempt = launch({2, 1, 1});
  MemoryCluster whole;
  run(attempt, whole);
  MemoryCluster cluster;
  for (const int64_t death : {17, 33, -1}) {
    cluster.die_after_step = death;
    if (!cluster.checkpoints.empty()) *attempt.mutable_resume() = cluster.checkpoints.back();
    if (death < 0) {
      run(attempt, cluster);
    } else {
      EXPECT_THROW(static_cast<void>(train(attempt, cluster)), StatusError);
    }
  }
  EXPECT_EQ(cluster.losses(), whole.losses());
}

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
