#include "worker/models/xlnet_config.h"

#include <fmt/format.h>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::xlnet {
namespace {

void read_sizes(ConfigReader& reader, Config& config) {
  config.vocabulary = reader.integer({"vocab_size", "n_token"}, 32000, 1, kExtentMax);
  config.hidden = reader.integer({"d_model", "hidden_size"}, 1024, 1, kExtentMax);
  config.layers = reader.integer({"n_layer", "num_hidden_layers"}, 24, 1, 100000);
  config.heads = reader.integer({"n_head", "num_attention_heads"}, 16, 1, kExtentMax);
  config.inner = reader.integer({"d_inner"}, 4096, 1, kExtentMax);
  config.key_heads = config.heads;
  config.head_features = config.hidden / config.heads;
  config.positions = kAnyLength;
  config.token_types = kTokenTypes;
  config.attention.causal = false;
  config.relative = true;
  if (config.hidden % config.heads != 0) {
    reader.refuse(reader.has("num_attention_heads") ? "num_attention_heads" : "n_head",
                  fmt::format("must divide d_model, which is {}", config.hidden));
  }
  if (config.hidden % 2 != 0) {
    reader.refuse("d_model", "must be even: half of a distance's features are sines, half cosines");
  }
  const auto width = reader.optional_integer("d_head");
  if (width && *width != 0 && *width != config.head_features) {
    reader.refuse("d_head", fmt::format("must be d_model / n_head, {}", config.head_features));
  }
}

void read_distances(ConfigReader& reader, Config& config) {
  config.distance_max = reader.integer({"clamp_len"}, -1, -kExtentMax, kExtentMax);
  if (config.distance_max < 1) config.distance_max = -1;
  reader.only("attn_type", "bi", "tokens see those behind them, too");
  reader.only("bi_data", false, "rows are read from left to right only");
  reader.only("untie_r", true, "each block has its own vectors u, v and s, as in transformers");
  reader.only("use_mems_train", false, "rows are learned without those before them");
  // Of memories, which nobody hands in, and of attn_type uni.
  reader.accept({"mem_len", "reuse_len", "use_mems_eval", "same_length"});
}

void read_summary(ConfigReader& reader, Config& config) {
  config.summary = reader.text("summary_type", "last");
  if (config.summary != "last" && config.summary != "first" && config.summary != "cls_index") {
    reader.refuse("summary_type",
                  "must be last, first or cls_index (which is as last, where no place is given)");
  }
  reader.only("summary_use_proj", true, "what is classified goes through a layer");
  reader.only("summary_proj_to_labels", false, "that layer gives as many features as it takes");
  const bool none = reader.null("summary_activation");
  config.summary_activation_name = none ? "" : reader.text("summary_activation", "tanh");
  if (!config.summary_activation_name.empty()) {
    config.summary_activation =
        read_activation(reader, "summary_activation", config.summary_activation_name, ", or empty");
  }
  config.summary_first_dropout = reader.number("summary_first_dropout", 0, 0, 1);
  config.summary_last_dropout = reader.number("summary_last_dropout", 0.1, 0, 1);
}

}  // namespace

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "xlnet";
  ConfigReader reader(object, "xlnet");
  read_sizes(reader, *config);
  read_distances(reader, *config);
  read_summary(reader, *config);
  config->activation_name = reader.text("ff_activation", "gelu");
  config->activation = read_activation(reader, "ff_activation", config->activation_name);
  config->set_dropout(reader.number("dropout", 0.1, 0, 1));
  config->epsilon = reader.number("layer_norm_eps", 1e-12, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  refuse_beyond_count(reader, *config, {"d_model", "hidden_size"});
  read_token_ids(reader, *config, {.bos = 1, .eos = 2, .pad = 5});
  reader.only("tie_word_embeddings", true,
              "a predicted token's logits use the table of embeddings");
  reader.only("is_decoder", false, "the family is an encoder");
  refuse_what_changes_the_model(reader, "xlnet");
  reader.accept({"start_n_top", "end_n_top"});  // of a search for answers
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  nlohmann::json json = {
      {"model_type", "xlnet"},
      {"vocab_size", config.vocabulary},
      {"d_model", config.hidden},
      {"n_layer", config.layers},
      {"n_head", config.heads},
      {"d_head", config.head_features},
      {"d_inner", config.inner},
      {"ff_activation", config.activation_name},
      {"attn_type", "bi"},
      {"bi_data", false},
      {"untie_r", true},
      {"clamp_len", config.distance_max},
      {"dropout", config.dropout},
      {"layer_norm_eps", config.epsilon},
      {"initializer_range", config.initializer_range},
      {"summary_type", config.summary},
      {"summary_use_proj", true},
      {"summary_activation", config.summary_activation_name},
      {"summary_first_dropout", config.summary_first_dropout},
      {"summary_last_dropout", config.summary_last_dropout},
      {"tie_word_embeddings", true},
      {"torch_dtype", "float32"},
  };
  write_head(json, config, head, "XLNet", "XLNetLMHeadModel");
  return json.dump(2) + "\n";
}

}  // namespace weft::xlnet
