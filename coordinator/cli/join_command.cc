#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <iostream>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"
#include "proto/json/writer.h"

namespace weft::cli {
namespace {

// What an agent writes to its log (cluster/agent/agent.cc, coordinator_link.cc).
constexpr const char* kJoined = "the coordinator has taken this node in";
constexpr const char* kNotTaken = "the coordinator refuses this node: ";
constexpr int kAgentPort = 7071, kReachMs = 5000;
constexpr const char* kRefused = "does not share this cluster's secret";

Result<std::string> read_token(const std::string& given) {
  std::string token = given;
  if (given == "-") {
    std::getline(std::cin, token);
  } else if (::access(given.c_str(), R_OK) == 0) {
    WEFT_ASSIGN_OR_RETURN(token, read_text_file(given, 4096));
  }
  while (!token.empty() && std::isspace(static_cast<unsigned char>(token.back())) != 0) {
    token.pop_back();
  }
  if (token.size() < 16) {
    return fail(Status(Code::kInvalidArgument, "this is no join token")
                    .with_field("--token")
                    .with_rule("'weft token --join' on the coordinator's machine prints it; give "
                               "it as '-' (standard input) or as a file"));
  }
  return token;
}

// Before the token is looked at: which one is right depends on whom it is for.
Status check_coordinator(const Endpoint& coordinator) {
  Status status = check_reachable(coordinator.host, coordinator.port, kReachMs);
  if (status.ok()) return status;
  return status.with_field("COORDINATOR")
      .with_rule("must be where the coordinator takes agents (the --agent-port of weft up)");
}

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

// An agent that joined says so in its log; one that is refused, or finds nobody, says why.
Status wait_for_word(const LocalPrograms& programs, const std::string& name,
                     const std::string& log) {
  std::string text;  // the log so far
  const auto told = [&](const char* word) { return text.find(word) != std::string::npos; };
  bool alive = true;
  const bool joined = wait_until(10, [&] {
    alive = is_alive(programs.running(name));
    text = read_text_file(log).value_or("");
    return !alive || told(kJoined) || told(kRefused) || told(kNotTaken);
  });
  if (const size_t at = text.find(kNotTaken); at != std::string::npos) {
    stop_processes(programs.agents(), 15);
    return Status(Code::kInvalidArgument, text.substr(at, text.find('\n', at) - at));
  }
  if (told(kRefused)) {
    stop_processes(programs.agents(), 15);
    return Status(Code::kUnauthenticated, "the coordinator has another join token")
        .with_field("--token")
        .with_rule("'weft token --join' on the coordinator's machine prints it");
  }
  if (joined && alive) return Status();
  return Status(Code::kUnavailable,
                fmt::format("the agent {}; the end of {}:\n{}",
                            alive ? "goes on trying, but has not been let in yet" : "ended", log,
                            file_tail(log, 5)));
}

Status start_joined(const Context& context, const JoinOptions& options, std::string& name) {
  const std::string data = data_folder(context.settings);
  WEFT_ASSIGN_OR_RETURN(Endpoint coordinator, parse_server(options.coordinator));
  if (options.coordinator.rfind(':') == std::string::npos) coordinator.port = kAgentPort;
  WEFT_RETURN_IF_ERROR(check_coordinator(coordinator));
  WEFT_ASSIGN_OR_RETURN(const std::string token, read_token(options.token));
  WEFT_RETURN_IF_ERROR(check_programs());
  std::error_code error;
  const bool fresh = !std::filesystem::exists(data, error);
  WEFT_RETURN_IF_ERROR(prepare_folder(data, false));
  WEFT_ASSIGN_OR_RETURN([[maybe_unused]] const FolderLock lock, FolderLock::take(data));
  proto::LocalCluster cluster;
  if (const auto known = read_local_cluster(data)) cluster = *known;
  if (!cluster.address().empty()) {
    return Status::invalid("--data", data,
                           "holds a coordinator of its own; name another folder to join with");
  }
  name = options.name.empty() ? host_name() : options.name;
  cluster.set_coordinator(fmt::format("{}:{}", coordinator.host, coordinator.port));
  cluster.set_slots_per_node(options.slots);
  cluster.set_memory_bytes(options.memory_bytes);
  cluster.clear_node_names();
  cluster.add_node_names(name);
  WEFT_RETURN_IF_ERROR(write_text_file(data + "/join-secret", token + "\n", 0600));
  WEFT_RETURN_IF_ERROR(save_local_cluster(data, cluster));
  LocalPrograms programs(data, cluster);
  stop_processes(programs.agents(), 15);  // one that was here, perhaps with another token
  const std::string log = programs.log(name);
  std::filesystem::remove(log, error);
  WEFT_RETURN_IF_ERROR(programs.start_agent(name));
  const Status status = wait_for_word(programs, name, log);
  const bool refused = !status.ok() && status.code() != Code::kUnavailable;
  if (fresh && refused) std::filesystem::remove_all(data, error);
  return status;
}

}  // namespace

int join(const Context& context, const JoinOptions& options) {
  std::string name;
  const Status status = start_joined(context, options, name);
  if (!status.ok()) return report(context, status);
  if (context.json) {
    JsonWriter out(2);
    out.begin_object().key("node").string(name).key("coordinator").string(options.coordinator);
    print(out.end_object().take() + "\n");
  } else {
    print(
        fmt::format("{} joins {}; 'weft nodes' on the coordinator's machine shows it, 'weft "
                    "down' here stops it\n",
                    name, options.coordinator));
  }
  return kExitOk;
}

}  // namespace weft::cli
