// What a step of real ranks sends, axis by axis, beside the formulas.
#include "worker/admission/traffic.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {
namespace {

struct Case {
  const char* training;  // keys of training beside sequence_length 16
  MeshDegrees mesh;
  const char* parallel = "";  // further keys of parallel
  const char* task = "causal_lm";
  const char* model = "n_layer: 3, n_head: 4, n_embd: 32, vocab_size: 260";
};

const Case kCases[] = {
    {"batch_size: 4", {1, 1, 2}},
    {"batch_size: 4", {1, 1, 4}},
    {"batch_size: 4", {1, 1, 3}},
    {"batch_size: 4", {1, 1, 2}, "", "sequence_classification"},
    {"batch_size: 5, micro_batch_size: 2", {1, 1, 2}},
    {"batch_size: 4, activation_checkpointing: selective", {1, 1, 2}},
    {"batch_size: 4, activation_checkpointing: full", {1, 1, 2}},
    {"batch_size: 4, precision: bf16", {1, 1, 2}},
    {"batch_size: 4, precision: fp16", {1, 1, 2}},
    {"batch_size: 4", {1, 2, 1}},
    {"batch_size: 4", {1, 4, 1}},
    {"batch_size: 4", {1, 2, 1}, "sequence_attention: ring"},
    {"batch_size: 4", {1, 4, 1}, "sequence_attention: ring"},
    {"batch_size: 4, precision: bf16", {1, 4, 1}, "sequence_attention: ring"},
    {"batch_size: 4, precision: bf16", {1, 2, 1}},
    {"batch_size: 4", {1, 4, 1}, "sequence_attention: ulysses_ring, ulysses: 2"},
    {"batch_size: 4, micro_batch_size: 1", {1, 2, 1}},
    {"batch_size: 4, activation_checkpointing: selective", {1, 2, 1}, "sequence_attention: ring"},
    {"batch_size: 4, activation_checkpointing: full", {1, 4, 1}},
    {"batch_size: 4", {2, 1, 1}},
    {"batch_size: 5, micro_batch_size: 1", {2, 1, 1}},
    {"batch_size: 4", {2, 1, 1}, "zero: 1"},
    {"batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"},
    {"batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 3"},
    {"batch_size: 4, precision: bf16", {3, 1, 1}, "zero: 1, bucket_bytes: 4096"},
    {"batch_size: 4, precision: bf16", {4, 1, 1}, "zero: 3"},
    {"batch_size: 4", {2, 1, 1}, "zero: 3", "sequence_classification"},
    {"batch_size: 4, activation_checkpointing: full", {2, 1, 1}, "zero: 3"},
    {"batch_size: 4",
     {2, 1, 1},
     "zero: 3",
     "causal_lm",
     "n_layer: 2, n_head: 2, n_embd: 32, vocab_size: 260, tie_word_embeddings: false"},
    {"batch_size: 4", {2, 1, 2}},
    {"batch_size: 4", {2, 2, 1}, "zero: 1"},
    {"batch_size: 4", {1, 2, 2}},
    {"batch_size: 5, micro_batch_size: 1", {2, 2, 2}, "zero: 3"},
};

class Traffic : public Trainer {
 protected:
  proto::LaunchRecord launch(const Case& which) {
    const bool lm = std::string(which.task) == "causal_lm";
    return record(
        fmt::format(
            R"(
name: traffic
kind: pretrain
model: {{family: gpt2, config: {{{}, n_positions: 16}}}}
tokenizer: {{type: byte}}
tasks: [{{type: {}, {}}}]
training: {{{}, sequence_length: 16, steps: 3}}
parallel: {{data: {}, sequence: {}, tensor: {}{}{}}}
)",
            which.model, which.task,
            lm ? "data: {train: obj-text}" : "labels: 3, data: {train: obj-whole, format: jsonl}",
            which.training, which.mesh.data, which.mesh.sequence, which.mesh.tensor,
            *which.parallel == '\0' ? "" : ", ", which.parallel),
        which.mesh);
  }
  void SetUp() override {
    Trainer::SetUp();
    fs::create_directories(folder_ / "obj-whole");
    std::ofstream rows(folder_ / "obj-whole" / "rows.jsonl");
    for (int i = 0; i < 30; ++i) {  // as long as a row may be
      rows << R"({"text": "sixteen letters.", "label": )" << i % 3 << "}\n";
    }
  }
};

TEST_F(Traffic, IsWhatCommunicatorsCount) {
  for (const Case& which : kCases) {
    const proto::LaunchRecord job = launch(which);
    const std::string name =
        fmt::format("{} {} on {}x{}x{} {}", which.task, which.training, which.mesh.data,
                    which.mesh.sequence, which.mesh.tensor, which.parallel);
    MemoryCluster cluster;
    testing::run_mesh(which.mesh, [&](Rank& rank) {
      MemoryProgress progress(cluster);
      const auto made = set_up(rank, job, progress);
      ASSERT_TRUE(made.has_value()) << made.error().to_string();
      Training& training = **made;
      const auto sent = [&] {
        const auto of = [&](Axis axis) { return rank.mesh.axis(axis).bytes_sent(); };
        return std::array{of(Axis::kTensor), of(Axis::kRing) + of(Axis::kUlysses),
                          of(Axis::kReplica)};
      };
      const auto before = sent();
      run_step(rank, job.spec(), training, training.tasks[0], 1e-3);
      const auto after = sent();
      const MeshPlace place{rank.mesh.index(Axis::kData), rank.mesh.index(Axis::kSequence),
                            rank.mesh.index(Axis::kTensor)};
      const StepTraffic expected = step_traffic(
          *training.config, job.spec(),
          shards_of(*training.family, *training.config, job.spec(), place.tensor), place);
      const std::string where = fmt::format("{}, rank {}", name, rank.mesh.index(Axis::kWorld));
      EXPECT_EQ(after[0] - before[0], expected.tensor.bytes) << where;
      EXPECT_EQ(after[1] - before[1], expected.sequence.bytes) << where;
      EXPECT_EQ(after[2] - before[2], expected.replica.bytes) << where;
    });
  }
}

}  // namespace
}  // namespace weft
