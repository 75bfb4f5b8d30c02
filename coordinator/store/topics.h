// What a watcher can be woken for: bits of a mask.
#pragma once

namespace weft {

enum Topic : unsigned {
  kTopicJob = 1,
  kTopicEvents = 2,
  kTopicMetrics = 4,
  kTopicLogs = 8,
  kTopicCheckpoints = 16,
  kTopicNodes = 32,
};

}  // namespace weft
