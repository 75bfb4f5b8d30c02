// Reads a job's inputs from their staged folders, document by document.
//
// text: each file is a document, in the order of the files' paths. jsonl: each line is one, an
// object with the text under `text_key` and, for classification, its label under `label_key` (an
// integer or a string); further keys are allowed, blank lines are skipped.
//
// Thread safety: free functions. Ownership: none kept; a Document's views end with the visit.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace weft {

enum class InputFormat { kText, kJsonl };

struct SourceOptions {
  InputFormat format = InputFormat::kText;
  std::string text_key = "text";
  std::string label_key;  // empty: no labels are read
  int64_t line_bytes_max = int64_t{16} << 20;
};

struct Document {
  std::string_view text;
  std::string file;  // path below the input's folder
  int64_t line = 0;  // 1-based; 0: the whole file
  std::optional<int64_t> label;
  std::optional<std::string> label_name;  // where the label is a string
  // "held.jsonl line 12", for messages.
  std::string place() const;
};

// An object staged on a node: <objects_folder>/<object id>. Errors: an id that is no plain name, a
// missing folder.
Result<std::string> staged_input(const std::string& objects_folder, const std::string& object_id);

// The regular files at `path` (itself, or below it), sorted by path. Error: none, unreadable.
Result<std::vector<std::string>> input_files(const std::string& path);

// Stops at the first error, of the data or of `visit`. Errors name file, line and rule: not UTF-8
// in jsonl, no object, missing key, wrong type, a line too long, nothing to read.
Status for_each_document(const std::string& path, const SourceOptions& options,
                         const std::function<Status(const Document&)>& visit);

}  // namespace weft
