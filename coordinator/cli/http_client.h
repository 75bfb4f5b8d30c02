// A small HTTP/1.1 client for one server, with one connection that is kept.
//
// Thread safety: one thread. Ownership: owns its connection.
// Invariants: 1. Every step (connect, write, read) has a deadline. 2. A kept connection that turns
// out to be closed is opened again once; a request is sent twice only if no answer to it had begun,
// so requests must be idempotent or carry an Idempotency-Key.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/base/status.h"

namespace weft::cli {

struct HttpCall {
  std::string method = "GET";
  std::string target;
  std::string content_type;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  double seconds_max = 60;  // for each step; of a stream: between two pieces
};

struct HttpReply {
  int status = 0;
  std::string body;
};

class HttpClient {
 public:
  HttpClient(std::string host, int port, std::string token);
  ~HttpClient();
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;

  Result<HttpReply> send(const HttpCall& call);
  // Hands the body of a 2xx answer to `sink` piece by piece; `sink` returning an error ends it.
  // Other answers come back whole, with nothing handed to `sink`. A body that ends early is
  // kUnavailable.
  Result<HttpReply> stream(const HttpCall& call,
                           const std::function<Status(std::string_view)>& sink);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace weft::cli
