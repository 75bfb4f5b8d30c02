#include "worker/serve/loaded_model.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/ops/ops.h"
#include "proto/json/parse.h"
#include "worker/models/audio_layout.h"
#include "worker/models/image_layout.h"
#include "worker/models/learned_tasks.h"

namespace weft {
namespace {

constexpr const char* kOneClass = "single_label_classification";

Status check_type(const HfFolder& folder, std::string_view type) {
  const std::string_view own = task_type(folder);
  if (type.empty() || own == type) return {};
  if (type == "embedding") {
    if (own == "image_classification") {
      return Status::invalid(folder.path + ": model_type", folder.config->family,
                             "must be an encoder's of texts: this one reads images");
    }
    if (!folder.config->attention.causal && !folder.config->encodes_and_decodes()) return {};
    return Status::invalid(folder.path + ": model_type", folder.config->family,
                           "must be an encoder's: a decoder gives no embeddings");
  }
  return Status::invalid(folder.path + ": architectures", std::string(own),
                         "must be of type " + std::string(type) + ", as no other " +
                             (type == "causal_lm"            ? "generates text"
                              : type == "seq2seq"            ? "writes a text for a text"
                              : type == "speech_recognition" ? "writes down what it hears"
                              : type == "masked_lm"          ? "fills masked tokens in"
                              : type == "permutation_lm" ? "predicts tokens in orders of their own"
                              : type == "question_answering" ? "finds answers"
                                                             : "has its classes"));
}

// transformers' problem_type, where it is set, also says how several labels are told.
Status check_classes(const HfFolder& folder) {
  if (folder.labels < 2) {
    return Status::invalid(folder.path + ": id2label", std::to_string(folder.labels) + " classes",
                           "must name at least 2");
  }
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json config, parse_strict(folder.config_text));
  const auto problem = config.find("problem_type");
  if (folder.classes != HeadKind::kSequence) return {};
  if (problem == config.end() || problem->is_null() || *problem == kOneClass) return {};
  return Status::invalid(folder.path + ": problem_type", problem->dump(),
                         std::string("must be ") + kOneClass + ": one class a text");
}

// Loading passes over a head that the files lack; without it there is nothing to use.
Status check_head(const HfFolder& folder, const Task& task, const ParameterInfo& head) {
  WEFT_ASSIGN_OR_RETURN(const SafetensorsSet files, SafetensorsSet::open(folder.weight_files));
  const std::string name = task.file_name(head.name);
  const SafetensorInfo* found = nullptr;
  for (const std::string& each : folder.family->file_names(name)) {
    if (found == nullptr) found = files.find(each);
  }
  if (found != nullptr && std::ranges::equal(found->shape, head.shape.extents())) return {};
  return Status::invalid(folder.path + ": " + name, found == nullptr ? "absent" : "another shape",
                         "the weights must hold the head, of the shape " + head.shape.to_string() +
                             ", as config.json says");
}

Status load_head(Rank& rank, std::string_view type, int64_t choices, LoadedModel& model) {
  const bool chooses = head_kind(type) == HeadKind::kChoice;
  const bool classifies = head_kind(type) && model.folder.labels > 0 && !chooses;
  if (classifies) WEFT_RETURN_IF_ERROR(check_classes(model.folder));
  WEFT_ASSIGN_OR_RETURN(model.task, make_task(rank, type, *model.folder.config,
                                              {.name = "head",
                                               .labels = chooses ? choices : model.folder.labels,
                                               .label_names = class_names(model.folder)}));
  std::vector<HeadTensor> heads;
  for (Parameter& parameter : model.task->parameters()) {
    WEFT_RETURN_IF_ERROR(check_head(model.folder, *model.task, parameter.info));
    heads.push_back({model.task->file_name(parameter.info.name), &parameter});
  }
  return load_hf_weights(model.folder, model.trunk->parameters(), heads);
}

// What makes a text, an image or a recording what the model takes.
Status load_input(LoadedModel& model) {
  const HfFolder& folder = model.folder;
  if (folder.config->image.size > 0) {
    WEFT_ASSIGN_OR_RETURN(model.preprocessor,
                          ImagePreprocessor::read(folder.path, layout_of(folder.config->image)));
    return {};
  }
  if (folder.config->audio.mel_bins > 0) {
    WEFT_ASSIGN_OR_RETURN(model.audio,
                          AudioPreprocessor::read(folder.path, layout_of(folder.config->audio)));
  }
  if (folder.tokenizer_file.empty()) {
    std::error_code ignored;
    const bool sentencepiece =
        std::filesystem::exists(std::filesystem::path(folder.path) / kSentencePieceFile, ignored);
    return Status(Code::kNotFound,
                  folder.path + " has " + no_tokenizer_json(sentencepiece, folder.path));
  }
  WEFT_ASSIGN_OR_RETURN(model.tokenizer, load_tokenizer_file(folder.tokenizer_file));
  if (model.tokenizer->vocab_size() <= folder.config->vocabulary) return {};
  return Status::invalid(folder.path + ": vocab_size", std::to_string(folder.config->vocabulary),
                         "must be at least the tokenizer's, which is " +
                             std::to_string(model.tokenizer->vocab_size()));
}

void round_values(Rank& rank, std::vector<Parameter>& parameters, DType precision) {
  Context cx = rank.context();
  for (Parameter& parameter : parameters) {
    const DType kept = value_dtype(parameter.info.keep_fp32, precision);
    if (kept != parameter.value.dtype()) {
      parameter.value.rebind(ops::cast(cx, parameter.value.detach(), kept));
    }
  }
}

}  // namespace

std::string_view task_type(const HfFolder& folder) {
  if (folder.config->image.size > 0) return "image_classification";
  if (folder.config->audio.mel_bins > 0) return "speech_recognition";
  if (folder.config->encodes_and_decodes()) return "seq2seq";
  if (folder.labels == 0 && folder.config->attention.causal) return "causal_lm";
  if (folder.labels == 0 && folder.trunk_only) return "embedding";
  if (folder.labels == 0) {
    return learns(*folder.config, "permutation_lm") ? "permutation_lm" : "masked_lm";
  }
  if (folder.classes == HeadKind::kChoice) return "multiple_choice";
  if (folder.classes == HeadKind::kSpan) return "question_answering";
  return folder.classes == HeadKind::kToken ? "token_classification" : "sequence_classification";
}

std::vector<std::string> class_names(const HfFolder& folder) {
  std::vector<std::string> names = folder.label_names;
  while (static_cast<int64_t>(names.size()) < folder.labels) {
    names.push_back("LABEL_" + std::to_string(names.size()));
  }
  return names;
}

Result<LoadedModel> load_hf_folder(Rank& rank, const std::string& path, std::string_view type,
                                   DType precision, int64_t choices) {
  LoadedModel model;
  WEFT_ASSIGN_OR_RETURN(model.folder, open_hf_folder(path));
  WEFT_RETURN_IF_ERROR(check_type(model.folder, type));
  WEFT_RETURN_IF_ERROR(load_input(model));
  WEFT_ASSIGN_OR_RETURN(model.trunk, model.folder.family->make_trunk(rank, model.folder.config));
  const std::string_view own = type.empty() ? task_type(model.folder) : type;
  WEFT_RETURN_IF_ERROR(load_head(rank, own, choices, model));
  round_values(rank, model.trunk->parameters(), precision);
  round_values(rank, model.task->parameters(), precision);
  return model;
}

}  // namespace weft
