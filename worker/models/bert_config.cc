#include "worker/models/bert_config.h"

#include <fmt/format.h>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::bert {
namespace {

constexpr double kSequenceDropout = 0.2, kAnswerDropout = 0.1;  // of a distilled one

void read_sizes(ConfigReader& reader, const Dialect& dialect, Config& config) {
  const Keys& keys = dialect.keys;
  config.vocabulary = reader.integer({"vocab_size"}, dialect.vocabulary, 1, kExtentMax);
  config.positions = reader.integer({"max_position_embeddings"}, 512, 1, kExtentMax);
  config.hidden = reader.integer({keys.hidden, "hidden_size"}, 768, 1, kExtentMax);
  config.layers = reader.integer({keys.layers, "num_hidden_layers"}, dialect.layers, 1, 100000);
  config.heads = reader.integer({keys.heads, "num_attention_heads"}, 12, 1, kExtentMax);
  config.inner = reader.integer({keys.inner}, 3072, 1, kExtentMax);
  config.key_heads = config.heads;
  config.head_features = config.hidden / config.heads;
  if (dialect.token_types) {
    config.token_types = reader.integer({"type_vocab_size"}, 2, 1, kExtentMax);
  }
  if (config.hidden % config.heads != 0) {
    reader.refuse(reader.has("num_attention_heads") ? "num_attention_heads" : keys.heads,
                  fmt::format("must divide {}, which is {}", keys.hidden, config.hidden));
  }
}

void read_dropout(ConfigReader& reader, const Dialect& dialect, Config& config) {
  config.dropout = reader.number(dialect.keys.dropout, 0.1, 0, 1);
  config.attention_dropout = reader.number(dialect.keys.attention_dropout, 0.1, 0, 1);
  if (dialect.distilled) {
    config.classifier_dropout = reader.number("seq_classif_dropout", kSequenceDropout, 0, 1);
    config.answer_dropout = reader.number("qa_dropout", kAnswerDropout, 0, 1);
  } else {
    config.classifier_dropout = reader.optional_number("classifier_dropout", 0, 1);
  }
}

// Rows of the table of positions that no token has.
void read_positions(ConfigReader& reader, const Dialect& dialect, Config& config) {
  config.positions_skip_padding = dialect.positions_skip_padding;
  if (!config.positions_skip_padding) return;
  if (!config.pad_token_id) {
    config.pad_token_id = 0;
    reader.refuse("pad_token_id", "must be a token: positions count the others, from it on");
  }
  if (config.tokens_max() < 1) {
    reader.refuse("max_position_embeddings",
                  fmt::format("must be at least {}: positions count from pad_token_id + 1 on",
                              *config.pad_token_id + 2));
  }
}

void refuse_what_encoders_lack(ConfigReader& reader, const Dialect& dialect) {
  reader.only("is_decoder", false, "the family is an encoder");
  reader.only("tie_word_embeddings", true, "a masked token's logits use the table of embeddings");
  if (dialect.distilled) {
    reader.only("sinusoidal_pos_embds", false, "positions are learned");
    reader.accept({"tie_weights_"});
  } else {
    reader.only("position_embedding_type", "absolute", "relative positions are not computed");
    // Of the files of old multilingual models; transformers passes over them.
    reader.accept({"directionality", "pooler_fc_size", "pooler_num_attention_heads",
                   "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"});
  }
}

}  // namespace

Result<std::shared_ptr<const Config>> parse_config(const Dialect& dialect, std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  const std::string family(dialect.name);
  auto config = std::make_shared<Config>();
  config->family = family;
  ConfigReader reader(object, family);
  read_sizes(reader, dialect, *config);
  read_dropout(reader, dialect, *config);
  const char* activation = dialect.keys.activation;
  config->activation_name = reader.text(activation, "gelu");
  config->activation = read_activation(reader, activation, config->activation_name);
  if (!dialect.distilled) config->epsilon = reader.number("layer_norm_eps", 1e-12, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  refuse_beyond_count(reader, *config, {dialect.keys.hidden, "hidden_size"});
  read_token_ids(reader, *config, {.bos = dialect.bos, .eos = dialect.eos, .pad = dialect.pad});
  read_positions(reader, dialect, *config);
  refuse_what_encoders_lack(reader, dialect);
  refuse_what_changes_the_model(reader, family);
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Dialect& dialect, const Config& config, const ExportHead& head) {
  const std::string classes(dialect.classes);
  const Keys& keys = dialect.keys;
  nlohmann::json json = {
      {"model_type", dialect.name},
      {"vocab_size", config.vocabulary},
      {"max_position_embeddings", config.positions},
      {keys.hidden, config.hidden},
      {keys.layers, config.layers},
      {keys.heads, config.heads},
      {keys.inner, config.inner},
      {keys.activation, config.activation_name},
      {keys.dropout, config.dropout},
      {keys.attention_dropout, config.attention_dropout},
      {"initializer_range", config.initializer_range},
      {"tie_word_embeddings", true},
      {"torch_dtype", "float32"},
  };
  if (dialect.token_types) json["type_vocab_size"] = config.token_types;
  if (dialect.distilled) {
    json["seq_classif_dropout"] = config.classifier_dropout.value_or(kSequenceDropout);
    json["qa_dropout"] = config.answer_dropout;
    json["sinusoidal_pos_embds"] = false;
  } else {
    json["layer_norm_eps"] = config.epsilon;
    json["classifier_dropout"] = config.classifier_dropout
                                     ? nlohmann::json(*config.classifier_dropout)
                                     : nlohmann::json(nullptr);
    json["position_embedding_type"] = "absolute";
    json["is_decoder"] = json["add_cross_attention"] = false;
  }
  write_head(json, config, head, classes, classes + "ForMaskedLM");
  return json.dump(2) + "\n";
}

}  // namespace weft::bert
