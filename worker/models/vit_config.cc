#include "worker/models/vit_config.h"

#include <fmt/format.h>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::vit {
namespace {

constexpr int64_t kPixelsMax = 1 << 14;  // of an image's side

// One number, or height and width, which must be alike.
int64_t side(ConfigReader& reader, const nlohmann::json& json, const char* name, int64_t absent) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_array()) {
    return reader.integer({name}, absent, 1, kPixelsMax);
  }
  const nlohmann::json* both = reader.array(name);
  const bool square = both->size() == 2 && both->front() == both->back() &&
                      both->front().is_number_integer() && both->front() >= 1 &&
                      both->front() <= kPixelsMax;
  if (square) return both->front().get<int64_t>();
  reader.refuse(name, fmt::format("must be an integer from 1 to {}, or twice the same: images and "
                                  "patches are squares",
                                  kPixelsMax));
  return absent;
}

void read_image(ConfigReader& reader, const nlohmann::json& json, Config& config) {
  ModelConfig::ImageShape& image = config.image;
  image.size = side(reader, json, "image_size", 224);
  image.patch = side(reader, json, "patch_size", 16);
  image.channels = reader.integer({"num_channels"}, 3, 1, 1024);
  if (image.patch > image.size) {
    reader.refuse("patch_size", fmt::format("must be at most image_size, which is {}", image.size));
    image.patch = image.size;
  }
  if (image.size % image.patch != 0) {
    reader.refuse("patch_size",
                  fmt::format("must divide image_size, which is {}: pixels beyond the last patch "
                              "are not cut off",
                              image.size));
  }
  config.positions = image.tokens();
}

void read_sizes(ConfigReader& reader, Config& config) {
  config.hidden = reader.integer({"hidden_size"}, 768, 1, kExtentMax);
  config.layers = reader.integer({"num_hidden_layers"}, 12, 1, 100000);
  config.heads = reader.integer({"num_attention_heads"}, 12, 1, kExtentMax);
  config.inner = reader.integer({"intermediate_size"}, 3072, 1, kExtentMax);
  config.key_heads = config.heads;
  config.head_features = config.hidden / config.heads;
  if (config.hidden % config.heads != 0) {
    reader.refuse("num_attention_heads",
                  fmt::format("must divide hidden_size, which is {}", config.hidden));
  }
}

}  // namespace

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "vit";
  config->tied = false;
  ConfigReader reader(object, "vit");
  read_sizes(reader, *config);
  read_image(reader, object, *config);
  config->activation_name = reader.text("hidden_act", "gelu");
  config->activation = read_activation(reader, "hidden_act", config->activation_name);
  config->dropout = reader.number("hidden_dropout_prob", 0, 0, 1);
  config->attention_dropout = reader.number("attention_probs_dropout_prob", 0, 0, 1);
  config->epsilon = reader.number("layer_norm_eps", 1e-12, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  config->input_biases = reader.flag("qkv_bias", true);
  config->encoder_stride = reader.integer({"encoder_stride"}, 16, 1, kExtentMax);
  config->pooler_features = reader.optional_integer("pooler_output_size").value_or(config->hidden);
  config->pooler_activation = reader.text("pooler_act", "tanh");
  refuse_beyond_count(reader, *config, {"hidden_size"});
  refuse_what_changes_the_model(reader, "vit");
  reader.accept(
      {"bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"});  // of text
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  nlohmann::json json = {
      {"model_type", "vit"},
      {"hidden_size", config.hidden},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads},
      {"intermediate_size", config.inner},
      {"hidden_act", config.activation_name},
      {"hidden_dropout_prob", config.dropout},
      {"attention_probs_dropout_prob", config.attention_dropout},
      {"initializer_range", config.initializer_range},
      {"layer_norm_eps", config.epsilon},
      {"image_size", config.image.size},
      {"patch_size", config.image.patch},
      {"num_channels", config.image.channels},
      {"qkv_bias", config.input_biases},
      {"encoder_stride", config.encoder_stride},
      {"pooler_output_size", config.pooler_features},
      {"pooler_act", config.pooler_activation},
      {"torch_dtype", "float32"},
  };
  write_head(json, config, head, "ViT", "ViTModel");
  return json.dump(2) + "\n";
}

}  // namespace weft::vit
