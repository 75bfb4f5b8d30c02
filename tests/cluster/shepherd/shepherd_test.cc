// A shepherd with stand-ins for mpirun: shell scripts that leave processes behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cluster/process/process.h"
#include "cluster/rpc/local_channel.h"
#include "cluster/shepherd/shepherd.h"
#include "proto/shepherd.pb.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// Waits for what other processes do; false after half a minute.
template <typename Holds>
bool eventually(const Holds& holds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::chrono::steady_clock::now() < end) {
    if (holds()) return true;
    ::usleep(20'000);
  }
  return holds();
}

class ShepherdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/weft-shepherd-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    for (const char* part : {"/a", "/r", "/r/m", "/r/d", "/bin"}) {
      fs::create_directory(folder_ + part);
    }
    record_.set_job("job-a");
    record_.set_attempt(1);
    record_.set_secret("the secret of this attempt");
    record_.set_node("one");
    auto& node = *record_.add_nodes();
    node.set_name("one");
    node.set_subnet_cidr("127.0.0.0/8");
    record_.add_ranks()->set_node("one");
    record_.set_folder(folder_ + "/a");
    record_.set_run_folder(folder_ + "/r");
    record_.mutable_mpi()->set_folder(folder_ + "/bin");
  }
  void TearDown() override {
    if (shepherd_ != nullptr) {
      (void)shepherd_->signal(SIGTERM);
      shepherd_->wait();
    }
    fs::remove_all(folder_);
  }

  void start(const std::string& mpirun_script, double lease_seconds) {
    std::ofstream(folder_ + "/bin/mpirun") << "#!/bin/bash\n" << mpirun_script << "\n";
    ::chmod((folder_ + "/bin/mpirun").c_str(), 0755);
    ASSERT_TRUE(write_file(launch_record_file(record_), record_.SerializeAsString(), 0600).ok());
    ProcessOptions options;
    options.argv = {std::string(WEFT_BINARY_DIR) + "/bin/weft-agent", "--shepherd",
                    launch_record_file(record_), "--lease-seconds", std::to_string(lease_seconds)};
    options.new_session = true;
    auto started = start_process(options);
    ASSERT_TRUE(started) << started.error().to_string();
    shepherd_ = std::move(*started);
    ASSERT_TRUE(eventually([&] {  // its file is there before it listens
      boost::asio::io_context io{1};
      return connect_local(io, shepherd_socket(record_)).has_value();
    }));
  }

  // Says these frames, as the agent or not; the state it is answered with, if any.
  proto::ShepherdState say(const std::string& secret, std::vector<proto::ShepherdFrame> frames) {
    boost::asio::io_context io{1};
    auto channel = connect_local(io, shepherd_socket(record_));
    proto::ShepherdState state;
    if (!channel) return state;
    (*channel)->start(
        [&](const std::string& bytes) {
          proto::ShepherdFrame frame;
          if (frame.ParseFromString(bytes) && frame.has_state()) {
            state = frame.state();
            (*channel)->close();
          }
        },
        [] {});
    proto::ShepherdFrame hello;
    hello.mutable_hello()->set_secret(secret);
    hello.mutable_hello()->set_agent(true);
    (*channel)->send(hello);
    for (const auto& frame : frames) (*channel)->send(frame);
    io.run_for(std::chrono::seconds(10));
    return state;
  }

  proto::ShepherdState saved() {
    proto::ShepherdState state;
    const auto bytes = read_file(shepherd_state_file(record_), 1 << 20);
    if (bytes) state.ParseFromString(*bytes);
    return state;
  }

  int number_in(const std::string& file) {
    int number = 0;
    eventually([&] { return static_cast<bool>(std::ifstream(folder_ + "/a/" + file) >> number); });
    return number;
  }

  // A lease that ends so many seconds from now.
  static proto::ShepherdFrame lease_frame(int64_t seconds) {
    proto::ShepherdFrame frame;
    frame.mutable_lease()->set_deadline_ns(boot_time_ns() + seconds * 1'000'000'000);
    return frame;
  }

  static proto::ShepherdFrame start_frame() {
    proto::ShepherdFrame frame;
    frame.mutable_start();
    return frame;
  }

  std::string folder_;
  proto::LaunchRecord record_;
  std::unique_ptr<Process> shepherd_;
};

// Somebody has deleted it; the agent, and with it the job, would wait for ten minutes.
TEST_F(ShepherdTest, AFolderThatIsGoneIsNotWaitedFor) {
  // Again where a file came into it meanwhile.
  start("echo said; until rm -rf \"$PWD\"; do :; done; echo more", 3600);
  say(record_.secret(), {start_frame()});
  EXPECT_TRUE(eventually([&] { return shepherd_->exit_code().has_value(); }));
  EXPECT_FALSE(fs::exists(folder_ + "/a"));
}

// A tree that tries to get away: a child of its own session, and an orphan.
constexpr const char* kTree =
    "setsid bash -c 'echo $$ > away; sleep 1000' & (bash -c 'echo $$ > orphan; sleep 1000' &) ; "
    "echo $$ > own; sleep 1000";

TEST_F(ShepherdTest, TheWholeTreeDiesWithTheLease) {
  start(kTree, 3600);
  EXPECT_EQ(say(record_.secret(), {start_frame()}).pid(), shepherd_->pid());
  const int own = number_in("own"), away = number_in("away"), orphan = number_in("orphan");
  ASSERT_GT(std::min({own, away, orphan}), 0);
  say(record_.secret(), {lease_frame(1)});
  EXPECT_EQ(shepherd_->wait(), 0);
  for (const int pid : {own, away, orphan}) EXPECT_NE(::kill(pid, 0), 0) << pid;
  EXPECT_TRUE(saved().exited());
  EXPECT_EQ(saved().exit_code(), 128 + SIGKILL);
  EXPECT_NE(saved().message().find("lease"), std::string::npos);
}

TEST_F(ShepherdTest, ARenewedLeaseHolds) {
  start("echo $$ > own; sleep 1000", 3600);
  say(record_.secret(), {start_frame()});
  const int own = number_in("own");
  say(record_.secret(), {lease_frame(3), lease_frame(3600)});
  ::sleep(4);
  EXPECT_EQ(::kill(own, 0), 0);
  EXPECT_FALSE(shepherd_->exit_code());
}

// A coordinator that came back with a shorter lease gives the slots away by that one.
TEST_F(ShepherdTest, TheNewestLeaseCountsAlsoWhereItIsShorter) {
  start("echo $$ > own; sleep 1000", 3600);
  say(record_.secret(), {start_frame()});
  const int own = number_in("own");
  say(record_.secret(), {lease_frame(0)});
  EXPECT_EQ(shepherd_->wait(), 0);
  EXPECT_THAT(saved().message(), testing::HasSubstr("the lease ran out"));
  EXPECT_NE(::kill(own, 0), 0);
}

TEST_F(ShepherdTest, TellsTheLaunchersExitCodeAndEndsWhatItLeft) {
  start("setsid bash -c 'echo $$ > away; exec sleep 1000' & "
        "while [ ! -s away ]; do sleep 0.01; done; exit 7", 30);
  say(record_.secret(), {start_frame()});
  const int away = number_in("away");
  EXPECT_EQ(shepherd_->wait(), 0);
  EXPECT_EQ(saved().exit_code(), 7);
  EXPECT_NE(::kill(away, 0), 0);
}

TEST_F(ShepherdTest, ObeysOnlyWhoKnowsTheSecret) {
  start("echo $$ > own; sleep 1000", 30);
  EXPECT_EQ(say("another secret", {start_frame()}).pid(), 0);
  EXPECT_FALSE(saved().started());
  EXPECT_EQ(say(record_.secret(), {}).pid(), shepherd_->pid());
}

TEST_F(ShepherdTest, ItsOwnDeathTakesTheLauncherWithIt) {
  start("echo $$ > own; exec sleep 1000", 30);
  say(record_.secret(), {start_frame()});
  const int own = number_in("own");
  ASSERT_EQ(::kill(own, 0), 0);
  ASSERT_TRUE(shepherd_->signal(SIGKILL).ok());
  shepherd_->wait();
  EXPECT_TRUE(eventually([&] { return !is_alive(own, start_time_of(own)); }));
}

TEST_F(ShepherdTest, AMissingLauncherIsTold) {
  start("", 30);
  fs::remove(folder_ + "/bin/mpirun");
  say(record_.secret(), {start_frame()});
  EXPECT_EQ(shepherd_->wait(), 0);
  EXPECT_EQ(saved().exit_code(), 127);
  EXPECT_NE(saved().message().find("mpirun"), std::string::npos);
}

}  // namespace
}  // namespace weft
