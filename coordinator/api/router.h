// The table of routes: which request goes to which handler, and what each may carry. The OpenAPI
// document is written from the same table.
//
// Thread safety: const once the server runs; handlers are called from several threads at once.
// Ownership: the table owns its handlers.
// Invariants: 1. No two rows have the same method and pattern. 2. A query parameter that the row
// does not name is refused. 3. A handler never sees a body of another content type than its row's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "coordinator/api/http_types.h"

namespace google::protobuf {
class Descriptor;
}

namespace weft::api {

enum class BodyKind { kNone, kJson, kBytes };

struct QueryParameter {
  std::string name;
  std::string help;
};

struct Route {
  std::string method;
  std::string pattern;  // "/api/v1/jobs/{id}"
  std::string summary;
  std::vector<QueryParameter> query;
  BodyKind body = BodyKind::kNone;
  bool body_optional = false;                              // kJson: may be left out, with its type
  const google::protobuf::Descriptor* request = nullptr;   // kJson
  const google::protobuf::Descriptor* response = nullptr;  // nullptr: no JSON body
  int success = 200;
  bool open = false;     // needs no token
  bool streams = false;  // also as text/event-stream
  bool takes_idempotency_key = false;
  std::string response_type = "application/json";
  std::function<Result<Response>(const Request&)> handler;
};

class Router {
 public:
  void add(Route route);
  const std::vector<Route>& routes() const { return routes_; }

  struct Match {
    const Route* route = nullptr;  // nullptr: `refusal` is the answer
    Response refusal;
  };
  // Finds the row and fills request.parameters; checks the method, query names and content type.
  // HEAD is answered by GET's row; OPTIONS by the list of methods.
  Match match(Request& request) const;
  // Runs the handler on the complete request; a failure becomes its error answer.
  static Response call(const Route& route, const Request& request);
  bool is_open(const Request& request) const;  // a row that needs no token

 private:
  struct Row {
    std::vector<std::string> parts;
  };
  static bool fits(const Row& row, const Request& request, NameValues& parameters);
  std::vector<Route> routes_;
  std::vector<Row> rows_;
};

}  // namespace weft::api
