// The rules of what a task at `path` has for data, by its type. Private to proto/json.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "proto/json/refusal.h"

namespace weft::proto {
class TaskSpec;
}

namespace weft {

// The keys of a row's text and label. Before the others, which compare theirs with them.
Status finish_keys(proto::TaskSpec& task, const std::string& path, const Refusal& refuse);

// That of a second text.
Status finish_pair(proto::TaskSpec& task, const std::string& path, const Refusal& refuse);

// Of a question answering: what its windows share.
Status finish_stride(proto::TaskSpec& task, const std::string& path, int32_t sequence_length,
                     const Refusal& refuse);

// Of an image classification, whose labels are its images' folders. Before finish_keys.
Status check_images(const proto::TaskSpec& task, const std::string& path, const Refusal& refuse);

// Of a speech recognition, whose texts lie beside its recordings. Before finish_keys.
Status check_recordings(const proto::TaskSpec& task, const std::string& path,
                        const Refusal& refuse);

}  // namespace weft
