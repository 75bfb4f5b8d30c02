#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <iostream>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"

namespace weft::cli {
namespace {

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

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

Status start_joined(const Context& context, const JoinOptions& options, std::string& name) {
  const std::string data = data_folder(context.settings);
  WEFT_ASSIGN_OR_RETURN(const Endpoint coordinator, parse_server(options.coordinator));
  WEFT_ASSIGN_OR_RETURN(const std::string token, read_token(options.token));
  WEFT_RETURN_IF_ERROR(prepare_folder(data, false));
  WEFT_ASSIGN_OR_RETURN([[maybe_unused]] const FolderLock lock, FolderLock::take(data));
  proto::LocalCluster cluster;
  if (const auto known = read_local_cluster(data)) cluster = *known;
  if (!cluster.address().empty()) {
    return Status::invalid("--data", data,
                           "holds a coordinator of its own; name another folder to join with");
  }
  name = options.name.empty() ? host_name() : options.name;
  const bool has_port = options.coordinator.rfind(':') != std::string::npos;
  cluster.set_coordinator(
      fmt::format("{}:{}", coordinator.host, has_port ? coordinator.port : 7071));
  cluster.set_slots_per_node(options.slots);
  cluster.clear_node_names();
  cluster.add_node_names(name);
  WEFT_RETURN_IF_ERROR(write_text_file(data + "/join-secret", token + "\n", 0600));
  WEFT_RETURN_IF_ERROR(save_local_cluster(data, cluster));
  LocalPrograms programs(data, cluster);
  if (const Process old = programs.running(name); is_alive(old)) stop_processes({old}, 15);
  WEFT_RETURN_IF_ERROR(programs.start_agent(name));
  // An agent that the coordinator refuses ends by itself, and says why in its log.
  if (!wait_until(3, [&] { return !is_alive(programs.running(name)); })) return Status();
  return Status(Code::kUnavailable,
                fmt::format("the agent ended; the end of {}:\n{}", programs.log(name),
                            file_tail(programs.log(name), 10)));
}

}  // namespace

int join(const Context& context, const JoinOptions& options) {
  std::string name;
  const Status status = start_joined(context, options, name);
  if (!status.ok()) return report(context, status);
  if (!context.json) {
    print(
        fmt::format("{} joins {}; 'weft nodes' on the coordinator's machine shows it, 'weft "
                    "down' here stops it\n",
                    name, options.coordinator));
  }
  return kExitOk;
}

}  // namespace weft::cli
