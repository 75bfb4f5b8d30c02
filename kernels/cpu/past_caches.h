// Results larger than the caches are written past them: a store else reads its line first, and what
// is read again soon has to leave.
//
// Thread safety: one object a thread, around its writes. Invariants: 1. what is written does not
// depend on it.
#pragma once

#include <xmmintrin.h>

#include <cstddef>

namespace weft::cpu {

class PastCaches {
 public:
  // bytes: of the whole result, which is read again only when all of it is there. at_once: what is
  // written in this object's life, at whose end such writes are waited for; that shows in less than
  // a page.
  explicit PastCaches(size_t bytes, size_t at_once = kPage)
      : on_(bytes >= kFrom && at_once >= kPage) {}
  ~PastCaches() {
    if (on_) _mm_sfence();  // such writes are not ordered with others
  }
  PastCaches(const PastCaches&) = delete;
  PastCaches& operator=(const PastCaches&) = delete;
  operator bool() const { return on_; }

 private:
  static constexpr size_t kFrom = size_t{32} << 20;  // a last-level cache, docs/PERFORMANCE.md
  static constexpr size_t kPage = 4096;
  const bool on_;
};

// Where a loop writes: elements one after the other, past the caches or not.
template <typename T>
struct Target {
  // In the code of any level, which must not share it with another's.
  [[gnu::always_inline]] Target(T* to, bool past_caches = false) : at(to), past(past_caches) {}
  T* at;
  bool past;
};

}  // namespace weft::cpu
