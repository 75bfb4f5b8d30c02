// How the parameters of XLNet are spread over the mesh's tensor axis: heads, the MLP's hidden
// features and the vocabulary by part_of(); norms and the embedding of what is predicted are whole
// on every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string_view>
#include <vector>

#include "worker/models/xlnet_config.h"

namespace weft::xlnet {

// Unit by unit; names as in transformers' XLNetModel. Matrices of heads are stored [H, N, D], of
// the MLP [out, in].
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index);

// Positions in that list.
inline constexpr size_t kTokenEmbedding = 0, kMaskEmbedding = 1, kFirstBlock = 2;
// In that of a block; of kNorm1, kInner, kOuter and kNorm2 the biases follow.
enum BlockParameter : size_t {
  kQuery,
  kKey,
  kValue,
  kDistance,
  kPosition,
  kSegment,
  kContent,
  kSegments,
  kAttentionOut,
  kNorm1,
  kInner = kNorm1 + 2,
  kOuter = kInner + 2,
  kNorm2 = kOuter + 2
};

// Of files; the table of tokens, which is tied to it, is what is used.
inline constexpr std::string_view kTokenHead = "lm_loss.weight";
bool ignored_in_files(std::string_view tensor);

}  // namespace weft::xlnet
