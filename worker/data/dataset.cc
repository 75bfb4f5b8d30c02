#include "worker/data/dataset.h"

#include <algorithm>
#include <limits>

#include "proto/base/check.h"
#include "proto/job.pb.h"
#include "worker/data/check.h"

namespace weft {
namespace {

constexpr int64_t kRowMultiple = 8;

constexpr const char* kClassKey = "class";  // of an image, in errors

Status check_options(const DatasetOptions& options) {
  const bool causal = options.kind == SampleKind::kCausalLm;
  const bool permuted = options.kind == SampleKind::kPermutationLm;
  const int64_t least = causal || permuted ? 2 : 1;
  if (options.sequence_length < least) {
    return Status::invalid("sequence_length", std::to_string(options.sequence_length),
                           "must be at least " + std::to_string(least) +
                               (causal     ? ": a row's first token is not predicted"
                                : permuted ? ": a token is predicted from others"
                                           : ""));
  }
  if (options.kind == SampleKind::kEmbedding && options.source.pair_key.empty()) {
    return Status::invalid("text_pair", "", "an embedding needs the key of a second text");
  }
  if (options.kind == SampleKind::kMultipleChoice && options.source.pair_key.empty()) {
    return Status::invalid("text_pair", "", "a multiple_choice needs the key of its choices");
  }
  if (has_target(options.kind) && options.source.pair_key.empty()) {
    return Status::invalid("target", "", "a text that is to be written needs its key");
  }
  if (is_question(options.kind) && (options.source.pair_key.empty() ||
                                    options.source.answers == options.source.label_key.empty())) {
    return Status::invalid("text_pair", "", "a question needs the keys of a context and answers");
  }
  if (!is_labeled(options.kind)) return {};
  if (options.source.format != InputFormat::kJsonl || options.source.label_key.empty()) {
    return Status::invalid("format", "text", "a classification needs jsonl with labels");
  }
  if (options.labels < 2) {
    return Status::invalid("labels", std::to_string(options.labels), "must be at least 2");
  }
  return {};
}

// Of what evaluates: the same for all, so that evaluations compare.
constexpr RandomKey kHeldOutMasks{0x68656c64, 0};

SampleKind kind_of(proto::TaskType type) {
  switch (type) {
    case proto::TASK_TYPE_MASKED_LM:
      return SampleKind::kMaskedLm;
    case proto::TASK_TYPE_PERMUTATION_LM:
      return SampleKind::kPermutationLm;
    case proto::TASK_TYPE_SEQUENCE_CLASSIFICATION:
      return SampleKind::kClassification;
    case proto::TASK_TYPE_TOKEN_CLASSIFICATION:
      return SampleKind::kTokenClassification;
    case proto::TASK_TYPE_MULTIPLE_CHOICE:
      return SampleKind::kMultipleChoice;
    case proto::TASK_TYPE_EMBEDDING:
      return SampleKind::kEmbedding;
    case proto::TASK_TYPE_QUESTION_ANSWERING:
      return SampleKind::kQuestionAnswering;
    case proto::TASK_TYPE_SEQ2SEQ:
      return SampleKind::kSeq2Seq;
    case proto::TASK_TYPE_SPEECH_RECOGNITION:
      return SampleKind::kSpeech;
    case proto::TASK_TYPE_IMAGE_CLASSIFICATION:
      return SampleKind::kImages;
    default:
      return SampleKind::kCausalLm;
  }
}

}  // namespace

bool is_stream(SampleKind kind) {
  return kind == SampleKind::kCausalLm || kind == SampleKind::kMaskedLm ||
         kind == SampleKind::kPermutationLm;
}

bool is_words(SampleKind kind) {
  return kind == SampleKind::kTokenClassification || kind == SampleKind::kUnlabeledWords;
}

bool is_question(SampleKind kind) {
  return kind == SampleKind::kQuestionAnswering || kind == SampleKind::kUnlabeledQuestions;
}

bool is_images(SampleKind kind) {
  return kind == SampleKind::kImages || kind == SampleKind::kUnlabeledImages;
}

bool has_target(SampleKind kind) {
  return kind == SampleKind::kSeq2Seq || kind == SampleKind::kSpeech;
}

bool is_labeled(SampleKind kind) {
  return kind == SampleKind::kClassification || kind == SampleKind::kTokenClassification ||
         kind == SampleKind::kMultipleChoice || kind == SampleKind::kImages;
}

DatasetOptions dataset_options(const proto::TaskSpec& task, int64_t sequence_length,
                               int64_t target_length) {
  DatasetOptions options;
  options.kind = kind_of(task.type());
  options.source.format =
      task.data().format() == proto::DATA_FORMAT_JSONL ? InputFormat::kJsonl : InputFormat::kText;
  options.source.text_key = task.data().text();
  options.source.answers = options.kind == SampleKind::kQuestionAnswering;
  const bool labeled = is_labeled(options.kind) || options.source.answers;
  options.source.label_key = labeled ? task.data().label() : "";
  options.source.pair_key =
      has_target(options.kind) ? task.data().target() : task.data().text_pair();
  options.source.words = is_words(options.kind);
  if (is_images(options.kind)) {
    options.source.format = InputFormat::kImages;
    options.source.label_key = kClassKey;
  }
  if (options.kind == SampleKind::kSpeech) options.source.format = InputFormat::kAudio;
  if (options.kind == SampleKind::kMultipleChoice) options.source.choices = task.labels();
  options.sequence_length = sequence_length;
  options.target_length = target_length;
  options.labels = task.labels();
  options.stride = task.data().stride();
  options.mask_rate = task.mask_rate();
  return options;
}

Result<std::shared_ptr<const Dataset>> Dataset::load(const std::vector<SourceFile>& files,
                                                     const DatasetOptions& options,
                                                     const Tokenizer& tokenizer) {
  SourceOptions source = options.source;
  if (!is_labeled(options.kind) && !source.answers) source.label_key.clear();
  const auto documents = [&](const std::function<Status(const Document&)>& visit) {
    return for_each_document(files, source, visit);
  };
  return load(documents, options, tokenizer);
}

Result<std::shared_ptr<const Dataset>> Dataset::load(const Documents& documents,
                                                     const DatasetOptions& options,
                                                     const Tokenizer& tokenizer) {
  WEFT_RETURN_IF_ERROR(check_options(options));
  std::shared_ptr<Dataset> set(new Dataset(options));
  set->store_ = TokenStore(tokenizer.vocab_size());
  if (options.kind != SampleKind::kCausalLm) set->types_ = tokenizer.text_types();
  set->pad_id_ = tokenizer.pad_id().value_or(tokenizer.eos_id().value_or(0));
  if (options.kind == SampleKind::kCausalLm) {
    WEFT_RETURN_IF_ERROR(set->load_stream(documents, tokenizer));
  } else if (is_stream(options.kind)) {
    WEFT_RETURN_IF_ERROR(set->load_windows(documents, tokenizer));
  } else if (options.kind == SampleKind::kSpeech) {
    WEFT_RETURN_IF_ERROR(set->load_recordings(documents, tokenizer));
  } else {
    WEFT_RETURN_IF_ERROR(set->load_lines(documents, tokenizer));
  }
  WEFT_RETURN_IF_ERROR(set->check_count());
  return std::shared_ptr<const Dataset>(std::move(set));
}

Status Dataset::check_count() const {
  if (samples_ <= std::numeric_limits<uint32_t>::max()) return {};
  return Status(Code::kInvalidArgument,
                "the data has " + std::to_string(samples_) + " samples, at most 4294967295");
}

int64_t Dataset::rows_per_sample() const {
  if (options_.kind == SampleKind::kMultipleChoice) return options_.labels;
  return options_.kind == SampleKind::kEmbedding ? 2 : 1;
}

int64_t Dataset::rows_kept() const {
  return options_.kind == SampleKind::kSeq2Seq ? 2 : rows_per_sample();
}

int64_t Dataset::row_start(int64_t row) const {
  const int64_t rows = samples_ * rows_kept();
  WEFT_CHECK(row >= 0 && row < rows, "row {} of {}", row, rows);
  const auto at = static_cast<size_t>(row);
  if (!starts_.empty()) return starts_[at];
  return (windows_.empty() ? row : windows_[at]) * stride_;
}

int64_t Dataset::row_length(int64_t row) const {
  const int64_t start = row_start(row);
  if (!starts_.empty()) return starts_[static_cast<size_t>(row) + 1] - start;
  return std::min(room_, store_.size() - start) + std::ssize(prefix_) + std::ssize(suffix_);
}

void Dataset::copy_row(int64_t row, std::span<int64_t> ids) const {
  std::ranges::copy(prefix_, ids.begin());
  std::ranges::copy(suffix_, ids.end() - std::ssize(suffix_));
  store_.copy(row_start(row),
              ids.subspan(prefix_.size(), ids.size() - prefix_.size() - suffix_.size()));
}

std::vector<int64_t> Dataset::word_places(int64_t sample) const {
  const int64_t start = row_start(sample);
  std::vector<int64_t> places;
  for (auto word = word_starts_[static_cast<size_t>(sample)];
       word < word_starts_[static_cast<size_t>(sample) + 1]; ++word) {
    const int64_t token = word_tokens_[static_cast<size_t>(word)];
    places.push_back(token < 0 ? -1 : token - start);
  }
  return places;
}

void Dataset::label_words(int64_t sample, std::span<int64_t> labels) const {
  const std::vector<int64_t> places = word_places(sample);
  const auto first = static_cast<size_t>(word_starts_[static_cast<size_t>(sample)]);
  for (size_t word = 0; word < places.size(); ++word) {
    if (places[word] >= 0) labels[static_cast<size_t>(places[word])] = labels_[first + word];
  }
}

void Dataset::add_token_labels(int64_t sample, TaskRows& rows) const {
  const int64_t start = row_start(sample), length = row_length(sample);
  rows.labels.push_back(kNoLabel);
  for (int64_t token = 1; token < rows.tokens; ++token) {
    const bool counts = token < length && learned_[static_cast<size_t>(start + token)] != 0;
    rows.labels.push_back(counts ? store_.at(start + token) : kNoLabel);
  }
}

int64_t Dataset::tokens() const {
  if (options_.audio) return samples_ * options_.audio->layout().frames / 2 + store_.size();
  return is_images(options_.kind) ? samples_ * (options_.preprocessor->layout().patches() + 1)
                                  : store_.size();
}

TaskRows Dataset::rows(std::span<const Visit> visits) const {
  if (is_images(options_.kind)) return image_rows(visits, options_.augment_key);
  return rows_of(visits, options_.mask_key);
}

TaskRows Dataset::range(int64_t first, int64_t count) const {
  std::vector<Visit> visits;
  for (int64_t i = first; i < std::min(first + count, samples_); ++i) visits.push_back({0, i});
  if (is_images(options_.kind)) return image_rows(visits, std::nullopt);
  return rows_of(visits, kHeldOutMasks);
}

TaskRows Dataset::rows_of(std::span<const Visit> visits, RandomKey mask_key) const {
  if (options_.kind == SampleKind::kSeq2Seq) return with_targets(visits);
  if (options_.kind == SampleKind::kSpeech) return recording_rows(visits);
  if (rows_per_sample() == 1) return laid_out(visits, mask_key);
  std::vector<Visit> texts;
  if (options_.kind == SampleKind::kMultipleChoice) {
    for (const Visit& visit : visits) {
      for (int64_t choice = 0; choice < options_.labels; ++choice) {
        texts.push_back({visit.epoch, visit.sample * options_.labels + choice});
      }
    }
    TaskRows rows = laid_out(texts, mask_key);
    for (const Visit& visit : visits) {
      rows.labels.push_back(labels_[static_cast<size_t>(visit.sample)]);
    }
    return rows;
  }
  for (const int64_t second : {0, 1}) {
    for (const Visit& visit : visits) texts.push_back({visit.epoch, 2 * visit.sample + second});
  }
  return laid_out(texts, mask_key);
}

int64_t Dataset::width_of(std::span<const Visit> rows, int64_t most) const {
  int64_t longest = 0;
  for (const Visit& row : rows) longest = std::max(longest, row_length(row.sample));
  return std::min(most, (longest + kRowMultiple - 1) / kRowMultiple * kRowMultiple);
}

// The sources are even rows, their targets the odd ones behind them.
TaskRows Dataset::with_targets(std::span<const Visit> visits) const {
  std::vector<Visit> sources, targets;
  for (const Visit& visit : visits) {
    sources.push_back({visit.epoch, 2 * visit.sample});
    targets.push_back({visit.epoch, 2 * visit.sample + 1});
  }
  TaskRows rows = laid_out(sources, {});
  lay_targets(targets, rows);
  return rows;
}

void Dataset::lay_targets(std::span<const Visit> targets, TaskRows& rows) const {
  rows.target_tokens = width_of(targets, options_.target_length);
  const auto width = static_cast<size_t>(rows.target_tokens);
  rows.labels.assign(targets.size() * width, kNoLabel);
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto length = static_cast<size_t>(row_length(targets[i].sample));
    copy_row(targets[i].sample, std::span(rows.labels).subspan(i * width, length));
  }
}

TaskRows Dataset::laid_out(std::span<const Visit> visits, RandomKey mask_key) const {
  TaskRows rows;
  rows.rows = std::ssize(visits);
  int64_t shortest = std::numeric_limits<int64_t>::max();
  for (const Visit& visit : visits) shortest = std::min(shortest, row_length(visit.sample));
  rows.tokens = is_stream(options_.kind) ? options_.sequence_length
                                         : width_of(visits, options_.sequence_length);
  const auto width = static_cast<size_t>(rows.tokens);
  rows.ids.assign(visits.size() * width, pad_id_);
  if (shortest < rows.tokens) rows.valid.assign(rows.ids.size(), 0);
  const bool of_tokens = masking_ || is_words(options_.kind);
  if (of_tokens) rows.labels.assign(rows.ids.size(), kNoLabel);
  if (permuted_) rows.predictions = permuted_->predictions();
  if (pairs_ ? pairs_->typed() : types_.any()) rows.token_types.assign(rows.ids.size(), 0);
  for (size_t i = 0; i < visits.size(); ++i) {
    const int64_t sample = visits[i].sample;
    const auto length = static_cast<size_t>(row_length(sample));
    const auto ids = std::span(rows.ids).subspan(i * width, length);
    copy_row(sample, ids);
    if (!rows.valid.empty()) {
      std::fill_n(rows.valid.begin() + static_cast<int64_t>(i * width), length, uint8_t{1});
    }
    if (!rows.token_types.empty()) {
      const auto types = std::span(rows.token_types).subspan(i * width, length);
      pairs_ ? pairs_->write_types(first_tokens_[static_cast<size_t>(sample)], types)
             : types_.write(types);
    }
    if (permuted_) {
      permuted_->add(mask_key, visits[i], ids, rows);
    } else if (is_question(options_.kind)) {
      add_ends(sample, rows);
    } else if (of_tokens) {
      const auto labels = std::span(rows.labels).subspan(i * width, length);
      masking_ ? masking_->apply(mask_key, visits[i], ids, labels) : label_words(sample, labels);
    } else if (!labels_.empty() && rows_per_sample() == 1) {
      rows.labels.push_back(labels_[static_cast<size_t>(sample)]);
    }
    if (!learned_.empty()) add_token_labels(sample, rows);
  }
  return rows;
}

}  // namespace weft
