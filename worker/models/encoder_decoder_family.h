// What families of an encoder and a decoder say alike, and their configurations.
//
// Thread safety: pure functions, and values.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include "worker/models/families.h"
#include "worker/models/model.h"

namespace weft {

struct EncoderDecoderConfig : ModelConfig {
  int64_t decoder_layers() const { return layers - encoder_layers; }
  bool decodes(int64_t layer) const { return layer >= encoder_layers; }
  // Only the decoder's see nothing behind them.
  void set_layers(int64_t encoder, int64_t decoder) {
    layers = encoder + decoder;
    encoder_layers = encoder;
    other_layers = decoder;
    attention.causal = false;
    other_attention.causal = true;
  }
};

// Config: an EncoderDecoderConfig.
template <typename Config>
class EncoderDecoderFamily : public ModelFamily {
 public:
  ModelConfigPtr with_adapter(const ModelConfig& config, const Adapter& adapter) const final {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->adapter = adapter;
    return copy;
  }
  ModelConfigPtr with_layers(const ModelConfig& config, int64_t layers) const final {
    auto copy = std::make_shared<Config>(config_as<Config>(config));
    copy->set_layers(std::min(layers, copy->encoder_layers),
                     std::min(layers, copy->decoder_layers()));
    return copy;
  }
  ops::WeightLayout layout() const final { return ops::WeightLayout::kOutIn; }

  // None but that of tokens.
  std::optional<Head> head(const ModelConfig&, HeadKind, int64_t) const final {
    return std::nullopt;
  }
};

}  // namespace weft
