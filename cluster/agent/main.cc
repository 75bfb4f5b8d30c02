// weft-agent: one a node. With --shepherd and --remote-shell the same program is started by itself
// and by mpirun; people do not use those.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <string>

#include "cluster/agent/agent.h"
#include "cluster/shepherd/shepherd.h"

namespace {

int split_coordinator(weft::AgentOptions& options, const std::string& text) {
  const size_t colon = text.rfind(':');
  options.coordinator_host = text.substr(0, colon);
  bool good = !options.coordinator_host.empty();
  if (colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto [last, error] =
        std::from_chars(text.data() + colon + 1, end, options.coordinator_port);
    good = good && error == std::errc() && last == end;
  }
  if (good && options.coordinator_port > 0 && options.coordinator_port < 65536) return 0;
  std::fprintf(stderr, "weft-agent: --coordinator %s: must be HOST:PORT\n", text.c_str());
  return 2;
}

void add_options(CLI::App& app, weft::AgentOptions& options, std::string& coordinator,
                 int& port_min, int& port_count, std::string& pml, std::string& btl) {
  app.add_option("--data", options.data, "This agent's folder; one agent a folder")->required();
  app.add_option("--secret-file", options.secret_file,
                 "File (0600) with the cluster's shared secret")
      ->required();
  app.add_option("--coordinator", coordinator, "The coordinator")->capture_default_str();
  app.add_option("--name", options.name, "Node name; default: the host's name");
  app.add_option("--slots", options.slots,
                 "Ranks that fit on this node; default: one a GPU, or --cpu-slots without one")
      ->check(CLI::Range(0, 4096));
  app.add_option("--cpu-slots", options.cpu_slots,
                 "The same where they compute on the CPU; default: one a core")
      ->check(CLI::Range(0, 4096));
  app.add_option("--memory-bytes", options.memory_bytes,
                 "Memory that its ranks share; default: the machine's, or its cgroup's")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--address", options.address,
                 "IPv4 address for other nodes' ranks; default: the one facing the coordinator");
  app.add_option("--subnet", options.subnet, "Its network in CIDR; default: the interface's");
  app.add_option("--worker", options.worker,
                 "The rank's program; default: weft-worker-cuda beside it where there is a GPU, "
                 "else weft-worker");
  app.add_option(
      "--gpus", options.gpus,
      "GPUs that its ranks compute on: numbers (as nvidia-smi counts) or ids with commas "
      "between them, or i/n, the i-th of n shares; default: those that "
      "CUDA_VISIBLE_DEVICES and other agents of this machine leave");
  app.add_option("--user", options.user, "Who ranks run as, where the agent is root")
      ->capture_default_str();
  app.add_option("--lease-seconds", options.lease_seconds,
                 "Until the coordinator's first word, ranks live this long without one")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--chunk-cache-bytes", options.chunk_cache_bytes,
                 "Chunks kept on this node; the coordinator has them all")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--mpi-pml", pml, "Open MPI's point-to-point layer; default: ob1");
  app.add_option("--mpi-btl", btl, "Its transports; default: self,vader,tcp; none: do not set");
  app.add_option("--mpi-port-min", port_min, "First port of the ranks' range; 0: any")
      ->check(CLI::Range(0, 65535));
  app.add_option("--mpi-port-count", port_count, "Ports in that range")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 3 && std::string(argv[1]) == "--remote-shell") {
    std::string command;
    for (int i = 3; i < argc; ++i) command += (i == 3 ? "" : " ") + std::string(argv[i]);
    return weft::remote_shell_main(argv[2], command);
  }
  if (argc == 5 && std::string(argv[1]) == "--shepherd") {
    return weft::shepherd_main(argv[2], std::atof(argv[4]));
  }
  CLI::App app("The agent of one node: starts and watches the ranks of training jobs.",
               "weft-agent");
  app.set_version_flag("--version", "weft-agent " WEFT_VERSION);
  weft::AgentOptions options;
  std::string coordinator = "127.0.0.1:7071", pml, btl;
  int port_min = 0, port_count = 1024;
  add_options(app, options, coordinator, port_min, port_count, pml, btl);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (const int code = split_coordinator(options, coordinator); code != 0) return code;
  options.mpi.set_pml(pml);
  options.mpi.set_btl(btl);
  options.mpi.set_port_min(port_min);
  options.mpi.set_port_count(port_count);
  const weft::Status status = weft::run_agent(options);
  if (!status.ok()) std::fprintf(stderr, "weft-agent: %s\n", status.to_string().c_str());
  return status.ok() ? 0 : 1;
}
