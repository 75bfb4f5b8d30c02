// Which processors the ranks of a slot get, and whether an agent is the only one of its machine.
#include "cluster/agent/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace weft {
namespace {

// Two packages of two cores, each of which runs two threads, numbered as Linux does.
const std::vector<Processor> kTwoByTwo = {{0, 0, 0}, {4, 0, 0}, {1, 0, 1}, {5, 0, 1},
                                          {2, 1, 0}, {6, 1, 0}, {3, 1, 1}, {7, 1, 1}};

using Numbers = std::vector<int>;

TEST(Processors, SlotsShareThemOut) {
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 2, 0, 4), (Numbers{0, 1, 4, 5}));
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 2, 1, 4), (Numbers{2, 3, 6, 7}));
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 8, 3, 1), Numbers{5});
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 3, 2, 2), (Numbers{2, 6}));  // and two are left over
}

TEST(Processors, ACoreHasOneThreadBeforeAnyHasTwo) {
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 1, 0, 4), (Numbers{0, 1, 2, 3}));
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 1, 0, 5), (Numbers{0, 1, 2, 3, 4}));
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 2, 1, 2), (Numbers{2, 3}));
}

TEST(Processors, NobodyIsPinnedWhereThereAreTooFew) {
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 2, 0, 5), Numbers{});
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 9, 0, 1), Numbers{});
  EXPECT_EQ(processors_of_slot({}, 1, 0, 1), Numbers{});
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 0, 0, 1), Numbers{});
  EXPECT_EQ(processors_of_slot(kTwoByTwo, 2, 2, 1), Numbers{});
}

// None in a container that may use the whole machine.
TEST(Processors, OwnOnesAreThoseOfTheAffinity) {
  const std::vector<Processor> own = own_processors();
  cpu_set_t set;
  CPU_ZERO(&set);
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  struct stat info {};  // 0xEFFFFFFC: the namespace that the system starts in
  ASSERT_EQ(::stat("/proc/self/ns/pid", &info), 0);
  const bool whole = CPU_COUNT(&set) >= ::sysconf(_SC_NPROCESSORS_ONLN);
  ASSERT_EQ(own.empty(), info.st_ino != 0xEFFFFFFC && whole);
  if (own.empty()) return;
  EXPECT_EQ(static_cast<int>(own.size()), CPU_COUNT(&set));
  for (const Processor& each : own) EXPECT_TRUE(CPU_ISSET(static_cast<size_t>(each.number), &set));
  EXPECT_TRUE(std::is_sorted(own.begin(), own.end(), [](const Processor& a, const Processor& b) {
    return std::pair(a.package, a.core) < std::pair(b.package, b.core);
  }));
}

TEST(AgentsOfMachine, OneIsAloneUntilAnotherComes) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("weft_agents_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto first = AgentsOfMachine::join(folder.string());
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_TRUE(first->alone());
  EXPECT_TRUE(first->alone());
  const auto second = AgentsOfMachine::join(folder.string());
  ASSERT_TRUE(second);
  EXPECT_FALSE(first->alone());
  EXPECT_FALSE(second->alone());
  EXPECT_FALSE(AgentsOfMachine().alone());
  std::filesystem::remove_all(folder);
  EXPECT_FALSE(AgentsOfMachine::join(folder.string()));
}

}  // namespace
}  // namespace weft
