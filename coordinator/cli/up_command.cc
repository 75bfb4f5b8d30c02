#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <set>
#include <tuple>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"
#include "proto/json/message_json.h"

namespace weft::cli {
namespace {

constexpr double kStartSeconds = 60;

Status check_address(const std::string& address) {
  in_addr parsed{};
  if (::inet_pton(AF_INET, address.c_str(), &parsed) == 1) return Status();
  return Status::invalid("--address", address, "must be an IPv4 address of this machine");
}

// What is recorded, changed by what was asked for.
Result<proto::LocalCluster> choose_cluster(const std::string& data, const UpOptions& options) {
  proto::LocalCluster cluster;
  if (const auto known = read_local_cluster(data)) {
    cluster = *known;
  } else if (known.error().code() != Code::kNotFound) {
    return fail(known.error());
  }
  if (!options.address.empty()) cluster.set_address(options.address);
  if (cluster.address().empty()) cluster.set_address("127.0.0.1");
  WEFT_RETURN_IF_ERROR(check_address(cluster.address()));
  if (options.nodes_given || cluster.nodes() == 0) cluster.set_nodes(options.nodes);
  if (options.slots_given) cluster.set_slots_per_node(options.slots_per_node);
  if (options.memory_bytes > 0) cluster.set_memory_bytes(options.memory_bytes);
  if (cluster.memory_bytes() > 0 && cluster.memory_bytes() / cluster.nodes() < kLeastNodeMemory) {
    return fail(Status::invalid("--memory-bytes", std::to_string(cluster.memory_bytes()),
                                fmt::format("must be at least {} for each of {} nodes",
                                            kLeastNodeMemory, cluster.nodes())));
  }
  if (options.port > 0) cluster.set_port(options.port);
  if (options.agent_port > 0) cluster.set_agent_port(options.agent_port);
  return cluster;
}

Status check_port(const char* option, const std::string& address, int port) {
  const int error = listen_error(address, port);
  if (error == 0) return Status();
  if (error == EADDRNOTAVAIL) {
    return Status::invalid("--address", address, "must be an IPv4 address of this machine");
  }
  if (error == EADDRINUSE) {
    return Status(Code::kUnavailable,
                  fmt::format("port {} of {} is in use by another program; choose another with {}, "
                              "or end that program ('ss -ltnp' names it)",
                              port, address, option));
  }
  return Status::invalid(option, std::to_string(port),
                         fmt::format("cannot be listened on: {}", std::strerror(error)));
}

// A port that was asked for, or that is this cluster's already, must be free; one that nobody named
// is the next free one.
Status choose_ports(proto::LocalCluster& cluster) {
  const std::string& address = cluster.address();
  const auto choose = [&](const char* option, int chosen, int first) -> Result<int> {
    const int port = chosen > 0 ? chosen : free_port(address, first);
    WEFT_RETURN_IF_ERROR(check_port(option, address, port > 0 ? port : first));
    return port;
  };
  WEFT_ASSIGN_OR_RETURN(const int port, choose("--port", cluster.port(), kDefaultPort));
  cluster.set_port(port);
  WEFT_ASSIGN_OR_RETURN(const int agent_port,
                        choose("--agent-port", cluster.agent_port(), port % 65535 + 1));
  cluster.set_agent_port(agent_port);
  if (port != agent_port) return Status();
  return Status::invalid("--agent-port", std::to_string(port), "must differ from --port");
}

Status died(const LocalPrograms& programs, const std::string& name, const char* what) {
  const std::string log = programs.log(name);
  return Status(Code::kUnavailable,
                fmt::format("{} {}; the end of {}:\n{}", name, what, log, file_tail(log, 10)));
}

Status wait_for_coordinator(const LocalPrograms& programs, const Context& context) {
  Status last;
  bool alive = true;
  const bool answered = wait_until(kStartSeconds, [&] {
    alive = is_alive(programs.running("coordinator"));
    if (!alive) return true;
    Settings settings = context.settings;
    settings.server = settings.token_file = "";
    settings.data = programs.data();
    Result<ApiClient> client = ApiClient::connect(settings);
    if (!client) return false;
    proto::Liveness live;
    last = client->get("health", live);
    return last.ok();
  });
  if (!alive) return died(programs, "coordinator", "ended at once");
  return answered ? Status() : died(programs, "coordinator", "does not answer");
}

// ended: sessions of agents of before, whose nodes may still pass for ready.
Result<proto::NodeList> wait_for_nodes(const LocalPrograms& programs, ApiClient& client,
                                       const proto::LocalCluster& cluster,
                                       const std::set<std::string>& ended) {
  proto::NodeList nodes;
  Status last;
  std::string dead;
  const bool ready = wait_until(kStartSeconds, [&] {
    std::set<std::string> waiting(cluster.node_names().begin(), cluster.node_names().end());
    for (const std::string& name : waiting) {
      if (!is_alive(programs.running(name))) dead = name;
    }
    nodes.Clear();
    last = client.get_all("nodes", nodes);
    for (const proto::NodeInfo& node : nodes.nodes()) {
      if (node.state() != proto::NODE_STATE_READY || ended.contains(node.session())) continue;
      waiting.erase(node.name());
    }
    return !dead.empty() || waiting.empty();
  });
  if (!dead.empty()) return fail(died(programs, dead, "ended at once"));
  if (ready) return nodes;
  if (!last.ok()) return fail(last);
  return fail(died(programs, cluster.node_names(0), "or another node does not become ready"));
}

Status start_all(const Context& context, const UpOptions& options, LocalPrograms& programs,
                 const proto::LocalCluster& cluster, proto::NodeList& nodes) {
  WEFT_RETURN_IF_ERROR(programs.start_coordinator(options.host_names));
  WEFT_RETURN_IF_ERROR(wait_for_coordinator(programs, context));
  Settings settings;
  settings.data = programs.data();
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(settings));
  proto::NodeList before;
  WEFT_RETURN_IF_ERROR(client.get_all("nodes", before));
  std::set<std::string> started, ended;
  for (const std::string& name : cluster.node_names()) {
    const Process agent = programs.running(name);
    WEFT_RETURN_IF_ERROR(programs.start_agent(name));
    if (programs.running(name).pid != agent.pid) started.insert(name);
  }
  for (const proto::NodeInfo& node : before.nodes()) {
    if (started.contains(node.name())) ended.insert(node.session());
  }
  WEFT_ASSIGN_OR_RETURN(nodes, wait_for_nodes(programs, client, cluster, ended));
  return Status();
}

// A running cluster takes further nodes, and nothing else.
Status check_unchanged(const proto::LocalCluster& known, const proto::LocalCluster& asked) {
  const auto refuse = [&](const char* option, const std::string& value, const auto& now) {
    return Status::invalid(option, value,
                           fmt::format("cannot change from {} while this cluster runs; 'weft down' "
                                       "stops it first",
                                       now));
  };
  if (asked.address() != known.address()) {
    return refuse("--address", asked.address(), known.address());
  }
  for (const auto& [option, value, now] : std::initializer_list<std::tuple<const char*, int, int>>{
           {"--port", asked.port(), known.port()},
           {"--agent-port", asked.agent_port(), known.agent_port()},
           {"--slots-per-node", asked.slots_per_node(), known.slots_per_node()},
           {"--nodes", std::min(asked.nodes(), known.nodes()), known.nodes()}}) {
    if (value != now) return refuse(option, std::to_string(value), now);
  }
  return Status();
}

// What is to run from this folder. Changes nothing: what cannot start leaves no folder behind.
Result<proto::LocalCluster> plan_cluster(const std::string& data, const UpOptions& options) {
  WEFT_ASSIGN_OR_RETURN(proto::LocalCluster cluster, choose_cluster(data, options));
  if (is_alive(LocalPrograms(data, cluster).running("coordinator"))) {
    WEFT_ASSIGN_OR_RETURN(const proto::LocalCluster known, read_local_cluster(data));
    WEFT_RETURN_IF_ERROR(check_unchanged(known, cluster));
  } else {
    WEFT_RETURN_IF_ERROR(choose_ports(cluster));
  }
  const std::string host = cluster.address() == "0.0.0.0" ? "127.0.0.1" : cluster.address();
  cluster.set_coordinator(fmt::format("{}:{}", host, cluster.agent_port()));
  cluster.clear_node_names();
  for (int i = 1; i <= cluster.nodes(); ++i) cluster.add_node_names(fmt::format("node-{}", i));
  return cluster;
}

Result<proto::LocalCluster> bring_up(const Context& context, const UpOptions& options,
                                     proto::NodeList& nodes) {
  const std::string data = data_folder(context.settings);
  if (const auto first = plan_cluster(data, options); !first) return fail(first.error());
  WEFT_RETURN_IF_ERROR(check_programs());
  WEFT_RETURN_IF_ERROR(prepare_folder(data, true));
  WEFT_ASSIGN_OR_RETURN([[maybe_unused]] const FolderLock lock, FolderLock::take(data));
  WEFT_ASSIGN_OR_RETURN(const proto::LocalCluster cluster, plan_cluster(data, options));
  WEFT_RETURN_IF_ERROR(save_local_cluster(data, cluster));
  LocalPrograms programs(data, cluster);
  WEFT_RETURN_IF_ERROR(start_all(context, options, programs, cluster, nodes));
  return cluster;
}

// "3 slots on 2 GPUs, which some share, and 1 on the CPU"
std::string slots_text(const proto::NodeList& nodes) {
  int on_gpus = 0, gpus = 0, on_cpu = 0;
  bool shared = false;
  for (const proto::NodeInfo& node : nodes.nodes()) {
    gpus += node.gpus();
    (node.gpus() > 0 ? on_gpus : on_cpu) += node.slots();
    shared = shared || (node.gpus() > 0 && node.slots() > node.gpus());
  }
  const auto many = [](int count, const char* what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  };
  if (gpus == 0) return many(on_cpu, "slot") + " on the CPU";
  std::string text = many(on_gpus, "slot") + " on " + many(gpus, "GPU");
  if (shared) text += ", which some share";
  if (on_cpu > 0) text += fmt::format("{} and {} on the CPU", shared ? "," : "", on_cpu);
  return text;
}

// This machine's agents only.
void leave_own(const proto::LocalCluster& cluster, proto::NodeList& nodes) {
  const std::set<std::string> own(cluster.node_names().begin(), cluster.node_names().end());
  auto& all = *nodes.mutable_nodes();
  const auto other = [&](const proto::NodeInfo& node) { return !own.contains(node.name()); };
  all.erase(std::remove_if(all.begin(), all.end(), other), all.end());
}

}  // namespace

int up(const Context& context, const UpOptions& options) {
  proto::NodeList nodes;
  const bool first = !read_local_cluster(data_folder(context.settings)).has_value();
  const Result<proto::LocalCluster> cluster = bring_up(context, options, nodes);
  if (!cluster) return report(context, cluster.error());
  if (context.json) {
    print_json(*cluster);
    return kExitOk;
  }
  leave_own(*cluster, nodes);
  const std::string data = data_folder(context.settings);
  if (first && options.port == 0 && cluster->port() != kDefaultPort) {
    print(fmt::format("Port {} is in use by another program; this cluster's is {}.\n", kDefaultPort,
                      cluster->port()));
  }
  print(
      fmt::format("The coordinator listens on http://{}:{}; {} of {} nodes are ready, with {}.\n{}"
                  "The token is in {}/token, logs are in {}/log.\n",
                  cluster->address(), cluster->port(), cluster->nodes(), cluster->nodes(),
                  slots_text(nodes), unused_gpus_text(nodes), data, data));
  if (data != data_folder(Settings{}))
    print(fmt::format("For other commands: export WEFT_DATA={}\n", data));
  print("'weft submit -f job.yaml' submits a job, 'weft down' stops the cluster.\n");
  return kExitOk;
}

}  // namespace weft::cli
