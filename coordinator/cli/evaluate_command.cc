#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/fine_tune_facts.h"
#include "coordinator/cli/local_input.h"
#include "coordinator/cli/local_model.h"
#include "coordinator/cli/progress_line.h"
#include "proto/json/job_rules.h"
#include "proto/json/names.h"
#include "proto/json/writer.h"
#include "worker/serve/evaluate.h"

namespace weft::cli {
namespace {

struct Evaluated {
  LocalModel model;
  ModelUse use;
  std::string type;  // of the task
  int64_t rows = 0, tokens = 0, cut_rows = 0;
  int64_t cut_recordings = 0, seconds = 0;  // of recordings: longer ones than so many
  std::map<std::string, double> metrics;
};

// The data by the keys and for the task of the model.
Result<DataFacts> facts_of(const Context& context, const EvaluateOptions& options,
                           const ModelUse& use, proto::TaskType type) {
  if (options.data.starts_with("obj-")) {
    return fail(Status::invalid("DATA", options.data,
                                "must be a file or folder here: an object's rows are not"));
  }
  FineTuneOptions keys;
  keys.task = enum_name(*proto::TaskType_descriptor()->FindValueByNumber(type));
  keys.text_key = use.text_key;
  keys.label_key = use.label_key;
  keys.pair_key = use.pair_key;
  return find_data(context, "DATA", options.data, keys);
}

bool is_integer(const std::string& text) {
  int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number);
  return read.ec == std::errc() && read.ptr == end;
}

// Whether labels that are integers can only be the classes' numbers.
Status check_numbers(const DataFacts& facts, const HfFolder& folder, const ModelUse& use) {
  const auto& names = folder.label_names;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!is_integer(names[i]) || names[i] == std::to_string(i)) continue;
    return Status::invalid(
        use.label_key, std::to_string(facts.labels - 1),
        fmt::format("must be a string, as in \"{}\": the model has a class of that name, which is "
                    "another than its number {}",
                    names[i], i));
  }
  return {};
}

// The task as its job has it, with what was chosen. A row's label is the name of its class, or its
// number where that can be nothing else.
Result<DatasetOptions> options_of(const LocalModel& model, const DataFacts& facts,
                                  const HfFolder& folder, const ModelUse& use) {
  proto::TaskSpec task = model.task;
  proto::DataSpec& data = *task.mutable_data();
  data.set_format(facts.images  ? proto::DATA_FORMAT_IMAGES
                  : facts.audio ? proto::DATA_FORMAT_AUDIO
                  : facts.jsonl ? proto::DATA_FORMAT_JSONL
                                : proto::DATA_FORMAT_TEXT);
  data.set_text(use.text_key);
  data.set_label(use.label_key);
  if (!use.pair_key.empty()) {
    writes_targets(task) ? data.set_target(use.pair_key) : data.set_text_pair(use.pair_key);
  }
  data.set_stride(static_cast<int32_t>(stride_of(model, use)));
  if (!task.has_mask_rate()) task.set_mask_rate(permutes(task) ? kPermutedRate : kMaskRate);
  if (facts.classes) task.set_labels(static_cast<int32_t>(folder.labels));
  if (facts.choices > 0) task.set_labels(static_cast<int32_t>(facts.choices));
  DatasetOptions options = dataset_options(task, use.sequence_length, use.target_length);
  options.label_names.emplace();
  if (!facts.classes) return options;
  if (facts.names.empty()) {
    WEFT_RETURN_IF_ERROR(check_numbers(facts, folder, use));
    return options;
  }
  options.label_names = class_names(folder);
  if (folder.label_names.empty() &&
      std::ranges::find(*options.label_names, facts.names.front()) == options.label_names->end()) {
    return fail(Status::invalid(
        use.label_key, facts.names.front(),
        facts.images
            ? fmt::format("must be LABEL_0 to LABEL_{}, as folders' names: the model's "
                          "classes have no other names",
                          folder.labels - 1)
            : fmt::format("must be an integer in [0, {}): the model's classes have no names",
                          folder.labels)));
  }
  return options;
}

// As the options of the command have it.
Status by_option(const Status& error) {
  for (const auto& [field, option] :
       {std::pair{"sequence_length", "--sequence-length"}, {"target_length", "--target-length"}}) {
    if (error.field() == field) return Status::invalid(option, error.value(), error.rule());
  }
  return error;
}

Result<std::shared_ptr<const Dataset>> read_data(const DataFacts& facts, DatasetOptions options,
                                                 const LoadedModel& model, ThreadPool* pool) {
  WEFT_ASSIGN_OR_RETURN(auto files, files_of({"DATA", InputKind::kData, facts.path}));
  if (model.preprocessor) {
    options.preprocessor = model.preprocessor;
    options.pool = pool;
    return Dataset::load_images(files, options);
  }
  if (model.audio) {
    options.audio = model.audio;
    options.start_id = model.folder.config->decoder_start_token_id;
    options.pool = pool;
  } else {
    for (SourceFile& file : files) file.name = file.path;
  }
  auto data = Dataset::load(files, options, *model.tokenizer);
  if (!data) return fail(by_option(data.error()));
  return data;
}

// Keys that nothing would come of.
Status check_keys(const EvaluateOptions& options, const DataFacts& facts,
                  const proto::TaskSpec& task) {
  const bool labeled = facts.classes || facts.answers || facts.choices > 0;
  const bool paired = task.type() == proto::TASK_TYPE_SEQUENCE_CLASSIFICATION || facts.answers ||
                      facts.choices > 0 || embeds(task) || writes_targets(task);
  struct Key {
    const char* option;
    const std::string& given;
    bool used;
    const char* holds;
  };
  for (const Key& key : {Key{"--text-key", options.text_key, !facts.audio, "texts"},
                         Key{"--label-key", options.label_key, labeled, "labels"},
                         Key{"--text-pair-key", options.pair_key, paired, "a second text"}}) {
    if (key.given.empty() || (key.used && (facts.jsonl || facts.audio))) continue;
    return Status::invalid(key.option, key.given,
                           facts.images   ? "is for texts; the data is images"
                           : facts.audio  ? "is for texts; the data is recordings"
                           : !facts.jsonl ? "is for JSONL; the data is text"
                                          : fmt::format("is for {}; the model learned a {}",
                                                        key.holds, task_type_name(task)));
  }
  return {};
}

Result<Evaluated> run(const Context& context, const EvaluateOptions& options) {
  Evaluated made;
  WEFT_ASSIGN_OR_RETURN(made.model,
                        find_local_model(context, "MODEL", options.model, options.task, {}));
  WEFT_ASSIGN_OR_RETURN(made.use, choose_use(context, made.model, options));
  WEFT_ASSIGN_OR_RETURN(const DataFacts facts,
                        facts_of(context, options, made.use, made.model.task.type()));
  WEFT_RETURN_IF_ERROR(check_keys(options, facts, made.model.task));
  made.use.choices = facts.choices;
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  WEFT_ASSIGN_OR_RETURN(LoadedModel model, load_model(context, rank, made.model, made.use));
  made.type = model.task->type();
  if (made.use.target_length == 0) made.use.target_length = made.use.sequence_length;
  WEFT_ASSIGN_OR_RETURN(const DatasetOptions how,
                        options_of(made.model, facts, model.folder, made.use));
  ProgressLine line(context.json);
  line.show(fmt::format("reading {}", options.data));
  WEFT_ASSIGN_OR_RETURN(const auto data, read_data(facts, how, model, rank.pool.get()));
  made.rows = data->samples();
  made.tokens = data->tokens();
  made.cut_recordings = data->cut_recordings();
  if (model.audio) made.seconds = model.audio->seconds();
  for (int64_t row = 0; row < made.rows; ++row) made.cut_rows += data->dropped_tokens(row) > 0;
  WEFT_ASSIGN_OR_RETURN(
      made.metrics,
      weft::evaluate(rank, model, *data, made.use.rows_at_once, [&](int64_t done, double loss) {
        line.show(fmt::format("evaluated {} of {} rows, loss {:.4g}", done, made.rows, loss));
      }));
  return made;
}

const char* precision_name(DType precision) {
  return precision == DType::kBF16 ? "bf16" : precision == DType::kF16 ? "fp16" : "fp32";
}

void tell_json(const Evaluated& made) {
  JsonWriter out(2);
  out.begin_object().key("model").string(made.model.name).key("task");
  made.model.task.name().empty() ? out.null() : out.string(made.model.task.name());
  out.key("type").string(made.type);
  for (const char* name : {"loss", "perplexity", "accuracy", "exact_match", "f1", "wer", "cer"}) {
    const auto found = made.metrics.find(name);
    if (found != made.metrics.end()) out.key(name).number(found->second);
  }
  out.key("labels").integer(std::llround(made.metrics.at("labels")));
  out.key("rows").integer(made.rows).key("tokens").integer(made.tokens);
  out.key("cut_rows").integer(made.cut_rows);
  if (hears(made.model.task)) out.key("cut_recordings").integer(made.cut_recordings);
  out.key("sequence_length").integer(made.use.sequence_length);
  if (writes_targets(made.model.task)) out.key("target_length").integer(made.use.target_length);
  out.key("precision").string(precision_name(made.use.precision)).end_object();
  print(out.take() + "\n");
}

// What is longer than was read.
void tell_cuts(const Evaluated& made) {
  const auto tell = [&](int64_t cut, const std::string& what) {
    if (cut == 0) return;
    fmt::print(stderr, "{} of {} {}: what is behind was left out\n", cut, made.rows, what);
  };
  tell(made.cut_recordings, fmt::format("recordings are longer than {} s", made.seconds));
  if (hears(made.model.task)) {
    tell(made.cut_rows, fmt::format("texts have more than {} tokens", made.use.target_length));
    return;
  }
  const std::string target =
      writes_targets(made.model.task)
          ? fmt::format(", or have a target of more than {}", made.use.target_length)
          : "";
  tell(made.cut_rows,
       fmt::format("rows are longer than {} tokens{}", made.use.sequence_length, target));
}

void tell(const Evaluated& made) {
  const double labels = made.metrics.at("labels"), accuracy = made.metrics.at("accuracy");
  const bool answers = finds_answers(made.model.task);
  const bool classifies = made.metrics.find("perplexity") == made.metrics.end();
  const std::string task = made.model.task.name();
  std::string out = fmt::format(
      "model:       {}{} ({})\n"
      "data:        {} {}, {} tokens\n"
      "sequence:    {} tokens ({}){}, {}\n"
      "loss:        {:.6g}\n",
      printable(made.model.name), task.empty() ? "" : ", task " + task, made.type, made.rows,
      hears(made.model.task)            ? "recordings"
      : writes_targets(made.model.task) ? "rows"
      : !classifies || answers          ? "windows"
      : sees_images(made.model.task)    ? "images"
                                        : "rows",
      made.tokens, made.use.sequence_length, made.use.sequence_reason,
      writes_targets(made.model.task) ? fmt::format(", {} of a target", made.use.target_length)
                                      : "",
      precision_name(made.use.precision), made.metrics.at("loss"));
  if (!classifies) out += fmt::format("perplexity:  {:.6g}\n", made.metrics.at("perplexity"));
  const bool of_words = made.model.task.type() == proto::TASK_TYPE_TOKEN_CLASSIFICATION;
  out += fmt::format("accuracy:    {:.2f}% ({} of {} {})\n", 100 * accuracy,
                     std::llround(accuracy * labels), std::llround(labels),
                     !classifies                    ? "predicted tokens"
                     : of_words                     ? "words"
                     : answers                      ? "windows"
                     : chooses(made.model.task)     ? "questions"
                     : made.type == "embedding"     ? "pairs, among those of their batch"
                     : sees_images(made.model.task) ? "images"
                                                    : "rows");
  if (answers) {
    out +=
        fmt::format("exact match: {:.2f}% (of questions)\n", 100 * made.metrics.at("exact_match"));
  }
  if (const auto f1 = made.metrics.find("f1"); f1 != made.metrics.end()) {
    out += fmt::format("F1:          {:.2f}% (of {})\n", 100 * f1->second,
                       answers ? "questions, by words" : "entities");
  }
  if (const auto wer = made.metrics.find("wer"); wer != made.metrics.end()) {
    out += fmt::format("word errors: {:.2f}% (of words)\nchar errors: {:.2f}% (of characters)\n",
                       100 * wer->second, 100 * made.metrics.at("cer"));
  }
  print(out);
  tell_cuts(made);
}

}  // namespace

int evaluate(const Context& context, const EvaluateOptions& options) {
  Result<Evaluated> made = fail(Code::kInternal, "");
  try {
    made = run(context, options);
  } catch (const StatusError& error) {
    made = fail(error.status());
  }
  if (!made) return report(context, made.error());
  context.json ? tell_json(*made) : tell(*made);
  return kExitOk;
}

}  // namespace weft::cli
