// How BERT's parameters, and those of its kin, are spread over the mesh's tensor axis: heads, the
// MLP's inner features and the vocabulary are cut by part_of(); norms, positions, token types and
// the biases after a sum are whole on every rank.
//
// Thread safety: pure functions.
#pragma once

#include <string_view>
#include <vector>

#include "worker/models/bert_config.h"

namespace weft::bert {

// In the order in which transformers' models list them.
std::vector<ParameterInfo> plan(const Dialect& dialect, const Config& config, int tensor_size,
                                int tensor_index);

// Positions in that list of what stands before the blocks: the table of token types where there is
// one, then the norm.
inline constexpr size_t kTokenEmbedding = 0, kPositionEmbedding = 1, kTypeEmbedding = 2;
inline size_t first_norm(const Dialect& dialect) { return dialect.token_types ? 3 : 2; }
inline size_t first_block(const Dialect& dialect) { return first_norm(dialect) + 2; }

// A block's: weights, each followed by its bias.
enum BlockParameter : size_t {
  kQuery = 0,
  kKey = 2,
  kValue = 4,
  kAttentionOut = 6,
  kNorm1 = 8,
  kInner = 10,
  kOuter = 12,
  kNorm2 = 14,
};

bool ignored_in_files(const Dialect& dialect, std::string_view tensor);

}  // namespace weft::bert
