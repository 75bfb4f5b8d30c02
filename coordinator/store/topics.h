// What a watcher can be woken for: bits of a mask.
#pragma once

namespace weft {

inline constexpr unsigned kTopicJob = 1;
inline constexpr unsigned kTopicEvents = 2;
inline constexpr unsigned kTopicMetrics = 4;
inline constexpr unsigned kTopicLogs = 8;
inline constexpr unsigned kTopicCheckpoints = 16;
inline constexpr unsigned kTopicNodes = 32;

}  // namespace weft
