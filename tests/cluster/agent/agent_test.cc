// Real agents, shepherds and mpirun under a scripted coordinator.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>

#include "proto/shepherd.pb.h"
#include "tests/cluster/agent/cluster_fixture.h"

namespace weft {
namespace {

using testing::LocalCluster;

std::multiset<std::string> events(LocalCluster& cluster, const std::string& rank,
                                  const std::string& type) {
  std::multiset<std::string> found;
  const std::lock_guard lock(cluster.coordinator().mutex);
  for (const auto& each : cluster.coordinator().ranks[rank]) {
    if (each.event().type() == type) found.insert(each.event().message());
  }
  return found;
}

int pid_of(LocalCluster& cluster, const std::string& rank) {
  int pid = 0;
  cluster.coordinator().wait([&] {
    for (const auto& each : cluster.coordinator().ranks[rank]) {
      if (each.has_hello()) pid = each.hello().pid();
    }
    return pid != 0;
  });
  return pid;
}

bool ticks(LocalCluster& cluster, const std::string& rank, size_t more) {
  std::optional<size_t> before;
  return cluster.coordinator().wait([&] {
    const size_t told = cluster.coordinator().ranks[rank].size();
    if (!before) before = told;
    return told >= *before + more;
  });
}

TEST(Agent, LaunchesTwoNodesStagesInputsAndRelaysWhatRanksSay) {
  LocalCluster cluster(2);
  ASSERT_TRUE(cluster.launch("job-a", "quick", 2));
  ASSERT_TRUE(cluster.has_ended("job-a", 2));
  EXPECT_EQ(cluster.exit_of("job-a", 0).exit_code(), 0) << cluster.exit_of("job-a", 0).log_tail();
  EXPECT_TRUE(cluster.exit_of("job-a", 0).head());
  EXPECT_FALSE(cluster.exit_of("job-a", 1).head());
  for (int rank = 0; rank < 4; ++rank) {
    const std::string name = "job-a/1 " + std::to_string(rank);
    EXPECT_EQ(events(cluster, name, "object").count("the text of job-a"), 1u) << name;
    EXPECT_EQ(events(cluster, name, "chunk").count("same"), 1u) << name;
    const std::string line = "rank " + std::to_string(rank) + " on node" + std::to_string(rank / 2);
    EXPECT_TRUE(cluster.coordinator().wait([&] {
      return cluster.coordinator().logs[name].find(line) != std::string::npos;
    })) << name;
    const std::lock_guard lock(cluster.coordinator().mutex);
    EXPECT_EQ(cluster.coordinator().logs[name].find(" as 0\n"), std::string::npos) << "as root";
  }
  ASSERT_TRUE(cluster.forget("job-a"));
  EXPECT_FALSE(std::filesystem::exists(cluster.attempt_folder(0, "job-a")));
}

TEST(Agent, KilledAndStartedAgainItFindsItsRanksAndLosesNothing) {
  LocalCluster cluster(2);
  ASSERT_TRUE(cluster.launch("job-b", "wait"));
  ASSERT_GT(pid_of(cluster, "job-b/1 1"), 0);
  for (const int node : {1, 0}) {
    ASSERT_TRUE(ticks(cluster, "job-b/1 1", 2));
    cluster.kill_agent(node);
    const int before = cluster.coordinator().hellos_of(LocalCluster::node(node));
    cluster.start_agent(node);
    ASSERT_TRUE(cluster.coordinator().wait([&] {
      return cluster.coordinator().hellos[LocalCluster::node(node)] > before;
    }));
    const std::lock_guard lock(cluster.coordinator().mutex);
    EXPECT_TRUE(cluster.coordinator().running[LocalCluster::node(node)].contains("job-b/1"));
  }
  for (const char* rank : {"job-b/1 0", "job-b/1 1"}) ASSERT_TRUE(ticks(cluster, rank, 2));
  cluster.coordinator().hang_up("node1");  // a lost line, both ends alive
  ASSERT_TRUE(ticks(cluster, "job-b/1 1", 3));
  cluster.control("job-b", proto::CONTROL_KIND_PAUSE);
  ASSERT_TRUE(cluster.has_ended("job-b", 2));
  EXPECT_EQ(cluster.exit_of("job-b", 0).exit_code(), 0) << cluster.exit_of("job-b", 0).log_tail();
  const std::lock_guard lock(cluster.coordinator().mutex);
  for (const char* rank : {"job-b/1 0", "job-b/1 1"}) {
    uint64_t last = 0;  // every message once and in order
    for (const auto& each : cluster.coordinator().ranks[rank]) {
      if (each.sequence() == 0) continue;
      EXPECT_EQ(each.sequence(), last + 1) << rank;
      last = each.sequence();
    }
    const std::string& log = cluster.coordinator().logs[rank];
    size_t at = 0;
    for (int i = 0; log.find("tick " + std::to_string(i + 20) + " of") != std::string::npos;
         i += 20) {
      const size_t found = log.find("tick " + std::to_string(i) + " of", at);
      ASSERT_NE(found, std::string::npos) << rank << " " << i;
      at = found + 1;
    }
    EXPECT_EQ(log.find(" on node"), log.rfind(" on node")) << "sent twice: " << log;
  }
}

TEST(Agent, TellsWhichRankDiedOfWhat) {
  LocalCluster cluster(2);
  ASSERT_TRUE(cluster.launch("job-c", "wait"));
  const int pid = pid_of(cluster, "job-c/1 1");
  ASSERT_TRUE(ticks(cluster, "job-c/1 1", 1));
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_TRUE(cluster.has_ended("job-c", 2));
  EXPECT_NE(cluster.exit_of("job-c", 0).exit_code(), 0);
  EXPECT_NE(cluster.exit_of("job-c", 0).message().find("rank 1"), std::string::npos)
      << cluster.exit_of("job-c", 0).message() << "\n" << cluster.exit_of("job-c", 0).log_tail();
  EXPECT_NE(cluster.exit_of("job-c", 0).message().find("signal 9"), std::string::npos);
  ASSERT_TRUE(cluster.launch("job-d", "fail"));
  ASSERT_TRUE(cluster.has_ended("job-d", 2));
  EXPECT_NE(cluster.exit_of("job-d", 0).message().find("rank 1"), std::string::npos)
      << cluster.exit_of("job-d", 0).message() << "\n" << cluster.exit_of("job-d", 0).log_tail();
}

TEST(Agent, RanksDieWhenTheLeaseRunsOut) {
  LocalCluster cluster(1);
  ASSERT_TRUE(cluster.launch("job-e", "wait"));
  const int pid = pid_of(cluster, "job-e/1 0");
  ASSERT_TRUE(ticks(cluster, "job-e/1 0", 2));
  ASSERT_TRUE(cluster.coordinator().shorten_leases(2));  // a busy machine takes longer to launch
  cluster.coordinator().grant(false);
  cluster.kill_agent(0);  // the shepherd alone holds the fence
  for (int i = 0; i < 600 && ::kill(pid, 0) == 0; ++i) ::usleep(100'000);
  EXPECT_NE(::kill(pid, 0), 0) << "rank " << pid << " outlived its lease";
  cluster.coordinator().grant(true);
  cluster.start_agent(0);
  ASSERT_TRUE(cluster.has_ended("job-e", 1));
  EXPECT_NE(cluster.exit_of("job-e", 0).message().find("lease"), std::string::npos);
}

TEST(Agent, StopsAtOnceAndRefusesWhatItCannotLaunch) {
  LocalCluster cluster(2);
  ASSERT_TRUE(cluster.launch("job-f", "wait"));
  const int pid = pid_of(cluster, "job-f/1 0");
  proto::NodeFrame stop;
  *stop.mutable_stop()->mutable_attempt() = LocalCluster::ref("job-f");
  stop.mutable_stop()->set_why("enough");
  cluster.coordinator().send("node0", stop);
  ASSERT_TRUE(cluster.has_ended("job-f", 2));
  EXPECT_EQ(cluster.exit_of("job-f", 0).message(), "enough");
  EXPECT_NE(::kill(pid, 0), 0);

  proto::NodeFrame prepare;
  auto& record = *prepare.mutable_prepare()->mutable_record();
  record = cluster.record("job-g", "quick", 1);
  record.mutable_objects(0)->mutable_files(0)->set_path("../escape");
  cluster.coordinator().send("node0", prepare);
  ASSERT_TRUE(cluster.has_ended("job-g", 1));
  EXPECT_NE(cluster.exit_of("job-g", 0).message().find("../escape"), std::string::npos);
  record = cluster.record("job-h", "quick", 1);
  record.mutable_objects(0)->mutable_files(0)->mutable_chunks(0)->set_hash(std::string(64, '0'));
  cluster.coordinator().send("node0", prepare);
  ASSERT_TRUE(cluster.has_ended("job-h", 1));
  EXPECT_NE(cluster.exit_of("job-h", 0).message().find("no chunk"), std::string::npos);
}

// mpirun asks for two daemons at once; the line to the coordinator loses both.
TEST(Agent, DaemonsThatWereAskedForAreAskedForAgain) {
  LocalCluster cluster(3);
  ASSERT_TRUE(cluster.prepare("job-i", "quick"));
  auto& coordinator = cluster.coordinator();
  coordinator.lose_daemons = true;
  ASSERT_TRUE(cluster.start("job-i"));
  ASSERT_TRUE(coordinator.wait([&] { return coordinator.daemons_lost >= 2; }));
  {
    const std::lock_guard lock(coordinator.mutex);
    coordinator.lose_daemons = false;
  }
  coordinator.hang_up("node0");
  ASSERT_TRUE(cluster.has_ended("job-i", 3));
  EXPECT_EQ(cluster.exit_of("job-i", 0).exit_code(), 0) << cluster.exit_of("job-i", 0).log_tail();
}

// The agent is killed after it has started a shepherd and before it has noted its number, and while
// it wrote another note.
TEST(Agent, AShepherdThatWasNeverNotedIsNotLeftBesideItsSuccessor) {
  namespace fs = std::filesystem;
  LocalCluster cluster(1);
  ASSERT_TRUE(cluster.prepare("job-j", "quick"));
  cluster.kill_agent(0);
  const std::string file = cluster.note_file(0, "job-j");
  proto::AttemptNote note;
  ASSERT_TRUE(note.ParseFromString(read_file(file, 1 << 20).value()));
  const proto::ShepherdState first = note.shepherd();
  ASSERT_TRUE(is_alive(first.pid(), first.start_time()));
  ASSERT_TRUE(write_file(file + ".0badf00d", note.SerializeAsString(), 0600).ok());
  note.clear_shepherd();
  note.set_prepared(false);
  ASSERT_TRUE(write_file(file, note.SerializeAsString(), 0600).ok());
  const fs::path attempts = fs::path(cluster.attempt_folder(0, "job-j")).parent_path();
  const fs::path objects = attempts.parent_path() / "objects";
  for (const char* name : {"obj-old", "obj-new"}) fs::create_directory(objects / name);
  fs::last_write_time(objects / "obj-old",
                      fs::file_time_type::clock::now() - std::chrono::hours(30));
  {
    const std::lock_guard lock(cluster.coordinator().mutex);
    cluster.coordinator().prepared.clear();
  }
  cluster.start_agent(0);
  ASSERT_TRUE(cluster.coordinator().wait(
      [&] { return cluster.coordinator().prepared.contains("node0 job-j/1"); }));
  EXPECT_FALSE(is_alive(first.pid(), first.start_time()));
  EXPECT_FALSE(fs::exists(file + ".0badf00d"));
  EXPECT_FALSE(fs::exists(objects / "obj-old")) << "used by nothing for a day";
  EXPECT_TRUE(fs::exists(objects / "obj-new"));
  ASSERT_TRUE(cluster.start("job-j"));
  ASSERT_TRUE(cluster.has_ended("job-j", 1));
  EXPECT_EQ(cluster.exit_of("job-j", 0).exit_code(), 0) << cluster.exit_of("job-j", 0).log_tail();
}

TEST(Agent, WhatNoLaunchCouldUseIsRefusedAtTheStart) {
  LocalCluster cluster(1);
  cluster.kill_agent(0);
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--subnet", "10.0.0.0"}, "subnet"},
      {{"--mpi-btl", "self;id"}, "mpi-btl"},
      {{"--mpi-port-min", "65000", "--mpi-port-count", "1000"}, "mpi-port-count"},
      {{"--coordinator", "127.0.0.1:70x"}, "HOST:PORT"},
  };
  for (const auto& [arguments, word] : cases) {
    cluster.start_agent(0, arguments);
    EXPECT_NE(cluster.wait_for_agent(0), 0) << word;
    EXPECT_NE(cluster.agent_log(0).find(word), std::string::npos) << cluster.agent_log(0);
  }
}

// Else every job that comes to it would use up its restarts here.
TEST(Agent, EndsAndItsAttemptsWithItWhereItsFolderIsDeleted) {
  LocalCluster cluster(1);
  ASSERT_TRUE(cluster.launch("job-a", "wait"));
  const std::filesystem::path attempts =
      std::filesystem::path(cluster.attempt_folder(0, "job-a")).parent_path();
  std::filesystem::remove_all(attempts);
  EXPECT_TRUE(cluster.has_ended("job-a", 1));
  EXPECT_EQ(cluster.wait_for_agent(0), 1);
  EXPECT_NE(cluster.agent_log(0).find(attempts.string() + " was deleted while this agent worked"),
            std::string::npos)
      << cluster.agent_log(0);
}

// WEFT_LAUNCHES: how many in a row; the long run is label launch100.
TEST(Launch, InARow) {
  const char* given = std::getenv("WEFT_LAUNCHES");
  const int launches = given == nullptr ? 3 : std::atoi(given);
  for (const int nodes : {2, 4}) {
    LocalCluster cluster(nodes);
    for (int i = 0; i < launches; ++i) {
      const std::string job = "job-" + std::to_string(nodes) + "-" + std::to_string(i);
      ASSERT_TRUE(cluster.launch(job, "quick")) << job;
      ASSERT_TRUE(cluster.has_ended(job, nodes)) << job;
      const auto exit = cluster.exit_of(job, 0);
      ASSERT_EQ(exit.exit_code(), 0) << job << ": " << exit.message() << "\n" << exit.log_tail();
      for (int rank = 0; rank < nodes; ++rank) {
        ASSERT_EQ(events(cluster, job + "/1 " + std::to_string(rank), "chunk").count("same"), 1u);
      }
      ASSERT_TRUE(cluster.forget(job));
    }
  }
}

}  // namespace
}  // namespace weft
