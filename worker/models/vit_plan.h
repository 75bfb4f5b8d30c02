// How ViT's parameters are spread over the mesh's tensor axis: heads and the MLP's inner features
// are cut by part_of(); norms, the embeddings' parameters and the biases after a sum are whole on
// every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "worker/models/vit_config.h"

namespace weft::vit {

// Unit by unit; names as in the files of transformers' ViTForImageClassification.
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index);

// Positions in that list: before the blocks; the projection's bias stands behind its weight.
inline constexpr size_t kClassToken = 0, kPositionEmbedding = 1, kProjection = 2, kFirstBlock = 4;
// In that of a block; a bias stands behind its weight.
struct BlockPlaces {
  explicit BlockPlaces(const Config& config);
  size_t norm1, query, key, value, attention_out, norm2, inner, outer;
};

// What transformers' models since version 5 call a parameter or a linear map.
std::string name_in_memory(std::string name);
bool ignored_in_files(std::string_view tensor);

}  // namespace weft::vit
