// What a job says of its model and tokenizer, held against the files that it names, before anything
// is started: the same rules by which its ranks would fail. Only configurations, headers and
// tokenizers are read, never weights.
//
// Thread safety: pure but for reading the files. Ownership: refers to its arguments.
// Invariants: 1. what passes here is not refused by a rank for its configuration, its weights'
// names, shapes and dtypes, its tokenizer or preprocessor. 2. an error's field is one of the job
// file.
#pragma once

#include "proto/base/status.h"
#include "worker/admission/input_files.h"
#include "worker/models/model.h"

namespace weft::proto {
class CheckpointManifest;
class JobSpec;
}  // namespace weft::proto

namespace weft {

struct ModelInputs {
  const InputFiles* model = nullptr;                // of model.from, a Hugging Face folder
  const proto::CheckpointManifest* base = nullptr;  // of model.from, a checkpoint
  const InputFiles* tokenizer = nullptr;            // of tokenizer.from
};

struct AdmittedModel {
  const ModelFamily* family = nullptr;
  ModelConfigPtr config;
};

// `spec` is finished (proto/json/job_rules.h). Of an input that is not at hand (the command line
// knows no checkpoint's manifest) nothing is checked.
//   model.config    the family knows it, and takes each key's value
//   model folder    config.json likewise; the weights' names, shapes and dtypes are what it asks
//                   for
//   checkpoint      likewise, from its manifest
//   the job         sequence length, tensor axis and vocabulary fit (finish_model_fit), the bytes
//                   of a step can be counted (check_sizes), blocks divide it (check_blocks)
//   adapter         its targets are linear maps of the model; the folder has the head of tokens
//                   that a causal_lm task reads
//   preprocessor    of a model of images or recordings: each setting is known
//   tokenizer       is given or comes with the model, can be read, and has no more tokens than the
//                   model's vocabulary
// `model`, where it is not null, becomes the model with the adapter; its members stay null where it
// is not at hand. training.sequence_length of a job of images or recordings becomes what the model
// makes of one, unless it says so already.
Status check_model(proto::JobSpec& spec, const ModelInputs& inputs, AdmittedModel* model = nullptr);

}  // namespace weft
