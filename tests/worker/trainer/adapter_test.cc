// Fine-tuning by low-rank adapters: from a checkpoint of kTwoTasks, on every mesh and level of
// ZeRO, in half precision, over resumes, and what its checkpoints hold.
#include <algorithm>
#include <cmath>
#include <set>

#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {
namespace {

constexpr const char* kAdapter =
    "adapter: {type: lora, rank: 3, alpha: 12, dropout: 0.1, targets: [all-linear]}\n";

constexpr const char* kDora =
    "adapter: {type: lora, rank: 3, alpha: 12, dropout: 0.1, targets: [all-linear], dora: true}\n";

class AdapterTraining : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    ASSERT_TRUE(train(record(kTwoTasks, {}), base_).ok());
  }

  // kTwoTasks from the base's last checkpoint, with the adapter unless `adapter` is empty.
  proto::LaunchRecord tuned(MeshDegrees mesh, const std::string& more = "",
                            const std::string& adapter = kAdapter) {
    std::string job = kTwoTasks;
    const size_t family = job.find("  family: gpt2"), end = job.find("tokenizer:");
    job.replace(family, end - family, "  from: ckpt-1\n" + adapter);
    if (!more.empty()) job.insert(job.find("seed: 17,"), more + ", ");
    proto::LaunchRecord launch = record(job, mesh);
    *launch.mutable_base() = base_.checkpoints.back();
    return launch;
  }

  void run(const proto::LaunchRecord& launch, MemoryCluster& cluster) {
    cluster.chunks.insert(base_.chunks.begin(), base_.chunks.end());
    const Status status = train(launch, cluster);
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  std::map<int64_t, double> curve(const proto::LaunchRecord& launch) {
    MemoryCluster cluster;
    run(launch, cluster);
    return cluster.losses();
  }

  // As long as those of in_22_steps().
  std::map<int64_t, double> short_curve(proto::LaunchRecord launch) {
    launch.mutable_spec()->mutable_training()->set_steps(22);
    return curve(launch);
  }

  static void expect_near(const std::map<int64_t, double>& a, const std::map<int64_t, double>& b,
                          double most, const std::string& what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    for (const auto& [step, loss] : a) {
      EXPECT_NEAR(loss, b.at(step), most * std::abs(b.at(step))) << what << " step " << step;
    }
  }

  // Of a weight's chunks, with those of its moments.
  static std::set<std::string> hashes(const proto::CheckpointManifest& manifest,
                                      const std::string& name, bool with_moments = true) {
    std::set<std::string> all;
    for (const proto::TensorEntry& entry : manifest.tensors()) {
      if (entry.name() != name) continue;
      if (!with_moments && entry.role() != proto::TENSOR_ROLE_WEIGHT) continue;
      for (const proto::Tile& tile : entry.tiles()) {
        for (const proto::ChunkRef& chunk : tile.chunks()) all.insert(chunk.hash());
      }
    }
    return all;
  }

  MemoryCluster base_;
};

std::string name_of(MeshDegrees mesh, int zero) {
  return std::to_string(mesh.data) + "x" + std::to_string(mesh.sequence) + "x" +
         std::to_string(mesh.tensor) + " zero " + std::to_string(zero);
}

TEST_F(AdapterTraining, LearnsAndLeavesTheBaseAsItIs) {
  MemoryCluster cluster;
  proto::LaunchRecord launch = tuned({}, "dropout: 0");
  launch.mutable_spec()->mutable_training()->set_steps(200);
  launch.mutable_spec()->mutable_training()->mutable_optimizer()->set_learning_rate(1e-2);
  run(launch, cluster);
  EXPECT_LT(cluster.losses().at(1), base_.losses().at(1) - 0.5);  // as far as the base is
  // Beside what does not learn, of the same batches.
  MemoryCluster still;
  launch.mutable_spec()->mutable_training()->mutable_optimizer()->set_learning_rate(1e-30);
  run(launch, still);
  const auto mean_of_last = [](const MemoryCluster& of) {
    double sum = 0;
    int count = 0;
    for (const proto::MetricRecord& record : of.metrics) {
      if (record.task() != "lm" || record.step() <= 100 || record.values().count("loss") == 0) {
        continue;
      }
      sum += record.values().at("loss");
      ++count;
    }
    return sum / count;
  };
  EXPECT_LT(mean_of_last(cluster), mean_of_last(still) - 0.01);
  const proto::CheckpointManifest& before = base_.checkpoints.back();
  const proto::CheckpointManifest& after = cluster.checkpoints.back();
  int frozen = 0, adapters = 0, moments = 0;
  for (const proto::TensorEntry& entry : after.tensors()) {
    const bool of_adapter = entry.name().find(".lora_") != std::string::npos;
    const bool of_head = entry.name().starts_with("kind.");
    if (entry.role() != proto::TENSOR_ROLE_WEIGHT) {
      ++moments;
      EXPECT_TRUE(of_adapter || of_head) << entry.name();
    } else if (of_adapter) {
      ++adapters;
    } else if (!of_head) {
      ++frozen;
      // The base's moments are entries of the same name, so its weight's chunks are among more.
      for (const std::string& hash : hashes(after, entry.name())) {
        EXPECT_TRUE(hashes(before, entry.name()).contains(hash)) << entry.name();
      }
    }
  }
  EXPECT_EQ(frozen, 2 + 2 * 12 + 2);
  EXPECT_EQ(adapters, 2 * 4 * 2);
  EXPECT_EQ(moments, 2 * (adapters + 1));
  EXPECT_EQ(after.adapter().targets_size(), 3);  // which all-linear means
  EXPECT_EQ(after.adapter().base_model(), "ckpt-1");
}

// Steps between checkpoints: each chunk of what is frozen is put once, by the first one.
TEST_F(AdapterTraining, TheFrozenTensorsAreStoredOnce) {
  for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{2, 1, 2}}) {
    MemoryCluster cluster;
    run(tuned(mesh), cluster);
    ASSERT_GT(cluster.checkpoints.size(), 5U);
    const auto embedding = hashes(cluster.checkpoints.back(), "transformer.wte.weight");
    ASSERT_FALSE(embedding.empty());
    for (const std::string& hash : embedding) EXPECT_EQ(cluster.puts.count(hash), 1U);
    for (const proto::CheckpointManifest& manifest : cluster.checkpoints) {
      EXPECT_EQ(hashes(manifest, "transformer.wte.weight"), embedding);
      EXPECT_EQ(manifest.tensors_size(), cluster.checkpoints.back().tensors_size());
      int64_t bytes = 0;
      for (const proto::TensorEntry& entry : manifest.tensors()) {
        for (const proto::Tile& tile : entry.tiles()) {
          for (const proto::ChunkRef& chunk : tile.chunks()) bytes += chunk.size();
        }
      }
      EXPECT_EQ(manifest.bytes(), bytes);
    }
  }
}

TEST_F(AdapterTraining, EveryMeshAndLevelHasTheSameCurve) {
  for (const std::string adapter : {kAdapter, kDora}) {
    const auto one = short_curve(tuned({}, "", adapter));
    for (const MeshDegrees mesh : {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2},
                                   MeshDegrees{1, 1, 3}, MeshDegrees{2, 1, 2}}) {
      std::map<int64_t, double> level0;
      for (const int zero : {0, 1, 2, 3}) {
        if (mesh.data * mesh.sequence == 1 && zero > 0) continue;
        proto::LaunchRecord launch = tuned(mesh, "", adapter);
        launch.mutable_spec()->mutable_parallel()->set_zero(zero);
        launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
        const auto losses = short_curve(launch);
        expect_near(losses, one, 1e-4, name_of(mesh, zero) + adapter);
        if (zero == 0) level0 = losses;
        if (zero != 1) continue;
        EXPECT_EQ(losses, level0) << name_of(mesh, zero) << adapter;
      }
    }
  }
}

// Magnitudes begin as the norms of what the job starts from, in the precision that it is kept in,
// so the adapted model is that one at first; and they learn.
TEST_F(AdapterTraining, MagnitudesBeginAsNorms) {
  for (const char* precision : {"precision: fp32", "precision: bf16", "precision: fp16"}) {
    for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{2, 1, 2}}) {
      for (const int zero : {0, 1, 3}) {
        const std::string more = precision + std::string(", dropout: 0");
        const auto begins = [&](const std::string& adapter) {
          proto::LaunchRecord launch = tuned(mesh, more, adapter);
          launch.mutable_spec()->mutable_adapter()->clear_dropout();
          launch.mutable_spec()->mutable_parallel()->set_zero(zero);
          launch.mutable_spec()->mutable_training()->set_steps(1);
          return curve(launch).at(1);
        };
        const double bound = precision == std::string("precision: fp32") ? 1e-6 : 2e-3;
        EXPECT_NEAR(begins(kDora) / begins(kAdapter), 1, bound) << precision << name_of(mesh, zero);
      }
    }
  }
  MemoryCluster cluster;
  run(tuned({}, "", kDora), cluster);
  const std::string name = "transformer.h.1.mlp.c_fc.lora_magnitude_vector";
  const auto first = hashes(cluster.checkpoints.front(), name, false);
  EXPECT_FALSE(first.empty());
  EXPECT_NE(hashes(cluster.checkpoints.back(), name, false), first);
}

// A row of zeros has no direction.
TEST_F(AdapterTraining, DoraRefusesAWeightWithoutANorm) {
  proto::LaunchRecord launch = tuned({1, 1, 2}, "", kDora);
  launch.clear_base();
  launch.mutable_spec()->mutable_model()->set_from("obj-model");
  const fs::path path = folder_ / "obj-model";
  fs::create_directories(path);
  const std::string config = R"({"model_type": "gpt2", "n_layer": 2, "n_head": 3, "n_embd": 24,
      "n_positions": 32, "vocab_size": 257})";
  std::ofstream(path / "config.json") << config;
  const ModelFamily& family = *find_family("gpt2");
  std::vector<SafetensorSpec> specs;
  for (const ParameterInfo& info : family.plan(**family.parse_config(config), 1, 0)) {
    specs.push_back({info.name, {info.shape.extents().begin(), info.shape.extents().end()}});
  }
  const auto values = [](const SafetensorSpec& spec, const FloatSink& sink) {
    std::vector<float> all(static_cast<size_t>(Shape(spec.shape).elements()), 1);
    if (spec.name == "transformer.h.1.mlp.c_proj.weight") {  // [in, out]
      for (size_t i = 5; i < all.size(); i += 24) all[i] = 0;
    }
    return sink(all);
  };
  ASSERT_TRUE(write_safetensors((path / "model.safetensors").string(), specs, values).ok());
  try {
    on_ranks(launch, [](Rank&, const proto::JobSpec&, Training&) {});
    ADD_FAILURE() << "a norm of 0 was divided by";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().field(), "adapter.dora");
    EXPECT_NE(error.status().rule().find("h.1.mlp.c_proj.weight gives only zeros for output 5"),
              std::string::npos)
        << error.status().to_string();
  }
}

TEST_F(AdapterTraining, ResumesBitForBit) {
  for (const char* precision : {"precision: fp32", "precision: bf16", "precision: fp16"}) {
    for (const auto& [zero, adapter] : {std::pair{0, kAdapter}, std::pair{3, kDora}}) {
      proto::LaunchRecord attempt = tuned({2, 1, 1}, precision, adapter);
      attempt.mutable_spec()->mutable_parallel()->set_zero(zero);
      const auto whole = curve(attempt);
      MemoryCluster cluster;
      cluster.chunks = base_.chunks;
      for (const int64_t death : {17, 33, -1}) {
        cluster.die_after_step = death;
        if (!cluster.checkpoints.empty()) *attempt.mutable_resume() = cluster.checkpoints.back();
        if (death < 0) {
          ASSERT_TRUE(train(attempt, cluster).ok());
        } else {
          EXPECT_THROW(static_cast<void>(train(attempt, cluster)), StatusError);
        }
      }
      EXPECT_EQ(cluster.losses(), whole) << precision << " zero " << zero;
      for (const std::string& hash : hashes(cluster.checkpoints.back(), "transformer.wte.weight")) {
        EXPECT_EQ(cluster.puts.count(hash), 1U) << precision << " zero " << zero;
      }
    }
  }
}

TEST_F(AdapterTraining, HalfPrecisionFollowsFp32) {
  for (const std::string adapter : {kAdapter, kDora}) {
    const auto fp32 = short_curve(tuned({}, "", adapter));
    for (const std::string precision : {"precision: bf16", "precision: fp16"}) {
      for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{1, 1, 2}}) {
        expect_near(short_curve(tuned(mesh, precision, adapter)), fp32, 0.02,
                    precision + name_of(mesh, 0) + adapter);
      }
      for (const int zero : {1, 3}) {
        proto::LaunchRecord launch = tuned({2, 1, 1}, precision, adapter);
        launch.mutable_spec()->mutable_parallel()->set_zero(zero);
        expect_near(short_curve(launch), fp32, 0.02,
                    precision + name_of({2, 1, 1}, zero) + adapter);
      }
    }
  }
}

// A classifier's folder without a head of tokens: no task may read one that nobody made and nobody
// trains; where no task reads it, it is drawn, so that no checkpoint holds what memory held.
TEST_F(AdapterTraining, TheHeadOfTokensIsNotWhatMemoryHeld) {
  const std::string config =
      R"({"model_type": "gpt2", "n_layer": 2, "n_head": 3, "n_embd": 24, "n_positions": 32,
          "vocab_size": 257, "tie_word_embeddings": false})";
  const fs::path path = folder_ / "obj-model";
  fs::create_directories(path);
  std::ofstream(path / "config.json") << config;
  const ModelFamily& family = *find_family("gpt2");
  std::vector<SafetensorSpec> specs{{"score.weight", {3, 24}}};
  for (const ParameterInfo& info : family.plan(**family.parse_config(config), 1, 0)) {
    if (info.name == "lm_head.weight") continue;
    specs.push_back({info.name, {info.shape.extents().begin(), info.shape.extents().end()}});
  }
  const auto ones = [](const SafetensorSpec& spec, const FloatSink& sink) {
    return sink(std::vector<float>(static_cast<size_t>(Shape(spec.shape).elements()), 1));
  };
  ASSERT_TRUE(write_safetensors((path / "model.safetensors").string(), specs, ones).ok());

  for (const int zero : {0, 3}) {
    proto::LaunchRecord launch = tuned({2, 1, 1});
    launch.clear_base();
    launch.mutable_spec()->mutable_model()->set_from("obj-model");
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    MemoryCluster cluster;
    const auto refused = [&] { return train(launch, cluster); };
    EXPECT_THROW(static_cast<void>(refused()), StatusError);
    launch.mutable_spec()->mutable_tasks()->DeleteSubrange(0, 1);
    on_ranks(launch, [&](Rank&, const proto::JobSpec&, Training& training) {
      for (const auto& tensor : training.state_tensors()) {
        if (tensor.info->name != "lm_head.weight") continue;
        const std::vector<float> values = tensor.value.to_vector();
        double squares = 0;
        for (const float value : values) squares += double{value} * value;
        EXPECT_NEAR(std::sqrt(squares / static_cast<double>(values.size())), 0.02, 0.002) << zero;
      }
    });
  }
}

// What is frozen has its values, and neither gradients nor moments nor masters.
TEST_F(AdapterTraining, WhatIsFrozenCostsItsValuesOnly) {
  for (const auto& [precision, dtype] :
       {std::pair{"precision: fp32", DType::kF32}, std::pair{"precision: bf16", DType::kBF16},
        std::pair{"precision: fp16", DType::kF16}}) {
    proto::LaunchRecord launch = tuned({}, precision);
    MemoryCluster cluster;
    cluster.chunks = base_.chunks;
    testing::run_ranks(1, [&](Rank& rank) {
      MemoryProgress progress(cluster);
      const auto training = set_up(rank, launch, progress);
      ASSERT_TRUE(training) << training.error().to_string();
      AdamW& optimizer = *(*training)->optimizer;
      for (size_t i = 0; i < optimizer.parameters().size(); ++i) {
        const auto& [info, value] = optimizer.parameters()[i];
        const AdamW::State& state = optimizer.states()[i];
        EXPECT_EQ(value.requires_grad(), info.trained) << info.name;
        EXPECT_EQ(static_cast<bool>(state.first_moment), info.trained) << info.name;
        EXPECT_EQ(static_cast<bool>(state.second_moment), info.trained) << info.name;
        EXPECT_EQ(value.dtype(), value_dtype(info.keep_fp32, dtype)) << info.name;
        if (info.trained) continue;
        EXPECT_FALSE(state.master.low) << info.name;
        EXPECT_EQ(state.master.numbers.raw(), value.raw()) << info.name;
      }
    });
  }
}

// A job from a checkpoint with an adapter begins with the merged weights: its validation loss is
// the first job's own, whether it has an adapter of its own or trains everything, on any mesh.
TEST_F(AdapterTraining, AFurtherJobBeginsWithTheMergedWeights) {
  for (const std::string dora : {"false", "true"}) {
    MemoryCluster first;
    proto::LaunchRecord own = tuned(
        {}, "",
        "adapter: {type: lora, rank: 4, alpha: 16, rslora: true, targets: [all-linear], dora: " +
            dora + "}\n");
    own.mutable_spec()->mutable_training()->set_evaluate_every(50);  // its last step
    run(own, first);
    const auto begins = [&](MeshDegrees mesh, const std::string& adapter, int zero,
                            const proto::CheckpointManifest& from) {
      proto::LaunchRecord launch = tuned(mesh, "", adapter);
      launch.mutable_spec()->mutable_parallel()->set_zero(zero);
      proto::TrainingSpec& training = *launch.mutable_spec()->mutable_training();
      training.set_steps(1);
      training.set_evaluate_every(1);
      training.mutable_optimizer()->set_learning_rate(1e-30);  // nothing is learned
      *launch.mutable_base() = from;
      MemoryCluster cluster;
      cluster.chunks = first.chunks;
      const Status status = train(launch, cluster);
      EXPECT_TRUE(status.ok()) << status.to_string();
      return cluster.checkpoints.back().validation_loss();
    };
    proto::CheckpointManifest without = first.checkpoints.back();
    without.clear_adapter();
    ASSERT_TRUE(without.has_validation_loss());
    const double learned = without.validation_loss();
    EXPECT_GT(std::abs(learned - begins({}, "", 0, without)), 1e-3);
    for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{1, 1, 2}, MeshDegrees{2, 1, 1}}) {
      for (const int zero : {0, 3}) {
        for (const std::string adapter : {"", kAdapter}) {
          EXPECT_NEAR(begins(mesh, adapter, zero, first.checkpoints.back()) / learned, 1, 1e-5)
              << name_of(mesh, zero) << adapter << dora;
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft
