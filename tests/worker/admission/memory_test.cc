// The estimate beside what real ranks measure (memory_peak_bytes of the allocators), and what
// submission makes of it.
#include "worker/admission/memory.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <span>

#include "tests/testing/late_communicator.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/checkpoint/writer.h"
#include "worker/setup.h"

namespace weft {
namespace {

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
};

constexpr const char* kSmall = "n_layer: 3, n_head: 4, n_embd: 64, vocab_size: 500";
constexpr const char* kBatch = "batch_size: 8, sequence_length: 64";

constexpr const char* kParameters = "n_layer: 8, n_head: 4, n_embd: 128, vocab_size: 1000";
constexpr const char* kRows = "batch_size: 4, sequence_length: 32";
constexpr const char* kRowsBf16 = "batch_size: 4, sequence_length: 32, precision: bf16";
constexpr const char* kRowsFull =
    "batch_size: 8, sequence_length: 64, activation_checkpointing: full";
constexpr const char* kRounds = "batch_size: 8, micro_batch_size: 1, sequence_length: 32";

constexpr const char* kFewBlocks = "n_layer: 2, n_head: 4, n_embd: 256, vocab_size: 300";
constexpr const char* kDeepRow = "n_layer: 4, n_head: 4, n_embd: 128, vocab_size: 300";
constexpr const char* kLongRow = "batch_size: 1, sequence_length: 256";
constexpr const char* kManyTokens = "n_layer: 2, n_head: 4, n_embd: 128, vocab_size: 8000";
constexpr const char* kClasses = "batch_size: 8, sequence_length: 8";
constexpr int64_t kSmallBuckets = 64 << 10;  // a matrix each

const Case kCases[] = {
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
constexpr const char* kEven = "n_layer: 3, n_head: 8, n_embd: 64, vocab_size: 512";
constexpr const char* kEvenDeep = "n_layer: 6, n_head: 8, n_embd: 64, vocab_size: 512";
constexpr const char* kEvenWide = "n_layer: 2, n_head: 8, n_embd: 256, vocab_size: 320";
constexpr const char* kManyIds = "n_layer: 1, n_head: 8, n_embd: 32, vocab_size: 20000";
// A rank has more logits than are kept.
constexpr const char* kMoreIds = "n_layer: 1, n_head: 8, n_embd: 32, vocab_size: 40000";
constexpr const char* kMostIds = "n_layer: 1, n_head: 8, n_embd: 32, vocab_size: 80000";
constexpr const char* kEvenGrouped =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 4, hidden_size: 64, "
    "intermediate_size: 160, vocab_size: 512";
constexpr const char* kEvenHeadNorms =
    "num_hidden_layers: 8, num_attention_heads: 8, num_key_value_heads: 4, hidden_size: 64, "
    "head_dim: 16, intermediate_size: 160, vocab_size: 512";
constexpr const char* kBlocks = "reproducible: topology, batch_size: 8, sequence_length: 64";
constexpr const char* kBlocksBf16 =
    "reproducible: topology, batch_size: 8, sequence_length: 64, precision: bf16";
constexpr const char* kBlocksSelective =
    "reproducible: topology, batch_size: 8, sequence_length: 64, activation_checkpointing: "
    "selective";
constexpr const char* kBlocksFull =
    "reproducible: topology, batch_size: 8, sequence_length: 64, activation_checkpointing: full";
constexpr const char* kBlocksFullBf16 =
    "reproducible: topology, batch_size: 8, sequence_length: 64, activation_checkpointing: full, "
    "precision: bf16";
constexpr const char* kLongBlocks = "reproducible: topology, batch_size: 1, sequence_length: 256";
constexpr const char* kBlockedRows = "reproducible: topology, batch_size: 8, sequence_length: 32";
constexpr const char* kBlockedRowsBf16 =
    "reproducible: topology, batch_size: 8, sequence_length: 32, precision: bf16";
constexpr const char* kBlockedRounds =
    "reproducible: topology, batch_size: 8, micro_batch_size: 2, sequence_length: 32";

const Case kBlockedCases[] = {
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
    {"head norms", kEvenHeadNorms, kBlocks, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "qwen3"},
    {"the same, bf16", kEvenHeadNorms, kBlocksBf16, {}, "causal_lm", 0, kBucketBytes, "qwen3"},
};

// Of Llama: eight heads of queries read two of keys.
constexpr const char* kGrouped =
    "num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 64, "
    "intermediate_size: 160, vocab_size: 500";
constexpr const char* kGroupedWide =
    "num_hidden_layers: 4, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 128, "
    "head_dim: 32, intermediate_size: 256, vocab_size: 300, tie_word_embeddings: true";
constexpr const char* kHeadNorms =
    "num_hidden_layers: 6, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 64, "
    "head_dim: 32, intermediate_size: 64, vocab_size: 300, tie_word_embeddings: true";
constexpr const char* kWindows =
    "num_hidden_layers: 4, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 128, "
    "head_dim: 32, intermediate_size: 256, vocab_size: 300, sliding_window: 8";
constexpr const char* kHalfBatch = "batch_size: 8, sequence_length: 64, precision: bf16";
constexpr const char* kCutRows = "batch_size: 2, sequence_length: 512";
constexpr const char* kCutRowsBf16 = "batch_size: 2, sequence_length: 512, precision: bf16";
constexpr const char* kCutRowsFull =
    "batch_size: 2, sequence_length: 512, activation_checkpointing: full";

const Case kGroupedCases[] = {
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

constexpr const char* kAdaptedHalf = "batch_size: 8, sequence_length: 64, precision: bf16";
Case adapted(Case base, const char* target, double dropout = 0) {
  base.target = target;
  base.dropout = dropout;
  return base;
}

const Case kAdaptedCases[] = {
    adapted({"attention", kSmall, kBatch}, "c_attn"),
    adapted({"all", kSmall, kBatch}, "all-linear"),
    adapted({"dropout", kSmall, kBatch}, "all-linear", 0.1),
    adapted({"MLP", kSmall, kBatch}, "mlp.c_proj"),
    adapted({"parameters", kParameters, kRows}, "c_attn"),
    adapted({"bf16", kSmall, kAdaptedHalf}, "c_attn"),
    adapted({"and parameters", kParameters, kRowsBf16}, "c_attn"),
    adapted({"fp16", kSmall, "batch_size: 8, sequence_length: 64, precision: fp16"}, "c_attn"),
    adapted({"accumulated", kSmall, "batch_size: 8, micro_batch_size: 2, sequence_length: 64"},
            "all-linear"),
    adapted({"full", kParameters, kRowsFull}, "c_attn"),
    adapted({"vocabulary", kManyTokens, kRows}, "c_attn"),
    adapted({"tensor 2", kSmall, kBatch, {1, 1, 2}}, "all-linear"),
    adapted({"sequence 2", kSmall, kBatch, {1, 2, 1}}, "c_attn"),
    adapted({"zero 0", kParameters, kRows, {2, 1, 1}}, "c_attn"),
    adapted({"zero 1", kParameters, kRows, {2, 1, 1}, "causal_lm", 1}, "c_attn"),
    adapted({"zero 2", kParameters, kRowsBf16, {2, 1, 1}, "causal_lm", 2}, "all-linear"),
    adapted({"zero 3", kParameters, kRows, {2, 1, 1}, "causal_lm", 3}, "c_attn"),
    adapted({"zero 3, bf16", kParameters, kRowsBf16, {4, 1, 1}, "causal_lm", 3}, "all-linear"),
};

class Memory : public Trainer {
 protected:
  proto::LaunchRecord launch(const Case& which) {
    const bool lm = std::string(which.task) == "causal_lm";
    const std::string data =
        lm ? "{train: obj-text, format: text}" : "{train: obj-rows, format: jsonl}";
    proto::LaunchRecord made =
        record(fmt::format(R"(
name: memory
kind: pretrain
model: {{family: {}, config: {{{}, max_position_embeddings: {}}}}}
tokenizer: {{type: byte}}
tasks: [{{type: {}, {}data: {}}}]
training: {{{}, steps: 3}}
)",
                           which.family, which.model, which.positions, which.task,
                           lm ? "" : "labels: 3, ", data, which.training),
               which.mesh);
    made.mutable_spec()->mutable_parallel()->set_zero(which.zero);
    made.mutable_spec()->mutable_parallel()->set_bucket_bytes(which.bucket_bytes);
    if (which.target != nullptr) {
      proto::AdapterSpec& adapter = *made.mutable_spec()->mutable_adapter();
      adapter.set_rank(8);
      adapter.set_alpha(8);
      adapter.set_dropout(which.dropout);
      adapter.add_targets(which.target);
    }
    return made;
  }

  // The estimate has every transfer under way that can be, and so have these ranks.
  int64_t measured(const proto::LaunchRecord& launch) {
    const auto place = [](std::unique_ptr<Communicator> world) {
      return RankPlace{make_caching_allocator(), testing::late(std::move(world))};
    };
    MemoryCluster cluster;
    EXPECT_TRUE(train(launch, cluster, place).ok());
    double most = 0;
    for (const auto& metric : cluster.metrics) {
      const auto found = metric.values().find("memory_peak_bytes");
      if (found != metric.values().end()) most = std::max(most, found->second);
    }
    return static_cast<int64_t>(most);
  }

  static MemoryEstimate estimated(const proto::JobSpec& spec) {
    const ModelFamily* family = find_family(spec.model().family());
    const auto config = family->parse_config(struct_to_json(spec.model().config()));
    if (!spec.has_adapter()) return estimate_memory(*family, **config, spec);
    const auto adapter = find_adapter(spec.adapter(), *family, **config);
    return estimate_memory(*family, *family->with_adapter(**config, *adapter), spec);
  }

  void compare(std::span<const Case> cases) {
    for (const Case& which : cases) {
      const proto::LaunchRecord job = launch(which);
      const MemoryEstimate estimate = estimated(job.spec());
      const double ratio =
          static_cast<double>(estimate.tensors()) / static_cast<double>(measured(job));
      fmt::print("{:>15} {:.3f}  {}\n", which.name, ratio, estimate.to_string());
      EXPECT_GT(ratio, 0.93) << which.name;
      EXPECT_LT(ratio, 1.07) << which.name;
    }
  }
};

TEST_F(Memory, TheEstimateIsWhatRanksMeasure) { compare(kCases); }
TEST_F(Memory, TheEstimateOfGroupedQueriesIsWhatRanksMeasure) { compare(kGroupedCases); }
TEST_F(Memory, TheEstimateOfAdaptersIsWhatRanksMeasure) { compare(kAdaptedCases); }
TEST_F(Memory, TheEstimateOfBlocksIsWhatRanksMeasure) { compare(kBlockedCases); }

// A job's first checkpoint, on the replica that writes most of it. Ranks of the tensor axis take
// turns at the little that each of them has whole; the estimate counts all of that.
TEST_F(Memory, TheEstimateOfACheckpointIsWhatTheWriterTakes) {
  for (const char* target : {static_cast<const char*>(nullptr), "c_attn", "all-linear"}) {
    for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{2, 1, 1}, MeshDegrees{1, 3, 1},
                                   MeshDegrees{4, 1, 1}, MeshDegrees{2, 1, 2}}) {
      for (const int zero : {0, 1, 2, 3}) {
        const std::string name = fmt::format("{} on {} x {} x {}, zero {}", target ? target : "all",
                                             mesh.data, mesh.sequence, mesh.tensor, zero);
        Case which{name.c_str(), kSmall, kBatch, mesh, "causal_lm", zero};
        which.target = target;
        const proto::LaunchRecord job = launch(which);
        MemoryCluster cluster;
        std::atomic<int64_t> most{0};
        testing::run_mesh(mesh, [&](Rank& rank) {
          MemoryProgress progress(cluster);
          const auto training = set_up(rank, job, progress);
          ASSERT_TRUE(training) << training.error().to_string();
          checkpoint::Writer writer(rank, progress);
          writer.begin({}, (*training)->unstored_tensors());
          int64_t before = most;
          while (before < writer.snapshot_bytes() &&
                 !most.compare_exchange_weak(before, writer.snapshot_bytes())) {
          }
          writer.wait();
          writer.commit();
        });
        const double ratio = static_cast<double>(estimated(job.spec()).checkpoint) /
                             static_cast<double>(most.load());
        fmt::print("{:>32} {:.3f}\n", name, ratio);
        EXPECT_GT(ratio, 0.999) << name;
        EXPECT_LT(ratio, mesh.tensor == 1 ? 1.001 : 1.07) << name;
      }
    }
  }
}

TEST(MemoryEstimate, ASmallCheckpointIsWrittenOutOfWhatTensorsLeave) {
  MemoryEstimate estimate;
  estimate.parameters = 10'000'000;
  const int64_t none = estimate.process();
  EXPECT_LT(none, 10'000'000 + 60'000'000);
  estimate.checkpoint = 5'000'000;
  EXPECT_EQ(estimate.process(), none);
  estimate.checkpoint = 105'000'000;
  const int64_t more = estimate.process();
  EXPECT_GT(more, none + 75'000'000);
  EXPECT_LT(more, none + 95'000'000);
  estimate.checkpoint += 10'000'000;
  EXPECT_EQ(estimate.process(), more + 10'000'000);
}

TEST(MemoryEstimate, EachThreadBeyondTheFirstTakesItsOwn) {
  MemoryEstimate estimate;
  estimate.parameters = 100'000'000;
  estimate.thread = 3'000'000;
  EXPECT_EQ(estimate.process(), estimate.process(1));
  EXPECT_EQ(estimate.process(0), estimate.process(1));
  EXPECT_EQ(estimate.process(8), estimate.process(1) + 21'000'000);
  EXPECT_EQ(estimate.needs(false, 8).memory, estimate.process(8));
}

// GPT-2's vocabulary in bf16: a GPU has 1,000 rows of logits, filled up to 50304 columns, at once,
// and a table as wide; a CPU 333 of 50257, in fp32 and rounded.
TEST_F(Memory, AGpuTakesMoreLogitsAtOnce) {
  const MemoryEstimate estimate =
      estimated(launch({"logits", "n_layer: 1, n_head: 2, n_embd: 32, vocab_size: 50257",
                        "batch_size: 10, sequence_length: 100, precision: bf16"})
                    .spec());
  const int64_t there = 50304 * (1000 + 32) * 2, here = 333 * 50257 * 6;
  EXPECT_EQ(estimate.gpu_more, there - here);
  MemoryEstimate without = estimate;
  without.gpu_more = 0;
  EXPECT_GT(estimate.gpu(), without.gpu() + estimate.gpu_more);
}

// cuDNN's workspace for the gradients of a block's attention, where attention_choice.cc has it
// lead: 2 bytes a score, of heads wider than 64; with any order of sums 4 bytes an element of the
// queries where that is more, from 1,024 tokens on; 4 bytes a query in either case.
// Where some layer has no window, which cuDNN is left out of.
TEST_F(Memory, AGpuTakesCudnnsWorkspaceForLayersWithoutWindows) {
  const auto more = [&](int first_window) {
    const std::string model = fmt::format(
        "num_hidden_layers: 4, num_attention_heads: 2, num_key_value_heads: 2, head_dim: 128, "
        "hidden_size: 256, intermediate_size: 8, vocab_size: 257, use_sliding_window: true, "
        "sliding_window: 64, max_window_layers: {}",
        first_window);
    Case which{"windows", model.c_str(),
               "batch_size: 2, precision: bf16, activation_checkpointing: full"};
    which.family = "qwen2";
    which.positions = 512;
    proto::JobSpec spec = launch(which).spec();
    spec.mutable_training()->set_sequence_length(512);
    return estimated(spec).gpu_more;
  };
  EXPECT_GT(more(1), 0);  // most layers have windows
  EXPECT_EQ(more(1), more(3));
  EXPECT_EQ(more(0), 0);
}

TEST_F(Memory, AGpuTakesCudnnsWorkspace) {
  const auto more = [&](int hidden, int64_t tokens, const auto& change) {
    const std::string model =
        fmt::format("n_layer: 1, n_head: 2, n_inner: 8, vocab_size: 257, n_embd: {}", hidden);
    proto::JobSpec spec = launch({"cudnn", model.c_str(),
                                  "batch_size: 2, precision: bf16, activation_checkpointing: full"})
                              .spec();
    spec.mutable_training()->set_sequence_length(tokens);
    change(*spec.mutable_training());
    return estimated(spec).gpu_more;
  };
  const auto nothing = [](auto&) {};
  const auto any_order = [](auto& training) {
    training.set_reproducible(proto::REPRODUCIBLE_NONE);
  };
  const auto of_rows = [](int64_t tokens, int64_t a_query) {  // two, of two heads
    return 2 * 2 * tokens * (a_query + 4);
  };
  EXPECT_EQ(more(256, 512, nothing), of_rows(512, 2 * 512));
  EXPECT_EQ(more(256, 512, any_order), of_rows(512, 2 * 512));
  EXPECT_EQ(more(128, 512, nothing), 0);
  EXPECT_EQ(more(128, 512, any_order), 0);
  EXPECT_EQ(more(128, 1024, nothing), 0);
  EXPECT_EQ(more(128, 1024, any_order), of_rows(1024, 4 * 64));
  EXPECT_EQ(more(126, 1024, any_order), 0);
  EXPECT_EQ(more(256, 511, nothing), 0);
  EXPECT_EQ(more(256, 512, [](auto& training) { training.set_precision(proto::PRECISION_FP32); }),
            0);
  EXPECT_EQ(more(256, 512,
                 [](auto& training) { training.set_reproducible(proto::REPRODUCIBLE_TOPOLOGY); }),
            0);
  const auto of_1024_rows = [](auto& training) {  // more than 1 GiB of scores
    training.set_batch_size(1024);
    training.set_micro_batch_size(1024);
  };
  EXPECT_EQ(more(256, 512, of_1024_rows), 0);
  EXPECT_EQ(more(128, 1024,
                 [&](auto& training) {
                   of_1024_rows(training);
                   any_order(training);
                 }),
            512 * of_rows(1024, 4 * 64));
}

TEST(MemoryOfSlot, IsAShareOfWhatTheSystemLeaves) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  EXPECT_EQ(memory_of_slot(10 * kGiB, 3), 3 * kGiB);
  EXPECT_EQ(memory_of_slot(100 * kGiB, 1), 98 * kGiB);
  EXPECT_EQ(memory_of_slot(0, 4), 0);
}

TEST(ClearlyTooLarge, LeavesAQuarterForTheEstimatesError) {
  MemoryEstimate estimate;
  estimate.activations = 1000;
  EXPECT_EQ(beyond_doubt(estimate), 750);
  estimate.activations = 12;
  estimate.parameters = int64_t{3} << 29;
  EXPECT_EQ(estimate.to_string().substr(0, 31), "1.5 GiB: parameters 1.5 GiB, op");
}

TEST(BytesText, HasThreeDigitsAndNoExponent) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  EXPECT_EQ(bytes_text(12 * kMiB), "12 MiB");
  EXPECT_EQ(bytes_text(999 * kMiB), "999 MiB");
  EXPECT_EQ(bytes_text(1010 * kMiB), "0.986 GiB");
  EXPECT_EQ(bytes_text(1536 * kMiB), "1.5 GiB");
  EXPECT_EQ(bytes_text(1390 * 1024 * kMiB), "1.36 TiB");
  EXPECT_EQ(bytes_text(std::numeric_limits<int64_t>::max()), "8 EiB");
}

}  // namespace
}  // namespace weft
