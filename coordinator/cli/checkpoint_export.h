// A checkpoint's export on disk.
// Thread safety: one thread. Ownership: none.
#pragma once

#include <functional>
#include <string>

#include "coordinator/cli/api_client.h"

namespace weft::cli {

// Whether a text is spelled as the id of a checkpoint or of a job, as no folder or file but by
// chance.
bool names_checkpoint(const std::string& text);

// `id`, or of a job's id its best checkpoint where it keeps one, else its newest. Error: of
// `field`, where the job has none yet.
Result<std::string> checkpoint_of(ApiClient& client, const std::string& field,
                                  const std::string& id);

// Downloads the files of `checkpoint` into `folder`, which must be absent or empty: first into a
// folder beside it, renamed when all is there and synced. adapter: the PEFT folder of its adapter.
// Gives the task whose head was taken.
Result<std::string> download_export(ApiClient& client, const std::string& checkpoint,
                                    const std::string& task, bool adapter,
                                    const std::string& folder,
                                    const std::function<void(int64_t, int64_t)>& progress);

}  // namespace weft::cli
