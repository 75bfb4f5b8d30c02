#include "worker/models/whisper_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/json/parse.h"
#include "worker/models/common_config.h"

namespace weft::whisper {
namespace {

constexpr int64_t kLayersMax = 100000;
constexpr int64_t kPositionsMax = 1 << 24;
constexpr int64_t kBinsMax = 1 << 14;
constexpr int64_t kOwnToken = 50256;  // that ends, begins and fills up where nothing says another

void read_sizes(ConfigReader& reader, Config& config) {
  config.vocabulary = reader.integer({"vocab_size"}, 51865, 1, kExtentMax);
  config.hidden = reader.integer({"d_model", "hidden_size"}, 384, 1, kExtentMax);
  config.heads = reader.integer(
      {"encoder_attention_heads", "num_attention_heads", "num_key_value_heads"}, 6, 1, kExtentMax);
  config.key_heads = config.heads;
  config.head_features = config.hidden / config.heads;
  config.inner = reader.integer({"encoder_ffn_dim"}, 1536, 1, kExtentMax);
  const int64_t encoder = reader.integer({"encoder_layers", "num_hidden_layers"}, 4, 1, kLayersMax);
  config.set_layers(encoder, reader.integer({"decoder_layers"}, 4, 1, kLayersMax));
  if (config.hidden % config.heads != 0) {
    reader.refuse("encoder_attention_heads",
                  fmt::format("must divide d_model, which is {}", config.hidden));
  }
  if (config.hidden % 2 != 0 || config.hidden < 4) {
    reader.refuse(reader.has("d_model") ? "d_model" : "hidden_size",
                  "must be even and at least 4: half of a position's features are sines of it, "
                  "half cosines");
  }
  // Both stacks have blocks of one size, in all that was published.
  const int64_t heads = reader.integer({"decoder_attention_heads"}, 6, 1, kExtentMax);
  if (heads != config.heads) {
    reader.refuse("decoder_attention_heads",
                  fmt::format("must be encoder_attention_heads, which is {}", config.heads));
  }
  const int64_t inner = reader.integer({"decoder_ffn_dim"}, 1536, 1, kExtentMax);
  if (inner != config.inner) {
    reader.refuse("decoder_ffn_dim",
                  fmt::format("must be encoder_ffn_dim, which is {}", config.inner));
  }
}

void read_positions(ConfigReader& reader, Config& config) {
  config.audio.mel_bins = reader.integer({"num_mel_bins"}, 80, 1, kBinsMax);
  config.audio.tokens = reader.integer({"max_source_positions"}, 1500, 1, kPositionsMax);
  config.positions = config.audio.tokens;
  config.target_positions = reader.integer({"max_target_positions"}, 448, 1, kPositionsMax);
}

std::vector<int64_t> known(std::vector<int64_t> ids, const Config& config) {
  std::erase_if(ids, [&](int64_t id) { return id < 0 || id >= config.vocabulary; });
  return ids;
}

void read_tokens(ConfigReader& reader, Config& config) {
  read_token_ids(reader, config, {.bos = kOwnToken, .eos = kOwnToken, .pad = kOwnToken});
  const int64_t start = reader.optional_integer("decoder_start_token_id").value_or(kOwnToken + 1);
  if (start < 0 || start >= config.vocabulary) {
    reader.refuse("decoder_start_token_id",
                  fmt::format("must be of the vocabulary, from 0 to {} as vocab_size says",
                              config.vocabulary - 1));
  }
  config.decoder_start_token_id = std::clamp<int64_t>(start, 0, config.vocabulary - 1);
  config.suppressed = known(reader.integers("suppress_tokens"), config);
  config.suppressed_first =
      known(reader.has("begin_suppress_tokens") ? reader.integers("begin_suppress_tokens")
                                                : std::vector<int64_t>{220, kOwnToken},
            config);
}

void read_dropout(ConfigReader& reader, Config& config) {
  config.dropout = reader.number("dropout", 0, 0, 1);
  config.attention_dropout = reader.number("attention_dropout", 0, 0, 1);
  config.activation_dropout = reader.number("activation_dropout", 0, 0, 1);
  for (const char* name : {"encoder_layerdrop", "decoder_layerdrop"}) {
    if (reader.number(name, 0, 0, 1) != 0) reader.refuse(name, "must be 0: no block is left out");
  }
  reader.only("apply_spec_augment", false, "features are not masked");
  // Of no effect without it.
  reader.accept({"mask_time_prob", "mask_time_length", "mask_time_min_masks", "mask_feature_prob",
                 "mask_feature_length", "mask_feature_min_masks"});
}

nlohmann::json ids_or_null(const std::vector<int64_t>& ids) {
  return ids.empty() ? nlohmann::json(nullptr) : nlohmann::json(ids);
}

}  // namespace

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "whisper";
  ConfigReader reader(object, "whisper");
  read_sizes(reader, *config);
  read_positions(reader, *config);
  read_tokens(reader, *config);
  read_dropout(reader, *config);
  config->activation_name = reader.text("activation_function", "gelu");
  config->activation = read_activation(reader, "activation_function", config->activation_name);
  config->initializer_range = reader.number("init_std", 0.02, 0, 1000);
  config->scale_embedding = reader.flag("scale_embedding", false);
  config->tied = reader.flag("tie_word_embeddings", true);
  refuse_beyond_count(reader, *config, {"d_model", "hidden_size"});
  refuse_what_changes_the_model(reader, "whisper", /*encodes_and_decodes=*/true);
  reader.only("is_decoder", false, "the family is an encoder and a decoder");
  // Of a classification of recordings, and of how transformers writes and tells times.
  reader.accept({"use_weighted_layer_sum", "classifier_proj_size", "median_filter_width",
                 "forced_decoder_ids", "alignment_heads"});
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  nlohmann::json json = {
      {"model_type", "whisper"},
      {"vocab_size", config.vocabulary},
      {"num_mel_bins", config.audio.mel_bins},
      {"d_model", config.hidden},
      {"encoder_layers", config.encoder_layers},
      {"decoder_layers", config.decoder_layers()},
      {"encoder_attention_heads", config.heads},
      {"decoder_attention_heads", config.heads},
      {"encoder_ffn_dim", config.inner},
      {"decoder_ffn_dim", config.inner},
      {"max_source_positions", config.audio.tokens},
      {"max_target_positions", config.target_positions},
      {"activation_function", config.activation_name},
      {"dropout", config.dropout},
      {"attention_dropout", config.attention_dropout},
      {"activation_dropout", config.activation_dropout},
      {"init_std", config.initializer_range},
      {"scale_embedding", config.scale_embedding},
      {"decoder_start_token_id", config.decoder_start_token_id},
      {"suppress_tokens", ids_or_null(config.suppressed)},
      {"begin_suppress_tokens", ids_or_null(config.suppressed_first)},
      {"tie_word_embeddings", config.tied},
      {"is_encoder_decoder", true},
      {"torch_dtype", "float32"},
  };
  write_head(json, config, head, "Whisper", "WhisperForConditionalGeneration");
  return json.dump(2) + "\n";
}

}  // namespace weft::whisper
