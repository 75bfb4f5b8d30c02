// Which coordinator to speak to, and with which token.
//
// Looked for in this order: --server and --token-file; WEFT_SERVER and WEFT_TOKEN_FILE; the data
// folder that --data or WEFT_DATA names; ~/.config/weft/config.yaml (server, token_file, whose path
// starts from that file's folder, or from home where it begins with "~/"); the data folder of
// `weft up`, ~/.local/share/weft.
//
// Thread safety: values. Ownership: none.
#pragma once

#include <string>

#include "proto/api.pb.h"
#include "proto/base/status.h"

namespace weft::cli {

inline constexpr int kDefaultPort = 7070;  // of the REST API

struct Settings {
  std::string server;      // as given with --server
  std::string token_file;  // as given with --token-file
  std::string data;        // as given with --data
};

struct Endpoint {
  std::string host;
  int port = 0;
  std::string token_file;  // where the token came from
  std::string token;
};

// The data folder: --data, WEFT_DATA, or ~/.local/share/weft; absolute.
std::string data_folder(const Settings& settings);
// "host:port" or "http://host:port"; the port defaults to 7070.
Result<Endpoint> parse_server(const std::string& text);
// Errors name where a server or token came from: the option, the variable or the file.
Result<Endpoint> find_endpoint(const Settings& settings);

// cluster.json of a data folder, written by `weft up`; not_found where there is none.
Result<proto::LocalCluster> read_local_cluster(const std::string& data);

// A file that is missing is kInvalidArgument.
Result<std::string> read_text_file(const std::string& path, size_t bytes_max = size_t{16} << 20);
// Replaces the file as a whole; synced.
Status write_text_file(const std::string& path, const std::string& text, unsigned mode);
std::string environment(const char* name);
std::string home_folder();

}  // namespace weft::cli
