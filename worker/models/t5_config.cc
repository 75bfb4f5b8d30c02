#include "worker/models/t5_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::t5 {
namespace {

constexpr int64_t kLayersMax = 100000;
constexpr int64_t kDistanceMax = 1 << 16;
constexpr std::string_view kGated = "gated-";

void read_sizes(ConfigReader& reader, Config& config) {
  config.vocabulary = reader.integer({"vocab_size"}, 32128, 1, kExtentMax);
  config.hidden = reader.integer({"d_model", "hidden_size"}, 512, 1, kExtentMax);
  config.head_features = reader.integer({"d_kv", "head_dim"}, 64, 1, kExtentMax);
  config.inner = reader.integer({"d_ff"}, 2048, 1, kExtentMax);
  config.heads = reader.integer({"num_heads", "num_attention_heads"}, 8, 1, kExtentMax);
  config.key_heads = config.heads;
  const int64_t encoder = reader.integer({"num_layers", "num_hidden_layers"}, 6, 1, kLayersMax);
  const int64_t decoder = reader.optional_integer("num_decoder_layers").value_or(encoder);
  if (decoder < 1 || decoder > kLayersMax) {
    reader.refuse("num_decoder_layers", fmt::format("must be from 1 to {}", kLayersMax));
  }
  config.set_layers(encoder, std::clamp<int64_t>(decoder, 1, kLayersMax));
  config.positions = config.target_positions = kAnyLength;
}

void read_distances(ConfigReader& reader, Config& config) {
  config.buckets = reader.integer({"relative_attention_num_buckets"}, 32, 4, kDistanceMax);
  config.distances = reader.integer({"relative_attention_max_distance"}, 128, 1, kDistanceMax);
  if (config.distances > config.buckets / 2) return;
  reader.refuse("relative_attention_max_distance",
                fmt::format("must exceed half of relative_attention_num_buckets, {}: so many "
                            "distances have a bucket of their own",
                            config.buckets / 2));
}

// "relu", "gated-gelu": whether it is a product of two, and of what.
void read_feed_forward(ConfigReader& reader, Config& config) {
  const std::string text = reader.text("feed_forward_proj", "relu");
  config.gated = config.gate_apart = text.starts_with(kGated);
  const std::string name = config.gated ? text.substr(kGated.size()) : text;
  // transformers takes the approximation by tanh under this name alone.
  config.activation_name = text == "gated-gelu" ? "gelu_new" : name;
  config.activation = read_activation(reader, "feed_forward_proj", config.activation_name,
                                      ", or gated- and one of these");
  const std::string reason = "feed_forward_proj is " + text;
  reader.only("is_gated_act", config.gated, reason);
  reader.only("dense_act_fn", config.activation_name, reason);
}

// transformers 5 writes of every model that it is tied, and beside it whether its logits are
// scaled, which those of a model are whose head is not its own.
void read_head(ConfigReader& reader, Config& config) {
  const bool tied = reader.flag("tie_word_embeddings", true);
  const bool scaled = reader.flag("scale_decoder_outputs", tied);
  if (scaled && !tied) {
    reader.refuse("scale_decoder_outputs",
                  "must be false where tie_word_embeddings is: a head of its own takes what the "
                  "decoder gives as it is");
  }
  config.tied = scaled;
  if (tied) config.untied_by = "scale_decoder_outputs";
  if (scaled) config.logit_scale = 1 / std::sqrt(static_cast<double>(config.hidden));
}

void read_tokens(ConfigReader& reader, Config& config) {
  read_token_ids(reader, config, {.eos = 1, .pad = 0});
  const int64_t absent = config.pad_token_id.value_or(0);
  const std::optional<int64_t> given = reader.optional_integer("decoder_start_token_id");
  config.start_is_null = reader.has("decoder_start_token_id") && !given;
  const int64_t start = given.value_or(absent);
  if (start < 0 || start >= config.vocabulary) {
    reader.refuse("decoder_start_token_id",
                  fmt::format("must be of the vocabulary, from 0 to {} as vocab_size says",
                              config.vocabulary - 1));
  }
  config.decoder_start_token_id = std::clamp<int64_t>(start, 0, config.vocabulary - 1);
}

}  // namespace

std::vector<int64_t> Config::bucket_of_distance(bool decoder) const {
  const int64_t of_side = decoder ? buckets : buckets / 2;
  const int64_t exact = of_side / 2;  // the others are as wide as their distance's logarithm asks
  std::vector<int64_t> places;
  for (int64_t distance = -distances; distance <= distances; ++distance) {
    const int64_t side = !decoder && distance > 0 ? of_side : 0;
    const int64_t far = decoder ? std::max<int64_t>(-distance, 0) : std::abs(distance);
    int64_t bucket = far;
    if (far >= exact) {  // in fp32, as published weights were trained with
      const float ratio = std::log(static_cast<float>(far) / static_cast<float>(exact));
      const auto whole =
          static_cast<float>(std::log(static_cast<double>(distances) / static_cast<double>(exact)));
      const float wide = ratio / whole * static_cast<float>(of_side - exact);
      bucket = std::min(exact + static_cast<int64_t>(wide), of_side - 1);
    }
    places.push_back(side + bucket);
  }
  return places;
}

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "t5";
  ConfigReader reader(object, "t5");
  read_sizes(reader, *config);
  read_distances(reader, *config);
  read_feed_forward(reader, *config);
  read_head(reader, *config);
  read_tokens(reader, *config);
  config->dropout = reader.number("dropout_rate", 0.1, 0, 1);
  config->epsilon = reader.number("layer_norm_epsilon", 1e-6, 0, 1);
  config->initializer_factor = reader.number("initializer_factor", 1, 0, 1000);
  refuse_beyond_count(reader, *config, {"d_model", "hidden_size"});
  refuse_what_changes_the_model(reader, "t5", /*encodes_and_decodes=*/true);
  reader.only("is_decoder", false, "the family is an encoder and a decoder");
  reader.accept({"n_positions", "classifier_dropout"});  // no bound; of other heads
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  const bool published = config.gated && config.activation_name == "gelu_new";
  const std::string activation = published ? "gelu" : config.activation_name;
  nlohmann::json json = {
      {"model_type", "t5"},
      {"vocab_size", config.vocabulary},
      {"d_model", config.hidden},
      {"d_kv", config.head_features},
      {"d_ff", config.inner},
      {"num_heads", config.heads},
      {"num_layers", config.encoder_layers},
      {"num_decoder_layers", config.decoder_layers()},
      {"relative_attention_num_buckets", config.buckets},
      {"relative_attention_max_distance", config.distances},
      {"feed_forward_proj", (config.gated ? std::string(kGated) : "") + activation},
      {"dropout_rate", config.dropout},
      {"layer_norm_epsilon", config.epsilon},
      {"initializer_factor", config.initializer_factor},
      {"tie_word_embeddings", config.tied},
      {"is_encoder_decoder", true},
      {"torch_dtype", "float32"},
  };
  json["decoder_start_token_id"] = nullptr;
  if (!config.start_is_null) json["decoder_start_token_id"] = config.decoder_start_token_id;
  write_head(json, config, head, "T5", "T5ForConditionalGeneration");
  if (!config.pad_token_id) json["pad_token_id"] = nullptr;  // nothing here asks for one
  return json.dump(2) + "\n";
}

}  // namespace weft::t5
