// The programs of a data folder: a coordinator, agents, or both.
//
//   DIR/cluster.json            addresses, ports, names (proto LocalCluster)
//   DIR/token                   of the REST API, 0600
//   DIR/join-secret             that agents prove themselves with, 0600
//   DIR/coordinator/            the coordinator's store and chunks
//   DIR/nodes/NAME/             one agent's
//   DIR/run/*.pid  DIR/log/*.log
//
// Thread safety: one thread; a lock file keeps two commands apart. Ownership: the lock is held
// until it is destroyed.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cli/daemon.h"
#include "proto/api.pb.h"
#include "proto/base/status.h"

namespace weft::cli {

class FolderLock {
 public:
  static Result<FolderLock> take(const std::string& data);
  FolderLock(FolderLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  ~FolderLock();

 private:
  explicit FolderLock(int file) : file_(file) {}
  int file_;
};

class LocalPrograms {
 public:
  LocalPrograms(std::string data, proto::LocalCluster cluster)
      : data_(std::move(data)), cluster_(std::move(cluster)) {}

  const std::string& data() const { return data_; }
  std::string log(const std::string& name) const { return data_ + "/log/" + name + ".log"; }
  Process running(const std::string& name) const;  // "coordinator" or an agent's name
  std::vector<Process> agents() const;             // also shepherds of these

  // Each does nothing where the program is running. An agent that was started with other arguments
  // is started again; what it runs goes on.
  Status start_coordinator(const std::vector<std::string>& host_names);
  Status start_agent(const std::string& name);

 private:
  Status start(const std::string& name, const std::vector<std::string>& argv);
  static void replace_agent(const Process& agent);
  std::string data_;
  proto::LocalCluster cluster_;
};

// Whether the programs that a cluster is made of stand beside this one; names the first that lacks.
Status check_programs();
// Makes the folders, and the secret files where they are missing.
Status prepare_folder(const std::string& data, bool with_secrets);
Status save_local_cluster(const std::string& data, const proto::LocalCluster& cluster);

}  // namespace weft::cli
