// A task's data as the trainer consumes it: rows of whole batches in a global order that every rank
// knows, with a position that a checkpoint holds.
//
// Thread safety: the rank's compute thread. Ownership: owns the tokens of its data set.
// Invariants: 1. the sequence of batches depends on the data, the seed and the position only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proto/checkpoint.pb.h"
#include "proto/job.pb.h"
#include "worker/data/answers.h"
#include "worker/data/dataset.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/tasks/task.h"

namespace weft {

struct FeedOptions {
  int64_t sequence_length = 0;
  int64_t target_length = 0;  // of a task that writes
  uint64_t seed = 0;
  bool shuffle = true;
  std::string objects_folder;
  std::string field;  // "tasks[0]", for error messages
  int64_t index = 0;  // of the task in the job; its random stream
  // Classes of the model that the training starts from, which keep their numbers.
  std::vector<std::string> first_labels = {};
  // Of images.
  std::optional<ImagePreprocessor> preprocessor = {};
  // Of recordings.
  std::optional<AudioPreprocessor> audio = {};
  std::optional<int64_t> start_id = {};  // the decoder's first token
  ThreadPool* pool = nullptr;
};

class Feed {
 public:
  // Reads and tokenizes the task's training and validation data; of images, which have no tokenizer
  // (nullptr), and of recordings only their headers. Errors name field, file and line.
  static Result<Feed> open(const proto::TaskSpec& task, const Tokenizer* tokenizer,
                           const FeedOptions& options);
  Feed(Feed&&) noexcept;
  Feed& operator=(Feed&&) noexcept;
  ~Feed();

  // Of training and validation data, how many are longer than what is heard of each.
  int64_t cut_recordings() const;

  // Of the training data, across the end of an epoch too. Both throw as Dataset::rows.
  TaskRows next(int64_t rows);

  int64_t validation_rows() const;  // 0: no validation data
  TaskRows validation(int64_t first, int64_t rows) const;
  // Of a question_answering, by the answers of all windows of the validation data (answers.h).
  std::map<std::string, double> answer_scores(std::span<const FoundAnswer> found) const;
  // Classes by name; empty where the labels are integers.
  const std::vector<std::string>& label_names() const;

  proto::DataPosition position() const;  // `task` and `steps` are the caller's
  Status restore(const proto::DataPosition& position);

 private:
  struct State;
  explicit Feed(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace weft
