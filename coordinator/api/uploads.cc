#include "coordinator/api/api.h"
#include "coordinator/api/json_body.h"
#include "coordinator/service.h"
#include "proto/api.pb.h"
#include "proto/base/hash.h"

namespace weft::api {
namespace {

constexpr size_t kChunkBytes = size_t{4} << 20;
constexpr int kHashesMax = 100000;

Result<Response> missing(Service& service, const Request& request) {
  proto::ChunkHashes asked;
  WEFT_RETURN_IF_ERROR(read_body(request, asked));
  if (asked.hashes_size() > kHashesMax) {
    return fail(Status::invalid("hashes", std::to_string(asked.hashes_size()) + " of them",
                                "must be at most 100000 a request"));
  }
  for (int i = 0; i < asked.hashes_size(); ++i) {
    if (!is_sha256_hex(asked.hashes(i))) {
      return fail(Status::invalid("hashes[" + std::to_string(i) + "]", asked.hashes(i),
                                  "must be 64 lower-case hexadecimal digits"));
    }
  }
  WEFT_ASSIGN_OR_RETURN(std::vector<std::string> absent,
                        service.missing_chunks({asked.hashes().begin(), asked.hashes().end()}));
  proto::ChunkHashes answer;
  for (std::string& hash : absent) answer.add_hashes(std::move(hash));
  return json_response(answer);
}

Result<Response> put_chunk(Service& service, const Request& request) {
  const std::string& hash = request.parameter("sha256");
  if (!is_sha256_hex(hash)) {
    return fail(Status::invalid("sha256", hash, "must be 64 lower-case hexadecimal digits"));
  }
  if (request.body.size() > kChunkBytes) {
    Response large =
        error_response(Status::invalid("body", std::to_string(request.body.size()) + " bytes",
                                       "must have at most 4 MiB, as every chunk"),
                       request.request_id, 413, "body_too_large");
    return large;
  }
  if (sha256_hex(request.body) != hash) {
    return fail(Status::invalid("sha256", hash, "must be the SHA-256 of the body"));
  }
  WEFT_RETURN_IF_ERROR(service.put_chunk(hash, request.body));
  return empty_response();
}

Result<Response> put_object(Service& service, const Request& request) {
  proto::ObjectManifest manifest;
  WEFT_RETURN_IF_ERROR(read_body(request, manifest));
  WEFT_ASSIGN_OR_RETURN(proto::ObjectManifest stored, service.put_object(std::move(manifest)));
  return json_response(stored, 201);
}

}  // namespace

void add_upload_routes(Router& router, Service& service) {
  Route ask;
  ask.method = "POST";
  ask.pattern = "/api/v1/chunks/missing";
  ask.summary = "Which of these chunks are not stored yet";
  ask.body = BodyKind::kJson;
  ask.request = ask.response = proto::ChunkHashes::descriptor();
  ask.handler = [&service](const Request& request) { return missing(service, request); };
  router.add(std::move(ask));

  Route chunk;
  chunk.method = "PUT";
  chunk.pattern = "/api/v1/chunks/{sha256}";
  chunk.summary = "Store a chunk of at most 4 MiB; repeating it is free";
  chunk.body = BodyKind::kBytes;
  chunk.success = 204;
  chunk.handler = [&service](const Request& request) { return put_chunk(service, request); };
  router.add(std::move(chunk));

  Route object;
  object.method = "POST";
  object.pattern = "/api/v1/objects";
  object.summary = "Make an object of chunks that are stored; the same content has the same id";
  object.body = BodyKind::kJson;
  object.request = object.response = proto::ObjectManifest::descriptor();
  object.success = 201;
  object.handler = [&service](const Request& request) { return put_object(service, request); };
  router.add(std::move(object));

  Route show;
  show.method = "GET";
  show.pattern = "/api/v1/objects/{id}";
  show.summary = "An object's files and their chunks";
  show.response = proto::ObjectManifest::descriptor();
  show.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_ASSIGN_OR_RETURN(proto::ObjectManifest manifest, service.object(request.parameter("id")));
    return json_response(manifest);
  };
  router.add(std::move(show));
}

}  // namespace weft::api
