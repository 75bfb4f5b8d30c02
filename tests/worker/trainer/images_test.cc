// A model of images: what it learns, on every mesh and level of ZeRO, with an adapter too.
#include <gmock/gmock.h>

#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kJob = R"(
name: images
kind: pretrain
model: {family: vit, config: {num_hidden_layers: 2, num_attention_heads: 3, hidden_size: 24,
        intermediate_size: 40, image_size: 9, patch_size: 3, hidden_dropout_prob: 0.1}}
tasks: [{name: kind, type: image_classification, labels: 3,
         data: {train: obj-images, validation: obj-images, format: images}}]
training:
  {steps: 30, batch_size: 7, micro_batch_size: 2, seed: 17, evaluate_every: 15,
   optimizer: {type: adamw, learning_rate: 1.0e-2, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}}
)";

class Images : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    add_images(WEFT_SOURCE_DIR);
  }
  std::vector<double> losses(MeshDegrees mesh, int zero, const std::string& precision = "fp32") {
    proto::LaunchRecord launch = record(kJob, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    if (precision == "bf16") {
      launch.mutable_spec()->mutable_training()->set_precision(proto::PRECISION_BF16);
    }
    MemoryCluster cluster;
    const Status status = train(launch, cluster);
    EXPECT_TRUE(status.ok()) << status.to_string();
    std::vector<double> losses;
    for (const auto& [step, loss] : cluster.losses()) losses.push_back(loss);
    for (const proto::MetricRecord& metric : cluster.metrics) {
      const auto found = metric.values().find("validation_loss");
      if (found != metric.values().end()) losses.push_back(found->second);
    }
    return losses;
  }
};

TEST_F(Images, EveryMeshAndLevelHasTheSameCurve) {
  EXPECT_EQ(record(kJob, {}).spec().training().sequence_length(), 10);
  const std::vector<double> one = losses({}, 0);
  ASSERT_EQ(one.size(), 32U);
  EXPECT_LT(one[31], one[30]);
  for (const MeshAndLevel& at : kMeshesAndLevels) {
    const std::vector<double> other = losses(at.mesh, at.zero);
    ASSERT_EQ(other.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_NEAR(other[i] / one[i], 1, 1e-4) << i << " " << at.name();
    }
  }
}

TEST_F(Images, Bf16HasACurveNearby) {
  const std::vector<double> single = losses({}, 0), half = losses({2, 1, 1}, 2, "bf16");
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(half[i] / single[i], 1, 0.05) << i;
}

// Its header is whole, so that only a step that reads it finds it.
TEST_F(Images, OneThatIsCutOffIsNamedWithItsField) {
  const fs::path cut = folder_ / "obj-images/blue/0.png";
  fs::resize_file(cut, fs::file_size(cut) / 2);
  MemoryCluster cluster;
  try {
    const Status status = train(record(kJob, {}), cluster);
    FAIL() << status.to_string();
  } catch (const StatusError& error) {
    const std::string told = error.status().to_string();
    EXPECT_THAT(told, ::testing::HasSubstr("tasks[0].data.train: blue/0.png: image must be a"));
    EXPECT_THAT(told, ::testing::HasSubstr("the file ends before the image does"));
  }
}

}  // namespace
}  // namespace weft
