// What stands around one encoded text: the section `post_processor`.
// Thread safety: values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "proto/base/status.h"

namespace weft::tokenizers {

struct PostProcessor {
  std::vector<int64_t> prefix, suffix;
  bool trim_offsets = false;  // offsets leave white space at a token's ends out
  bool add_prefix_space = false;
};

// Errors name the component; ids have to be below `vocab_size`.
Result<PostProcessor> parse_post_processor(const nlohmann::json& section, int64_t vocab_size);

}  // namespace weft::tokenizers
