// Topology-invariant training of adapters: a mesh has the bits of one rank, and jobs go on on
// other meshes. topology_meshes_test.cc has every mesh.
#include <cmath>

#include "tests/worker/trainer/topology_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

class TopologyAdapters : public Topology {
 protected:
  // Of three steps, of which the first gives A no gradient.
  Trace three(const std::string& text, MeshDegrees mesh, const std::string& adapter, int zero = 0) {
    return run(text, mesh, zero, 3, adapter);
  }
};

TEST_F(TopologyAdapters, MeshesHaveTheBitsOfOneRank) {
  for (const char* adapter : {kLora, kDora}) {
    for (const char* model : {kGpt2, kLlama, kQwen3}) {
      for (const char* settings : {"batch_size: 2", "batch_size: 8, precision: bf16"}) {
        const std::string text = job(settings, kLm, "pretrain", model);
        const Trace one = three(text, {}, adapter);
        for (const MeshDegrees mesh : {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1},
                                       MeshDegrees{1, 1, 2}, MeshDegrees{2, 2, 2}}) {
          EXPECT_EQ(difference(one, three(text, mesh, adapter)), "")
              << name_of(mesh) << adapter << text;
        }
      }
    }
  }
}

// Copies of a head of keys on several ranks, whose adapters are as many; ranks that share a row.
TEST_F(TopologyAdapters, HeadsOfKeysMayBeFewerThanRanks) {
  for (const char* adapter : {kLora, kDora}) {
    for (const auto& model : {few_keys("llama", 2, 4), few_keys("qwen3", 1, 8)}) {
      const std::string text = job("batch_size: 2, precision: bf16", kLm, "pretrain", model);
      const Trace one = three(text, {}, adapter);
      for (const MeshDegrees mesh :
           {MeshDegrees{1, 1, 8}, MeshDegrees{1, 8, 1}, MeshDegrees{1, 2, 4}}) {
        EXPECT_EQ(difference(one, three(text, mesh, adapter)), "")
            << name_of(mesh) << adapter << text;
      }
    }
  }
}

// Adapters of heads of keys that the tensor axis cuts: ranks hold the same rows of B and the same
// magnitudes, which the norm counts once and any level of ZeRO stores.
TEST_F(TopologyAdapters, TheTensorAxisMayCutGroupsOfHeads) {
  constexpr const char* kEverywhere =
      "{type: lora, rank: 3, targets: [all-linear], dropout: 0.1, dora: true}";
  for (const char* adapter : {kLora, kDora, kEverywhere}) {
    for (const auto& model : {uneven_keys("llama", 12, 3), uneven_keys("qwen2", 20, 5)}) {
      for (const char* settings : {"batch_size: 8", "batch_size: 2, precision: bf16"}) {
        const std::string text = job(settings, kLm, "pretrain", model);
        const Trace one = three(text, {}, adapter);
        for (const MeshDegrees mesh :
             {MeshDegrees{1, 1, 2}, MeshDegrees{1, 1, 4}, MeshDegrees{1, 2, 4}}) {
          EXPECT_EQ(difference(one, three(text, mesh, adapter)), "")
              << name_of(mesh) << adapter << text;
        }
      }
    }
    const std::string text = job("batch_size: 8", kLm, "pretrain", uneven_keys("qwen3", 12, 3));
    const Trace one = three(text, {}, adapter);
    for (int zero = 1; zero <= 3; ++zero) {
      EXPECT_EQ(difference(one, three(text, {2, 1, 4}, adapter, zero)), "") << zero << adapter;
    }
  }
}

// One row of A, no dropout; what stands behind the attention only.
TEST_F(TopologyAdapters, RanksAndTargetsMayBeFew) {
  for (const char* adapter :
       {"{type: lora, rank: 1, targets: [all-linear], dora: true}",
        "{type: lora, rank: 8, alpha: 4, rslora: true, targets: [c_fc]}",
        "{type: lora, rank: 2, targets: [mlp.c_proj], dropout: 0.2, dora: true}",
        "{type: lora, rank: 5, targets: [attn.c_proj, c_attn]}"}) {
    const std::string text = job("batch_size: 4");
    const Trace one = three(text, {}, adapter);
    for (const MeshDegrees mesh : {MeshDegrees{4, 1, 1}, MeshDegrees{1, 1, 4}}) {
      EXPECT_EQ(difference(one, three(text, mesh, adapter)), "") << name_of(mesh) << adapter;
    }
  }
}

TEST_F(TopologyAdapters, EncodersAndImagesHaveThem) {
  add_images(WEFT_SOURCE_DIR);
  for (const char* adapter : {kLora, kDora}) {
    for (const std::string& text :
         {job("batch_size: 8", kClasses, "pretrain", kBert), image_job("batch_size: 8")}) {
      const Trace one = three(text, {}, adapter);
      for (const MeshDegrees mesh : {MeshDegrees{2, 1, 2}, MeshDegrees{1, 4, 2}}) {
        EXPECT_EQ(difference(one, three(text, mesh, adapter)), "")
            << name_of(mesh) << adapter << text;
      }
    }
  }
}

// The same adapters of a job that is not topology-invariant.
TEST_F(TopologyAdapters, ItIsTheTrainingOfOtherJobs) {
  for (const char* adapter : {kLora, kDora}) {
    for (const char* model : {kGpt2, kLlama, kQwen3}) {
      const std::string text = job("batch_size: 8", kLm, "pretrain", model);
      const Trace here = run(text, {}, 0, kSteps, adapter);
      expect_near(here, run(as_usual(text), {}, 0, kSteps, adapter));
      const Trace whole = run(text, {});
      EXPECT_GT(std::abs(here.norms[0] / whole.norms[0] - 1), 0.01);  // of fewer parameters
    }
  }
}

TEST_F(TopologyAdapters, EveryLevelOfZeroAndEachRecomputationHasTheSameBits) {
  for (const char* adapter : {kLora, kDora}) {
    const Trace one = three(job("batch_size: 8"), {}, adapter);
    for (int zero = 1; zero <= 3; ++zero) {
      EXPECT_EQ(difference(one, three(job("batch_size: 8"), {2, 1, 2}, adapter, zero)), "") << zero;
    }
    for (const char* what : {"selective", "full"}) {
      const std::string text = job(std::string("batch_size: 8, activation_checkpointing: ") + what);
      EXPECT_EQ(difference(one, three(text, {1, 2, 2}, adapter)), "") << what << adapter;
    }
    const Trace rounds = three(job("batch_size: 24, micro_batch_size: 8"), {}, adapter);
    const std::string text = job("batch_size: 24, micro_batch_size: 4");
    EXPECT_EQ(difference(rounds, three(text, {2, 1, 2}, adapter, 2)), "") << adapter;
  }
}

// The whole curve.
TEST_F(TopologyAdapters, TrainingGoesOnOnAnotherMesh) {
  const auto launched = [&](const std::string& text, MeshDegrees mesh, const char* adapter) {
    proto::LaunchRecord launch = record(text, mesh);
    *launch.mutable_spec()->mutable_adapter() = adapter_spec(adapter);
    return launch;
  };
  for (const char* adapter : {kLora, kDora}) {
    for (const char* precision : {"fp32", "bf16"}) {
      const std::string text = job(std::string("batch_size: 8, precision: ") + precision);
      MemoryCluster one;
      ASSERT_TRUE(train(launched(text, {}, adapter), one).ok());
      for (const MeshDegrees to : {MeshDegrees{2, 1, 2}, MeshDegrees{1, 4, 1}}) {
        MemoryCluster cluster;
        cluster.control_at_step = 6;
        cluster.control = proto::CONTROL_KIND_PAUSE;
        ASSERT_TRUE(train(launched(text, {1, 1, 2}, adapter), cluster).ok());
        ASSERT_EQ(cluster.finishes.back().outcome(), "paused");
        cluster.control_at_step = -1;
        proto::LaunchRecord launch = launched(text, to, adapter);
        *launch.mutable_resume() = cluster.checkpoints.back();
        ASSERT_TRUE(train(launch, cluster).ok());
        EXPECT_EQ(cluster.losses(), one.losses()) << name_of(to) << adapter << precision;
        EXPECT_NE(cluster.starts.back().resume_note().find("bit for bit"), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace weft
