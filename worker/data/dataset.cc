#include "worker/data/dataset.h"

#include <algorithm>
#include <limits>

#include "proto/base/check.h"
#include "proto/job.pb.h"
#include "proto/json/value.h"
#include "worker/data/check.h"
#include "worker/data/labels.h"

namespace weft {
namespace {

constexpr int64_t kRowMultiple = 8;

Status check_options(const DatasetOptions& options) {
  const bool stream = options.kind == SampleKind::kCausalLm;
  const int64_t least = stream ? 2 : 1;
  if (options.sequence_length < least) {
    return Status::invalid("sequence_length", std::to_string(options.sequence_length),
                           "must be at least " + std::to_string(least) +
                               (stream ? ": a row's first token is not predicted" : ""));
  }
  if (options.kind != SampleKind::kClassification) return {};
  if (options.source.format != InputFormat::kJsonl || options.source.label_key.empty()) {
    return Status::invalid("format", "text", "a classification needs jsonl with labels");
  }
  if (options.labels < 2) {
    return Status::invalid("labels", std::to_string(options.labels), "must be at least 2");
  }
  return {};
}

bool needs_utf8(const Tokenizer& tokenizer) { return tokenizer.type() != "byte"; }

}  // namespace

DatasetOptions dataset_options(const proto::TaskSpec& task, int64_t sequence_length) {
  DatasetOptions options;
  const bool classifies = task.type() == proto::TASK_TYPE_SEQUENCE_CLASSIFICATION;
  options.kind = classifies ? SampleKind::kClassification : SampleKind::kCausalLm;
  options.source.format =
      task.data().format() == proto::DATA_FORMAT_JSONL ? InputFormat::kJsonl : InputFormat::kText;
  options.source.text_key = task.data().text();
  options.source.label_key = classifies ? task.data().label() : "";
  options.sequence_length = sequence_length;
  options.labels = task.labels();
  return options;
}

Result<std::shared_ptr<const Dataset>> Dataset::load(const std::vector<SourceFile>& files,
                                                     const DatasetOptions& options,
                                                     const Tokenizer& tokenizer) {
  SourceOptions source = options.source;
  if (options.kind != SampleKind::kClassification) source.label_key.clear();
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
  set->pad_id_ = tokenizer.pad_id().value_or(tokenizer.eos_id().value_or(0));
  if (options.kind == SampleKind::kCausalLm) {
    WEFT_RETURN_IF_ERROR(set->load_stream(documents, tokenizer));
  } else {
    WEFT_RETURN_IF_ERROR(set->load_lines(documents, tokenizer));
  }
  if (set->samples_ > std::numeric_limits<uint32_t>::max()) {
    return fail(Code::kInvalidArgument,
                "the data has " + std::to_string(set->samples_) + " samples, at most 4294967295");
  }
  return std::shared_ptr<const Dataset>(std::move(set));
}

Status Dataset::load_stream(const Documents& documents, const Tokenizer& tokenizer) {
  const std::optional<int64_t> eos = tokenizer.eos_id();
  const auto sink = [this](std::span<const int32_t> ids) { store_.append(ids); };
  const auto visit = [&](const Document& document) -> Status {
    if (document.text.empty()) return {};
    WEFT_RETURN_IF_ERROR(check_document(document, options_, needs_utf8(tokenizer)));
    const Status status = tokenizer.encode_to(document.text, true, sink);
    if (!status.ok()) return document.refuse(status);
    if (eos && (store_.size() == 0 || store_.at(store_.size() - 1) != *eos)) store_.push(*eos);
    return {};
  };
  WEFT_RETURN_IF_ERROR(documents(visit));
  if (store_.size() < 2) {
    return Status(Code::kInvalidArgument, "the data is empty: it gives " +
                                              std::to_string(store_.size()) +
                                              " tokens, at least 2 are needed");
  }
  const int64_t stride = options_.sequence_length - 1;
  samples_ = (store_.size() - 1 + stride - 1) / stride;
  return {};
}

Status Dataset::load_lines(const Documents& documents, const Tokenizer& tokenizer) {
  const auto prefix = tokenizer.prefix_ids(), suffix = tokenizer.suffix_ids();
  const int64_t around = static_cast<int64_t>(prefix.size() + suffix.size());
  if (around >= options_.sequence_length) {
    return Status::invalid("sequence_length", std::to_string(options_.sequence_length),
                           "must exceed the " + std::to_string(around) +
                               " tokens that the tokenizer puts around a text");
  }
  Labels labels(options_.source.label_key, options_.labels, options_.label_names,
                options_.first_labels);
  const auto sink = [this](std::span<const int32_t> ids) { store_.append(ids); };
  const auto visit = [&](const Document& document) -> Status {
    WEFT_RETURN_IF_ERROR(check_document(document, options_, needs_utf8(tokenizer)));
    const int64_t start = store_.size();
    starts_.push_back(start);
    store_.append(prefix);
    const int64_t first = store_.size();
    const Status status = tokenizer.encode_to(document.text, false, sink);
    if (!status.ok()) return document.refuse(status);
    if (store_.size() == first) {
      return document.refuse(options_.source.text_key, shortened(document.text),
                             "gives no token; a text to classify needs one");
    }
    const int64_t end = std::min(store_.size(), first + options_.sequence_length - around);
    dropped_.push_back(store_.size() - end);
    store_.truncate(end);
    store_.append(suffix);
    if (options_.kind == SampleKind::kUnlabeled) {
      labels_.push_back(kNoLabel);
      return {};
    }
    WEFT_ASSIGN_OR_RETURN(const int64_t label, labels.take(document));
    labels_.push_back(label);
    return {};
  };
  WEFT_RETURN_IF_ERROR(documents(visit));
  samples_ = static_cast<int64_t>(starts_.size());
  if (samples_ == 0) return Status(Code::kInvalidArgument, "the data is empty: it has no row");
  starts_.push_back(store_.size());
  label_names_ = labels.names();
  const std::vector<int64_t> classes = labels.classes();
  if (classes.empty()) return {};
  for (int64_t& label : labels_) label = classes[static_cast<size_t>(label)];
  return {};
}

int64_t Dataset::sample_start(int64_t sample) const {
  WEFT_CHECK(sample >= 0 && sample < samples_, "sample {} of {}", sample, samples_);
  return starts_.empty() ? sample * (options_.sequence_length - 1)
                         : starts_[static_cast<size_t>(sample)];
}

int64_t Dataset::sample_length(int64_t sample) const {
  const int64_t start = sample_start(sample);
  if (!starts_.empty()) return starts_[static_cast<size_t>(sample) + 1] - start;
  return std::min(options_.sequence_length, store_.size() - start);
}

TaskRows Dataset::rows(std::span<const int64_t> samples) const {
  TaskRows rows;
  rows.rows = static_cast<int64_t>(samples.size());
  int64_t longest = 0, shortest = std::numeric_limits<int64_t>::max();
  for (const int64_t sample : samples) {
    const int64_t length = sample_length(sample);
    longest = std::max(longest, length);
    shortest = std::min(shortest, length);
  }
  const bool stream = options_.kind == SampleKind::kCausalLm;
  const int64_t rounded = (longest + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
  rows.tokens = stream ? options_.sequence_length : std::min(options_.sequence_length, rounded);
  const auto width = static_cast<size_t>(rows.tokens);
  rows.ids.assign(samples.size() * width, pad_id_);
  if (shortest < rows.tokens) rows.valid.assign(rows.ids.size(), 0);
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto length = static_cast<size_t>(sample_length(samples[i]));
    store_.copy(sample_start(samples[i]), std::span(rows.ids).subspan(i * width, length));
    if (!rows.valid.empty()) {
      std::fill_n(rows.valid.begin() + static_cast<int64_t>(i * width), length, uint8_t{1});
    }
    if (!stream) rows.labels.push_back(labels_[static_cast<size_t>(samples[i])]);
  }
  return rows;
}

TaskRows Dataset::range(int64_t first, int64_t count) const {
  std::vector<int64_t> samples;
  for (int64_t i = first; i < std::min(first + count, samples_); ++i) samples.push_back(i);
  return rows(samples);
}

}  // namespace weft
