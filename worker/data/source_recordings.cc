// Folders of recordings.
#include <algorithm>
#include <unordered_map>

#include "worker/data/audio/recording.h"
#include "worker/data/mapped_file.h"
#include "worker/data/source_rows.h"

namespace weft {
namespace {

constexpr const char* kExample = R"({"file_name": "1.wav", "transcription": "..."})";

// A file that a line may name, and the line that does.
struct Listed {
  const SourceFile* file = nullptr;
  int64_t line = 0;  // 0: none yet
};

// A row's string under `key`, not empty.
Status read_text(const nlohmann::json& row, const std::string& key, const Document& at,
                 std::string_view* text) {
  const auto found = row.find(key);
  if (found == row.end()) return lacks(at, key, row);
  if (!found->is_string()) return at.refuse(key, shown_json(*found), "must be a string");
  *text = found->get_ref<const std::string&>();
  return text->empty() ? at.refuse(key, "\"\"", "must not be empty") : Status();
}

}  // namespace

bool has_recordings_file(const std::vector<SourceFile>& files) {
  return std::ranges::find(files, kRecordingsFile, &SourceFile::name) != files.end();
}

Status for_each_recording(const std::vector<SourceFile>& files, const SourceOptions& options,
                          const std::function<Status(const Document&)>& visit) {
  const std::string key(kRecordingKey);
  std::unordered_map<std::string_view, Listed> recordings;
  const SourceFile* list = nullptr;
  for (const SourceFile& file : files) {
    if (file.name == kRecordingsFile) list = &file;
    recordings[file.name].file = &file;
  }
  if (list == nullptr) {
    return Status::invalid(
        std::string(kRecordingsFile), "absent",
        std::string("must be in the folder: a line for each recording, as in ") + kExample);
  }
  const Result<data::MappedFile> mapped = data::MappedFile::open(list->path);
  if (!mapped) return mapped.error().with_prefix(list->name);
  return for_each_line(
      mapped->bytes(), list->name, [&](std::string_view line, Document document) -> Status {
        WEFT_ASSIGN_OR_RETURN(const nlohmann::json row,
                              read_row(line, options.line_bytes_max, document, kExample));
        std::string_view name;
        WEFT_RETURN_IF_ERROR(read_text(row, key, document, &name));
        const auto found = recordings.find(name);
        if (found == recordings.end()) {
          return document.refuse(key, std::string(name),
                                 "must be a file of the folder, by its path in it");
        }
        Listed& listed = found->second;
        if (listed.line > 0) {
          return document.refuse(key, std::string(name),
                                 "must not stand there twice: line " + std::to_string(listed.line) +
                                     " has it already");
        }
        listed.line = document.line;
        if (!options.pair_key.empty()) {
          WEFT_RETURN_IF_ERROR(read_text(row, options.pair_key, document, &document.pair));
        }
        const Result<data::MappedFile> recording = data::MappedFile::open(listed.file->path);
        if (!recording) return document.refuse(recording.error().with_prefix(std::string(name)));
        const Result<RecordingHeader> header = read_recording_header(recording->bytes());
        if (!header) return document.refuse(header.error().with_prefix(std::string(name)));
        document.recording = listed.file;
        document.seconds = header->seconds();
        return visit(document);
      });
}

}  // namespace weft
