#include "coordinator/api/api.h"
#include "coordinator/api/json_body.h"
#include "coordinator/service.h"
#include "proto/api.pb.h"

namespace weft::api {

void add_node_routes(Router& router, Service& service) {
  Route list;
  list.method = "GET";
  list.pattern = "/api/v1/nodes";
  list.summary = "The nodes of the cluster, by name";
  list.response = proto::NodeList::descriptor();
  list.handler = [&service](const Request&) -> Result<Response> {
    proto::NodeList nodes;
    for (proto::NodeInfo& node : service.nodes()) *nodes.add_nodes() = std::move(node);
    return json_response(nodes);
  };
  router.add(std::move(list));
}

}  // namespace weft::api
