#include "worker/models/common_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace weft {
namespace {

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

nlohmann::json id_or_null(const std::optional<int64_t>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

nlohmann::json ids_or_null(const std::vector<int64_t>& values) {
  if (values.empty()) return nullptr;
  return values.size() == 1 ? nlohmann::json(values.front()) : nlohmann::json(values);
}

void write_token_ids(nlohmann::json& json, const ModelConfig& config, const ExportHead& head) {
  const std::vector<int64_t>& ends = config.eos_token_ids;
  const bool other = head.end_of_text && std::ranges::find(ends, *head.end_of_text) == ends.end();
  json["bos_token_id"] = id_or_null(other ? head.end_of_text : config.bos_token_id);
  json["eos_token_id"] = other ? nlohmann::json(*head.end_of_text) : ids_or_null(ends);
  json["pad_token_id"] = id_or_null(config.pad_token_id ? config.pad_token_id : head.end_of_text);
}

}  // namespace

double matrix_elements(const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden);
  const bool embedded = !config.rotary && config.distances == 0 && !config.relative;
  const int64_t of_distances = config.relative ? config.heads : 0;
  const double heads = static_cast<double>(2 * (config.heads + config.key_heads) + of_distances) *
                       static_cast<double>(config.head_features);
  const double inner = (config.gated ? 3 : 2) * static_cast<double>(config.inner);
  const double tables = static_cast<double>(config.vocabulary) * (config.tied ? 1 : 2) +
                        (embedded ? static_cast<double>(config.positions) : 0) +
                        static_cast<double>(config.token_types) +
                        static_cast<double>(config.image.values());
  return hidden * (static_cast<double>(config.layers) * (heads + inner) + tables);
}

void refuse_beyond_count(ConfigReader& reader, const ModelConfig& config,
                         std::initializer_list<const char*> names) {
  const double count = matrix_elements(config);
  if (count <= static_cast<double>(kParametersMax)) return;
  const auto there =
      std::ranges::find_if(names, [&](const char* name) { return reader.has(name); });
  reader.refuse(there == names.end() ? *names.begin() : *there,
                fmt::format("must leave the model at most {:.3g} parameters; it would have {:.3g}",
                            static_cast<double>(kParametersMax), count));
}

ops::Activation read_activation(ConfigReader& reader, const char* key, const std::string& name,
                                const char* more) {
  std::string known;
  for (const auto& [known_name, kind] : kActivations) {
    if (known_name == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(known_name);
  }
  reader.refuse(key, "must be one of " + known + more);
  return kActivations.front().second;
}

void read_token_ids(ConfigReader& reader, ModelConfig& config, const OwnTokens& own) {
  const auto outside = [&](int64_t id) { return id < 0 || id >= config.vocabulary; };
  const auto known = [&](const char* name, std::vector<int64_t> ids) {
    const auto wrong = [&](int64_t id) {
      return outside(id) && id != -1 && id != own.bos && id != own.eos;
    };
    if (std::ranges::any_of(ids, wrong)) {
      reader.refuse(name, fmt::format("must be of the vocabulary, from 0 to {} as vocab_size says; "
                                      "null or -1 where the model has none",
                                      config.vocabulary - 1));
    }
    std::erase_if(ids, outside);
    return ids;
  };
  const auto one = [&](const char* name, std::optional<int64_t> absent) {
    const auto id = reader.has(name) ? reader.optional_integer(name) : absent;
    const std::vector<int64_t> ids =
        known(name, id ? std::vector<int64_t>{*id} : std::vector<int64_t>{});
    return ids.empty() ? std::nullopt : std::optional(ids.front());
  };
  config.bos_token_id = one("bos_token_id", own.bos);
  config.pad_token_id = one("pad_token_id", own.pad);
  config.eos_token_ids =
      known("eos_token_id", reader.has("eos_token_id") ? reader.integers("eos_token_id")
                                                       : std::vector<int64_t>{own.eos});
}

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
                 "decoder_start_token_id",
                 "unsloth_fixed",
                 "unsloth_version"});
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

void refuse_what_changes_the_model(ConfigReader& reader, const std::string& family,
                                   bool encodes_and_decodes) {
  reader.only("model_type", family, "this is the " + family + " family");
  reader.only("add_cross_attention", false, "there is no other model to attend to");
  reader.only("cross_attention_hidden_size", nullptr, "there is no other model to attend to");
  reader.only("is_encoder_decoder", encodes_and_decodes,
              encodes_and_decodes ? "the family is an encoder and a decoder"
                                  : "the family is a single stack of blocks");
  reader.only("tie_encoder_decoder", false, "the stacks of blocks are not one");
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

void write_head(nlohmann::json& json, const ModelConfig& config, const ExportHead& head,
                const std::string& prefix, const std::string& language_model) {
  const char* classes = head.classes == HeadKind::kToken    ? "ForTokenClassification"
                        : head.classes == HeadKind::kChoice ? "ForMultipleChoice"
                        : head.classes == HeadKind::kSpan   ? "ForQuestionAnswering"
                        : head.classes == HeadKind::kImage  ? "ForImageClassification"
                                                            : "ForSequenceClassification";
  json["architectures"] = nlohmann::json::array({head.none         ? prefix + "Model"
                                                 : head.labels > 0 ? prefix + classes
                                                                   : language_model});
  if (config.vocabulary > 0) write_token_ids(json, config, head);
  const bool named = head.classes != HeadKind::kChoice && head.classes != HeadKind::kSpan;
  if (head.labels > 0 && named) {
    if (head.classes != HeadKind::kToken) json["problem_type"] = "single_label_classification";
    for (int64_t i = 0; i < head.labels; ++i) {
      const auto index = static_cast<size_t>(i);
      const std::string name =
          index < head.label_names.size() ? head.label_names[index] : fmt::format("LABEL_{}", i);
      json["id2label"][std::to_string(i)] = name;
      json["label2id"][name] = i;
    }
  }
}

}  // namespace weft
