// A Hugging Face folder: config.json, model.safetensors (or several files with an index) and the
// tokenizer's files.
//
// Thread safety: free functions. Ownership: none kept.
// Invariants: 1. only the bytes of this rank's shards are copied out of the files. 2. a tensor that
// is missing, left over, of another shape or of an unknown dtype is an error that names it.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "worker/checkpoint/safetensors.h"
#include "worker/models/model.h"

namespace weft {

struct HfFolder {
  std::string path;
  const ModelFamily* family = nullptr;
  ModelConfigPtr config;
  std::string config_text;                 // config.json as it stands
  std::vector<std::string> weight_files;   // full paths, in the order of the index
  std::string tokenizer_file;              // full path of tokenizer.json; empty: none
  int64_t labels = 0;                      // of a classification head, as config.json says; 0: none
  HeadKind classes = HeadKind::kSequence;  // what has one of these
  bool trunk_only = false;                 // no head at all: BertModel
  std::vector<std::string> label_names;    // of the classes in order; empty: LABEL_0, ... or none
};

// What model.from breaks where its files lack the head of tokens, and an adapter would leave it
// frozen as nobody made it.
inline constexpr const char* kFrozenHeadRule =
    "must hold lm_head.weight: a causal_lm task reads it and an adapter leaves it as it is; train "
    "without an adapter, or from a folder that has it";

// Reads config.json and finds the files; reads no weights. Errors name the file and what it lacks.
Result<HfFolder> open_hf_folder(const std::string& path);

// The files' tensor of each parameter of `plan`, in its order, a tied head's where it stands there
// for the embedding; nullptr for a head of tokens that files with a classification head lack.
// `names`: all that the files hold. Errors have the tensor as their field: one that is missing, of
// another shape or of a dtype that holds no floating-point numbers, one that no parameter is called
// after.
Result<std::vector<const SafetensorInfo*>> match_weights(
    const ModelFamily& family, const ModelConfig& config, const std::vector<ParameterInfo>& plan,
    const std::vector<std::string>& names,
    const std::function<const SafetensorInfo*(const std::string&)>& find);

// A tensor of a task's head by its name in the file: "score.weight".
struct HeadTensor {
  std::string file_name;
  Parameter* parameter = nullptr;
};

// Takes this rank's shard of a parameter, row-major.
using ShardSink = std::function<void(const Parameter& parameter, std::span<const float> shard)>;

// Fills this rank's shards of the trunk's parameters, those of an adapter aside, and of those heads
// that the file has with the same shape. The others stay as they are: a new task has its own number
// of classes, and a classifier that is not tied (ModelConfig::tied) has no head of tokens in its
// files. With a sink each shard goes there instead, one after the other. Error: a head of tokens
// that config.json ties, but the files hold another one than the table.
Status load_hf_weights(const HfFolder& folder, std::vector<Parameter>& parameters,
                       std::span<const HeadTensor> heads = {}, const ShardSink& sink = {});

// Fills this rank's shards of an adapter's parameters, and of the heads that are trained beside it,
// from a PEFT folder's adapter_model.safetensors. Error: one of them is missing there or has
// another shape, or a tensor is left over.
Status load_peft_weights(const std::string& file, std::vector<Parameter>& parameters,
                         std::span<const HeadTensor> heads = {});

}  // namespace weft
