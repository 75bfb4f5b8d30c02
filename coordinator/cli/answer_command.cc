#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_model.h"
#include "coordinator/cli/progress_line.h"
#include "coordinator/cli/texts.h"
#include "proto/json/writer.h"
#include "worker/serve/evaluate.h"

namespace weft::cli {
namespace {

struct Asked {
  std::string file, question, context;
  int64_t line = 0;            // 0: no file's
  std::string answer;          // empty: there is none
  double score = 0;            // its probability
  int64_t start = 0, end = 0;  // of the context, in code points
};

std::string asked_json(const Asked& asked) {
  JsonWriter out;
  out.begin_object();
  if (asked.line > 0) out.key("file").string(asked.file).key("line").integer(asked.line);
  out.key("question").string(asked.question).key("answer").string(asked.answer);
  out.key("score").number(asked.score);
  out.key("start").integer(asked.start).key("end").integer(asked.end).end_object();
  return out.take() + "\n";
}

Table asked_table(const std::vector<Asked>& all) {
  const bool lines = all.front().line > 0;
  std::vector<std::string> titles{"SCORE", "START", "END", "ANSWER", "QUESTION"};
  if (lines) titles.insert(titles.begin(), "LINE");
  Table table(titles);
  for (int column = 0; column < (lines ? 4 : 3); ++column) table.align_right(column);
  for (const Asked& each : all) {
    std::vector<std::string> cells{fmt::format("{:.4f}", each.score), std::to_string(each.start),
                                   std::to_string(each.end), each.answer, each.question};
    if (lines) cells.insert(cells.begin(), std::to_string(each.line));
    table.add(std::move(cells));
  }
  return table;
}

void take_answer(const Dataset& data, const FoundAnswer& found, Asked& asked) {
  const auto offsets = data.window_offsets(found.sample);
  asked.score = std::exp(found.score - found.log_total);
  asked.start = offsets[static_cast<size_t>(found.span.first)].begin;
  asked.end = offsets[static_cast<size_t>(found.span.last)].end;
  asked.answer = code_points_of(asked.context, asked.start, asked.end);
}

// Of questions that are asked together.
Status answer_all(Rank& rank, LoadedModel& model, const DatasetOptions& how, const ModelUse& use,
                  bool allow_none, std::vector<Asked>& all) {
  const auto visit_all = [&](const std::function<Status(const Document&)>& visit) -> Status {
    for (const Asked& each : all) {
      Document document;
      document.text = each.question;
      document.pair = each.context;
      document.file = each.file;
      document.line = each.line;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
    return {};
  };
  WEFT_ASSIGN_OR_RETURN(const auto data, Dataset::load(visit_all, how, *model.tokenizer));
  WEFT_ASSIGN_OR_RETURN(const std::vector<FoundAnswer> found,
                        likeliest_answers(rank, model, *data, use.rows_at_once));
  const std::vector<BestAnswer> best = best_answers(*data, found);
  for (size_t i = 0; i < all.size(); ++i) {
    if (best[i].is_none(allow_none)) {
      all[i].score = std::exp(best[i].none->none_score - best[i].none->log_total);
    } else {
      take_answer(*data, *best[i].answer, all[i]);
    }
  }
  return {};
}

Status run(const Context& context, const AnswerOptions& options) {
  WEFT_ASSIGN_OR_RETURN(LocalModel source,
                        find_local_model(context, "MODEL", options.model, options.task,
                                         {proto::TASK_TYPE_QUESTION_ANSWERING}));
  WEFT_ASSIGN_OR_RETURN(ModelUse use, choose_use(context, source, options));
  GivenTexts given{.texts = {}, .pairs = {}, .option = "--question", .file = options.file};
  DatasetOptions how;
  how.kind = SampleKind::kUnlabeledQuestions;
  how.source.text_key = "question";
  how.source.pair_key = "context";
  if (options.file.empty()) {
    given.texts.push_back(options.question);
    given.pairs.push_back(options.context);
  } else {
    how.source.format = InputFormat::kJsonl;
    how.source.text_key = use.text_key;
    how.source.pair_key = use.pair_key;
  }
  WEFT_ASSIGN_OR_RETURN(const Documents questions, find_texts(given, how.source));
  WEFT_ASSIGN_OR_RETURN(const int64_t count,
                        check_texts(questions, how, options.file, /*may_be_empty=*/false));
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  WEFT_ASSIGN_OR_RETURN(LoadedModel model, load_model(context, rank, source, use));
  how.sequence_length = use.sequence_length;
  how.stride = stride_of(source, use);
  ProgressLine line(context.json);
  std::vector<Asked> waiting, told;
  int64_t done = 0;
  // A script gets each answer when it is there; a table's columns need all.
  const auto flush = [&]() -> Status {
    if (waiting.empty()) return {};
    WEFT_RETURN_IF_ERROR(answer_all(rank, model, how, use, options.allow_none, waiting));
    done += std::ssize(waiting);
    if (context.json) {
      for (const Asked& each : waiting) print(asked_json(each));
      std::fflush(stdout);
    } else {
      std::ranges::move(waiting, std::back_inserter(told));
    }
    waiting.clear();
    line.show(fmt::format("answered {} of {} questions", done, count));
    return {};
  };
  WEFT_RETURN_IF_ERROR(questions([&](const Document& document) -> Status {
    Asked& asked = waiting.emplace_back();
    asked.file = document.file;
    asked.question = document.text;
    asked.context = document.pair;
    asked.line = document.line;
    return std::ssize(waiting) < use.rows_at_once ? Status() : flush();
  }));
  WEFT_RETURN_IF_ERROR(flush());
  line.clear();
  if (!told.empty()) print(asked_table(told).text(context.terminal));
  return {};
}

}  // namespace

int answer(const Context& context, const AnswerOptions& options) {
  if (options.file.empty()) {
    if (options.question.empty()) {
      return report_usage(
          context, Status::invalid("--question", "", "must be given and not be empty, or --file"));
    }
    if (options.context.empty()) {
      return report_usage(context, Status::invalid("--context", "", "must not be empty"));
    }
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
