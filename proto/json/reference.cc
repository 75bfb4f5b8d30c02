#include "google/protobuf/descriptor.h"
#include "proto/job.pb.h"
#include "proto/json/names.h"
#include "proto/json/rule_text.h"
#include "proto/json/schema.h"
#include "proto/json/value.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

constexpr std::string_view kIntroduction = R"(# The job file

<!-- Printed by bin/weft-reference from proto/job.proto; change it there. -->

A job file is YAML 1.2 (JSON is YAML too). `weft validate -f job.yaml` checks one without submitting
it; `--set training.steps=10` replaces one key. It is read strictly: an unknown or repeated key, a
wrong type or a value out of bounds is refused with the key's path, its line and the rule. Quoted
text is always a string; `yes` is a string, `010` is ten; anchors, aliases and tags are refused.

)";

constexpr std::string_view kRules = R"(## Rules across keys

- `kind: pretrain` takes exactly one task, `model.family` and `model.config`, and no `model.from`.
  [models](models.md) has the keys of `model.config` for each family.
- `kind: fine_tune` takes exactly one task and `model.from`.
- `kind: multi_task` takes two tasks or more, and either `model.from` or `model.family` with
  `model.config`.
- `tokenizer` is required where a model of texts is made from a configuration. `byte` needs a
  `vocab_size` of at least 257; `tokenizer_json` needs `tokenizer.from`, a tokenizer.json of
  BPE, WordPiece or Unigram ([tokenizers](tokenizers.md)).
- A task's name is unique in its job. `sequence_classification`, `token_classification` and
  `multiple_choice` need `labels` and the format jsonl, `image_classification` needs `labels`; no
  other task has `labels`, and only `masked_lm` and `permutation_lm` have `mask_rate`. `data.label`
  is for the first three and for `question_answering`.
- `causal_lm` is for decoders (gpt2, llama and the like); `masked_lm` and `token_classification` are
  for encoders (bert, roberta, distilbert; the second for xlnet, too). `masked_lm` needs a tokenizer
  with a mask token.
- `permutation_lm` is for xlnet and needs a `training.sequence_length` of at least 2: of so many
  tokens `mask_rate`, rounded, at least one and never all, are predicted.
- `embedding` is for encoders too, and needs the format jsonl; its rows are pairs of texts. Each is
  told apart from all others of the step, so `training.batch_size` is even and at least 4, and
  `training.micro_batch_size` is all rows of a rank.
  With `data.text_pair` a `sequence_classification` reads pairs, which needs a tokenizer whose
  post-processor puts two texts into one row.
- `multiple_choice` is for encoders and needs a tokenizer that makes pairs, too: each of a row's
  `labels` choices is read as a pair with the text, as a sequence of its own. A question's sequences
  stay together, so `training.batch_size`, which counts sequences, is a multiple of `labels` x
  `parallel.data` and `training.micro_batch_size` one of `labels`; with
  `training.reproducible: topology` the rows at once are one of `labels` x
  `training.reproducible_blocks`. A label is the number of the right choice.
- `question_answering` is for encoders and needs the format jsonl and a tokenizer that makes pairs:
  a question and its context, whole or in windows that share `data.stride` tokens, each a sequence
  with the whole question. A window needs room for more tokens of the context than that, or the row
  is refused. The first of a row's answers is learned, and where a window does not hold it whole,
  or there is none, that it begins and ends at the first token.
- `seq2seq` is for t5, which has no other task, and needs the format jsonl with a text and a
  `data.target`. `training.target_length` is for it and for `speech_recognition`, and at least
  `parallel.sequence`. Both refuse `adapter`.
- `speech_recognition` is for whisper, which has no other task. `training.sequence_length` is its
  `max_source_positions`, or left out, and `training.target_length` at most its
  `max_target_positions`, or left out; `parallel.sequence` is at most either. It needs the format
  audio, which no other task has: a folder of recordings with a metadata.jsonl, each line
  `{"file_name": "1.wav", "transcription": "..."}`, whose second key `data.target` names; it has
  none of the keys of jsonl. Each line and each recording's header is read at submission, of an
  uploaded object at the start; a recording that its decoder finds broken behind its header is an
  error where it is used. What is longer than the model hears is cut ([models](models.md)).
- xlnet is an encoder for `sequence_classification`, `token_classification`, `multiple_choice`,
  `embedding` and `permutation_lm`. It refuses `adapter` and, but with
  `training.reproducible: topology`, `parallel.sequence` above 1; a `permutation_lm` refuses
  `topology`.
- `image_classification` is for vit, and stands beside no task of texts. It needs the format images,
  which no other task has: files CLASS/NAME.png, .jpg or .jpeg, whose folders' names are the labels;
  held-out data has the same classes. There is no `tokenizer`, and none of the keys of jsonl. A
  broken image is an error where its header is read, at the start, or where it is used. How images
  become what the model reads is told by the preprocessor_config.json of `model.from`
  ([models](models.md)); of a model made from a configuration it is ViTImageProcessor's default.
- Labels of a classification are integers from 0, or strings, whose classes are numbered in the
  order of their names. A head that comes with `model.from` (of a checkpoint's task of the same
  name; of a folder, for a job of one task) is taken over where it has `labels` classes. Those that
  it has names for keep their numbers, so the data may have fewer; where it has more than fit, the
  head begins anew.
- `training.sequence_length` is at most the model's `n_positions` or `max_position_embeddings`, and
  for a causal_lm at least 2; of images it is (`image_size` / `patch_size`)² + 1, or left out, of
  recordings `max_source_positions`.
  `training.schedule.warmup_steps` is at most `training.steps`.
- With `training.reproducible: topology`, `parallel.data` x `sequence` x `tensor` divides
  `training.reproducible_blocks`, which is a power of two and divides the model's hidden and inner
  features and those of all queries and keys. `training.batch_size` is a multiple of the rows at
  once, `training.micro_batch_size` x `parallel.data`, and these are a multiple of the blocks, or
  divide them and share each row's tokens evenly; of a task that takes rows whole
  (classifications, embeddings, choices, answers, targets) they are a multiple. `parallel.tensor`
  divides the heads, though not those of keys, of which ranks may hold the same; the ranks that
  share a row need not divide its heads. An `adapter` has any rank. Refused are fp16 and
  `parallel.sequence_attention` of rings.
- `training.evaluate_every` needs a task with `data.validation`; `training.early_stop.patience`
  and `checkpoint.keep_best` need `training.evaluate_every`. The best is left out, as any
  checkpoint is, while the one before waits for room (event `checkpoint_skipped`).
- `resources.slots`, where given, is `parallel.data` x `parallel.sequence` x `parallel.tensor`;
  `resources.nodes` is at most that.
- Sizes need not divide evenly, but no rank may be left without work: `parallel.data` is at most
  `training.batch_size`, `parallel.sequence` at most `training.sequence_length`, `parallel.tensor`
  at most the model's `vocab_size`. `training.micro_batch_size` is at most the rows of one rank.
- `parallel.sequence_attention: ulysses_ring` needs `parallel.ulysses`, which no other has.
- `parallel: auto` (or `parallel.mode: auto`) stands alone: beside it only `parallel.bucket_bytes`
  may be given. The service takes exactly `resources.slots` where that is given, else at most the
  slots of its nodes, and keeps what it chose in the job. It looks at meshes whose tensor axis has
  no more ranks than there are heads, and whose sequence axis leaves each rank 16 tokens of a row.
)";

std::string type_text(const Field& field) {
  switch (field.cpp_type()) {
    case Field::CPPTYPE_INT32:
    case Field::CPPTYPE_INT64:
    case Field::CPPTYPE_UINT32:
    case Field::CPPTYPE_UINT64:
      return "integer";
    case Field::CPPTYPE_DOUBLE:
    case Field::CPPTYPE_FLOAT:
      return "number";
    case Field::CPPTYPE_BOOL:
      return "boolean";
    case Field::CPPTYPE_STRING:
      return "string";
    case Field::CPPTYPE_MESSAGE:
      return "object";
    case Field::CPPTYPE_ENUM:
      break;
  }
  std::string text;
  for (const std::string& name : enum_names(*field.enum_type())) {
    text += (text.empty() ? "`" : ", `") + name + "`";
  }
  return text;
}

std::string full_type_text(const Field& field) {
  if (const std::string& word = rule_of(field).word(); !word.empty()) {
    return "object, or " + type_text(*field.message_type()->FindFieldByName(word));
  }
  if (field.is_map()) return "object of " + type_text(*field.message_type()->map_value()) + "s";
  if (!field.is_repeated()) return type_text(field);
  return "list of " + type_text(field) + "s";
}

// A cell must not hold the table's own mark.
std::string cell(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (c == '|') result += '\\';
    result += c;
  }
  return result;
}

// A number or boolean without presence is zero where it is absent.
std::string default_text(const Field& field) {
  const proto::FieldRule& rule = rule_of(field);
  if (rule.required()) return "required";
  if (!rule.default_value().empty()) return "`" + rule.default_value() + "`";
  if (field.is_repeated() || field.has_presence()) return "";
  if (field.cpp_type() == Field::CPPTYPE_BOOL) return "`false`";
  bool text = field.cpp_type() == Field::CPPTYPE_STRING || field.cpp_type() == Field::CPPTYPE_ENUM;
  return text ? "" : "`0`";
}

std::string limits_text(const Field& field) {
  const proto::FieldRule& rule = rule_of(field);
  std::string text = bounds_short(rule);
  if (!text.empty() && field.is_repeated()) text += " elements";
  if (!text.empty() && !rule.unit().empty()) text += " " + rule.unit();
  if (!rule.pattern().empty()) text += (text.empty() ? "`" : "; `") + rule.pattern() + "`";
  return text;
}

bool has_section(const Field& field) {
  return field.message_type() != nullptr && !field.is_map() && !is_free_form(*field.message_type());
}

// `links`: the types of sub-messages by name, as links to their sections.
std::string type_cell(const Field& field, bool links) {
  const Field& value = field.is_map() ? *field.message_type()->map_value() : field;
  if (!links || !has_section(value)) return full_type_text(field);
  const std::string name = schema_name(*value.message_type());
  std::string anchor = name;
  for (char& c : anchor) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  const std::string_view before = field.is_map() ? "object of " : "list of ";
  return std::string(field.is_repeated() ? before : "") + "[" + name + "](#" + anchor + ")";
}

void add_table(const pb::Descriptor& type, std::string& page, bool links) {
  page += "| key | type | default | bounds | meaning |\n| --- | --- | --- | --- | --- |\n";
  for (int i = 0; i < type.field_count(); ++i) {
    const Field& field = *type.field(i);
    const proto::FieldRule& rule = rule_of(field);
    page += "| `" + field.name() + "` | " + cell(type_cell(field, links)) + " | " +
            cell(default_text(field)) + " | " + cell(limits_text(field)) + " | " +
            cell(rule.help()) + " |\n";
  }
  page += "\n";
}

void add_section(const pb::Descriptor& type, const std::string& path, std::string& page) {
  page += "## " + (path.empty() ? "Top level" : "`" + path + "`") + "\n\n";
  add_table(type, page, false);
  for (int i = 0; i < type.field_count(); ++i) {
    const Field& field = *type.field(i);
    if (!has_section(field)) continue;
    std::string where = join_key(path, field.name()) + (field.is_repeated() ? "[]" : "");
    add_section(*field.message_type(), where, page);
  }
}

}  // namespace

std::string reference_markdown(const pb::Descriptor& type) {
  std::string page;
  add_section(type, "", page);
  return page;
}

std::string schema_section(const pb::Descriptor& type) {
  std::string page = "### " + schema_name(type) + "\n\n";
  add_table(type, page, true);
  return page;
}

std::string job_file_reference() {
  return std::string(kIntroduction) + reference_markdown(*proto::JobSpec::descriptor()) +
         std::string(kRules);
}

}  // namespace weft
