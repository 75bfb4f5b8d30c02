// How the parameters of Whisper are spread over the mesh's tensor axis: heads, the MLP's hidden
// features and the vocabulary by part_of(); convolutions, tables of positions, norms and the biases
// after a sum are whole on every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "worker/models/whisper_config.h"

namespace weft::whisper {

// Unit by unit; names as in transformers' WhisperForConditionalGeneration (matrices stored [out,
// in]). The convolutions are in the unit of the encoder's first block, as the backward pass uses
// them.
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index);

// Positions in that list; a bias stands behind its weight.
inline constexpr size_t kTokenEmbedding = 0, kTargetPositions = 1, kSourcePositions = 2,
                        kConvolution1 = 3, kConvolution2 = 5, kFirstBlock = 7;
// In that of a block: an attention's, whose keys have no bias, the first one's or the decoder's to
// the source; and the MLP's.
struct AttentionPlaces {
  size_t norm, query, key, value, out;
};
inline constexpr AttentionPlaces kSelf{0, 2, 4, 5, 7}, kSource{9, 11, 13, 14, 16};
struct MlpPlaces {
  explicit MlpPlaces(bool decoder) : norm(decoder ? 18 : 9), inner(norm + 2), outer(norm + 4) {}
  size_t norm, inner, outer;
};

inline constexpr std::string_view kTokenHead = "proj_out.weight";
bool ignored_in_files(std::string_view tensor, const Config& config);

}  // namespace weft::whisper
