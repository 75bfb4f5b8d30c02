// From a launch record to everything a training needs: tokenizer or preprocessor, model with its
// weights, tasks with their data, optimizer, and where an earlier attempt had got to.
//
// Thread safety: the rank's compute thread; set_up is a collective. Ownership: the caller keeps
// Rank and Progress alive longer than the result.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/launch.pb.h"
#include "worker/checkpoint/writer.h"
#include "worker/feed.h"
#include "worker/models/model.h"
#include "worker/optimizer/gradients.h"
#include "worker/optimizer/loss_scale.h"
#include "worker/optimizer/optimizer.h"
#include "worker/optimizer/schedule.h"
#include "worker/optimizer/unit_gate.h"
#include "worker/optimizer/value_gate.h"
#include "worker/progress.h"
#include "worker/recorded_passes.h"
#include "worker/tasks/mixing.h"

namespace weft {

struct TrainingTask {
  proto::TaskSpec spec;
  std::unique_ptr<Task> task;
  Feed feed;
  int64_t steps = 0;               // updates it has had
  std::vector<Parameter> trained;  // the trunk's and its head's: what its steps update
  bool new_head = false;           // its classes are others than those that model.from has
};

struct Training {
  const ModelFamily* family = nullptr;
  ModelConfigPtr config;
  std::unique_ptr<Tokenizer> tokenizer;           // null: a model of images,
  std::optional<ImagePreprocessor> preprocessor;  // which has this
  std::optional<AudioPreprocessor> audio;         // of a model that hears
  std::unique_ptr<Trunk> trunk;
  std::vector<TrainingTask> tasks;
  DType precision = DType::kF32;  // of the values that forward and backward pass work with
  Recompute recompute = Recompute::kNothing;
  std::optional<LossScale> loss_scale;  // fp16
  std::unique_ptr<AdamW> optimizer;     // over the trunk's and every head's parameters
  std::unique_ptr<GradientReducer> reducer;
  std::unique_ptr<RecordedPasses> passes;  // null: passes run as they are
  std::unique_ptr<UnitGate> gate;          // null: parameters are whole all the time
  std::unique_ptr<ValueGate> values;       // null: so are their values after an update
  std::unique_ptr<tasks::Mixing> mixing;
  Schedule schedule;
  proto::CheckpointManifest manifest;  // what every checkpoint of this job repeats
  // Of its files, where no checkpoint has them yet: they go with the first one. On rank 0.
  std::vector<checkpoint::FileChunk> file_chunks;
  // Whether a checkpoint has the frozen tensors; `manifest` lists them then.
  bool frozen_stored = false;
  proto::TrainerState state;  // where the training stands
  std::string resume_note;

  // Weights of every parameter and moments of those that are trained, in a fixed order; `updates`
  // of the optimizer follow from the steps of the trunk and of each task.
  std::vector<checkpoint::StateTensor> state_tensors();
  // Those that the next checkpoint has to store, and what follows once it is stored; `entries`: its
  // tensors, on rank 0.
  std::vector<checkpoint::StateTensor> unstored_tensors();
  void keep_frozen(std::span<const proto::TensorEntry> entries);
};

Result<std::unique_ptr<Training>> set_up(Rank& rank, const proto::LaunchRecord& record,
                                         Progress& progress);

// Kind of build and processor, and of what computes on a GPU: two runs are only compared bit for
// bit where these are equal.
std::string build_description(Rank& rank);

}  // namespace weft
