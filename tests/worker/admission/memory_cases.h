// Jobs whose ranks' memory is estimated and measured.
#pragma once

#include <cstdint>

#include "worker/optimizer/buckets.h"
#include "worker/parallel/mesh.h"

namespace weft::memory_cases {

struct Case {
  const char* name;
  const char* model;     // keys of the configuration
  const char* training;  // keys of training
  MeshDegrees mesh = {};
  const char* task = "causal_lm";
  int zero = 0;
  int64_t bucket_bytes = kBucketBytes;
  const char* family = "gpt2";
  int positions = 256;
  const char* target = nullptr;  // of an adapter; null: none
  double dropout = 0;            // of what it maps
  bool dora = false;
};

inline constexpr const char* kSmall = "n_layer: 3, n_head: 4, n_embd: 64, vocab_size: 500";
inline constexpr const char* kBatch = "batch_size: 8, sequence_length: 64";

inline constexpr const char* kParameters = "n_layer: 8, n_head: 4, n_embd: 128, vocab_size: 1000";
inline constexpr const char* kRows = "batch_size: 4, sequence_length: 32";
inline constexpr const char* kRowsBf16 = "batch_size: 4, sequence_length: 32, precision: bf16";
inline constexpr const char* kRowsFull =
    "batch_size: 8, sequence_length: 64, activation_checkpointing: full";
inline constexpr const char* kRounds = "batch_size: 8, micro_batch_size: 1, sequence_length: 32";

inline constexpr const char* kFewBlocks = "n_layer: 2, n_head: 4, n_embd: 256, vocab_size: 300";
inline constexpr const char* kDeepRow = "n_layer: 4, n_head: 4, n_embd: 128, vocab_size: 300";
inline constexpr const char* kLongRow = "batch_size: 1, sequence_length: 256";
inline constexpr const char* kManyTokens = "n_layer: 2, n_head: 4, n_embd: 128, vocab_size: 8000";
inline constexpr const char* kClasses = "batch_size: 8, sequence_length: 8";
inline constexpr int64_t kSmallBuckets = 64 << 10;  // a matrix each

inline const Case kCases[] = {
    {"plain", kSmall, kBatch},
    {"long", kSmall, "batch_size: 2, sequence_length: 256"},
    {"wide", "n_layer: 2, n_head: 4, n_embd: 256, vocab_size: 300", kBatch},
    {"deep", "n_layer: 12, n_head: 2, n_embd: 32, vocab_size: 300", kBatch},
    {"vocabulary", "n_layer: 1, n_head: 2, n_embd: 32, vocab_size: 20000", kBatch},
    {"parameters", "n_layer: 4, n_head: 4, n_embd: 256, vocab_size: 3000",
     "batch_size: 1, sequence_length: 8"},
    {"narrow MLP", "n_layer: 4, n_head: 4, n_embd: 64, n_inner: 64, vocab_size: 300", kBatch},
    {"accumulated", kSmall, "batch_size: 8, micro_batch_size: 2, sequence_length: 64"},
    {"selective", kSmall,
     "batch_size: 8, sequence_length: 64, activation_checkpointing: selective"},
    {"full", "n_layer: 6, n_head: 4, n_embd: 64, vocab_size: 500",
     "batch_size: 8, sequence_length: 64, activation_checkpointing: full"},
    {"full, gradients", kParameters, kRowsFull},
    {"and tensor 2", kParameters, kRowsFull, {1, 1, 2}},
    {"and zero 1", kParameters, kRowsFull, {2, 1, 1}, "causal_lm", 1},
    {"bf16", kSmall, "batch_size: 8, sequence_length: 64, precision: bf16"},
    {"fp16", kSmall, "batch_size: 8, sequence_length: 64, precision: fp16"},
    {"tensor 2", kSmall, kBatch, {1, 1, 2}},
    {"tensor 3", kSmall, kBatch, {1, 1, 3}},
    {"sequence 2", kSmall, kBatch, {1, 2, 1}},
    {"sequence 4", kSmall, "batch_size: 4, sequence_length: 256", {1, 4, 1}},
    {"data 2", kSmall, kBatch, {2, 1, 1}},
    {"2 x 1 x 2", kSmall, kBatch, {2, 1, 2}},
    {"classification", kSmall, "batch_size: 30, sequence_length: 8", {}, "sequence_classification"},
    {"zero 0", kParameters, kRows, {2, 1, 1}},
    {"4, zero 0", kParameters, kRows, {4, 1, 1}},
    {"zero 0, bf16", kParameters, kRowsBf16, {2, 1, 1}},
    {"zero 1", kParameters, kRows, {2, 1, 1}, "causal_lm", 1},
    {"zero 2", kParameters, kRows, {2, 1, 1}, "causal_lm", 2},
    {"zero 3", kParameters, kRows, {2, 1, 1}, "causal_lm", 3},
    {"4, zero 1", kParameters, kRows, {4, 1, 1}, "causal_lm", 1},
    {"4, zero 2", kParameters, kRows, {4, 1, 1}, "causal_lm", 2},
    {"4, zero 3", kParameters, kRows, {4, 1, 1}, "causal_lm", 3},
    {"zero 1, bf16", kParameters, kRowsBf16, {2, 1, 1}, "causal_lm", 1},
    {"zero 2, bf16", kParameters, kRowsBf16, {4, 1, 1}, "causal_lm", 2},
    {"zero 3, bf16", kParameters, kRowsBf16, {2, 1, 1}, "causal_lm", 3},
    {"zero 1, tokens", kSmall, kBatch, {2, 1, 1}, "causal_lm", 1},
    {"zero 2, tokens", kSmall, kBatch, {1, 2, 1}, "causal_lm", 2},
    {"zero 3, tokens", kSmall, kBatch, {2, 1, 2}, "causal_lm", 3},
    {"zero 1, rounds", kParameters, kRounds, {2, 1, 1}, "causal_lm", 1},
    {"zero 2, rounds", kParameters, kRounds, {2, 1, 1}, "causal_lm", 2},
    {"zero 3, rounds", kParameters, kRounds, {2, 1, 1}, "causal_lm", 3},
    {"2 layers, zero 1", kFewBlocks, kRows, {2, 1, 1}, "causal_lm", 1},
    {"and sequence 2", kFewBlocks, kRows, {1, 2, 1}, "causal_lm", 1},
    {"sequence 2", kParameters, kRows, {1, 2, 1}},
    {"and zero 1", kParameters, kRows, {1, 2, 1}, "causal_lm", 1},
    {"and zero 2", kParameters, kRows, {1, 2, 1}, "causal_lm", 2},
    {"4, zero 1", kParameters, kRows, {1, 4, 1}, "causal_lm", 1},
    {"rounds, zero 1", kParameters, kRounds, {1, 2, 1}, "causal_lm", 1},
    {"2 x 1 x 2", kParameters, kRows, {2, 1, 2}},
    {"and zero 1", kParameters, kRows, {2, 1, 2}, "causal_lm", 1},
    {"small buckets", kParameters, kRows, {2, 1, 1}, "causal_lm", 0, kSmallBuckets},
    {"and zero 1", kParameters, kRows, {2, 1, 1}, "causal_lm", 1, kSmallBuckets},
    {"and zero 2", kParameters, kRows, {2, 1, 1}, "causal_lm", 2, kSmallBuckets},
    {"and zero 3", kParameters, kRows, {2, 1, 1}, "causal_lm", 3, kSmallBuckets},
    {"2 layers, zero 1", kFewBlocks, kRows, {2, 1, 1}, "causal_lm", 1, kSmallBuckets},
    {"and sequence 2", kFewBlocks, kRows, {1, 2, 1}, "causal_lm", 1, kSmallBuckets},
    {"and zero 2", kFewBlocks, kRows, {1, 2, 1}, "causal_lm", 2, kSmallBuckets},
    {"and tensor 2", kFewBlocks, kRows, {2, 1, 2}, "causal_lm", 1, kSmallBuckets},
    {"a row of tokens, zero 1", kDeepRow, kLongRow, {1, 2, 1}, "causal_lm", 1},
    {"and 4 ranks", kDeepRow, kLongRow, {1, 4, 1}, "causal_lm", 1},
    {"and tensor 2", kDeepRow, kLongRow, {1, 2, 2}, "causal_lm", 1},
    {"and zero 2", kDeepRow, kLongRow, {1, 2, 1}, "causal_lm", 2},
    {"many tokens, zero 0", kManyTokens, kRows, {2, 1, 1}},
    {"and zero 1", kManyTokens, kRows, {2, 1, 1}, "causal_lm", 1},
    {"and zero 2", kManyTokens, kRows, {2, 1, 1}, "causal_lm", 2},
    {"and zero 3", kManyTokens, kRows, {2, 1, 1}, "causal_lm", 3},
    {"sequence 2, zero 1", kManyTokens, kRows, {1, 2, 1}, "causal_lm", 1},
    {"sequence 2, zero 2", kManyTokens, kRows, {1, 2, 1}, "causal_lm", 2},
    {"4, zero 1", kManyTokens, kRows, {4, 1, 1}, "causal_lm", 1},
    {"and tensor 2", kManyTokens, kRows, {2, 1, 2}, "causal_lm", 1},
    {"bf16, zero 1", kManyTokens, kRowsBf16, {2, 1, 1}, "causal_lm", 1},
    {"rounds, zero 1", kManyTokens, kRounds, {2, 1, 1}, "causal_lm", 1},
    {"classes, zero 0", kManyTokens, kClasses, {2, 1, 1}, "sequence_classification"},
    {"and zero 1", kManyTokens, kClasses, {2, 1, 1}, "sequence_classification", 1},
    {"and zero 2", kManyTokens, kClasses, {2, 1, 1}, "sequence_classification", 2},
    {"rounds, zero 2", kManyTokens, kRounds, {2, 1, 1}, "causal_lm", 2},
    {"zero 3, table",
     "n_layer: 2, n_head: 2, n_embd: 32, vocab_size: 20000",
     kBatch,
     {2, 1, 1},
     "causal_lm",
     3},
};

// Cut into 8 blocks.
inline constexpr const char* kEven = "n_layer: 3, n_head: 8, n_embd: 64, vocab_size: 512";
inline constexpr const char* kEvenDeep = "n_layer: 6, n_head: 8, n_embd: 64, vocab_size: 512";
inline constexpr const char* kEvenWide = "n_layer: 2, n_head: 8, n_embd: 256, vocab_size: 320";
inline constexpr const char* kManyIds = "n_layer: 1, n_head: 8, n_embd: 32, vocab_size: 20000";
// A rank has more logits than are kept.
inline constexpr const char* kMoreIds = "n_layer: 1, n_head: 8, n_embd: 32, vocab_size: 40000";
inline constexpr const char* kMostIds = "n_layer: 1, n_head: 8, n_embd: 32, vocab_size: 80000";
inline constexpr const char* kEvenGrouped =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 4, hidden_size: 64, "
    "intermediate_size: 160, vocab_size: 512";
inline constexpr const char* kFewKeys =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 1, hidden_size: 64, "
    "intermediate_size: 160, vocab_size: 512";
inline constexpr const char* kEvenHeadNorms =
    "num_hidden_layers: 8, num_attention_heads: 8, num_key_value_heads: 4, hidden_size: 64, "
    "head_dim: 16, intermediate_size: 160, vocab_size: 512";
inline constexpr const char* kBert =
    "num_hidden_layers: 4, num_attention_heads: 4, hidden_size: 128, intermediate_size: 512, "
    "vocab_size: 500";
// Heads that 4 or 8 ranks of a row do not share evenly, and a vocabulary that blocks do not.
inline constexpr const char* kUneven =
    "n_layer: 3, n_head: 12, n_embd: 96, n_inner: 96, vocab_size: 302";
inline constexpr const char* kEvenRow =
    "n_layer: 3, n_head: 8, n_embd: 96, n_inner: 96, vocab_size: 302";
inline constexpr const char* kFourHeads =
    "n_layer: 3, n_head: 4, n_embd: 96, n_inner: 96, vocab_size: 302";
inline constexpr const char* kUnevenKeys =
    "num_hidden_layers: 3, num_attention_heads: 12, num_key_value_heads: 2, hidden_size: 96, "
    "intermediate_size: 96, vocab_size: 302";
// Of 12 heads with 3 of keys four ranks have 1, 2, 2 and 1 of these; of 20 with 5 (as 40 with 10).
inline constexpr const char* kCutKeys =
    "num_hidden_layers: 3, num_attention_heads: 12, num_key_value_heads: 3, hidden_size: 96, "
    "intermediate_size: 96, vocab_size: 302";
inline constexpr const char* kWideCutKeys =
    "num_hidden_layers: 3, num_attention_heads: 20, num_key_value_heads: 5, hidden_size: 160, "
    "head_dim: 8, intermediate_size: 320, vocab_size: 302";
// All heads together are four times as wide as the stream.
inline constexpr const char* kWideHeads =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 8, hidden_size: 64, "
    "head_dim: 32, intermediate_size: 160, vocab_size: 504";
inline constexpr const char* kBlocks = "reproducible: topology, batch_size: 8, sequence_length: 64";
inline constexpr const char* kBlocksBf16 =
    "reproducible: topology, batch_size: 8, sequence_length: 64, precision: bf16";
inline constexpr const char* kBlocksSelective =
    "reproducible: topology, batch_size: 8, sequence_length: 64, activation_checkpointing: "
    "selective";
inline constexpr const char* kBlocksFull =
    "reproducible: topology, batch_size: 8, sequence_length: 64, activation_checkpointing: full";
inline constexpr const char* kBlocksFullBf16 =
    "reproducible: topology, batch_size: 8, sequence_length: 64, activation_checkpointing: full, "
    "precision: bf16";
inline constexpr const char* kLongBlocks =
    "reproducible: topology, batch_size: 1, sequence_length: 256";
inline constexpr const char* kLongerBlocks =
    "reproducible: topology, batch_size: 1, sequence_length: 2048";
inline constexpr const char* kLongerBlocksBf16 =
    "reproducible: topology, batch_size: 1, sequence_length: 2048, precision: bf16";
inline constexpr const char* kBlockedRows =
    "reproducible: topology, batch_size: 8, sequence_length: 32";
inline constexpr const char* kBlockedRowsBf16 =
    "reproducible: topology, batch_size: 8, sequence_length: 32, precision: bf16";
inline constexpr const char* kBlockedPairs =
    "reproducible: topology, batch_size: 128, sequence_length: 8";
inline constexpr const char* kBlockedPairsBf16 =
    "reproducible: topology, batch_size: 128, sequence_length: 8, precision: bf16";
inline constexpr const char* kBlockedRounds =
    "reproducible: topology, batch_size: 8, micro_batch_size: 2, sequence_length: 32";

inline const Case kBlockedCases[] = {
    {"plain", kEven, kBlocks},
    {"narrow MLP", "n_layer: 4, n_head: 8, n_embd: 64, n_inner: 64, vocab_size: 320", kBlocks},
    {"bf16", kEven, kBlocksBf16},
    {"accumulated", kEven,
     "reproducible: topology, batch_size: 8, micro_batch_size: 2, sequence_length: 64"},
    {"selective", kEven, kBlocksSelective},
    {"full", kEvenDeep, kBlocksFull},
    {"full, bf16", kEvenDeep, kBlocksFullBf16},
    {"full, gradients", kParameters, kBlocksFull, {1, 1, 2}},
    {"and zero 1", kParameters, kBlocksFull, {2, 1, 1}, "causal_lm", 1},
    {"full, tensor 2", kEvenDeep, kBlocksFull, {1, 1, 2}},
    {"vocabulary", kManyIds, kBlocks},
    {"the same, bf16", kManyIds, kBlocksBf16},
    {"logits twice", kMoreIds, kBlocks},
    {"the same, bf16", kMoreIds, kBlocksBf16},
    {"on tensor 2", kMostIds, kBlocks, {1, 1, 2}},
    {"tensor 2", kEven, kBlocks, {1, 1, 2}},
    {"tensor 4, bf16", kEven, kBlocksBf16, {1, 1, 4}},
    {"wide, tensor 2", kEvenWide, kBlocks, {1, 1, 2}},
    {"data 2", kEven, kBlocks, {2, 1, 1}},
    {"sequence 2", kEven, kBlocks, {1, 2, 1}},
    {"in a row", kEven, kLongBlocks, {1, 4, 1}, "causal_lm", 1},
    {"and tensor 2", kEven, kLongBlocks, {1, 2, 2}},
    {"2 x 1 x 2", kEven, kBlocks, {2, 1, 2}},
    {"2 x 2 x 2", kEven, kBlocks, {2, 2, 2}},
    {"classification",
     kEven,
     "reproducible: topology, batch_size: 16, sequence_length: 8",
     {},
     "sequence_classification"},
    {"parameters", kParameters, kBlockedRows, {2, 1, 1}},
    {"rounds", kParameters, kBlockedRounds, {2, 1, 1}},
    {"zero 1", kParameters, kBlockedRows, {2, 1, 1}, "causal_lm", 1},
    {"zero 2", kParameters, kBlockedRows, {4, 1, 1}, "causal_lm", 2},
    {"zero 3", kParameters, kBlockedRows, {2, 1, 1}, "causal_lm", 3},
    {"zero 1, bf16", kParameters, kBlockedRowsBf16, {2, 1, 1}, "causal_lm", 1},
    {"zero 3, bf16", kParameters, kBlockedRowsBf16, {2, 1, 1}, "causal_lm", 3},
    {"zero 1, rounds", kParameters, kBlockedRounds, {2, 1, 1}, "causal_lm", 1},
    {"zero 2, rounds", kParameters, kBlockedRounds, {2, 1, 1}, "causal_lm", 2},
    {"zero 3, rounds", kParameters, kBlockedRounds, {2, 1, 1}, "causal_lm", 3},
    {"zero 3, tokens", kEven, kBlocks, {2, 1, 2}, "causal_lm", 3},
    {"grouped", kEvenGrouped, kBlocks, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"grouped, bf16", kEvenGrouped, kBlocksBf16, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"grouped, full", kEvenGrouped, kBlocksFull, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "llama"},
    {"grouped, tensor 4", kEvenGrouped, kBlocks, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"wide heads", kWideHeads, kBlocks, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"and full", kWideHeads, kBlocksFull, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"few keys", kFewKeys, kBlocks, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"few keys, bf16", kFewKeys, kBlocksBf16, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"on tensor 4", kFewKeys, kBlocks, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"and in a row", kFewKeys, kLongBlocks, {1, 2, 2}, "causal_lm", 0, kBucketBytes, "llama"},
    {"uneven", kUneven, kBlocks, {1, 2, 4}},
    {"of 8 heads", kEvenRow, kLongerBlocks, {1, 4, 1}, "causal_lm", 0, kBucketBytes, "gpt2", 2048},
    {"in a row", kUneven, kLongerBlocks, {1, 4, 2}, "causal_lm", 0, kBucketBytes, "gpt2", 2048},
    {"of 8", kUneven, kLongerBlocks, {1, 8, 1}, "causal_lm", 0, kBucketBytes, "gpt2", 2048},
    {"bf16", kUneven, kLongerBlocksBf16, {1, 8, 1}, "causal_lm", 0, kBucketBytes, "gpt2", 2048},
    {"of 4 heads",
     kFourHeads,
     kLongerBlocks,
     {1, 8, 1},
     "causal_lm",
     0,
     kBucketBytes,
     "gpt2",
     2048},
    {"uneven keys",
     kUnevenKeys,
     kLongerBlocks,
     {1, 4, 1},
     "causal_lm",
     0,
     kBucketBytes,
     "llama",
     2048},
    {"of 8", kUnevenKeys, kLongerBlocks, {1, 8, 1}, "causal_lm", 0, kBucketBytes, "llama", 2048},
    {"bf16",
     kUnevenKeys,
     kLongerBlocksBf16,
     {1, 8, 1},
     "causal_lm",
     0,
     kBucketBytes,
     "llama",
     2048},
    {"on one rank", kUnevenKeys, kBlocks, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"on tensor 4", kUnevenKeys, kBlocks, {1, 2, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"cut keys", kCutKeys, kBlocks, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"on tensor 2", kCutKeys, kBlocks, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "llama"},
    {"on tensor 4", kCutKeys, kBlocks, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"bf16", kCutKeys, kBlocksBf16, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"and zero 1", kCutKeys, kBlocks, {2, 1, 2}, "causal_lm", 1, kBucketBytes, "llama"},
    {"in a row", kCutKeys, kLongerBlocks, {1, 2, 4}, "causal_lm", 0, kBucketBytes, "llama", 2048},
    {"bf16", kCutKeys, kLongerBlocksBf16, {1, 4, 2}, "causal_lm", 0, kBucketBytes, "llama", 2048},
    {"wider", kWideCutKeys, kBlocks, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"full", kWideCutKeys, kBlocksFull, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "llama"},
    {"norms", kWideCutKeys, kBlocksBf16, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"pairs", kBert, kBlockedPairs, {}, "embedding", 0, kBucketBytes, "bert"},
    {"pairs, bf16", kBert, kBlockedPairsBf16, {2, 1, 1}, "embedding", 0, kBucketBytes, "bert"},
    {"head norms", kEvenHeadNorms, kBlocks, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"the same, bf16", kEvenHeadNorms, kBlocksBf16, {}, "causal_lm", 0, kBucketBytes, "qwen3"},
};

// Of Llama: eight heads of queries read two of keys.
inline constexpr const char* kGrouped =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 64, "
    "intermediate_size: 160, vocab_size: 500";
inline constexpr const char* kGroupedWide =
    "num_hidden_layers: 4, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 128, "
    "head_dim: 32, intermediate_size: 256, vocab_size: 300, tie_word_embeddings: true";
inline constexpr const char* kHeadNorms =
    "num_hidden_layers: 6, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 64, "
    "head_dim: 32, intermediate_size: 64, vocab_size: 300, tie_word_embeddings: true";
inline constexpr const char* kWindows =
    "num_hidden_layers: 4, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 128, "
    "head_dim: 32, intermediate_size: 256, vocab_size: 300, sliding_window: 8";
inline constexpr const char* kHalfBatch = "batch_size: 8, sequence_length: 64, precision: bf16";
inline constexpr const char* kCutRows = "batch_size: 2, sequence_length: 512";
inline constexpr const char* kCutRowsBf16 = "batch_size: 2, sequence_length: 512, precision: bf16";
inline constexpr const char* kCutRowsFull =
    "batch_size: 2, sequence_length: 512, activation_checkpointing: full";

inline const Case kGroupedCases[] = {
    {"plain", kGrouped, kBatch, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"wide", kGroupedWide, kBatch, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"selective",
     kGrouped,
     "batch_size: 8, sequence_length: 64, activation_checkpointing: selective",
     {},
     "causal_lm",
     0,
     kBucketBytes,
     "llama"},
    {"full", kGroupedWide, kRowsFull, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"bf16", kGrouped, kHalfBatch, {}, "causal_lm", 0, kBucketBytes, "llama"},
    {"fp16",
     kGrouped,
     "batch_size: 8, sequence_length: 64, precision: fp16",
     {},
     "causal_lm",
     0,
     kBucketBytes,
     "llama"},
    {"tensor 2", kGroupedWide, kBatch, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "llama"},
    {"tensor 4", kGroupedWide, kBatch, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"tensor 3", kGroupedWide, kBatch, {1, 1, 3}, "causal_lm", 0, kBucketBytes, "llama"},
    {"sequence 2", kGroupedWide, kBatch, {1, 2, 1}, "causal_lm", 0, kBucketBytes, "llama"},
    {"and tensor 4", kGroupedWide, kBatch, {1, 2, 4}, "causal_lm", 0, kBucketBytes, "llama"},
    {"zero 1", kGroupedWide, kRows, {2, 1, 4}, "causal_lm", 1, kSmallBuckets, "llama"},
    {"zero 3", kGroupedWide, kRows, {2, 1, 1}, "causal_lm", 3, kSmallBuckets, "llama"},
    {"biases, tensor 4", kGroupedWide, kBatch, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "qwen2"},
    {"head norms", kHeadNorms, kBatch, {}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"the same, bf16", kHeadNorms, kHalfBatch, {}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"on tensor 4", kHeadNorms, kBatch, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"again", kHeadNorms, kRowsFull, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"windows", kWindows, kBatch, {1, 2, 1}, "causal_lm", 0, kBucketBytes, "mistral"},
    // Products are cut from 256 tokens of a rank on (parallel/overlapped_linear.h).
    {"cut", kGroupedWide, kCutRows, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "llama", 512},
    {"cut, bf16",
     kGroupedWide,
     kCutRowsBf16,
     {1, 1, 2},
     "causal_lm",
     0,
     kBucketBytes,
     "llama",
     512},
    {"cut, full",
     kGroupedWide,
     kCutRowsFull,
     {1, 1, 2},
     "causal_lm",
     0,
     kBucketBytes,
     "llama",
     512},
};

// Of encoders: post-norm blocks behind a norm of the embeddings, a head of two layers.
inline constexpr const char* kDistilbert = "n_layers: 4, n_heads: 4, dim: 128, hidden_dim: 512";
inline constexpr const char* kClassesBf16 = "batch_size: 16, sequence_length: 8, precision: bf16";
inline constexpr const char* kClassesSelective =
    "batch_size: 16, sequence_length: 8, activation_checkpointing: selective";
inline constexpr const char* kClassesFull =
    "batch_size: 16, sequence_length: 8, activation_checkpointing: full";
inline constexpr const char* kClassesRounds =
    "batch_size: 8, micro_batch_size: 1, sequence_length: 8";

inline Case encoder(const char* name, const char* training, MeshDegrees mesh = {}, int zero = 0,
                    const char* family = "bert", const char* model = kBert) {
  return {name, model, training, mesh, "sequence_classification", zero, kBucketBytes, family};
}
inline Case pairs(const char* name, const char* training, MeshDegrees mesh = {}) {
  return {name, kBert, training, mesh, "embedding", 0, kBucketBytes, "bert"};
}

inline const Case kEncoderCases[] = {
    encoder("plain", "batch_size: 30, sequence_length: 8"),
    encoder("bf16", kClassesBf16),
    encoder("selective", kClassesSelective),
    encoder("full", kClassesFull),
    encoder("rounds", kClassesRounds),
    encoder("tensor 2", kClasses, {1, 1, 2}),
    encoder("tensor 4, bf16", kClassesBf16, {1, 1, 4}),
    encoder("sequence 2", kClasses, {1, 2, 1}),
    encoder("data 2", kClasses, {2, 1, 1}),
    encoder("and zero 1", kClasses, {2, 1, 1}, 1),
    encoder("4, zero 2, bf16", kClassesBf16, {4, 1, 1}, 2),
    encoder("zero 3, full", kClassesFull, {2, 1, 1}, 3),
    encoder("2 x 1 x 2, zero 1", kClasses, {2, 1, 2}, 1),
    encoder("roberta", kClasses, {2, 1, 1}, 0, "roberta"),
    encoder("distilbert", kClassesFull, {1, 1, 2}, 0, "distilbert", kDistilbert),
    pairs("pairs", "batch_size: 30, sequence_length: 8"),
    pairs("and bf16", "batch_size: 30, sequence_length: 8, precision: bf16"),
    pairs("many pairs", "batch_size: 120, sequence_length: 8"),
    pairs("many on 2 ranks", "batch_size: 120, sequence_length: 8, activation_checkpointing: full",
          {2, 1, 1}),
    pairs("on sequence 2", kClasses, {1, 2, 1}),
};

// 17 tokens an image, of 192 values.
inline constexpr const char* kVit =
    "num_hidden_layers: 4, num_attention_heads: 4, hidden_size: 128, intermediate_size: 512, "
    "image_size: 32, patch_size: 8";
inline Case images(const char* name, const char* training, MeshDegrees mesh = {}, int zero = 0,
                   const char* model = kVit) {
  return {name, model, training, mesh, "image_classification", zero, kBucketBytes, "vit"};
}

inline const Case kImageCases[] = {
    images("plain", "batch_size: 15"),
    images("large", "batch_size: 4", {}, 0,
           "num_hidden_layers: 2, num_attention_heads: 2, hidden_size: 64, intermediate_size: 128, "
           "image_size: 128, patch_size: 16"),
    images("bf16", "batch_size: 16, precision: bf16"),
    images("selective", "batch_size: 16, activation_checkpointing: selective"),
    images("full", "batch_size: 16, activation_checkpointing: full"),
    images("rounds", "batch_size: 8, micro_batch_size: 1"),
    images("tensor 2", "batch_size: 8", {1, 1, 2}),
    images("tensor 4, bf16", "batch_size: 16, precision: bf16", {1, 1, 4}),
    images("sequence 2", "batch_size: 8", {1, 2, 1}),
    images("data 2", "batch_size: 8", {2, 1, 1}),
    images("and zero 1", "batch_size: 8", {2, 1, 1}, 1),
    images("4, zero 2, bf16", "batch_size: 16, precision: bf16", {4, 1, 1}, 2),
    images("zero 3", "batch_size: 8", {2, 1, 1}, 3),
    images("2 x 1 x 2, zero 1", "batch_size: 8", {2, 1, 2}, 1),
};

// Of an encoder and a decoder.
inline constexpr const char* kT5 =
    "num_layers: 3, num_heads: 4, d_model: 64, d_kv: 16, d_ff: 256, vocab_size: 500";
inline constexpr const char* kT5Gated =
    "num_layers: 3, num_heads: 4, d_model: 64, d_kv: 16, d_ff: 160, vocab_size: 500, "
    "feed_forward_proj: gated-gelu, tie_word_embeddings: false";
inline constexpr const char* kT5Wide =
    "num_layers: 6, num_decoder_layers: 4, num_heads: 4, d_model: 128, d_kv: 32, d_ff: 512, "
    "vocab_size: 1000";
inline constexpr const char* kAlike = "batch_size: 8, sequence_length: 64";
inline constexpr const char* kShortTargets =
    "batch_size: 4, sequence_length: 128, target_length: 16";
inline constexpr const char* kLongTargets =
    "batch_size: 4, sequence_length: 16, target_length: 128";
inline constexpr const char* kFewTargets = "batch_size: 4, sequence_length: 32, target_length: 16";
inline Case targets(const char* name, const char* training, MeshDegrees mesh = {}, int zero = 0,
                    const char* model = kT5, int64_t bucket_bytes = kBucketBytes) {
  return {name, model, training, mesh, "seq2seq", zero, bucket_bytes, "t5"};
}

inline const Case kTargetCases[] = {
    targets("plain", kAlike),
    targets("gated", kAlike, {}, 0, kT5Gated),
    targets("short targets", kShortTargets),
    targets("long targets", kLongTargets),
    targets("selective", "batch_size: 8, sequence_length: 64, activation_checkpointing: selective"),
    targets("full", "batch_size: 8, sequence_length: 64, activation_checkpointing: full"),
    targets("bf16", "batch_size: 8, sequence_length: 64, precision: bf16"),
    targets("fp16", "batch_size: 8, sequence_length: 64, precision: fp16"),
    targets("rounds", "batch_size: 8, micro_batch_size: 2, sequence_length: 64"),
    targets("wide", kFewTargets, {}, 0, kT5Wide),
    targets("tensor 2", kAlike, {1, 1, 2}),
    targets("tensor 4, gated", kAlike, {1, 1, 4}, 0, kT5Gated),
    targets("data 2", kFewTargets, {2, 1, 1}, 0, kT5Wide),
    targets("zero 1", kFewTargets, {2, 1, 1}, 1, kT5Wide),
    targets("zero 2", kFewTargets, {4, 1, 1}, 2, kT5Wide),
    targets("zero 3", kFewTargets, {2, 1, 1}, 3, kT5Wide),
    targets("zero 1, buckets", kFewTargets, {2, 1, 1}, 1, kT5Wide, kSmallBuckets),
    targets("2 x 1 x 2, zero 3", kFewTargets, {2, 1, 2}, 3, kT5Wide),
    targets("sequence 2", kAlike, {1, 2, 1}),
    targets("and short targets", kShortTargets, {1, 2, 1}),
    targets("sequence 4, zero 1", kAlike, {1, 4, 1}, 1, kT5Gated),
    targets("1 x 2 x 2, zero 3", kFewTargets, {1, 2, 2}, 3, kT5Wide),
};

// Of these, cut into 8 blocks.
inline constexpr const char* kT5Even =
    "num_layers: 3, num_heads: 8, d_model: 64, d_kv: 8, d_ff: 256, vocab_size: 504";
inline constexpr const char* kT5EvenGated =
    "num_layers: 3, num_heads: 8, d_model: 64, d_kv: 8, d_ff: 160, vocab_size: 504, "
    "feed_forward_proj: gated-gelu, tie_word_embeddings: false";
inline constexpr const char* kT5WideGated =
    "num_layers: 6, num_decoder_layers: 4, num_heads: 8, d_model: 128, d_kv: 16, d_ff: 320, "
    "vocab_size: 1000, feed_forward_proj: gated-gelu, tie_word_embeddings: false";
inline constexpr const char* kT5DeepDecoder =
    "num_layers: 1, num_decoder_layers: 6, num_heads: 4, d_model: 128, d_kv: 32, d_ff: 512, "
    "vocab_size: 1000";
inline constexpr const char* kBlockedShort =
    "reproducible: topology, batch_size: 8, sequence_length: 128, target_length: 16";
inline constexpr const char* kBlockedLong =
    "reproducible: topology, batch_size: 8, sequence_length: 16, target_length: 128";
inline constexpr const char* kBlockedFew =
    "reproducible: topology, batch_size: 8, sequence_length: 32, target_length: 16";
inline constexpr const char* kBlockedFewest =
    "reproducible: topology, batch_size: 8, sequence_length: 8";
inline constexpr const char* kBlockedTargetRounds =
    "reproducible: topology, batch_size: 16, micro_batch_size: 4, sequence_length: 32, "
    "target_length: 16, precision: bf16";

inline const Case kBlockedTargetCases[] = {
    targets("plain", kBlocks, {}, 0, kT5Even),
    targets("gated", kBlocks, {}, 0, kT5EvenGated),
    targets("short targets", kBlockedShort, {}, 0, kT5Even),
    targets("long targets", kBlockedLong, {}, 0, kT5Even),
    targets("selective", kBlocksSelective, {}, 0, kT5Even),
    targets("full", kBlocksFull, {}, 0, kT5Even),
    targets("full, bf16", kBlocksFullBf16, {}, 0, kT5Even),
    targets("bf16", kBlocksBf16, {}, 0, kT5Even),
    targets("rounds",
            "reproducible: topology, batch_size: 16, micro_batch_size: 8, sequence_length: 32", {},
            0, kT5Wide),
    targets("wide", kBlockedFew, {}, 0, kT5Wide),
    targets("parameters", kBlockedFewest, {}, 0, kT5Wide),
    targets("full, parameters", kBlocksFull, {}, 0, kT5Wide),
    targets("a deep decoder", kBlockedShort, {}, 0, kT5DeepDecoder),
    targets("full, a deep decoder", kBlocksFull, {}, 0, kT5DeepDecoder),
    targets("and data 2", kBlockedShort, {2, 1, 1}, 0, kT5DeepDecoder),
    targets("tensor 2", kBlocks, {1, 1, 2}, 0, kT5Even),
    targets("tensor 4, gated", kBlocks, {1, 1, 4}, 0, kT5EvenGated),
    targets("tensor 2, short targets", kBlockedShort, {1, 1, 2}, 0, kT5Even),
    targets("tensor 2, bf16", kBlocksBf16, {1, 1, 2}, 0, kT5EvenGated),
    targets("data 2", kBlockedFew, {2, 1, 1}, 0, kT5Wide),
    targets("sequence 2", kBlocks, {1, 2, 1}, 0, kT5Even),
    targets("data 2, parameters", kBlockedFewest, {2, 1, 1}, 0, kT5Wide),
    targets("and zero 1", kBlockedFewest, {2, 1, 1}, 1, kT5Wide),
    targets("and zero 3", kBlockedFewest, {2, 1, 1}, 3, kT5Wide),
    targets("zero 1", kBlockedFew, {2, 1, 1}, 1, kT5Wide),
    targets("zero 2", kBlockedFew, {4, 1, 1}, 2, kT5Wide),
    targets("zero 3", kBlockedFew, {2, 1, 1}, 3, kT5Wide),
    targets("zero 3, deep decoder", kBlockedShort, {2, 1, 1}, 3, kT5DeepDecoder),
    targets("2 x 1 x 2, zero 3", kBlockedFew, {2, 1, 2}, 3, kT5Wide),
    targets("1 x 2 x 2, zero 1", kBlocks, {1, 2, 2}, 1, kT5EvenGated),
    targets("rounds, zero 1", kBlockedTargetRounds, {2, 1, 1}, 1, kT5WideGated),
    targets("rounds, zero 3", kBlockedTargetRounds, {2, 1, 2}, 3, kT5WideGated),
};

}  // namespace weft::memory_cases
