// What a coordinator is told on its command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace weft {

struct CoordinatorOptions {
  std::string data;                  // everything durable; one coordinator a folder
  std::string listen = "127.0.0.1";  // address of the REST API
  int port = 7070;                   // 0: any free one, as with the next
  std::string agent_listen;          // address for agents; empty: as `listen`
  int agent_port = 7071;
  std::string token_file;               // empty: <data>/token
  std::string secret_file;              // empty: <data>/join-secret
  std::vector<std::string> host_names;  // further names that the REST API is reached by
  std::string cluster = "weft";
  double lease_seconds = 30;
};

// An exit code where there is nothing to run: 0 after --help and --version, 2 for a usage error.
std::optional<int> parse_options(int argc, char** argv, CoordinatorOptions& options);

}  // namespace weft
