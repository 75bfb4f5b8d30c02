#include "coordinator/cli/job_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <iterator>

#include "coordinator/cli/settings.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

// Every place of the job that may hold a local path: get(field, kind, text).
template <typename Visit>
Status for_each_place(proto::JobSpec& spec, const Visit& visit) {
  if (!spec.model().from().empty()) {
    WEFT_RETURN_IF_ERROR(
        visit("model.from", InputKind::kModelFolder, *spec.mutable_model()->mutable_from()));
  }
  if (!spec.tokenizer().from().empty()) {
    WEFT_RETURN_IF_ERROR(visit("tokenizer.from", InputKind::kTokenizerFile,
                               *spec.mutable_tokenizer()->mutable_from()));
  }
  for (int i = 0; i < spec.tasks_size(); ++i) {
    if (!spec.tasks(i).has_data()) continue;
    proto::DataSpec& data = *spec.mutable_tasks(i)->mutable_data();
    const std::string prefix = fmt::format("tasks[{}].data.", i);
    if (!data.train().empty()) {
      WEFT_RETURN_IF_ERROR(visit(prefix + "train", InputKind::kData, *data.mutable_train()));
    }
    if (!data.validation().empty()) {
      WEFT_RETURN_IF_ERROR(
          visit(prefix + "validation", InputKind::kData, *data.mutable_validation()));
    }
  }
  return Status();
}

Result<LocalInput> find_input(const JobFile& file, const std::string& field, InputKind kind,
                              const std::string& value) {
  const auto wrong = [&](const std::string& rule) {
    return fail(Status::invalid(field, value, rule).with_line(file.lines.find(field)));
  };
  const fs::path path = (fs::path(file.folder) / value).lexically_normal();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return wrong("must be an id (obj-..., ckpt-...) or a path that exists; there is no " +
                 path.string());
  }
  const bool folder = fs::is_directory(status);
  if (kind == InputKind::kModelFolder && !folder) {
    return wrong("must be a checkpoint's id or a folder with config.json and model.safetensors");
  }
  if (kind == InputKind::kModelFolder && !fs::exists(path / "config.json")) {
    return wrong("must hold config.json: it is no Hugging Face folder");
  }
  if (kind == InputKind::kTokenizerFile && folder) {
    if (!fs::exists(path / "tokenizer.json")) {
      const bool sentencepiece = fs::exists(path / kSentencePieceFile);
      return wrong("must hold tokenizer.json; it has " +
                   no_tokenizer_json(sentencepiece, path.string()));
    }
    return LocalInput{field, kind, (path / "tokenizer.json").string()};
  }
  if (!folder && !fs::is_regular_file(status)) return wrong("must be a regular file or a folder");
  return LocalInput{field, kind, path.string()};
}

// The input at a local path; null where there is none, or an id.
std::unique_ptr<InputFiles> local_files(const JobFile& file, const std::string& value) {
  if (value.empty() || is_id(value)) return nullptr;
  auto files = open_input_files((fs::path(file.folder) / value).lexically_normal().string());
  return files ? std::move(*files) : nullptr;
}

}  // namespace

bool is_id(const std::string& value) {
  return value.starts_with("obj-") || value.starts_with("ckpt-");
}

Result<JobFile> parse_job_file(const std::string& text, const std::string& name,
                               const std::string& folder, const std::vector<std::string>& sets) {
  JobFile file;
  file.folder = folder;
  if (Status status = read_yaml(text, file.spec, &file.lines); !status.ok()) {
    return fail(status.with_prefix(name));
  }
  for (const std::string& set : sets) {
    const size_t equals = set.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(Status::invalid("--set", set, "must be KEY=VALUE, as in training.steps=100"));
    }
    WEFT_RETURN_IF_ERROR(set_path(file.spec, set.substr(0, equals), set.substr(equals + 1)));
    file.lines.set(set.substr(0, equals), 0);  // its value stands on no line of the file
  }
  return file;
}

Result<JobFile> read_job_file(const std::string& path, const std::vector<std::string>& sets) {
  if (path == "-") {
    const std::string text(std::istreambuf_iterator<char>(std::cin), {});
    return parse_job_file(text, "job file", fs::current_path().string(), sets);
  }
  const Result<std::string> text = read_text_file(path);
  if (!text) return fail(Status(text.error()).with_field("--file"));
  return parse_job_file(*text, path, fs::absolute(path).parent_path().string(), sets);
}

Result<proto::JobSpec> check_job(const JobFile& file, AdmittedModel* admitted) {
  proto::JobSpec spec = file.spec;
  WEFT_RETURN_IF_ERROR(finish_job(spec, &file.lines));
  const auto model = local_files(file, spec.model().from());
  const auto tokenizer = local_files(file, spec.tokenizer().from());
  Status status = check_model(spec, {.model = model.get(), .tokenizer = tokenizer.get()}, admitted);
  if (!status.ok()) return fail(status.with_line(file.lines.find(status.field())));
  return spec;
}

Result<std::vector<LocalInput>> local_inputs(const JobFile& file) {
  std::vector<LocalInput> inputs;
  proto::JobSpec spec = file.spec;
  WEFT_RETURN_IF_ERROR(for_each_place(
      spec, [&](const std::string& field, InputKind kind, std::string& value) -> Status {
        if (is_id(value)) return Status();
        WEFT_ASSIGN_OR_RETURN(LocalInput input, find_input(file, field, kind, value));
        inputs.push_back(std::move(input));
        return Status();
      }));
  return inputs;
}

Status replace_inputs(JobFile& file,
                      const std::function<Result<std::string>(const LocalInput&)>& id_of) {
  return for_each_place(
      file.spec, [&](const std::string& field, InputKind kind, std::string& value) -> Status {
        if (is_id(value)) return Status();
        WEFT_ASSIGN_OR_RETURN(const LocalInput input, find_input(file, field, kind, value));
        WEFT_ASSIGN_OR_RETURN(value, id_of(input));
        const bool model = kind == InputKind::kModelFolder && file.spec.has_adapter();
        if (model && file.spec.adapter().base_model().empty()) {
          file.spec.mutable_adapter()->set_base_model(input.path);
        }
        return Status();
      });
}

}  // namespace weft::cli
