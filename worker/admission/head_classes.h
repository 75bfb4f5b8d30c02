// Which classes the rows of a classifier's head stand for, in a model that a training starts from.
// Thread safety: pure functions. Ownership: values.
#pragma once

#include <string>
#include <vector>

#include "proto/checkpoint.pb.h"
#include "proto/job.pb.h"
#include "worker/models/hf_folder.h"

namespace weft {

// Whether a folder's head has classes of what the task classifies.
bool classifies_alike(const HfFolder& folder, const proto::TaskSpec& task);

// Names of the classes of the head that `task` of the job can take over, in the order of its rows:
// of the task of that name in a checkpoint, or of a folder, whose one head goes to a job's only
// task. Empty: integers, no head, or neither source (nullptr).
std::vector<std::string> classes_of(const proto::CheckpointManifest* manifest,
                                    const HfFolder* folder, const proto::JobSpec& job,
                                    const proto::TaskSpec& task);

// Whether each row of a head with the classes `then` stands for the same class in `now`, which may
// have more. Where either has no names, as with integers, nobody can tell, and they count as the
// same.
bool same_classes(const std::vector<std::string>& then, const std::vector<std::string>& now);

}  // namespace weft
