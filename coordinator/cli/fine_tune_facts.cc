#include "coordinator/cli/fine_tune_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "coordinator/cli/job_file.h"
#include "coordinator/cli/upload.h"
#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "worker/data/source.h"
#include "worker/models/hf_folder.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

Result<ModelFacts> find_checkpoint(const Context& context, const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
  proto::CheckpointManifest manifest;
  WEFT_RETURN_IF_ERROR(client.get("checkpoints/" + encoded(id), manifest));
  const ModelFamily* family = find_family(manifest.family());
  if (family == nullptr) {
    return fail(Status::invalid("MODEL", manifest.family(), "must be one of " + known_families()));
  }
  const auto config = family->parse_config(struct_to_json(manifest.config()));
  if (!config) return fail(Status(config.error()).with_prefix(id + ": "));
  return ModelFacts{
      id, manifest.family(), (*config)->positions, (*config)->heads, (*config)->vocabulary, true};
}

Result<ModelFacts> find_folder(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return fail(Status::invalid("MODEL", path,
                                "must be a checkpoint's id ('weft checkpoints' lists them) or a "
                                "Hugging Face folder on this machine"));
  }
  const Result<HfFolder> folder = open_hf_folder(path);
  if (!folder) return fail(local(folder.error()).with_field("MODEL"));
  return ModelFacts{fs::absolute(path).lexically_normal().string(),
                    folder->config->family,
                    folder->config->positions,
                    folder->config->heads,
                    folder->config->vocabulary,
                    !folder->tokenizer_file.empty()};
}

bool is_rows(const std::string& file) {
  const std::string extension = fs::path(file).extension().string();
  return extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
}

struct Input {
  std::string option;
  DataFacts facts;
  std::vector<std::string> files;
  Status wrong(const std::string& value, const std::string& rule) const {
    return Status::invalid(option, value, rule);
  }
};

// Text has no zero bytes; what is packed, an image or a table of another program has.
Status check_text(const Input& input, const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string start(size_t{1} << 16, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (!in && in.gcount() == 0 && !in.eof()) return input.wrong(file, "must be readable");
  start.resize(static_cast<size_t>(in.gcount()));
  if (start.find('\0') == std::string::npos) return Status();
  return input.wrong(file, "must be text or JSONL: it holds zero bytes");
}

Result<Input> open_input(const std::string& option, const std::string& path) {
  Input input;
  input.option = option;
  std::error_code error;
  if (!fs::exists(path, error)) return fail(input.wrong(path, "must be a file or folder here"));
  input.facts.path = fs::absolute(path).lexically_normal().string();
  WEFT_ASSIGN_OR_RETURN(const auto files, files_of({option, InputKind::kData, input.facts.path}));
  for (const auto& [name, file] : files) input.files.push_back(file);
  const auto rows = std::count_if(input.files.begin(), input.files.end(), is_rows);
  input.facts.jsonl = rows > 0;
  if (rows > 0 && rows < static_cast<int64_t>(input.files.size())) {
    return fail(input.wrong(path, "must hold either JSONL files or text files, not both"));
  }
  for (const std::string& file : input.files) WEFT_RETURN_IF_ERROR(check_text(input, file));
  return input;
}

// The first row, to see which keys there are.
Result<JsonValue> first_row(const Input& input) {
  for (const std::string& file : input.files) {
    std::ifstream in(file);
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      auto row = parse_json(line);
      if (row && row->is_object()) return std::move(*row);
      return fail(input
                      .wrong(shortened(line, 60),
                             "each line must be one JSON object, as in {\"text\": \"...\"}")
                      .with_prefix(fmt::format("{} line {}: ", file, number)));
    }
  }
  return fail(input.wrong(input.facts.path, "must hold at least one row"));
}

Status check_keys(const Input& input, const JsonValue& row, const FineTuneOptions& options,
                  bool classes) {
  std::string keys;
  for (const JsonMember& it : row.members) keys += (keys.empty() ? "" : ", ") + it.key;
  if (row.find(options.text_key) == nullptr) {
    return input.wrong(input.facts.path,
                       fmt::format("the rows have no key '{}' but {}; --text-key names another",
                                   options.text_key, keys));
  }
  if (classes && row.find(options.label_key) == nullptr) {
    return input.wrong(input.facts.path,
                       fmt::format("the rows have no key '{}' but {}; --label-key names another",
                                   options.label_key, keys));
  }
  return Status();
}

// Reads everything; where `classes`, also the labels.
Status count(Input& input, const FineTuneOptions& options) {
  DataFacts& facts = input.facts;
  SourceOptions source;
  source.format = facts.jsonl ? InputFormat::kJsonl : InputFormat::kText;
  source.text_key = options.text_key;
  if (facts.classes) source.label_key = options.label_key;
  std::set<std::string> names;
  int64_t largest = -1;
  const auto visit = [&](const Document& document) -> Status {
    ++facts.documents;
    facts.bytes += static_cast<int64_t>(document.text.size());
    if (document.label_name) names.insert(*document.label_name);
    if (document.label && *document.label < 0) {
      return input.wrong(std::to_string(*document.label), "a label must not be below 0")
          .with_prefix(document.place() + ": ");
    }
    if (document.label) largest = std::max(largest, *document.label);
    return Status();
  };
  for (const std::string& file : input.files) {
    std::error_code error;
    if (fs::file_size(file, error) == 0) continue;
    WEFT_RETURN_IF_ERROR(local(for_each_document(file, source, visit)));
  }
  if (facts.documents == 0 || facts.bytes == 0) {
    return input.wrong(facts.path, "must hold some text");
  }
  if (!facts.classes) return Status();
  if (!names.empty() && largest >= 0) {
    return input.wrong(facts.path, "labels must be all integers or all strings");
  }
  facts.named = !names.empty();
  facts.labels = facts.named ? static_cast<int64_t>(names.size()) : largest + 1;
  return Status();
}

}  // namespace

Result<ModelFacts> find_model(const Context& context, const std::string& model) {
  if (model.starts_with("ckpt-")) return find_checkpoint(context, model);
  return find_folder(model);
}

Result<DataFacts> find_data(const std::string& option, const std::string& path,
                            const FineTuneOptions& options) {
  WEFT_ASSIGN_OR_RETURN(Input input, open_input(option, path));
  input.facts.classes = options.task == "sequence_classification";
  if (input.facts.jsonl) {
    WEFT_ASSIGN_OR_RETURN(const JsonValue row, first_row(input));
    if (options.task.empty()) input.facts.classes = row.find(options.label_key) != nullptr;
    WEFT_RETURN_IF_ERROR(check_keys(input, row, options, input.facts.classes));
  } else if (input.facts.classes) {
    return fail(input.wrong(path,
                            "must be JSONL (*.jsonl) with a text and a label a row for "
                            "sequence_classification"));
  }
  WEFT_RETURN_IF_ERROR(count(input, options));
  return std::move(input.facts);
}

}  // namespace weft::cli
