#include <fmt/format.h>

#include <algorithm>
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

constexpr size_t kShownNumbers = 4;

struct Embedded {
  std::string file, text;
  int64_t line = 0;  // 0: no file's
  int64_t dropped_tokens = 0;
  std::vector<float> vector;
};

std::string embedded_json(const Embedded& embedded) {
  JsonWriter out;
  out.begin_object();
  if (embedded.line > 0) {
    out.key("file").string(embedded.file).key("line").integer(embedded.line);
  }
  out.key("text").string(embedded.text).key("embedding").begin_array();
  for (const float number : embedded.vector) out.number(double{number});
  out.end_array().key("dropped_tokens").integer(embedded.dropped_tokens).end_object();
  return out.take() + "\n";
}

// Its beginning.
std::string shown(const std::vector<float>& vector) {
  std::string text;
  for (size_t i = 0; i < std::min(kShownNumbers, vector.size()); ++i) {
    text += fmt::format("{}{:.4f}", i > 0 ? ", " : "", vector[i]);
  }
  return text + (vector.size() > kShownNumbers ? ", ..." : "");
}

Table embedded_table(const std::vector<Embedded>& all) {
  const bool lines = all.front().line > 0;
  std::vector<std::string> titles{"NUMBERS", "EMBEDDING", "TEXT"};
  if (lines) titles.insert(titles.begin(), "LINE");
  Table table(titles);
  for (int column = 0; column < (lines ? 2 : 1); ++column) table.align_right(column);
  for (const Embedded& each : all) {
    std::vector<std::string> cells{std::to_string(each.vector.size()), shown(each.vector),
                                   each.text};
    if (lines) cells.insert(cells.begin(), std::to_string(each.line));
    table.add(std::move(cells));
  }
  return table;
}

// Of texts that are computed together.
Status embed_texts(Rank& rank, LoadedModel& model, const DatasetOptions& how,
                   std::vector<Embedded>& texts) {
  const auto visit_all = [&](const std::function<Status(const Document&)>& visit) -> Status {
    for (const Embedded& each : texts) {
      Document document;
      document.text = each.text;
      document.file = each.file;
      document.line = each.line;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
    return {};
  };
  WEFT_ASSIGN_OR_RETURN(const auto rows, Dataset::load(visit_all, how, *model.tokenizer));
  WEFT_ASSIGN_OR_RETURN(auto vectors, embeddings(rank, model, *rows));
  for (size_t i = 0; i < texts.size(); ++i) {
    texts[i].vector = std::move(vectors[i]);
    texts[i].dropped_tokens = rows->dropped_tokens(static_cast<int64_t>(i));
  }
  return {};
}

void tell(const Context& context, const std::vector<Embedded>& all, int64_t sequence_length) {
  if (context.json || all.empty()) return;
  print(embedded_table(all).text(context.terminal));
  const auto cut =
      std::ranges::count_if(all, [](const Embedded& each) { return each.dropped_tokens > 0; });
  if (cut == 0) return;
  fmt::print(stderr, "{} of {} texts are longer than {} tokens: what is behind was left out\n", cut,
             all.size(), sequence_length);
}

Status run(const Context& context, const EmbedOptions& options) {
  WEFT_ASSIGN_OR_RETURN(LocalModel source,
                        find_local_model(context, "MODEL", options.model, options.task,
                                         {proto::TASK_TYPE_EMBEDDING}));
  WEFT_ASSIGN_OR_RETURN(ModelUse use, choose_use(context, source, options));
  DatasetOptions how;
  how.kind = SampleKind::kUnlabeled;
  how.source.format = options.given.file.empty() ? InputFormat::kText : InputFormat::kJsonl;
  how.source.text_key = use.text_key;
  WEFT_ASSIGN_OR_RETURN(const Documents texts, find_texts(options.given, how.source));
  WEFT_ASSIGN_OR_RETURN(const int64_t count,
                        check_texts(texts, how, options.given.file, /*may_be_empty=*/true));
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  WEFT_ASSIGN_OR_RETURN(LoadedModel model, load_model(context, rank, source, use));
  how.sequence_length = use.sequence_length;
  ProgressLine line(context.json);
  std::vector<Embedded> waiting, told;
  int64_t done = 0;
  // A script gets each vector when it is there; a table's columns need all.
  const auto flush = [&]() -> Status {
    if (waiting.empty()) return {};
    WEFT_RETURN_IF_ERROR(embed_texts(rank, model, how, waiting));
    done += std::ssize(waiting);
    if (context.json) {
      for (const Embedded& each : waiting) print(embedded_json(each));
      std::fflush(stdout);
    } else {
      std::ranges::move(waiting, std::back_inserter(told));
    }
    waiting.clear();
    line.show(fmt::format("embedded {} of {} texts", done, count));
    return {};
  };
  WEFT_RETURN_IF_ERROR(texts([&](const Document& document) -> Status {
    waiting.push_back({document.file, std::string(document.text), document.line, 0, {}});
    return std::ssize(waiting) < use.rows_at_once ? Status() : flush();
  }));
  WEFT_RETURN_IF_ERROR(flush());
  line.clear();
  tell(context, told, use.sequence_length);
  return {};
}

}  // namespace

int embed(const Context& context, const EmbedOptions& options) {
  if (options.given.texts.empty() && options.given.file.empty()) {
    return report_usage(context, Status::invalid("--text", "", "must be given, or --file"));
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
