// A job's local data, held against its tasks.
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "coordinator/cli/job_file.h"
#include "worker/data/check.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// Whether the job's tokenizer takes valid UTF-8 only. Of one that is not at hand (a checkpoint's)
// that is not known here; the ranks look.
bool needs_utf8(const JobFile& file, const proto::JobSpec& spec) {
  if (spec.tokenizer().type() == proto::TOKENIZER_TYPE_BYTE) return false;
  const std::string& own = spec.tokenizer().from();
  const std::string& from = own.empty() ? spec.model().from() : own;
  if (from.empty() || is_id(from)) return false;
  fs::path path = fs::path(file.folder) / from;
  std::error_code error;
  if (fs::is_directory(path, error)) path /= "tokenizer.json";
  const auto tokenizer = load_tokenizer_file(path.string());
  return tokenizer && (*tokenizer)->type() != "byte";
}

// The names of the labels' classes; nothing where `value` is an id.
Result<std::optional<Names>> check_one(const JobFile& file, const std::string& field,
                                       const std::string& value, const DatasetOptions& options,
                                       bool utf8) {
  if (is_id(value)) return std::optional<Names>();
  const fs::path path = (fs::path(file.folder) / value).lexically_normal();
  auto files = files_of({field, InputKind::kData, path.string()});
  if (!files) return fail(files.error().with_line(file.lines.find(field)));
  for (SourceFile& source : *files) source.name = source.path;
  auto names = check_data(*files, options, utf8);
  if (names) return std::optional<Names>(std::move(*names));
  Status status = names.error().with_prefix(field);
  if (status.line() > 0 || !status.field().empty()) return fail(status);  // a place in a file
  return fail(status.with_field(field).with_value(path.string()).with_line(file.lines.find(field)));
}

}  // namespace

Status check_data(const JobFile& file, const proto::JobSpec& spec) {
  const bool utf8 = needs_utf8(file, spec);
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const proto::DataSpec& data = spec.tasks(i).data();
    const std::string prefix = fmt::format("tasks[{}].data.", i);
    DatasetOptions options = dataset_options(spec.tasks(i), spec.training().sequence_length());
    WEFT_ASSIGN_OR_RETURN(options.label_names,
                          check_one(file, prefix + "train", data.train(), options, utf8));
    if (data.validation().empty()) continue;
    const auto held_out = check_one(file, prefix + "validation", data.validation(), options, utf8);
    if (!held_out) return held_out.error();
  }
  return {};
}

}  // namespace weft::cli
