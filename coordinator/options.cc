#include "coordinator/options.h"

#include <CLI/CLI.hpp>

namespace weft {

std::optional<int> parse_options(int argc, char** argv, CoordinatorOptions& options) {
  CLI::App app("The coordinator of a Weft cluster", "weft-coordinator");
  app.add_option("--data", options.data, "Folder of everything durable; one coordinator a folder")
      ->required();
  app.add_option("--listen", options.listen, "Address of the REST API")->capture_default_str();
  app.add_option("--port", options.port, "Port of the REST API; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--agent-listen", options.agent_listen,
                 "Address for agents; default: as --listen");
  app.add_option("--agent-port", options.agent_port, "Port for agents; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--token-file", options.token_file,
                 "REST token, made on the first start; default: DATA/token");
  app.add_option(
      "--secret-file", options.secret_file,
      "Secret that agents join with, made on the first start; default: DATA/join-secret");
  app.add_option("--host-name", options.host_names,
                 "Further name that the REST API is reached by; may be repeated");
  app.add_option("--cluster", options.cluster, "Name of the cluster")->capture_default_str();
  app.add_option("--lease-seconds", options.lease_seconds,
                 "A node that is not heard for so long has lost its ranks")
      ->check(CLI::Range(1.0, 3600.0))
      ->capture_default_str();
  app.set_version_flag("--version", "weft-coordinator " WEFT_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return std::nullopt;
}

}  // namespace weft
