#include "worker/models/hf_folder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/tensor/transfer.h"
#include "proto/json/parse.h"
#include "worker/checkpoint/safetensors.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr size_t kTokenEmbedding = 0;  // in every family's plan

Result<std::string> read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Code::kNotFound, path.string() + ": cannot be opened");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) return fail(Code::kCorruption, path.string() + ": cannot be read");
  return text;
}

std::string architecture_of(const nlohmann::json& config) {
  const auto names = config.find("architectures");
  const bool named =
      names != config.end() && names->is_array() && !names->empty() && names->front().is_string();
  return named ? names->front().get<std::string>() : "";
}

// What the architecture's head classifies, if anything.
std::optional<HeadKind> classes_of(const std::string& name) {
  if (name.ends_with("ForSequenceClassification")) return HeadKind::kSequence;
  if (name.ends_with("ForTokenClassification")) return HeadKind::kToken;
  if (name.ends_with("ForMultipleChoice")) return HeadKind::kChoice;
  if (name.ends_with("ForQuestionAnswering")) return HeadKind::kSpan;
  if (name.ends_with("ForImageClassification")) return HeadKind::kImage;
  return std::nullopt;
}

// Of a head that classifies.
int64_t labels_of(const nlohmann::json& config) {
  if (const auto map = config.find("id2label"); map != config.end() && map->is_object()) {
    return static_cast<int64_t>(map->size());
  }
  if (const auto count = config.find("num_labels"); count != config.end()) {
    if (count->is_number_integer()) return count->get<int64_t>();
  }
  return 2;  // transformers' default
}

// Names of the first classes as id2label has them, up to those that transformers calls LABEL_i
// where nobody named them; empty too where it does not name each by its number, or two the same,
// which no label of the data tells apart.
std::vector<std::string> label_names_of(const nlohmann::json& config, int64_t labels) {
  std::vector<std::string> names;
  const auto map = config.find("id2label");
  if (labels == 0 || map == config.end() || !map->is_object()) return names;
  for (int64_t i = 0; i < labels; ++i) {
    const auto name = map->find(std::to_string(i));
    if (name == map->end() || !name->is_string()) return {};
    names.push_back(name->get<std::string>());
  }
  if (std::set<std::string>(names.begin(), names.end()).size() < names.size()) return {};
  while (!names.empty() && names.back() == "LABEL_" + std::to_string(names.size() - 1)) {
    names.pop_back();
  }
  return names;
}

// Copies a shard's ranges out of the file.
Status read_shard(const SafetensorsSet& files, const std::string& name, const Parameter& parameter,
                  std::span<float> local) {
  const Shard& shard = parameter.info.shard;
  if (shard.whole()) return files.read(name, -1, 0, 0, local);
  int64_t inner = 1, outer = 1;
  for (int i = 0; i < shard.dim; ++i) outer *= parameter.value.dim(i);
  for (int i = shard.dim + 1; i < parameter.value.shape().dims(); ++i) {
    inner *= parameter.value.dim(i);
  }
  const int64_t row = parameter.value.dim(shard.dim) * inner;  // elements of an outer row here
  int64_t at = 0;
  for (const Part& range : shard.ranges) {
    const int64_t run = range.length * inner;
    if (run == 0) continue;
    std::vector<float> piece(static_cast<size_t>(outer * run));
    WEFT_RETURN_IF_ERROR(files.read(name, shard.dim, range.start, range.length, piece));
    for (int64_t o = 0; o < outer; ++o) {
      std::copy_n(piece.data() + o * run, run, local.data() + o * row + at);
    }
    at += run;
  }
  return Status();
}

// To the sink, or to the parameter's tensor where there is none.
Status load_shard(const SafetensorsSet& files, const std::string& name, const Parameter& parameter,
                  const ShardSink& sink) {
  const auto elements = static_cast<size_t>(parameter.value.elements());
  if (!sink) {
    return change_on_host<float>(parameter.value, [&](float* values) {
      return read_shard(files, name, parameter, {values, elements});
    });
  }
  std::vector<float> shard(elements);
  WEFT_RETURN_IF_ERROR(read_shard(files, name, parameter, shard));
  sink(parameter, shard);
  return {};
}

bool same_shape(const SafetensorInfo& info, const Shape& shape) {
  return std::ranges::equal(info.shape, shape.extents());
}

// Of a file: any number of dims.
std::string shown(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

// Names in files of whatever heads the family has.
std::set<std::string> head_names(const ModelFamily& family, const ModelConfig& config) {
  std::set<std::string> names;
  for (const HeadKind kind : kHeadKinds) {
    const auto head = family.head(config, kind, /*labels=*/2);
    if (!head) continue;
    for (const ParameterInfo& info : head_plan(*head, config, "", 1, 0)) {
      for (std::string& name : family.file_names(info.name)) names.insert(std::move(name));
    }
  }
  return names;
}

bool is_floating(const std::string& dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16" || dtype == "F64";
}

// transformers (5) takes a tied head for one of its own where the files hold it and it differs.
Status check_tied_head(const HfFolder& folder, const SafetensorsSet& files,
                       const SafetensorInfo& embedding) {
  constexpr int64_t kPiece = int64_t{1} << 20;  // elements compared at once
  const std::string name(folder.family->token_head());
  const SafetensorInfo* head = files.find(name);
  if (head == nullptr || head == &embedding) return {};
  const auto refused = [&](const std::string& value) {
    return Status::invalid(folder.path + ": " + name, value,
                           "must be equal to " + embedding.name +
                               ", as config.json ties them; "
                               "leave the tensor out, or set tie_word_embeddings to false");
  };
  if (head->shape != embedding.shape) return refused(shown(head->shape));
  if (!is_floating(head->dtype)) return refused(head->dtype);
  const int64_t rows = head->shape.front(), columns = head->elements() / std::max<int64_t>(rows, 1);
  const int64_t step = std::max<int64_t>(kPiece / std::max<int64_t>(columns, 1), 1);
  std::vector<float> ours, other;
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    ours.resize(static_cast<size_t>(count * columns));
    other.resize(ours.size());
    WEFT_RETURN_IF_ERROR(files.read(name, 0, row, count, ours));
    WEFT_RETURN_IF_ERROR(files.read(embedding.name, 0, row, count, other));
    if (ours == other) continue;
    const auto at = std::ranges::mismatch(ours, other).in1 - ours.begin();
    return refused("other in row " + std::to_string(row + at / columns));
  }
  return {};
}

}  // namespace

Result<HfFolder> open_hf_folder(const std::string& path) {
  HfFolder folder;
  folder.path = path;
  const fs::path root(path);
  std::error_code error;
  if (!fs::is_directory(root, error)) return fail(Code::kNotFound, path + ": no such folder");
  WEFT_ASSIGN_OR_RETURN(folder.config_text, read_text(root / "config.json"));
  const auto named = [&](Status status) {
    return fail(status.with_prefix((root / "config.json").string()));
  };
  Result<nlohmann::json> json = parse_strict(folder.config_text);
  if (!json) return named(json.error());
  Result<std::string> family = family_of_config(folder.config_text);
  if (!family) return named(family.error());
  folder.family = find_family(*family);
  Result<ModelConfigPtr> config = folder.family->parse_config(folder.config_text);
  if (!config) return named(config.error());
  folder.config = std::move(*config);
  const std::string architecture = architecture_of(*json);
  folder.trunk_only = architecture.ends_with("Model") && !architecture.ends_with("LMHeadModel");
  if (const auto classes = classes_of(architecture)) {
    folder.classes = *classes;
    folder.labels = *classes == HeadKind::kChoice ? 1
                    : *classes == HeadKind::kSpan ? kSpanEnds
                                                  : labels_of(*json);
    if (folder.labels < 1) {
      return named(Status::invalid("num_labels", std::to_string(folder.labels),
                                   "must be at least 1: it is the number of classes"));
    }
  }
  const bool has_names = folder.classes != HeadKind::kSpan;
  folder.label_names = label_names_of(*json, has_names ? folder.labels : 0);
  WEFT_ASSIGN_OR_RETURN(folder.weight_files, safetensors_files(path));
  if (fs::exists(root / "tokenizer.json", error)) {
    folder.tokenizer_file = (root / "tokenizer.json").string();
  }
  return folder;
}

Result<std::vector<const SafetensorInfo*>> match_weights(
    const ModelFamily& family, const ModelConfig& config, const std::vector<ParameterInfo>& plan,
    const std::vector<std::string>& names,
    const std::function<const SafetensorInfo*(const std::string&)>& find) {
  std::vector<const SafetensorInfo*> matched;
  std::set<std::string> used;
  const std::set<std::string> heads = head_names(family, config);
  const std::string token_head(family.token_head());
  const bool has_head =
      std::ranges::any_of(heads, [&](const auto& name) { return find(name) != nullptr; });
  for (const ParameterInfo& info : plan) {
    const SafetensorInfo* found = nullptr;
    for (const std::string& name : family.file_names(info.name)) {
      if (found == nullptr) found = find(name);
    }
    // Of tied tensors a file may hold the head alone: safetensors' own save_model keeps the first
    // of their names.
    const bool embeds = &info == &plan[kTokenEmbedding];
    if (found == nullptr && embeds && config.tied) found = find(token_head);
    if (found == nullptr && has_head && info.name == token_head) {
      matched.push_back(nullptr);
      continue;
    }
    if (found == nullptr) {
      const std::string rule =
          "is missing: the weights must hold it, of the shape " + info.shape.to_string();
      if (info.name != token_head) return fail(Status::invalid(info.name, "absent", rule));
      return fail(Status::invalid(info.name, "absent",
                                  rule + ", as config.json says that " +
                                      std::string(config.untied_by) +
                                      " is false; where the head is " + plan[kTokenEmbedding].name +
                                      " all the same, store a copy of it under this name"));
    }
    if (!same_shape(*found, info.shape)) {
      return fail(Status::invalid(
          found->name, shown(found->shape),
          "must have the shape " + info.shape.to_string() + ", as config.json says"));
    }
    if (!is_floating(found->dtype)) {
      return fail(Status::invalid(found->name, found->dtype, "must be F32, F16, BF16 or F64"));
    }
    used.insert(found->name);
    matched.push_back(found);
  }
  for (const std::string& name : names) {
    const bool known = used.contains(name) || heads.contains(name);
    if (known || family.ignored_in_files(name, config)) continue;
    return fail(Status::invalid(name, find(name)->dtype,
                                "must be a parameter of this configuration; leave the tensor out"));
  }
  return matched;
}

Status load_hf_weights(const HfFolder& folder, std::vector<Parameter>& parameters,
                       std::span<const HeadTensor> heads, const ShardSink& sink) {
  WEFT_ASSIGN_OR_RETURN(const SafetensorsSet files, SafetensorsSet::open(folder.weight_files));
  std::vector<ParameterInfo> plan;
  std::vector<Parameter*> loaded;
  for (Parameter& parameter : parameters) {
    if (!parameter.info.adapts.empty()) continue;
    plan.push_back(parameter.info);
    loaded.push_back(&parameter);
  }
  const auto matched = match_weights(*folder.family, *folder.config, plan, files.names(),
                                     [&](const std::string& name) { return files.find(name); });
  if (!matched) {
    Status status = matched.error();
    return status.with_field(folder.path + ": " + matched.error().field());
  }
  const bool heads_tokens = folder.labels == 0 && !folder.trunk_only;
  if (folder.config->tied && heads_tokens) {
    WEFT_RETURN_IF_ERROR(check_tied_head(folder, files, *(*matched)[kTokenEmbedding]));
  }
  for (size_t i = 0; i < loaded.size(); ++i) {
    if ((*matched)[i] == nullptr) continue;
    WEFT_RETURN_IF_ERROR(load_shard(files, (*matched)[i]->name, *loaded[i], sink));
  }
  for (const HeadTensor& head : heads) {
    for (const std::string& name : folder.family->file_names(head.file_name)) {
      const SafetensorInfo* found = files.find(name);
      if (found == nullptr || !same_shape(*found, head.parameter->info.shape)) continue;
      WEFT_RETURN_IF_ERROR(load_shard(files, name, *head.parameter, sink));
      break;
    }
  }
  return {};
}

Status load_peft_weights(const std::string& file, std::vector<Parameter>& parameters,
                         std::span<const HeadTensor> heads) {
  WEFT_ASSIGN_OR_RETURN(const SafetensorsSet files, SafetensorsSet::open({file}));
  std::set<std::string> left;
  for (const std::string& name : files.names()) left.insert(name);
  const auto load = [&](const std::string& name, const Parameter& parameter) -> Status {
    const std::string stored = std::string(kPeftPrefix) + name;
    const SafetensorInfo* found = files.find(stored);
    const std::string field = file + ": " + stored;
    if (found == nullptr) return Status::invalid(field, "absent", "is missing");
    if (!same_shape(*found, parameter.info.shape)) {
      return Status::invalid(field, shown(found->shape),
                             "must have the shape " + parameter.info.shape.to_string());
    }
    left.erase(stored);
    return load_shard(files, stored, parameter, {});
  };
  for (const Parameter& parameter : parameters) {
    if (parameter.info.adapts.empty()) continue;
    WEFT_RETURN_IF_ERROR(load(parameter.info.name, parameter));
  }
  for (const HeadTensor& head : heads) {
    if (!left.contains(std::string(kPeftPrefix) + head.file_name)) continue;
    WEFT_RETURN_IF_ERROR(load(head.file_name, *head.parameter));
  }
  if (left.empty()) return {};
  return Status::invalid(file + ": " + *left.begin(), files.find(*left.begin())->dtype,
                         "must be a weight of the adapter that adapter_config.json describes");
}

}  // namespace weft
