#include "worker/golden/golden_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/golden/permutation.h"

namespace weft::golden {
namespace {

namespace fs = std::filesystem;

Result<nlohmann::json> read_json_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Code::kNotFound, path.string() + ": cannot be opened");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Result<nlohmann::json> json = parse_strict(text);
  if (!json) return fail(json.error().with_prefix(path.string()));
  if (!json->is_object()) return fail(Code::kInvalidArgument, path.string() + ": no JSON object");
  return json;
}

Result<std::vector<int64_t>> read_integers(const SafetensorsFile& file, const std::string& name) {
  const SafetensorInfo* info = file.find(name);
  if (info == nullptr) return std::vector<int64_t>();
  std::vector<int64_t> values(static_cast<size_t>(info->elements()));
  if (info->dtype == "I64" || info->dtype == "I32") {
    WEFT_RETURN_IF_ERROR(file.read_integers(name, values));
    return values;
  }
  std::vector<float> floats(values.size());  // masks are kept as floats by some families
  WEFT_RETURN_IF_ERROR(file.read(name, floats));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int64_t>(floats[i]);
  return values;
}

// writes: the labels are the tokens of targets; permutes: of predictions.
Result<TaskRows> read_texts(const SafetensorsFile& file, const std::string& prefix, int64_t choices,
                            bool writes, bool permutes) {
  TaskRows rows;
  const SafetensorInfo* ids = file.find(prefix + "input_ids");
  const size_t dims = choices > 1 ? 3 : 2;
  if (ids == nullptr || ids->shape.size() != dims || (dims == 3 && ids->shape[1] != choices)) {
    return fail(Code::kInvalidArgument, file.path() + ": no " + prefix + "input_ids [rows, " +
                                            (dims == 3 ? "choices, " : "") + "tokens]");
  }
  rows.rows = ids->shape[0] * choices;
  rows.tokens = ids->shape.back();
  WEFT_ASSIGN_OR_RETURN(rows.ids, read_integers(file, prefix + "input_ids"));
  WEFT_ASSIGN_OR_RETURN(rows.positions, read_integers(file, prefix + "position_ids"));
  WEFT_ASSIGN_OR_RETURN(rows.token_types, read_integers(file, prefix + "token_type_ids"));
  WEFT_ASSIGN_OR_RETURN(rows.documents, read_integers(file, prefix + "document_ids"));
  WEFT_ASSIGN_OR_RETURN(rows.labels, read_integers(file, prefix + "labels"));
  WEFT_ASSIGN_OR_RETURN(const auto starts, read_integers(file, prefix + "start_positions"));
  WEFT_ASSIGN_OR_RETURN(const auto ends, read_integers(file, prefix + "end_positions"));
  for (size_t i = 0; i < std::min(starts.size(), ends.size()); ++i) {
    rows.labels.insert(rows.labels.end(), {starts[i], ends[i]});
  }
  WEFT_ASSIGN_OR_RETURN(const std::vector<int64_t> mask,
                        read_integers(file, prefix + "attention_mask"));
  for (int64_t value : mask) rows.valid.push_back(value != 0 ? 1 : 0);
  const auto fits = [&](size_t size) { return size == 0 || size == rows.ids.size(); };
  const auto labels = std::ssize(rows.labels);
  const bool ends_fit = starts.size() == ends.size() && labels == kSpanEnds * rows.rows;
  const SafetensorInfo* targets = file.find(prefix + "labels");
  if (writes &&
      (targets == nullptr || targets->shape.size() != 2 || targets->shape[0] != rows.rows)) {
    return fail(Code::kInvalidArgument,
                file.path() + ": no " + prefix + "labels [rows, tokens of a target]");
  }
  if (writes) rows.target_tokens = targets->shape[1];
  if (permutes) WEFT_RETURN_IF_ERROR(read_predictions(file, prefix, rows));
  const bool labels_fit = writes     ? true
                          : permutes ? labels == rows.rows * rows.predictions
                          : starts.empty()
                              ? fits(rows.labels.size()) || labels == rows.rows / choices
                              : ends_fit;
  if (!fits(rows.positions.size()) || !fits(rows.token_types.size()) ||
      !fits(rows.documents.size()) || !fits(rows.valid.size()) || !labels_fit) {
    return fail(Code::kInvalidArgument,
                file.path() + ": the shapes of the inputs of " + prefix + "input_ids do not agree");
  }
  return rows;
}

// The pixels [rows, channels, height, width] as patches.
Result<TaskRows> read_images(const SafetensorsFile& file, const std::string& prefix,
                             const ModelConfig::ImageShape& image) {
  const std::string name = prefix + "pixel_values";
  const SafetensorInfo* info = file.find(name);
  const Shape shape{0, image.channels, image.size, image.size};
  if (info == nullptr || info->shape.size() != 4 ||
      !std::ranges::equal(std::span(info->shape).subspan(1), shape.extents().subspan(1))) {
    return fail(Code::kInvalidArgument, file.path() + ": no " + name + " [rows, " +
                                            shape.to_string() + "] of the model's images");
  }
  TaskRows rows;
  rows.rows = info->shape[0];
  rows.tokens = image.tokens();
  std::vector<float> pixels(static_cast<size_t>(info->elements()));
  WEFT_RETURN_IF_ERROR(file.read(name, pixels));
  const int64_t across = image.size / image.patch;
  rows.patches.reserve(pixels.size());
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t patch = 0; patch < across * across; ++patch) {
      for (int64_t line = 0; line < image.channels * image.patch; ++line) {
        const int64_t channel = row * image.channels + line / image.patch;
        const int64_t y = patch / across * image.patch + line % image.patch;
        const int64_t x = patch % across * image.patch;
        const float* from = pixels.data() + (channel * image.size + y) * image.size + x;
        rows.patches.insert(rows.patches.end(), from, from + image.patch);
      }
    }
  }
  WEFT_ASSIGN_OR_RETURN(rows.labels, read_integers(file, prefix + "labels"));
  return rows;
}

// The features [rows, mel bins, frames] frame by frame.
Result<TaskRows> read_recordings(const SafetensorsFile& file, const std::string& prefix,
                                 const ModelConfig::AudioShape& audio) {
  const std::string name = prefix + "input_features";
  const SafetensorInfo* info = file.find(name);
  const SafetensorInfo* targets = file.find(prefix + "labels");
  const int64_t bins = audio.mel_bins, frames = audio.frames();
  if (info == nullptr || info->shape.size() != 3 || info->shape[1] != bins ||
      info->shape[2] != frames) {
    return fail(Code::kInvalidArgument, fmt::format("{}: no {} [rows, {}, {}] of the model's {} "
                                                    "mel bins and {} frames",
                                                    file.path(), name, bins, frames, bins, frames));
  }
  if (targets == nullptr || targets->shape.size() != 2 || targets->shape[0] != info->shape[0]) {
    return fail(Code::kInvalidArgument,
                file.path() + ": no " + prefix + "labels [rows, tokens of a target]");
  }
  TaskRows rows;
  rows.rows = info->shape[0];
  rows.tokens = audio.tokens;
  rows.target_tokens = targets->shape[1];
  std::vector<float> bin_by_bin(static_cast<size_t>(info->elements()));
  WEFT_RETURN_IF_ERROR(file.read(name, bin_by_bin));
  rows.features.reserve(bin_by_bin.size());
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t frame = 0; frame < frames; ++frame) {
      for (int64_t bin = 0; bin < bins; ++bin) {
        const int64_t at = (row * bins + bin) * frames + frame;
        rows.features.push_back(bin_by_bin[static_cast<size_t>(at)]);
      }
    }
  }
  WEFT_ASSIGN_OR_RETURN(rows.labels, read_integers(file, prefix + "labels"));
  return rows;
}

// Of input_ids [rows, choices, tokens].
int64_t choices_of(const SafetensorsFile& file) {
  const SafetensorInfo* ids = file.find("input_ids");
  return ids == nullptr || ids->shape.size() != 3 ? 0 : ids->shape[1];
}

Result<TaskRows> read_rows(const SafetensorsFile& file, const std::string& prefix,
                           const Case& golden) {
  const ModelConfig::ImageShape& image = golden.folder.config->image;
  if (image.size > 0) return read_images(file, prefix, image);
  const ModelConfig::AudioShape& audio = golden.folder.config->audio;
  if (audio.mel_bins > 0) return read_recordings(file, prefix, audio);
  return read_texts(file, prefix, golden.rows_together(), golden.task_type == "seq2seq",
                    golden.task_type == "permutation_lm");
}

Status read_tensors(const SafetensorsFile& file, Case& golden) {
  for (const auto& [name, info] : file.tensors()) {
    const bool output = name == "loss" || name.ends_with("logits") || name == "last_hidden_state" ||
                        name == "embedding" || name.starts_with("grad.") ||
                        name.starts_with("merged.");
    if (!output) continue;
    if (info.shape.size() > Shape::kDimsMax) {
      return Status::invalid(file.path() + ": " + name, std::to_string(info.shape.size()) + " dims",
                             "must have at most " + std::to_string(Shape::kDimsMax));
    }
    Expected expected{Shape(info.shape), std::vector<float>(static_cast<size_t>(info.elements()))};
    WEFT_RETURN_IF_ERROR(file.read(name, expected.values));
    golden.tensors.emplace(name, std::move(expected));
  }
  return Status();
}

Result<std::string> task_type(const std::string& task) {
  if (task == "causal" || task == "packed") return std::string("causal_lm");
  if (task == "masked") return std::string("masked_lm");
  if (task == "sequence") return std::string("sequence_classification");
  if (task == "token") return std::string("token_classification");
  if (task == "choice") return std::string("multiple_choice");
  if (task == "image") return std::string("image_classification");
  if (task == "embedding") return std::string("embedding");
  if (task == "question") return std::string("question_answering");
  if (task == "permutation") return std::string("permutation_lm");
  if (task == "seq2seq") return task;
  if (task == "speech") return std::string("speech_recognition");
  return fail(Status::invalid("task", task,
                              "must be one of causal, packed, masked, sequence, token, choice, "
                              "image, embedding, question, seq2seq, speech, permutation"));
}

// at() and get() throw on a malformed file; read_trajectory's caller turns that into a Status.
Trajectory trajectory_of(const nlohmann::json& json) {
  Trajectory result;
  const nlohmann::json& optimizer = json.at("optimizer");
  result.optimizer.beta1 = optimizer.at("betas").at(0).get<double>();
  result.optimizer.beta2 = optimizer.at("betas").at(1).get<double>();
  result.optimizer.epsilon = optimizer.at("eps").get<double>();
  result.optimizer.weight_decay = optimizer.at("weight_decay").get<double>();
  const nlohmann::json& schedule = json.at("schedule");
  result.schedule = {ScheduleShape::kCosine, schedule.at("peak").get<double>(),
                     schedule.at("warmup_steps").get<int64_t>(),
                     schedule.at("total_steps").get<int64_t>()};
  result.clip = json.at("clip_global_norm").get<double>();
  for (const nlohmann::json& step : json.at("steps")) {
    result.steps.push_back({step.at("batch").get<int64_t>(), step.at("lr").get<double>(),
                            step.at("loss").get<double>(), step.at("grad_norm").get<double>()});
  }
  if (json.contains("accumulated")) {
    const nlohmann::json& accumulated = json.at("accumulated");
    result.accumulated = result.steps;
    for (size_t i = 0; i < result.steps.size(); ++i) {
      result.accumulated[i].loss = accumulated.at("loss").at(i).get<double>();
      result.accumulated[i].gradient_norm = accumulated.at("grad_norm").at(i).get<double>();
    }
  }
  result.loss_on_case_after = json.at("loss_on_case_after").get<double>();
  for (const auto& [name, norm] : json.at("parameter_norms_after").items()) {
    result.parameter_norms_after.emplace(name, norm.get<double>());
  }
  return result;
}

Result<Trajectory> read_trajectory(const fs::path& path, size_t batches) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json json, read_json_file(path));
  try {
    Trajectory trajectory = trajectory_of(json);
    for (const ExpectedStep& step : trajectory.steps) {
      if (step.batch < 0 || step.batch >= static_cast<int64_t>(batches)) {
        return fail(Code::kInvalidArgument, path.string() + ": no such batch");
      }
    }
    return trajectory;
  } catch (const nlohmann::json::exception& error) {
    return fail(Code::kInvalidArgument, path.string() + ": " + error.what());
  }
}

Result<Case> read_description(const fs::path& root) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json json, read_json_file(root / "case.json"));
  Case golden;
  try {
    golden.name = json.at("name").get<std::string>();
    golden.task = json.at("task").get<std::string>();
    golden.zero_gradients = json.value("zero_gradients", std::vector<std::string>());
    const auto family = json.at("family").get<std::string>();
    if (find_family(family) == nullptr) {
      return fail(Status::invalid("family", family, "must be one of " + known_families()));
    }
  } catch (const nlohmann::json::exception& error) {
    return fail(Code::kInvalidArgument, (root / "case.json").string() + ": " + error.what());
  }
  WEFT_ASSIGN_OR_RETURN(golden.task_type, task_type(golden.task));
  return golden;
}

Status read_adapter(const fs::path& folder, Case& golden) {
  if (!fs::exists(folder)) return {};
  const fs::path path = folder / "adapter_config.json";
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json json, read_json_file(path));
  Result<PeftFolder> peft = parse_peft_config(json.dump());
  if (!peft) return peft.error().with_prefix(path.string());
  const ModelFamily& family = *golden.folder.family;
  Result<Adapter> adapter = find_adapter(std::move(peft->adapter), family, *golden.folder.config);
  if (!adapter) return adapter.error().with_prefix(path.string());
  golden.folder.config = family.with_adapter(*golden.folder.config, *adapter);
  golden.adapter_weights = (folder / "adapter_model.safetensors").string();
  WEFT_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::open(golden.adapter_weights));
  for (const ParameterInfo& info : family.plan(*golden.folder.config, 1, 0)) {
    if (info.adapts.empty()) continue;
    const SafetensorInfo* found = file.find(std::string(kPeftPrefix) + info.name);
    if (found != nullptr && std::ranges::equal(found->shape, info.shape.extents())) continue;
    return Status::invalid(golden.adapter_weights + ": " + std::string(kPeftPrefix) + info.name,
                           found == nullptr ? "absent" : "another shape",
                           "must have the shape " + info.shape.to_string());
  }
  return {};
}

Result<std::map<std::string, double>> read_bf16_errors(const fs::path& path) {
  std::map<std::string, double> errors;
  if (!fs::exists(path)) return errors;
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json json, read_json_file(path));
  try {
    for (const auto& [what, error] : json.at("errors").items()) {
      errors.emplace(what, error.get<double>());
    }
  } catch (const nlohmann::json::exception& error) {
    return fail(Code::kInvalidArgument, path.string() + ": " + error.what());
  }
  return errors;
}

// Files may hold a trunk's parameters under other names than the usual ones.
void use_usual_names(Case& golden) {
  std::map<std::string, std::string> usual;
  for (const ParameterInfo& info : golden.folder.family->plan(*golden.folder.config, 1, 0)) {
    for (const std::string& name : golden.folder.family->file_names(info.name)) {
      usual.emplace(name, info.name);
    }
  }
  for (const auto& [name, own] : usual) {
    if (auto node = golden.tensors.extract("grad." + name)) {
      node.key() = "grad." + own;
      golden.tensors.insert(std::move(node));
    }
    if (auto node = golden.trajectory.parameter_norms_after.extract(name)) {
      node.key() = own;
      golden.trajectory.parameter_norms_after.insert(std::move(node));
    }
  }
  for (std::string& name : golden.zero_gradients) {
    if (const auto found = usual.find(name); found != usual.end()) name = found->second;
  }
}

}  // namespace

Result<Case> read_case(const std::string& folder) {
  const fs::path root(folder);
  WEFT_ASSIGN_OR_RETURN(Case golden, read_description(root));
  WEFT_ASSIGN_OR_RETURN(golden.folder, open_hf_folder((root / "hf").string()));
  WEFT_RETURN_IF_ERROR(read_adapter(root / "adapter", golden));
  WEFT_ASSIGN_OR_RETURN(const SafetensorsFile file,
                        SafetensorsFile::open((root / "case.safetensors").string()));
  const auto kind = head_kind(golden.task_type);
  if (kind == HeadKind::kChoice) golden.folder.labels = choices_of(file);
  if (kind == HeadKind::kPermuted) {
    golden.folder.config = golden.folder.family->with_predictions(golden.folder.config);
  }
  WEFT_ASSIGN_OR_RETURN(golden.inputs, read_rows(file, "", golden));
  WEFT_ASSIGN_OR_RETURN(golden.compared, read_integers(file, "attention_mask"));
  if (golden.folder.config->encodes_and_decodes() || kind == HeadKind::kPermuted) {
    golden.compared.assign(golden.inputs.labels.size(), 1);
  } else if (golden.compared.empty()) {
    golden.compared.assign(static_cast<size_t>(golden.inputs.rows * golden.inputs.tokens), 1);
  }
  WEFT_RETURN_IF_ERROR(read_tensors(file, golden));
  WEFT_ASSIGN_OR_RETURN(const SafetensorsFile batches,
                        SafetensorsFile::open((root / "batches.safetensors").string()));
  const ModelConfig& config = *golden.folder.config;
  const std::string inputs = config.image.size > 0       ? ".pixel_values"
                             : config.audio.mel_bins > 0 ? ".input_features"
                                                         : ".input_ids";
  for (int i = 0; batches.find(std::to_string(i) + inputs) != nullptr; ++i) {
    WEFT_ASSIGN_OR_RETURN(TaskRows rows, read_rows(batches, std::to_string(i) + ".", golden));
    golden.batches.push_back(std::move(rows));
  }
  WEFT_ASSIGN_OR_RETURN(golden.trajectory,
                        read_trajectory(root / "trajectory.json", golden.batches.size()));
  use_usual_names(golden);
  WEFT_ASSIGN_OR_RETURN(golden.bf16_errors, read_bf16_errors(root / "bf16.json"));
  if (Status status = check_case(golden); !status.ok()) return fail(status.with_prefix(folder));
  return golden;
}

}  // namespace weft::golden
