// Jobs of XLNet whose ranks' memory is estimated and measured.
#pragma once

#include "tests/worker/admission/memory_cases.h"

namespace weft::memory_cases {

// Of terms by distance and segment.
inline constexpr const char* kXlnet =
    "n_layer: 3, n_head: 4, d_model: 64, d_inner: 256, vocab_size: 500";
inline constexpr const char* kXlnetFlat =
    "n_layer: 3, n_head: 2, d_model: 64, d_inner: 256, vocab_size: 500, dropout: 0";
inline constexpr const char* kXlnetWide =
    "n_layer: 6, n_head: 4, d_model: 128, d_inner: 512, vocab_size: 1000";
inline Case relative(const char* name, const char* training, MeshDegrees mesh = {}, int zero = 0,
                     const char* model = kXlnet) {
  return {name, model, training, mesh, "sequence_classification", zero, kBucketBytes, "xlnet"};
}

inline const Case kRelativeCases[] = {
    relative("plain", kAlike),
    relative("no dropout", kAlike, {}, 0, kXlnetFlat),
    relative("long rows", "batch_size: 2, sequence_length: 256"),
    relative("short rows", "batch_size: 8, sequence_length: 16", {}, 0, kXlnetWide),
    relative("selective",
             "batch_size: 8, sequence_length: 64, activation_checkpointing: selective"),
    relative("full", "batch_size: 8, sequence_length: 64, activation_checkpointing: full"),
    relative("bf16", "batch_size: 8, sequence_length: 64, precision: bf16"),
    relative("fp16", "batch_size: 8, sequence_length: 64, precision: fp16"),
    relative("rounds", "batch_size: 8, micro_batch_size: 2, sequence_length: 64"),
    relative("tensor 2", kAlike, {1, 1, 2}),
    relative("zero 1", kAlike, {2, 1, 1}, 1, kXlnetWide),
    relative("zero 3", kAlike, {2, 1, 1}, 3, kXlnetWide),
    relative("2 x 1 x 2, zero 2", kAlike, {2, 1, 2}, 2, kXlnetWide),
};

// In topology-invariant training.
inline constexpr const char* kXlnetEven =
    "n_layer: 4, n_head: 8, d_model: 64, d_inner: 256, vocab_size: 504";
inline constexpr const char* kXlnetEvenFlat =
    "n_layer: 4, n_head: 8, d_model: 64, d_inner: 128, vocab_size: 504, dropout: 0";
inline constexpr const char* kXlnetEvenWide =
    "n_layer: 6, n_head: 8, d_model: 128, d_inner: 512, vocab_size: 1000";
inline constexpr const char* kBlockedRelativeRounds =
    "reproducible: topology, batch_size: 16, micro_batch_size: 8, sequence_length: 64";
inline const Case kBlockedRelativeCases[] = {
    relative("plain", kBlocks, {}, 0, kXlnetEven),
    relative("no dropout", kBlocks, {}, 0, kXlnetEvenFlat),
    relative("long rows", "reproducible: topology, batch_size: 8, sequence_length: 128", {}, 0,
             kXlnetEven),
    relative("short rows", "reproducible: topology, batch_size: 16, sequence_length: 16", {}, 0,
             kXlnetEvenWide),
    relative("selective",
             "reproducible: topology, batch_size: 8, sequence_length: 64, "
             "activation_checkpointing: selective",
             {}, 0, kXlnetEven),
    relative("full",
             "reproducible: topology, batch_size: 8, sequence_length: 64, "
             "activation_checkpointing: full",
             {}, 0, kXlnetEven),
    relative("bf16", "reproducible: topology, batch_size: 8, sequence_length: 64, precision: bf16",
             {}, 0, kXlnetEven),
    relative("rounds", kBlockedRelativeRounds, {}, 0, kXlnetEven),
    relative("tensor 2", kBlocks, {1, 1, 2}, 0, kXlnetEven),
    relative("no dropout, tensor 2", kBlocks, {1, 1, 2}, 0, kXlnetEvenFlat),
    relative("data 2", kBlocks, {2, 1, 1}, 0, kXlnetEven),
    relative("sequence 2", kBlocks, {1, 2, 1}, 0, kXlnetEven),
    relative("zero 1", kBlocks, {2, 1, 1}, 1, kXlnetEvenWide),
    relative("zero 3", kBlocks, {2, 1, 1}, 3, kXlnetEvenWide),
    relative("2 x 1 x 2, zero 2", kBlocks, {2, 1, 2}, 2, kXlnetEvenWide),
};

// Of the same with predictions in an order of their own, each computed beside a row's tokens.
inline constexpr const char* kXlnetWords =
    "n_layer: 3, n_head: 4, d_model: 64, d_inner: 256, vocab_size: 5000";
inline Case permuted(const char* name, const char* training, MeshDegrees mesh = {}, int zero = 0,
                     const char* model = kXlnet) {
  return {name, model, training, mesh, "permutation_lm", zero, kBucketBytes, "xlnet"};
}

inline const Case kPermutedCases[] = {
    permuted("plain", kAlike),
    permuted("no dropout", kAlike, {}, 0, kXlnetFlat),
    permuted("many words", kAlike, {}, 0, kXlnetWords),
    permuted("long rows", "batch_size: 2, sequence_length: 256"),
    permuted("short rows", "batch_size: 8, sequence_length: 16", {}, 0, kXlnetWide),
    permuted("selective",
             "batch_size: 8, sequence_length: 64, activation_checkpointing: selective"),
    permuted("full", "batch_size: 8, sequence_length: 64, activation_checkpointing: full"),
    permuted("bf16", "batch_size: 8, sequence_length: 64, precision: bf16"),
    permuted("fp16", "batch_size: 8, sequence_length: 64, precision: fp16"),
    permuted("rounds", "batch_size: 8, micro_batch_size: 2, sequence_length: 64"),
    permuted("tensor 2", kAlike, {1, 1, 2}),
    permuted("zero 1", kAlike, {2, 1, 1}, 1, kXlnetWide),
    permuted("zero 3", kAlike, {2, 1, 1}, 3, kXlnetWide),
    permuted("2 x 1 x 2, zero 2", kAlike, {2, 1, 2}, 2, kXlnetWide),
};

}  // namespace weft::memory_cases
