// A task's head with its parameters on this rank. Every rank of the tensor axis computes it alike.
//
// Thread safety: the rank's compute thread. Ownership: refers to its Rank.
#pragma once

#include <string>
#include <vector>

#include "worker/models/model.h"

namespace weft {

class HeadLayers {
 public:
  // `task`: before the parameters' names, with a dot.
  HeadLayers(Rank& rank, Head head, const ModelConfig& config, const std::string& task);

  const Head& head() const { return head_; }
  // As head_plan orders them. Uninitialized when made.
  const std::vector<Parameter>& parameters() const { return parameters_; }

  // Of the pooled tokens [B, H], a row each, or of all of this rank's as joined_hidden gives them,
  // -> what the last layer gives of them.
  Tensor forward(Context& cx, const TokenBatch& batch, Tensor x) const;

 private:
  Tensor dropped(Context& cx, const TokenBatch& batch, const Tensor& x, size_t layer) const;
  Tensor normed(Context& cx, const TokenBatch& batch, const Tensor& x, const Tensor& gamma,
                const Tensor& beta) const;
  Tensor linear(Context& cx, const TokenBatch& batch, const Tensor& x, const HeadLayer& layer,
                const Tensor& weight, const Tensor& bias) const;

  Rank& rank_;
  const Head head_;
  std::vector<Parameter> parameters_;
};

}  // namespace weft
