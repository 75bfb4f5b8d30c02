// The configuration of T5 (Raffel et al. 2020), with the keys of transformers' T5Config.
//
// Thread safety: values.
#pragma once

#include <string>
#include <vector>

#include "kernels/ops/ops.h"
#include "worker/models/encoder_decoder_family.h"

namespace weft::t5 {

struct Config final : EncoderDecoderConfig {
  double dropout = 0.1;
  double epsilon = 1e-6;
  double initializer_factor = 1;
  int64_t buckets = 32;        // of distances
  bool start_is_null = false;  // decoder_start_token_id: what stands for it is not written
  std::string activation_name;
  ops::Activation activation = ops::Activation::kRelu;

  // Which bucket each distance from a query to a key is in, from -distances to distances. Beyond
  // these it is the last of its side; a decoder's queries see no keys behind them.
  std::vector<int64_t> bucket_of_distance(bool decoder) const;
};

Result<std::shared_ptr<const Config>> parse_config(std::string_view json);
std::string config_json(const Config& config, const ExportHead& head);

}  // namespace weft::t5
