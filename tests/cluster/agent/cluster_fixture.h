// A fake coordinator and real agents on this machine, each with a folder of its own.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cluster/process/process.h"
#include "proto/launch.pb.h"
#include "tests/cluster/agent/fake_coordinator.h"

namespace weft::testing {

class LocalCluster {
 public:
  explicit LocalCluster(int nodes);
  ~LocalCluster();  // ends the agents and with them their attempts
  FakeCoordinator& coordinator() { return *coordinator_; }

  void start_agent(int node, const std::vector<std::string>& more = {});
  int wait_for_agent(int node);  // until it ends; its exit code
  Status signal_agent(int node, int number) { return agents_[node]->signal(number); }
  std::string agent_log(int node) const;
  void kill_agent(int node);  // SIGKILL, reaped
  // Prepares an attempt with `ranks_per_node` ranks on each node and starts it. False: it took too
  // long.
  bool launch(const std::string& job, const std::string& mode, int ranks_per_node = 1);
  bool prepare(const std::string& job, const std::string& mode, int ranks_per_node = 1);
  bool start(const std::string& job);
  bool has_ended(const std::string& job, int nodes);
  proto::AttemptExit exit_of(const std::string& job, int node);
  void control(const std::string& job, proto::ControlKind kind);
  bool forget(const std::string& job);  // revokes; waits until no agent lists it
  std::string attempt_folder(int node, const std::string& job) const;
  std::string note_file(int node, const std::string& job) const;
  proto::LaunchRecord record(const std::string& job, const std::string& mode, int ranks_per_node);
  static std::string node(int index) { return "node" + std::to_string(index); }
  static proto::AttemptRef ref(const std::string& job);

 private:
  const int nodes_;
  std::string folder_;
  std::string secret_;
  std::unique_ptr<FakeCoordinator> coordinator_;
  std::map<int, std::unique_ptr<Process>> agents_;
};

}  // namespace weft::testing
