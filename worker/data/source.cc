#include "worker/data/source.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "worker/data/answers.h"
#include "worker/data/images/image.h"
#include "worker/data/mapped_file.h"
#include "worker/data/source_rows.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kFilesMax = 10'000'000;
constexpr const char* kMessagesKey = "messages";

// The key that holds a row's text or chat.
std::string content_key(const SourceOptions& options, const json& row) {
  const bool chat = !row.contains(options.text_key) && row.contains(kMessagesKey);
  return chat ? kMessagesKey : options.text_key;
}

// Under `key`.
Status read_label(const json& value, const std::string& key, Document* document) {
  if (value.is_string()) {
    document->labels.emplace_back(value.get<std::string>());
    if (!value.get_ref<const std::string&>().empty()) return {};
    return document->refuse(key, "\"\"", "must not be empty");
  }
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
    return document->refuse(key, shown_json(value), "must be an integer or a string");
  }
  document->labels.emplace_back(value.get<int64_t>());
  return {};
}

// Which of the choices is right: they have no names.
Status check_choice(const json& value, const std::string& key, const Document& document) {
  if (value.is_number_integer()) return {};
  return document.refuse(key, shown_json(value), "must be the number of a choice, from 0");
}

Status read_labels(const SourceOptions& options, const json& row, Document* document) {
  const std::string& key = options.label_key;
  const auto found = row.find(key);
  if (found == row.end()) return lacks(*document, key, row);
  if (options.answers) return read_answers(key, *found, document);
  if (options.choices > 0) WEFT_RETURN_IF_ERROR(check_choice(*found, key, *document));
  if (!options.words) return read_label(*found, key, document);
  if (!found->is_array()) {
    return document->refuse(key, shown_json(*found), "must be a list with a label for each word");
  }
  if (found->size() != document->words.size()) {
    return document->refuse(
        key, std::to_string(found->size()) + " labels",
        "must have one for each of the " + std::to_string(document->words.size()) + " words");
  }
  for (size_t i = 0; i < found->size(); ++i) {
    WEFT_RETURN_IF_ERROR(read_label((*found)[i], join_index(key, i), document));
  }
  return {};
}

Status read_choices(const SourceOptions& options, const json& list, Document* document) {
  const std::string& key = options.pair_key;
  if (!list.is_array()) {
    return document->refuse(key, shown_json(list),
                            "must be a list of texts, as in [\"one\", \"two\"]");
  }
  if (static_cast<int64_t>(list.size()) != options.choices) {
    return document->refuse(key, std::to_string(list.size()) + " texts",
                            "must have " + std::to_string(options.choices) +
                                ", as the task has labels: " + std::to_string(options.choices));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string at = join_index(key, i);
    if (!list[i].is_string()) return document->refuse(at, shown_json(list[i]), "must be a string");
    document->choices.push_back(list[i].get<std::string>());
  }
  return {};
}

Status read_words(const SourceOptions& options, const json& list, Document* document) {
  if (!list.is_array()) {
    return document->refuse(options.text_key, shown_json(list),
                            "must be a list of words, as in [\"one\", \"two\"]");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string at = join_index(options.text_key, i);
    if (!list[i].is_string()) return document->refuse(at, shown_json(list[i]), "must be a string");
    document->words.push_back(list[i].get<std::string>());
    if (document->words.back().empty()) return document->refuse(at, "\"\"", "must not be empty");
  }
  return {};
}

Status read_pair(const SourceOptions& options, const json& row, Document* document) {
  const std::string& key = options.pair_key;
  const auto found = row.find(key);
  if (found == row.end()) return lacks(*document, key, row);
  if (options.choices > 0) return read_choices(options, *found, document);
  if (!found->is_string()) return document->refuse(key, shown_json(*found), "must be a string");
  document->pair = found->get_ref<const std::string&>();
  return {};
}

// The line once more, with the order of its keys, which templates may write out.
Result<Conversation> read_chat(std::string_view line, const ParseLimits& limits,
                               const std::string& key) {
  WEFT_ASSIGN_OR_RETURN(const JsonValue row, parse_json(line, limits));
  return Conversation::read(key, *row.find(key), row.find("tools"));
}

Status visit_line(const SourceOptions& options, std::string_view line, Document document,
                  const std::function<Status(const Document&)>& visit) {
  WEFT_ASSIGN_OR_RETURN(const json row,
                        read_row(line, options.line_bytes_max, document, "{\"text\": \"...\"}"));
  const std::string key = content_key(options, row);
  const auto content = row.find(key);
  if (content == row.end()) return lacks(document, options.text_key, row);
  if (options.words) {
    WEFT_RETURN_IF_ERROR(read_words(options, *content, &document));
  } else if (content->is_string() && key == options.text_key) {
    document.text = content->get_ref<const std::string&>();
  } else if (!content->is_array()) {
    return document.refuse(key, shown_json(*content),
                           key == options.text_key ? "must be a string, or a list of messages"
                                                   : "must be a list of messages");
  }
  if (!options.pair_key.empty()) WEFT_RETURN_IF_ERROR(read_pair(options, row, &document));
  if (!options.label_key.empty()) WEFT_RETURN_IF_ERROR(read_labels(options, row, &document));
  if (options.words || !document.text.empty() || content->is_string()) return visit(document);
  const Result<Conversation> chat = read_chat(line, line_limits(options.line_bytes_max), key);
  if (!chat) return document.refuse(chat.error());
  document.text = line;
  document.chat = &*chat;
  return visit(document);
}

Status visit_image(const SourceOptions& options, std::string_view bytes, const std::string& name,
                   const std::function<Status(const Document&)>& visit) {
  Document document;
  document.file = name;
  const fs::path path(name);
  if (!options.label_key.empty()) {
    const std::string parent = path.parent_path().string();
    if (parent.empty() || parent.find('/') != std::string::npos || !is_image_name(name)) {
      return document.refuse("file", name,
                             "must be CLASS/NAME.png, .jpg or .jpeg: an image in a folder that has "
                             "the name of its class");
    }
    document.labels.emplace_back(parent);
  }
  const Status status = check_image(bytes);
  return status.ok() ? visit(document) : document.refuse(status);
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

bool is_image_name(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

Status for_each_row(std::string_view bytes, const std::string& name, const SourceOptions& options,
                    const std::function<Status(const Document&)>& visit) {
  return for_each_line(bytes, name, [&](std::string_view line, Document document) {
    return visit_line(options, line, std::move(document), visit);
  });
}

Status for_each_document(const std::vector<SourceFile>& files, const SourceOptions& options,
                         const std::function<Status(const Document&)>& visit) {
  if (options.format == InputFormat::kAudio) return for_each_recording(files, options, visit);
  for (const SourceFile& file : files) {
    const Result<data::MappedFile> mapped = data::MappedFile::open(file.path);
    if (!mapped) return mapped.error().with_prefix(file.name);
    if (options.format == InputFormat::kJsonl) {
      WEFT_RETURN_IF_ERROR(for_each_row(mapped->bytes(), file.name, options, visit));
    } else if (options.format == InputFormat::kImages) {
      WEFT_RETURN_IF_ERROR(visit_image(options, mapped->bytes(), file.name, visit));
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
