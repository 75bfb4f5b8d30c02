// While it lives, numbers below the normal ones are what they are on this thread, even if a thread
// pool was told to flush them (kernels/tensor/thread_pool.h).
// Thread safety: one object a thread.
#pragma once

#include <immintrin.h>

namespace weft::testing {

class KeepDenormals {
 public:
  KeepDenormals() { _mm_setcsr(before_ & ~kFlushing); }
  ~KeepDenormals() { _mm_setcsr(before_); }
  KeepDenormals(const KeepDenormals&) = delete;
  KeepDenormals& operator=(const KeepDenormals&) = delete;

 private:
  static constexpr unsigned kFlushing = 0x8040;  // of results, of operands
  const unsigned before_ = _mm_getcsr();
};

}  // namespace weft::testing
