// How the parameters of T5 are spread over the mesh's tensor axis: heads, and with them the columns
// of the tables of distances, the MLP's hidden features and the vocabulary by part_of(); norms are
// whole on every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "worker/models/t5_config.h"

namespace weft::t5 {

// Unit by unit; names as in transformers' T5ForConditionalGeneration (matrices stored [out, in]).
// The tables of distances, which transformers keeps in each stack's first block, are used by all
// blocks and stand before them.
std::vector<ParameterInfo> plan(const Config& config, int tensor_size, int tensor_index);

// Positions in that list.
inline constexpr size_t kTokenEmbedding = 0, kEncoderDistances = 1, kDecoderDistances = 2,
                        kFirstBlock = 3;
// In that of a block: an attention's, the first one's or the decoder's to the source; and the
// MLP's.
struct AttentionPlaces {
  size_t norm, query, key, value, out;
};
inline constexpr AttentionPlaces kSelf{0, 1, 2, 3, 4}, kSource{5, 6, 7, 8, 9};
struct MlpPlaces {
  MlpPlaces(const Config& config, bool decoder)
      : norm(decoder ? 10 : 5),
        first(norm + 1),
        second(norm + 2),
        out(norm + (config.gated ? 3 : 2)) {}
  size_t norm, first, second, out;  // the second is a gated one's only
};

bool ignored_in_files(std::string_view tensor, const Config& config);

}  // namespace weft::t5
