// Which failures another attempt may get over: the one classification of ranks and agents.
//
//   may pass      kUnavailable, kDeadlineExceeded, kCancelled (a peer, a device, a moment),
//                 kInternal (nobody knows)
//   stay          everything else: input that breaks a rule, what is missing, damaged or too
//                 large, a rank that needs more memory than it may take
// A full disk is kResourceExhausted too: who writes to one waits for room and does not end.
//
// Thread safety: pure.
#pragma once

#include "proto/base/status.h"

namespace weft {

inline bool retryable(Code code) {
  return code == Code::kUnavailable || code == Code::kDeadlineExceeded ||
         code == Code::kCancelled || code == Code::kInternal;
}

}  // namespace weft
