// Results larger than the caches are written past them: a store else reads its line first, and what
// is read again soon has to leave.
//
// Thread safety: one object a thread, around its writes. Invariants: 1. what is written does not
// depend on it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace weft::cpu {

class PastCaches {
 public:
  // bytes: of the whole result, which is read again only when all of it is there.
  explicit PastCaches(int64_t bytes) : on_(bytes >= kFrom) {}
  ~PastCaches() {
    if (on_) _mm_sfence();  // such writes are not ordered with others
  }
  PastCaches(const PastCaches&) = delete;
  PastCaches& operator=(const PastCaches&) = delete;
  operator bool() const { return on_; }

 private:
  static constexpr int64_t kFrom = int64_t{32} << 20;  // a last-level cache, docs/PERFORMANCE.md
  const bool on_;
};

}  // namespace weft::cpu
