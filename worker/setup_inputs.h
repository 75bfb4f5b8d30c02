// What set_up reads of a job's inputs beside weights and data: where the model comes from, and what
// turns texts or images into what it takes.
//
// Thread safety: the rank's compute thread. Ownership: values; what is found belongs to Training.
#pragma once

#include <memory>

#include "proto/launch.pb.h"
#include "worker/models/hf_folder.h"
#include "worker/progress.h"
#include "worker/setup.h"

namespace weft {

// Where the model's description and weights come from.
struct ModelSource {
  const proto::CheckpointManifest* manifest = nullptr;  // of the job itself or of model.from
  bool resumed = false;
  std::unique_ptr<HfFolder> folder;
};

Result<ModelSource> find_source(const proto::LaunchRecord& record);

// The tokenizer of a model that reads or writes texts, the preprocessor of one of images or
// recordings, and on rank 0 the files that the next checkpoint has to hold.
Status find_tokenizer(Rank& rank, const proto::LaunchRecord& record, const ModelSource& source,
                      Progress& progress, Training& training);
Status find_preprocessor(Rank& rank, const ModelSource& source, Progress& progress,
                         Training& training);
Status find_audio_preprocessor(Rank& rank, const ModelSource& source, Progress& progress,
                               Training& training);

}  // namespace weft
