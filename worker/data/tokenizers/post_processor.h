// What stands around an encoded text, or around and between two: the section `post_processor`.
// Thread safety: values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft::tokenizers {

struct PostProcessor {
  std::vector<int64_t> prefix, suffix;
  TextTypes types;              // of these and of the text; empty: all 0
  std::vector<PairPiece> pair;  // empty: of two texts it makes nothing
  bool trim_offsets = false;    // offsets leave white space at a token's ends out
  bool add_prefix_space = false;
};

// Errors name the component; ids have to be below `vocab_size`.
Result<PostProcessor> parse_post_processor(const nlohmann::json& section, int64_t vocab_size);

}  // namespace weft::tokenizers
