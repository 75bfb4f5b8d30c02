// How questions and the texts that they are asked about become the samples of a data set.
#include <algorithm>

#include "proto/json/value.h"
#include "worker/data/answers.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

// It is of no use, and part of a question's first token at byte level.
std::string_view without_space_before(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(" \t\r\n\f\v"), text.size()));
}

}  // namespace

bool Dataset::keeps_texts() const {
  return options_.label_names.has_value() || options_.kind == SampleKind::kUnlabeledQuestions;
}

int64_t Dataset::question_of(int64_t sample) const {
  return question_windows_[static_cast<size_t>(sample)].question;
}

std::span<const TokenOffsets> Dataset::window_offsets(int64_t sample) const {
  const Window& window = question_windows_[static_cast<size_t>(sample)];
  return std::span(offsets_).subspan(static_cast<size_t>(window.offset),
                                     static_cast<size_t>(window.tokens));
}

Status Dataset::add_question(const Document& document, const Tokenizer& tokenizer) {
  const std::string& key = options_.source.text_key;
  const auto question = tokenizer.encode(without_space_before(document.text), false);
  if (!question) return document.refuse(question.error());
  const auto context = tokenizer.encode_with_offsets(document.pair, false);
  if (!context) return document.refuse(context.error());
  const auto tokens = std::ssize(context->ids);
  if (question->empty() || tokens == 0) {
    const bool asked = !question->empty();
    return document.refuse(asked ? options_.source.pair_key : key,
                           shortened(asked ? document.pair : document.text),
                           "gives no token; it needs one");
  }
  const int64_t room = pairs_->room() - std::ssize(*question);
  if (tokens > room && room <= options_.stride) {
    return document.refuse(
        key, std::to_string(question->size()) + " tokens",
        "must leave room for more tokens of the context than data.stride = " +
            std::to_string(options_.stride) +
            " in a row of training.sequence_length = " + std::to_string(options_.sequence_length));
  }
  if (keeps_texts()) questions_.push_back({std::string(document.pair), document.answers});
  const auto kept = std::ssize(offsets_);
  if (keeps_texts()) {
    offsets_.insert(offsets_.end(), context->offsets.begin(), context->offsets.end());
  }
  for (int64_t first = 0;; first += room - options_.stride) {
    const int64_t length = std::min(room, tokens - first);
    add_window(document, *question, *context, first, length);
    question_windows_.back().offset = kept + first;
    if (first + length == tokens) return {};
  }
}

void Dataset::add_window(const Document& document, std::span<const int64_t> question,
                         const Encoding& context, int64_t first, int64_t tokens) {
  const auto start = static_cast<size_t>(first), length = static_cast<size_t>(tokens);
  const int64_t at = pairs_->second_at(std::ssize(question));
  TokenSpan span;  // the first answer's, as training has one
  if (!document.answers.empty()) {
    span = covering_tokens(std::span(context.offsets).subspan(start, length),
                           document.answers.front());
  }
  labels_.push_back(span.first < 0 ? 0 : at + span.first);
  labels_.push_back(span.first < 0 ? 0 : at + span.last);
  question_windows_.push_back({std::ssize(questions_) - 1, 0, at, tokens});
  dropped_.push_back(0);
  first_tokens_.push_back(std::ssize(question));
  starts_.push_back(store_.size());
  pairs_->append(question, std::span(context.ids).subspan(start, length), &store_);
}

void Dataset::add_ends(int64_t sample, TaskRows& rows) const {
  const Window& window = question_windows_[static_cast<size_t>(sample)];
  const auto ends = labels_.begin() + 2 * sample;
  rows.labels.insert(rows.labels.end(), ends, ends + 2);
  rows.windows.push_back({sample, window.first, window.tokens});
}

}  // namespace weft
