// How Llama's parameters are spread over the mesh's tensor axis: heads by head_parts(), so that
// ranks which share a head of keys and values all hold its projections; the MLP's hidden features
// and the vocabulary by part_of(); norms are whole on every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "worker/models/llama_config.h"

namespace weft::llama {

// Unit by unit; names as in transformers' LlamaForCausalLM (matrices stored [out, in]).
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index);

// Positions in that list.
inline constexpr size_t kTokenEmbedding = 0, kFirstBlock = 1;
inline constexpr size_t kParametersPerBlock = 9;
enum BlockParameter : size_t {
  kNorm1,
  kQuery,
  kKey,
  kValue,
  kAttentionOut,
  kNorm2,
  kGate,
  kUp,
  kDown,
};

bool ignored_in_files(std::string_view tensor, const Config& config);

}  // namespace weft::llama
