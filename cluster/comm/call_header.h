// What the ranks of a group tell each other of a collective before they run it, and what is wrong
// with what they told.
//
// Thread safety: pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/activity.h"

namespace weft::comm {

// What has to be alike.
struct CallTerms {
  int64_t elements = 0;  // 0: each rank has its own
  int64_t detail = 0;    // the root, or the kind of reduction
  // One of each rank: what it sends to it and what it expects from it. Exchanges: kNothing where
  // they have nothing to do with each other, and what a rank sends is what the other expects.
  // Others: what all of them say alike, `receives` empty.
  bool exchange = false;
  std::vector<int64_t> sends, receives;
};
inline constexpr int64_t kNothing = -1;

// The header as numbers, all of one length in a group of `size` ranks.
int64_t header_length(int size);
std::vector<int64_t> pack_header(const CallTerms& terms, const CollectiveCall& call, int size);

// Empty where the headers (one after the other, by rank) agree; else two ranks, their calls with
// their lines, and what differs.
std::string mismatch(const std::vector<int64_t>& headers, const RankGroup& group);

}  // namespace weft::comm
