// How the parameters of Llama and its kin are spread over the mesh's tensor axis: heads by
// head_parts(), in topology-invariant training by blocked_head_parts(), so that ranks which share a
// head of keys and values all hold its projections; the MLP's hidden features and the vocabulary by
// part_of(); norms are whole on every rank, as is the bias of attention's output.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "worker/models/llama_config.h"

namespace weft::llama {

// Unit by unit; names as in transformers' LlamaForCausalLM (matrices stored [out, in]).
// blocks: of topology-invariant training, or 0.
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index,
                                int blocks = 0);

// Positions in that list.
inline constexpr size_t kTokenEmbedding = 0, kFirstBlock = 1;
// In that of a block; a bias stands behind its weight. What a configuration lacks has no place.
struct BlockPlaces {
  explicit BlockPlaces(const Config& config);
  size_t norm1, query, key, value, query_norm, key_norm, attention_out, norm2, gate, up, down;
};

bool ignored_in_files(std::string_view tensor, const Config& config);

}  // namespace weft::llama
