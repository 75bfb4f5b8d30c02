// Jobs whose traffic is told and counted.
#pragma once

#include <string>
#include <vector>

#include "worker/parallel/mesh.h"

namespace weft::traffic_cases {

struct Case {
  const char* training;  // keys of training beside sequence_length 16
  MeshDegrees mesh;
  const char* parallel = "";  // further keys of parallel
  const char* task = "causal_lm";
  const char* model = nullptr;  // else kModel
  const char* family = "gpt2";
  std::vector<std::string> targets = {};  // of an adapter; empty: none
  double dropout = 0;                     // of what it maps
};

inline constexpr const char* kModel = "n_layer: 3, n_head: 4, n_embd: 32, vocab_size: 260";

// Two heads of keys: one a rank, or one on several, evenly and unevenly.
inline constexpr const char* kGrouped =
    "num_hidden_layers: 2, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 32, "
    "intermediate_size: 48, vocab_size: 260, tie_word_embeddings: true";
inline constexpr const char* kGroupedPadded =
    "num_hidden_layers: 2, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 32, "
    "head_dim: 6, intermediate_size: 48, vocab_size: 260, pad_token_id: 2";
// Tokens see three keys, or in one layer of three all before them.
inline constexpr const char* kWindows =
    "num_hidden_layers: 2, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 32, "
    "intermediate_size: 48, vocab_size: 260, sliding_window: 3";
inline constexpr const char* kMixedWindows =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 32, "
    "intermediate_size: 48, vocab_size: 260, use_sliding_window: true, sliding_window: 3, "
    "max_window_layers: 1";

inline const Case kCases[] = {
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
    {"batch_size: 1", {1, 2, 1}, "sequence_attention: ring"},  // positions, too, as rows
    {"batch_size: 1, precision: bf16", {1, 4, 1}, "zero: 1"},
    {"batch_size: 2, micro_batch_size: 1", {1, 2, 1}, "zero: 2"},
    {"batch_size: 2, micro_batch_size: 1", {1, 2, 1}, "zero: 3"},
    {"batch_size: 1", {1, 2, 1}, "zero: 1", "sequence_classification"},
    {"batch_size: 4", {2, 1, 1}},
    {"batch_size: 5, micro_batch_size: 1", {2, 1, 1}},
    {"batch_size: 4", {2, 1, 1}, "zero: 1"},
    {"batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"},
    {"batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 3"},
    {"batch_size: 4, precision: bf16", {3, 1, 1}, "zero: 1, bucket_bytes: 4096"},
    {"batch_size: 4, micro_batch_size: 1", {2, 1, 1}, "zero: 1"},  // rows of the table go ahead
    {"batch_size: 3", {3, 1, 1}, "zero: 2"},
    {"batch_size: 5, micro_batch_size: 2, precision: bf16", {2, 1, 1}, "zero: 2"},
    {"batch_size: 2", {2, 1, 1}, "zero: 1", "sequence_classification"},
    {"batch_size: 2", {2, 1, 1}, "zero: 1", "causal_lm", kGrouped, "llama"},
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
    {"batch_size: 4", {2, 1, 1}, "", "causal_lm", kGrouped, "llama"},
    {"batch_size: 4", {1, 1, 2}, "", "causal_lm", kGrouped, "llama"},
    {"batch_size: 4", {1, 1, 4}, "", "causal_lm", kGrouped, "llama"},
    {"batch_size: 4", {1, 1, 3}, "", "causal_lm", kGrouped, "llama"},
    {"batch_size: 4, micro_batch_size: 1", {1, 1, 8}, "", "causal_lm", kGrouped, "llama"},
    {"batch_size: 4, precision: bf16", {2, 1, 4}, "zero: 1", "causal_lm", kGrouped, "llama"},
    {"batch_size: 4, activation_checkpointing: selective",
     {1, 2, 4},
     "sequence_attention: ring",
     "causal_lm",
     kGrouped,
     "llama"},
    {"batch_size: 4, activation_checkpointing: full",
     {1, 2, 4},
     "sequence_attention: ulysses",
     "causal_lm",
     kGrouped,
     "llama"},
    {"batch_size: 4", {2, 1, 4}, "zero: 3", "causal_lm", kGroupedPadded, "llama"},
    {"batch_size: 4", {2, 1, 2}, "", "sequence_classification", kGroupedPadded, "llama"},
    {"batch_size: 4", {1, 1, 4}, "", "causal_lm", kGrouped, "qwen2"},
    {"batch_size: 4, precision: bf16", {2, 1, 4}, "zero: 3", "causal_lm", kGrouped, "qwen3"},
    {"batch_size: 4", {1, 2, 1}, "sequence_attention: ring", "causal_lm", kWindows, "mistral"},
    {"batch_size: 4, precision: bf16, activation_checkpointing: full",
     {1, 4, 1},
     "sequence_attention: ring",
     "causal_lm",
     kWindows,
     "mistral"},
    {"batch_size: 4",
     {1, 4, 1},
     "sequence_attention: ulysses_ring, ulysses: 2",
     "causal_lm",
     kMixedWindows,
     "qwen2"},
    {"batch_size: 4", {1, 2, 2}, "sequence_attention: ring", "causal_lm", kMixedWindows, "qwen2"},
};

// With an adapter: of every map, of the first block's attention, of what comes behind it only.
const std::vector<std::string> kAllLinear = {"all-linear"};
inline const Case kAdaptedCases[] = {
    {"batch_size: 4", {1, 1, 2}, "", "causal_lm", nullptr, "gpt2", kAllLinear},
    {"batch_size: 4", {1, 1, 4}, "", "causal_lm", nullptr, "gpt2", {"c_attn"}},
    {"batch_size: 4", {1, 1, 2}, "", "causal_lm", nullptr, "gpt2", {"attn.c_proj"}},
    {"batch_size: 4", {1, 1, 2}, "", "causal_lm", nullptr, "gpt2", {"c_fc"}},
    {"batch_size: 4", {1, 1, 2}, "", "causal_lm", nullptr, "gpt2", {"mlp.c_proj"}},
    {"batch_size: 4", {1, 1, 2}, "", "sequence_classification", nullptr, "gpt2", {"c_attn"}},
    {"batch_size: 5, micro_batch_size: 2, precision: bf16",
     {1, 1, 2},
     "",
     "causal_lm",
     nullptr,
     "gpt2",
     kAllLinear},
    {"batch_size: 4, activation_checkpointing: selective",
     {1, 1, 2},
     "",
     "causal_lm",
     nullptr,
     "gpt2",
     {"c_attn", "c_fc"}},
    {"batch_size: 4, activation_checkpointing: selective",
     {1, 1, 2},
     "",
     "causal_lm",
     nullptr,
     "gpt2",
     {"c_fc"}},
    {"batch_size: 4, activation_checkpointing: full",
     {1, 1, 2},
     "",
     "causal_lm",
     nullptr,
     "gpt2",
     kAllLinear},
    {"batch_size: 4", {2, 1, 1}, "", "causal_lm", nullptr, "gpt2", {"c_attn"}},
    {"batch_size: 4", {2, 1, 1}, "zero: 1", "causal_lm", nullptr, "gpt2", kAllLinear},
    {"batch_size: 5, micro_batch_size: 1",
     {2, 1, 1},
     "zero: 2",
     "causal_lm",
     nullptr,
     "gpt2",
     kAllLinear},
    {"batch_size: 5, micro_batch_size: 1",
     {2, 1, 1},
     "zero: 3",
     "causal_lm",
     nullptr,
     "gpt2",
     {"c_fc"}},
    {"batch_size: 4",
     {1, 2, 1},
     "sequence_attention: ring",
     "causal_lm",
     nullptr,
     "gpt2",
     {"c_attn"}},
    {"batch_size: 4", {1, 2, 1}, "", "causal_lm", nullptr, "gpt2", {"c_fc"}},
    {"batch_size: 4", {1, 1, 4}, "", "causal_lm", kGrouped, "llama", kAllLinear},
    {"batch_size: 4", {1, 1, 3}, "", "causal_lm", kGrouped, "llama", {"q_proj", "v_proj"}},
    {"batch_size: 4, precision: bf16",
     {2, 1, 4},
     "zero: 3",
     "causal_lm",
     kGrouped,
     "qwen3",
     {"k_proj", "down_proj"}},
};

inline constexpr const char* kEncoder =
    "num_hidden_layers: 3, num_attention_heads: 4, hidden_size: 32, intermediate_size: 64, "
    "vocab_size: 264";
inline Case encoder(const char* training, MeshDegrees mesh, const char* parallel = "",
                    const char* family = "bert") {
  return {training, mesh, parallel, "sequence_classification", kEncoder, family};
}
inline Case pairs(const char* training, MeshDegrees mesh, const char* parallel = "") {
  return {training, mesh, parallel, "embedding", kEncoder, "bert"};
}

inline constexpr const char* kOfPairs =
    "num_hidden_layers: 3, num_attention_heads: 4, hidden_size: 32, intermediate_size: 64, "
    "vocab_size: 1000";
inline Case questions(const char* training, MeshDegrees mesh, const char* parallel = "") {
  return {training, mesh, parallel, "question_answering", kOfPairs, "bert"};
}

inline const Case kEncoderCases[] = {
    encoder("batch_size: 4", {2, 1, 1}),
    encoder("batch_size: 4", {2, 1, 1}, "zero: 1"),
    encoder("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"),
    encoder("batch_size: 4, precision: bf16", {4, 1, 1}, "zero: 3"),
    encoder("batch_size: 4", {1, 1, 2}),
    encoder("batch_size: 4", {1, 1, 4}),
    encoder("batch_size: 4, activation_checkpointing: selective", {1, 1, 2}),
    encoder("batch_size: 4, activation_checkpointing: full, precision: bf16", {1, 1, 2}),
    encoder("batch_size: 4", {1, 2, 1}, "sequence_attention: ring"),
    encoder("batch_size: 4", {1, 2, 1}, "sequence_attention: ulysses"),
    encoder("batch_size: 4", {1, 4, 1}, "sequence_attention: ulysses_ring, ulysses: 2"),
    encoder("batch_size: 4", {2, 2, 2}, "zero: 3"),
    encoder("batch_size: 4", {2, 1, 2}, "zero: 1", "roberta"),
    pairs("batch_size: 4", {2, 1, 1}),
    pairs("batch_size: 6", {4, 1, 1}, "zero: 2"),
    pairs("batch_size: 4, precision: bf16", {1, 2, 1}, "zero: 3"),
    pairs("batch_size: 4, activation_checkpointing: full", {1, 1, 2}),
    pairs("batch_size: 6", {2, 2, 1}, "zero: 1"),
    questions("batch_size: 4", {1, 2, 1}),
    questions("batch_size: 5, micro_batch_size: 2", {1, 4, 1}),
    questions("batch_size: 4, precision: bf16", {2, 2, 1}, "zero: 3"),
    questions("batch_size: 4, activation_checkpointing: full", {1, 2, 2}),
    questions("batch_size: 4", {1, 1, 2}),
};

// 17 tokens an image.
inline constexpr const char* kImages =
    "num_hidden_layers: 3, num_attention_heads: 4, hidden_size: 32, intermediate_size: 64, "
    "image_size: 12, patch_size: 3";
inline Case images(const char* training, MeshDegrees mesh, const char* parallel = "",
                   std::vector<std::string> targets = {}) {
  return {training, mesh, parallel, "image_classification", kImages, "vit", std::move(targets)};
}
inline const Case kImageCases[] = {
    images("batch_size: 4", {2, 1, 1}),
    images("batch_size: 4", {2, 1, 1}, "zero: 1"),
    images("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"),
    images("batch_size: 4, precision: bf16", {4, 1, 1}, "zero: 3"),
    images("batch_size: 4", {1, 1, 2}),
    images("batch_size: 4, precision: bf16", {1, 1, 4}),
    images("batch_size: 4, activation_checkpointing: selective", {1, 1, 2}),
    images("batch_size: 4, activation_checkpointing: full, precision: bf16", {1, 1, 2}),
    images("batch_size: 4", {1, 2, 1}, "sequence_attention: ring"),
    images("batch_size: 4", {1, 2, 1}, "sequence_attention: ulysses"),
    images("batch_size: 4", {1, 4, 1}, "sequence_attention: ulysses_ring, ulysses: 2"),
    images("batch_size: 4", {2, 2, 2}, "zero: 3"),
    images("batch_size: 4", {2, 1, 2}, "zero: 1"),
    images("batch_size: 4", {2, 1, 2}, "zero: 1", {"query", "value"}),
    images("batch_size: 4", {1, 1, 2}, "", {"intermediate.dense"}),
    images("batch_size: 4, activation_checkpointing: full", {1, 2, 2}, "", {"query"}),
};

inline constexpr const char* kXlnet =
    "n_layer: 3, n_head: 4, d_model: 32, d_inner: 64, vocab_size: 264";
inline Case permuted(const char* training, MeshDegrees mesh, const char* parallel = "") {
  return {training, mesh, parallel, "permutation_lm", kXlnet, "xlnet"};
}
inline const Case kPermutedCases[] = {
    permuted("batch_size: 4", {2, 1, 1}),
    permuted("batch_size: 4", {2, 1, 1}, "zero: 1"),
    permuted("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"),
    permuted("batch_size: 4, precision: bf16", {4, 1, 1}, "zero: 3"),
    permuted("batch_size: 4", {1, 1, 2}),
    permuted("batch_size: 4, precision: bf16", {1, 1, 4}),
    permuted("batch_size: 4, activation_checkpointing: selective", {1, 1, 2}),
    permuted("batch_size: 5, micro_batch_size: 2, activation_checkpointing: full, precision: bf16",
             {1, 1, 3}),
    permuted("batch_size: 4", {2, 1, 2}, "zero: 1"),
    permuted("batch_size: 5, micro_batch_size: 1", {2, 1, 2}, "zero: 3"),
};

// In topology-invariant training, where distances are mapped of each row or block.
inline constexpr const char* kBlockedXlnet =
    "n_layer: 3, n_head: 8, d_model: 32, d_inner: 64, vocab_size: 1000";
inline constexpr const char* kBlockedXlnetFlat =
    "n_layer: 2, n_head: 8, d_model: 32, d_inner: 64, vocab_size: 1000, dropout: 0";
inline Case relative(const char* training, MeshDegrees mesh, const char* parallel = "",
                     const char* model = kBlockedXlnet) {
  return {training, mesh, parallel, "sequence_classification", model, "xlnet"};
}
inline const Case kRelativeCases[] = {
    relative("batch_size: 4", {1, 1, 2}),
    relative("batch_size: 4, activation_checkpointing: full", {2, 1, 2}, "zero: 1"),
    relative("batch_size: 5, micro_batch_size: 1, precision: bf16", {2, 1, 1}, "zero: 3",
             kBlockedXlnetFlat),
};
inline const Case kBlockedRelativeCases[] = {
    relative("batch_size: 8", {1, 1, 2}),
    relative("batch_size: 8, precision: bf16", {1, 1, 4}, "", kBlockedXlnetFlat),
    relative("batch_size: 16, micro_batch_size: 4", {2, 1, 2}, "zero: 3"),
    relative("batch_size: 8, activation_checkpointing: selective", {2, 1, 2}, "zero: 1",
             kBlockedXlnetFlat),
    relative("batch_size: 16, activation_checkpointing: full, "
             "precision: bf16",
             {1, 2, 2}),
};

inline constexpr const char* kT5 =
    "num_layers: 3, num_decoder_layers: 2, num_heads: 4, d_model: 32, d_kv: 8, d_ff: 64, "
    "vocab_size: 264";
inline constexpr const char* kT5Untied =
    "num_layers: 2, num_heads: 4, d_model: 32, d_kv: 12, d_ff: 64, vocab_size: 264, "
    "feed_forward_proj: gated-gelu, tie_word_embeddings: false";
inline Case targets(const char* training, MeshDegrees mesh, const char* parallel = "",
                    const char* model = kT5) {
  return {training, mesh, parallel, "seq2seq", model, "t5"};
}
inline const Case kTargetCases[] = {
    targets("batch_size: 4", {2, 1, 1}),
    targets("batch_size: 4, target_length: 8", {2, 1, 1}, "zero: 1"),
    targets("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"),
    targets("batch_size: 4, precision: bf16", {4, 1, 1}, "zero: 3"),
    targets("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 3", kT5Untied),
    targets("batch_size: 4", {1, 1, 2}),
    targets("batch_size: 4, target_length: 8", {1, 1, 2}),
    targets("batch_size: 4, target_length: 24", {1, 1, 4}, "", kT5Untied),
    targets("batch_size: 4, activation_checkpointing: selective", {1, 1, 2}),
    targets("batch_size: 4, target_length: 8, activation_checkpointing: full, precision: bf16",
            {1, 1, 2}),
    targets("batch_size: 4, target_length: 8", {2, 1, 2}, "zero: 3"),
    targets("batch_size: 4", {2, 1, 2}, "zero: 1", kT5Untied),
    targets("batch_size: 4, target_length: 8", {1, 4, 1}, "sequence_attention: ring"),
    targets("batch_size: 4, target_length: 8", {1, 2, 1}, "sequence_attention: ulysses"),
    targets("batch_size: 4, target_length: 24", {1, 3, 1}, "zero: 1", kT5Untied),
    targets("batch_size: 4, target_length: 8, activation_checkpointing: full, precision: bf16",
            {1, 2, 1}, "zero: 2"),
    targets("batch_size: 4, target_length: 8, activation_checkpointing: selective", {1, 4, 1},
            "sequence_attention: ulysses_ring, ulysses: 2"),
    targets("batch_size: 5, micro_batch_size: 1, target_length: 8", {2, 2, 1}, "zero: 3"),
    targets("batch_size: 4, target_length: 8", {1, 2, 2}, "sequence_attention: ring"),
};

inline constexpr const char* kWhisper =
    "encoder_layers: 3, decoder_layers: 2, encoder_attention_heads: 4, decoder_attention_heads: 4, "
    "d_model: 32, encoder_ffn_dim: 64, decoder_ffn_dim: 64, vocab_size: 264, num_mel_bins: 6, "
    "max_source_positions: 50, max_target_positions: 16, decoder_start_token_id: 1, pad_token_id: "
    "0";
inline constexpr const char* kWhisperUntied =
    "encoder_layers: 1, decoder_layers: 3, encoder_attention_heads: 4, decoder_attention_heads: 4, "
    "d_model: 32, encoder_ffn_dim: 48, decoder_ffn_dim: 48, vocab_size: 264, num_mel_bins: 6, "
    "max_source_positions: 50, max_target_positions: 16, decoder_start_token_id: 1, "
    "tie_word_embeddings: false";
inline Case speech(const char* training, MeshDegrees mesh, const char* parallel = "",
                   const char* model = kWhisper) {
  return {training, mesh, parallel, "speech_recognition", model, "whisper"};
}
inline const Case kSpeechCases[] = {
    speech("batch_size: 4", {2, 1, 1}),
    speech("batch_size: 4, target_length: 8", {2, 1, 1}, "zero: 1"),
    speech("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 2"),
    speech("batch_size: 4, precision: bf16", {4, 1, 1}, "zero: 3"),
    speech("batch_size: 5, micro_batch_size: 1", {2, 1, 1}, "zero: 3", kWhisperUntied),
    speech("batch_size: 4", {1, 1, 2}),
    speech("batch_size: 4, target_length: 8", {1, 1, 4}, "", kWhisperUntied),
    speech("batch_size: 4, activation_checkpointing: selective", {1, 1, 2}),
    speech("batch_size: 4, activation_checkpointing: full, precision: bf16", {1, 1, 2}),
    speech("batch_size: 4, target_length: 8", {2, 1, 2}, "zero: 3"),
    speech("batch_size: 4", {1, 4, 1}, "sequence_attention: ring"),
    speech("batch_size: 4, target_length: 8", {1, 2, 1}, "sequence_attention: ulysses"),
    speech("batch_size: 4, activation_checkpointing: full", {1, 2, 1}, "zero: 2"),
    speech("batch_size: 5, micro_batch_size: 1, target_length: 8", {2, 2, 1}, "zero: 3"),
    speech("batch_size: 4, target_length: 8", {1, 2, 2}, "sequence_attention: ring"),
};

// Cut into 8 blocks.
inline constexpr const char* kBlocks = "reproducible: topology, reproducible_blocks: 8, ";
inline constexpr const char* kBlockedModel = "n_layer: 3, n_head: 8, n_embd: 32, vocab_size: 264";
inline constexpr const char* kOddVocabulary = "n_layer: 2, n_head: 8, n_embd: 32, vocab_size: 265";
// Parts of heads, and blocks of the vocabulary, are longer by one here and there.
inline constexpr const char* kUneven = "n_layer: 2, n_head: 12, n_embd: 48, vocab_size: 1002";
inline constexpr const char* kUnevenKeys =
    "num_hidden_layers: 2, num_attention_heads: 12, num_key_value_heads: 2, hidden_size: 48, "
    "head_dim: 4, intermediate_size: 48, vocab_size: 1002";
// Ranks of the tensor axis have parts of the readers of one head of keys: one is on two ranks, or
// on up to four.
inline constexpr const char* kCutKeys =
    "num_hidden_layers: 2, num_attention_heads: 12, num_key_value_heads: 3, hidden_size: 48, "
    "head_dim: 8, intermediate_size: 48, vocab_size: 264";
inline constexpr const char* kManyCuts =
    "num_hidden_layers: 2, num_attention_heads: 24, num_key_value_heads: 3, hidden_size: 48, "
    "head_dim: 8, intermediate_size: 48, vocab_size: 264";
inline constexpr const char* kTwoHeads =
    "num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1, hidden_size: 32, "
    "head_dim: 8, intermediate_size: 48, vocab_size: 262";
inline constexpr const char* kUntied =
    "n_layer: 2, n_head: 8, n_embd: 32, vocab_size: 264, tie_word_embeddings: false";
inline constexpr const char* kBlockedGrouped =
    "num_hidden_layers: 2, num_attention_heads: 8, num_key_value_heads: 4, hidden_size: 32, "
    "head_dim: 6, intermediate_size: 48, vocab_size: 264, pad_token_id: 2";
inline constexpr const char* kFewKeys =
    "num_hidden_layers: 2, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 32, "
    "head_dim: 4, intermediate_size: 48, vocab_size: 264";

inline constexpr const char* kBlockedT5 =
    "num_layers: 3, num_decoder_layers: 2, num_heads: 8, d_model: 32, d_kv: 5, d_ff: 64, "
    "vocab_size: 265";
inline constexpr const char* kBlockedT5Untied =
    "num_layers: 2, num_heads: 4, d_model: 32, d_kv: 12, d_ff: 64, vocab_size: 264, "
    "feed_forward_proj: gated-gelu, tie_word_embeddings: false";

inline constexpr const char* kBlockedWhisper =
    "encoder_layers: 3, decoder_layers: 2, encoder_attention_heads: 8, decoder_attention_heads: 8, "
    "d_model: 32, encoder_ffn_dim: 64, decoder_ffn_dim: 64, vocab_size: 264, num_mel_bins: 6, "
    "max_source_positions: 50, max_target_positions: 16, decoder_start_token_id: 1, pad_token_id: "
    "0";
inline constexpr const char* kBlockedWhisperUntied =
    "encoder_layers: 1, decoder_layers: 2, encoder_attention_heads: 8, decoder_attention_heads: 8, "
    "d_model: 32, encoder_ffn_dim: 48, decoder_ffn_dim: 48, vocab_size: 264, num_mel_bins: 6, "
    "max_source_positions: 50, max_target_positions: 16, decoder_start_token_id: 1, "
    "tie_word_embeddings: false";
inline const Case kBlockedCases[] = {
    {"batch_size: 8", {2, 1, 1}},
    {"batch_size: 8", {4, 1, 1}},
    {"batch_size: 8", {8, 1, 1}, "bucket_bytes: 4096"},
    {"batch_size: 8", {1, 1, 2}},
    {"batch_size: 8", {1, 1, 4}},
    {"batch_size: 8", {1, 1, 8}},
    {"batch_size: 8", {1, 1, 2}, "", "causal_lm", kOddVocabulary},
    {"batch_size: 8", {2, 1, 4}, "zero: 1", "causal_lm", kOddVocabulary},
    {"batch_size: 8", {1, 1, 2}, "", "causal_lm", kUntied},
    {"batch_size: 8, precision: bf16", {1, 1, 2}},
    {"batch_size: 8, precision: bf16", {1, 1, 4}, "", "causal_lm", kOddVocabulary},
    {"batch_size: 8, precision: bf16", {2, 1, 1}, "zero: 1"},
    {"batch_size: 8, activation_checkpointing: selective", {1, 1, 2}},
    {"batch_size: 8, activation_checkpointing: full", {1, 1, 2}},
    {"batch_size: 8, activation_checkpointing: full", {1, 2, 2}},
    {"batch_size: 8", {1, 2, 1}},
    {"batch_size: 4, micro_batch_size: 1", {1, 2, 1}},  // two ranks share a row's tokens
    {"batch_size: 4, micro_batch_size: 1", {1, 4, 1}},
    {"batch_size: 4, micro_batch_size: 1", {2, 2, 1}},
    {"batch_size: 4, micro_batch_size: 2", {1, 4, 1}},
    {"batch_size: 2, activation_checkpointing: selective", {1, 4, 1}, "zero: 1"},
    {"batch_size: 4, micro_batch_size: 1, activation_checkpointing: full", {1, 2, 2}},
    {"batch_size: 4, micro_batch_size: 1, precision: bf16", {1, 2, 2}},
    {"batch_size: 8", {2, 2, 2}},
    {"batch_size: 4, micro_batch_size: 1, precision: bf16", {2, 2, 2}, "zero: 3"},
    {"batch_size: 8, micro_batch_size: 2", {2, 1, 2}, "zero: 1"},
    {"batch_size: 8", {2, 1, 1}, "zero: 2"},
    {"batch_size: 8, micro_batch_size: 1", {4, 1, 1}, "zero: 2"},
    {"batch_size: 8, micro_batch_size: 2", {2, 1, 1}, "zero: 3"},
    {"batch_size: 8, micro_batch_size: 2, precision: bf16", {4, 1, 1}, "zero: 3"},
    {"batch_size: 8", {2, 1, 2}, "zero: 3", "causal_lm", kUntied},
    {"batch_size: 8", {2, 1, 2}, "", "sequence_classification"},
    {"batch_size: 16, micro_batch_size: 8", {1, 2, 2}, "zero: 2", "sequence_classification"},
    {"batch_size: 8", {1, 1, 2}, "", "causal_lm", kBlockedGrouped, "llama"},
    {"batch_size: 8", {2, 1, 2}, "zero: 1", "causal_lm", kBlockedGrouped, "qwen2"},
    {"batch_size: 8, precision: bf16", {2, 1, 2}, "", "causal_lm", kBlockedGrouped, "qwen3"},
    {"batch_size: 8, precision: bf16, activation_checkpointing: selective",
     {2, 1, 4},
     "zero: 1",
     "causal_lm",
     kBlockedGrouped,
     "llama"},
    {"batch_size: 4, micro_batch_size: 1, activation_checkpointing: full",
     {1, 2, 2},
     "zero: 3",
     "causal_lm",
     kBlockedGrouped,
     "llama"},
    {"batch_size: 8, precision: bf16", {1, 1, 8}, "", "causal_lm", kFewKeys, "qwen3"},
    {"batch_size: 4, micro_batch_size: 1, activation_checkpointing: selective",
     {1, 2, 4},
     "",
     "causal_lm",
     kFewKeys,
     "llama"},
    {"batch_size: 4, micro_batch_size: 1", {1, 4, 2}, "zero: 1", "causal_lm", kFewKeys, "qwen2"},
    {"batch_size: 8", {1, 1, 4}, "", "causal_lm", kUneven},
    {"batch_size: 8, precision: bf16", {2, 1, 2}, "zero: 3", "causal_lm", kUneven},
    {"batch_size: 1", {1, 4, 2}, "", "causal_lm", kUneven},
    {"batch_size: 4, micro_batch_size: 1", {1, 8, 1}, "zero: 1", "causal_lm", kUneven},
    {"batch_size: 1, precision: bf16, activation_checkpointing: full",
     {1, 8, 1},
     "",
     "causal_lm",
     kUneven},
    {"batch_size: 1", {1, 8, 1}, "", "causal_lm", kUnevenKeys, "llama"},
    {"batch_size: 1, precision: bf16", {1, 4, 2}, "", "causal_lm", kUnevenKeys, "qwen3"},
    {"batch_size: 1, precision: bf16", {1, 2, 4}, "", "causal_lm", kUnevenKeys, "llama"},
    {"batch_size: 1, precision: bf16", {1, 4, 2}, "", "causal_lm", kTwoHeads, "llama"},
    {"batch_size: 8", {1, 1, 2}, "", "causal_lm", kCutKeys, "llama"},
    {"batch_size: 8, precision: bf16", {2, 1, 4}, "zero: 1", "causal_lm", kCutKeys, "qwen3"},
    {"batch_size: 1", {1, 4, 2}, "", "causal_lm", kCutKeys, "llama"},
    {"batch_size: 1, precision: bf16, activation_checkpointing: full",
     {1, 2, 4},
     "zero: 3",
     "causal_lm",
     kCutKeys,
     "qwen2"},
    {"batch_size: 8, precision: bf16", {1, 1, 8}, "", "causal_lm", kManyCuts, "qwen3"},
    {"batch_size: 1, activation_checkpointing: selective",
     {1, 2, 4},
     "",
     "causal_lm",
     kManyCuts,
     "llama"},
    speech("batch_size: 8", {2, 1, 1}, "", kBlockedWhisper),
    speech("batch_size: 8, target_length: 8", {1, 4, 1}, "zero: 1", kBlockedWhisperUntied),
    speech("batch_size: 8, activation_checkpointing: selective", {1, 1, 2}, "", kBlockedWhisper),
    speech("batch_size: 16, micro_batch_size: 4, precision: bf16", {2, 1, 2}, "zero: 3",
           kBlockedWhisper),
    speech("batch_size: 8, activation_checkpointing: full", {2, 2, 2}, "zero: 2",
           kBlockedWhisperUntied),
    targets("batch_size: 8", {2, 1, 1}, "", kBlockedT5),
    targets("batch_size: 8, target_length: 8", {1, 4, 1}, "zero: 1", kBlockedT5Untied),
    targets("batch_size: 16, micro_batch_size: 8, target_length: 8", {1, 1, 2}, "", kBlockedT5),
    targets("batch_size: 8, target_length: 24", {1, 1, 4}, "", kBlockedT5Untied),
    targets("batch_size: 8, activation_checkpointing: selective, target_length: 8", {1, 1, 2}, "",
            kBlockedT5),
    targets("batch_size: 8, activation_checkpointing: full, precision: bf16, target_length: 8",
            {2, 1, 2}, "zero: 2", kBlockedT5),
    targets("batch_size: 16, micro_batch_size: 4, target_length: 8", {2, 1, 2}, "zero: 3",
            kBlockedT5),
    targets("batch_size: 8, precision: bf16", {2, 2, 2}, "zero: 3", kBlockedT5Untied),
    targets("batch_size: 8, activation_checkpointing: full, target_length: 5", {1, 2, 2}, "zero: 3",
            kBlockedT5Untied),
    targets("batch_size: 32, micro_batch_size: 4, precision: bf16, target_length: 24", {4, 2, 1},
            "zero: 3", kBlockedT5Untied),
    {"batch_size: 8", {2, 2, 1}, "", "embedding", kEncoder, "bert"},
    {"batch_size: 8, precision: bf16", {2, 1, 2}, "zero: 1", "embedding", kEncoder, "bert"},
    {"batch_size: 8", {1, 2, 2}, "", "question_answering", kOfPairs, "bert"},
};

inline Case in_blocks(const char* training, MeshDegrees mesh, std::vector<std::string> targets,
                      const char* parallel = "") {
  return {training, mesh, parallel, "causal_lm", kBlockedModel, "gpt2", std::move(targets)};
}
inline Case of_kin(const char* training, MeshDegrees mesh, std::vector<std::string> targets,
                   const char* model, const char* family, const char* parallel = "") {
  return {training, mesh, parallel, "causal_lm", model, family, std::move(targets)};
}
inline const Case kBlockedAdaptedCases[] = {
    in_blocks("batch_size: 8", {1, 1, 2}, kAllLinear),
    in_blocks("batch_size: 8", {1, 1, 4}, {"c_attn"}),
    in_blocks("batch_size: 8", {1, 1, 2}, {"attn.c_proj"}),
    in_blocks("batch_size: 8", {1, 1, 2}, {"c_fc"}),
    in_blocks("batch_size: 8, precision: bf16", {1, 1, 2}, {"mlp.c_proj"}),
    in_blocks("batch_size: 8, activation_checkpointing: selective", {1, 1, 2}, {"c_attn", "c_fc"}),
    in_blocks("batch_size: 8, activation_checkpointing: selective", {1, 1, 2}, {"c_fc"}),
    in_blocks("batch_size: 8, activation_checkpointing: full", {1, 1, 8}, kAllLinear),
    in_blocks("batch_size: 8, micro_batch_size: 2, precision: bf16", {2, 1, 2}, kAllLinear),
    in_blocks("batch_size: 8", {2, 1, 1}, {"c_attn"}),
    in_blocks("batch_size: 8", {4, 1, 1}, kAllLinear, "zero: 1"),
    in_blocks("batch_size: 8, micro_batch_size: 2", {2, 1, 2}, kAllLinear, "zero: 2"),
    in_blocks("batch_size: 8, micro_batch_size: 1", {4, 1, 1}, {"c_fc"}, "zero: 3"),
    in_blocks("batch_size: 4, micro_batch_size: 1", {1, 4, 1}, {"c_attn"}),
    in_blocks("batch_size: 4, micro_batch_size: 1", {1, 4, 1}, {"c_fc"}),
    in_blocks("batch_size: 2, activation_checkpointing: selective", {1, 4, 2}, {"mlp.c_proj"}),
    of_kin("batch_size: 8, precision: bf16", {1, 1, 8}, kAllLinear, kFewKeys, "qwen3"),
    of_kin("batch_size: 8", {1, 1, 4}, {"down_proj"}, kFewKeys, "llama"),
    of_kin("batch_size: 1, precision: bf16", {1, 4, 2}, {"v_proj"}, kUnevenKeys, "qwen3"),
    of_kin("batch_size: 4, micro_batch_size: 1", {1, 2, 4}, kAllLinear, kFewKeys, "qwen2",
           "zero: 3"),
    of_kin("batch_size: 8", {1, 1, 4}, kAllLinear, kCutKeys, "llama"),
    of_kin("batch_size: 8, precision: bf16", {2, 1, 4}, {"k_proj"}, kCutKeys, "qwen3", "zero: 1"),
    of_kin("batch_size: 1", {1, 4, 2}, {"v_proj"}, kManyCuts, "qwen3"),
    {"batch_size: 8", {2, 1, 2}, "", "sequence_classification", kEncoder, "bert", kAllLinear},
};

}  // namespace weft::traffic_cases
