// What families of an encoder and a decoder share: the encoder's pass, whose states each of the
// decoder's blocks attends to, and of a cached one their keys and values.
//
// Thread safety and ownership: as Trunk.
#pragma once

#include <utility>

#include "worker/models/transformer_trunk.h"

namespace weft {

class EncoderDecoderTrunk : public TransformerTrunk {
 public:
  // embed() and last_norm() are called for a pass of each stack.
  Tensor forward(Context& cx, const TokenBatch& batch) final;

 protected:
  using TransformerTrunk::TransformerTrunk;

  // Whether a pass is the encoder's: of the decoder's something else is the source.
  static bool reads(const TransformerPass& pass) {
    return pass.batch.source == nullptr && pass.batch.cache == nullptr;
  }
  static int64_t stack_of(const TransformerPass& pass) { return reads(pass) ? 0 : 1; }
  // A parameter of a stack's last norm.
  const Tensor& norm_of(const TransformerPass& pass, size_t which) const {
    return reads(pass) ? of_unit(encoder_norm(), which) : last(which);
  }

  // Keys and values of the source in a block of the decoder, [B, N, T, D], by the places of their
  // weights; biases: of both, or empty handles. Of a cached source they are computed once. With
  // blocks its states lie on the ranks, and each layer gathers them.
  struct SourceMaps {
    size_t key, value;
    Tensor key_bias, value_bias;
  };
  std::pair<Tensor, Tensor> source_heads(Context& cx, const TransformerPass& pass, int64_t layer,
                                         const SourceMaps& maps);

 private:
  int64_t encoder_norm() const { return config().unit_of(config().encoder_layers) - 1; }
  // Fills in what the decoder's pass has of the encoder's.
  void read(Context& cx, TransformerPass& writing);
};

}  // namespace weft
