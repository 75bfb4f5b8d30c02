// Request bodies read and answers written as JSON of the schema's messages.
// Thread safety: pure functions.
#pragma once

#include "coordinator/api/http_types.h"

namespace google::protobuf {
class Message;
}

namespace weft::api {

// Replaces `into` by the request's body; an error names the field and its line.
Status read_body(const Request& request, google::protobuf::Message& into);

Response json_response(const google::protobuf::Message& message, int status = 200);
Response empty_response();  // 204

}  // namespace weft::api
