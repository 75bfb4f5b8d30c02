#include "tests/testing/cuda_on_cpu/warp.h"

namespace weft::cuda_on_cpu {
namespace {

constexpr int kLanes = 32;

struct Exchange {
  uint64_t bits, result;
  int source;
};
struct Vote {
  bool vote;
  unsigned result;
};

void exchange(void* const* parts, unsigned mask, const Where& where) {
  for (int lane = 0; lane < kLanes; ++lane) {
    auto* own = static_cast<Exchange*>(parts[lane]);
    if (own == nullptr) continue;
    if ((mask >> own->source & 1) == 0) {
      throw Fault(line_of(where) + ": lane " + std::to_string(lane) + " reads lane " +
                  std::to_string(own->source) + ", which is outside the mask");
    }
    own->result = static_cast<const Exchange*>(parts[own->source])->bits;
  }
}

void ballot(void* const* parts, unsigned, const Where&) {
  unsigned result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto* own = static_cast<const Vote*>(parts[lane]);
    if (own != nullptr && own->vote) result |= 1U << lane;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (parts[lane] != nullptr) static_cast<Vote*>(parts[lane])->result = result;
  }
}

void match(void* const* parts, unsigned, const Where&) {
  for (int lane = 0; lane < kLanes; ++lane) {
    auto* own = static_cast<Exchange*>(parts[lane]);
    for (int other = 0; other < kLanes && own != nullptr; ++other) {
      const auto* its = static_cast<const Exchange*>(parts[other]);
      if (its != nullptr && its->bits == own->bits) own->result |= uint64_t{1} << other;
    }
  }
}

}  // namespace

uint64_t warp_exchange(unsigned mask, uint64_t bits, int source, const Where& where) {
  Exchange part{bits, 0, source};
  meet_in_warp(mask, &part, exchange, where);
  return part.result;
}

unsigned warp_ballot(unsigned mask, bool vote, const Where& where) {
  Vote part{vote, 0};
  meet_in_warp(mask, &part, ballot, where);
  return part.result;
}

unsigned warp_match(unsigned mask, uint64_t bits, const Where& where) {
  Exchange part{bits, 0, 0};
  meet_in_warp(mask, &part, match, where);
  return static_cast<unsigned>(part.result);
}

}  // namespace weft::cuda_on_cpu
