#include <fmt/format.h>
#include <google/protobuf/struct.pb.h>

#include <map>

#include "coordinator/cli/commands.h"
#include "proto/base/clock.h"

namespace weft::cli {

namespace {

// "2 x 80 GiB"
std::string gpus_text(const proto::NodeInfo& node) {
  std::string text = std::to_string(node.gpus());
  if (node.gpu_memory_bytes() > 0) text += " x " + show_bytes(node.gpu_memory_bytes());
  return text;
}

int forget_node(const Context& context, ApiClient& client, const std::string& name) {
  const Status status = client.send("DELETE", "nodes/" + encoded(name), nullptr, nullptr);
  if (!status.ok()) return report(context, status);
  if (!context.json) print(fmt::format("{} is forgotten\n", printable(name)));
  return kExitOk;
}

}  // namespace

std::string unused_gpus_text(const proto::NodeList& nodes) {
  std::map<std::string, std::string> names_of;
  for (const proto::NodeInfo& node : nodes.nodes()) {
    if (node.gpus_unused().empty()) continue;
    std::string& names = names_of[node.gpus_unused()];
    names += (names.empty() ? "" : ", ") + node.name();
  }
  std::string text;
  for (const auto& [why, names] : names_of) {
    text += fmt::format("{}: {}\n", printable(names), printable(why));
  }
  return text;
}

int nodes(const Context& context, const NodesOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  if (!options.action.empty()) return forget_node(context, *client, options.name);
  proto::NodeList list;
  const Status status = client->get_all("nodes", list);
  if (!status.ok()) return report(context, status);
  if (context.json) {
    print_json(list);
    return kExitOk;
  }
  if (list.nodes().empty()) {
    print("no nodes yet; 'weft join' on a machine adds it\n");
    return kExitOk;
  }
  Table table({"NAME", "STATE", "SLOTS", "CORES", "MEMORY", "DISK FREE", "GPUS", "ADDRESS", "SEEN",
               "RUNS"});
  table.drop_first({6, 3, 4, 5});
  table.shrink(0);
  for (const size_t column : {2, 3, 4, 5, 6, 8}) table.align_right(column);
  const int64_t now = SystemClock().wall_ms();
  for (const proto::NodeInfo& node : list.nodes()) {
    const bool ready = node.state() == proto::NODE_STATE_READY;
    std::string runs;
    for (const std::string& attempt : node.attempts()) runs += (runs.empty() ? "" : " ") + attempt;
    table.add({node.name(), ready ? "ready" : "lost", std::to_string(node.slots()),
               std::to_string(node.cores()), show_bytes(node.memory_bytes()),
               show_bytes(node.disk_free_bytes()), gpus_text(node), node.address(),
               show_age(node.last_seen_ms(), now), runs},
              ready ? Color::kGreen : Color::kRed, 1);
  }
  print(table.text(context.terminal) + unused_gpus_text(list));
  return kExitOk;
}

int token(const Context& context, bool join) {
  const std::string data = data_folder(context.settings);
  if (join) {
    const auto secret = read_text_file(data + "/join-secret", 4096);
    if (!secret) {
      return report(context, Status(secret.error())
                                 .with_rule("ask on the machine where 'weft up' was called, with "
                                            "the same --data"));
    }
    if (!context.json) {
      print(*secret);
      return kExitOk;
    }
    google::protobuf::Struct found;
    (*found.mutable_fields())["join_token"].set_string_value(
        secret->substr(0, secret->find_last_not_of(" \r\n") + 1));
    print_json(found);
    return kExitOk;
  }
  const Result<Endpoint> endpoint = find_endpoint(context.settings);
  if (!endpoint) return report(context, endpoint.error());
  if (context.json) {
    google::protobuf::Struct places;
    (*places.mutable_fields())["server"].set_string_value(
        fmt::format("http://{}:{}", endpoint->host, endpoint->port));
    (*places.mutable_fields())["token_file"].set_string_value(endpoint->token_file);
    print_json(places);
    return kExitOk;
  }
  print(fmt::format("server:     http://{}:{}\ntoken file: {}\n", endpoint->host, endpoint->port,
                    endpoint->token_file));
  return kExitOk;
}

}  // namespace weft::cli
