// An encoder-decoder that learns to write the text of a recording: on every mesh, level of ZeRO and
// kind of recomputation alike, and in half precision nearly so.
#include <tuple>

#include "tests/worker/trainer/trainer_fixture.h"

namespace weft {
namespace {

constexpr const char* kHearingJob = R"(
name: hearing
kind: pretrain
model:
  family: whisper
  config: {encoder_layers: 2, decoder_layers: 3, encoder_attention_heads: 3,
           decoder_attention_heads: 3, d_model: 24, encoder_ffn_dim: 40, decoder_ffn_dim: 40,
           num_mel_bins: 12, max_source_positions: 50, max_target_positions: 8, vocab_size: 257,
           decoder_start_token_id: 256, pad_token_id: 256, dropout: 0.1, attention_dropout: 0.1,
           activation_dropout: 0.1}
tokenizer: {type: byte}
tasks:
  - {type: speech_recognition,
     data: {train: obj-recordings, validation: obj-recordings, format: audio}}
training:
  {steps: 22, batch_size: 5, micro_batch_size: 2, seed: 17,
   optimizer: {type: adamw, learning_rate: 3.0e-3, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

class HearingCurve : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    add_recordings(9);
  }
  std::map<int64_t, double> losses(MeshDegrees mesh, int zero = 0, const char* more = "") {
    std::string job = kHearingJob;
    job.insert(job.find("{steps:") + 1, more);
    proto::LaunchRecord launch = record(job, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    MemoryCluster cluster;
    const Status status = train(launch, cluster);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return cluster.losses();
  }
  static void expect_near(const std::map<int64_t, double>& losses,
                          const std::map<int64_t, double>& wanted, double bound,
                          const std::string& where) {
    ASSERT_EQ(losses.size(), wanted.size()) << where;
    for (const auto& [step, loss] : wanted) {
      EXPECT_NEAR(losses.at(step), loss, bound * loss) << where << " " << step;
    }
  }
};

// A mesh and a level of ZeRO.
class HearingOnMesh : public HearingCurve,
                      public ::testing::WithParamInterface<std::tuple<MeshDegrees, int>> {};

TEST_P(HearingOnMesh, HasTheSameCurve) {
  const auto& [mesh, zero] = GetParam();
  static const auto one = losses({});
  expect_near(losses(mesh, zero), one, 1e-4, "");
}

std::string hearing_name(const ::testing::TestParamInfo<HearingOnMesh::ParamType>& param) {
  const auto& [mesh, zero] = param.param;
  return "d" + std::to_string(mesh.data) + "_s" + std::to_string(mesh.sequence) + "_t" +
         std::to_string(mesh.tensor) + "_zero" + std::to_string(zero);
}

using ::testing::Combine;
using ::testing::Values;
INSTANTIATE_TEST_SUITE_P(OfRows, HearingOnMesh,
                         Combine(Values(MeshDegrees{2, 1, 1}), Values(0, 1, 2, 3)), hearing_name);
INSTANTIATE_TEST_SUITE_P(OfFeatures, HearingOnMesh,
                         Combine(Values(MeshDegrees{1, 1, 2}, MeshDegrees{2, 1, 2}), Values(3)),
                         hearing_name);
INSTANTIATE_TEST_SUITE_P(OfTokens, HearingOnMesh,
                         Combine(Values(MeshDegrees{1, 2, 1}, MeshDegrees{1, 2, 2}), Values(1)),
                         hearing_name);
INSTANTIATE_TEST_SUITE_P(All, HearingOnMesh,
                         Combine(Values(MeshDegrees{3, 1, 1}, MeshDegrees{1, 4, 1},
                                        MeshDegrees{2, 2, 1}, MeshDegrees{1, 2, 2},
                                        MeshDegrees{1, 1, 4}),
                                 Values(0, 1, 2, 3)),
                         hearing_name);

TEST_F(HearingCurve, RecomputationChangesNothing) {
  const auto one = losses({});
  for (const char* kind :
       {"activation_checkpointing: selective, ", "activation_checkpointing: full, "}) {
    expect_near(losses({}, 0, kind), one, 1e-6, kind);
    expect_near(losses({2, 1, 2}, 3, kind), one, 1e-4, kind);
  }
}

TEST_F(HearingCurve, HalfPrecisionIsNear) {
  const auto one = losses({});
  const auto half = losses({2, 1, 2}, 3, "precision: bf16, ");
  EXPECT_NEAR(half.begin()->second, one.begin()->second, 0.03 * one.begin()->second);
  EXPECT_NEAR(half.rbegin()->second, one.rbegin()->second, 0.1 * one.rbegin()->second);
}

}  // namespace
}  // namespace weft
