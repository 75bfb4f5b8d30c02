#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <memory>
#include <utility>

#include "coordinator/api/api.h"
#include "coordinator/api/export.h"
#include "coordinator/api/json_body.h"
#include "coordinator/api/live_stream.h"
#include "proto/api.pb.h"

namespace weft::api {
namespace {

// Checkpoints are ordered by time and id; a place among them outlives the removal of old ones.
using Place = std::pair<int64_t, std::string>;

Place place_of(const proto::CheckpointManifest& manifest) {
  return {manifest.created_ms(), manifest.id()};
}
std::string place_text(const Place& place) {
  return place.second.empty() ? "" : fmt::format("{}.{}", place.first, place.second);
}
Result<Place> parse_place(const std::string& field, const std::string& text) {
  if (text.empty()) return Place{-1, ""};
  Place place;
  const char* end = text.data() + text.size();
  const auto [dot, error] = std::from_chars(text.data(), end, place.first);
  if (error != std::errc() || dot == end || *dot != '.') {
    return fail(Status::invalid(field, text, "must be the `next` of a page of checkpoints"));
  }
  place.second.assign(dot + 1, end);
  return place;
}

// `job` empty: of all jobs.
Result<std::vector<proto::CheckpointManifest>> find_all(Service& service, const std::string& job) {
  if (!job.empty()) return service.checkpoints(job);
  std::vector<proto::CheckpointManifest> all;
  JobFilter filter;
  filter.limit = kPageLimitMax;
  do {
    WEFT_ASSIGN_OR_RETURN(const JobPage page, service.jobs(filter));
    for (const proto::Job& one : page.jobs) {
      auto some = service.checkpoints(one.id());
      if (!some) continue;  // deleted meanwhile
      all.insert(all.end(), std::make_move_iterator(some->begin()),
                 std::make_move_iterator(some->end()));
    }
    filter.after = page.next;
  } while (!filter.after.empty());
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return place_of(a) < place_of(b); });
  return all;
}

Result<proto::CheckpointPage> read_page(Service& service, const std::string& job, Place after,
                                        int64_t limit) {
  WEFT_ASSIGN_OR_RETURN(auto all, find_all(service, job));
  proto::CheckpointPage page;
  for (proto::CheckpointManifest& manifest : all) {
    if (place_of(manifest) <= after) continue;
    if (page.checkpoints_size() == limit) {
      page.set_more(true);
      break;
    }
    *page.add_checkpoints() = std::move(manifest);
  }
  if (page.checkpoints_size() > 0) {
    after = place_of(page.checkpoints(page.checkpoints_size() - 1));
  }
  page.set_next(place_text(after));
  return page;
}

class CheckpointStream final : public LiveStream {
 public:
  CheckpointStream(Service& service, const std::string& job, Place after)
      : LiveStream(service, job, kWatchCheckpoints), after_(std::move(after)) {}

 private:
  Result<bool> read_new(std::string& out) override {
    WEFT_ASSIGN_OR_RETURN(const proto::CheckpointPage page,
                          read_page(service_, job_, after_, kPageLimitDefault));
    for (const proto::CheckpointManifest& manifest : page.checkpoints()) {
      after_ = place_of(manifest);
      append_event(out, place_text(after_), "checkpoint", manifest);
    }
    return page.more();
  }
  Place after_;
};

Result<Response> list(Service& service, const Request& request, const std::string& job) {
  const std::string* last = request.header("last-event-id");
  WEFT_ASSIGN_OR_RETURN(Place after, last != nullptr
                                         ? parse_place("Last-Event-ID", *last)
                                         : parse_place("after", query_text(request, "after")));
  if (request.wants_events() && find_value(request.parameters, "id") != nullptr) {
    return stream_response(service, request,
                           std::make_unique<CheckpointStream>(service, job, std::move(after)));
  }
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kPageLimitDefault, 1, kPageLimitMax));
  WEFT_ASSIGN_OR_RETURN(const proto::CheckpointPage page, read_page(service, job, after, limit));
  return json_response(page);
}

using ManifestPointer = std::shared_ptr<const proto::CheckpointManifest>;

Result<Export> wanted_export(const Request& request, const proto::CheckpointManifest& manifest) {
  const std::string adapter = query_text(request, "adapter");
  if (!adapter.empty() && adapter != "true" && adapter != "false") {
    return fail(Status::invalid("adapter", adapter, "must be true or false"));
  }
  return make_export(manifest, query_text(request, "task"), adapter == "true");
}

Result<Response> files(Service& service, const Request& request) {
  WEFT_ASSIGN_OR_RETURN(const ManifestPointer manifest,
                        service.read_checkpoint(request.parameter("id")));
  WEFT_ASSIGN_OR_RETURN(const Export exported, wanted_export(request, *manifest));
  proto::ExportFileList body;
  body.set_checkpoint(manifest->id());
  body.set_task(exported.task);
  for (const ExportedFile& file : exported.files) {
    proto::ExportFile& entry = *body.add_files();
    entry.set_name(file.name);
    entry.set_size(file.bytes);
  }
  return json_response(body);
}

class FileStream final : public BodyStream {
 public:
  FileStream(Service& service, ManifestPointer manifest, const ExportedFile& file)
      : manifest_(std::move(manifest)),
        reader_(file, [&service](const std::string& hash) { return service.get_chunk(hash); }) {}
  Result<Next> read(std::string& out) override {
    WEFT_ASSIGN_OR_RETURN(const bool more, reader_.read(out));
    return more ? Next::kMore : Next::kEnd;
  }

 private:
  const ManifestPointer manifest_;  // keeps the chunks
  ExportReader reader_;
};

Result<Response> file(Service& service, const Request& request, const std::string& name) {
  WEFT_ASSIGN_OR_RETURN(const ManifestPointer manifest,
                        service.read_checkpoint(request.parameter("id")));
  WEFT_ASSIGN_OR_RETURN(const Export exported, wanted_export(request, *manifest));
  for (const ExportedFile& candidate : exported.files) {
    if (candidate.name != name) continue;
    Response response;
    response.content_type = "application/octet-stream";
    response.stream = std::make_unique<FileStream>(service, manifest, candidate);
    response.stream_bytes = candidate.bytes;
    return response;
  }
  return fail(Status(Code::kNotFound, fmt::format("checkpoint {} has no file of this name; "
                                                  "GET .../files lists them",
                                                  manifest->id()))
                  .with_field("name")
                  .with_value(name));
}

Route get(const std::string& pattern, const std::string& summary,
          const google::protobuf::Descriptor* response) {
  Route route;
  route.method = "GET";
  route.pattern = pattern;
  route.summary = summary;
  route.response = response;
  return route;
}

void add_file_routes(Router& router, Service& service) {
  const QueryParameter task = {"task",
                               "whose head stands in the files; default: the first "
                               "causal_lm or masked_lm task, else the first"};
  const QueryParameter adapter = {"adapter",
                                  "true: the adapter alone, as a PEFT folder; default: "
                                  "false, merged into the model's weights"};
  Route names = get("/api/v1/checkpoints/{id}/files",
                    "The files of a checkpoint's export in Hugging Face form",
                    proto::ExportFileList::descriptor());
  names.query = {task, adapter};
  names.handler = [&service](const Request& request) { return files(service, request); };
  router.add(std::move(names));

  Route content = get("/api/v1/checkpoints/{id}/files/{name}", "One exported file", nullptr);
  content.query = {task, adapter};
  content.response_type = "application/octet-stream";
  Route inner = content;
  inner.pattern = "/api/v1/checkpoints/{id}/files/{folder}/{name}";
  inner.summary = "One exported file of a folder, as 1_Pooling/config.json of an embedding";
  content.handler = [&service](const Request& request) {
    return file(service, request, request.parameter("name"));
  };
  inner.handler = [&service](const Request& request) {
    return file(service, request, request.parameter("folder") + "/" + request.parameter("name"));
  };
  router.add(std::move(inner));
  router.add(std::move(content));
}

}  // namespace

void add_checkpoint_routes(Router& router, Service& service) {
  const QueryParameter after = {"after", "`next` of the page before"};
  const QueryParameter limit = {"limit", "items a page, 1 to 1000, default 100"};

  Route of_job = get("/api/v1/jobs/{id}/checkpoints", "A job's checkpoints, oldest first",
                     proto::CheckpointPage::descriptor());
  of_job.query = {after, limit};
  of_job.streams = true;
  of_job.handler = [&service](const Request& request) {
    return list(service, request, request.parameter("id"));
  };
  router.add(std::move(of_job));

  Route all =
      get("/api/v1/checkpoints", "Checkpoints, oldest first", proto::CheckpointPage::descriptor());
  all.query = {{"job", "only this job's"}, after, limit};
  all.handler = [&service](const Request& request) {
    return list(service, request, query_text(request, "job"));
  };
  router.add(std::move(all));

  Route show = get("/api/v1/checkpoints/{id}", "A checkpoint's manifest with every tensor's chunks",
                   proto::CheckpointManifest::descriptor());
  show.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_ASSIGN_OR_RETURN(const proto::CheckpointManifest manifest,
                          service.checkpoint(request.parameter("id")));
    return json_response(manifest);
  };
  router.add(std::move(show));

  Route remove;
  remove.method = "DELETE";
  remove.pattern = "/api/v1/checkpoints/{id}";
  remove.summary = "Delete a checkpoint that no unfinished job needs";
  remove.success = 204;
  remove.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_RETURN_IF_ERROR(service.remove_checkpoint(request.parameter("id")));
    return empty_response();
  };
  router.add(std::move(remove));
  add_file_routes(router, service);
}

}  // namespace weft::api
