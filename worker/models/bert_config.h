// The configuration of BERT (Devlin et al. 2019) and of those that compute as it does
// (bert_dialect.h: RoBERTa, Liu et al. 2019; DistilBERT, Sanh et al. 2019), with the keys of
// transformers' BertConfig, RobertaConfig and DistilBertConfig.
//
// Thread safety: values.
#pragma once

#include <optional>
#include <string>

#include "kernels/ops/ops.h"
#include "worker/models/bert_dialect.h"
#include "worker/models/model.h"

namespace weft::bert {

struct Config final : ModelConfig {
  std::string activation_name = "gelu";
  ops::Activation activation = ops::Activation::kGeluErf;
  double dropout = 0.1, attention_dropout = 0.1;
  // Before a layer of classes; none: as `dropout`. Of a distilled one of sequences only.
  std::optional<double> classifier_dropout;
  double answer_dropout = 0;  // before an answer's ends; of a distilled one only
  double epsilon = 1e-12;
};

Result<std::shared_ptr<const Config>> parse_config(const Dialect& dialect, std::string_view json);
std::string config_json(const Dialect& dialect, const Config& config, const ExportHead& head);

}  // namespace weft::bert
