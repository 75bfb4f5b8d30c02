#include "coordinator/cli/settings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "proto/json/message_json.h"
#include "proto/json/yaml.h"

namespace weft::cli {
namespace {

Status file_error(const std::string& path, const char* action) {
  const int error = errno;
  return Status(error == ENOENT   ? Code::kInvalidArgument
                : error == ENOSPC ? Code::kResourceExhausted
                : error == EACCES ? Code::kPermissionDenied
                                  : Code::kUnavailable,
                fmt::format("cannot {} {}: {}", action, path, std::strerror(error)));
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::strchr(" \t\r\n", text.back()) != nullptr) text.pop_back();
  return text;
}

Result<Endpoint> with_token(Endpoint endpoint, const std::string& file) {
  endpoint.token_file = file;
  Result<std::string> text = read_text_file(file, 4096);
  if (!text) {
    return fail(
        Status(text.error())
            .with_rule("--token-file, WEFT_TOKEN_FILE or, with its server, token_file of "
                       "~/.config/weft/config.yaml names the file with the cluster's token"));
  }
  endpoint.token = trimmed(*text);
  if (endpoint.token.empty()) {
    return fail(Status(Code::kInvalidArgument, file + " is empty")
                    .with_rule("must hold the cluster's token"));
  }
  return endpoint;
}

// `token_file` empty: the folder's own.
Result<Endpoint> from_data(const std::string& data, const std::string& token_file) {
  WEFT_ASSIGN_OR_RETURN(const proto::LocalCluster cluster, read_local_cluster(data));
  Endpoint endpoint;
  if (cluster.address().empty()) return fail(Code::kNotFound, data + " has no coordinator");
  endpoint.host = cluster.address() == "0.0.0.0" ? "127.0.0.1" : cluster.address();
  endpoint.port = cluster.port();
  return with_token(endpoint, token_file.empty() ? data + "/token" : token_file);
}

struct ConfigFile {
  std::string server, token_file;
};

// Only blank lines and comments.
bool says_nothing(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find_first_not_of(" \t\r");
    if (first != std::string::npos && line[first] != '#') return false;
  }
  return true;
}

Status read_config_key(const JsonMember& member, const std::string& folder, ConfigFile& config) {
  const std::string shown = member.value.shown();
  if (member.key != "server" && member.key != "token_file") {
    return Status::invalid(member.key, shown, "must be server or token_file");
  }
  if (!member.value.is_string() || member.value.text.empty()) {
    return Status::invalid(member.key, shown, "must be a text");
  }
  const std::string& text = member.value.text;
  if (member.key == "server") {
    config.server = text;
    const auto parsed = parse_server(text);
    return parsed ? Status() : Status(parsed.error());
  }
  config.token_file = text.starts_with("~/") ? home_folder() + text.substr(1)
                                             : (std::filesystem::path(folder) / text).string();
  return {};
}

// A file that is missing says nothing; one that cannot be read or understood is an error.
Result<ConfigFile> read_config() {
  ConfigFile config;
  const std::string folder = home_folder() + "/.config/weft";
  const std::string path = folder + "/config.yaml";
  if (::access(path.c_str(), F_OK) != 0 && errno != EACCES) return config;
  WEFT_ASSIGN_OR_RETURN(const std::string text, read_text_file(path));
  if (says_nothing(text)) return config;
  const auto parsed = parse_yaml(text);
  if (!parsed) return fail(parsed.error().with_prefix(path));
  if (!parsed->is_object()) {
    return fail(Status(Code::kInvalidArgument, path + " is " + std::string(parsed->kind_name()))
                    .with_rule("must hold the keys server and token_file"));
  }
  for (const JsonMember& member : parsed->members) {
    Status status = read_config_key(member, folder, config);
    if (!status.ok()) return fail(status.with_line(member.line).with_prefix(path));
  }
  return config;
}

}  // namespace

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string home_folder() {
  const std::string home = environment("HOME");
  return home.empty() ? "/" : home;
}

std::string data_folder(const Settings& settings) {
  std::string folder = settings.data.empty() ? environment("WEFT_DATA") : settings.data;
  if (folder.empty()) folder = home_folder() + "/.local/share/weft";
  folder = std::filesystem::absolute(folder).lexically_normal().string();
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return folder;
}

Result<Endpoint> parse_server(const std::string& text) {
  const auto wrong = [&](const char* rule) { return fail(Status::invalid("server", text, rule)); };
  std::string rest = text;
  if (rest.starts_with("https://")) return wrong("must be http://HOST:PORT: there is no TLS here");
  if (rest.starts_with("http://")) rest = rest.substr(7);
  if (!rest.empty() && rest.back() == '/') rest.pop_back();
  Endpoint endpoint;
  endpoint.port = kDefaultPort;
  size_t colon = rest.rfind(':');
  if (rest.starts_with("[")) {
    const size_t end = rest.find(']');
    if (end == std::string::npos) return wrong("must be HOST:PORT");
    endpoint.host = rest.substr(1, end - 1);
    colon = end + 1 < rest.size() && rest[end + 1] == ':' ? end + 1 : std::string::npos;
  } else {
    endpoint.host = rest.substr(0, colon);
  }
  if (colon != std::string::npos) {
    const char* end = rest.data() + rest.size();
    const auto [stop, error] = std::from_chars(rest.data() + colon + 1, end, endpoint.port);
    if (error != std::errc() || stop != end || endpoint.port < 1 || endpoint.port > 65535) {
      return wrong("must be HOST:PORT with a port from 1 to 65535");
    }
  }
  if (endpoint.host.empty() || endpoint.host.find('/') != std::string::npos) {
    return wrong("must be HOST:PORT");
  }
  return endpoint;
}

Result<Endpoint> find_endpoint(const Settings& settings) {
  std::string server = settings.server.empty() ? environment("WEFT_SERVER") : settings.server;
  std::string token = settings.token_file;
  if (token.empty()) token = environment("WEFT_TOKEN_FILE");
  const bool named = !settings.data.empty() || !environment("WEFT_DATA").empty();
  if (server.empty() && !named) {
    WEFT_ASSIGN_OR_RETURN(const ConfigFile config, read_config());
    server = config.server;
    if (token.empty()) token = config.token_file;
  }
  const std::string data = data_folder(settings);
  if (server.empty()) {
    Result<Endpoint> endpoint = from_data(data, token);
    if (endpoint || endpoint.error().code() != Code::kNotFound) return endpoint;
    return fail(Status(Code::kUnavailable,
                       fmt::format("no coordinator known: {} has no cluster; 'weft up' starts one "
                                   "here, --server HOST:PORT names another",
                                   data)));
  }
  const auto endpoint = parse_server(server);
  if (!endpoint) {  // that of the file has been looked at
    const char* source = settings.server.empty() ? "WEFT_SERVER" : "--server";
    return fail(Status::invalid(source, server, endpoint.error().rule()));
  }
  return with_token(*endpoint, token.empty() ? data + "/token" : token);
}

Result<proto::LocalCluster> read_local_cluster(const std::string& data) {
  if (::access((data + "/cluster.json").c_str(), F_OK) != 0 && errno != EACCES) {
    return fail(Code::kNotFound, data + " has no cluster");
  }
  WEFT_ASSIGN_OR_RETURN(const std::string text, read_text_file(data + "/cluster.json"));
  proto::LocalCluster cluster;
  if (Status status = read_json(text, cluster); !status.ok()) {
    return fail(status.with_prefix(data + "/cluster.json: "));
  }
  return cluster;
}

Result<std::string> read_text_file(const std::string& path, size_t bytes_max) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail(file_error(path, "open"));
  std::string text;
  char piece[65536];
  ssize_t n = 0;
  while ((n = ::read(file, piece, sizeof piece)) > 0 && text.size() <= bytes_max) {
    text.append(piece, static_cast<size_t>(n));
  }
  const Status status = n < 0 ? file_error(path, "read") : Status();
  ::close(file);
  if (!status.ok()) return fail(status);
  if (text.size() > bytes_max) {
    return fail(Status(Code::kInvalidArgument, path + " is too large")
                    .with_rule(fmt::format("at most {} bytes", bytes_max)));
  }
  return text;
}

Status write_text_file(const std::string& path, const std::string& text, unsigned mode) {
  const std::string part = path + ".part";
  ::unlink(part.c_str());
  const int file = ::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) return file_error(part, "write");
  Status status;
  for (size_t at = 0; at < text.size() && status.ok();) {
    const ssize_t n = ::write(file, text.data() + at, text.size() - at);
    if (n < 0) status = file_error(part, "write");
    at += n < 0 ? 0 : static_cast<size_t>(n);
  }
  if (status.ok() && ::fsync(file) != 0) status = file_error(part, "write");
  ::close(file);
  if (status.ok() && ::rename(part.c_str(), path.c_str()) != 0) status = file_error(path, "write");
  if (!status.ok()) ::unlink(part.c_str());
  return status;
}

}  // namespace weft::cli
