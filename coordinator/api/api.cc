#include "coordinator/api/api.h"

namespace weft::api {

Router make_router(Service& service) {
  Router router;
  add_health_routes(router, service);
  add_job_routes(router, service);
  add_job_record_routes(router, service);
  add_inspect_routes(router, service);
  add_checkpoint_routes(router, service);
  add_upload_routes(router, service);
  add_node_routes(router, service);
  add_openapi_route(router);
  return router;
}

}  // namespace weft::api
