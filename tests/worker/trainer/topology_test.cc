// Topology-invariant training: losses, gradients and weights of a mesh are those of one rank, bit
// for bit. A selection; topology_meshes_test.cc has every mesh.
#include "tests/worker/trainer/topology_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

// Two rows: ranks share the tokens of a row. Eight: each has whole rows.
TEST_F(Topology, MeshesHaveTheBitsOfOneRank) {
  for (const char* model : {kGpt2, kLlama, kQwen3}) {
    for (const char* settings : {"batch_size: 2", "batch_size: 8, precision: bf16"}) {
      const std::string text = job(settings, kLm, "pretrain", model);
      const Trace one = run(text, {});
      ASSERT_EQ(one.losses.size(), size_t{kSteps});
      for (const MeshDegrees mesh : {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1},
                                     MeshDegrees{1, 1, 2}, MeshDegrees{2, 2, 2}}) {
        EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh) << text;
      }
    }
  }
}

// Ranks of a tensor axis hold the same head of keys, ranks of a row exchange it, or both.
TEST_F(Topology, HeadsOfKeysMayBeFewerThanRanks) {
  for (const char* settings : {"batch_size: 2", "batch_size: 2, precision: bf16"}) {
    for (const auto& model : {few_keys("llama", 2, 4), few_keys("qwen3", 1, 8)}) {
      const std::string text = job(settings, kLm, "pretrain", model);
      const Trace one = run(text, {}, 0, 3);
      for (const MeshDegrees mesh :
           {MeshDegrees{1, 1, 4}, MeshDegrees{1, 8, 1}, MeshDegrees{1, 4, 2}}) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "") << name_of(mesh) << text;
      }
    }
  }
  const std::string text = job("batch_size: 8", kLm, "pretrain", few_keys("llama", 1, 8));
  const Trace one = run(text, {}, 0, 3);
  EXPECT_EQ(difference(one, run(text, {1, 1, 8}, 0, 3)), "");
  EXPECT_EQ(difference(one, run(text, {2, 1, 4}, 0, 3)), "");
  expect_near(one, run(as_usual(text), {}, 0, 3));
}

// Twelve heads on ranks that are a multiple of no divisor of theirs, in a row and along the tensor
// axis; blocks of a vocabulary of 1002 that are longer by one here and there.
TEST_F(Topology, HeadsAndVocabularyNeedNotDivideEvenly) {
  for (const char* settings : {"batch_size: 1", "batch_size: 2, precision: bf16"}) {
    const std::string text = job(settings, kLm, "pretrain", kUneven);
    const Trace one = run(text, {}, 0, 3);
    for (const MeshDegrees mesh :
         {MeshDegrees{1, 1, 4}, MeshDegrees{1, 8, 1}, MeshDegrees{1, 4, 2}, MeshDegrees{1, 2, 4}}) {
      EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "") << name_of(mesh) << text;
    }
  }
}

// Ranks of a row have parts of the heads that read one head of keys, or none at all.
TEST_F(Topology, GroupsOfHeadsNeedNotDivideEvenly) {
  for (const char* settings : {"batch_size: 1", "batch_size: 1, precision: bf16"}) {
    for (const auto& model :
         {uneven_keys("llama", 12, 3), uneven_keys("qwen3", 12, 2), uneven_keys("llama", 12, 6),
          uneven_keys("llama", 14, 2), uneven_keys("qwen3", 4, 2), uneven_keys("llama", 2, 1)}) {
      const std::string text = job(settings, kLm, "pretrain", model);
      const Trace one = run(text, {}, 0, 3);
      for (const MeshDegrees mesh : {MeshDegrees{1, 2, 1}, MeshDegrees{1, 4, 1},
                                     MeshDegrees{1, 8, 1}, MeshDegrees{1, 4, 2}}) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "") << name_of(mesh) << text;
      }
    }
  }
  const std::string text = job("batch_size: 8", kLm, "pretrain", uneven_keys("llama", 12, 2));
  const Trace one = run(text, {}, 0, 3);
  expect_near(one, run(as_usual(text), {}, 0, 3));
}

// Ranks of the tensor axis have parts of the heads that read one head of keys, which two or more of
// them hold: of 12 heads with 3, of 24 with 3 whose readers are on up to four ranks.
TEST_F(Topology, TheTensorAxisMayCutGroupsOfHeads) {
  for (const char* settings : {"batch_size: 2", "batch_size: 2, precision: bf16"}) {
    for (const auto& model :
         {uneven_keys("llama", 12, 3), uneven_keys("qwen3", 24, 3), uneven_keys("qwen2", 20, 5)}) {
      const std::string text = job(settings, kLm, "pretrain", model);
      const Trace one = run(text, {}, 0, 3);
      for (const MeshDegrees mesh : {MeshDegrees{1, 1, 2}, MeshDegrees{1, 1, 4},
                                     MeshDegrees{2, 1, 4}, MeshDegrees{1, 4, 2}}) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "") << name_of(mesh) << text;
      }
    }
    const std::string text = job(settings, kLm, "pretrain", uneven_keys("qwen3", 24, 3));
    EXPECT_EQ(difference(run(text, {}, 0, 3), run(text, {1, 1, 8}, 0, 3)), "") << settings;
  }
  const auto with = [](const std::string& settings) {
    return job(settings, kLm, "pretrain", uneven_keys("qwen3", 12, 3));
  };
  const Trace one = run(with("batch_size: 8"), {});
  for (int zero = 1; zero <= 3; ++zero) {
    EXPECT_EQ(difference(one, run(with("batch_size: 8"), {2, 1, 4}, zero)), "") << zero;
  }
  for (const char* what : {"selective", "full"}) {
    const std::string text = with(std::string("batch_size: 8, activation_checkpointing: ") + what);
    EXPECT_EQ(difference(one, run(text, {1, 2, 4})), "") << what;
  }
  expect_near(one, run(as_usual(with("batch_size: 8")), {}));
}

// 2 x 47 labels: a label's share in the mean, 1 / 94, is further from its nearest fp32 than half an
// ulp below 1, so that the two are not alike, whoever divides them.
TEST_F(Topology, TheNumberOfLabelsChangesNothing) {
  std::string text = job("batch_size: 2");
  text.replace(text.find("n_positions: 32"), 15, "n_positions: 48");
  text.replace(text.find("sequence_length: 16"), 19, "sequence_length: 48");
  const Trace one = run(text, {}, 0, 1);
  for (const MeshDegrees mesh :
       {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2}}) {
    EXPECT_EQ(difference(one, run(text, mesh, 0, 1)), "") << name_of(mesh);
  }
}

// The same comparison finds that a run that is not topology-invariant depends on the mesh, along
// each axis.
TEST_F(Topology, WithoutItMeshesDiffer) {
  const std::string text = as_usual(job("batch_size: 2"));
  const Trace one = run(text, {});
  for (const MeshDegrees mesh :
       {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2}}) {
    EXPECT_NE(difference(one, run(text, mesh)), "") << name_of(mesh);
  }
}

TEST_F(Topology, ItIsTheTrainingOfOtherJobs) {
  for (const char* model : {kGpt2, kLlama, kQwen3}) {
    const std::string text = job("batch_size: 8", kLm, "pretrain", model);
    expect_near(run(text, {}), run(as_usual(text), {}));
  }
}

TEST_F(Topology, EveryLevelOfZeroAndEachRecomputationHasTheSameBits) {
  for (const char* model : {kGpt2, kLlama, kQwen3}) {
    const auto with = [&](const std::string& settings) {
      return job(settings, kLm, "pretrain", model);
    };
    const Trace one = run(with("batch_size: 8"), {});
    for (int zero = 1; zero <= 3; ++zero) {
      EXPECT_EQ(difference(one, run(with("batch_size: 8"), {2, 1, 2}, zero)), "") << zero;
    }
    for (const char* what : {"selective", "full"}) {
      const std::string text =
          with(std::string("batch_size: 8, activation_checkpointing: ") + what);
      EXPECT_EQ(difference(one, run(text, {1, 2, 2})), "") << what;
    }
  }
}

// Rounds of eight rows, whatever the ranks.
TEST_F(Topology, RoundsOfTheSameRowsHaveTheSameBits) {
  const Trace one = run(job("batch_size: 24, micro_batch_size: 8"), {});
  for (int zero = 0; zero <= 3; ++zero) {
    EXPECT_EQ(difference(one, run(job("batch_size: 24, micro_batch_size: 4"), {2, 1, 2}, zero)), "")
        << zero;
  }
}

// Two tasks, with evaluations: the whole curve and the best validation loss.
TEST_F(Topology, TrainingWithEvaluationsGoesOnOnAnotherMesh) {
  const std::string text =
      job("batch_size: 8, evaluate_every: 4", std::string(kLm) + ", " + kClasses, "multi_task");
  const auto all = [](MemoryCluster& cluster) {
    std::map<std::pair<int64_t, std::string>, double> values;
    for (const proto::MetricRecord& record : cluster.metrics) {
      for (const char* name : {"loss", "gradient_norm", "validation_loss", "validation_accuracy"}) {
        const auto at = record.values().find(name);
        if (at != record.values().end()) values[{record.step(), name}] = at->second;
      }
    }
    return values;
  };
  MemoryCluster one;
  ASSERT_TRUE(train(record(text, {}), one).ok());
  for (const MeshDegrees to : {MeshDegrees{2, 1, 2}, MeshDegrees{1, 4, 1}}) {
    MemoryCluster cluster;
    cluster.control_at_step = 6;
    cluster.control = proto::CONTROL_KIND_PAUSE;
    ASSERT_TRUE(train(record(text, {1, 1, 2}), cluster).ok());
    ASSERT_EQ(cluster.finishes.back().outcome(), "paused");
    cluster.control_at_step = -1;
    proto::LaunchRecord launch = record(text, to);
    *launch.mutable_resume() = cluster.checkpoints.back();
    ASSERT_TRUE(train(launch, cluster).ok());
    EXPECT_EQ(all(cluster), all(one)) << name_of(to);
    EXPECT_NE(cluster.starts.back().resume_note().find("bit for bit"), std::string::npos);
  }
}

// Heads of keys that several ranks have are written once, and found by ranks that have others.
TEST_F(Topology, SharedHeadsOfKeysGoOnOnAnotherMesh) {
  for (const char* settings : {"batch_size: 8", "batch_size: 8, precision: bf16"}) {
    const std::string text = job(settings, kLm, "pretrain", uneven_keys("qwen3", 12, 3));
    const auto losses = [](const MemoryCluster& cluster) {
      std::map<int64_t, double> values;
      for (const proto::MetricRecord& record : cluster.metrics) {
        const auto at = record.values().find("loss");
        if (at != record.values().end()) values[record.step()] = at->second;
      }
      return values;
    };
    MemoryCluster one;
    ASSERT_TRUE(train(record(text, {}), one).ok());
    const proto::CheckpointManifest& expected = one.checkpoints.back();
    for (const int zero : {0, 1}) {
      MemoryCluster cluster;
      cluster.control_at_step = 6;
      cluster.control = proto::CONTROL_KIND_PAUSE;
      proto::LaunchRecord first = record(text, {2, 1, 4});
      first.mutable_spec()->mutable_parallel()->set_zero(zero);
      ASSERT_TRUE(train(first, cluster).ok());
      cluster.control_at_step = -1;
      proto::LaunchRecord second = record(text, {1, 2, 2});
      second.mutable_spec()->mutable_parallel()->set_zero(zero);
      *second.mutable_resume() = cluster.checkpoints.back();
      ASSERT_TRUE(train(second, cluster).ok());
      EXPECT_EQ(losses(cluster), losses(one)) << zero;
      EXPECT_EQ(cluster.checkpoints.back().bytes(), expected.bytes()) << zero;
    }
  }
}

}  // namespace
}  // namespace weft
