#include <algorithm>
#include <cctype>
#include <string>

#include "coordinator/api/api.h"
#include "coordinator/api/json_body.h"
#include "coordinator/service.h"
#include "proto/api.pb.h"

namespace weft::api {
namespace {

// A page's place is a node's name: nodes come in that order.
Result<Response> list(Service& service, const Request& request) {
  const std::string after = query_text(request, "after");
  const bool is_name = std::all_of(after.begin(), after.end(), [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-');
  });
  if (!is_name)
    return fail(Status::invalid("after", after, "must be the `next` of a page of nodes"));
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kPageLimitDefault, 1, kPageLimitMax));
  proto::NodeList page;
  page.set_next(after);
  for (proto::NodeInfo& node : service.nodes()) {
    if (node.name() <= after) continue;
    if (page.nodes_size() == limit) {
      page.set_more(true);
      break;
    }
    page.set_next(node.name());
    *page.add_nodes() = std::move(node);
  }
  return json_response(page);
}

}  // namespace

void add_node_routes(Router& router, Service& service) {
  Route nodes;
  nodes.method = "GET";
  nodes.pattern = "/api/v1/nodes";
  nodes.summary = "The nodes of the cluster, by name";
  nodes.query = {{"after", "`next` of the page before"},
                 {"limit", "items a page, 1 to 1000, default 100"}};
  nodes.response = proto::NodeList::descriptor();
  nodes.handler = [&service](const Request& request) { return list(service, request); };
  router.add(std::move(nodes));

  Route forget;
  forget.method = "DELETE";
  forget.pattern = "/api/v1/nodes/{id}";
  forget.summary = "Forget a node that is lost; it is known again once its agent comes back";
  forget.success = 204;
  forget.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_RETURN_IF_ERROR(service.forget_node(request.parameter("id")));
    return empty_response();
  };
  router.add(std::move(forget));

  Route drain;
  drain.method = "POST";
  drain.pattern = "/api/v1/drain";
  drain.summary = "Bring the cluster to rest: start nothing, stop running jobs in a checkpoint";
  drain.body = BodyKind::kJson;
  drain.request = proto::DrainRequest::descriptor();
  drain.success = 204;
  drain.handler = [&service](const Request& request) -> Result<Response> {
    proto::DrainRequest wanted;
    WEFT_RETURN_IF_ERROR(read_body(request, wanted));
    WEFT_RETURN_IF_ERROR(service.drain(wanted.seconds()));
    return empty_response();
  };
  router.add(std::move(drain));
}

}  // namespace weft::api
