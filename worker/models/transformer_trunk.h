// What all families share: blocks of an attention and an MLP behind a vocabulary-parallel
// embedding, their recomputation, their attention over the mesh and, of decoders, over a cache.
// Where the norms stand is the family's. Legend: as model.h; N heads of queries and Nk of keys on
// this rank, D features of a head.
//
// Thread safety and ownership: as Trunk.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/attention/relative.h"
#include "kernels/ops/rotary.h"
#include "worker/models/model.h"
#include "worker/models/token_dropout.h"
#include "worker/parallel/head_parts.h"
#include "worker/parallel/low_rank.h"
#include "worker/parallel/sequence_attention.h"
#include "worker/parallel/tensor_parallel.h"

namespace weft {

// One forward pass, whose blocks may be computed again.
struct TransformerPass {
  parallel::TensorAxis axis;
  TokenBatch batch;
  ops::Angles angles;    // of the tokens, where positions are rotations
  Tensor distances;      // vectors of them, [B or 1, 2 T - 1, H], where scores have terms of these
  Tensor distance_bias;  // of attention to itself (attention::Parameters), where scores have one
  // Of an encoder-decoder's decoder: its encoder's pass, and what that gives, [B, Tl of the source,
  // H], as column_input has it.
  std::shared_ptr<const TransformerPass> source;
  Tensor memory;
};

// Of attention, what differs from family to family.
struct ScoreOptions {
  double scale = 1;
  double dropout = 0;
  int64_t window_left = -1;         // keys before its own that a token sees; -1: all
  std::optional<bool> causal = {};  // absent: as ModelConfig::attention
};

class TransformerTrunk : public Trunk {
 public:
  const ModelConfig& config() const final { return *shared_; }
  std::vector<Parameter>& parameters() final { return parameters_; }
  Tensor forward(Context& cx, const TokenBatch& batch) override;
  TokenHead token_head(Context& cx, const TokenBatch& batch, const Tensor& hidden) final;
  Tensor token_table() final;
  Tensor joined_hidden(Context& cx, const TokenBatch& batch, const Tensor& hidden) final;

 protected:
  // `plan`: the table of tokens, what else is used before the blocks (first_block parameters
  // together), the parameters of each block and behind them those of its adapter; where there is
  // one those of the final norm, and the untied head's.
  TransformerTrunk(Rank& rank, ModelConfigPtr config, std::span<const ParameterInfo> plan,
                   ops::WeightLayout layout, size_t first_block);

  // -> [B, Tb, H]; fills in what the blocks need of the pass.
  virtual Tensor embed(Context& cx, TransformerPass& pass) = 0;
  // Of what goes from block to block, [B, Tb, H]: what the attention leaves of it, and the MLP of
  // that; residuals, norms and dropout included.
  virtual Tensor attention(Context& cx, const TransformerPass& pass, int64_t layer,
                           const Tensor& input) = 0;
  virtual Tensor mlp(Context& cx, const TransformerPass& pass, int64_t layer,
                     const Tensor& input) = 0;
  // Only where the plan goes on behind the blocks.
  virtual Tensor last_norm(Context& /*cx*/, const TransformerPass& /*pass*/, const Tensor& x) {
    WEFT_CHECK(false, "{} has no final norm", shared_->family);
    return x;
  }

  static constexpr int64_t kEmbeddingUnit = 0;
  parallel::TensorAxis axis_for(const TokenBatch& batch) const;
  Tensor through_blocks(Context& cx, const TransformerPass& pass, Part layers, Tensor x);

  // Before embed() uses what it has of the first block's unit.
  void open_first_block() const {
    const int64_t first = shared_->unit_of(0);
    open_attention(first, first + 1);
  }

  // By its place in the plan; in that of a block.
  const Tensor& parameter(size_t index) const { return parameters_[index].value; }
  const Tensor& weight(int64_t layer, size_t which) const {
    return parameter(first_of(layer) + which);
  }
  // Of the parameters of what is no block, behind one.
  const Tensor& of_unit(int64_t unit, size_t which) const {
    return parameter(first_of_unit_[static_cast<size_t>(unit)] + which);
  }
  const Tensor& last(size_t which) const { return of_unit(shared_->last_unit(), which); }

  // A block's linear maps by the places of their weights, with what adapts them: as
  // parallel::column_linear, column_linears (weights: as they are to be used) and row_linear.
  Tensor column(Context& cx, const TransformerPass& pass, int64_t layer, size_t which,
                const Tensor& x, const Tensor& bias,
                std::optional<ops::Activation> activation = std::nullopt, int parts = 1);
  std::vector<Tensor> columns(Context& cx, const TransformerPass& pass, int64_t layer,
                              std::span<const size_t> which, const Tensor& x,
                              std::span<const Tensor> weights, std::span<const Tensor> biases = {});
  Tensor row(Context& cx, const TransformerPass& pass, int64_t layer, size_t which, const Tensor& x,
             const Tensor& bias, const Tensor& residual);

  // Of what lies between blocks, [B, Tb, H].
  static Tensor layer_norm(Context& cx, const TransformerPass& pass, const Tensor& x,
                           const Tensor& gamma, const Tensor& beta, double epsilon);
  Tensor between_dropout(Context& cx, const TransformerPass& pass, const Tensor& x, double rate,
                         DropoutUse use, int64_t layer) const;
  // input + dropout(row(x)).
  Tensor add_row(Context& cx, const TransformerPass& pass, int64_t layer, size_t which,
                 const Tensor& x, const Tensor& bias, const Tensor& input, double rate,
                 DropoutUse use);

  // y as columns() gives it, [..., N * D], or already [B, Tl, N, D] -> [B, N, Tl, D]; on a CPU
  // contiguous, on a GPU a view, which its kernels read where it lies.
  Tensor by_heads(Context& cx, const TransformerPass& pass, const Tensor& y) const;
  const parallel::HeadParts& heads() const { return heads_; }
  // A weight of this rank's heads of keys, for this rank's use: its gradient is summed over the
  // ranks of the tensor axis that hold the same heads; with blocks that of the keys already is.
  Tensor shared_by_heads(Context& cx, const Tensor& shard) const;
  // query [B, N, Tl, D], key and value [B, Nk, Tl, D] -> [B, Tl, N * D].
  Tensor attend(Context& cx, const TransformerPass& pass, int64_t layer, const Tensor& query,
                const Tensor& key, const Tensor& value, const ScoreOptions& options);
  // The same with terms by distance and segment, all tokens of a row on this rank.
  Tensor attend_relative(Context& cx, const TransformerPass& pass, int64_t layer,
                         const Tensor& query, const Tensor& key, const Tensor& value,
                         const attention::RelativeTerms& terms, const ScoreOptions& options) const;
  // As attend, of the keys and values of an encoder-decoder's source, [B, Nk, Tl of the source, D];
  // with a cache that is one row, without padding.
  Tensor attend_to_source(Context& cx, const TransformerPass& pass, int64_t layer,
                          const Tensor& query, const Tensor& key, const Tensor& value,
                          const ScoreOptions& options) const;

 private:
  size_t first_of(int64_t layer) const {
    return first_of_unit_[static_cast<size_t>(shared_->unit_of(layer))];
  }
  // That of a block's weight; 0: none.
  size_t adapter_of(int64_t layer, size_t which) const {
    return adapter_of_[first_of(layer) + which];
  }
  // y with what adapts the map that gave it, of the same x. product: the map, without its bias
  // where it is rescaled; parts: as column().
  using Product = std::function<Tensor(const Tensor& x)>;
  Tensor adapted(Context& cx, const TransformerPass& pass, int64_t layer, size_t which,
                 const Tensor& x, const Tensor& y, parallel::Side side, const Product& product,
                 int parts = 1);
  Tensor block(Context& cx, const TransformerPass& pass, int64_t layer, const Tensor& input);
  parallel::KeyTerms key_terms() const;
  // Of scores that a pass drops.
  attention::WeightDropout score_dropout(const TokenBatch& batch, double rate, DropoutUse use,
                                         int64_t layer) const;
  Tensor attend_cached(Context& cx, KeyValueCache& cache, int64_t layer, const Tensor& query,
                       const Tensor& key, const Tensor& value,
                       attention::Parameters& parameters) const;

  const ModelConfigPtr shared_;
  const ops::WeightLayout layout_;
  // By unit: the place of its first parameter, of the first block's that which embed() does not
  // use.
  const std::vector<size_t> first_of_unit_;
  // By the place of a weight: that of its adapter's A, which B and the magnitude follow; 0: none.
  const std::vector<size_t> adapter_of_;
  const parallel::HeadParts heads_;
  std::vector<Parameter> parameters_;
};

}  // namespace weft
