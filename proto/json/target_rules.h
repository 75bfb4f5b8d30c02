// The rules of tasks that write a text for what they read or hear. Private to proto/json.
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "proto/json/refusal.h"

namespace weft::proto {
class JobSpec;
class TaskSpec;
}  // namespace weft::proto

namespace weft {

// data.target of a task at `path`, and what it needs of the data; refused of other tasks.
Status finish_target(proto::TaskSpec& task, const std::string& path, const Refusal& refuse);

// training.target_length, and what an encoder-decoder is not trained with.
Status finish_targets(proto::JobSpec& spec, const Refusal& refuse);

}  // namespace weft
