// GET /api/v1/openapi.json, written from the table of routes and the schema's rules.
#include <algorithm>
#include <cctype>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "coordinator/api/api.h"
#include "proto/api.pb.h"
#include "proto/json/schema.h"

namespace weft::api {
namespace {

using Json = nlohmann::ordered_json;
using Descriptor = google::protobuf::Descriptor;

std::string operation_id(const Route& route) {
  std::string id = route.method;
  std::transform(id.begin(), id.end(), id.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char c : route.pattern.substr(7)) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      id += c;
    } else if (id.back() != '_') {
      id += '_';
    }
  }
  while (id.back() == '_') id.pop_back();
  return id;
}

Json reference(const Descriptor& type) {
  return {{"$ref", "#/components/schemas/" + schema_name(type)}};
}

Json json_content(const Descriptor& type) {
  return {{"application/json", {{"schema", reference(type)}}}};
}

Json parameters(const Route& route) {
  Json list = Json::array();
  size_t at = 0;
  while ((at = route.pattern.find('{', at)) != std::string::npos) {
    const size_t end = route.pattern.find('}', at);
    list.push_back({{"name", route.pattern.substr(at + 1, end - at - 1)},
                    {"in", "path"},
                    {"required", true},
                    {"schema", {{"type", "string"}}}});
    at = end;
  }
  for (const QueryParameter& parameter : route.query) {
    list.push_back({{"name", parameter.name},
                    {"in", "query"},
                    {"description", parameter.help},
                    {"schema", {{"type", "string"}}}});
  }
  if (route.streams) {
    list.push_back({{"name", "Last-Event-ID"},
                    {"in", "header"},
                    {"description", "of a live stream: goes on after the event with this id"},
                    {"schema", {{"type", "string"}}}});
  }
  if (route.takes_idempotency_key) {
    list.push_back({{"name", "Idempotency-Key"},
                    {"in", "header"},
                    {"description", "the same key with the same body is answered by the same job"},
                    {"schema", {{"type", "string"}, {"maxLength", 200}}}});
  }
  return list;
}

Json operation(const Route& route, std::set<const Descriptor*>& requests,
               std::set<const Descriptor*>& answers) {
  Json made = {{"operationId", operation_id(route)}, {"summary", route.summary}};
  if (route.open) made["security"] = Json::array();
  if (Json list = parameters(route); !list.empty()) made["parameters"] = std::move(list);
  if (route.request != nullptr) {
    requests.insert(route.request);
    made["requestBody"] = {{"required", !route.body_optional},
                           {"content", json_content(*route.request)}};
  } else if (route.body == BodyKind::kBytes) {
    made["requestBody"] = {
        {"required", true},
        {"content",
         {{"application/octet-stream", {{"schema", {{"type", "string"}, {"format", "binary"}}}}}}}};
  }
  Json answer = {{"description", route.summary}};
  if (route.response != nullptr) {
    answers.insert(route.response);
    answer["content"] = json_content(*route.response);
  } else if (route.success != 204) {
    answer["content"] = {
        {route.response_type, {{"schema", {{"type", "string"}, {"format", "binary"}}}}}};
  }
  if (route.streams) {
    answer["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
  }
  made["responses"] = {
      {std::to_string(route.success), std::move(answer)},
      {"default",
       {{"description", "Error"}, {"content", json_content(*proto::ErrorBody::descriptor())}}}};
  return made;
}

std::string document(const Router& router) {
  Json made = {{"openapi", "3.1.0"},
               {"info", {{"title", "Weft"}, {"version", "1"}}},
               {"security", Json::array({Json{{"token", Json::array()}}})},
               {"paths", Json::object()}};
  std::set<const Descriptor*> requests, answers = {proto::ErrorBody::descriptor()};
  for (const Route& route : router.routes()) {
    std::string method = route.method;
    std::transform(method.begin(), method.end(), method.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    made["paths"][route.pattern][method] = operation(route, requests, answers);
  }
  std::string text = made.dump(1);
  text.erase(text.rfind('}'));  // the components follow, which are text already
  return text +
         ",\"components\": {\"securitySchemes\": {\"token\": {\"type\": \"http\", "
         "\"scheme\": \"bearer\"}}, \"schemas\": " +
         component_schemas({requests.begin(), requests.end()}, {answers.begin(), answers.end()}) +
         "}}\n";
}

}  // namespace

void add_openapi_route(Router& router) {
  const auto text = std::make_shared<std::string>();
  Route route;
  route.method = "GET";
  route.pattern = "/api/v1/openapi.json";
  route.summary = "This interface, as an OpenAPI document";
  route.handler = [text](const Request&) -> Result<Response> {
    Response response;
    response.body = *text;
    return response;
  };
  router.add(std::move(route));
  *text = document(router);
}

}  // namespace weft::api
