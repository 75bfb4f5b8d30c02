// The configuration of the Vision Transformer (Dosovitskiy et al. 2021), with the keys of
// transformers' ViTConfig.
//
// Thread safety: values.
#pragma once

#include <string>

#include "kernels/ops/ops.h"
#include "worker/models/model.h"

namespace weft::vit {

struct Config final : ModelConfig {
  std::string activation_name = "gelu";
  ops::Activation activation = ops::Activation::kGeluErf;
  double dropout = 0, attention_dropout = 0;
  double epsilon = 1e-12;
  bool input_biases = true;  // of queries, keys and values
  // Of heads that are not there; kept for the export.
  int64_t encoder_stride = 16, pooler_features = 0;
  std::string pooler_activation = "tanh";
};

Result<std::shared_ptr<const Config>> parse_config(std::string_view json);
std::string config_json(const Config& config, const ExportHead& head);

}  // namespace weft::vit
