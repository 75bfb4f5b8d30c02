// The REST server: accepts connections, reads requests within bounds, checks them (guard.h), hands
// them to the routes' handlers on a pool of their own, and writes the answers.
//
// Thread safety: start, port and stop from one thread. Ownership: keeps the router; what the
// handlers refer to must outlive the server. Invariants: 1. No handler runs on an I/O thread. 2. A
// request's head and body each have a size limit and a deadline. 3. A connection has one request in
// work at a time and one piece of an answer in memory. 4. stop() returns once no handler runs any
// more.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/api/router.h"
#include "proto/base/log.h"
#include "proto/base/status.h"

namespace weft::api {

struct ServerOptions {
  std::string address = "127.0.0.1";
  int port = 0;                         // 0: any free one
  std::string token;                    // required, at least 16 characters
  std::vector<std::string> host_names;  // further names this server is reached by
  int io_threads = 2;
  int handler_threads = 8;
  int connections_max = 1024;
  int64_t head_bytes_max = 16 << 10;
  int64_t body_bytes_max = 8 << 20;
  double head_seconds_max = 10;  // from the first byte of a request
  double body_seconds_max = 60;
  double idle_seconds_max = 75;       // between two requests of a connection
  double write_seconds_max = 60;      // for one piece of an answer
  double stream_poll_seconds = 0.05;  // how often a live stream looks for something new
  double heartbeat_seconds = 10;
};

class ApiServer {
 public:
  // Binds and serves; a busy port or an address that is not ours is kUnavailable.
  static Result<std::unique_ptr<ApiServer>> start(ServerOptions options, Router router,
                                                  Logger logger);
  ~ApiServer();  // stops
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  int port() const;
  void stop();

 private:
  struct State;
  explicit ApiServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace weft::api
