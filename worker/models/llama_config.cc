#include "worker/models/llama_config.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::llama {
namespace {

constexpr double kNumberMax = 1e18;

// Absent: the dialect's; null: as many as there are heads of queries.
int64_t read_key_heads(ConfigReader& reader, const Dialect& dialect, int64_t heads) {
  const std::optional<int64_t> said = reader.optional_integer("num_key_value_heads");
  const std::optional<int64_t> count = reader.has("num_key_value_heads") ? said : dialect.key_heads;
  return count.value_or(heads);
}

void read_sizes(ConfigReader& reader, const Dialect& dialect, Config& config) {
  config.vocabulary = reader.integer({"vocab_size"}, dialect.vocabulary, 1, kExtentMax);
  config.positions = reader.integer({"max_position_embeddings"}, dialect.positions, 1, kExtentMax);
  config.hidden = reader.integer({"hidden_size"}, 4096, 1, kExtentMax);
  config.inner = reader.integer({"intermediate_size"}, dialect.inner, 1, kExtentMax);
  config.layers = reader.integer({"num_hidden_layers"}, 32, 1, 100000);
  config.heads = reader.integer({"num_attention_heads"}, 32, 1, kExtentMax);
  config.key_heads = read_key_heads(reader, dialect, config.heads);
  if (config.key_heads < 1 || config.heads % config.key_heads != 0) {
    reader.refuse("num_key_value_heads",
                  fmt::format("must divide num_attention_heads, which is {}", config.heads));
    config.key_heads = config.heads;
  }
  std::optional<int64_t> features = reader.optional_integer("head_dim");
  if (!features) features = dialect.head_features;
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

void read_biases(ConfigReader& reader, const Dialect& dialect, Config& config) {
  switch (dialect.biases) {
    case Dialect::Biases::kNone:
      reader.only("attention_bias", false, "projections have no biases");
      break;
    case Dialect::Biases::kAsked:
      config.input_biases = config.output_bias = reader.flag("attention_bias", false);
      break;
    case Dialect::Biases::kQueryKeyValue:
      reader.only("attention_bias", true, "queries, keys and values have biases");
      config.input_biases = true;
      break;
  }
  reader.only("mlp_bias", false, "the MLP's projections have no biases");
}

// layer_types, or max_window_layers: the layers from that one on.
void read_windowed_layers(ConfigReader& reader, Config& config) {
  const int64_t first = reader.integer({"max_window_layers"}, 28, 0, kExtentMax);
  const nlohmann::json* types = reader.array("layer_types");
  const bool all_named = types == nullptr || static_cast<int64_t>(types->size()) == config.layers;
  if (!all_named) {
    reader.refuse("layer_types", fmt::format("must name the type of each layer, of which "
                                             "num_hidden_layers says there are {}",
                                             config.layers));
  }
  for (int64_t layer = 0; layer < config.layers && all_named; ++layer) {
    bool window = layer >= first && config.window > 0;
    if (types != nullptr) {
      const nlohmann::json& type = (*types)[static_cast<size_t>(layer)];
      window = type == "sliding_attention";
      if (!window && type != "full_attention") {
        reader.refuse("layer_types", "must be full_attention or sliding_attention");
      }
    }
    if (window && config.window == 0) {
      reader.refuse("layer_types",
                    "may say sliding_attention only where use_sliding_window is true "
                    "and sliding_window is there");
    }
    config.windowed.push_back(window);
  }
  if (config.window == 0) config.windowed.clear();
}

void read_windows(ConfigReader& reader, const Dialect& dialect, Config& config) {
  if (dialect.windows == Dialect::Windows::kNone) return;
  constexpr int64_t kAbsent = 4096;
  const std::optional<int64_t> said = reader.optional_integer("sliding_window");
  const int64_t window = reader.has("sliding_window") ? said.value_or(0) : kAbsent;
  if (said && (*said < 1 || *said > kExtentMax)) {
    reader.refuse("sliding_window",
                  fmt::format("must be from 1 to {}, or null where there is none", kExtentMax));
  }
  const bool by_layer = dialect.windows == Dialect::Windows::kByLayer;
  const bool used = !by_layer || reader.flag("use_sliding_window", false);
  config.window = used ? window : 0;
  if (by_layer) read_windowed_layers(reader, config);
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

void write_windows(nlohmann::json& json, const Dialect& dialect, const Config& config) {
  if (dialect.windows == Dialect::Windows::kNone) return;
  json["sliding_window"] = config.window > 0 ? nlohmann::json(config.window) : nlohmann::json();
  if (dialect.windows == Dialect::Windows::kAll) return;
  json["use_sliding_window"] = config.window > 0;
  // Old versions of transformers know no types: whole rows first is all that they can be told.
  int64_t first = 0;
  while (first < config.layers && !config.has_window(first)) ++first;
  json["max_window_layers"] = first;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    json["layer_types"].push_back(config.has_window(layer) ? "sliding_attention"
                                                           : "full_attention");
  }
}

}  // namespace

void Config::count_windows() {
  int64_t windows = 0;
  for (int64_t layer = 0; layer < layers; ++layer) windows += has_window(layer) ? 1 : 0;
  const bool most = 2 * windows > layers;
  const parallel::AttentionPattern whole{.causal = true};
  const parallel::AttentionPattern windowed_one{.causal = true, .window_left = window - 1};
  attention = most ? windowed_one : whole;
  other_attention = most ? whole : windowed_one;
  other_layers = most ? layers - windows : windows;
}

std::vector<double> Config::frequencies() const {
  std::vector<double> all;
  for (int64_t i = 0; i < head_features / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_features);
    const float frequency = 1 / static_cast<float>(std::pow(rotary_base, double{exponent}));
    all.push_back(scaling ? scaled(*scaling, frequency) : frequency);
  }
  return all;
}

Result<std::shared_ptr<const Config>> parse_config(const Dialect& dialect, std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  const std::string family(dialect.name);
  auto config = std::make_shared<Config>();
  config->family = family;
  config->gated = config->rotary = true;
  config->head_norms = dialect.head_norms;
  ConfigReader reader(object, family);
  read_sizes(reader, dialect, *config);
  read_biases(reader, dialect, *config);
  read_windows(reader, dialect, *config);
  config->count_windows();
  WEFT_RETURN_IF_ERROR(read_rotary(reader, *config));
  config->attention_dropout = reader.number("attention_dropout", 0, 0, 1);
  config->epsilon = reader.number("rms_norm_eps", 1e-6, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  config->tied = reader.flag("tie_word_embeddings", false);
  refuse_beyond_count(reader, *config, {"hidden_size"});
  read_token_ids(reader, *config, {.bos = dialect.bos, .eos = dialect.eos});
  reader.only("hidden_act", "silu", "the MLP is a SwiGLU");
  reader.only("pretraining_tp", 1, "products are not cut in other ways than parallel.tensor");
  reader.only("rope_interleaved", false, "a feature turns with the one half a head further on");
  refuse_what_changes_the_model(reader, family);
  // transformers passes over them; the last is for JavaScript.
  reader.accept({"max_sequence_length", "is_llama_config", "transformers.js_config"});
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Dialect& dialect, const Config& config, const ExportHead& head) {
  const std::string classes(dialect.classes);
  nlohmann::json json = {
      {"model_type", dialect.name},
      {"vocab_size", config.vocabulary},
      {"max_position_embeddings", config.positions},
      {"hidden_size", config.hidden},
      {"intermediate_size", config.inner},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads},
      {"num_key_value_heads", config.key_heads},
      {"head_dim", config.head_features},
      {"hidden_act", "silu"},
      {"attention_dropout", config.attention_dropout},
      {"rms_norm_eps", config.epsilon},
      {"rope_theta", config.rotary_base},
      {"rope_scaling", nullptr},
      {"initializer_range", config.initializer_range},
      {"tie_word_embeddings", config.tied},
      {"use_cache", true},
      {"torch_dtype", "float32"},
  };
  if (config.scaling) json["rope_scaling"] = scaling_json(*config.scaling);
  if (dialect.name == "llama") json["mlp_bias"] = false;
  if (dialect.biases == Dialect::Biases::kAsked) json["attention_bias"] = config.output_bias;
  write_windows(json, dialect, config);
  write_head(json, config, head, classes, classes + "ForCausalLM");
  return json.dump(2) + "\n";
}

}  // namespace weft::llama
