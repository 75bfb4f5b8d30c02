// Every mesh of 1, 2, 4 and 8 ranks has the bits of one rank (topology_test.cc).
#include "tests/worker/trainer/topology_tasks_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

TEST_F(Topology, EveryMeshHasTheBitsOfOneRank) {
  for (const char* precision : {"fp32", "bf16"}) {
    for (const int batch : {1, 2, 4, 8, 16}) {
      const std::string text =
          job("batch_size: " + std::to_string(batch) + ", precision: " + precision);
      const Trace one = run(text, {});
      for (const MeshDegrees mesh : meshes(8)) {
        if (mesh.data > batch) continue;
        EXPECT_EQ(difference(one, run(text, mesh)), "")
            << name_of(mesh) << " " << precision << ", " << batch << " rows";
      }
    }
  }
}

TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithGroupedQueries) {
  for (const char* settings : {"batch_size: 1", "batch_size: 8, precision: bf16"}) {
    const std::string text = job(settings, kLm, "pretrain", kLlama);
    const Trace one = run(text, {});
    for (const MeshDegrees mesh : meshes(8)) {
      if (mesh.data > 1 && settings == std::string("batch_size: 1")) continue;
      EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh) << " " << settings;
    }
  }
}

TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithFewHeadsOfKeys) {
  for (const char* settings : {"batch_size: 1", "batch_size: 4, precision: bf16"}) {
    for (const auto& model : {few_keys("llama", 2, 4), few_keys("llama", 1, 8),
                              few_keys("qwen3", 2, 4), few_keys("qwen3", 1, 8)}) {
      const std::string text = job(settings, kLm, "pretrain", model);
      const Trace one = run(text, {});
      for (const MeshDegrees mesh : meshes(8)) {
        if (mesh.data > (settings == std::string("batch_size: 1") ? 1 : 4)) continue;
        EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh) << text;
      }
    }
  }
}

// Meshes whose tensor axis divides the heads. Of keys it may have parts of the readers of a head:
// of 12 heads with 3 four ranks have 1, 2, 2 and 1, of 24 with 3 eight ranks have one or two.
TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithUnevenHeadsAndVocabulary) {
  struct Model {
    std::string text;
    int heads;
  };
  const Model models[] = {{kUneven, 12},
                          {uneven_keys("llama", 12, 3), 12},
                          {uneven_keys("qwen3", 12, 3), 12},
                          {uneven_keys("qwen3", 12, 2), 12},
                          {uneven_keys("llama", 12, 6), 12},
                          {uneven_keys("qwen3", 24, 3), 24},
                          {uneven_keys("qwen2", 20, 5), 20},
                          {uneven_keys("llama", 14, 2), 14},
                          {uneven_keys("llama", 9, 3), 9},
                          {uneven_keys("qwen3", 4, 2), 4}};
  for (const char* settings : {"batch_size: 1", "batch_size: 4, precision: bf16"}) {
    for (const Model& model : models) {
      const std::string text = job(settings, kLm, "pretrain", model.text);
      const Trace one = run(text, {}, 0, 3);
      for (const MeshDegrees mesh : meshes(8)) {
        if (mesh.data > (settings == std::string("batch_size: 1") ? 1 : 4)) continue;
        if (model.heads % mesh.tensor != 0) continue;
        EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "") << name_of(mesh) << text;
      }
    }
  }
}

TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithAnEncoder) {
  for (const char* settings : {"batch_size: 8", "batch_size: 8, precision: bf16"}) {
    const std::string text = job(settings, kClasses, "pretrain", kBert);
    const Trace one = run(text, {});
    for (const MeshDegrees mesh : meshes(8)) {
      EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh) << " " << settings;
    }
  }
}

TEST_F(TopologyTasks, EveryMeshHasTheBitsOfOneRank) {
  write_tasks(WEFT_SOURCE_DIR);
  for (const char* task : {kMasked, kChoices, kPairs, kQuestions}) {
    for (const char* settings : {"batch_size: 16", "batch_size: 16, precision: bf16"}) {
      const std::string text = tasks_job(task, settings);
      const Trace one = run(text, {}, 0, 4);
      for (const MeshDegrees mesh : meshes(8)) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 4)), "") << name_of(mesh) << text;
      }
    }
  }
}

TEST_F(TopologyTasks, EveryMeshHasTheBitsOfOneRankWithTargets) {
  write_tasks(WEFT_SOURCE_DIR);
  for (const char* model : {kRelu, kGated}) {
    for (const char* settings : {"batch_size: 16", "batch_size: 16, precision: bf16"}) {
      const std::string text = writing_job(model, settings);
      const Trace one = run(text, {}, 0, 4);
      for (const MeshDegrees mesh : meshes(8)) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 4)), "") << name_of(mesh) << text;
      }
    }
  }
}

TEST_F(TopologyTasks, EveryMeshHasTheBitsOfOneRankWithRelativeTerms) {
  write_tasks(WEFT_SOURCE_DIR);
  write_typed_tokenizer(WEFT_SOURCE_DIR);
  for (const double dropout : {0.0, 0.1}) {
    for (const char* settings : {"batch_size: 16", "batch_size: 16, precision: bf16"}) {
      const std::string text = relative_job(kChoices, settings, dropout);
      const Trace one = run(text, {}, 0, 3);
      for (const MeshDegrees mesh : meshes(8)) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "") << name_of(mesh) << text;
      }
    }
  }
}

TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithImages) {
  add_images(WEFT_SOURCE_DIR);
  for (const char* settings : {"batch_size: 8", "batch_size: 8, precision: bf16"}) {
    const std::string text = image_job(settings);
    const Trace one = run(text, {});
    for (const MeshDegrees mesh : meshes(8)) {
      EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh) << " " << settings;
    }
  }
}

TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithAdapters) {
  for (const char* adapter : {kLora, kDora}) {
    for (const char* settings : {"batch_size: 8", "batch_size: 8, precision: bf16"}) {
      for (const std::string& model :
           {std::string(kGpt2), few_keys("llama", 2, 4), std::string(kQwen3)}) {
        const std::string text = job(settings, kLm, "pretrain", model);
        const Trace one = run(text, {}, 0, 3, adapter);
        for (const MeshDegrees mesh : meshes(8)) {
          EXPECT_EQ(difference(one, run(text, mesh, 0, 3, adapter)), "")
              << name_of(mesh) << adapter << text;
        }
      }
    }
  }
}

TEST_F(Topology, EveryMeshHasTheBitsOfOneRankWithTwoTasks) {
  for (const char* precision : {"fp32", "bf16"}) {
    const std::string text = job(std::string("batch_size: 8, precision: ") + precision,
                                 std::string(kLm) + ", " + kClasses, "multi_task");
    const Trace one = run(text, {});
    for (const MeshDegrees mesh : meshes(8)) {
      EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh) << " " << precision;
    }
  }
}

}  // namespace
}  // namespace weft
