#include "worker/data/source.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "worker/data/mapped_file.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kFilesMax = 10'000'000;

// A value as an error shows it.
std::string shown(const json& value) {
  return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace), 80);
}

Status lacks(const Document& at, const std::string& key, const json& row) {
  std::string keys;
  for (const auto& [name, value] : row.items()) keys += (keys.empty() ? "" : ", ") + name;
  return at.refuse(key, "",
                   "is missing; " + (keys.empty() ? "the row is empty"
                                                  : "the row's keys are: " + shortened(keys)));
}

Status read_label(const SourceOptions& options, const json& row, Document* document) {
  const auto found = row.find(options.label_key);
  if (found == row.end()) return lacks(*document, options.label_key, row);
  if (found->is_string()) {
    document->label_name = found->get<std::string>();
    if (!document->label_name->empty()) return {};
    return document->refuse(options.label_key, "\"\"", "must not be empty");
  }
  if (!found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX)) {
    return document->refuse(options.label_key, shown(*found), "must be an integer or a string");
  }
  document->label = found->get<int64_t>();
  return {};
}

Status visit_line(const SourceOptions& options, std::string_view line, Document document,
                  const std::function<Status(const Document&)>& visit) {
  if (static_cast<int64_t>(line.size()) > options.line_bytes_max) {
    return document.refuse("line", std::to_string(line.size()) + " bytes",
                           "must have at most " + std::to_string(options.line_bytes_max));
  }
  ParseLimits limits;
  limits.bytes_max = static_cast<size_t>(options.line_bytes_max);
  const auto row = parse_strict(line, limits);
  if (!row) {
    Status error = row.error();
    if (error.field().empty()) error.with_field("line");
    if (error.value().empty()) error.with_value(shortened(line, 80));
    return document.refuse(error);
  }
  if (!row->is_object()) {
    return document.refuse("line", shown(*row),
                           "must be one JSON object, as in {\"text\": \"...\"}");
  }
  const auto text = row->find(options.text_key);
  if (text == row->end()) return lacks(document, options.text_key, *row);
  if (!text->is_string()) {
    return document.refuse(options.text_key, shown(*text), "must be a string");
  }
  if (!options.label_key.empty()) WEFT_RETURN_IF_ERROR(read_label(options, *row, &document));
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

Status Document::refuse(const Status& status) const {
  const std::string place = line == 0 ? file : file + " line " + std::to_string(line);
  return status.with_prefix(place).with_line(static_cast<int>(line));
}

Status Document::refuse(const std::string& key, const std::string& value,
                        const std::string& rule) const {
  return refuse(Status::invalid(key, value, rule));
}

Result<std::string> staged_input(const std::string& objects_folder, const std::string& object_id) {
  if (object_id.empty() || object_id.front() == '.' ||
      object_id.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    return fail(Status::invalid("object", object_id, "must be the id of an uploaded object"));
  }
  std::string path = (fs::path(objects_folder) / object_id).string();
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    return fail(Code::kNotFound, "object " + object_id + " is not staged on this node");
  }
  return path;
}

Result<std::vector<SourceFile>> input_files(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return fail(Code::kNotFound, path + ": no such file or folder");
  if (fs::is_regular_file(status)) {
    return std::vector<SourceFile>{{path, fs::path(path).filename().string()}};
  }
  std::vector<SourceFile> files;
  fs::recursive_directory_iterator at(path, error), end;
  for (; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (!at->is_regular_file(ignored)) continue;
    files.push_back({at->path().string(), at->path().lexically_relative(path).string()});
    if (static_cast<int64_t>(files.size()) > kFilesMax) {
      return fail(Code::kInvalidArgument, "the data has more than 10000000 files");
    }
  }
  if (error) return fail(Code::kUnavailable, path + ": " + error.message());
  if (files.empty()) return fail(Code::kInvalidArgument, "the data holds no file");
  std::ranges::sort(files, {}, &SourceFile::path);
  return files;
}

Status for_each_document(const std::vector<SourceFile>& files, const SourceOptions& options,
                         const std::function<Status(const Document&)>& visit) {
  for (const SourceFile& file : files) {
    const Result<data::MappedFile> mapped = data::MappedFile::open(file.path);
    if (!mapped) return mapped.error().with_prefix(file.name);
    if (options.format == InputFormat::kJsonl) {
      WEFT_RETURN_IF_ERROR(visit_lines(options, mapped->bytes(), file.name, visit));
    } else if (!mapped->bytes().empty()) {
      Document document;
      document.text = mapped->bytes();
      document.file = file.name;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
  }
  return {};
}

}  // namespace weft
