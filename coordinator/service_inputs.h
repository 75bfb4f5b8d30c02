// What a job names must be stored here, and be what the job takes it for.
// Thread safety: as the stores'. Ownership: refers to its arguments.
#pragma once

#include "coordinator/store/content.h"
#include "coordinator/store/job_store.h"
#include "proto/base/status.h"
#include "proto/job.pb.h"
#include "worker/admission/check_model.h"

namespace weft {

// `spec` is finished. Values of model.from, tokenizer.from, data.train and data.validation are ids
// of stored checkpoints and objects; the model and the tokenizer fit the job
// (worker/admission/check_model.h), which becomes `model` and finishes the job.
Status check_inputs(const JobStore& store, const Content& content, proto::JobSpec& spec,
                    AdmittedModel& model);

// The model alone: `described`, where it has a configuration, else what the job says or names.
Result<AdmittedModel> find_model_of(const JobStore& store, const Content& content,
                                    proto::JobSpec& spec, const proto::ModelSpec& described);

}  // namespace weft
