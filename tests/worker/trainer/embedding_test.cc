// An encoder that learns embeddings: on every mesh and level of ZeRO alike, in evaluations too,
// whose last batch leaves ranks without rows.
#include <cmath>

#include "tests/worker/trainer/trainer_fixture.h"

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

class Embeddings : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    fs::create_directories(folder_ / "obj-pairs");
    std::ofstream rows(folder_ / "obj-pairs" / "pairs.jsonl");
    for (int i = 0; i < 33; ++i) {  // the last batch of an evaluation has one pair
      const std::string letters(static_cast<size_t>(2 + i % 7), static_cast<char>('a' + i % 11));
      rows << R"({"text": "the )" << letters << R"(", "text_pair": ")" << letters << " of " << i
           << "\"}\n";
    }
  }

  proto::LaunchRecord launch(MeshDegrees mesh, int zero = 0) {
    proto::LaunchRecord launch = record(kPairs, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    return launch;
  }
  void run(const proto::LaunchRecord& launch, MemoryCluster& cluster) {
    const Status status = train(launch, cluster);
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  static std::vector<double> values(MemoryCluster& cluster, const std::string& name) {
    std::vector<double> found;
    for (const proto::MetricRecord& record : cluster.metrics) {
      const auto value = record.values().find(name);
      if (value != record.values().end()) found.push_back(value->second);
    }
    return found;
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
  MemoryCluster alone;
  run(launch({}), alone);
  const auto one = alone.losses();
  for (const MeshDegrees mesh :
       {MeshDegrees{2, 1, 1}, MeshDegrees{3, 1, 1}, MeshDegrees{4, 1, 1}, MeshDegrees{1, 2, 1},
        MeshDegrees{1, 3, 1}, MeshDegrees{1, 1, 3}, MeshDegrees{2, 2, 1}, MeshDegrees{2, 1, 2}}) {
    for (const int zero : {0, 2, 3}) {
      if (mesh.data * mesh.sequence == 1 && zero > 0) continue;
      MemoryCluster cluster;
      run(launch(mesh, zero), cluster);
      const auto losses = cluster.losses();
      ASSERT_EQ(losses.size(), one.size());
      const std::string where = std::to_string(mesh.data) + "x" + std::to_string(mesh.sequence) +
                                "x" + std::to_string(mesh.tensor) + " zero " + std::to_string(zero);
      for (const auto& [step, loss] : one) {
        EXPECT_NEAR(losses.at(step), loss, 1e-4 * loss + kRounding) << where << " step " << step;
      }
      const auto held_out = values(cluster, "validation_loss");
      const auto expected = values(alone, "validation_loss");
      ASSERT_EQ(held_out.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NEAR(held_out[i], expected[i], 1e-4 * expected[i] + kRounding) << where;
      }
      EXPECT_EQ(values(cluster, "validation_accuracy"), values(alone, "validation_accuracy"))
          << where;
    }
  }
}

TEST_F(Embeddings, ResumeBitForBit) {
  proto::LaunchRecord attempt = launch({2, 1, 1});
  MemoryCluster whole;
  run(attempt, whole);
  MemoryCluster cluster;
  for (const int64_t death : {17, -1}) {
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

}  // namespace
}  // namespace weft
