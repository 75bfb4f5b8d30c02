#include "proto/base/activity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string_view>
#include <thread>

namespace weft {
namespace {

int64_t calls(const Activity::Recording& recording) {
  return std::ranges::count_if(recording.spans, [](const Span& span) {
    return std::string_view(span.name) == "all_reduce";
  });
}

// Whoever asks while collectives run finds each that has begun: as the present one, or as kept.
TEST(Activity, AskedMeanwhileLosesNoCollective) {
  Activity activity;
  activity.start_recording({.request = 7});
  const auto group = std::make_shared<RankGroup>();
  group->axis = "world";
  constexpr int64_t kCalls = 20000;
  std::atomic<int64_t> ended = 0;
  std::jthread rank([&] {
    for (int64_t i = 0; i < kCalls; ++i) {
      { const Activity::Collective call(activity, {.name = "all_reduce", .group = group}); }
      ended = i + 1;
    }
  });
  int64_t before = 0;
  while (before < kCalls) {
    const int64_t least = ended;
    const auto so_far = activity.recording_so_far();
    ASSERT_TRUE(so_far.has_value());
    const int64_t found = calls(*so_far);
    ASSERT_GE(found, std::max(least, before));
    ASSERT_LE(found, kCalls);
    before = found;
  }
  rank.join();
  const Activity::Recording whole = activity.take_recording();
  EXPECT_EQ(calls(whole), kCalls);
  EXPECT_EQ(whole.head.request, 7U);
  EXPECT_FALSE(activity.recording_so_far().has_value());
}

TEST(Activity, OfACallThatBeganBeforeTheRecordingNothingIsKept) {
  Activity activity;
  {
    const Activity::Collective call(activity,
                                    {.name = "all_reduce", .group = std::make_shared<RankGroup>()});
    EXPECT_TRUE(activity.now().in_collective);
    activity.start_recording({});
    EXPECT_EQ(calls(*activity.recording_so_far()), 1);  // it is in it
  }
  EXPECT_FALSE(activity.now().in_collective);
  EXPECT_EQ(calls(activity.take_recording()), 0);
}

}  // namespace
}  // namespace weft
