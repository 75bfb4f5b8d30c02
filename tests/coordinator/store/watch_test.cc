#include "coordinator/store/watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace weft {
namespace {

TEST(WatchHub, NobodyIsCalledAfterTheTicketIsGone) {
  WatchHub hub;
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) hub.notify("job-1", 1);
  });
  for (int i = 0; i < 500; ++i) {
    auto alive = std::make_unique<std::atomic<int>>(0);
    auto ticket = hub.subscribe("job-1", 1, [&counter = *alive] { ++counter; });
    ticket.reset();
    alive.reset();  // a late call would touch freed memory
  }
  stop = true;
  writer.join();
}

TEST(WatchHub, AnEmptyNameMeansEveryJob) {
  WatchHub hub;
  int all = 0;
  auto ticket = hub.subscribe("", 4, [&] { ++all; });
  hub.notify("job-1", 4);
  hub.notify("job-2", 4);
  hub.notify("job-2", 8);
  EXPECT_EQ(all, 2);
}

}  // namespace
}  // namespace weft
