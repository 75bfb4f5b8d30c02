// The configuration of XLNet (Yang et al. 2019), with the keys of transformers' XLNetConfig.
//
// Thread safety: values.
#pragma once

#include <optional>
#include <string>

#include "kernels/ops/ops.h"
#include "worker/models/model.h"

namespace weft::xlnet {

// What its tokenizer tells apart: texts are 0 and 1, the token that is classified 2, padding 3.
inline constexpr int64_t kTokenTypes = 4;

struct Config final : ModelConfig {
  double dropout = 0.1;
  double epsilon = 1e-12;
  int64_t distance_max = -1;  // larger ones are as this one; -1: none is
  std::string activation_name;
  ops::Activation activation = ops::Activation::kGeluErf;
  // Of the head of sequences: which token it sees, and what is done around its first layer.
  std::string summary;
  double summary_first_dropout = 0, summary_last_dropout = 0.1;
  std::string summary_activation_name;  // empty: none
  std::optional<ops::Activation> summary_activation;
  bool predicts = false;  // ModelFamily::with_predictions

  void set_dropout(double rate) {
    dropout = rate;
    relative_by_row = rate > 0;
  }
};

Result<std::shared_ptr<const Config>> parse_config(std::string_view json);
std::string config_json(const Config& config, const ExportHead& head);

}  // namespace weft::xlnet
