#include "worker/trainer.h"

#include <cmath>

#include "kernels/cpu/level.h"
#include "kernels/tensor/tensor.h"
#include "proto/base/hash.h"
#include "proto/base/retry.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/setup.h"

namespace weft {
namespace {

TEST_F(Trainer, LearnsAndFinishes) {
  MemoryCluster cluster;
  ASSERT_TRUE(train(record(kTwoTasks, {}), cluster).ok());
  ASSERT_EQ(cluster.finishes.size(), 1U);
  EXPECT_EQ(cluster.finishes[0].outcome(), "succeeded");
  const auto losses = cluster.losses();
  ASSERT_EQ(losses.size(), 50U);
  EXPECT_LT(losses.at(50), losses.at(1));
  EXPECT_TRUE(cluster.finishes[0].results().contains("kind.validation_accuracy"));
  EXPECT_EQ(cluster.checkpoints.back().state().step(), 50);
  EXPECT_EQ(cluster.checkpoints.back().why(), "end");
}

TEST_F(Trainer, SharesOfStepsFollowTheWeights) {
  MemoryCluster cluster;
  ASSERT_TRUE(train(record(kTwoTasks, {}), cluster).ok());
  int64_t lm = 0;
  for (const auto& metric : cluster.metrics) {
    if (metric.values().contains("loss") && metric.task() == "lm") ++lm;
  }
  EXPECT_NEAR(static_cast<double>(lm), 50 * 2.0 / 3, 1);
}

TEST_F(Trainer, KilledTwiceInsideAnEpochTheLossCurveIsTheSameBitForBit) {
  for (const MeshDegrees mesh : {MeshDegrees{1, 1, 1}, MeshDegrees{1, 1, 2}}) {
    const auto whole = losses(kTwoTasks, mesh);
    MemoryCluster cluster;
    proto::LaunchRecord attempt = record(kTwoTasks, mesh);
    for (const int64_t death : {17, 33, -1}) {
      cluster.die_after_step = death;
      if (!cluster.checkpoints.empty()) {
        *attempt.mutable_resume() = cluster.checkpoints.back();
        attempt.set_attempt(attempt.attempt() + 1);
      }
      if (death < 0) {
        ASSERT_TRUE(train(attempt, cluster).ok());
      } else {
        EXPECT_THROW(static_cast<void>(train(attempt, cluster)), StatusError);
      }
    }
    EXPECT_EQ(cluster.losses(), whole);
    ASSERT_EQ(cluster.starts.size(), 3U);
    // The newest one whose chunks were stored in time, how busy the machine may be.
    EXPECT_GE(cluster.starts[1].step(), 7);
    EXPECT_EQ(cluster.starts[2].step(), attempt.resume().state().step());
    EXPECT_NE(cluster.starts[2].resume_note().find("bit for bit"), std::string::npos);
  }
}

TEST_F(Trainer, ResumesOnAnotherMesh) {
  const auto check = [&](const std::string& job, MeshDegrees first, const std::string& note) {
    const auto whole = losses(job, {});
    MemoryCluster cluster;
    cluster.die_after_step = 24;
    EXPECT_THROW(static_cast<void>(train(record(job, first), cluster)), StatusError);
    cluster.die_after_step = -1;
    proto::LaunchRecord attempt = record(job, {2, 2, 1});
    *attempt.mutable_resume() = cluster.checkpoints.back();
    for (const proto::TensorEntry& tensor : attempt.resume().tensors()) {
      int64_t elements = 1, stored = 0;
      for (const int64_t extent : tensor.shape()) elements *= extent;
      for (const proto::Tile& tile : tensor.tiles()) {
        for (const proto::ChunkRef& chunk : tile.chunks()) stored += chunk.size();
      }
      EXPECT_EQ(stored, 4 * elements) << tensor.name();
    }
    ASSERT_TRUE(train(attempt, cluster).ok());
    EXPECT_NE(cluster.starts.back().resume_note().find(note), std::string::npos);
    for (const auto& [step, loss] : cluster.losses()) {
      EXPECT_NEAR(loss, whole.at(step), 1e-4 * std::abs(whole.at(step))) << note << " " << step;
    }
  };
  check(kTwoTasks, {1, 1, 3},
        "data 1 x sequence 1 x tensor 3 to data 2 x sequence 2 (ring) x tensor 1");
  // Each head of keys is held twice, and stored once.
  check(two_grouped_tasks(), {1, 1, 4},
        "data 1 x sequence 1 x tensor 4 to data 2 x sequence 2 (ring) x tensor 1");
}

// Programs that compute other bits are other builds, and no resume across them is called exact.
TEST_F(Trainer, ResumesOfAnotherBuildSaySo) {
  MemoryCluster cluster;
  cluster.die_after_step = 24;
  EXPECT_THROW(static_cast<void>(train(record(kTwoTasks, {}), cluster)), StatusError);
  cluster.die_after_step = -1;
  proto::LaunchRecord attempt = record(kTwoTasks, {});
  *attempt.mutable_resume() = cluster.checkpoints.back();
  ASSERT_TRUE(train(attempt, cluster).ok());
  EXPECT_NE(cluster.starts.back().resume_note().find("bit for bit"), std::string::npos);
  std::string build = attempt.resume().state().build();
  const size_t number = build.find(", arithmetic ");
  ASSERT_NE(number, std::string::npos) << build;
  const std::string level(cpu::name_of(cpu::level()));
  EXPECT_TRUE(build.substr(0, number).ends_with(", " + level)) << build;
  attempt.mutable_resume()->mutable_state()->set_build(build.substr(0, number));
  ASSERT_TRUE(train(attempt, cluster).ok());
  EXPECT_NE(cluster.starts.back().resume_note().find("the build or the processor changed"),
            std::string::npos);
}

// Though on CPUs it is.
TEST_F(Trainer, NoResumeIsCalledExactOfAJobThatForgoesIt) {
  std::string job = kTwoTasks;
  job.replace(job.find("seed: 17"), 8, "seed: 17, reproducible: none");
  const auto whole = losses(kTwoTasks, {});
  MemoryCluster cluster;
  cluster.die_after_step = 24;
  EXPECT_THROW(static_cast<void>(train(record(job, {}), cluster)), StatusError);
  cluster.die_after_step = -1;
  proto::LaunchRecord attempt = record(job, {});
  *attempt.mutable_resume() = cluster.checkpoints.back();
  ASSERT_TRUE(train(attempt, cluster).ok());
  EXPECT_EQ(cluster.losses(), whole);
  EXPECT_NE(cluster.starts.back().resume_note().find("training.reproducible is none"),
            std::string::npos);
}

// Heads: 3. Of 4 ranks that exchange them one has none; with 2 the second has one.
TEST_F(Trainer, EveryWayOverTheSequenceAxisHasTheLossesOfOneRank) {
  const auto one = losses(in_22_steps(kTwoTasks), {});
  const auto check = [&](int sequence, proto::SequenceAttention kind, int asked, int ulysses) {
    MemoryCluster cluster;
    proto::LaunchRecord job = record(in_22_steps(kTwoTasks), {1, sequence, 1});
    job.mutable_spec()->mutable_parallel()->set_sequence_attention(kind);
    job.mutable_spec()->mutable_parallel()->set_ulysses(asked);
    ASSERT_TRUE(train(job, cluster).ok());
    EXPECT_EQ(cluster.checkpoints.back().state().mesh().ulysses(), ulysses);
    for (const auto& [step, loss] : cluster.losses()) {
      EXPECT_NEAR(loss, one.at(step), 1e-4 * std::abs(one.at(step))) << step;
    }
  };
  check(3, proto::SEQUENCE_ATTENTION_AUTO, 0, 3);
  check(3, proto::SEQUENCE_ATTENTION_RING, 0, 1);
  check(4, proto::SEQUENCE_ATTENTION_ULYSSES, 0, 4);
  check(4, proto::SEQUENCE_ATTENTION_ULYSSES_RING, 2, 2);
}

TEST_F(Trainer, EveryMeshHasTheLossesOfOneRank) {
  const auto one = losses(in_22_steps(kTwoTasks), {});
  for (const MeshDegrees mesh :
       {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2}, MeshDegrees{4, 1, 1},
        MeshDegrees{1, 4, 1}, MeshDegrees{2, 2, 1}, MeshDegrees{2, 1, 2}, MeshDegrees{1, 2, 2},
        MeshDegrees{1, 1, 3}, MeshDegrees{1, 3, 1}}) {
    const auto meshed = losses(in_22_steps(kTwoTasks), mesh);
    ASSERT_EQ(meshed.size(), one.size());
    for (const auto& [step, loss] : meshed) {
      EXPECT_NEAR(loss, one.at(step), 1e-4 * std::abs(one.at(step)))
          << mesh.data << "x" << mesh.sequence << "x" << mesh.tensor << " step " << step;
    }
  }
}

TEST_F(Trainer, PauseAndCancelEndInACheckpoint) {
  for (const auto kind : {proto::CONTROL_KIND_PAUSE, proto::CONTROL_KIND_CANCEL}) {
    MemoryCluster cluster;
    cluster.control_at_step = 10;
    cluster.control = kind;
    ASSERT_TRUE(train(record(kTwoTasks, {1, 1, 2}), cluster).ok());
    ASSERT_EQ(cluster.finishes.size(), 1U);
    const bool pause = kind == proto::CONTROL_KIND_PAUSE;
    EXPECT_EQ(cluster.finishes[0].outcome(), pause ? "paused" : "cancelled");
    EXPECT_EQ(cluster.checkpoints.back().state().step(), cluster.finishes[0].step());
    EXPECT_LE(cluster.finishes[0].step(), 12);
  }
}

TEST_F(Trainer, ARequestedCheckpointDoesNotEndTheTraining) {
  MemoryCluster cluster;
  cluster.control_at_step = 10;
  cluster.control = proto::CONTROL_KIND_CHECKPOINT;
  cluster.control_times = 3;  // told again after lost connections: it stays one request
  proto::LaunchRecord launch = record(kTwoTasks, {2, 1, 1});
  launch.mutable_spec()->mutable_checkpoint()->set_every_steps(0);  // so that it waits for none
  ASSERT_TRUE(train(launch, cluster).ok());
  int requested = 0;
  for (const auto& manifest : cluster.checkpoints) {
    requested += manifest.why() == "request";
    EXPECT_TRUE(manifest.why() != "request" || manifest.request() == 1);
  }
  EXPECT_EQ(requested, 1);
  EXPECT_EQ(cluster.finishes[0].outcome(), "succeeded");
}

TEST_F(Trainer, AFullDiskDelaysTheCheckpointAndLosesNothing) {
  MemoryCluster cluster;
  // The checkpoint of step 7 waits, those of 14 to 28 are left out.
  cluster.full_disk_until_step = 30;
  cluster.event_by_step = 8;
  ASSERT_TRUE(train(record(kTwoTasks, {}), cluster).ok());
  EXPECT_EQ(cluster.checkpoints.back().state().step(), 50);
  ASSERT_FALSE(cluster.events.empty());
  EXPECT_EQ(cluster.events[0].type(), "checkpoint_waits");
  std::vector<int64_t> left_out;  // told once when it begins and once when it is over
  bool skipping = false;
  for (const proto::RankEvent& event : cluster.events) {
    if (event.type() == "checkpoint_waits") continue;
    EXPECT_EQ(event.type(), skipping ? "checkpoint_resumed" : "checkpoint_skipped");
    skipping = !skipping;
    const size_t count = event.message().rfind(' ');
    if (!skipping) left_out.push_back(std::stoll(event.message().substr(count)));
  }
  EXPECT_FALSE(skipping);
  ASSERT_FALSE(left_out.empty());
  EXPECT_GE(left_out[0], 3);
}

// They go with the first checkpoint of a job, which waits for room as any does.
TEST_F(Trainer, ATokenizersFilesAreStoredOnceAJobAndWaitForRoom) {
  fs::create_directories(folder_ / "obj-words");
  const std::string words = byte_tokenizer_json();
  std::ofstream(folder_ / "obj-words" / "tokenizer.json") << words;
  proto::LaunchRecord attempt = record(kTwoTasks, {2, 1, 1});
  attempt.mutable_spec()->mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_TOKENIZER_JSON);
  attempt.mutable_spec()->mutable_tokenizer()->set_from("obj-words");
  MemoryCluster cluster;
  cluster.full_disk_until_step = 10;
  cluster.event_by_step = 8;
  ASSERT_TRUE(train(attempt, cluster).ok());
  ASSERT_FALSE(cluster.events.empty());
  EXPECT_EQ(cluster.events[0].type(), "checkpoint_waits");
  const std::string hash = sha256_hex(words);
  for (const proto::CheckpointManifest& manifest : cluster.checkpoints) {
    ASSERT_EQ(manifest.tokenizer().chunks_size(), 1);
    EXPECT_EQ(manifest.tokenizer().chunks(0).hash(), hash);
  }
  ASSERT_GE(cluster.checkpoints.size(), 2U);
  EXPECT_EQ(cluster.puts.count(hash), 1U);

  attempt.set_attempt(2);
  *attempt.mutable_resume() = cluster.checkpoints[0];
  ASSERT_TRUE(train(attempt, cluster).ok());
  EXPECT_EQ(cluster.puts.count(hash), 1U);
  EXPECT_EQ(cluster.checkpoints.back().tokenizer().chunks(0).hash(), hash);
}

TEST_F(Trainer, TransferTakesTheTrunkAndMakesNewHeads) {
  MemoryCluster cluster;
  ASSERT_TRUE(train(record(kTwoTasks, {1, 1, 2}), cluster).ok());
  proto::LaunchRecord attempt = record(kTwoTasks, {});
  attempt.mutable_spec()->mutable_model()->clear_family();
  attempt.mutable_spec()->mutable_model()->clear_config();
  attempt.mutable_spec()->mutable_model()->set_from("ckpt-1");
  attempt.mutable_spec()->mutable_tasks(1)->set_name("fresh");
  *attempt.mutable_base() = cluster.checkpoints.back();
  MemoryCluster second;
  second.chunks = cluster.chunks;
  ASSERT_TRUE(train(attempt, second).ok());
  EXPECT_LT(second.losses().at(1), cluster.losses().at(1) - 0.5);  // the language model goes on
  EXPECT_EQ(second.starts[0].step(), 0);
}

// Of a checkpoint's classes a, b, c other data has two, or none; then the head begins anew.
TEST_F(Trainer, ARowOfAHeadGoesOnStandingForItsClass) {
  for (const std::string classes : {"abc", "bc", "xyz"}) {
    fs::create_directories(folder_ / ("obj-" + classes));
    std::ofstream rows(folder_ / ("obj-" + classes) / "rows.jsonl");
    for (size_t i = 0; i < 31; ++i) {
      rows << R"({"text": "word", "label": ")" << classes[i % classes.size()] << "\"}\n";
    }
  }
  const auto job_on = [&](const std::string& object) {
    proto::LaunchRecord made = record(kTwoTasks, {});
    made.mutable_spec()->mutable_training()->set_steps(6);
    made.mutable_spec()->mutable_tasks(1)->mutable_data()->set_train(object);
    made.mutable_spec()->mutable_tasks(1)->mutable_data()->clear_validation();
    return made;
  };
  const auto names_of = [](const proto::CheckpointManifest& manifest) {
    std::string text;
    for (const std::string& name : manifest.label_names(1).names()) text += name;
    return text;
  };
  const auto head_of = [](const proto::CheckpointManifest& manifest) {
    std::string hashes;
    for (const proto::TensorEntry& entry : manifest.tensors()) {
      if (entry.name() != "kind.score.weight" || entry.role() != proto::TENSOR_ROLE_WEIGHT)
        continue;
      for (const proto::Tile& tile : entry.tiles()) {
        for (const proto::ChunkRef& chunk : tile.chunks()) hashes += chunk.hash();
      }
    }
    return hashes;
  };
  MemoryCluster cluster;
  ASSERT_TRUE(train(job_on("obj-abc"), cluster).ok());
  const proto::CheckpointManifest base = cluster.checkpoints.back();
  EXPECT_EQ(names_of(base), "abc");
  for (const auto& [object, names] : {std::pair{"obj-bc", "abc"}, std::pair{"obj-xyz", "xyz"}}) {
    proto::LaunchRecord attempt = job_on(object);
    attempt.mutable_spec()->mutable_model()->set_from("ckpt-1");
    attempt.mutable_spec()->mutable_training()->mutable_optimizer()->set_learning_rate(1e-30);
    *attempt.mutable_base() = base;
    MemoryCluster second;
    second.chunks = cluster.chunks;
    ASSERT_TRUE(train(attempt, second).ok());
    EXPECT_EQ(names_of(second.checkpoints.back()), names);
    EXPECT_EQ(head_of(second.checkpoints.back()) == head_of(base), names == names_of(base));
  }
}

TEST_F(Trainer, BadInputIsNamed) {
  MemoryCluster cluster;
  const auto failure = [&](auto change) {
    proto::LaunchRecord bad = record(kTwoTasks, {});
    change(*bad.mutable_spec());
    try {
      return train(bad, cluster);
    } catch (const StatusError& error) {
      return error.status();
    }
  };
  Status status =
      failure([](auto& spec) { spec.mutable_tasks(0)->mutable_data()->set_train("obj-absent"); });
  EXPECT_NE(status.to_string().find("tasks[0].data.train"), std::string::npos);
  EXPECT_FALSE(retryable(status.code()));
  status = failure([](auto& spec) { spec.mutable_training()->set_sequence_length(33); });
  EXPECT_EQ(status.field(), "training.sequence_length") << status.to_string();
  status = failure([](auto& spec) { spec.mutable_tasks(1)->set_labels(2); });
  EXPECT_NE(status.to_string().find("tasks[1].data.train"), std::string::npos)
      << status.to_string();
  EXPECT_TRUE(cluster.metrics.empty());
}

// At the first step no learning rate is to blame.
TEST_F(Trainer, AModelThatIsNotFiniteIsNotBlamedOnTheLearningRate) {
  proto::LaunchRecord bad = record(kTwoTasks, {.data = 2});
  auto& config = *bad.mutable_spec()->mutable_model()->mutable_config()->mutable_fields();
  config["initializer_range"].set_number_value(999);  // beyond what fp16 holds
  bad.mutable_spec()->mutable_training()->set_precision(proto::PRECISION_FP16);
  MemoryCluster cluster;
  try {
    (void)train(bad, cluster);
    FAIL() << "trained";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().to_string(),
              "the loss is no longer finite at step 1 on rank 0; no weight was changed by it nor "
              "before, so look at the model's weights and configuration, and training.precision");
  }
  EXPECT_TRUE(cluster.metrics.empty());
}

TEST_F(Trainer, ARankHoldsItsShareOfTheParameters) {
  constexpr const char* kWide = R"(
name: wide
kind: pretrain
model:
  family: gpt2
  config: {n_layer: 1, n_head: 4, n_embd: 64, n_positions: 32, vocab_size: 4000}
tokenizer: {type: byte}
tasks: [{type: causal_lm, data: {train: obj-text}}]
training: {steps: 2, batch_size: 2, sequence_length: 16}
)";
  const auto parameter_bytes = [&](MeshDegrees mesh) {
    int64_t most = 0;
    std::mutex mutex;
    on_ranks(record(kWide, mesh), [&](Rank&, const auto&, Training& training) {
      int64_t bytes = 0;
      for (const Parameter& parameter : training.optimizer->parameters()) {
        bytes += static_cast<int64_t>(parameter.value.bytes());
      }
      const std::lock_guard lock(mutex);
      most = std::max(most, bytes);
    });
    return most;
  };
  const int64_t whole = parameter_bytes({});
  EXPECT_LE(static_cast<double>(parameter_bytes({1, 1, 2})), 1.05 * static_cast<double>(whole) / 2);
  EXPECT_LE(static_cast<double>(parameter_bytes({1, 1, 4})), 1.05 * static_cast<double>(whole) / 4);
}

}  // namespace
}  // namespace weft
