// What a rank's memory is counted from: the sizes of its tensors, and what all moments of a step
// have in common. Internal to worker/admission.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "proto/job.pb.h"
#include "worker/admission/memory.h"

namespace weft {

inline constexpr int64_t kSingle = 4;  // bytes of fp32, in which everything is summed

inline int64_t share(int64_t whole, int64_t parts) { return (whole + parts - 1) / parts; }

// Rows of logits, `element` bytes each, that a GPU has at once, and the columns of each: the table
// is filled up to whole units (kernels/cuda/gpu_losses.cc).
int64_t gpu_logit_columns(int64_t vocabulary);
int64_t gpu_logit_rows(int64_t vocabulary, int64_t element);

// Of an attention's gradients that cuDNN may compute on a GPU: in the order that repeats, or in
// any.
struct ByCudnn {
  bool ordered = false, unordered = false;
  int64_t scores = 0;
};

// Sizes of a stack on the rank that has most, named as in worker/models/model.h; what the functions
// give are bytes.
struct Sizes {
  Sizes(const ModelConfig& config, const proto::JobSpec& spec, std::span<const ShardSize> shards,
        const StackShape& stack);

  // Tokens with the queries of what is predicted, of which keys and values have none.
  int64_t tensor, sequence, replicas, batch, tokens, between;
  int64_t key_tokens;
  int64_t with_logits;  // of the tokens, in a language model
  int64_t hidden, heads, features, key_features, inner, vocabulary, layers;
  int64_t in_row;  // ranks that share a row's tokens in topology-invariant training; else 1
  // Features, of queries and of keys, whose attention is computed here, over a rank's own tokens:
  // ranks that share a row have some heads of all of its tokens, of which here the most.
  int64_t attended, key_attended;
  int64_t source_tokens;  // that the stack attends to; 0: none
  int64_t distances;      // that scores have a bias by, the same of all blocks; else 0
  int64_t element;        // bytes
  int64_t scores;         // of a block's attention
  bool relative;          // these have terms by distance, which are kept,
  int64_t relatives;      // and vectors of so many distances are: of one row, or of all of them,
                          // or in topology-invariant training of each block
  int64_t gpu_relatives;  // bytes that a GPU has for these beside the scores' gradient
  int64_t embedded;       // rows of a step that are told apart from each other; else 0
  int64_t blocks;         // of topology-invariant training; else 0
  int64_t key_terms;      // features of a token's terms of its key's gradient, if several; else 0
  int64_t key_copies;   // elements a block, of projections that several ranks hold, copied for use
  int64_t patches;      // bytes, of images or of recordings' windows
  bool hears;           // whether its tokens are made of the latter
  int64_t angles;       // of the tokens' rotations
  int64_t head_norms;   // heads of queries and of keys that have a norm
  AdaptedMaps adapted;  // of a block; where there are such, all else is frozen
  int64_t rank;         // of the adapters
  double dropout;       // of what they map
  bool gated, gate_apart;
  bool accumulates, fp16;
  std::array<ByCudnn, 2> by_cudnn = {};  // to the stack's own tokens, and to its source
  proto::ActivationCheckpointing recompute;

  bool full() const { return recompute == proto::ACTIVATION_CHECKPOINTING_FULL; }
  bool again() const { return recompute != proto::ACTIVATION_CHECKPOINTING_NONE; }
  // Tokens of what the norms give: whole, or the rank's own, to be gathered again.
  int64_t normed() const { return blocks > 0 ? between : tokens; }
  // Elements kept of what a norm gives, for the weights that are trained: the maps' own, or the
  // adapters', which with dropout keep their own copies.
  int64_t kept_input(int64_t adapters) const;
  // Bytes that the first block does not keep, as nobody asks for gradients before the first
  // adapter.
  int64_t left_of_first() const;
  // Elements that these adapters keep: what A gives, and with dropout what it was given.
  int64_t of_adapters(int64_t columns, int64_t rows, int64_t row_features) const;
  // Elements that DoRA keeps: what it rescales, of columns with so many outputs and of rows.
  int64_t of_magnitudes(int64_t outputs, int64_t rows) const;
  // Kept of a block's attention: norm and its statistics, query, key, value, result and
  // log-sum-exp, and copies of what several ranks hold.
  int64_t attention() const;
  // Of that the attention to a source, with keys and values of its own.
  int64_t source_attention() const;
  // Of that the terms by distance: they, what queries are with their vectors, and the distances'.
  int64_t of_relatives() const;
  // Of that the inputs and statistics of the norms of heads.
  int64_t of_head_norms() const;
  // Of its MLP: the residual stream, norm, the activation's input and result.
  int64_t mlp() const;
  // Kept of the convolutions that make tokens of a recording: what comes into each activation,
  // three windows of the first one's, and its results, which the second one maps.
  int64_t convolutions() const { return hears ? 7 * stream() : 0; }
  int64_t stream() const { return element * between * hidden; }  // a block's input
  int64_t kept_block() const;
  // At the loss, of vectors that are told apart: all rows' sums and vectors with their gradients,
  // the scores of all pairs, and the hidden states in fp32, of a half type; in blocks their terms.
  int64_t embedding() const;
  // Of the scores' bias: it and each distance's bucket, once a block of the rank's tokens.
  int64_t score_bias() const { return tables() * distances * (element * heads + kBucketBytes); }
  int64_t tables() const { return blocks > 0 ? blocks / replicas : 1; }

 private:
  static constexpr int64_t kBucketBytes = 8;
  // (kernels/cuda/gpu_relative.cc)
  int64_t relatives_on_gpu(int64_t pairs, int64_t width, const StackShape& stack) const;
  void find_cudnn(const ModelConfig& config, const proto::TrainingSpec& training,
                  const StackShape& stack);
  // Of topology-invariant training, among the ranks of a row.
  void share_heads(const ModelConfig& config);
};

// Elements of a rank's parameters.
struct Parameters {
  Parameters(const ModelConfig& config, const proto::JobSpec& spec,
             std::span<const ShardSize> shards);

  int64_t count = 0;
  int64_t trained = 0;            // of those; the others are frozen
  int64_t kept_fp32 = 0;          // that half precision leaves in fp32
  int64_t trained_kept_fp32 = 0;  // of these
  int64_t largest = 0;            // of one parameter
  int64_t largest_of_block = 0;   // of one in a block
  int64_t largest_gradient = 0;   // of one in a block
  int64_t table = 0;              // that embeds the tokens, where it is trained
  int64_t checkpoint = 0;         // of one rank's copy of the state
  int64_t embedding_unit = 0, block_unit = 0, last_unit = 0;
  int64_t embedding_gradients = 0, block_gradients = 0;  // what is trained of these
  int64_t embedding_bucket = 0, block_bucket = 0;        // the largest that is sent
  int64_t decoder_gradients = 0;  // of an encoder-decoder: what is trained behind its encoder
  // Tables whose looked-up rows are sent (optimizer/gradients.h): is the tokens' one of them; all
  // that nothing else is sent of.
  bool table_by_rows = false;
  int64_t only_rows = 0;
};

// Bytes that moments of a step have in common.
struct StepMemory {
  StepMemory(const ModelConfig& config, const proto::JobSpec& spec,
             std::span<const ShardSize> shards);

  int64_t batch() const;  // the tokens themselves
  // Kept of an encoder-decoder's encoder, beyond its blocks: its norm, and what the decoder reads.
  int64_t memory() const;
  int64_t kept_source() const;  // with its blocks; else 0
  // Level 3's values of units that are whole, the one on its way included.
  int64_t whole(int64_t elements) const { return zero == 3 ? s.element * elements : 0; }

  Sizes s;
  std::optional<Sizes> source;  // of an encoder-decoder's encoder
  Parameters parameters;
  bool language_model, tied, scales_logits;
  int zero;
  int64_t sharing;     // ranks that share the state
  MemoryEstimate all;  // what there is at every moment
  int64_t gradients;   // that are kept at the end
  int64_t earlier;     // of micro-batches before
  int64_t table;       // a language model's, which the loss makes
  bool table_leaves;   // right after the loss, as nothing but rows is added to it
  int64_t kept;        // activations at the loss
};

}  // namespace weft
