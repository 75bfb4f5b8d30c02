#include "coordinator/cli/local_input.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "proto/json/file_path.h"
#include "worker/data/images/preprocessor.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

bool part_of_model(const std::string& name) {
  static const std::set<std::string> kNames = {
      "config.json", "model.safetensors.index.json", "generation_config.json",
      std::string(kPreprocessorFile), std::string(kProcessorFile)};
  return kNames.count(name) > 0 || name.ends_with(".safetensors") ||
         std::ranges::find(tokenizer_file_names(), name) != tokenizer_file_names().end();
}

Status refuse(const LocalInput& input, const fs::path& path, const std::string& rule) {
  return Status::invalid(input.field, escaped(path.string()), rule);
}

Status check_name(const LocalInput& input, const SourceFile& file) {
  const Status status = check_file_path(file.name);
  if (status.ok()) return {};
  return refuse(input, file.path, "has a file that cannot be uploaded: its path " + status.rule());
}

// What an entry that is neither a regular file nor a folder is; a link is what it leads to.
Status refuse_entry(const LocalInput& input, const fs::directory_entry& entry,
                    const std::error_code& error, fs::file_type type) {
  std::error_code ignored;
  if (error == std::errc::too_many_symbolic_link_levels) {
    return refuse(input, entry.path(), "must not hold a link that leads to itself");
  }
  if (type == fs::file_type::not_found && entry.is_symlink(ignored)) {
    const std::string target = escaped(fs::read_symlink(entry.path(), ignored).string());
    return refuse(input, entry.path(), "must not hold a link to nothing; it points to " + target);
  }
  if (error) return refuse(input, entry.path(), "must be readable: " + error.message());
  return refuse(input, entry.path(),
                "must hold regular files only; this is a pipe, a device or a socket");
}

Status add_entry(const LocalInput& input, const fs::directory_entry& entry,
                 std::vector<SourceFile>& files) {
  SourceFile file{entry.path().string(),
                  entry.path().lexically_relative(input.path).generic_string()};
  if (input.kind == InputKind::kModelFolder && !part_of_model(file.name)) return {};
  std::error_code error;
  const fs::file_type type = entry.status(error).type();
  if (type == fs::file_type::directory) {
    if (!entry.is_symlink(error)) return {};
    return refuse(input, entry.path(),
                  "must not hold a link to a folder; put the folder itself there");
  }
  if (type != fs::file_type::regular) return refuse_entry(input, entry, error, type);
  WEFT_RETURN_IF_ERROR(check_name(input, file));
  files.push_back(std::move(file));
  return {};
}

Result<std::vector<SourceFile>> single_file(const LocalInput& input) {
  const fs::path path = input.path;
  if (input.kind == InputKind::kTokenizerFile) {
    std::vector<SourceFile> files = {{input.path, "tokenizer.json"}};
    for (const std::string_view name : tokenizer_file_names().subspan(1)) {
      const fs::path beside = path.parent_path() / name;
      std::error_code error;
      if (fs::is_regular_file(beside, error)) {
        files.push_back({beside.string(), std::string(name)});
      }
    }
    return files;
  }
  // Data is read more than once, which a pipe does not allow.
  std::error_code error;
  if (fs::is_other(path, error)) {
    return fail(refuse(input, path,
                       "must be a regular file or a folder; this is a pipe, a device or a socket"));
  }
  SourceFile file{input.path, path.filename().string()};
  WEFT_RETURN_IF_ERROR(check_name(input, file));
  return std::vector<SourceFile>{std::move(file)};
}

}  // namespace

Result<std::vector<SourceFile>> files_of(const LocalInput& input) {
  std::error_code error;
  if (!fs::is_directory(input.path, error)) return single_file(input);
  std::vector<SourceFile> files;
  fs::recursive_directory_iterator it(input.path, error), end;
  for (; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().starts_with(".")) {
      WEFT_RETURN_IF_ERROR(add_entry(input, *it, files));
    } else if (it->is_directory(error)) {
      it.disable_recursion_pending();
    }
  }
  if (error) return fail(refuse(input, input.path, "must be readable: " + error.message()));
  if (files.empty()) return fail(refuse(input, input.path, "must hold at least one file"));
  std::ranges::sort(files, {}, &SourceFile::name);
  return files;
}

}  // namespace weft::cli
