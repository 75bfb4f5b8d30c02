#include "cluster/shepherd/open_mpi.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>
#include <sstream>

#include "cluster/process/output_pipe.h"

namespace weft::open_mpi {
namespace {

constexpr std::string_view kHostPrefix = "weft-attempt-n";

// Nothing of the agent's own environment reaches a launcher or a rank, but where the libraries of a
// GPU are.
std::vector<std::string> environment(const proto::LaunchRecord& record) {
  std::vector<std::string> variables = {
      "PATH=" + record.run_folder() + "/bin:" + record.mpi().folder() + ":/usr/bin:/bin",
      "HOME=" + record.folder(),
      "TMPDIR=" + record.run_folder(),
      "SHELL=/bin/bash",  // else mpirun wraps what it hands over in a reading of ~/.profile
      "LANG=C.UTF-8",
      "OPENBLAS_NUM_THREADS=1",  // the rank's own pool does all of its work
      // malloc's cache keeps small aligned blocks, of which it gives none out again, in the midst
      // of those of products: a rank's heap was up to 30 MB of holes.
      "GLIBC_TUNABLES=glibc.malloc.tcache_count=0",
      "WEFT_LAUNCH_RECORD=" + record.folder() + "/launch.record",
  };
  const std::string& libraries = record.library_path();
  if (!libraries.empty()) variables.push_back("LD_LIBRARY_PATH=" + libraries);
  return variables;
}

// What asks for orted on a node. orted has to find it too, though it calls nobody, or it ends.
std::string remote_shell(const proto::LaunchRecord& record) {
  return record.run_folder() + "/bin/weft-remote-shell --remote-shell";
}

std::string subnets(const proto::LaunchRecord& record) {
  std::set<std::string> found;
  std::string list;
  for (const auto& node : record.nodes()) {
    if (found.insert(node.subnet_cidr()).second) {
      list += (list.empty() ? "" : ",") + node.subnet_cidr();
    }
  }
  return list;
}

std::string host_list(const proto::LaunchRecord& record) {
  std::string list;
  for (int i = 0; i < record.nodes_size(); ++i) {
    const auto ranks = std::count_if(
        record.ranks().begin(), record.ranks().end(),
        [&](const auto& rank) { return rank.node() == record.nodes(i).name(); });
    list += (i == 0 ? "" : ",") + host_of(i) + ":" + std::to_string(ranks);
  }
  return list;
}

}  // namespace

bool is_network(const std::string& text) {
  const size_t slash = text.find('/');
  in_addr address{};
  if (slash == std::string::npos ||
      ::inet_pton(AF_INET, text.substr(0, slash).c_str(), &address) != 1) {
    return false;
  }
  int bits = -1;
  const char* end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data() + slash + 1, end, bits);
  return error == std::errc() && last == end && bits >= 0 && bits <= 32;
}

Result<std::string> find_programs() {
  const char* path = std::getenv("PATH");  // NOLINT: no thread changes the environment
  std::istringstream folders(std::string(path == nullptr ? "" : path) + ":/usr/bin:/usr/local/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (!folder.starts_with('/')) continue;
    if (::access((folder + "/mpirun").c_str(), X_OK) == 0 &&
        ::access((folder + "/orted").c_str(), X_OK) == 0) {
      return folder;
    }
  }
  return fail(Code::kFailedPrecondition,
              "mpirun and orted are not in PATH; install openmpi-bin (cluster/deploy/setup.sh)");
}

Status check(const proto::LaunchRecord& record) {
  if (record.nodes().empty() || record.ranks().empty()) {
    return Status::invalid("record", record.job(), "must have nodes and ranks");
  }
  int node = 0;
  for (int i = 0; i < record.ranks_size(); ++i) {
    const auto& rank = record.ranks(i);
    if (i > 0 && rank.node() != record.ranks(i - 1).node()) ++node;
    if (rank.rank() != i || node >= record.nodes_size() ||
        record.nodes(node).name() != rank.node()) {
      return Status::invalid("record.ranks", std::to_string(i),
                             "must be 0, 1, ... node by node in the nodes' order");
    }
  }
  if (node + 1 != record.nodes_size()) {
    return Status::invalid("record.nodes", record.nodes(node + 1).name(), "must have a rank");
  }
  for (const auto& each : record.nodes()) {
    if (!is_network(each.subnet_cidr())) {
      return Status::invalid("record.nodes.subnet_cidr", each.subnet_cidr(),
                             "must be a network such as 10.0.0.0/24");
    }
  }
  return {};
}

ProcessOptions mpirun(const proto::LaunchRecord& record) {
  ProcessOptions options;
  const auto& mpi = record.mpi();
  const std::string networks = subnets(record);
  options.argv = {mpi.folder() + "/mpirun"};
  const auto set = [&](const std::string& name, const std::string& value) {
    options.argv.insert(options.argv.end(), {"--mca", name, value});
  };
  set("plm", "rsh");
  set("plm_rsh_agent", remote_shell(record));
  set("plm_rsh_no_tree_spawn", "1");
  set("plm_rsh_disable_qrsh", "1");
  set("plm_rsh_disable_llspawn", "1");
  set("if_base_do_not_resolve", "1");
  set("pml", mpi.pml().empty() ? "ob1" : mpi.pml());
  if (mpi.btl() != "none") set("btl", mpi.btl().empty() ? "self,vader,tcp" : mpi.btl());
  set("btl_tcp_if_include", networks);
  set("oob_tcp_if_include", networks);
  set("mpi_yield_when_idle", "1");
  if (mpi.port_min() > 0) {
    const int last = mpi.port_min() + mpi.port_count() - 1;
    set("btl_tcp_port_min_v4", std::to_string(mpi.port_min()));
    set("btl_tcp_port_range_v4", std::to_string(mpi.port_count()));
    set("oob_tcp_dynamic_ipv4_ports", std::to_string(mpi.port_min()) + "-" + std::to_string(last));
  }
  // --noprefix: a path in front of mpirun would put PATH settings in front of orted.
  options.argv.insert(options.argv.end(),
                      {"--noprefix", "--bind-to", "none", "--wdir", "/", "--host",
                       host_list(record), "-np", std::to_string(record.ranks_size()),
                       "weft-worker"});
  options.env = environment(record);
  options.env.push_back("OMPI_MCA_orte_tmpdir_base=" + record.run_folder() + "/m");
  options.folder = record.folder();
  options.log_file = output_pipe(record, kLauncherLog);
  options.die_with_parent = true;
  return options;
}

std::string host_of(int node) { return std::string(kHostPrefix) + std::to_string(node); }

Result<std::string> node_of(const std::string& host, const proto::LaunchRecord& record) {
  for (int i = 0; i < record.nodes_size(); ++i) {
    if (host == host_of(i)) return record.nodes(i).name();
  }
  return fail(Status::invalid("host", host, "must be a node of the attempt"));
}

std::string shared_memory_folder(const proto::LaunchRecord& record) {
  const size_t slash = record.run_folder().rfind('/');
  return "/dev/shm/weft-" + record.run_folder().substr(slash + 1);
}

ProcessOptions orted(const proto::LaunchRecord& record,
                     const std::vector<std::string>& arguments) {
  ProcessOptions options;
  options.argv = {record.mpi().folder() + "/orted"};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.argv.insert(options.argv.end(), {"-mca", "plm_rsh_agent", remote_shell(record), "-mca",
                                           "orte_tmpdir_base", record.run_folder() + "/d"});
  options.env = environment(record);
  const std::string shared = shared_memory_folder(record);
  if (::access(shared.c_str(), W_OK) == 0) {
    options.env.push_back("OMPI_MCA_btl_vader_backing_directory=" + shared);
  }
  options.folder = record.folder();
  options.log_file = output_pipe(record, kLauncherLog);
  options.die_with_parent = true;
  return options;
}

namespace {
// The text between `before` and the next `after`, from `at` on, which then stands behind it; empty:
// there is none.
std::string between(std::string_view text, std::string_view before, std::string_view after,
                    size_t& at) {
  const size_t start = text.find(before, at);
  const size_t end = start == std::string::npos ? start : text.find(after, start + before.size());
  if (end == std::string::npos) return "";
  at = end;
  return std::string(text.substr(start + before.size(), end - start - before.size()));
}

std::string on_node(const proto::LaunchRecord& record, const std::string& rank) {
  const char* end = rank.data() + rank.size();
  int number = -1;
  const auto [last, error] = std::from_chars(rank.data(), end, number);
  const bool known = error == std::errc() && last == end && number >= 0;
  if (!known || number >= record.ranks_size()) return "rank " + rank;
  return "rank " + rank + " on " + record.ranks(number).node();
}
}  // namespace

std::string explain(std::string_view log, const proto::LaunchRecord& record) {
  std::string joined(log);
  std::replace(joined.begin(), joined.end(), '\n', ' ');
  // "mpirun noticed that process rank 1 with PID 0 on node ... exited on signal 9 (Killed)."
  size_t at = 0;
  std::string rank = between(joined, "mpirun noticed that process rank ", " with PID", at);
  if (const std::string signal = between(joined, " exited on signal ", " ", at);
      !rank.empty() && !signal.empty()) {
    return on_node(record, rank) + " " + end_text(128 + std::atoi(signal.c_str()));
  }
  // "Process name: [[5,1],1]" + "Exit code: 3"
  at = 0;
  const bool named = !between(joined, "Process name: [[", "],", at).empty();
  rank = between(joined, "],", "]", at);
  if (const size_t code = joined.find("Exit code:", at);
      named && !rank.empty() && rank.size() < 10 && code != std::string::npos) {
    return on_node(record, rank) + " " + end_text(std::atoi(joined.c_str() + code + 10));
  }
  at = 0;
  rank = between(joined, "MPI_ABORT was invoked on rank ", " ", at);
  return rank.empty() ? "" : on_node(record, rank) + " gave up";
}

}  // namespace weft::open_mpi
