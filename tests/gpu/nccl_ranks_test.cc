// Ranks that are processes, with what a GPU is not needed for: the suite over their sockets, one
// rank over the played NCCL, and that a case which fails, crashes or hangs is told and ends.
#include "tests/gpu/nccl_ranks.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

namespace weft::gpu {
namespace {

struct Outcome {
  int status = -1;
  std::string output;
};

// This program with other arguments (see main).
Outcome run(const std::string& arguments) {
  Outcome outcome;
  std::FILE* pipe = ::popen(
      ("exec /proc/" + std::to_string(::getpid()) + "/exe " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> piece;
  while (std::fgets(piece.data(), piece.size(), pipe) != nullptr) outcome.output += piece.data();
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  return outcome;
}

bool contains(const Outcome& outcome, const std::string& text) {
  return outcome.output.find(text) != std::string::npos;
}

TEST(ProcessRanks, PassTheSuiteOverTheirSockets) {
  for (const int ranks : {1, 2, 3, 5}) {
    const Outcome outcome = run("collectives --over host --ranks " + std::to_string(ranks));
    EXPECT_EQ(outcome.status, 0) << outcome.output;
    EXPECT_TRUE(contains(outcome, std::to_string(ranks) + " ranks over host, 15 cases, all passed"))
        << outcome.output;
  }
}

TEST(ProcessRanks, OneOverNcclPassesTheSuite) {
  const Outcome outcome = run("collectives --ranks 1");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_TRUE(contains(outcome, "1 ranks over nccl, 17 cases, all passed")) << outcome.output;
}

TEST(ProcessRanks, TellWhichCaseBreaksAndRunTheOthers) {
  const Outcome outcome = run("broken --over host --ranks 3 --seconds 4");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(contains(outcome, "rank 1: Fails: ")) << outcome.output;
  EXPECT_TRUE(contains(outcome, "rank 1: Throws: why not")) << outcome.output;
  EXPECT_TRUE(contains(outcome, "rank 1: Crashes crashes")) << outcome.output;
  EXPECT_TRUE(contains(outcome, "rank 1: Hangs hangs")) << outcome.output;
  EXPECT_TRUE(contains(outcome, "Works                    passed")) << outcome.output;
  EXPECT_TRUE(contains(outcome, "5 cases, failed: Fails Throws Crashes Hangs")) << outcome.output;
}

TEST(ProcessRanks, AStartThatHangsEnds) {
  const Outcome outcome = run("collectives --ranks 2 --seconds 4");  // the other never joins there
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(contains(outcome, "the start hangs")) << outcome.output;
}

TEST(ProcessRanks, HearOfAKilledOne) {
  const Outcome outcome = run("lost-rank --over host --ranks 3 --seconds 20");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_TRUE(contains(outcome, "rank 1 of 3 over host is killed: passed")) << outcome.output;
}

TEST(ProcessRanks, FollowAStoredTrajectory) {
  for (const std::string mesh : {"tensor=2", "data=2"}) {
    const Outcome outcome = run("trajectory --over host --mesh " + mesh +
                                " " WEFT_SOURCE_DIR "/tests/fixtures/golden/gpt2-causal");
    EXPECT_EQ(outcome.status, 0) << outcome.output;
    EXPECT_TRUE(contains(outcome, "gpt2-causal      ok")) << outcome.output;
  }
}

TEST(ProcessRanks, RefuseWhatMakesNoSense) {
  EXPECT_EQ(run("collectives --over mpi").status, 2);
  EXPECT_EQ(run("collectives --ranks 0").status, 2);
  EXPECT_EQ(run("collectives --case Nothing").status, 2);
  EXPECT_EQ(run("lost-rank --ranks 1").status, 2);
  EXPECT_EQ(run("trajectory").status, 2);
  EXPECT_EQ(run("trajectory --mesh tensor=x somewhere").status, 2);
}

// Rank 1 breaks in the middle of each, the others wait for it.
template <void (*break_rank)()>
void broken(Communicator& comm, Allocator&) {
  if (comm.rank() == 1) break_rank();
  comm.barrier();
}

constexpr testing::CollectiveCase kBroken[] = {
    {"Fails", broken<[] { FAIL() << "on purpose"; }>},
    {"Throws", broken<[] { throw std::runtime_error("why not"); }>},
    {"Crashes", broken<[] { (void)std::raise(SIGSEGV); }>},
    {"Hangs", broken<[] { std::this_thread::sleep_for(std::chrono::hours(1)); }>},
    {"Works", broken<[] {}>},
};

}  // namespace
}  // namespace weft::gpu

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  // The processes of ranks are told "collectives" whoever leads them.
  if (what == "broken") ::setenv("WEFT_TEST_BROKEN", "1", 1);
  if (what == "broken" || (what == "collectives" && std::getenv("WEFT_TEST_BROKEN") != nullptr)) {
    return weft::gpu::collectives(argc - 1, argv + 1, weft::gpu::kBroken);
  }
  if (what == "collectives") return weft::gpu::collectives(argc - 1, argv + 1);
  if (what == "lost-rank") return weft::gpu::lost_rank(argc - 1, argv + 1);
  if (what == "trajectory") return weft::gpu::trajectory(argc - 1, argv + 1);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
