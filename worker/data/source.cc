#include "worker/data/source.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "proto/json/utf8.h"
#include "worker/data/mapped_file.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kFilesMax = 10'000'000;

Status wrong(const Document& at, const std::string& field, const std::string& value,
             const std::string& rule) {
  return Status::invalid(field, value, rule).with_prefix(at.place() + ": ");
}

Status read_label(const SourceOptions& options, const json& line, Document* document) {
  const auto found = line.find(options.label_key);
  if (found == line.end()) return wrong(*document, options.label_key, "", "the key is missing");
  if (found->is_string()) {
    document->label_name = found->get<std::string>();
    if (document->label_name->empty()) {
      return wrong(*document, options.label_key, "\"\"", "a label must not be empty");
    }
    return {};
  }
  if (!found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX)) {
    std::string value = found->is_primitive() ? found->dump() : found->type_name();
    return wrong(*document, options.label_key, value, "must be an integer or a string");
  }
  document->label = found->get<int64_t>();
  return {};
}

Status visit_line(const SourceOptions& options, std::string_view line, Document document,
                  const std::function<Status(const Document&)>& visit) {
  if (static_cast<int64_t>(line.size()) > options.line_bytes_max) {
    return wrong(document, "line", std::to_string(line.size()) + " bytes",
                 "must have at most " + std::to_string(options.line_bytes_max));
  }
  ParseLimits limits;
  limits.bytes_max = static_cast<size_t>(options.line_bytes_max);
  const auto parsed = parse_strict(line, limits);
  if (!parsed) {
    Status error = parsed.error();
    return error.with_line(0).with_prefix(document.place() + ": ");
  }
  if (!parsed->is_object()) {
    return wrong(document, "line", parsed->type_name(), "must be a JSON object");
  }
  const auto text = parsed->find(options.text_key);
  if (text == parsed->end()) return wrong(document, options.text_key, "", "the key is missing");
  if (!text->is_string()) {
    return wrong(document, options.text_key, text->type_name(), "must be a string");
  }
  if (!options.label_key.empty()) {
    WEFT_RETURN_IF_ERROR(read_label(options, *parsed, &document));
  }
  document.text = text->get_ref<const std::string&>();
  return visit(document);
}

Status visit_lines(const SourceOptions& options, std::string_view bytes, const std::string& name,
                   const std::function<Status(const Document&)>& visit) {
  int64_t number = 0;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Document document;
    document.file = name;
    document.line = number;
    WEFT_RETURN_IF_ERROR(visit_line(options, line, std::move(document), visit));
  }
  return {};
}

}  // namespace

std::string Document::place() const {
  return line == 0 ? file : file + " line " + std::to_string(line);
}

Result<std::string> staged_input(const std::string& objects_folder, const std::string& object_id) {
  if (object_id.empty() || object_id.front() == '.' ||
      object_id.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    return fail(Status::invalid("object", object_id, "must be the id of an uploaded object"));
  }
  std::string path = (fs::path(objects_folder) / object_id).string();
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    return fail(Code::kNotFound, "object " + object_id + " is not staged at " + path);
  }
  return path;
}

Result<std::vector<std::string>> input_files(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return fail(Code::kNotFound, path + ": no such file or folder");
  if (fs::is_regular_file(status)) return std::vector<std::string>{path};
  std::vector<std::string> files;
  fs::recursive_directory_iterator at(path, error), end;
  for (; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (!at->is_regular_file(ignored)) continue;
    files.push_back(at->path().string());
    if (static_cast<int64_t>(files.size()) > kFilesMax) {
      return fail(Code::kInvalidArgument, path + ": holds more than 10000000 files");
    }
  }
  if (error) return fail(Code::kUnavailable, path + ": " + error.message());
  if (files.empty()) return fail(Code::kInvalidArgument, path + ": holds no file");
  std::sort(files.begin(), files.end());
  return files;
}

Status for_each_document(const std::string& path, const SourceOptions& options,
                         const std::function<Status(const Document&)>& visit) {
  WEFT_ASSIGN_OR_RETURN(const auto files, input_files(path));
  int64_t documents = 0;
  const auto count = [&](const Document& document) {
    ++documents;
    return visit(document);
  };
  for (const std::string& file : files) {
    std::string name = file == path ? fs::path(file).filename().string()
                                    : fs::path(file).lexically_relative(path).string();
    WEFT_ASSIGN_OR_RETURN(const data::MappedFile mapped, data::MappedFile::open(file));
    if (options.format == InputFormat::kJsonl) {
      WEFT_RETURN_IF_ERROR(visit_lines(options, mapped.bytes(), name, count));
    } else if (!mapped.bytes().empty()) {
      Document document;
      document.text = mapped.bytes();
      document.file = std::move(name);
      WEFT_RETURN_IF_ERROR(count(document));
    }
  }
  if (documents == 0) {
    return Status(Code::kInvalidArgument,
                  path + ": the data is empty: " + std::to_string(files.size()) +
                      (files.size() == 1 ? " file" : " files") + " without a document");
  }
  return {};
}

}  // namespace weft
