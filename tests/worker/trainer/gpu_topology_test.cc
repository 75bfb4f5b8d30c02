// Topology-invariant training on GPUs made of fibers, with the played NCCL between them: losses,
// norms, weights and moments of a mesh are those of one such GPU, bit for bit. The played cuBLASLt
// cuts sums where shapes, strides and alignments say, as the library's algorithms do.
#include "cluster/comm/threads/thread_ranks.h"
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/nccl_rank.h"
#include "tests/worker/trainer/topology_run.h"
#include "tests/worker/trainer/trainer_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

constexpr const char* kLm = "{name: lm, type: causal_lm, data: {train: obj-text}}";
constexpr const char* kClasses =
    "{name: kind, type: sequence_classification, labels: 3, data: {train: obj-rows, format: "
    "jsonl}}";
constexpr int kSteps = 2;

class GpuTopology : public Trainer {
 protected:
  // Features of which no block's bytes are a multiple of what the library aligns to.
  static constexpr const char* kGpt2 =
      "{family: gpt2, config: {n_layer: 1, n_head: 4, n_embd: 24, n_positions: 8, vocab_size: 257, "
      "resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}}";
  static constexpr const char* kLlama =
      "{family: llama, config: {num_hidden_layers: 1, num_attention_heads: 8, "
      "num_key_value_heads: 2, hidden_size: 24, head_dim: 6, intermediate_size: 36, "
      "max_position_embeddings: 8, vocab_size: 257, attention_dropout: 0.1, pad_token_id: 32}}";
  static constexpr const char* kUneven =
      "{family: gpt2, config: {n_layer: 1, n_head: 6, n_embd: 24, n_positions: 8, vocab_size: 262, "
      "resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}}";
  static constexpr const char* kUnevenKeys =
      "{family: llama, config: {num_hidden_layers: 1, num_attention_heads: 6, "
      "num_key_value_heads: 2, hidden_size: 24, head_dim: 6, intermediate_size: 36, "
      "max_position_embeddings: 8, vocab_size: 262, attention_dropout: 0.1}}";
  static constexpr const char* kCutKeys =
      "{family: qwen3, config: {num_hidden_layers: 1, num_attention_heads: 12, "
      "num_key_value_heads: 3, hidden_size: 24, head_dim: 4, intermediate_size: 36, "
      "max_position_embeddings: 8, vocab_size: 262, attention_dropout: 0.1}}";
  // Blocks are of whole rows; dropout of distances is by row.
  static constexpr const char* kRelative =
      "{family: xlnet, config: {n_layer: 1, n_head: 4, d_model: 24, d_inner: 36, vocab_size: 1000, "
      "pad_token_id: 996, dropout: DROPOUT}}";
  static std::string relative_job(const std::string& dropout, const std::string& settings) {
    std::string text =
        job("topology, reproducible_blocks: 4", settings, kClasses, "pretrain", kRelative);
    for (const auto& [from, to] : {std::pair{"DROPOUT", dropout.c_str()},
                                   {"{type: byte}", "{type: tokenizer_json, from: obj-typed}"}}) {
      text.replace(text.find(from), std::string_view(from).size(), to);
    }
    return text;
  }
  static std::string job(const std::string& reproducible, const std::string& settings,
                         const std::string& tasks = kLm, const std::string& kind = "pretrain",
                         const std::string& model = kGpt2) {
    return "name: topology\nkind: " + kind + "\nmodel: " + model + R"(
tokenizer: {type: byte}
tasks: [)" +
           tasks +
           R"(]
training: {steps: 12, sequence_length: 8, seed: 17,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, reproducible: )" +
           reproducible + ", " + settings + "}\n";
  }

  Trace run(const std::string& text, MeshDegrees mesh, int zero = 0, bool dora = false) {
    cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
    proto::LaunchRecord launch = record(text, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    if (dora) {
      proto::AdapterSpec& adapter = *launch.mutable_spec()->mutable_adapter();
      adapter.set_rank(3);
      adapter.set_alpha(12);
      adapter.set_dropout(0.1);
      adapter.set_dora(true);
      adapter.add_targets("all-linear");
    }
    Trace trace;
    std::mutex mutex;
    run_on_threads(
        mesh, [&](Rank& rank) { testing::train_steps(rank, launch, kSteps, trace, mutex); },
        on_gpu);
    return trace;
  }

  void expect_bits_of_one(const std::string& text, std::initializer_list<MeshDegrees> meshes,
                          bool dora = false) {
    const Trace one = run(text, {}, 0, dora);
    ASSERT_EQ(one.losses.size(), size_t{kSteps});
    for (const MeshDegrees mesh : meshes) {
      EXPECT_EQ(difference(one, run(text, mesh, 0, dora)), "")
          << mesh.data << "x" << mesh.sequence << "x" << mesh.tensor;
    }
  }
};

// Two rows: four ranks share the tokens of a row.
TEST_F(GpuTopology, MeshesHaveTheBitsOfOneInSinglePrecision) {
  expect_bits_of_one(job("topology, reproducible_blocks: 4", "batch_size: 2"),
                     {{2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {2, 1, 2}, {1, 4, 1}});
}

TEST_F(GpuTopology, MeshesHaveTheBitsOfOneInBf16) {
  expect_bits_of_one(job("topology, reproducible_blocks: 4", "batch_size: 1, precision: bf16"),
                     {{1, 2, 1}, {1, 1, 2}, {1, 2, 2}, {1, 1, 4}});
}

TEST_F(GpuTopology, MeshesHaveTheBitsOfOneWithGroupedQueries) {
  for (const char* settings : {"batch_size: 1", "batch_size: 1, precision: bf16"}) {
    expect_bits_of_one(job("topology, reproducible_blocks: 4", settings, kLm, "pretrain", kLlama),
                       {{1, 2, 1}, {1, 1, 2}, {1, 2, 2}, {1, 1, 4}});
  }
}

// Six heads on four ranks of a row, and blocks of 66 and 65 ids.
TEST_F(GpuTopology, MeshesHaveTheBitsOfOneWithUnevenHeadsAndVocabulary) {
  for (const char* settings : {"batch_size: 1", "batch_size: 1, precision: bf16"}) {
    for (const char* model : {kUneven, kUnevenKeys}) {
      expect_bits_of_one(job("topology, reproducible_blocks: 4", settings, kLm, "pretrain", model),
                         {{1, 4, 1}, {1, 1, 2}, {1, 2, 2}});
    }
  }
}

TEST_F(GpuTopology, MeshesHaveTheBitsOfOneWithAdapters) {
  for (const char* settings : {"batch_size: 4", "batch_size: 2, precision: bf16"}) {
    for (const char* model : {kGpt2, kLlama}) {
      expect_bits_of_one(job("topology, reproducible_blocks: 4", settings, kLm, "pretrain", model),
                         {{2, 1, 1}, {1, 1, 2}, {1, 1, 4}, {2, 1, 2}}, /*dora=*/true);
    }
  }
}

// Of four ranks two neighbours each have a head of keys, each for some of its readers.
TEST_F(GpuTopology, MeshesHaveTheBitsOfOneWhereTheTensorAxisCutsGroupsOfHeads) {
  for (const char* settings : {"batch_size: 1", "batch_size: 1, precision: bf16"}) {
    expect_bits_of_one(job("topology, reproducible_blocks: 4", settings, kLm, "pretrain", kCutKeys),
                       {{1, 1, 2}, {1, 2, 2}, {1, 1, 4}});
  }
}

TEST_F(GpuTopology, MeshesHaveTheBitsOfOneWithTermsByDistance) {
  write_typed_tokenizer(WEFT_SOURCE_DIR);
  for (const char* dropout : {"0", "0.1"}) {
    for (const char* settings : {"batch_size: 4", "batch_size: 4, precision: bf16"}) {
      expect_bits_of_one(relative_job(dropout, settings),
                         {{2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {2, 1, 2}, {1, 1, 4}});
    }
  }
}

TEST_F(GpuTopology, TwoTasksAndZeroHaveTheBitsOfOne) {
  const std::string text = job("topology, reproducible_blocks: 4", "batch_size: 4, precision: bf16",
                               std::string(kLm) + ", " + kClasses, "multi_task");
  const Trace one = run(text, {});
  EXPECT_EQ(difference(one, run(text, {2, 1, 2}, /*zero=*/2)), "");
}

// Bits are told of one kind of GPU and one version of the library.
TEST_F(GpuTopology, ABuildIsAlsoWhatComputesOnTheGpu) {
  const proto::LaunchRecord launch = record(job("topology", "batch_size: 4"), {});
  on_ranks(
      launch,
      [](Rank&, const auto&, Training& training) {
        const std::string& build = training.state.build();
        EXPECT_NE(build.find(", fibers, cuBLASLt 130000, "), std::string::npos) << build;
      },
      on_gpu);
}

// The same comparison finds that other training depends on the mesh, along each axis.
TEST_F(GpuTopology, WithoutItMeshesDiffer) {
  const std::string text = job("mesh", "batch_size: 2");
  const Trace one = run(text, {});
  for (const MeshDegrees mesh :
       {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2}}) {
    EXPECT_NE(difference(one, run(text, mesh)), "");
  }
}

}  // namespace
}  // namespace weft
