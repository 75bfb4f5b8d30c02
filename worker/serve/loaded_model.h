// A model to use, on one rank: what a Hugging Face folder (an export) holds, with its head.
//
// Thread safety: the rank's compute thread. Ownership: a LoadedModel refers to its Rank, which
// outlives it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/audio/preprocessor.h"
#include "worker/data/images/preprocessor.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/models/hf_folder.h"
#include "worker/tasks/task.h"

namespace weft {

struct LoadedModel {
  HfFolder folder;
  std::unique_ptr<Trunk> trunk;
  std::unique_ptr<Tokenizer> tokenizer;           // null: a model of images,
  std::optional<ImagePreprocessor> preprocessor;  // which has this
  std::optional<AudioPreprocessor> audio;         // of one that hears
  std::unique_ptr<Task> task;                     // of task_type
};

// Of a model of images "image_classification", of one that hears "speech_recognition". Where the
// folder has classes "sequence_classification" or "token_classification", where it tells choices
// apart "multiple_choice", where it finds answers "question_answering", else "causal_lm" of a
// decoder, "seq2seq" of an encoder-decoder, and of an encoder "embedding" where there is no head,
// else "masked_lm", or "permutation_lm" of a family that learns that.
std::string_view task_type(const HfFolder& folder);

// Of each of a classifier's classes: its name, LABEL_i of the i-th where that has none.
std::vector<std::string> class_names(const HfFolder& folder);

// `type`: what the head has to be; empty: any; "embedding": an encoder's, whose head is not loaded.
// Of half `precision` the model computes with its values rounded, as a trainer of that precision
// does. Errors name the file and what breaks which rule: those of hf_folder.h; a head of another
// type, one that the weights lack, that is no choice of one of at least two classes; no
// tokenizer.json; a tokenizer larger than the model's vocabulary; of images and recordings a
// setting of preprocessor_config.json. choices: rows of a question of a "multiple_choice".
Result<LoadedModel> load_hf_folder(Rank& rank, const std::string& path, std::string_view type,
                                   DType precision = DType::kF32, int64_t choices = 0);

}  // namespace weft
