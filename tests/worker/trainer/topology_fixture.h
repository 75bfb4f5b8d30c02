// Jobs of topology-invariant training and their runs on ranks that are threads.
#pragma once

#include "tests/worker/trainer/topology_run.h"
#include "tests/worker/trainer/trainer_fixture.h"

namespace weft {

inline constexpr const char* kLm = "{name: lm, type: causal_lm, data: {train: obj-text}}";
inline constexpr const char* kClasses =
    "{name: kind, type: sequence_classification, labels: 3, "
    "data: {train: obj-rows, validation: obj-rows, format: jsonl}}";

// Adapters of every map, with the norms of DoRA too.
inline constexpr const char* kLora =
    "{type: lora, rank: 3, alpha: 12, dropout: 0.1, targets: [all-linear]}";
inline constexpr const char* kDora =
    "{type: lora, rank: 3, alpha: 12, dropout: 0.1, targets: [all-linear], dora: true}";

class Topology : public Trainer {
 protected:
  static constexpr int kSteps = 5;

  static constexpr const char* kGpt2 =
      "{family: gpt2, config: {n_layer: 2, n_head: 8, n_embd: 64, n_positions: 32, "
      "vocab_size: 257, resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}}";
  // Two heads of queries read one of keys; a space, which texts have, is padding.
  static constexpr const char* kLlama =
      "{family: llama, config: {num_hidden_layers: 2, num_attention_heads: 16, "
      "num_key_value_heads: 8, hidden_size: 64, head_dim: 6, intermediate_size: 80, "
      "max_position_embeddings: 32, vocab_size: 257, attention_dropout: 0.1, pad_token_id: 32}}";
  // Eight heads of queries, fewer of keys than a mesh may have ranks; qwen3 with biases and norms
  // of heads.
  static std::string few_keys(const std::string& family, int key_heads, int head_features) {
    const std::string keys = std::to_string(key_heads), width = std::to_string(head_features);
    return "{family: " + family + ", config: {num_hidden_layers: 2, num_attention_heads: 8, " +
           "num_key_value_heads: " + keys + ", head_dim: " + width + ", hidden_size: 64, " +
           "intermediate_size: 80, max_position_embeddings: 32, vocab_size: 257, " +
           "attention_dropout: 0.1" + (family == "qwen3" ? ", attention_bias: true" : "") + "}}";
  }
  // Heads and a vocabulary that the ranks of a row and the blocks leave over.
  static constexpr const char* kUneven =
      "{family: gpt2, config: {n_layer: 2, n_head: 12, n_embd: 48, n_positions: 32, "
      "vocab_size: 1002, resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}}";
  // Of Llama's kin, heads that share so many of keys unevenly.
  static std::string uneven_keys(const std::string& family, int heads, int key_heads) {
    return "{family: " + family +
           ", config: {num_hidden_layers: 2, num_attention_heads: " + std::to_string(heads) +
           ", num_key_value_heads: " + std::to_string(key_heads) +
           ", head_dim: 8, hidden_size: 64, intermediate_size: 80, max_position_embeddings: 32, " +
           "vocab_size: 262, attention_dropout: 0.1" +
           (family == "qwen3" ? ", attention_bias: true" : "") + "}}";
  }
  // Of its kin: windows, biases and norms of heads.
  static constexpr const char* kQwen3 =
      "{family: qwen3, config: {num_hidden_layers: 2, num_attention_heads: 16, "
      "num_key_value_heads: 8, hidden_size: 64, head_dim: 6, intermediate_size: 80, "
      "max_position_embeddings: 32, vocab_size: 257, attention_dropout: 0.1, attention_bias: true, "
      "use_sliding_window: true, sliding_window: 5, max_window_layers: 1}}";

  // An encoder, with a norm behind each half of a block.
  static constexpr const char* kBert =
      "{family: bert, config: {num_hidden_layers: 2, num_attention_heads: 8, hidden_size: 64, "
      "intermediate_size: 96, max_position_embeddings: 32, vocab_size: 257}}";

  // Of images, 17 tokens each.
  static std::string image_job(const std::string& settings) {
    return R"(
name: topology
kind: pretrain
model: {family: vit, config: {num_hidden_layers: 2, num_attention_heads: 8, hidden_size: 64,
        intermediate_size: 96, image_size: 12, patch_size: 3, hidden_dropout_prob: 0.1}}
tasks: [{name: kind, type: image_classification, labels: 3,
         data: {train: obj-images, format: images}}]
training: {steps: 12, seed: 17, reproducible: topology,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, )" +
           settings + "}\n";
  }

  // settings: of training, beside those that are the same for all.
  static std::string job(const std::string& settings, const std::string& tasks = kLm,
                         const std::string& kind = "pretrain", const std::string& model = kGpt2) {
    return "name: topology\nkind: " + kind + "\nmodel: " + model + R"(
tokenizer: {type: byte}
tasks: [)" +
           tasks + R"(]
training: {steps: 12, sequence_length: 16, seed: 17, reproducible: topology,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, )" +
           settings + "}\n";
  }

  // adapter: the job's, of which only the adapters and heads are trained; or empty.
  testing::Trace run(const std::string& text, MeshDegrees mesh, int zero = 0, int steps = kSteps,
                     const std::string& adapter = {}) {
    proto::LaunchRecord launch = record(text, mesh);
    if (!adapter.empty()) *launch.mutable_spec()->mutable_adapter() = adapter_spec(adapter);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(16384);
    testing::Trace trace;
    std::mutex mutex;
    testing::run_mesh(mesh,
                      [&](Rank& rank) { testing::train_steps(rank, launch, steps, trace, mutex); });
    return trace;
  }

  static proto::AdapterSpec adapter_spec(const std::string& adapter) {
    proto::JobSpec spec;
    EXPECT_TRUE(read_yaml("adapter: " + adapter, spec).ok()) << adapter;
    return spec.adapter();
  }

  // The same job as any other is trained.
  static std::string as_usual(std::string text) {
    return text.replace(text.find("reproducible: topology"), 22, "reproducible: mesh");
  }
  // Of fp32.
  static void expect_near(const testing::Trace& a, const testing::Trace& b) {
    ASSERT_EQ(a.losses.size(), b.losses.size());
    for (size_t step = 0; step < a.losses.size(); ++step) {
      EXPECT_NEAR(a.losses[step], b.losses[step], 1e-4 * b.losses[step]);
      EXPECT_NEAR(a.norms[step], b.norms[step], 1e-3 * b.norms[step]);
    }
  }

  static std::vector<MeshDegrees> meshes(int most) {
    std::vector<MeshDegrees> all;
    for (int data = 1; data <= most; data *= 2) {
      for (int sequence = 1; data * sequence <= most; sequence *= 2) {
        for (int tensor = 1; data * sequence * tensor <= most; tensor *= 2) {
          all.push_back({data, sequence, tensor});
        }
      }
    }
    return all;
  }
  static std::string name_of(MeshDegrees mesh) {
    return std::to_string(mesh.data) + "x" + std::to_string(mesh.sequence) + "x" +
           std::to_string(mesh.tensor);
  }
};

}  // namespace weft
