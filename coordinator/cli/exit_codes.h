// What the exit status of `weft` says. Thread safety: constants.
#pragma once

namespace weft::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitJobFailed = 100;
inline constexpr int kExitNotFinished = 101;
inline constexpr int kExitNotFound = 102;
inline constexpr int kExitCancelled = 103;

}  // namespace weft::cli
