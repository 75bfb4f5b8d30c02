#include "worker/models/gpt2_config.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include "proto/json/parse.h"
#include "worker/models/config_reader.h"

namespace weft::gpt2 {
namespace {

constexpr int64_t kExtentMax = (int64_t{1} << 31) - 1;

constexpr std::array<std::pair<std::string_view, ops::Activation>, 8> kActivations{{
    {"gelu_new", ops::Activation::kGeluTanh},
    {"gelu_pytorch_tanh", ops::Activation::kGeluTanh},
    {"gelu_fast", ops::Activation::kGeluTanh},
    {"gelu", ops::Activation::kGeluErf},
    {"relu", ops::Activation::kRelu},
    {"silu", ops::Activation::kSilu},
    {"swish", ops::Activation::kSilu},
    {"tanh", ops::Activation::kTanh},
}};

void read_activation(ConfigReader& reader, Config& config) {
  config.activation_name = reader.text("activation_function", "gelu_new");
  std::string known;
  for (const auto& [name, kind] : kActivations) {
    if (name == config.activation_name) {
      config.activation = kind;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  reader.refuse("activation_function", "must be one of " + known);
}

void read_sizes(ConfigReader& reader, Config& config) {
  config.vocabulary = reader.integer({"vocab_size"}, 50257, 1, kExtentMax);
  config.positions =
      reader.integer({"n_positions", "max_position_embeddings", "n_ctx"}, 1024, 1, kExtentMax);
  config.hidden = reader.integer({"n_embd", "hidden_size"}, 768, 1, kExtentMax);
  config.layers = reader.integer({"n_layer", "num_hidden_layers"}, 12, 1, 100000);
  config.heads = reader.integer({"n_head", "num_attention_heads"}, 12, 1, kExtentMax);
  config.key_heads = config.heads;
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

// What has no influence on what is computed: how transformers was run, generation, other heads.
void accept_the_rest(ConfigReader& reader) {
  reader.accept({"architectures",
                 "transformers_version",
                 "task_specific_params",
                 "use_cache",
                 "summary_type",
                 "summary_use_proj",
                 "summary_activation",
                 "summary_proj_to_labels",
                 "summary_first_dropout",
                 "id2label",
                 "label2id",
                 "num_labels",
                 "_num_labels",
                 "name_or_path",
                 "_name_or_path",
                 "tokenizer_class",
                 "prefix",
                 "finetuning_task",
                 "output_hidden_states",
                 "output_attentions",
                 "output_past",
                 "return_dict",
                 "gradient_checkpointing",
                 "chunk_size_feed_forward",
                 "is_decoder",
                 "attn_implementation",
                 "_attn_implementation",
                 "_attn_implementation_autoset",
                 "torchscript",
                 "tf_legacy_loss",
                 "sep_token_id",
                 "decoder_start_token_id"});
  reader.accept({"max_length",
                 "min_length",
                 "do_sample",
                 "early_stopping",
                 "num_beams",
                 "num_beam_groups",
                 "diversity_penalty",
                 "temperature",
                 "top_k",
                 "top_p",
                 "typical_p",
                 "repetition_penalty",
                 "length_penalty",
                 "no_repeat_ngram_size",
                 "encoder_no_repeat_ngram_size",
                 "bad_words_ids",
                 "num_return_sequences",
                 "output_scores",
                 "return_dict_in_generate",
                 "forced_bos_token_id",
                 "forced_eos_token_id",
                 "remove_invalid_values",
                 "suppress_tokens",
                 "begin_suppress_tokens",
                 "exponential_decay_length_penalty"});
}

void refuse_what_changes_the_model(ConfigReader& reader) {
  reader.only("model_type", "gpt2", "this is the gpt2 family");
  reader.only("add_cross_attention", false, "there is no encoder to attend to");
  reader.only("cross_attention_hidden_size", nullptr, "there is no encoder to attend to");
  reader.only("is_encoder_decoder", false, "the family has no encoder");
  reader.only("tie_encoder_decoder", false, "the family has no encoder");
  reader.only("pruned_heads", nlohmann::json::object(), "heads are not pruned");
  reader.only("use_bfloat16", false, "the arithmetic is training.precision's choice");
  reader.only("quantization_config", nullptr, "quantized weights cannot be trained");
  reader.only("auto_map", nullptr, "code that comes with a model is not run");
  reader.only("problem_type", "single_label_classification",
              "a sequence has one label, of which the cross-entropy is taken");
  // The type of the stored weights; safetensors says so itself.
  for (const char* name : {"dtype", "torch_dtype"}) {
    const std::string dtype = reader.has(name) ? reader.text(name, "float32") : "float32";
    if (dtype != "float32" && dtype != "float16" && dtype != "bfloat16" && dtype != "float64") {
      reader.refuse(name, "must be float32, float64, float16 or bfloat16");
    }
  }
}

}  // namespace

double Config::score_scale(int64_t layer) const {
  double scale = scale_by_head_size ? 1.0 / std::sqrt(static_cast<double>(head_features())) : 1.0;
  if (scale_by_layer) scale /= static_cast<double>(layer + 1);
  return scale;
}

Result<std::shared_ptr<const Config>> parse_config(std::string_view json) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json object, parse_strict(json));
  auto config = std::make_shared<Config>();
  config->family = "gpt2";
  ConfigReader reader(object, "gpt2");
  read_sizes(reader, *config);
  read_activation(reader, *config);
  config->residual_dropout = reader.number("resid_pdrop", 0.1, 0, 1);
  config->embedding_dropout = reader.number("embd_pdrop", 0.1, 0, 1);
  config->attention_dropout = reader.number("attn_pdrop", 0.1, 0, 1);
  config->epsilon = reader.number("layer_norm_epsilon", 1e-5, 0, 1);
  config->initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  config->scale_by_head_size = reader.flag("scale_attn_weights", true);
  config->scale_by_layer = reader.flag("scale_attn_by_inverse_layer_idx", false);
  config->reorder_and_upcast = reader.flag("reorder_and_upcast_attn", false);
  config->tied = reader.flag("tie_word_embeddings", true);
  config->bos_token_id = reader.optional_integer("bos_token_id");
  config->eos_token_id = reader.optional_integer("eos_token_id");
  config->pad_token_id = reader.optional_integer("pad_token_id");
  // GPT-2's own vocabulary ends with its one special token.
  if (!reader.has("bos_token_id") && config->vocabulary > 50256) config->bos_token_id = 50256;
  if (!reader.has("eos_token_id") && config->vocabulary > 50256) config->eos_token_id = 50256;
  refuse_what_changes_the_model(reader);
  accept_the_rest(reader);
  WEFT_RETURN_IF_ERROR(reader.finish());
  return config;
}

std::string config_json(const Config& config, const ExportHead& head) {
  const auto id = [](const std::optional<int64_t>& value) {
    return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
  };
  nlohmann::json json = {
      {"model_type", "gpt2"},
      {"architectures", {head.labels > 0 ? "GPT2ForSequenceClassification" : "GPT2LMHeadModel"}},
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
      {"bos_token_id", id(config.bos_token_id)},
      {"eos_token_id", id(config.eos_token_id)},
      {"pad_token_id", id(config.pad_token_id ? config.pad_token_id : head.pad_token_id)},
      {"torch_dtype", "float32"},
  };
  if (head.labels > 0) {
    json["problem_type"] = "single_label_classification";
    for (int64_t i = 0; i < head.labels; ++i) {
      const auto index = static_cast<size_t>(i);
      const std::string name =
          index < head.label_names.size() ? head.label_names[index] : fmt::format("LABEL_{}", i);
      json["id2label"][std::to_string(i)] = name;
      json["label2id"][name] = i;
    }
  }
  return json.dump(2) + "\n";
}

}  // namespace weft::gpt2
