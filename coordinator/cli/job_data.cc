// A job's local data, held against its tasks.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "coordinator/cli/job_file.h"
#include "worker/admission/head_classes.h"
#include "worker/data/check.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/models/hf_folder.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

// The job's tokenizer; null where it is not at hand (a checkpoint's) or cannot be read. What it
// needs is not known then; the ranks look.
std::unique_ptr<Tokenizer> find_tokenizer(const JobFile& file, const proto::JobSpec& spec) {
  if (spec.tokenizer().type() == proto::TOKENIZER_TYPE_BYTE) return make_byte_tokenizer();
  const std::string& own = spec.tokenizer().from();
  const std::string& from = own.empty() ? spec.model().from() : own;
  if (from.empty() || is_id(from)) return nullptr;
  fs::path path = fs::path(file.folder) / from;
  std::error_code error;
  if (fs::is_directory(path, error)) path /= "tokenizer.json";
  auto tokenizer = load_tokenizer_file(path.string());
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

// Nothing is checked where `value` is an id.
Status check_one(const JobFile& file, const std::string& field, const std::string& value,
                 const DatasetOptions& options, const Tokenizer* tokenizer, Labels& labels) {
  if (is_id(value)) return {};
  const fs::path path = (fs::path(file.folder) / value).lexically_normal();
  auto files = files_of({field, InputKind::kData, path.string()});
  if (!files) return files.error().with_line(file.lines.find(field));
  const bool by_name = is_images(options.kind) || options.source.format == InputFormat::kAudio;
  if (!by_name) {  // of which the names in the folder tell something
    for (SourceFile& source : *files) source.name = source.path;
  }
  std::optional<Chats> chats;
  if (tokenizer != nullptr) chats.emplace(tokenizer->files());
  const bool utf8 = tokenizer != nullptr && tokenizer->type() != "byte";
  Status status = check_data(*files, options, utf8, labels, chats ? &*chats : nullptr);
  if (status.ok()) return {};
  status = status.with_prefix(field);
  if (status.line() > 0 || !status.field().empty()) return status;  // a place in a file
  return status.with_field(field).with_value(path.string()).with_line(file.lines.find(field));
}

// What model.from names, where that is a folder here.
std::optional<HfFolder> model_folder(const JobFile& file, const proto::JobSpec& spec) {
  const std::string& from = spec.model().from();
  if (from.empty() || is_id(from)) return std::nullopt;
  Result<HfFolder> folder = open_hf_folder((fs::path(file.folder) / from).string());
  return folder ? std::optional(std::move(*folder)) : std::nullopt;
}

}  // namespace

Status check_data(const JobFile& file, const proto::JobSpec& spec) {
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(file, spec);
  const std::optional<HfFolder> model = model_folder(file, spec);
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const proto::TaskSpec& task = spec.tasks(i);
    const proto::DataSpec& data = task.data();
    const std::string prefix = fmt::format("tasks[{}].data.", i);
    const DatasetOptions options =
        dataset_options(task, spec.training().sequence_length(), spec.training().target_length());
    const std::string& key = options.source.label_key;
    Labels trained(key, options.labels, std::nullopt,
                   classes_of(nullptr, model ? &*model : nullptr, spec, task));
    WEFT_RETURN_IF_ERROR(
        check_one(file, prefix + "train", data.train(), options, tokenizer.get(), trained));
    if (data.validation().empty()) continue;
    // Where the training data or the model is not at hand, either may have classes that are not
    // seen here: the held-out data's are held against their number, the ranks look at the rest.
    const bool known = !is_id(data.train()) && (model || spec.model().from().empty());
    Labels held_out = known ? Labels(key, options.labels, trained.names()) : trained;
    WEFT_RETURN_IF_ERROR(check_one(file, prefix + "validation", data.validation(), options,
                                   tokenizer.get(), held_out));
  }
  return {};
}

}  // namespace weft::cli
