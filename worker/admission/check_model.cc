#include "worker/admission/check_model.h"

#include <google/protobuf/struct.pb.h>

#include <algorithm>
#include <map>
#include <set>

#include "proto/checkpoint.pb.h"
#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "worker/admission/check_blocks.h"
#include "worker/admission/check_relative.h"
#include "worker/admission/check_sizes.h"
#include "worker/admission/shards.h"
#include "worker/checkpoint/safetensors_header.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/models/audio_layout.h"
#include "worker/models/hf_folder.h"
#include "worker/models/image_layout.h"
#include "worker/models/learned_tasks.h"

namespace weft {
namespace {

constexpr int64_t kConfigBytesMax = 1 << 20;
constexpr int64_t kIndexBytesMax = 64 << 20;
constexpr int64_t kTokenizerBytesMax = 256 << 20;
constexpr const char* kSingleFile = "model.safetensors";

using Model = AdmittedModel;

// An error of something inside the input that `field` names: "model.from: model.safetensors:
// wte.weight must be F32", of the value "model.safetensors: wte.weight I32".
Status inside(const std::string& field, const std::string& where, const Status& status) {
  if (status.code() == Code::kUnavailable) return status.with_prefix(field + ": ");
  std::string value = where;
  if (!status.field().empty()) value += ": " + status.field();
  if (!status.value().empty()) value += (status.field().empty() ? ": " : " ") + status.value();
  std::string rule = status.message();
  if (!status.rule().empty()) rule = status.rule();
  return Status(Code::kInvalidArgument, field + ": " + where + ": " + status.message())
      .with_field(field)
      .with_value(value)
      .with_rule(rule);
}

Result<Model> read_config(const std::string& text) {
  Model model;
  WEFT_ASSIGN_OR_RETURN(const std::string name, family_of_config(text));
  model.family = find_family(name);
  WEFT_ASSIGN_OR_RETURN(model.config, model.family->parse_config(text));
  return model;
}

// The model of a family's name and a configuration's struct (job files, manifests).
Result<Model> read_described(const std::string& family, const google::protobuf::Struct& config) {
  Model model;
  model.family = find_family(family);
  if (model.family == nullptr) {
    return fail(Status::invalid("family", family, "must be one of " + known_families()));
  }
  WEFT_ASSIGN_OR_RETURN(model.config, model.family->parse_config(struct_to_json(config)));
  return model;
}

// The names of the weights' files: of model.safetensors alone, or of the index.
Result<std::vector<std::string>> weight_files(const InputFiles& files) {
  if (files.size(kSingleFile)) return std::vector<std::string>{kSingleFile};
  const std::string index = checkpoint::kSafetensorsIndexName;
  if (!files.size(index)) {
    return fail(Status::invalid("model.from", "neither",
                                "must hold " + std::string(kSingleFile) + " or " + index));
  }
  auto text = read_whole(files, index, kIndexBytesMax);
  if (!text) return fail(inside("model.from", index, text.error()));
  const auto map = checkpoint::parse_safetensors_index(*text, index);
  if (!map) return fail(inside("model.from", index, map.error()));
  std::set<std::string> names;
  for (const auto& [tensor, file] : *map) names.insert(file);
  return std::vector<std::string>(names.begin(), names.end());
}

Result<checkpoint::SafetensorsHeader> read_header(const InputFiles& files,
                                                  const std::string& name) {
  const auto size = files.size(name);
  if (!size) return fail(Code::kInvalidArgument, "the folder has no such file");
  std::string first;
  if (*size >= 8) {
    WEFT_ASSIGN_OR_RETURN(first, files.read(name, 0, 8));
  }
  WEFT_ASSIGN_OR_RETURN(const int64_t length, checkpoint::safetensors_header_bytes(first, *size));
  WEFT_ASSIGN_OR_RETURN(const std::string text, files.read(name, 8, length));
  return checkpoint::parse_safetensors_header(text, *size - 8 - length);
}

// Every parameter of the configuration is in the files, as it has to be, and nothing else is.
Status check_weights(const proto::JobSpec& spec, const Model& model, const InputFiles& files) {
  std::map<std::string, SafetensorInfo> tensors;
  std::map<std::string, std::string> file_of;
  WEFT_ASSIGN_OR_RETURN(const auto names, weight_files(files));
  for (const std::string& name : names) {
    auto header = read_header(files, name);
    if (!header) return inside("model.from", name, header.error());
    for (auto& [tensor, info] : header->tensors) {
      if (const auto [at, fresh] = file_of.emplace(tensor, name); !fresh) {
        return Status::invalid(
            "model.from", name + ": " + tensor,
            "must hold a tensor once; this one stands in " + at->second + " too");
      }
      tensors[tensor] = std::move(info);
    }
  }
  std::vector<std::string> all;
  for (const auto& [tensor, file] : file_of) all.push_back(tensor);
  const auto plan = model.family->plan(*model.config, 1, 0);
  const auto matched = match_weights(*model.family, *model.config, plan, all,
                                     [&](const std::string& tensor) -> const SafetensorInfo* {
                                       auto it = tensors.find(tensor);
                                       return it == tensors.end() ? nullptr : &it->second;
                                     });
  if (matched) {
    const auto absent = std::ranges::find(*matched, nullptr);
    if (absent == matched->end() || !spec.has_adapter() || !models_language(spec)) return {};
    return Status::invalid("model.from",
                           "without " + plan[static_cast<size_t>(absent - matched->begin())].name,
                           kFrozenHeadRule);
  }
  auto file = file_of.find(matched.error().field());
  const std::string where = file == file_of.end() ? kSingleFile : file->second;
  return inside("model.from", where, matched.error());
}

Status check_manifest(const Model& model, const proto::CheckpointManifest& base) {
  std::map<std::string, const proto::TensorEntry*> weights;
  for (const auto& tensor : base.tensors()) {
    if (tensor.role() == proto::TENSOR_ROLE_WEIGHT) weights[tensor.name()] = &tensor;
  }
  for (const ParameterInfo& info : model.family->plan(*model.config, 1, 0)) {
    auto it = weights.find(info.name);
    if (it != weights.end() && std::ranges::equal(it->second->shape(), info.shape.extents())) {
      continue;
    }
    return Status::invalid(
        "model.from", base.id() + ": " + info.name,
        "must be a checkpoint that holds it with the shape " + info.shape.to_string());
  }
  return {};
}

Result<Model> find_model(const proto::JobSpec& spec, const ModelInputs& inputs) {
  if (inputs.model != nullptr) {
    const auto text = read_whole(*inputs.model, "config.json", kConfigBytesMax);
    if (!text) {
      return fail(text.error().code() == Code::kNotFound
                      ? Status::invalid("model.from", spec.model().from(),
                                        "must hold config.json: it is no Hugging Face folder")
                      : inside("model.from", "config.json", text.error()));
    }
    auto model = read_config(*text);
    if (!model) return fail(inside("model.from", "config.json", model.error()));
    WEFT_RETURN_IF_ERROR(check_weights(spec, *model, *inputs.model));
    return model;
  }
  if (inputs.base != nullptr) {
    auto model = read_described(inputs.base->family(), inputs.base->config());
    if (!model) return fail(inside("model.from", inputs.base->id(), model.error()));
    WEFT_RETURN_IF_ERROR(check_manifest(*model, *inputs.base));
    return model;
  }
  if (!spec.model().has_config()) return Model();
  auto model = read_described(spec.model().family(), spec.model().config());
  if (model) return model;
  const Status& status = model.error();
  const bool key = status.field() != "family";
  return fail(Status::invalid((key ? "model.config." : "model.") + status.field(), status.value(),
                              status.rule()));
}

// The tokenizer's json among the files of an input: tokenizer.json, or the only file.
std::string tokenizer_name(const InputFiles& files) {
  const auto names = files.names();
  return names.size() == 1 ? names.front() : "tokenizer.json";
}

bool masks(const proto::JobSpec& spec) {
  return std::ranges::any_of(
      spec.tasks(), [](const auto& task) { return task.type() == proto::TASK_TYPE_MASKED_LM; });
}

Status check_makes_pairs(const proto::TaskSpec& task, const std::string& field,
                         const std::string& name, const Tokenizer& tokenizer) {
  if (!tokenizer.pair_pieces().empty()) return {};
  return Status::invalid(field, name,
                         "must have a post_processor that makes one row of two texts for " +
                             task_type_name(task) + ", as that of an encoder does");
}

// What rows of two texts need of a tokenizer: that it makes them, and room for a token of each.
Status check_pairs(const proto::JobSpec& spec, const std::string& field, const std::string& name,
                   const Tokenizer& tokenizer) {
  for (const proto::TaskSpec& task : spec.tasks()) {
    if (!task.data().has_text_pair() || embeds(task) || finds_answers(task)) continue;
    WEFT_RETURN_IF_ERROR(check_makes_pairs(task, field, name, tokenizer));
    const int64_t around = std::ssize(tokenizer.pair_pieces()) - 2;
    if (spec.training().sequence_length() >= around + 2) continue;
    return Status::invalid("training.sequence_length",
                           std::to_string(spec.training().sequence_length()),
                           "must exceed the " + std::to_string(around) +
                               " tokens that the tokenizer puts around two texts by 2");
  }
  return {};
}

// What questions need of a tokenizer: pairs, and room for more of a context than windows share.
Status check_questions(const proto::JobSpec& spec, const std::string& field,
                       const std::string& name, const Tokenizer& tokenizer) {
  for (int i = 0; i < spec.tasks_size(); ++i) {
    if (!finds_answers(spec.tasks(i))) continue;
    WEFT_RETURN_IF_ERROR(check_makes_pairs(spec.tasks(i), field, name, tokenizer));
    const int64_t around = std::ssize(tokenizer.pair_pieces()) - 2, least = 1;  // of a question
    const int64_t room = spec.training().sequence_length() - around - least;
    if (room < 1) {
      return Status::invalid(
          "training.sequence_length", std::to_string(spec.training().sequence_length()),
          "must be at least " + std::to_string(around + least + 1) +
              " for a question_answering: the tokenizer puts " + std::to_string(around) +
              " tokens around a question and its context, of each of which a "
              "window has one at least");
    }
    const int64_t stride = spec.tasks(i).data().stride();
    if (stride < room) continue;
    return Status::invalid("tasks[" + std::to_string(i) + "].data.stride", std::to_string(stride),
                           "must be below " + std::to_string(room) +
                               ", the tokens of a context for which training.sequence_length has "
                               "room beside the " +
                               std::to_string(around) +
                               " that the tokenizer puts around and a question's first");
  }
  return {};
}

// What the tasks need of a tokenizer: a mask token, and room for a text between what it puts
// around.
Status check_use(const proto::JobSpec& spec, const std::string& field, const std::string& name,
                 const Tokenizer& tokenizer) {
  if (masks(spec) && !tokenizer.mask_id()) {
    return Status::invalid(field, name + " without a mask token",
                           "must have one for masked_lm: mask_token in tokenizer_config.json");
  }
  WEFT_RETURN_IF_ERROR(check_pairs(spec, field, name, tokenizer));
  WEFT_RETURN_IF_ERROR(check_questions(spec, field, name, tokenizer));
  if (writes_targets(spec) && !tokenizer.eos_id() && tokenizer.suffix_ids().empty()) {
    return Status::invalid(field, name + " without an end of text",
                           "must have one for " + task_type_name(spec.tasks(0)) +
                               ", as what is written has an end: eos_token in "
                               "tokenizer_config.json");
  }
  const bool puts_around = std::ranges::any_of(spec.tasks(), [](const auto& task) {
    return task.type() != proto::TASK_TYPE_CAUSAL_LM && !hears(task);
  });
  const int64_t around = std::ssize(tokenizer.prefix_ids()) + std::ssize(tokenizer.suffix_ids());
  const int64_t of_target = tokens_around_target(tokenizer);
  const auto too_short = [](const char* field, int64_t length, int64_t others) {
    return Status::invalid(field, std::to_string(length),
                           "must exceed the " + std::to_string(others) +
                               " tokens that the tokenizer puts around a text");
  };
  if (writes_targets(spec) && spec.training().target_length() <= of_target) {
    return too_short("training.target_length", spec.training().target_length(), of_target);
  }
  if (!puts_around || spec.training().sequence_length() > around) return {};
  return too_short("training.sequence_length", spec.training().sequence_length(), around);
}

Status check_tokenizer_files(const proto::JobSpec& spec, const std::string& field,
                             const InputFiles& files, const std::string& name, int64_t vocabulary) {
  if (!files.size(name)) {
    const bool sentencepiece = files.size(std::string(kSentencePieceFile)).has_value();
    return Status::invalid(field, "a folder without it",
                           "must hold tokenizer.json; it has " + no_tokenizer_json(sentencepiece));
  }
  auto json = read_whole(files, name, kTokenizerBytesMax);
  if (!json) return inside(field, name, json.error());
  std::string beside;
  if (files.size("tokenizer_config.json")) {
    auto text = read_whole(files, "tokenizer_config.json", kConfigBytesMax);
    if (!text) return inside(field, "tokenizer_config.json", text.error());
    beside = std::move(*text);
  }
  const auto tokenizer = load_tokenizer_json(*json, beside);
  if (!tokenizer) return inside(field, name, tokenizer.error());
  if (vocabulary == 0 || (*tokenizer)->vocab_size() <= vocabulary) {
    return check_use(spec, field, name, **tokenizer);
  }
  return Status::invalid(
      field, name + " with " + std::to_string((*tokenizer)->vocab_size()) + " tokens",
      "must have at most the model's vocab_size = " + std::to_string(vocabulary));
}

// Whether the model's files have them.
template <typename Preprocessor, typename Layout>
Result<bool> check_settings(const InputFiles* files, const Layout& layout) {
  if (files == nullptr) return false;
  const FileText text_of = [&](std::string_view name) -> Result<std::optional<std::string>> {
    if (!files->size(std::string(name))) return std::optional<std::string>();
    WEFT_ASSIGN_OR_RETURN(std::string text, read_whole(*files, std::string(name), kConfigBytesMax));
    return std::optional(std::move(text));
  };
  std::string_view file;
  const auto found = find_settings<Preprocessor>(text_of, layout, file);
  if (!found) return fail(inside("model.from", std::string(file), found.error()));
  return found->has_value();
}

// Of a model of images, instead of a tokenizer.
Status check_preprocessor(const ModelInputs& inputs, const ModelConfig& config) {
  if (config.image.channels != 1 && config.image.channels != 3) {
    return Status::invalid("model.config.num_channels", std::to_string(config.image.channels),
                           "must be 1 or 3: files hold gray or colored images");
  }
  const auto given = check_settings<ImagePreprocessor>(inputs.model, layout_of(config.image));
  return given ? Status() : given.error();
}

// Of a model that hears, beside a tokenizer.
Status check_audio_preprocessor(const ModelInputs& inputs, const ModelConfig& config) {
  const AudioLayout layout = layout_of(config.audio);
  WEFT_ASSIGN_OR_RETURN(const bool given, check_settings<AudioPreprocessor>(inputs.model, layout));
  if (given || inputs.base != nullptr) return {};
  const auto usual = AudioPreprocessor::parse("{}", layout);
  return usual ? Status() : usual.error().with_prefix("model.config");
}

Status check_tokenizer(const proto::JobSpec& spec, const ModelInputs& inputs, int64_t vocabulary) {
  if (inputs.tokenizer != nullptr) {
    return check_tokenizer_files(spec, "tokenizer.from", *inputs.tokenizer,
                                 tokenizer_name(*inputs.tokenizer), vocabulary);
  }
  if (spec.tokenizer().type() == proto::TOKENIZER_TYPE_BYTE && masks(spec)) {
    return Status::invalid("tokenizer.type", "byte",
                           "must be another for masked_lm: bytes have no mask token");
  }
  if (spec.tokenizer().type() == proto::TOKENIZER_TYPE_BYTE) {
    return check_use(spec, "tokenizer.type", "byte", *make_byte_tokenizer());
  }
  if (spec.has_tokenizer() || inputs.model == nullptr) return {};
  if (inputs.model->size("tokenizer.json")) {
    return check_tokenizer_files(spec, "model.from", *inputs.model, "tokenizer.json", vocabulary);
  }
  const bool sentencepiece = inputs.model->size(std::string(kSentencePieceFile)).has_value();
  return Status::invalid("tokenizer", "absent",
                         "is required: the model's folder has " + no_tokenizer_json(sentencepiece) +
                             "; or give tokenizer.type or tokenizer.from");
}

// Parameters of a head begin with its task's name and a dot, those of no other do.
Status check_task_names(const proto::JobSpec& spec, const ModelFamily& family) {
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const std::string& name = spec.tasks(i).name();
    const std::string field = "tasks[" + std::to_string(i) + "].name";
    if (name + "." == family.prefix()) {
      return Status::invalid(field, name,
                             "must be another: names of the model's parameters begin with it");
    }
    for (const proto::TaskSpec& other : spec.tasks()) {
      if (!name.starts_with(other.name() + ".")) continue;
      return Status::invalid(field, name,
                             "must not be the name of another task and what follows a dot: names "
                             "of the parameters of " +
                                 other.name() + " begin with it");
    }
  }
  return {};
}

// A task is one of those that the model can be trained for.
Status check_tasks(const proto::JobSpec& spec, const ModelConfig& config) {
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const std::string type = task_type_name(spec.tasks(i));
    if (learns(config, type)) continue;
    return Status::invalid("tasks[" + std::to_string(i) + "].type", type,
                           learned_tasks_rule(config));
  }
  return {};
}

}  // namespace

Status check_model(proto::JobSpec& spec, const ModelInputs& inputs, AdmittedModel* found) {
  WEFT_ASSIGN_OR_RETURN(Model model, find_model(spec, inputs));
  if (model.config != nullptr) {
    if (permuted_tokens(spec) > 0) model.config = model.family->with_predictions(model.config);
    WEFT_RETURN_IF_ERROR(check_relative(spec, *model.config));
  }
  if (model.config != nullptr && spec.has_adapter()) {
    WEFT_ASSIGN_OR_RETURN(const Adapter adapter,
                          find_adapter(spec.adapter(), *model.family, *model.config));
    model.config = model.family->with_adapter(*model.config, adapter);
  }
  if (found != nullptr) *found = model;
  if (model.config == nullptr) return check_tokenizer(spec, inputs, 0);
  WEFT_ASSIGN_OR_RETURN(const auto written,
                        json_to_struct(model.family->config_json(*model.config, ExportHead{})));
  WEFT_RETURN_IF_ERROR(check_task_names(spec, *model.family));
  WEFT_RETURN_IF_ERROR(check_tasks(spec, *model.config));
  WEFT_RETURN_IF_ERROR(finish_model_fit(spec, written));
  WEFT_RETURN_IF_ERROR(check_sizes(spec, *model.config));
  WEFT_RETURN_IF_ERROR(check_blocks(spec, *model.config));
  if (model.config->image.size > 0) return check_preprocessor(inputs, *model.config);
  if (model.config->audio.mel_bins > 0) {
    WEFT_RETURN_IF_ERROR(check_audio_preprocessor(inputs, *model.config));
  }
  return check_tokenizer(spec, inputs, model.config->vocabulary);
}

}  // namespace weft
