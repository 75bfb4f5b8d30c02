// What a model that hears writes of recordings: the likeliest token after each other, until its end
// or as many as the model has positions for.
//
// Thread safety: the rank's compute thread. Ownership: everything belongs to the caller.
// Invariant: a row's text does not depend on the others, but for the order in which sums are
// rounded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/data/rows.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/serve/loaded_model.h"

namespace weft {

// Of each row's features. The decoder is fed with the token that it starts with and what else the
// tokenizer puts before a text, as in training. target_length: tokens of a text, its end and those
// in front included. Error: logits that are no finite numbers.
Result<std::vector<std::string>> transcribe(Rank& rank, LoadedModel& model, const TaskRows& rows,
                                            int64_t target_length);

// What a row of a task's labels says.
std::string target_text(const Tokenizer& tokenizer, const TaskRows& rows, int64_t row);

}  // namespace weft
