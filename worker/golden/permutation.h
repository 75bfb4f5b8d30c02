// The inputs of XLNetLMHeadModel, perm_mask and target_mapping, as a task has them: which tokens
// are predicted, and in which order.
//
// Thread safety: a pure function.
#pragma once

#include <string>

#include "proto/base/status.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/data/rows.h"

namespace weft::golden {

// Fills in what a permutation_lm has of rows whose ids are there, but the labels. Errors name a
// perm_mask that is of no order, or a target_mapping whose rows do not each name one token.
Status read_predictions(const SafetensorsFile& file, const std::string& prefix, TaskRows& rows);

}  // namespace weft::golden
