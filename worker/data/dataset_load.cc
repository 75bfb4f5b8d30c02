// How documents become the samples of a data set.
#include <algorithm>
#include <array>
#include <utility>

#include "proto/json/value.h"
#include "worker/data/chats.h"
#include "worker/data/check.h"
#include "worker/data/dataset.h"
#include "worker/data/labels.h"

namespace weft {
namespace {

bool needs_utf8(const Tokenizer& tokenizer) { return tokenizer.type() != "byte"; }

Status gives_no_token(const Document& document, const std::string& key, std::string_view text) {
  return document.refuse(key, shortened(text), "gives no token; it needs one");
}

}  // namespace

Status Dataset::load_stream(const Documents& documents, const Tokenizer& tokenizer) {
  Chats chats(tokenizer.files());
  const auto visit = [&](const Document& document) -> Status {
    if (document.text.empty()) return {};
    WEFT_RETURN_IF_ERROR(check_document(document, options_, needs_utf8(tokenizer)));
    return document.chat == nullptr ? add_text(document, tokenizer)
                                    : add_chat(document, tokenizer, chats);
  };
  WEFT_RETURN_IF_ERROR(documents(visit));
  if (store_.size() < 2) {
    return Status(Code::kInvalidArgument, "the data is empty: it gives " +
                                              std::to_string(store_.size()) +
                                              " tokens, at least 2 are needed");
  }
  room_ = options_.sequence_length;
  stride_ = options_.sequence_length - 1;
  samples_ = (store_.size() - 1 + stride_ - 1) / stride_;
  return learned_.empty() ? Status() : find_windows();
}

Status Dataset::add_text(const Document& document, const Tokenizer& tokenizer) {
  const auto sink = [this](std::span<const int32_t> ids) { store_.append(ids); };
  const Status status = tokenizer.encode_to(document.text, true, sink);
  if (!status.ok()) return document.refuse(status);
  const std::optional<int64_t> eos = tokenizer.eos_id();
  if (eos && (store_.size() == 0 || store_.at(store_.size() - 1) != *eos)) store_.push(*eos);
  if (!learned_.empty()) learned_.resize(static_cast<size_t>(store_.size()), 1);
  return {};
}

Status Dataset::add_chat(const Document& document, const Tokenizer& tokenizer, Chats& chats) {
  WEFT_ASSIGN_OR_RETURN(const RenderedChat chat, chats.render(document));
  const Result<Encoding> encoding = tokenizer.encode_with_offsets(chat.text, false);
  if (!encoding) return document.refuse(encoding.error());
  learned_.resize(static_cast<size_t>(store_.size()), 1);  // texts before the first chat
  const std::vector<uint8_t> learned = learned_tokens(chat, encoding->offsets);
  learned_.insert(learned_.end(), learned.begin(), learned.end());
  store_.append(std::span<const int64_t>(encoding->ids));
  return {};
}

Status Dataset::find_windows() {
  for (int64_t window = 0; window < samples_; ++window) {
    const int64_t first = window * stride_ + 1, last = std::min(first + stride_, store_.size());
    const auto begin = learned_.begin() + first, end = learned_.begin() + last;
    if (std::find(begin, end, 1) != end) windows_.push_back(window);
  }
  samples_ = std::ssize(windows_);
  if (samples_ > 0) return {};
  return Status(Code::kInvalidArgument, "the data has no token of an answer that can be predicted");
}

Status Dataset::find_room(const Tokenizer& tokenizer) {
  const int64_t around = std::ssize(tokenizer.prefix_ids()) + std::ssize(tokenizer.suffix_ids());
  room_ = options_.sequence_length - around;
  const auto too_short = [](const char* field, int64_t length, int64_t others) {
    return Status::invalid(field, std::to_string(length),
                           "must exceed the " + std::to_string(others) +
                               " tokens that the tokenizer puts around a text");
  };
  const bool reads = options_.kind != SampleKind::kSpeech;
  if (reads && room_ <= 0) return too_short("sequence_length", options_.sequence_length, around);
  const int64_t of_target = tokens_around_target(tokenizer);
  if (!has_target(options_.kind) || options_.target_length > of_target) return {};
  return too_short("target_length", options_.target_length, of_target);
}

Status Dataset::load_windows(const Documents& documents, const Tokenizer& tokenizer) {
  WEFT_RETURN_IF_ERROR(find_room(tokenizer));
  if (options_.kind == SampleKind::kPermutationLm) {
    permuted_.emplace(tokenizer, options_.mask_rate, options_.sequence_length);
  } else {
    WEFT_ASSIGN_OR_RETURN(masking_, Masking::create(tokenizer, options_.mask_rate));
  }
  const auto prefix = tokenizer.prefix_ids(), suffix = tokenizer.suffix_ids();
  prefix_.assign(prefix.begin(), prefix.end());
  suffix_.assign(suffix.begin(), suffix.end());
  const auto sink = [this](std::span<const int32_t> ids) { store_.append(ids); };
  int64_t end_of_text = 0;  // in the store, of the last one that gave a token
  const auto visit = [&](const Document& document) -> Status {
    if (document.text.empty()) return {};
    WEFT_RETURN_IF_ERROR(check_document(document, options_, needs_utf8(tokenizer)));
    if (end_of_text > 0) store_.append(suffix);
    const int64_t start = store_.size();
    const Status status = tokenizer.encode_to(document.text, false, sink);
    if (!status.ok()) return document.refuse(status);
    if (store_.size() == start) store_.truncate(end_of_text);  // it gave no token: nothing to part
    end_of_text = store_.size();
    return {};
  };
  WEFT_RETURN_IF_ERROR(documents(visit));
  if (store_.size() == 0) {
    return Status(Code::kInvalidArgument, "the data is empty: it gives no token");
  }
  stride_ = room_;
  samples_ = (store_.size() + room_ - 1) / room_;
  return {};
}

Status Dataset::add_tokens(const Document& document, const Tokenizer& tokenizer) {
  const auto sink = [this](std::span<const int32_t> ids) { store_.append(ids); };
  const auto checked = [&](const Status& status) {
    return status.ok() ? Status() : document.refuse(status);
  };
  if (!is_words(options_.kind)) return checked(tokenizer.encode_to(document.text, false, sink));
  word_starts_.push_back(std::ssize(word_tokens_));
  for (const std::string& word : document.words) {
    const int64_t first = store_.size();
    WEFT_RETURN_IF_ERROR(checked(tokenizer.encode_word(word, sink)));
    word_tokens_.push_back(store_.size() > first ? first : -1);
  }
  return {};
}

// Of the line that was added last.
void Dataset::cut_at(int64_t end) {
  dropped_.back() += store_.size() - end;
  store_.truncate(end);
  if (word_starts_.empty()) return;
  for (auto word = static_cast<size_t>(word_starts_.back()); word < word_tokens_.size(); ++word) {
    if (word_tokens_[word] >= end) word_tokens_[word] = -1;
  }
}

Status Dataset::add_labels(const Document& document, Labels& labels) {
  if (options_.kind == SampleKind::kEmbedding || is_question(options_.kind)) return {};
  if (!is_labeled(options_.kind)) {
    labels_.insert(labels_.end(), is_words(options_.kind) ? document.words.size() : 1, kNoLabel);
    return {};
  }
  for (const Label& label : document.labels) {
    WEFT_ASSIGN_OR_RETURN(const int64_t taken, labels.take(document, label));
    labels_.push_back(taken);
  }
  return {};
}

Status Dataset::add_pair(const Document& document, const Tokenizer& tokenizer) {
  const std::string& key = options_.source.pair_key;
  if (options_.kind != SampleKind::kMultipleChoice) {
    return add_pair(document, key, document.pair, tokenizer);
  }
  for (size_t i = 0; i < document.choices.size(); ++i) {
    WEFT_RETURN_IF_ERROR(add_pair(document, join_index(key, i), document.choices[i], tokenizer));
  }
  return {};
}

Status Dataset::add_pair(const Document& document, const std::string& second_key,
                         std::string_view second, const Tokenizer& tokenizer) {
  std::array<std::vector<int64_t>, 2> texts;
  const std::array<std::pair<std::string, std::string_view>, 2> given{
      {{options_.source.text_key, document.text}, {second_key, second}}};
  for (size_t i = 0; i < texts.size(); ++i) {
    auto ids = tokenizer.encode(given[i].second, false);
    if (!ids) return document.refuse(ids.error());
    if (ids->empty()) return gives_no_token(document, given[i].first, given[i].second);
    texts[i] = std::move(*ids);
  }
  const PairLengths whole{std::ssize(texts[0]), std::ssize(texts[1])};
  const PairLengths kept = cut_longest_first(whole, pairs_->room());
  dropped_.back() += whole.sum() - kept.sum();
  first_tokens_.push_back(kept.first);
  texts[0].resize(static_cast<size_t>(kept.first));
  texts[1].resize(static_cast<size_t>(kept.second));
  starts_.push_back(store_.size());
  pairs_->append(texts[0], texts[1], &store_);
  return {};
}

Status Dataset::add_row(const Document& document, const Tokenizer& tokenizer) {
  starts_.push_back(store_.size());
  store_.append(tokenizer.prefix_ids());
  const int64_t first = store_.size();
  WEFT_RETURN_IF_ERROR(add_tokens(document, tokenizer));
  const bool framed = first > starts_.back() || !tokenizer.suffix_ids().empty();
  if (store_.size() == first && !(options_.kind == SampleKind::kUnlabeled && framed)) {
    const std::string_view content =
        is_words(options_.kind) ? document.words.front() : document.text;
    return gives_no_token(document, options_.source.text_key, content);
  }
  cut_at(std::min(store_.size(), first + room_));
  store_.append(tokenizer.suffix_ids());
  return {};
}

Status Dataset::add_target(const Document& document, const Tokenizer& tokenizer) {
  auto ids = tokenizer.encode(document.pair, true);
  if (!ids) return document.refuse(ids.error());
  const std::optional<int64_t> end = tokenizer.eos_id();
  if (end && (ids->empty() || ids->back() != *end)) ids->push_back(*end);
  if (options_.start_id && !ids->empty() && ids->front() == *options_.start_id) {
    ids->erase(ids->begin());
  }
  if (ids->empty()) return gives_no_token(document, options_.source.pair_key, document.pair);
  const int64_t dropped = std::max<int64_t>(0, std::ssize(*ids) - options_.target_length);
  if (dropped > 0) {  // what ends it stays
    const int64_t last = ids->back();
    ids->resize(static_cast<size_t>(options_.target_length));
    if (end) ids->back() = last;
  }
  dropped_.back() += dropped;
  starts_.push_back(store_.size());
  store_.append(std::span<const int64_t>(*ids));
  return {};
}

Status Dataset::load_lines(const Documents& documents, const Tokenizer& tokenizer) {
  WEFT_RETURN_IF_ERROR(find_room(tokenizer));
  const bool two_rows = options_.kind == SampleKind::kEmbedding;
  const bool writes = options_.kind == SampleKind::kSeq2Seq;
  if (!options_.source.pair_key.empty() && !two_rows && !writes) {
    WEFT_ASSIGN_OR_RETURN(pairs_, PairTemplate::create(tokenizer, options_.sequence_length));
  }
  Labels labels(options_.source.label_key, options_.labels, options_.label_names,
                options_.first_labels);
  const auto visit = [&](const Document& document) -> Status {
    WEFT_RETURN_IF_ERROR(check_document(document, options_, needs_utf8(tokenizer)));
    if (is_question(options_.kind)) return add_question(document, tokenizer);
    dropped_.push_back(0);
    WEFT_RETURN_IF_ERROR(pairs_ ? add_pair(document, tokenizer) : add_row(document, tokenizer));
    if (two_rows) {
      Document second = document;
      second.text = document.pair;
      WEFT_RETURN_IF_ERROR(add_row(second, tokenizer));
    }
    return writes ? add_target(document, tokenizer) : add_labels(document, labels);
  };
  WEFT_RETURN_IF_ERROR(documents(visit));
  samples_ = std::ssize(dropped_);
  if (samples_ == 0) return Status(Code::kInvalidArgument, "the data is empty: it has no row");
  starts_.push_back(store_.size());
  if (is_words(options_.kind)) word_starts_.push_back(std::ssize(word_tokens_));
  name_labels(labels);
  return {};
}

void Dataset::name_labels(const Labels& labels) {
  label_names_ = labels.names();
  const std::vector<int64_t> classes = labels.classes();
  if (classes.empty()) return;
  for (int64_t& label : labels_) label = classes[static_cast<size_t>(label)];
}

}  // namespace weft
