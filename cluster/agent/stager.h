// An attempt's inputs, from chunks into files: <objects>/<object id>/<path>.
//
// Thread safety: stage() blocks; several threads may stage at once. Invariants: 1. an object's
// folder is complete or absent. 2. no path leaves it: parts are plain names, and the folder is
// new. 3. sizes and hashes are checked.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "proto/base/status.h"
#include "proto/launch.pb.h"

namespace weft {

using FetchChunk = std::function<Result<std::string>(const std::string& hash)>;

// Errors name object, path and rule. `cancelled`: give up.
Status stage_objects(const proto::LaunchRecord& record, const std::string& objects_folder,
                     const FetchChunk& fetch, const std::atomic<bool>& cancelled);

}  // namespace weft
