// The schema told to others: OpenAPI components and reference pages, from the same descriptors and
// rules that validation uses.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "proto/json/json_fwd.h"

namespace google::protobuf {
class Descriptor;
}

namespace weft {

// The OpenAPI 3.1 schema of one message; sub-messages are "$ref"s to "#/components/schemas/NAME".
// `answer`: the service writes it, and it is never sent to it; what it always writes is `required`,
// so the others are the ones that may be left out.
nlohmann::ordered_json json_schema(const google::protobuf::Descriptor& type, bool answer = false);

// "JobSpec"; a nested type carries its outer type's name: "PlacementNode".
std::string schema_name(const google::protobuf::Descriptor& type);

// {"JobSpec": {...}, "ModelSpec": {...}, ...}: bodies of requests, then of answers, and all that
// they refer to, as JSON text.
std::string component_schemas(const std::vector<const google::protobuf::Descriptor*>& requests,
                              const std::vector<const google::protobuf::Descriptor*>& answers);

// Tables of key, type, default, bounds and meaning; one for the message itself and one for each
// message below it, headed by its path.
std::string reference_markdown(const google::protobuf::Descriptor& type);

// The same for this message alone, headed by its schema name.
std::string schema_section(const google::protobuf::Descriptor& type);

// docs/reference/job-file.md, whole.
std::string job_file_reference();

}  // namespace weft
