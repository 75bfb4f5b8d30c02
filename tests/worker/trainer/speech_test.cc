// A model that hears learns a few recordings by heart, words that are tones, on the way that jobs
// take: from the folder to what it writes of them.
#include <cmath>
#include <numbers>

#include "tests/worker/data/wave_file.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/serve/evaluate.h"

namespace weft {
namespace {

constexpr const char* kJob = R"(
name: hearing
kind: pretrain
model:
  family: whisper
  config: {d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,
           decoder_attention_heads: 2, encoder_ffn_dim: 64, decoder_ffn_dim: 64, vocab_size: 257,
           num_mel_bins: 20, max_source_positions: 50, max_target_positions: 16,
           decoder_start_token_id: 256, eos_token_id: 256, pad_token_id: 256, bos_token_id: 256}
tokenizer: {type: byte}
tasks:
  - {name: write, type: speech_recognition,
     data: {train: obj-words, validation: obj-words, format: audio}}
training:
  {steps: 150, batch_size: 8, micro_batch_size: 4, seed: 17, evaluate_every: 150,
   optimizer: {type: adamw, learning_rate: 5.0e-3, weight_decay: 0.0},
   schedule: {type: cosine, warmup_steps: 10}}
)";

constexpr std::array kWords{"red", "green", "blue", "grey"};

class Hearing : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    const fs::path folder = folder_ / "obj-words";
    fs::create_directories(folder);
    std::ofstream list(folder / "metadata.jsonl");
    for (int first = 0; first < 4; ++first) {
      for (int second = 0; second < 2; ++second) {
        const std::string name = std::to_string(first) + std::to_string(second) + ".wav";
        std::ofstream(folder / name, std::ios::binary) << spoken({first, second});
        list << R"({"file_name": ")" << name << R"(", "transcription": ")"
             << kWords[static_cast<size_t>(first)] << " " << kWords[static_cast<size_t>(second)]
             << "\"}\n";
      }
    }
  }

  // A third of a second a word, at 8 kHz.
  static std::string spoken(std::initializer_list<int> words) {
    std::vector<int16_t> levels;
    for (const int word : words) {
      for (int i = 0; i < 2600; ++i) {
        const double angle = 2 * std::numbers::pi * (300 + 400 * word) * i / 8000;
        levels.push_back(static_cast<int16_t>(i < 2000 ? 9000 * std::sin(angle) : 0));
      }
    }
    return wave_file(levels, 8000);
  }
};

// What `weft evaluate` finds of a checkpoint in these recordings.
std::map<std::string, double> evaluated(proto::LaunchRecord launch, MemoryCluster& cluster,
                                        const fs::path& folder, int64_t rows_at_once) {
  std::map<std::string, double> found;
  *launch.mutable_resume() = cluster.checkpoints.back();
  testing::run_ranks(1, [&](Rank& rank) {
    MemoryProgress progress(cluster);
    auto training = set_up(rank, launch, progress);
    ASSERT_TRUE(training) << training.error().to_string();
    LoadedModel model;
    model.folder.config = (*training)->config;
    model.trunk = std::move((*training)->trunk);
    model.task = std::move((*training)->tasks[0].task);
    model.tokenizer = std::move((*training)->tokenizer);
    model.audio = (*training)->audio;
    DatasetOptions options = dataset_options(launch.spec().tasks(0), 50, 16);
    options.audio = model.audio;
    options.start_id = model.folder.config->decoder_start_token_id;
    const auto data = *Dataset::load(*input_files(folder.string()), options, *model.tokenizer);
    const auto metrics = evaluate(rank, model, *data, rows_at_once);
    ASSERT_TRUE(metrics) << metrics.error().to_string();
    found = *metrics;
  });
  return found;
}

TEST_F(Hearing, LearnsByHeartAndWritesItDown) {
  const proto::LaunchRecord launch = record(kJob, {});
  MemoryCluster cluster;
  const Status status = train(launch, cluster);
  ASSERT_TRUE(status.ok()) << status.to_string();
  const auto losses = cluster.losses();
  EXPECT_LT(losses.rbegin()->second, 0.05 * losses.begin()->second);
  const proto::CheckpointManifest& manifest = cluster.checkpoints.back();
  ASSERT_EQ(manifest.extra_files_size(), 1);
  EXPECT_EQ(manifest.extra_files(0).path(), "preprocessor_config.json");

  const auto whole = evaluated(launch, cluster, folder_ / "obj-words", 8);
  EXPECT_EQ(whole.at("wer"), 0);
  EXPECT_EQ(whole.at("cer"), 0);
  EXPECT_EQ(whole.at("accuracy"), 1);
  std::map<std::string, double> told;
  for (const proto::MetricRecord& metric : cluster.metrics) {
    for (const auto& [name, value] : metric.values()) told[name] = value;
  }
  EXPECT_NEAR(whole.at("loss"), told.at("validation_loss"), 1e-4 * told.at("validation_loss"));
  const auto alone = evaluated(launch, cluster, folder_ / "obj-words", 3);
  EXPECT_EQ(alone.at("wer"), 0);
  EXPECT_NEAR(alone.at("loss"), whole.at("loss"), 1e-5);
}

// It has to hear what it writes.
TEST_F(Hearing, OtherRecordingsAreOtherWords) {
  const proto::LaunchRecord launch = record(kJob, {});
  MemoryCluster cluster;
  ASSERT_TRUE(train(launch, cluster).ok());
  const fs::path folder = folder_ / "obj-words";
  std::ofstream(folder / "00.wav", std::ios::binary) << spoken({3, 1});  // two words are others
  const auto found = evaluated(launch, cluster, folder, 8);
  EXPECT_EQ(found.at("wer"), 2.0 / 16);
}

TEST_F(Hearing, GoesOnFromACheckpointWithItsSettings) {
  MemoryCluster cluster;
  proto::LaunchRecord first = record(kJob, {});
  first.mutable_spec()->mutable_training()->set_steps(2);
  first.mutable_spec()->mutable_training()->set_evaluate_every(2);
  ASSERT_TRUE(train(first, cluster).ok());
  proto::LaunchRecord further = first;
  *further.mutable_base() = cluster.checkpoints.back();
  ASSERT_TRUE(train(further, cluster).ok());
  const proto::CheckpointManifest &from = cluster.checkpoints.front(),
                                  &made = cluster.checkpoints.back();
  ASSERT_EQ(cluster.checkpoints.size(), 2U);
  ASSERT_EQ(made.extra_files_size(), 1);
  EXPECT_EQ(made.extra_files(0).SerializeAsString(), from.extra_files(0).SerializeAsString());
}

TEST_F(Hearing, OneThatIsGoneIsNamedWithItsField) {
  const float samples[] = {0.5F, std::nanf("")};
  std::ofstream(folder_ / "obj-words/00.wav", std::ios::binary) << float_wave_file(samples, 8000);
  MemoryCluster cluster;
  try {
    const Status status = train(record(kJob, {}), cluster);
    FAIL() << status.to_string();
  } catch (const StatusError& error) {
    EXPECT_NE(error.status().to_string().find(
                  "tasks[0].data.train: 00.wav: recording must have finite samples only"),
              std::string::npos)
        << error.status().to_string();
  }
}

}  // namespace
}  // namespace weft
