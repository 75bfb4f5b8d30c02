#include "coordinator/api/json_body.h"

#include "proto/json/message_json.h"

namespace weft::api {

Status read_body(const Request& request, google::protobuf::Message& into) {
  return read_json(request.body, into);
}

Response json_response(const google::protobuf::Message& message, int status) {
  Response response;
  response.status = status;
  response.body = write_json(message) + "\n";
  return response;
}

Response empty_response() {
  Response response;
  response.status = 204;
  response.content_type.clear();
  return response;
}

}  // namespace weft::api
