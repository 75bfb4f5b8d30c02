// The configuration of Whisper (Radford et al. 2022), with the keys of transformers' WhisperConfig.
//
// Thread safety: values.
#pragma once

#include <string>
#include <vector>

#include "kernels/ops/ops.h"
#include "worker/models/encoder_decoder_family.h"

namespace weft::whisper {

struct Config final : EncoderDecoderConfig {
  std::string activation_name = "gelu";
  ops::Activation activation = ops::Activation::kGeluErf;
  double dropout = 0, attention_dropout = 0, activation_dropout = 0;
  bool scale_embedding = false;  // of no effect; kept for the export, as are
  // the tokens that transformers never writes, and those that it does not begin with.
  std::vector<int64_t> suppressed, suppressed_first;
};

inline constexpr double kEpsilon = 1e-5;  // of all norms

Result<std::shared_ptr<const Config>> parse_config(std::string_view json);
std::string config_json(const Config& config, const ExportHead& head);

}  // namespace weft::whisper
