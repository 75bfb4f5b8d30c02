// Recordings as the samples of a data set.
#include <algorithm>
#include <utility>

#include "kernels/tensor/thread_pool.h"
#include "proto/base/check.h"
#include "worker/data/check.h"
#include "worker/data/dataset.h"
#include "worker/data/mapped_file.h"

namespace weft {

Status Dataset::load_recordings(const Documents& documents, const Tokenizer& tokenizer) {
  WEFT_CHECK(options_.audio, "recordings without a preprocessor");
  WEFT_RETURN_IF_ERROR(find_room(tokenizer));
  const auto visit = [&](const Document& document) -> Status {
    WEFT_RETURN_IF_ERROR(check_document(document, options_, /*utf8=*/true));
    dropped_.push_back(0);
    files_.push_back(*document.recording);
    if (document.seconds > static_cast<double>(options_.audio->seconds())) ++cut_recordings_;
    return add_target(document, tokenizer);
  };
  WEFT_RETURN_IF_ERROR(documents(visit));
  samples_ = std::ssize(files_);
  if (samples_ == 0) return Status(Code::kInvalidArgument, "the data is empty: it has no row");
  starts_.push_back(store_.size());
  return {};
}

Status Dataset::read_recording(int64_t sample, float* features) const {
  const SourceFile& file = files_[static_cast<size_t>(sample)];
  const Result<data::MappedFile> mapped = data::MappedFile::open(file.path);
  if (!mapped) return mapped.error().with_prefix(file.name);
  Result<Recording> recording = Recording::open(mapped->bytes(), options_.audio->rate());
  if (!recording) return recording.error().with_prefix(file.name);
  const Result<bool> read = options_.audio->write_features(*recording, features);
  if (!read) return read.error().with_prefix(file.name);
  if (*read) return {};
  return Status::invalid("recording", "broken", "must have the samples that its header tells")
      .with_prefix(file.name);
}

TaskRows Dataset::recording_rows(std::span<const Visit> visits) const {
  const AudioLayout& layout = options_.audio->layout();
  TaskRows rows;
  rows.rows = std::ssize(visits);
  rows.tokens = layout.frames / 2;
  rows.features.resize(visits.size() * static_cast<size_t>(layout.values()));
  const auto read = [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      Status status = read_recording(visits[static_cast<size_t>(i)].sample,
                                     rows.features.data() + i * layout.values());
      if (!status.ok()) throw StatusError(std::move(status));
    }
  };
  if (options_.pool != nullptr) {
    options_.pool->parallel_for(rows.rows, /*grain=*/1, read);
  } else {
    read(0, rows.rows);
  }
  lay_targets(visits, rows);
  return rows;
}

}  // namespace weft
