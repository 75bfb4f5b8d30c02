// An encoder-decoder that learns to write a text for a text: on every mesh, level of ZeRO and kind
// of recomputation alike, and in half precision nearly so.
#include <tuple>

#include "tests/worker/trainer/trainer_fixture.h"

namespace weft {
namespace {

constexpr const char* kWriting = R"(
name: writing
kind: pretrain
model:
  family: t5
  config: {num_layers: 2, num_decoder_layers: 3, num_heads: 3, d_model: 24, d_kv: 6, d_ff: 40,
           vocab_size: 257, dropout_rate: 0.1, feed_forward_proj: gated-gelu}
tokenizer: {type: byte}
tasks:
  - {name: write, type: seq2seq,
     data: {train: obj-targets, validation: obj-targets, format: jsonl, target: answer}}
training:
  {steps: 40, batch_size: 5, micro_batch_size: 2, sequence_length: 24, target_length: 8, seed: 17,
   optimizer: {type: adamw, learning_rate: 1.0e-2, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

class Writing : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    fs::create_directories(folder_ / "obj-targets");
    std::ofstream rows(folder_ / "obj-targets" / "rows.jsonl");
    for (int i = 0; i < 31; ++i) {
      const char* answers[] = {"red", "green", "a dark blue"};  // the last one is cut
      rows << R"({"text": ")" << std::string(static_cast<size_t>(3 + i % 9), "xyz"[i % 3])
           << R"(", "answer": ")" << answers[i % 3] << "\"}\n";
    }
  }

  proto::LaunchRecord launch(MeshDegrees mesh, int zero = 0, const char* more = "") {
    std::string job = job_;
    job.insert(job.find("{steps:") + 1, more);
    proto::LaunchRecord launch = record(job, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    return launch;
  }
  std::string job_ = kWriting;

  std::map<int64_t, double> losses(MeshDegrees mesh, int zero = 0, const char* more = "",
                                   int steps = 22) {
    MemoryCluster cluster;
    proto::LaunchRecord launched = launch(mesh, zero, more);
    launched.mutable_spec()->mutable_training()->set_steps(steps);
    const Status status = train(launched, cluster);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return cluster.losses();
  }
  static void expect_near(const std::map<int64_t, double>& losses,
                          const std::map<int64_t, double>& wanted, double bound,
                          const std::string& where) {
    ASSERT_EQ(losses.size(), wanted.size()) << where;
    for (const auto& [step, loss] : wanted) {
      EXPECT_NEAR(losses.at(step), loss, bound * std::max(loss, 1e-2)) << where << " " << step;
    }
  }
};

TEST_F(Writing, IsLearned) {
  MemoryCluster cluster;
  proto::LaunchRecord longer = launch({});
  longer.mutable_spec()->mutable_training()->set_steps(200);
  const Status status = train(longer, cluster);
  ASSERT_TRUE(status.ok()) << status.to_string();
  std::map<std::string, double> last;
  for (const proto::MetricRecord& record : cluster.metrics) {
    for (const auto& [name, value] : record.values()) last[name] = value;
  }
  EXPECT_GT(last.at("validation_accuracy"), 0.9);
  EXPECT_LT(last.at("validation_perplexity"), 1.6);
  // "red", "green" and eight tokens of the third, each with its end.
  EXPECT_EQ(last.at("validation_labels"), 11 * 4 + 10 * 6 + 10 * 8);
}

// A mesh and a level of ZeRO.
class WritingOnMesh : public Writing,
                      public ::testing::WithParamInterface<std::tuple<MeshDegrees, int>> {};

TEST_P(WritingOnMesh, HasTheSameCurve) {
  const auto& [mesh, zero] = GetParam();
  static const auto one = losses({});
  expect_near(losses(mesh, zero), one, 1e-4, "");
}

std::string curve_name(const ::testing::TestParamInfo<WritingOnMesh::ParamType>& param) {
  const auto& [mesh, zero] = param.param;
  return "d" + std::to_string(mesh.data) + "_s" + std::to_string(mesh.sequence) + "_t" +
         std::to_string(mesh.tensor) + "_zero" + std::to_string(zero);
}

using ::testing::Combine;
using ::testing::Values;
INSTANTIATE_TEST_SUITE_P(OfRows, WritingOnMesh,
                         Combine(Values(MeshDegrees{2, 1, 1}, MeshDegrees{3, 1, 1},
                                        MeshDegrees{2, 1, 2}),
                                 Values(0, 1, 2, 3)),
                         curve_name);
INSTANTIATE_TEST_SUITE_P(OfFeatures, WritingOnMesh,
                         Combine(Values(MeshDegrees{1, 1, 2}, MeshDegrees{1, 1, 4}), Values(0)),
                         curve_name);
INSTANTIATE_TEST_SUITE_P(OfTokens, WritingOnMesh, Combine(Values(MeshDegrees{1, 2, 1}), Values(1)),
                         curve_name);
INSTANTIATE_TEST_SUITE_P(All, WritingOnMesh,
                         Combine(Values(MeshDegrees{1, 2, 1}, MeshDegrees{1, 4, 1},
                                        MeshDegrees{2, 2, 1}, MeshDegrees{1, 2, 2}),
                                 Values(0, 1, 2, 3)),
                         curve_name);

// Rows are as long as the longest of their batch, of targets here 8 or 16 tokens.
TEST_F(Writing, RanksWithoutATokenTakePart) {
  const std::string length = "target_length: 8";
  job_.replace(job_.find(length), length.size(), "target_length: 24");
  const std::string job = job_;
  const auto one = losses({}, 0, "", 2);
  for (const char* attention : {"ring", "ulysses", "ulysses_ring, ulysses: 3"}) {
    job_ = job + "parallel: {sequence_attention: " + attention + "}\n";
    expect_near(losses({1, 12, 1}, 3, "", 2), one, 1e-4, attention);
  }
}

TEST_F(Writing, RecomputationChangesNothing) {
  const auto one = losses({});
  for (const char* kind :
       {"activation_checkpointing: selective, ", "activation_checkpointing: full, "}) {
    expect_near(losses({}, 0, kind), one, 1e-6, kind);
    expect_near(losses({2, 1, 2}, 3, kind), one, 1e-4, kind);
  }
}

TEST_F(Writing, HalfPrecisionIsNear) {
  const auto one = losses({}, 0, "", 40);
  const auto half = losses({2, 1, 2}, 3, "precision: bf16, ", 40);
  EXPECT_NEAR(half.begin()->second, one.begin()->second, 0.03 * one.begin()->second);
  EXPECT_LT(half.rbegin()->second, 0.3 * half.begin()->second);
}

}  // namespace
}  // namespace weft
