// The configuration of the GPT-2 family (Radford et al. 2019), with the keys of transformers'
// GPT2Config.
//
// Thread safety: values.
#pragma once

#include <string>

#include "kernels/ops/ops.h"
#include "worker/models/model.h"

namespace weft::gpt2 {

struct Config final : ModelConfig {
  std::string activation_name = "gelu_new";
  ops::Activation activation = ops::Activation::kGeluTanh;
  double residual_dropout = 0.1, embedding_dropout = 0.1, attention_dropout = 0.1;
  double epsilon = 1e-5;
  bool scale_by_head_size = true;   // scores / sqrt(features of a head)
  bool scale_by_layer = false;      // scores / (layer + 1)
  bool reorder_and_upcast = false;  // in fp32 the same numbers; kept for the export

  double score_scale(int64_t layer) const;
};

Result<std::shared_ptr<const Config>> parse_config(std::string_view json);
std::string config_json(const Config& config, const ExportHead& head);

}  // namespace weft::gpt2
