// Models as the trainer sees them: a trunk that turns tokens into hidden states and token logits,
// made by the family that its configuration names; of images tokens are patches behind a class
// token, which has id 0 and they 1; of recordings two frames each. What a family computes stands in
// <family>.cc, how its parameters are spread over the mesh's tensor axis in <family>_plan.cc.
//
// Legend: B rows of this micro-batch on this rank, T tokens of a whole row, Tl of them on this rank
// (its runs of the sequence axis), Tb of those between blocks (part_of(Tl, t, tensor index) with
// sequence-parallel norms, which tensor > 1 turns on; else Tl), H hidden, V vocabulary, t the
// degree of the tensor axis.
//
// Thread safety: the rank's compute thread. Ownership: a trunk refers to its Rank, which outlives
// it. Invariants: 1. each rank holds its shards only. 2. after backward() every parameter's
// gradient is complete over the tensor axis; what is left is the sum over Axis::kReplica. 3. what
// is computed does not depend on the mesh beyond rounding: random numbers are keyed by global
// index.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/autograd/context.h"
#include "kernels/ops/random.h"
#include "proto/base/status.h"
#include "worker/models/adapter.h"
#include "worker/models/head.h"
#include "worker/models/parameter.h"
#include "worker/parallel/rank.h"
#include "worker/parallel/sequence_balance.h"

namespace google::protobuf {
class Struct;
}

namespace weft {

// Keys and values of the tokens seen so far, of one rank's heads (generation). Filled by
// Trunk::forward; `length` tokens are in it, `capacity` may be.
struct KeyValueCache {
  std::vector<Tensor> keys, values;  // a layer: [B, heads, room, head features]; room grows
  std::vector<Tensor> source_keys, source_values;  // of an encoder-decoder's source, alike
  int64_t length = 0;
  int64_t capacity = 0;
};

// What the backward pass computes again instead of keeping it (activation checkpointing).
enum class Recompute { kNothing, kAttention, kBlock };

// Of a permutation_lm (Yang et al. 2019): the last `count` of a row's T are no tokens of it. Each
// is a query that stands at the place of one and knows nothing of it; it has neither an id nor a
// key and a value. Key j is visible to query i, of tokens too, iff key_order[j] <= query_order[i].
struct Predictions {
  int64_t count = 0;              // 0: there are none, and no tensors
  Tensor places;                  // int64 [B, T]: of each query, among the row's tokens
  Tensor marks;                   // int64 [B, T]: -1 of a token, 0 of a prediction
  Tensor query_order, key_order;  // int64 [B, T], [B, T - count]
  // [B, count, count]: 1 where two predictions have one place and so ask together, with the sum of
  // what they ask, as transformers' target_mapping makes of them. Empty handle: all have their own.
  Tensor together;
};

// What one rank feeds into one forward pass.
struct TokenBatch {
  // int64 [B, Tl], without predictions; of recordings [B, Tl, 3], whether there is such a window
  Tensor ids;
  Tensor positions;    // int64 [B, Tl]: of the position embedding
  Tensor token_types;  // int64 [B, Tl]; empty handle: all 0
  Tensor key_valid;    // uint8 [B, T]: 0 where nobody may look (padding); empty handle: all valid
  Tensor documents;    // int64 [B, T]: tokens see only their own document; empty handle: one a row
  Tensor patches;  // float [B, Tl, values of a patch], of this rank's tokens, zeros at the class
                   // token; of recordings [B, Tl, 3, values of a window]; empty: of text
  int64_t tokens = 0;       // T, predictions included
  int64_t own_tokens = 0;   // Tl
  Predictions predictions;  // with them a row's tokens are all on one rank
  std::shared_ptr<const parallel::SequenceLayout>
      layout;             // whose tokens are whose; with a cache: none
  int64_t rows = 0;       // rows of the whole step's batch, over all ranks and micro-batches
  int64_t first_row = 0;  // the B rows here are [first_row, first_row + B) of those
  bool training = false;  // dropout is on
  Recompute recompute = Recompute::kNothing;
  RandomKey random;                // of this step; every use derives its own
  KeyValueCache* cache = nullptr;  // one rank only: ids follow what it holds
  // Of an encoder-decoder: what its encoder reads, where all else here is of what its decoder
  // writes. Only with a cache that has seen it may it be null.
  std::shared_ptr<const TokenBatch> source;

  // Those that keys and values are of.
  int64_t row_tokens() const { return tokens - predictions.count; }
};

// Of a model whose rows have no longest one: training.sequence_length's.
inline constexpr int64_t kAnyLength = int64_t{1} << 24;

// What all configurations have in common. The family's own type derives from it.
struct ModelConfig {
  virtual ~ModelConfig() = default;
  std::string family;
  int64_t hidden = 0, vocabulary = 0, positions = 0, layers = 0, heads = 0;
  // Of an encoder-decoder the first so many of `layers`, which are its encoder's: what it computes
  // is normed before the decoder's begin. 0: one stack of blocks.
  int64_t encoder_layers = 0;
  int64_t inner = 0;          // features of the MLP's hidden layer
  int64_t key_heads = 0;      // each is read by so many neighbouring heads; fewer: grouped queries
  int64_t head_features = 0;  // of a head of queries, keys or values
  bool gated = false;         // the MLP's hidden layer is a product of two,
  bool gate_apart = false;    // of which the activated one is computed for itself
  bool rotary = false;        // positions turn queries and keys; else they are embedded,
  int64_t distances = 0;      // or above 0: scores have a learned bias by distances up to this
  // Or scores have terms of their own by distance and segment (kernels/attention/relative.h), a
  // number for each pair of tokens; and of the distances each row has its own, which it drops.
  bool relative = false, relative_by_row = false;
  // Positions count the tokens that are not pad_token_id, from pad_token_id + 1 on; that token has
  // its own id as its position.
  bool positions_skip_padding = false;
  int64_t token_types = 0;               // that it tells apart; 0: it knows of none
  bool head_norms = false;               // queries and keys have a norm over each head's features
  parallel::AttentionPattern attention;  // of most layers; balances the sequence axis
  parallel::AttentionPattern other_attention;  // of `other_layers` ones
  int64_t other_layers = 0;
  bool tied = true;                                    // the logits' matrix is the embedding
  std::string_view untied_by = "tie_word_embeddings";  // what is false where it is not
  double logit_scale = 1;
  struct ImageShape {
    int64_t size = 0, patch = 0, channels = 0;
    int64_t tokens() const { return (size / patch) * (size / patch) + 1; }
    int64_t values() const { return channels * patch * patch; }  // of a patch
  };
  ImageShape image;  // size 0: of text
  struct AudioShape {
    int64_t mel_bins = 0;
    int64_t tokens = 0;  // of a recording, each of two frames of its features
    int64_t frames() const { return 2 * tokens; }
    // Of a token: what its convolutions see, three neighbouring windows of three frames, each bin
    // by bin; the first token's first window, before all frames, is none.
    int64_t values() const { return 9 * mel_bins; }
  };
  AudioShape audio;  // mel_bins 0: nothing is heard
  std::optional<int64_t> bos_token_id, pad_token_id;
  int64_t decoder_start_token_id = 0;  // of an encoder-decoder: before what it writes;
  int64_t target_positions = 0;        // and of that the longest, the token in front included
  std::vector<int64_t> eos_token_ids;  // any of them ends a text
  double initializer_range = 0.02;
  Adapter adapter;  // of the blocks' linear maps; without one all parameters are trained

  // Of the longest row.
  int64_t tokens_max() const {
    return positions_skip_padding ? positions - *pad_token_id - 1 : positions;
  }
  bool encodes_and_decodes() const { return encoder_layers > 0; }
  // Of parameters (ParameterInfo::unit): a block's, and that behind all blocks. The encoder's norm
  // of an encoder-decoder has a unit of its own, between the stacks.
  int64_t unit_of(int64_t layer) const {
    return 1 + layer + (encodes_and_decodes() && layer >= encoder_layers ? 1 : 0);
  }
  int64_t last_unit() const { return unit_of(layers); }
};
using ModelConfigPtr = std::shared_ptr<const ModelConfig>;

// What a trunk's token logits are the product of: input table^T.
struct TokenHead {
  Tensor input;  // [B, Tl, H]: what every rank of the tensor axis multiplies
  Tensor table;  // this rank's rows of the vocabulary, [part_of(V, t).length, H]
};

// Where a trunk's parameters are spread over the ranks that use the same ones, or still on their
// way: makes a unit's (ParameterInfo::unit) whole before they are used.
class ParameterGate {
 public:
  virtual ~ParameterGate() = default;
  // `next`: the unit that will be opened after this one, as far as is known.
  virtual void open(int64_t unit, std::optional<int64_t> next) = 0;
  // The same where of the unit's tables that tokens look up by their ids only these rows (int64)
  // are used before it is opened again.
  virtual void open_rows(int64_t unit, const Tensor& /*ids*/, std::optional<int64_t> next) {
    open(unit, next);
  }
  // The same in two halves, of a block: before its attention, and before what is used behind that
  // only (ParameterInfo::behind_attention).
  virtual void open_attention(int64_t unit, std::optional<int64_t> next) { open(unit, next); }
  virtual void open_rest(int64_t /*unit*/) {}
  // Whether a unit is whole only until the next one is opened.
  virtual bool closes() const = 0;
};

class Trunk {
 public:
  virtual ~Trunk() = default;
  virtual const ModelConfig& config() const = 0;
  // In the order of the computation; includes an untied head. Uninitialized when made.
  virtual std::vector<Parameter>& parameters() = 0;

  // -> hidden states after the final norm, where there is one, in the between-blocks layout,
  // [B, Tb, H].
  virtual Tensor forward(Context& cx, const TokenBatch& batch) = 0;
  // [B, Tb, H] -> this rank's part of the vocabulary, [B, Tl, part_of(V, t).length].
  Tensor token_logits(Context& cx, const TokenBatch& batch, const Tensor& hidden);
  // [B, Tb, H] -> the two sides of that product, for a loss that keeps no logits.
  virtual TokenHead token_head(Context& cx, const TokenBatch& batch, const Tensor& hidden) = 0;
  // The second of these alone, to be used at once.
  virtual Tensor token_table() = 0;
  // [B, Tb, H] -> [B, Tl, H], the same on every rank of the tensor axis and to be used alike by
  // them.
  virtual Tensor joined_hidden(Context& cx, const TokenBatch& batch, const Tensor& hidden) = 0;

  Rank& rank() const { return rank_; }
  // null: the parameters are whole all the time. The gate outlives its use.
  void set_gate(ParameterGate* gate) { gate_ = gate; }

 protected:
  explicit Trunk(Rank& rank) : rank_(rank) {}
  // Before a unit's parameters are used.
  void open(int64_t unit, std::optional<int64_t> next) const {
    if (gate_ != nullptr) gate_->open(unit, next);
  }
  void open_rows(int64_t unit, const Tensor& ids, std::optional<int64_t> next) const {
    if (gate_ != nullptr) gate_->open_rows(unit, ids, next);
  }
  void open_attention(int64_t unit, std::optional<int64_t> next) const {
    if (gate_ != nullptr) gate_->open_attention(unit, next);
  }
  void open_rest(int64_t unit) const {
    if (gate_ != nullptr) gate_->open_rest(unit);
  }
  // What a unit computed: opens it again before the backward pass gets to it, if it closes.
  Tensor open_again(Context& cx, int64_t unit, const Tensor& x) const;

 private:
  Rank& rank_;
  ParameterGate* gate_ = nullptr;
};

// What config.json says beside the trunk: the architecture's head.
struct ExportHead {
  int64_t labels = 0;                      // 0: a language model; else a classification,
  HeadKind classes = HeadKind::kSequence;  // of these
  std::vector<std::string> label_names;    // empty: LABEL_0, LABEL_1, ...
  bool none = false;                       // the trunk alone
  // Of the tokenizer that the model learned with. It pads where the configuration has no such token
  // (without one, transformers classifies one row at a time only), and begins and ends texts where
  // the configuration's ends, a family's defaults, do not name it.
  std::optional<int64_t> end_of_text;
};

class ModelFamily {
 public:
  virtual ~ModelFamily() = default;
  virtual std::string_view name() const = 0;
  // `json` is the text of a config.json, or of the same keys in a job file. Each key is honoured or
  // refused by name with the reason; an absent key has the value that transformers gives it.
  virtual Result<ModelConfigPtr> parse_config(std::string_view json) const = 0;
  // A copy whose dropout rates are all `rate`.
  virtual ModelConfigPtr with_dropout(const ModelConfig& config, double rate) const = 0;
  // A copy with this adapter, whose targets are the family's (find_adapter).
  virtual ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const = 0;
  // The linear maps that are adapted where nobody names any, as PEFT has them.
  virtual std::vector<std::string> default_targets() const = 0;
  // How the blocks' matrices are stored.
  virtual ops::WeightLayout layout() const = 0;
  // A copy whose parameters are those of a job with a permutation_lm, which alone trains what
  // stands for a token that is predicted; of a family that learns none the configuration itself.
  virtual ModelConfigPtr with_predictions(ModelConfigPtr config) const { return config; }
  // A copy of so many layers, an encoder-decoder's of at most so many in either stack.
  virtual ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const = 0;
  // Names and shapes of every parameter of the trunk, and rank `tensor_index`'s shard of it. Blocks
  // of a stack have the same shapes and shards. The configuration's adapter is in it
  // (adapted_plan). blocks: of topology-invariant training, where heads of keys are spread in
  // another way (parallel/head_parts.h); else 0.
  std::vector<ParameterInfo> plan(const ModelConfig& config, int tensor_size, int tensor_index,
                                  int blocks = 0) const;
  // The same without it, every parameter trained.
  virtual std::vector<ParameterInfo> base_plan(const ModelConfig& config, int tensor_size,
                                               int tensor_index, int blocks) const = 0;
  // What transformers puts on the trunk for a task of this kind, with so many classes (kMasked and
  // kPermuted: none); nothing where a task of this kind does not go with the family.
  virtual std::optional<Head> head(const ModelConfig& config, HeadKind kind,
                                   int64_t labels) const = 0;
  // Error: the mesh cannot hold this configuration. (More ranks than heads can: some hold none.)
  virtual Result<std::unique_ptr<Trunk>> make_trunk(Rank& rank, ModelConfigPtr config) const = 0;
  // With which published files begin the names of a trunk's parameters, or not: transformers'
  // base_model_prefix and its dot.
  virtual std::string_view prefix() const = 0;
  // Names under which published files hold a parameter, the usual one first.
  virtual std::vector<std::string> file_names(std::string_view parameter) const;
  // What transformers' models call it in memory, where that is not as in their files: so do PEFT's.
  virtual std::string name_in_memory(const std::string& name) const { return name; }
  // The head of tokens in them, the plan's last parameter where it is not tied.
  virtual std::string_view token_head() const { return "lm_head.weight"; }
  // Whether a tensor of a published file may be left out (buffers, a tied copy).
  virtual bool ignored_in_files(std::string_view tensor, const ModelConfig& config) const = 0;
  // The text of a config.json that transformers loads; parse_config of it gives the same config.
  virtual std::string config_json(const ModelConfig& config, const ExportHead& head) const = 0;
};

// "gpt2" -> its family; null where there is none.
const ModelFamily* find_family(std::string_view name);
// Of a configuration that a family has read.
const ModelFamily& family_of(const ModelConfig& config);
// "gpt2, ...": for error messages.
std::string known_families();

// The family of a config.json: its model_type.
Result<std::string> family_of_config(std::string_view json);
// Struct (job files, manifests) <-> JSON text; whole numbers are written as integers.
std::string struct_to_json(const google::protobuf::Struct& config);
Result<google::protobuf::Struct> json_to_struct(std::string_view json);

// Calls visit(local index, global index, count) for each run of elements of a shard that is
// contiguous both in the rank's tensor and in the whole parameter, in ascending local order.
void for_each_shard_run(const ParameterInfo& info,
                        const std::function<void(int64_t, int64_t, int64_t)>& visit);
// Allocates the parameters of a plan: uninitialized leaves that require gradients.
std::vector<Parameter> make_parameters(Allocator& allocator, std::span<const ParameterInfo> plan);
// Those of a trunk: where the rank says so, without memory.
std::vector<Parameter> make_trunk_parameters(Rank& rank, std::span<const ParameterInfo> plan);
// A tensor of this shape that has no elements of its own: every one reads NaN.
Tensor without_memory(Allocator& allocator, const Shape& shape, DType dtype);
// Draws each parameter by its global element index, so that every mesh starts from the same
// weights.
void initialize_parameters(std::span<Parameter> parameters, uint64_t seed);
// The same of the elements `own` of this rank's shard, on all threads of its pool.
void initialize_values(ThreadPool& pool, const ParameterInfo& info, Part own, float* values,
                       uint64_t seed);

}  // namespace weft
