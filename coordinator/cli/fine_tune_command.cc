#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <numeric>
#include <optional>
#include <set>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/fine_tune_facts.h"
#include "coordinator/cli/job_file.h"
#include "proto/json/names.h"
#include "proto/json/writer.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/models/model.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSequenceLengthMax = 128;  // where nobody asks for more
constexpr int64_t kBatchSize = 8;
constexpr const char* kWrites = "seq2seq";
constexpr const char* kHears = "speech_recognition";

// What the job file is written from; each choice with its reason.
struct Plan {
  std::string name, task, sequence_reason, labels_reason, task_reason;
  ModelFacts model;
  DataFacts data;
  std::optional<DataFacts> validation;
  int64_t sequence_length = 0, labels = 0;
  std::string classifier = "classify";  // name of a task with labels
};

// A job's name from the data's: letters, digits, "_", "-".
std::string default_name(const std::string& data) {
  std::string name = fs::path(data).lexically_normal().stem().string();
  if (name.empty() || name == ".") name = fs::path(data).parent_path().filename().string();
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-') c = '_';
  }
  while (!name.empty() && (name.front() == '_' || name.front() == '-')) name.erase(0, 1);
  return name.empty() ? "fine-tune" : "tune-" + name.substr(0, 100);
}

bool hears(const ModelFacts& model) {
  return std::ranges::find(model.tasks, kHears) != model.tasks.end();
}

std::string positions_text(int64_t positions) {
  return positions == kAnyLength ? "no longest row" : fmt::format("{} positions", positions);
}

// Names of the data's classes that the head has not.
int64_t lacking(const HeadFacts& head, const DataFacts& data) {
  const std::set<std::string> has(head.names.begin(), head.names.end());
  return std::ranges::count_if(data.names,
                               [&](const std::string& name) { return !has.contains(name); });
}

bool has_classes_of(const HeadFacts& head, const DataFacts& data) {
  return !data.names.empty() && lacking(head, data) == 0;
}

// Whether a task of `labels` classes takes the head over (worker/admission/head_classes.h).
bool fits(const HeadFacts& head, const DataFacts& data, int64_t labels) {
  if (head.labels != labels) return false;
  if (head.names.empty() || data.names.empty()) return true;
  return static_cast<int64_t>(head.names.size()) + lacking(head, data) <= labels;
}

// The head that has all of the data's classes, else the one that the task would have by its name.
const HeadFacts* head_for(const Plan& plan) {
  const HeadFacts* named = nullptr;
  for (const HeadFacts& head : plan.model.classifiers) {
    if (head.type != plan.task) continue;
    if (has_classes_of(head, plan.data)) return &head;
    if (head.task.empty() || head.task == plan.classifier) named = &head;
  }
  return named;
}

// Why a task of `labels` classes, of which the data has `found`, begins a new head.
std::string why_new(const HeadFacts* head, const DataFacts& data, int64_t found, int64_t labels) {
  if (head == nullptr) return "the model has none for this task";
  if (head->labels == labels) return "the model's has other classes";
  const bool might = head->labels >= found && fits(*head, data, head->labels);
  return fmt::format("the model's has {} classes{}", head->labels,
                     might ? fmt::format(", --labels {} keeps it", head->labels) : "");
}

// Whether the task is asked for that the model learns.
Status check_asked(const FineTuneOptions& options, const ModelFacts& model) {
  const std::vector<std::string>& learned = model.tasks;
  if (options.task.empty() || learned.empty()) return {};
  if (std::ranges::find(learned, options.task) != learned.end()) return {};
  return Status::invalid("--task", options.task,
                         "must be one that " + model.family + " learns: " + one_of(learned));
}

// The same of what the data is for, where nobody asks.
Status check_chosen(const FineTuneOptions& options, const Plan& plan) {
  const std::vector<std::string>& learned = plan.model.tasks;
  if (learned.empty() || std::ranges::find(learned, plan.task) != learned.end()) return {};
  return Status::invalid(
      "DATA", options.data,
      fmt::format("must be for a task that {} learns, {}; it is for {}, as {}{}", plan.model.family,
                  one_of(learned), plan.task, plan.task_reason,
                  learned.size() > 1 ? "; --task names another" : ""));
}

bool predicts_in_order(const ModelFacts& model) {
  return std::ranges::find(model.tasks, "permutation_lm") != model.tasks.end();
}

void choose_task(const FineTuneOptions& options, Plan& plan) {
  plan.task = !options.task.empty()           ? options.task
              : plan.data.audio               ? kHears
              : plan.data.images              ? "image_classification"
              : plan.model.writes             ? kWrites
              : plan.data.chats               ? "causal_lm"
              : plan.data.choices > 0         ? "multiple_choice"
              : plan.data.answers             ? "question_answering"
              : plan.data.words               ? "token_classification"
              : plan.data.classes             ? "sequence_classification"
              : plan.data.pairs               ? "embedding"
              : !plan.model.encoder           ? "causal_lm"
              : predicts_in_order(plan.model) ? "permutation_lm"
                                              : "masked_lm";
  const char* model = plan.model.encoder ? ", the model is an encoder" : "";
  plan.task_reason =
      !options.task.empty() ? "as asked for"
      : plan.data.audio     ? "the data is recordings"
      : plan.data.images    ? "the data is images"
      : plan.model.writes   ? "the model is an encoder and a decoder"
      : !plan.data.jsonl    ? fmt::format("the data is text{}", model)
      : plan.data.chats     ? "the rows are chats"
      : plan.data.choices > 0
          ? fmt::format("the rows' '{}' is a list", printable(plan.data.pair_key))
      : plan.data.answers ? "the rows have question, context and answers"
      : plan.data.words   ? fmt::format("the rows' '{}' is a list", printable(plan.data.text_key))
      : plan.data.classes
          ? fmt::format("the rows have the key '{}'", printable(plan.data.label_key))
      : plan.data.pairs
          ? fmt::format("the rows have no key '{}', but a second text",
                        printable(plan.data.label_key))
          : fmt::format("the rows have no key '{}'{}", printable(plan.data.label_key), model);
}

// A label is the number of a choice, whatever head tells them apart.
Status choose_choices(const FineTuneOptions& options, Plan& plan) {
  plan.labels = plan.data.choices;
  plan.labels_reason = "as many as a row has choices";
  plan.classifier = "choose";
  for (const HeadFacts& head : plan.model.classifiers) {
    if (head.type == plan.task && !head.task.empty()) plan.classifier = head.task;
  }
  if (options.labels > 0 && options.labels != plan.labels) {
    return Status::invalid(
        "--labels", std::to_string(options.labels),
        fmt::format("must be left out, or {}, as many as a row has choices", plan.labels));
  }
  if (!plan.validation || plan.validation->choices == plan.data.choices) return {};
  return Status::invalid(
      "--validation", options.validation,
      fmt::format("must have {} choices a row, as the training data has", plan.data.choices));
}

Status choose_labels(const FineTuneOptions& options, Plan& plan) {
  if (plan.data.choices > 0) return choose_choices(options, plan);
  if (!plan.data.classes) {
    if (options.labels == 0) return Status();
    return Status::invalid(
        "--labels", std::to_string(options.labels),
        "is for a classification; this is " + plan.task + ": " + plan.task_reason);
  }
  int64_t found = plan.data.labels;
  if (plan.validation && plan.validation->names.empty()) {
    found = std::max(found, plan.validation->labels);
  }
  if (found < 2) {
    return Status::invalid("DATA", options.data,
                           plan.data.images
                               ? "must have at least two classes, each a folder of its images"
                               : "must have at least two classes; all rows have the same label");
  }
  if (options.labels > 0 && options.labels < found) {
    return Status::invalid("--labels", std::to_string(options.labels),
                           fmt::format("the data has {} classes", found));
  }
  const HeadFacts* head = head_for(plan);
  const bool has_all = head != nullptr && has_classes_of(*head, plan.data);
  if (has_all && !head->task.empty()) plan.classifier = head->task;
  plan.labels = options.labels > 0 ? options.labels : has_all ? head->labels : found;
  plan.labels_reason = options.labels > 0        ? "as asked for"
                       : has_all                 ? "the model's, which has all of the data's"
                       : plan.data.names.empty() ? "the largest label and one"
                                                 : "as many as there are different labels";
  const bool known = plan.model.positions > 0;
  if (known && (head == nullptr || !fits(*head, plan.data, plan.labels))) {
    plan.labels_reason += "; new head: " + why_new(head, plan.data, found, plan.labels);
  }
  return Status();
}

// What images and recordings have no use for, and only images have.
Status check_options_of_files(const FineTuneOptions& options, const Plan& plan) {
  if (options.augment && !plan.data.images) {
    return Status::invalid("--augment", "", "is for images; this is " + plan.task);
  }
  if (!plan.data.images && !plan.data.audio) return {};
  if (options.sequence_length > 0) {
    return Status::invalid("--sequence-length", std::to_string(options.sequence_length),
                           std::string("is for texts: the tokens of ") +
                               (plan.data.audio ? "a recording" : "an image") +
                               " follow from the model");
  }
  const std::string unused = plan.data.audio ? std::string() : options.tokenizer;
  for (const auto& [option, given] : {std::pair{"--tokenizer", &unused},
                                      {"--text-key", &options.text_key},
                                      {"--label-key", &options.label_key}}) {
    if (given->empty()) continue;
    return Status::invalid(
        option, *given,
        std::string("is for texts; the data is ") + (plan.data.audio ? "recordings" : "images"));
  }
  return {};
}

Status choose_sequence_length(const FineTuneOptions& options, Plan& plan) {
  const bool known = plan.model.positions > 0;
  const int64_t positions = known ? plan.model.positions : kSequenceLengthMax;
  if (known && options.sequence_length > positions) {
    return Status::invalid("--sequence-length", std::to_string(options.sequence_length),
                           fmt::format("must be at most the model's {} positions", positions));
  }
  if (options.sequence_length > 0) {
    plan.sequence_length = options.sequence_length;
    plan.sequence_reason = "as asked for";
    return Status();
  }
  plan.sequence_length = std::min(positions, kSequenceLengthMax);
  plan.sequence_reason =
      !known ? "the model's positions are not known here; --sequence-length takes another"
      : positions <= kSequenceLengthMax
          ? "all of the model's positions"
          : fmt::format("the model has {}; --sequence-length takes more",
                        positions_text(positions));
  return Status();
}

// Options that nothing would come of.
Status check_use(const FineTuneOptions& options, const Plan& plan) {
  const bool labeled = plan.labels > 0 || plan.data.answers;
  const std::string task = "; this is " + plan.task + ": " + plan.task_reason;
  if (!labeled && !options.label_key.empty()) {
    return Status::invalid("--label-key", options.label_key, "is for labels" + task);
  }
  if (!plan.data.jsonl && !plan.data.audio && !options.text_key.empty()) {
    return Status::invalid("--text-key", options.text_key, "is for JSONL; the data is text");
  }
  if (plan.task != kWrites && plan.task != kHears && options.target_length > 0) {
    return Status::invalid("--target-length", std::to_string(options.target_length),
                           std::string("is for a ") + kWrites + " or a " + kHears + task);
  }
  return {};
}

Status check_tokenizer(const FineTuneOptions& options, const ModelFacts& model) {
  if (options.tokenizer.empty()) {
    if (model.has_tokenizer) return Status();
    std::error_code none;
    const bool sentencepiece = fs::exists(fs::path(model.from) / kSentencePieceFile, none);
    return Status::invalid("--tokenizer", "",
                           "must be given, as byte or as a tokenizer.json: " + model.from +
                               " has " + no_tokenizer_json(sentencepiece, model.from));
  }
  std::error_code error;
  if (options.tokenizer != "byte" && !is_id(options.tokenizer) &&
      !fs::exists(options.tokenizer, error)) {
    return Status::invalid("--tokenizer", options.tokenizer,
                           "must be byte, a tokenizer.json on this machine or an object's id");
  }
  return Status();
}

Result<Plan> make_plan(const Context& context, const FineTuneOptions& options) {
  Plan plan;
  plan.name = options.name.empty() ? default_name(options.data) : options.name;
  WEFT_ASSIGN_OR_RETURN(plan.model, find_model(context, options.model));
  WEFT_RETURN_IF_ERROR(check_asked(options, plan.model));
  FineTuneOptions asked = options;
  if (asked.task.empty() && plan.model.writes) asked.task = hears(plan.model) ? kHears : kWrites;
  WEFT_ASSIGN_OR_RETURN(plan.data, find_data(context, "DATA", options.data, asked));
  choose_task(options, plan);
  WEFT_RETURN_IF_ERROR(check_chosen(options, plan));
  if (!options.validation.empty()) {
    FineTuneOptions same = options;
    same.task = plan.task;
    WEFT_ASSIGN_OR_RETURN(plan.validation,
                          find_data(context, "--validation", options.validation, same));
    if (plan.validation->jsonl != plan.data.jsonl || plan.validation->audio != plan.data.audio ||
        plan.validation->images != plan.data.images) {
      return fail(Status::invalid("--validation", options.validation,
                                  "must be of the same format as the training data"));
    }
  }
  WEFT_RETURN_IF_ERROR(choose_labels(options, plan));
  WEFT_RETURN_IF_ERROR(check_options_of_files(options, plan));
  if (!plan.data.images) {
    WEFT_RETURN_IF_ERROR(check_use(options, plan));
    if (!plan.data.audio) WEFT_RETURN_IF_ERROR(choose_sequence_length(options, plan));
    WEFT_RETURN_IF_ERROR(check_tokenizer(options, plan.model));
  }
  if (plan.model.heads > 0 && options.slots > plan.model.heads) {
    return fail(Status::invalid(
        "--slots", std::to_string(options.slots),
        fmt::format("must be at most the model's {} attention heads", plan.model.heads)));
  }
  return plan;
}

std::string data_text(const FineTuneOptions& options, const Plan& plan) {
  std::string text = fmt::format("{{train: {}", quote_json(plan.data.path));
  if (plan.validation) text += fmt::format(", validation: {}", quote_json(plan.validation->path));
  const char* format = plan.data.images  ? "images"
                       : plan.data.audio ? "audio"
                       : plan.data.jsonl ? "jsonl"
                                         : "text";
  text += fmt::format(", format: {}", format);
  if (options.augment) text += ", augment: true";
  if (plan.data.jsonl && !options.text_key.empty()) {
    text += ", text: " + quote_json(options.text_key);
  }
  const bool labeled = (plan.labels > 0 && plan.data.jsonl) || plan.data.answers;
  if (labeled && !options.label_key.empty()) {
    text += ", label: " + quote_json(options.label_key);
  }
  if ((plan.data.pairs || plan.data.audio) && !options.pair_key.empty()) {
    text += plan.task == kWrites || plan.data.audio ? ", target: " : ", text_pair: ";
    text += quote_json(options.pair_key);
  }
  return text + "}";
}

std::string tokenizer_text(const std::string& tokenizer) {
  if (tokenizer.empty()) return "";
  if (tokenizer == "byte") return "tokenizer: {type: byte}\n";
  return fmt::format(
      "tokenizer: {{type: tokenizer_json, from: {}}}\n",
      quote_json(is_id(tokenizer) ? tokenizer
                                  : fs::absolute(tokenizer).lexically_normal().string()));
}

// The line of the adapter; empty: none is asked for.
std::string adapter_text(const FineTuneOptions& options) {
  if (options.lora_rank == 0) return "";
  std::string text = fmt::format("adapter: {{type: lora, rank: {}", options.lora_rank);
  if (options.lora_alpha > 0) text += fmt::format(", alpha: {}", options.lora_alpha);
  std::string targets;
  for (const std::string& target : options.lora_targets) {
    targets += (targets.empty() ? "" : ", ") + quote_json(target);
  }
  if (!targets.empty()) text += ", targets: [" + targets + "]";
  if (options.dora) text += ", dora: true";
  return text + "}\n";
}

// Sequences a step, of which whole questions have a choice each.
int64_t batch_size(const FineTuneOptions& options, const Plan& plan) {
  if (options.batch_size > 0) return options.batch_size;
  const int64_t together = std::max<int64_t>(1, plan.data.choices);
  return (kBatchSize + together - 1) / together * together;
}

std::string job_text(const FineTuneOptions& options, const Plan& plan) {
  std::string out = fmt::format(
      "# Written by 'weft fine-tune'; 'weft submit -f' submits it again.\n"
      "name: {}\nkind: fine_tune\nmodel: {{from: {}}}\n{}{}tasks:\n"
      "  - name: {}\n    type: {}  # {}\n",
      quote_json(plan.name), quote_json(plan.model.from), adapter_text(options),
      tokenizer_text(options.tokenizer),
      plan.labels > 0            ? quote_json(plan.classifier)
      : plan.task == "embedding" ? "embed"
      : plan.data.answers        ? "answer"
      : plan.task == kWrites     ? "write"
      : plan.data.audio          ? "transcribe"
                                 : "lm",
      plan.task, plan.task_reason);
  if (plan.labels > 0) {
    out += fmt::format("    labels: {}  # {}\n", plan.labels, plan.labels_reason);
  }
  out += fmt::format("    data: {}\n", data_text(options, plan));
  out += fmt::format("training:\n  steps: {}\n  batch_size: {}\n", options.steps,
                     batch_size(options, plan));
  if (!plan.data.images && !plan.data.audio) {
    out += fmt::format("  sequence_length: {}  # {}\n", plan.sequence_length, plan.sequence_reason);
  }
  if (options.target_length > 0) {
    out += fmt::format("  target_length: {}  # as asked for\n", options.target_length);
  }
  out += "  gradient_clip: 1.0\n";
  if (plan.validation) {
    out += fmt::format("  evaluate_every: {}\n", std::max(1, options.steps / 10));
  }
  out += fmt::format(
      "  optimizer: {{type: adamw, learning_rate: {}, weight_decay: 0.01}}\n"
      "  schedule: {{type: linear, warmup_steps: {}}}\n",
      options.learning_rate, std::min(options.steps / 10, 100));
  out += fmt::format("checkpoint: {{every_steps: {}, keep_last: 2{}}}\n",
                     std::max(1, options.steps / 4), plan.validation ? ", keep_best: true" : "");
  out += fmt::format("parallel: {{tensor: {}}}\n", options.slots);
  return out;
}

// "1 file", "16 rows", "9 recordings of 17 s".
std::string counted(const DataFacts& data) {
  const bool rows = data.jsonl && !is_id(data.path), heard = !data.seconds.empty();
  const std::string all = fmt::format("{} {}{}", data.documents,
                                      rows    ? "row"
                                      : heard ? "recording"
                                              : "file",
                                      data.documents == 1 ? "" : "s");
  if (!heard) return all;
  const double seconds = std::accumulate(data.seconds.begin(), data.seconds.end(), 0.0);
  return all + fmt::format(" of {:.0f} s", seconds);
}

// What a model hears nothing of.
std::string cut_text(const Plan& plan) {
  const auto longest = static_cast<double>(plan.model.seconds);
  const auto cut =
      std::ranges::count_if(plan.data.seconds, [&](double seconds) { return seconds > longest; });
  if (cut == 0 || plan.model.seconds == 0) return "";
  return fmt::format("           {} {} longer than {} s: what is behind is left out\n", cut,
                     cut == 1 ? "is" : "are", plan.model.seconds);
}

void tell(const FineTuneOptions& options, const Plan& plan, const std::string& path) {
  const bool known = plan.model.positions > 0;
  std::string out =
      plan.model.seconds > 0
          ? fmt::format("model:     {}, {} s of a recording, {} tokens in its vocabulary\n",
                        plan.model.family, plan.model.seconds, plan.model.vocabulary)
      : plan.model.image_size > 0
          ? fmt::format("model:     {}, images of {} x {} pixels\n", plan.model.family,
                        plan.model.image_size, plan.model.image_size)
      : known ? fmt::format("model:     {}, {}, {} tokens in its vocabulary\n", plan.model.family,
                            positions_text(plan.model.positions), plan.model.vocabulary)
              : fmt::format("model:     {}\n", plan.model.from);
  out += fmt::format(
      "data:      {}, {}\n{}"
      "task:      {} ({})\n",
      counted(plan.data), show_bytes(plan.data.bytes), cut_text(plan), plan.task, plan.task_reason);
  if (plan.labels > 0) {
    out += fmt::format("labels:    {} ({})\n", plan.labels, plan.labels_reason);
  }
  if (!plan.data.images && !plan.data.audio) {
    out += fmt::format("sequence:  {} tokens ({})\n", plan.sequence_length, plan.sequence_reason);
  }
  if (options.target_length > 0) {
    out += fmt::format("targets:   {} tokens (as asked for)\n", options.target_length);
  }
  print(out + fmt::format("wrote {}\n", printable(path)));
}

// The job file, unless other content stands there already.
Status write_job(const std::string& path, const std::string& text) {
  std::error_code error;
  if (fs::exists(path, error)) {
    WEFT_ASSIGN_OR_RETURN(const std::string old, read_text_file(path));
    if (old == text) return Status();
    return Status::invalid("--file", path,
                           "must not exist with other content; name another file or remove it");
  }
  return write_text_file(path, text, 0644);
}

}  // namespace

int fine_tune(const Context& context, const FineTuneOptions& options) {
  const Result<Plan> plan = make_plan(context, options);
  if (!plan) return report(context, plan.error());
  const std::string text = job_text(options, *plan);
  Result<JobFile> file = parse_job_file(text, "job file", fs::current_path().string(), {});
  if (!file) return report(context, file.error());
  const Result<proto::JobSpec> whole = check_job(*file);
  if (!whole) return report(context, Status(whole.error()).with_line(0));
  if (options.dry_run) {
    if (context.json) {
      print_json(*whole);
    } else {
      print(text);
    }
    return kExitOk;
  }
  const std::string path = options.file.empty() ? plan->name + ".yaml" : options.file;
  if (Status status = write_job(path, text); !status.ok()) return report(context, status);
  if (!context.json) tell(options, *plan, path);
  SubmitOptions submission;
  submission.wait = options.wait;
  return submit_file(context, *file, submission);
}

}  // namespace weft::cli
