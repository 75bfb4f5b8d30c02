// How GPT-2's parameters are spread over the mesh's tensor axis: heads, the MLP's hidden features
// and the vocabulary are cut by part_of(), so none of them has to divide evenly; norms, positions
// and the biases after a sum are whole on every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "worker/models/gpt2_config.h"

namespace weft::gpt2 {

// In the order in which transformers' GPT2LMHeadModel lists them.
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index);

// Positions in that list.
inline constexpr size_t kTokenEmbedding = 0, kPositionEmbedding = 1, kFirstBlock = 2;
enum BlockParameter : size_t {
  kNorm1Weight,
  kNorm1Bias,
  kAttentionWeight,
  kAttentionBias,
  kAttentionOutWeight,
  kAttentionOutBias,
  kNorm2Weight,
  kNorm2Bias,
  kMlpWeight,
  kMlpBias,
  kMlpOutWeight,
  kMlpOutBias,
};

bool ignored_in_files(std::string_view tensor, const Config& config);

}  // namespace weft::gpt2
