// Reads a job's inputs from their files, document by document: on a node from the staged objects,
// on the command line from the user's own files.
//
// text: each file is a document, in the order of the list. jsonl: each line is one, an object with
// the text under `text_key` and, for classification, its label under `label_key` (an integer or a
// string), or, of words, a list of words and a list of as many labels, and for a pair a second text
// under `pair_key`, or for a choice a list of texts and the number of one of them, or for a
// question a text under `pair_key` that answers are parts of; further keys are allowed, blank lines
// are skipped. Instead of a text there may be the messages of a chat (a list, as OpenAI's
// fine-tuning files have it), under `text_key` or, where that is absent, under "messages"; with the
// row's "tools", where it has some. images: each file is a document without a text, a PNG or JPEG
// file; with a label_key its label is the name of the folder it lies in. audio: each line of
// metadata.jsonl is one, an object with the path of a recording among the files under "file_name"
// and its text under `pair_key`.
//
// Thread safety: free functions. Ownership: none kept; a Document's views end with the visit.
// Invariant: an error about what a file holds names the file as its owner calls it, and the line;
// never a path of the node.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/chat/conversation.h"

namespace weft {

enum class InputFormat { kText, kJsonl, kImages, kAudio };

// Of a folder of recordings, as Hugging Face's AudioFolder has them.
inline constexpr std::string_view kRecordingsFile = "metadata.jsonl";
inline constexpr std::string_view kRecordingKey = "file_name";

struct SourceOptions {
  InputFormat format = InputFormat::kText;
  std::string text_key = "text";
  std::string label_key;  // empty: no labels are read
  std::string pair_key;   // empty: there is no second text
  bool words = false;     // the text is a list of words
  bool answers = false;   // the label is the answers to the text, parts of the second text
  int64_t choices = 0;    // the second text is a list of so many; 0: one text
  int64_t line_bytes_max = int64_t{16} << 20;
};

struct SourceFile {
  std::string path;  // where it lies on this machine
  std::string name;  // what its owner calls it, for messages
};

// A part of a text, and where it begins, in code points.
struct Answer {
  std::string text;
  int64_t start = 0;
};

// A class by its number or by its name.
using Label = std::variant<int64_t, std::string>;

struct Document {
  std::string_view text;             // of a chat, the line as it stands
  std::string_view pair;             // the second text
  std::vector<std::string> choices;  // the second texts, where it is a list
  const Conversation* chat = nullptr;
  std::vector<std::string> words;         // of a list of words, whose text is empty
  std::string file;                       // the file's name
  int64_t line = 0;                       // 1-based; 0: the whole file
  std::vector<Label> labels;              // the text's, or each word's; empty: none are read
  std::vector<Answer> answers;            // to the text, in the second text; empty: it holds none
  const SourceFile* recording = nullptr;  // whose text is the second one,
  double seconds = 0;                     // and how long it is
  // "held.jsonl line 12: label must be in [0, 8)", with its line.
  Status refuse(const std::string& key, const std::string& value, const std::string& rule) const;
  Status refuse(const Status& status) const;  // the same of a reader's error
};

// An object staged on a node: <objects_folder>/<object id>. Errors: an id that is no plain name, a
// missing folder.
Result<std::string> staged_input(const std::string& objects_folder, const std::string& object_id);

// The regular files at `path` (itself, or below it), sorted by path, named relative to it. Error:
// none, unreadable.
Result<std::vector<SourceFile>> input_files(const std::string& path);

// Whether a file is called as images are: *.png, *.jpg, *.jpeg, in any case.
bool is_image_name(const std::string& name);

// Whether the files are a folder of recordings: one is called metadata.jsonl.
bool has_recordings_file(const std::vector<SourceFile>& files);

// Stops at the first error, of the data or of `visit`. Errors name file, line, key and rule: not
// UTF-8 in jsonl, no object, missing key, wrong type, a line too long; a file that is no image or
// in no class' folder, an image's header; of recordings no metadata.jsonl, a file that is not
// there or has two lines, a recording's header. No document is no error.
Status for_each_document(const std::vector<SourceFile>& files, const SourceOptions& options,
                         const std::function<Status(const Document&)>& visit);

// The same of the bytes of a JSONL file, `name` to its owner.
Status for_each_row(std::string_view bytes, const std::string& name, const SourceOptions& options,
                    const std::function<Status(const Document&)>& visit);

}  // namespace weft
