// Jobs with adapters whose ranks' memory is estimated and measured.
#pragma once

#include "tests/worker/admission/memory_cases.h"

namespace weft::memory_cases {

inline constexpr const char* kAdaptedHalf = "batch_size: 8, sequence_length: 64, precision: bf16";
inline Case adapted(Case base, const char* target, double dropout = 0) {
  base.target = target;
  base.dropout = dropout;
  return base;
}
inline Case rescaled(Case base, const char* target, double dropout = 0) {
  base = adapted(base, target, dropout);
  base.dora = true;
  return base;
}

inline const Case kAdaptedCases[] = {
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
    rescaled({"DoRA", kSmall, kBatch}, "all-linear"),
    rescaled({"DoRA, attention", kSmall, kBatch}, "c_attn"),
    rescaled({"DoRA, MLP", kSmall, kBatch}, "mlp.c_proj"),
    rescaled({"DoRA, dropout", kSmall, kBatch}, "all-linear", 0.1),
    rescaled({"DoRA, bf16", kSmall, kAdaptedHalf}, "c_attn"),
    rescaled({"DoRA, full", kParameters, kRowsFull}, "c_attn"),
    rescaled({"DoRA, tensor 2", kSmall, kBatch, {1, 1, 2}}, "all-linear"),
    rescaled({"DoRA, zero 3", kParameters, kRowsBf16, {2, 1, 1}, "causal_lm", 3}, "all-linear"),
};

inline const Case kBlockedAdaptedCases[] = {
    adapted({"attention", kEven, kBlocks}, "c_attn"),
    adapted({"all", kEven, kBlocks}, "all-linear"),
    adapted({"dropout", kEven, kBlocks}, "all-linear", 0.1),
    adapted({"MLP", kEven, kBlocks}, "mlp.c_proj"),
    adapted({"parameters", kParameters, kBlockedRows}, "c_attn"),
    adapted({"bf16", kEven, kBlocksBf16}, "c_attn"),
    adapted({"and parameters", kParameters, kBlockedRowsBf16}, "c_attn"),
    adapted({"accumulated", kEven,
             "reproducible: topology, batch_size: 8, micro_batch_size: 2, sequence_length: 64"},
            "all-linear"),
    adapted({"selective", kEven, kBlocksSelective}, "c_attn"),
    adapted({"full", kParameters, kBlocksFull}, "c_attn"),
    adapted({"full, bf16", kEvenDeep, kBlocksFullBf16}, "all-linear"),
    adapted({"vocabulary", kManyIds, kBlocks}, "c_attn"),
    adapted({"logits twice, bf16", kMoreIds, kBlocksBf16}, "c_attn"),
    adapted({"tensor 2", kEven, kBlocks, {1, 1, 2}}, "all-linear"),
    adapted({"tensor 4, bf16", kEven, kBlocksBf16, {1, 1, 4}}, "all-linear"),
    adapted({"wide, tensor 2", kEvenWide, kBlocks, {1, 1, 2}}, "all-linear"),
    adapted({"sequence 2", kEven, kBlocks, {1, 2, 1}}, "c_attn"),
    adapted({"in a row", kEven, kLongBlocks, {1, 4, 1}, "causal_lm", 1}, "all-linear"),
    adapted({"2 x 2 x 2", kEven, kBlocks, {2, 2, 2}}, "all-linear"),
    adapted({"zero 0", kParameters, kBlockedRows, {2, 1, 1}}, "c_attn"),
    adapted({"zero 1", kParameters, kBlockedRows, {2, 1, 1}, "causal_lm", 1}, "c_attn"),
    adapted({"zero 2", kParameters, kBlockedRowsBf16, {2, 1, 1}, "causal_lm", 2}, "all-linear"),
    adapted({"zero 3", kParameters, kBlockedRows, {2, 1, 1}, "causal_lm", 3}, "c_attn"),
    adapted({"zero 3, bf16", kParameters, kBlockedRowsBf16, {4, 1, 1}, "causal_lm", 3},
            "all-linear"),
    adapted({"grouped", kEvenGrouped, kBlocks, {}, "causal_lm", 0, kBucketBytes, "llama"},
            "all-linear"),
    adapted({"few keys", kFewKeys, kBlocks, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
            "all-linear"),
    adapted({"cut keys", kCutKeys, kBlocks, {1, 1, 4}, "causal_lm", 0, kBucketBytes, "llama"},
            "all-linear"),
    rescaled(
        {"DoRA, cut keys", kCutKeys, kBlocks, {1, 1, 2}, "causal_lm", 0, kBucketBytes, "qwen2"},
        "all-linear"),
    adapted({"head norms, bf16",
             kEvenHeadNorms,
             kBlocksBf16,
             {},
             "causal_lm",
             0,
             kBucketBytes,
             "qwen3"},
            "all-linear"),
    rescaled({"DoRA", kEven, kBlocks}, "all-linear"),
    rescaled({"DoRA, attention", kEven, kBlocks}, "c_attn"),
    rescaled({"DoRA, MLP", kEven, kBlocks}, "mlp.c_proj"),
    rescaled({"DoRA, dropout", kEven, kBlocks}, "all-linear", 0.1),
    rescaled({"DoRA, bf16", kEven, kBlocksBf16}, "c_attn"),
    rescaled({"DoRA, full", kParameters, kBlocksFull}, "c_attn"),
    rescaled({"DoRA, tensor 2", kEven, kBlocks, {1, 1, 2}}, "all-linear"),
    rescaled({"DoRA, zero 3", kParameters, kBlockedRowsBf16, {2, 1, 1}, "causal_lm", 3},
             "all-linear"),
};

}  // namespace weft::memory_cases
