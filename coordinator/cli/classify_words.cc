#include "coordinator/cli/classify_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace weft::cli {
namespace {

struct Word {
  std::string text;
  std::optional<size_t> best;  // none: beyond the sequence length, or no token is its
  double probability = 0;
};

struct Text {
  std::string file;
  int64_t line = 0;  // 0: no file's
  std::vector<Word> words;
};

class WordClassifier {
 public:
  WordClassifier(const Context& context, Rank& rank, LoadedModel& model, const DatasetOptions& how)
      : context_(context),
        rank_(rank),
        model_(model),
        how_(how),
        names_(shown_classes(model.folder)) {}

  Status take(const Document& document, size_t at_once) {
    Text& text = waiting_.emplace_back(document.file, document.line);
    for (const std::string& word : document.words) text.words.push_back({word, std::nullopt});
    return waiting_.size() < at_once ? Status() : flush();
  }

  Status flush() {
    if (waiting_.empty()) return {};
    const auto waiting = [&](const std::function<Status(const Document&)>& visit) -> Status {
      for (const Text& text : waiting_) {
        Document document;
        document.file = text.file;
        document.line = text.line;
        for (const Word& word : text.words) document.words.push_back(word.text);
        WEFT_RETURN_IF_ERROR(visit(document));
      }
      return {};
    };
    WEFT_ASSIGN_OR_RETURN(const auto rows, Dataset::load(waiting, how_, *model_.tokenizer));
    WEFT_ASSIGN_OR_RETURN(const auto found, class_probabilities(rank_, model_, *rows));
    const auto width = found.size() / waiting_.size();
    for (size_t i = 0; i < waiting_.size(); ++i) {
      const std::vector<int64_t> places = rows->word_places(static_cast<int64_t>(i));
      for (size_t word = 0; word < places.size(); ++word) {
        if (places[word] < 0) continue;
        const auto& shares = found[i * width + static_cast<size_t>(places[word])];
        const auto best = std::ranges::max_element(shares);
        waiting_[i].words[word].best = static_cast<size_t>(best - shares.begin());
        waiting_[i].words[word].probability = *best;
      }
      tell(waiting_[i]);
    }
    std::fflush(stdout);
    waiting_.clear();
    return {};
  }

 private:
  void tell(const Text& text) const {
    context_.json ? print(json(text)) : print(table(text).text(context_.terminal));
  }

  std::string json(const Text& text) const {
    JsonWriter out;
    out.begin_object();
    if (text.line > 0) out.key("file").string(text.file).key("line").integer(text.line);
    out.key("words").begin_array();
    for (const Word& word : text.words) {
      out.begin_object().key("word").string(word.text).key("label");
      if (!word.best) {
        out.null();
      } else if (model_.folder.label_names.empty()) {
        out.integer(static_cast<int64_t>(*word.best));
      } else {
        out.string(names_[*word.best]);
      }
      if (word.best) {
        out.key("class").integer(static_cast<int64_t>(*word.best));
        out.key("probability").number(word.probability);
      }
      out.end_object();
    }
    return out.end_array().end_object().take() + "\n";
  }

  Table table(const Text& text) const {
    std::vector<std::string> titles{"WORD", "CLASS", "PROBABILITY"};
    if (text.line > 0) titles.insert(titles.begin(), "LINE");
    Table table(titles);
    table.align_right(titles.size() - 1);
    if (text.line > 0) table.align_right(0);
    for (const Word& word : text.words) {
      std::vector<std::string> cells{word.text, word.best ? names_[*word.best] : "-",
                                     word.best ? fmt::format("{:.4f}", word.probability) : "-"};
      if (text.line > 0) cells.insert(cells.begin(), std::to_string(text.line));
      table.add(std::move(cells));
    }
    return table;
  }

  const Context& context_;
  Rank& rank_;
  LoadedModel& model_;
  const DatasetOptions& how_;
  const std::vector<std::string> names_;
  std::vector<Text> waiting_;
};

}  // namespace

Status classify_words(const Context& context, Rank& rank, LoadedModel& model,
                      const DatasetOptions& how, const Documents& texts, size_t at_once) {
  WordClassifier classifier(context, rank, model, how);
  WEFT_RETURN_IF_ERROR(
      texts([&](const Document& document) { return classifier.take(document, at_once); }));
  return classifier.flush();
}

std::vector<std::string> shown_classes(const HfFolder& folder) {
  if (!folder.label_names.empty()) return class_names(folder);
  std::vector<std::string> numbers;
  for (int64_t i = 0; i < folder.labels; ++i) numbers.push_back(std::to_string(i));
  return numbers;
}

Table class_table(const HfFolder& folder, const std::vector<double>& probabilities) {
  Table table({"CLASS", "PROBABILITY"});
  table.align_right(1);
  std::vector<std::pair<double, size_t>> classes;
  for (size_t i = 0; i < probabilities.size(); ++i) classes.emplace_back(-probabilities[i], i);
  std::ranges::sort(classes);
  const std::vector<std::string> names = shown_classes(folder);
  for (const auto& [negative, number] : classes) {
    table.add({names[number], fmt::format("{:.4f}", -negative)});
  }
  return table;
}

void write_classes(const HfFolder& folder, const std::vector<double>& probabilities,
                   JsonWriter& out) {
  const std::vector<std::string> names = shown_classes(folder);
  const auto best =
      static_cast<size_t>(std::ranges::max_element(probabilities) - probabilities.begin());
  out.key("label");
  if (folder.label_names.empty()) {
    out.integer(static_cast<int64_t>(best));
  } else {
    out.string(names[best]);
  }
  out.key("class").integer(static_cast<int64_t>(best));
  out.key("probability").number(probabilities[best]);
  out.key("probabilities").begin_object();
  for (size_t i = 0; i < probabilities.size(); ++i) out.key(names[i]).number(probabilities[i]);
  out.end_object();
}

}  // namespace weft::cli
