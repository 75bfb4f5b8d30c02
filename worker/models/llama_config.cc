#include "worker/models/llama_config.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::llama {
namespace {

constexpr double kNumberMax = 1e18;

void read_sizes(ConfigReader& reader, Config& config) {
  config.vocabulary = reader.integer({"vocab_size"}, 32000, 1, kExtentMax);
  config.positions = reader.integer({"max_position_embeddings"}, 2048, 1, kExtentMax);
  config.hidden = reader.integer({"hidden_size"}, 4096, 1, kExtentMax);
  config.inner = reader.integer({"intermediate_size"}, 11008, 1, kExtentMax);
  config.layers = reader.integer({"num_hidden_layers"}, 32, 1, 100000);
  config.heads = reader.integer({"num_attention_heads"}, 32, 1, kExtentMax);
  config.key_heads = reader.optional_integer("num_key_value_heads").value_or(config.heads);
  if (config.key_heads < 1 || config.heads % config.key_heads != 0) {
    reader.refuse("num_key_value_heads",
                  fmt::format("must divide num_attention_heads, which is {}", config.heads));
    config.key_heads = config.heads;
  }
  const std::optional<int64_t> features = reader.optional_integer("head_dim");
  config.head_features = features.value_or(config.hidden / config.heads);
  if (!features && config.hidden % config.heads != 0) {
    reader.refuse("num_attention_heads",
                  fmt::format("must divide hidden_size, which is {}, where there is no head_dim",
                              config.hidden));
  }
  if (config.head_features < 2 || config.head_features % 2 != 0 ||
      config.head_features > kExtentMax) {
    reader.refuse("head_dim",
                  fmt::format("must be even, as pairs of features turn, from 2 to {}; it is {}",
                              kExtentMax - 1, config.head_features));
  }
}

// rope_parameters, or as transformers 4 had it rope_theta and rope_scaling.
Status read_rotary(ConfigReader& outer, Config& config) {
  config.rotary_base = outer.number("rope_theta", 10000, 1, kNumberMax);
  const nlohmann::json* scaling = outer.object("rope_scaling");
  const nlohmann::json* parameters = outer.object("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters) {
    outer.refuse("rope_scaling", "must be absent beside rope_parameters");
  }
  const char* name = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  const nlohmann::json* all = parameters != nullptr ? parameters : scaling;
  if (all == nullptr) return {};
  ConfigReader reader(*all, "llama");
  const double base = reader.number("rope_theta", config.rotary_base, 1, kNumberMax);
  if (outer.has("rope_theta") && base != config.rotary_base) {
    reader.refuse("rope_theta", fmt::format("must be the same as the rope_theta beside {}, which "
                                            "says {}; leave one of them out",
                                            name, config.rotary_base));
  }
  config.rotary_base = base;
  const char* key = reader.has("type") && !reader.has("rope_type") ? "type" : "rope_type";
  reader.accept({"type"});
  const std::string type = reader.text(key, "default");
  if (type == "linear" || type == "llama3") {
    config.scaling.emplace().factor = reader.number("factor", 1, 1, kNumberMax);
    if (!reader.has("factor")) reader.refuse("factor", "is required");
  } else if (type != "default") {
    reader.refuse(key, "must be default, linear or llama3");
  }
  if (type == "llama3") {
    RotaryScaling::Bands& bands = config.scaling->bands.emplace();
    bands.low_factor = reader.number("low_freq_factor", 1, 0, kNumberMax);
    bands.high_factor = reader.number("high_freq_factor", 4, 0, kNumberMax);
    bands.original_positions =
        reader.integer({"original_max_position_embeddings"}, config.positions, 1, kExtentMax);
    if (bands.low_factor <= 0) reader.refuse("low_freq_factor", "must be above 0");
    if (bands.high_factor <= bands.low_factor) {
      reader.refuse("high_freq_factor",
                    fmt::format("must be above low_freq_factor, which is {}", bands.low_factor));
    }
  }
  const Status status = reader.finish();
  if (status.ok()) return {};
  return Status::invalid(std::string(name) + "." + status.field(), status.value(), status.rule());
}

// Each step rounded to fp32.
float scaled(const RotaryScaling& scaling, float frequency) {
  const auto factor = static_cast<float>(scaling.factor);
  if (!scaling.bands) return frequency / factor;
  const auto low = static_cast<float>(scaling.bands->low_factor);
  const auto high = static_cast<float>(scaling.bands->high_factor);
  const float wavelength = 1 / frequency * static_cast<float>(2 * std::numbers::pi);
  const float turns = 1 / wavelength * static_cast<float>(scaling.bands->original_positions);
  const float kept = (turns - low) / (high - low);
  if (kept >= 1) return frequency;
  if (kept <= 0) return frequency / factor;
  return (1 - kept) * frequency / factor + kept * frequency;
}

nlohmann::json scaling_json(const RotaryScaling& scaling) {
  if (!scaling.bands) return {{"rope_type", "linear"}, {"factor", scaling.factor}};
  return {{"rope_type", "llama3"},
          {"factor", scaling.factor},
          {"low_freq_factor", scaling.bands->low_factor},
          {"high_freq_factor", scaling.bands->high_factor},
          {"original_max_position_embeddings", scaling.bands->original_positions}};
}

}  // namespace

std::vector<double> Config::frequencies() const {
  std::vector<double> all;
  for (int64_t i = 0; i < head_features / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_features);
    const float frequency = 1 / static_cast<float>(std::pow(rotary_base, double{exponent}));
    all.push_back(scaling ? scaled(*scaling, frequency) : frequency);
  }
  return all;
}

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "llama";
  config->attention.causal = true;
  config->gated = config->rotary = true;
  ConfigReader reader(object, "llama");
  read_sizes(reader, *config);
  WEFT_RETURN_IF_ERROR(read_rotary(reader, *config));
  config->attention_dropout = reader.number("attention_dropout", 0, 0, 1);
  config->epsilon = reader.number("rms_norm_eps", 1e-6, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  config->tied = reader.flag("tie_word_embeddings", false);
  refuse_beyond_count(reader, *config, {"hidden_size"});
  read_token_ids(reader, *config, /*bos=*/1, /*eos=*/2);
  reader.only("hidden_act", "silu", "the MLP is a SwiGLU");
  reader.only("attention_bias", false, "projections have no biases");
  reader.only("mlp_bias", false, "projections have no biases");
  reader.only("pretraining_tp", 1, "products are not cut in other ways than parallel.tensor");
  reader.only("rope_interleaved", false, "a feature turns with the one half a head further on");
  refuse_what_changes_the_model(reader, "llama");
  // transformers passes over them; the last is for JavaScript.
  reader.accept({"max_sequence_length", "is_llama_config", "transformers.js_config"});
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  nlohmann::json json = {
      {"model_type", "llama"},
      {"vocab_size", config.vocabulary},
      {"max_position_embeddings", config.positions},
      {"hidden_size", config.hidden},
      {"intermediate_size", config.inner},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads},
      {"num_key_value_heads", config.key_heads},
      {"head_dim", config.head_features},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"attention_dropout", config.attention_dropout},
      {"mlp_bias", false},
      {"rms_norm_eps", config.epsilon},
      {"rope_theta", config.rotary_base},
      {"rope_scaling", nullptr},
      {"initializer_range", config.initializer_range},
      {"tie_word_embeddings", config.tied},
      {"use_cache", true},
      {"torch_dtype", "float32"},
  };
  if (config.scaling) json["rope_scaling"] = scaling_json(*config.scaling);
  write_head(json, config, head, "Llama", "LlamaForCausalLM");
  return json.dump(2) + "\n";
}

}  // namespace weft::llama
