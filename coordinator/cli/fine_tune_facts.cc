#include "coordinator/cli/fine_tune_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "coordinator/cli/checkpoint_export.h"
#include "coordinator/cli/job_file.h"
#include "coordinator/cli/upload.h"
#include "proto/json/job_rules.h"
#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "proto/object.pb.h"
#include "worker/admission/head_classes.h"
#include "worker/data/source.h"
#include "worker/models/audio_layout.h"
#include "worker/models/hf_folder.h"
#include "worker/models/learned_tasks.h"
#include "worker/serve/loaded_model.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kImageTask = "image_classification";
constexpr std::string_view kSpeechTask = "speech_recognition";
constexpr const char* kNeedsRows =
    "must be JSONL (*.jsonl) for a classification: each row a text and its label, or a list of "
    "words and one of labels";

std::vector<HeadFacts> classifiers_of(const proto::CheckpointManifest& manifest) {
  std::vector<HeadFacts> heads;
  for (const proto::TaskSpec& task : manifest.tasks()) {
    if (task.labels() == 0) continue;
    heads.push_back({task.name(), task_type_name(task), task.labels(),
                     classes_of(&manifest, nullptr, proto::JobSpec(), task)});
  }
  return heads;
}

// Nothing is heard by a model of texts, whose layout makes none. What is wrong with the settings
// check_model tells.
int64_t seconds_of(const Result<AudioPreprocessor>& audio) { return audio ? audio->seconds() : 0; }

// given: its id, or a job's.
Result<ModelFacts> find_checkpoint(const Context& context, const std::string& given) {
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
  WEFT_ASSIGN_OR_RETURN(const std::string id, checkpoint_of(client, "MODEL", given));
  proto::CheckpointManifest manifest;
  WEFT_RETURN_IF_ERROR(client.get("checkpoints/" + encoded(id), manifest));
  const ModelFamily* family = find_family(manifest.family());
  if (family == nullptr) {
    return fail(Status::invalid("MODEL", manifest.family(), "must be one of " + known_families()));
  }
  const auto config = family->parse_config(struct_to_json(manifest.config()));
  if (!config) return fail(Status(config.error()).with_prefix(id + ": "));
  return ModelFacts{id,
                    manifest.family(),
                    (*config)->tokens_max(),
                    (*config)->heads,
                    (*config)->vocabulary,
                    (*config)->image.size,
                    seconds_of(AudioPreprocessor::parse("{}", layout_of((*config)->audio))),
                    true,
                    classifiers_of(manifest),
                    !(*config)->attention.causal,
                    (*config)->encodes_and_decodes(),
                    learned_tasks(**config)};
}

Result<ModelFacts> find_folder(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return fail(Status::invalid("MODEL", path,
                                "must be a checkpoint's id ('weft checkpoints' lists them), a "
                                "job's, or a Hugging Face folder on this machine"));
  }
  const Result<HfFolder> folder = open_hf_folder(path);
  if (!folder) return fail(local(folder.error()).with_field("MODEL"));
  std::vector<HeadFacts> heads;
  if (folder->labels > 0) {
    heads.push_back({"", std::string(task_type(*folder)), folder->labels, folder->label_names});
  }
  return ModelFacts{fs::absolute(path).lexically_normal().string(),
                    folder->config->family,
                    folder->config->tokens_max(),
                    folder->config->heads,
                    folder->config->vocabulary,
                    folder->config->image.size,
                    seconds_of(AudioPreprocessor::read(path, layout_of(folder->config->audio))),
                    !folder->tokenizer_file.empty(),
                    std::move(heads),
                    !folder->config->attention.causal,
                    folder->config->encodes_and_decodes(),
                    learned_tasks(*folder->config)};
}

bool is_rows(const SourceFile& file) {
  const std::string extension = fs::path(file.name).extension().string();
  return extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
}

struct Input {
  std::string option;
  DataFacts facts;
  std::vector<SourceFile> files;
  Status wrong(const std::string& value, const std::string& rule) const {
    return Status::invalid(option, value, rule);
  }
};

// Text has no zero bytes; what is packed, an image or a table of another program has.
Status check_text(const Input& input, const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string start(size_t{1} << 16, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (!in && in.gcount() == 0 && !in.eof()) return input.wrong(file, "must be readable");
  start.resize(static_cast<size_t>(in.gcount()));
  if (start.find('\0') == std::string::npos) return Status();
  return input.wrong(file, is_image_name(file)
                               ? "must be text or JSONL: it is an image, of which --task "
                                 "image_classification learns"
                               : "must be text or JSONL: it holds zero bytes");
}

// Whether the files are recordings, where no task says so.
bool are_recordings(const std::vector<SourceFile>& files, const std::string& task) {
  return task.empty() ? has_recordings_file(files) : task == kSpeechTask;
}

// Whether the files are images, where no task says so.
bool are_images(const std::vector<SourceFile>& files, const std::string& task) {
  if (!task.empty()) return task == kImageTask;
  return std::ranges::any_of(files,
                             [](const SourceFile& file) { return is_image_name(file.name); });
}

Result<Input> open_input(const std::string& option, const std::string& path,
                         const std::string& task) {
  Input input;
  input.option = option;
  std::error_code error;
  if (!fs::exists(path, error)) return fail(input.wrong(path, "must be a file or folder here"));
  input.facts.path = fs::absolute(path).lexically_normal().string();
  WEFT_ASSIGN_OR_RETURN(input.files, files_of({option, InputKind::kData, input.facts.path}));
  input.facts.audio = are_recordings(input.files, task);
  input.facts.images = !input.facts.audio && are_images(input.files, task);
  if (input.facts.images || input.facts.audio) return input;
  for (SourceFile& file : input.files) file.name = file.path;
  const auto rows = std::count_if(input.files.begin(), input.files.end(), is_rows);
  input.facts.jsonl = rows > 0;
  if (rows > 0 && rows < static_cast<int64_t>(input.files.size())) {
    return fail(input.wrong(path, "must hold either JSONL files or text files, not both"));
  }
  for (const SourceFile& file : input.files) {
    WEFT_RETURN_IF_ERROR(check_text(input, file.path));
  }
  return input;
}

// The first row, to see which keys there are.
Result<JsonValue> first_row(const Input& input) {
  for (const SourceFile& file : input.files) {
    std::ifstream in(file.path);
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      auto row = parse_json(line);
      if (row && row->is_object()) return std::move(*row);
      Document at;
      at.file = file.path;
      at.line = number;
      const std::string shown = shortened(line, 80);
      return fail(
          row ? at.refuse("line", shown, "must be one JSON object, as in {\"text\": \"...\"}")
              : at.refuse(Status(row.error()).with_value(shown)));
    }
  }
  return fail(input.wrong(input.facts.path, "must hold at least one row"));
}

constexpr const char* kAnswers = "question_answering";
constexpr const char* kChooses = "multiple_choice";
constexpr const char* kChoicesKey = "choices";

// With the keys that the task has where no others are given; a second text's stays empty where
// rows have none.
FineTuneOptions with_keys(FineTuneOptions options) {
  const bool answers = options.task == kAnswers;
  if (options.text_key.empty()) options.text_key = answers ? "question" : "text";
  if (options.label_key.empty()) options.label_key = answers ? "answers" : "label";
  if (options.pair_key.empty() && answers) options.pair_key = "context";
  if (options.pair_key.empty() && options.task == "embedding") options.pair_key = "text_pair";
  if (options.pair_key.empty() && options.task == "seq2seq") options.pair_key = "target";
  if (options.pair_key.empty() && options.task == kSpeechTask) options.pair_key = "transcription";
  if (options.pair_key.empty() && options.task == kChooses) options.pair_key = kChoicesKey;
  return options;
}

// Whether nothing but the rows themselves says what is learned, and they are SQuAD's.
bool tell_answers(const FineTuneOptions& options, const JsonValue& row) {
  const auto has = [&](const char* key) { return row.find(key) != nullptr; };
  return options.task.empty() && options.text_key.empty() && options.label_key.empty() &&
         options.pair_key.empty() && has("question") && has("context") && has("answers");
}

// The same of a list of choices and a label.
bool tell_choices(const FineTuneOptions& options, const JsonValue& row) {
  const JsonValue* list = row.find(options.pair_key.empty() ? kChoicesKey : options.pair_key);
  const JsonValue* label = row.find(options.label_key.empty() ? "label" : options.label_key);
  return options.task.empty() && list != nullptr && list->is_array() && label != nullptr;
}

void look_for(const FineTuneOptions& options, DataFacts& facts) {
  const std::string& task = options.task;
  facts.text_key = options.text_key;
  facts.label_key = options.label_key;
  facts.pair_key = options.pair_key;
  facts.pairs = !options.pair_key.empty();
  facts.answers = task == kAnswers;
  facts.words = task == "token_classification";
  facts.classes = facts.words || facts.images || task == "sequence_classification";
}

Status check_keys(const Input& input, const JsonValue& row, const FineTuneOptions& options,
                  bool labeled) {
  std::string keys;
  for (const JsonMember& it : row.members) keys += (keys.empty() ? "" : ", ") + it.key;
  if (row.find(options.text_key) == nullptr && !input.facts.chats) {
    return input.wrong(
        input.facts.path,
        fmt::format("must have rows with the key '{}', not {} alone; --text-key names another",
                    options.text_key, keys));
  }
  const std::string& pair_key = options.pair_key;
  if (!pair_key.empty() && row.find(pair_key) == nullptr) {
    return input.wrong(
        input.facts.path,
        fmt::format("must have rows with the key '{}', not {} alone; --text-pair-key names another",
                    pair_key, keys));
  }
  if (labeled && row.find(options.label_key) == nullptr) {
    return input.wrong(
        input.facts.path,
        fmt::format("must have rows with the key '{}', not {} alone; --label-key names another",
                    options.label_key, keys));
  }
  return Status();
}

// Of the first row; all others have as many.
Result<int64_t> count_choices(const Input& input, const JsonValue& row, const std::string& key) {
  const JsonValue& list = *row.find(key);
  if (list.is_array() && list.items.size() >= 2) return std::ssize(list.items);
  return fail(input.wrong(shortened(list.shown(), 60),
                          fmt::format("'{}' must be a list of two texts or more, as in "
                                      "[\"one\", \"two\"]; --text-pair-key names another",
                                      printable(key))));
}

int64_t file_bytes(const SourceFile& file) {
  std::error_code gone;
  const auto bytes = fs::file_size(file.path, gone);
  return gone ? 0 : static_cast<int64_t>(bytes);
}

// Reads everything; where `classes`, also the labels.
Status count(Input& input, const FineTuneOptions& options) {
  DataFacts& facts = input.facts;
  SourceOptions source;
  source.format = facts.jsonl ? InputFormat::kJsonl : InputFormat::kText;
  source.text_key = options.text_key;
  if (facts.images) source.format = InputFormat::kImages;
  if (facts.audio) source.format = InputFormat::kAudio;
  source.choices = facts.choices;
  if (facts.classes || facts.answers || facts.choices > 0) source.label_key = options.label_key;
  source.pair_key = facts.jsonl || facts.audio ? options.pair_key : "";
  source.answers = facts.answers;
  source.words = facts.words;
  std::set<std::string> names;
  int64_t largest = -1;
  const auto visit = [&](const Document& document) -> Status {
    ++facts.documents;
    facts.bytes += std::ssize(document.text) + std::ssize(document.pair);
    for (const std::string& word : document.words) facts.bytes += std::ssize(word);
    for (const std::string& choice : document.choices) facts.bytes += std::ssize(choice);
    if (facts.images)
      facts.bytes += file_bytes(input.files[static_cast<size_t>(facts.documents - 1)]);
    if (document.recording != nullptr) {
      facts.bytes += file_bytes(*document.recording);
      facts.seconds.push_back(document.seconds);
    }
    for (const Label& label : document.labels) {
      if (const auto* name = std::get_if<std::string>(&label)) {
        names.insert(*name);
        continue;
      }
      const int64_t number = std::get<int64_t>(label);
      if (number < 0) {
        return document.refuse(options.label_key, std::to_string(number), "must not be below 0");
      }
      if (facts.choices > 0 && number >= facts.choices) {
        return document.refuse(
            options.label_key, std::to_string(number),
            fmt::format("must be below {}, the choices of a row", facts.choices));
      }
      largest = std::max(largest, number);
    }
    return Status();
  };
  WEFT_RETURN_IF_ERROR(for_each_document(input.files, source, visit));
  if (facts.bytes == 0) return input.wrong(facts.path, "must hold some text");
  if (!facts.classes) return Status();
  if (!names.empty() && largest >= 0) {
    return input.wrong(facts.path, "labels must be all integers or all strings");
  }
  facts.names.assign(names.begin(), names.end());
  facts.labels = names.empty() ? largest + 1 : static_cast<int64_t>(names.size());
  return Status();
}

Result<proto::ObjectManifest> find_object(const Context& context, const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
  proto::ObjectManifest object;
  WEFT_RETURN_IF_ERROR(client.get("objects/" + encoded(id), object));
  return object;
}

Result<ModelFacts> find_object_model(const Context& context, const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(const auto object, find_object(context, id));
  ModelFacts facts;
  facts.from = id;
  bool configured = false;
  for (const proto::ObjectFile& file : object.files()) {
    configured = configured || file.path() == "config.json";
    facts.has_tokenizer = facts.has_tokenizer || file.path() == "tokenizer.json";
  }
  if (configured) return facts;
  return fail(Status::invalid("MODEL", id, "must hold config.json: it is no Hugging Face folder"));
}

// An object's rows are not at hand: what they hold has to be said.
Result<DataFacts> find_object_data(const Context& context, const std::string& option,
                                   const std::string& id, const FineTuneOptions& given) {
  const FineTuneOptions options = with_keys(given);
  WEFT_ASSIGN_OR_RETURN(const auto object, find_object(context, id));
  DataFacts facts;
  facts.path = id;
  facts.documents = object.files_size();
  facts.bytes = object.bytes();
  std::vector<SourceFile> files;
  for (const proto::ObjectFile& file : object.files()) files.push_back({"", file.path()});
  facts.audio = are_recordings(files, options.task);
  if (facts.audio) {
    facts.pair_key = options.pair_key;
    if (has_recordings_file(files)) return facts;
    return fail(Status::invalid(option, id, "must hold metadata.jsonl beside its recordings"));
  }
  facts.images = are_images(files, options.task);
  if (facts.images) {
    look_for(options, facts);
    std::set<std::string> names;
    for (const SourceFile& file : files) names.insert(fs::path(file.name).parent_path().string());
    facts.names.assign(names.begin(), names.end());
    facts.labels = std::ssize(facts.names);
    return facts;
  }
  const auto rows = std::ranges::count_if(object.files(), [](const auto& file) {
    return is_rows({"", file.path()});
  });
  facts.jsonl = rows > 0;
  if (facts.jsonl && rows < facts.documents) {
    return fail(Status::invalid(option, id, "must hold either JSONL files or text files"));
  }
  look_for(options, facts);
  const bool labeled = facts.classes || options.task == kChooses;
  if (labeled && !facts.jsonl) return fail(Status::invalid(option, id, kNeedsRows));
  if (facts.jsonl && options.task.empty()) {
    return fail(
        Status::invalid("--task", "", "must be given: the rows of " + id + " are not read here"));
  }
  if (labeled && options.labels == 0) {
    return fail(
        Status::invalid("--labels", "", "must be given: the rows of " + id + " are not read here"));
  }
  facts.labels = options.labels;
  if (options.task == kChooses) facts.choices = options.labels;
  return facts;
}

}  // namespace

Result<ModelFacts> find_model(const Context& context, const std::string& model) {
  std::error_code error;
  if (fs::is_directory(model, error)) return find_folder(model);
  if (names_checkpoint(model)) return find_checkpoint(context, model);
  if (model.starts_with("obj-")) return find_object_model(context, model);
  return find_folder(model);
}

Result<DataFacts> find_data(const Context& context, const std::string& option,
                            const std::string& path, const FineTuneOptions& given) {
  if (path.starts_with("obj-")) return find_object_data(context, option, path, given);
  WEFT_ASSIGN_OR_RETURN(Input input, open_input(option, path, given.task));
  FineTuneOptions options = given;
  if (input.facts.audio) options.task = kSpeechTask;
  options = with_keys(options);
  look_for(options, input.facts);
  if (input.facts.audio) {
    WEFT_RETURN_IF_ERROR(count(input, options));
    return std::move(input.facts);
  }
  if (input.facts.jsonl) {
    WEFT_ASSIGN_OR_RETURN(const JsonValue row, first_row(input));
    if (const bool chooses = tell_choices(given, row); chooses || tell_answers(given, row)) {
      options = given;
      options.task = chooses ? kChooses : kAnswers;
      options = with_keys(options);
      look_for(options, input.facts);
    }
    const JsonValue* text = row.find(options.text_key);
    const bool list = text != nullptr && text->is_array();
    input.facts.chats = text == nullptr
                            ? row.find("messages") != nullptr
                            : list && !text->items.empty() && text->items[0].is_object();
    if (options.task.empty() && !input.facts.chats) {
      input.facts.words = list;
      input.facts.classes = list || row.find(options.label_key) != nullptr;
    }
    const bool chooses = options.task == kChooses;
    WEFT_RETURN_IF_ERROR(
        check_keys(input, row, options, input.facts.classes || input.facts.answers || chooses));
    if (chooses) {
      WEFT_ASSIGN_OR_RETURN(input.facts.choices, count_choices(input, row, options.pair_key));
    }
  } else if (input.facts.pairs) {
    return fail(input.wrong(path, "must be JSONL (*.jsonl) for pairs, with two texts a row"));
  } else if (input.facts.classes && !input.facts.images) {
    return fail(input.wrong(path, kNeedsRows));
  }
  WEFT_RETURN_IF_ERROR(count(input, options));
  return std::move(input.facts);
}

}  // namespace weft::cli
