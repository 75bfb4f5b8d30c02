// What the tests of the trainer share: two small data sets in a folder, jobs as YAML, and their
// runs on ranks that are threads.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <vector>

#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "tests/testing/memory_progress.h"
#include "tests/testing/rank_runner.h"
#include "tests/worker/data/wave_file.h"
#include "worker/setup.h"
#include "worker/trainer.h"

namespace weft {

namespace fs = std::filesystem;
using testing::MemoryCluster;
using testing::MemoryProgress;

inline constexpr const char* kTwoTasks = R"(
name: two
kind: multi_task
model:
  family: gpt2
  config: {n_layer: 2, n_head: 3, n_embd: 24, n_positions: 32, vocab_size: 257,
           resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}
tokenizer: {type: byte}
tasks:
  - {name: lm, type: causal_lm, weight: 2, data: {train: obj-text, format: text}}
  - name: kind
    type: sequence_classification
    labels: 3
    data: {train: obj-rows, validation: obj-rows, format: jsonl}
training:
  {steps: 50, batch_size: 5, micro_batch_size: 2, sequence_length: 20, seed: 17,
   optimizer: {type: adamw, learning_rate: 3.0e-3, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 20}
checkpoint: {every_steps: 7}
)";

// Such a job as long as a curve that meshes are compared by has to be: steps of both tasks, an
// evaluation, three checkpoints.
inline std::string in_22_steps(std::string job) {
  return job.replace(job.find("steps: 50"), 9, "steps: 22");
}

// kTwoTasks of a Llama, whose four heads read two of keys.
inline std::string two_grouped_tasks() {
  std::string job = kTwoTasks;
  const size_t family = job.find("family: gpt2"), end = job.find("tokenizer:");
  return job.replace(family, end - family, R"(family: llama
  config: {num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 24,
           head_dim: 6, intermediate_size: 40, max_position_embeddings: 32, vocab_size: 257,
           attention_dropout: 0.1}
)");
}

class Trainer : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("weft-trainer-" + std::to_string(getpid()));
    fs::create_directories(folder_ / "obj-text");
    fs::create_directories(folder_ / "obj-rows");
    std::ofstream text(folder_ / "obj-text" / "a.txt");
    for (int i = 0; i < 60; ++i) text << "line " << i * i << " of a text that repeats itself\n";
    std::ofstream rows(folder_ / "obj-rows" / "rows.jsonl");
    for (int i = 0; i < 31; ++i) {
      rows << R"({"text": ")" << std::string(static_cast<size_t>(3 + i % 9), "xyz"[i % 3])
           << R"( word )" << i << R"(", "label": )" << i % 3 << "}\n";
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  // obj-tokenizer, which makes pairs as RoBERTa's does: 1000 tokens, of which 996 pads. source: the
  // root of the sources.
  void write_pair_tokenizer(const fs::path& source) const {
    std::ifstream in(source / "tests/worker/data/fixtures/bpe_tokenizer.json");
    nlohmann::json tokenizer = nlohmann::json::parse(in);
    tokenizer["post_processor"] = {
        {"type", "RobertaProcessing"}, {"cls", {"<|endoftext|>", 995}}, {"sep", {"<|pad|>", 996}}};
    fs::create_directories(folder_ / "obj-tokenizer");
    std::ofstream(folder_ / "obj-tokenizer" / "tokenizer.json") << tokenizer;
  }

  // obj-typed: the same as XLNet's puts texts into rows, each of its segment, and behind them what
  // is of another.
  void write_typed_tokenizer(const fs::path& source) const {
    std::ifstream in(source / "tests/worker/data/fixtures/bpe_tokenizer.json");
    nlohmann::json tokenizer = nlohmann::json::parse(in), tokens;
    constexpr const char *kSep = "<|pad|>", *kEnd = "<|endoftext|>";
    for (const auto& [name, id] : {std::pair{kSep, 996}, {kEnd, 995}}) {
      tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    }
    const auto piece = [](const char* kind, const char* id, int type) {
      return nlohmann::json{{kind, {{"id", id}, {"type_id", type}}}};
    };
    const auto a = piece("Sequence", "A", 0), b = piece("Sequence", "B", 1);
    const auto of_a = piece("SpecialToken", kSep, 0), of_b = piece("SpecialToken", kSep, 1);
    const auto end = piece("SpecialToken", kEnd, 2);
    tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                   {"single", {a, of_a, end}},
                                   {"pair", {a, of_a, b, of_b, end}},
                                   {"special_tokens", tokens}};
    fs::create_directories(folder_ / "obj-typed");
    std::ofstream(folder_ / "obj-typed" / "tokenizer.json") << tokenizer;
  }

  // obj-images: ten images of each of three classes. source: the root of the sources.
  void add_images(const fs::path& source) {
    constexpr std::array kFiles{"color.png", "palette.png", "gray.jpg", "color.jpg", "bilevel.png"};
    const fs::path from = source / "tests/worker/data/fixtures/images";
    for (size_t i = 0; i < 30; ++i) {
      const fs::path kind = folder_ / "obj-images" / std::array{"blue", "green", "red"}[i % 3];
      fs::create_directories(kind);
      const fs::path file = from / kFiles[i % kFiles.size()];
      fs::copy_file(file, kind / (std::to_string(i) + file.extension().string()),
                    fs::copy_options::overwrite_existing);
    }
  }

  // obj-recordings: so many tones, at 16 kHz, and their texts, each longer than most.
  void add_recordings(int count) {
    constexpr int kRate = 16000;
    const fs::path folder = folder_ / "obj-recordings";
    fs::create_directories(folder);
    std::ofstream list(folder / "metadata.jsonl");
    for (int i = 0; i < count; ++i) {
      std::vector<int16_t> levels;
      for (int at = 0; at < kRate / 10 * (1 + i % 3); ++at) {
        const double angle = 2 * std::numbers::pi * (200 + 37 * i) * at / kRate;
        levels.push_back(static_cast<int16_t>(9000 * std::sin(angle)));
      }
      const std::string name = std::to_string(i) + ".wav";
      std::ofstream(folder / name, std::ios::binary) << wave_file(levels, kRate);
      const std::string text = std::to_string(i) + std::string(300, "abc"[i % 3]);
      list << nlohmann::json{{"file_name", name}, {"transcription", text}} << "\n";
    }
  }

  proto::LaunchRecord record(const std::string& job, MeshDegrees mesh) {
    proto::LaunchRecord record;
    const Status status = read_yaml(job, *record.mutable_spec());
    EXPECT_TRUE(status.ok()) << status.to_string();
    record.mutable_spec()->mutable_parallel()->set_data(mesh.data);
    record.mutable_spec()->mutable_parallel()->set_sequence(mesh.sequence);
    record.mutable_spec()->mutable_parallel()->set_tensor(mesh.tensor);
    const Status finished = finish_job(*record.mutable_spec());
    EXPECT_TRUE(finished.ok()) << finished.to_string();
    record.set_job("job-test");
    record.set_attempt(1);
    record.set_objects_folder(folder_.string());
    return record;
  }

  // The Status of rank 0.
  Status train(const proto::LaunchRecord& record, MemoryCluster& cluster,
               const PlaceRank& place = {}) {
    const proto::ParallelSpec& mesh = record.spec().parallel();
    Status first;
    const auto body = [&](Rank& rank) {
      MemoryProgress progress(cluster);
      const Status status = run_training(rank, record, progress);
      if (rank.mesh.index(Axis::kWorld) == 0) first = status;
      if (!status.ok()) throw StatusError(status);
    };
    testing::run_mesh({mesh.data(), mesh.sequence(), mesh.tensor()}, body, place);
    return first;
  }

  // What every rank of the record's mesh is set up with.
  using Body = std::function<void(Rank&, const proto::JobSpec&, Training&)>;
  static void on_ranks(const proto::LaunchRecord& launch, const Body& body,
                       const PlaceRank& place = {}) {
    const proto::ParallelSpec& mesh = launch.spec().parallel();
    MemoryCluster cluster;
    const auto set_up_and_do = [&](Rank& rank) {
      MemoryProgress progress(cluster);
      const auto training = set_up(rank, launch, progress);
      if (!training) throw StatusError(training.error());
      body(rank, launch.spec(), **training);
    };
    testing::run_mesh({mesh.data(), mesh.sequence(), mesh.tensor()}, set_up_and_do, place);
  }

  std::map<int64_t, double> losses(const std::string& job, MeshDegrees mesh) {
    MemoryCluster cluster;
    const Status status = train(record(job, mesh), cluster);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return cluster.losses();
  }

  fs::path folder_;
};

}  // namespace weft
