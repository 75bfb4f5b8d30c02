#include "worker/models/gpt2_config.h"

#include <fmt/format.h>

#include <cmath>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::gpt2 {
namespace {

void read_sizes(ConfigReader& reader, Config& config) {
  config.vocabulary = reader.integer({"vocab_size"}, 50257, 1, kExtentMax);
  config.positions =
      reader.integer({"n_positions", "max_position_embeddings", "n_ctx"}, 1024, 1, kExtentMax);
  config.hidden = reader.integer({"n_embd", "hidden_size"}, 768, 1, kExtentMax);
  config.layers = reader.integer({"n_layer", "num_hidden_layers"}, 12, 1, 100000);
  config.heads = reader.integer({"n_head", "num_attention_heads"}, 12, 1, kExtentMax);
  config.key_heads = config.heads;
  config.head_features = config.hidden / config.heads;
  config.attention.causal = true;
  config.inner = reader.optional_integer("n_inner").value_or(4 * config.hidden);
  if (config.inner < 1 || config.inner > 4 * kExtentMax) {
    reader.refuse("n_inner", "must be a positive integer or null");
  }
  if (config.hidden % config.heads != 0) {
    reader.refuse(reader.has("n_head") ? "n_head" : "num_attention_heads",
                  fmt::format("must divide n_embd, which is {}", config.hidden));
  }
}

}  // namespace

double Config::score_scale(int64_t layer) const {
  double scale = scale_by_head_size ? 1.0 / std::sqrt(static_cast<double>(head_features)) : 1.0;
  if (scale_by_layer) scale /= static_cast<double>(layer + 1);
  return scale;
}

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "gpt2";
  ConfigReader reader(object, "gpt2");
  read_sizes(reader, *config);
  config->activation_name = reader.text("activation_function", "gelu_new");
  config->activation = read_activation(reader, "activation_function", config->activation_name);
  config->residual_dropout = reader.number("resid_pdrop", 0.1, 0, 1);
  config->embedding_dropout = reader.number("embd_pdrop", 0.1, 0, 1);
  config->attention_dropout = reader.number("attn_pdrop", 0.1, 0, 1);
  config->epsilon = reader.number("layer_norm_epsilon", 1e-5, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  config->scale_by_head_size = reader.flag("scale_attn_weights", true);
  config->scale_by_layer = reader.flag("scale_attn_by_inverse_layer_idx", false);
  config->reorder_and_upcast = reader.flag("reorder_and_upcast_attn", false);
  config->tied = reader.flag("tie_word_embeddings", true);
  refuse_beyond_count(reader, *config, {"n_embd", "hidden_size"});
  // GPT-2's own vocabulary ends with its one special token.
  read_token_ids(reader, *config, {.bos = 50256, .eos = 50256});
  refuse_what_changes_the_model(reader, "gpt2");
  reader.accept({"n_special", "predict_special_tokens"});  // of GPT-2 medium
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  nlohmann::json json = {
      {"model_type", "gpt2"},
      {"vocab_size", config.vocabulary},
      {"n_positions", config.positions},
      {"n_embd", config.hidden},
      {"n_layer", config.layers},
      {"n_head", config.heads},
      {"n_inner", config.inner},
      {"activation_function", config.activation_name},
      {"resid_pdrop", config.residual_dropout},
      {"embd_pdrop", config.embedding_dropout},
      {"attn_pdrop", config.attention_dropout},
      {"layer_norm_epsilon", config.epsilon},
      {"initializer_range", config.initializer_range},
      {"scale_attn_weights", config.scale_by_head_size},
      {"scale_attn_by_inverse_layer_idx", config.scale_by_layer},
      {"reorder_and_upcast_attn", config.reorder_and_upcast},
      {"add_cross_attention", false},
      {"tie_word_embeddings", config.tied},
      {"use_cache", true},
      {"torch_dtype", "float32"},
  };
  write_head(json, config, head, "GPT2", "GPT2LMHeadModel");
  return json.dump(2) + "\n";
}

}  // namespace weft::gpt2
