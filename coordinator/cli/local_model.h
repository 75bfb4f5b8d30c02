// A model that a command uses on this machine: an exported folder, or a checkpoint, whose export is
// kept in the user's cache.
//
// Thread safety: one thread. Ownership: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "coordinator/cli/commands.h"
#include "proto/job.pb.h"
#include "worker/serve/loaded_model.h"

namespace weft::cli {

struct LocalModel {
  std::string name;    // the checkpoint's id, or the folder as it was given
  std::string folder;  // with config.json; of a checkpoint there once fetch_model() has been called
  proto::TaskSpec task;  // without a name: a folder's only head, of this type
  std::string job;       // that wrote the checkpoint; empty: of a folder
};

// `given`: a checkpoint's id, a job's for its best or else newest, or a folder. `task`: by name;
// empty: the only one of `types`, or of any type where that is empty. Causal language models of one
// checkpoint share their head, so that the first stands for all. Errors have `field` or "--task":
// no such checkpoint (102) or folder, no such task, one of another type, several.
Result<LocalModel> find_local_model(const Context& context, const std::string& field,
                                    const std::string& given, const std::string& task,
                                    const std::vector<proto::TaskType>& types);

// The export of a checkpoint, which never changes, unless it is in the cache already.
Status fetch_model(const Context& context, LocalModel& model);

// The only rank, with all cores.
Result<Rank> make_rank();

// What `evaluate`, `classify`, `embed`, `answer` and `transcribe` choose about a model.
struct ModelUse {
  std::string text_key, label_key;  // of rows
  std::string pair_key;             // empty: rows have no second text
  int64_t rows_at_once = 0;
  int64_t sequence_length = 0;  // 0: by the positions of the folder's model
  int64_t target_length = 0;    // of a task that writes; 0: as sequence_length
  int64_t choices = 0;          // of a multiple_choice: of each row
  std::string sequence_reason;
  DType precision = DType::kF32;
};
// What is asked for, else what the job of the checkpoint trained with.
Result<ModelUse> choose_use(const Context& context, const LocalModel& model,
                            const ModelOptions& options);
// What windows of a context share: as the job trained where that goes with the sequence length.
int64_t stride_of(const LocalModel& model, const ModelUse& use);
// fetch_model and load_hf_folder; an open sequence length is chosen. Error too: one that the model
// has no positions for.
Result<LoadedModel> load_model(const Context& context, Rank& rank, LocalModel& model,
                               ModelUse& use);

}  // namespace weft::cli
