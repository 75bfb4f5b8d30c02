#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "coordinator/cli/classify_images.h"
#include "coordinator/cli/classify_words.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_model.h"
#include "coordinator/cli/progress_line.h"
#include "coordinator/cli/texts.h"
#include "proto/json/job_rules.h"
#include "proto/json/writer.h"
#include "worker/serve/evaluate.h"

namespace weft::cli {
namespace {

DatasetOptions options_of(const ClassifyOptions& options, const ModelUse& use,
                          proto::TaskType type) {
  DatasetOptions how;
  const bool words = type == proto::TASK_TYPE_TOKEN_CLASSIFICATION;
  how.kind = words ? SampleKind::kUnlabeledWords : SampleKind::kUnlabeled;
  how.source.words = words;
  if (!options.given.pairs.empty()) how.source.pair_key = "--text-pair";
  if (options.given.file.empty()) return how;  // no row, no key
  how.source.format = InputFormat::kJsonl;
  how.source.text_key = use.text_key;
  how.source.pair_key = use.pair_key;
  return how;
}

// A pair where the rows of the model's job are such, or a key or a text says so.
Status check_pairs(const ClassifyOptions& options, const ModelUse& use) {
  const size_t pairs = options.given.pairs.size();
  if (!options.given.file.empty() || pairs == options.given.texts.size()) return {};
  if (pairs == 0 && use.pair_key.empty()) return {};
  return Status::invalid(
      "--text-pair", fmt::format("{} of them", pairs),
      fmt::format("must be given once for each --text, of which there {} {}",
                  options.given.texts.size() == 1 ? "is" : "are", options.given.texts.size()));
}

struct Answer {
  std::string file, text, pair;
  int64_t line = 0;  // 0: no file's
  int64_t dropped_tokens = 0;
  std::vector<double> probabilities;
  size_t best() const {
    return static_cast<size_t>(std::ranges::max_element(probabilities) - probabilities.begin());
  }
};

std::string answer_json(const HfFolder& folder, const Answer& answer) {
  JsonWriter out;
  out.begin_object();
  if (answer.line > 0) out.key("file").string(answer.file).key("line").integer(answer.line);
  out.key("text").string(answer.text);
  if (!answer.pair.empty()) out.key("text_pair").string(answer.pair);
  write_classes(folder, answer.probabilities, out);
  out.key("dropped_tokens").integer(answer.dropped_tokens).end_object();
  return out.take() + "\n";
}

// The likeliest class of each text.
Table answer_table(const HfFolder& folder, const std::vector<Answer>& answers) {
  const bool lines = answers.front().line > 0;
  const bool pairs = !answers.front().pair.empty();
  std::vector<std::string> titles{"CLASS", "PROBABILITY", "TEXT"};
  if (pairs) titles.push_back("PAIR");
  if (lines) titles.insert(titles.begin(), "LINE");
  Table table(titles);
  if (lines) table.align_right(0);
  table.align_right(lines ? 2 : 1);
  const std::vector<std::string> names = shown_classes(folder);
  for (const Answer& answer : answers) {
    const size_t best = answer.best();
    std::vector<std::string> cells{names[best], fmt::format("{:.4f}", answer.probabilities[best]),
                                   answer.text};
    if (pairs) cells.push_back(answer.pair);
    if (lines) cells.insert(cells.begin(), std::to_string(answer.line));
    table.add(std::move(cells));
  }
  return table;
}

// Collects texts until there are enough for one pass.
class Classifier {
 public:
  Classifier(const Context& context, Rank& rank, LoadedModel& model, DatasetOptions how,
             int64_t texts)
      : context_(context),
        rank_(rank),
        model_(model),
        how_(std::move(how)),
        texts_(texts),
        line_(context.json) {}

  Status take(const Document& document, size_t at_once) {
    Answer& answer = waiting_.emplace_back();
    answer.text = document.text;
    answer.pair = document.pair;
    answer.file = document.file;
    answer.line = document.line;
    return waiting_.size() < at_once ? Status() : flush();
  }

  Status flush() {
    if (waiting_.empty()) return {};
    const auto waiting = [&](const std::function<Status(const Document&)>& visit) -> Status {
      for (const Answer& answer : waiting_) {
        Document document;
        document.text = answer.text;
        document.pair = answer.pair;
        document.file = answer.file;
        document.line = answer.line;
        WEFT_RETURN_IF_ERROR(visit(document));
      }
      return {};
    };
    WEFT_ASSIGN_OR_RETURN(const auto rows, Dataset::load(waiting, how_, *model_.tokenizer));
    WEFT_ASSIGN_OR_RETURN(std::vector<std::vector<double>> found,
                          class_probabilities(rank_, model_, *rows));
    for (size_t i = 0; i < waiting_.size(); ++i) {
      waiting_[i].probabilities = std::move(found[i]);
      waiting_[i].dropped_tokens = rows->dropped_tokens(static_cast<int64_t>(i));
      cut_ += waiting_[i].dropped_tokens > 0 ? 1 : 0;
    }
    done_ += static_cast<int64_t>(waiting_.size());
    hand_out();
    return {};
  }

  void tell() {
    line_.clear();
    if (answers_.empty()) return;
    const Table table = answers_.size() == 1
                            ? class_table(model_.folder, answers_.front().probabilities)
                            : answer_table(model_.folder, answers_);
    print(table.text(context_.terminal));
    if (cut_ > 0) {
      fmt::print(stderr, "{} of {} texts are longer than {} tokens: what is behind was left out\n",
                 cut_, texts_, how_.sequence_length);
    }
  }

 private:
  // A script gets each answer when it is there; a table's columns need all.
  void hand_out() {
    if (context_.json) {
      for (const Answer& answer : waiting_) print(answer_json(model_.folder, answer));
      std::fflush(stdout);
    } else {
      std::ranges::move(waiting_, std::back_inserter(answers_));
    }
    waiting_.clear();
    line_.show(fmt::format("classified {} of {} texts", done_, texts_));
  }

  const Context& context_;
  Rank& rank_;
  LoadedModel& model_;
  const DatasetOptions how_;
  const int64_t texts_;
  ProgressLine line_;
  std::vector<Answer> waiting_, answers_;
  int64_t done_ = 0, cut_ = 0;
};

// Images where the model reads such, else texts.
Status check_images(const ClassifyOptions& options, const LocalModel& model) {
  if (options.images.empty() != sees_images(model.task)) return {};
  if (options.images.empty()) {
    return Status::invalid("--image", "", "must be given: " + model.name + " classifies images");
  }
  return Status::invalid("--image", options.images.front(),
                         "must be left out: " + model.name + " classifies texts");
}

Status run_images(const Context& context, const ClassifyOptions& options, LocalModel& source,
                  ModelUse& use) {
  WEFT_ASSIGN_OR_RETURN(const auto images, find_images(options.images));
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  WEFT_ASSIGN_OR_RETURN(LoadedModel model, load_model(context, rank, source, use));
  return classify_images(context, rank, model, images, static_cast<size_t>(use.rows_at_once));
}

Status run(const Context& context, const ClassifyOptions& options) {
  WEFT_ASSIGN_OR_RETURN(LocalModel source,
                        find_local_model(context, "MODEL", options.model, options.task,
                                         {proto::TASK_TYPE_SEQUENCE_CLASSIFICATION,
                                          proto::TASK_TYPE_TOKEN_CLASSIFICATION,
                                          proto::TASK_TYPE_IMAGE_CLASSIFICATION}));
  WEFT_ASSIGN_OR_RETURN(ModelUse use, choose_use(context, source, options));
  WEFT_RETURN_IF_ERROR(check_images(options, source));
  if (sees_images(source.task)) return run_images(context, options, source, use);
  WEFT_RETURN_IF_ERROR(check_pairs(options, use));
  DatasetOptions how = options_of(options, use, source.task.type());
  WEFT_ASSIGN_OR_RETURN(const Documents texts, find_texts(options.given, how.source));
  WEFT_ASSIGN_OR_RETURN(const int64_t count,
                        check_texts(texts, how, options.given.file, /*may_be_empty=*/false));
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  WEFT_ASSIGN_OR_RETURN(LoadedModel model, load_model(context, rank, source, use));
  how.sequence_length = use.sequence_length;
  const auto at_once = static_cast<size_t>(use.rows_at_once);
  if (is_words(how.kind)) return classify_words(context, rank, model, how, texts, at_once);
  Classifier classifier(context, rank, model, how, count);
  WEFT_RETURN_IF_ERROR(
      texts([&](const Document& document) { return classifier.take(document, at_once); }));
  WEFT_RETURN_IF_ERROR(classifier.flush());
  classifier.tell();
  return {};
}

}  // namespace

int classify(const Context& context, const ClassifyOptions& options) {
  if (options.given.texts.empty() && options.given.file.empty() && options.images.empty()) {
    return report_usage(context,
                        Status::invalid("--text", "", "must be given, or --file, or --image"));
  }
  Status status;
  try {
    status = run(context, options);
  } catch (const StatusError& error) {
    status = error.status();
  }
  return status.ok() ? kExitOk : report(context, status);
}

}  // namespace weft::cli
