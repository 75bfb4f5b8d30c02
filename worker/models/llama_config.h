// The configuration of the Llama family (Touvron et al. 2023; grouped queries and scaled rotary
// positions as in Llama 3) and of those that compute as it does (llama_dialect.h), with the keys of
// transformers' LlamaConfig, MistralConfig, Qwen2Config and Qwen3Config.
//
// Thread safety: values.
#pragma once

#include <optional>
#include <vector>

#include "worker/models/llama_dialect.h"
#include "worker/models/model.h"

namespace weft::llama {

// Of frequencies: positions longer than training saw.
struct RotaryScaling {
  double factor = 1;
  // Llama 3: wavelengths below original_positions / high_factor stay, those above
  // original_positions / low_factor are stretched by factor, between them it is interpolated. All
  // are stretched where there are none.
  struct Bands {
    double low_factor = 1, high_factor = 4;
    int64_t original_positions = 8192;
  };
  std::optional<Bands> bands;
};

struct Config final : ModelConfig {
  double attention_dropout = 0;
  double epsilon = 1e-6;
  double rotary_base = 10000;
  std::optional<RotaryScaling> scaling;
  bool input_biases = false, output_bias = false;  // of attention's projections
  int64_t window = 0;  // keys that a token sees, itself among them; 0: all before it
  // Which layers have the window; empty: all.
  std::vector<bool> windowed;

  bool has_window(int64_t layer) const {
    const auto at = static_cast<size_t>(layer);
    return window > 0 && (at >= windowed.size() || windowed[at]);
  }
  // `attention` and `other_attention` from the windows of the layers that there are.
  void count_windows();

  // Radians a position of each pair of a head's features, [head features / 2]; computed in fp32, as
  // published weights were trained with (at position 100,000 rounding otherwise would turn a pair
  // by a hundredth).
  std::vector<double> frequencies() const;
};

Result<std::shared_ptr<const Config>> parse_config(const Dialect& dialect, std::string_view json);
std::string config_json(const Dialect& dialect, const Config& config, const ExportHead& head);

}  // namespace weft::llama
