#include "coordinator/api/live_stream.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "proto/json/message_json.h"

namespace weft::api {
namespace {
// Reads that a stream leaves out while nothing wakes it; then it looks all the same (about 2 s),
// which finds a job that was deleted.
constexpr int kQuietReadsMax = 40;
}  // namespace

void append_event(std::string& out, const std::string& id, std::string_view type,
                  const google::protobuf::Message& data) {
  if (!id.empty()) out += "id: " + id + "\n";
  out += fmt::format("event: {}\ndata: {}\n\n", type, write_json(data));
}

bool is_finished(proto::JobState state) {
  return state == proto::JOB_STATE_SUCCEEDED || state == proto::JOB_STATE_FAILED ||
         state == proto::JOB_STATE_CANCELLED;
}

LiveStream::LiveStream(Service& service, std::string job, unsigned topics)
    : service_(service),
      job_(std::move(job)),
      woken_(std::make_shared<std::atomic<bool>>(true)),
      subscription_(service.watch(job_, topics | kWatchJob, [woken = woken_] { *woken = true; })) {}

Result<BodyStream::Next> LiveStream::read(std::string& out) {
  if (!woken_->exchange(false) && ++quiet_reads_ < kQuietReadsMax) return Next::kWait;
  quiet_reads_ = 0;
  const Result<proto::Job> job = service_.job(job_);
  if (!job) {
    if (job.error().code() != Code::kNotFound) return fail(job.error());
    out += "event: end\ndata: {\"state\":\"deleted\"}\n\n";
    return Next::kEnd;
  }
  attempt_ = job->attempt();
  WEFT_ASSIGN_OR_RETURN(const bool more, read_new(out));
  if (more) {
    *woken_ = true;
    return Next::kMore;
  }
  if (is_finished(job->state()) && complete()) {
    append_event(out, "", "end", *job);
    return Next::kEnd;
  }
  return Next::kWait;
}

Result<Response> stream_response(Service& service, const Request& request,
                                 std::unique_ptr<LiveStream> stream) {
  WEFT_ASSIGN_OR_RETURN([[maybe_unused]] const proto::Job job,
                        service.job(request.parameter("id")));
  Response response;
  response.content_type = "text/event-stream";
  response.stream = std::move(stream);
  return response;
}

Result<int64_t> stream_start(const Request& request) {
  const std::string* text = request.header("last-event-id");
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  if (text == nullptr) return query_int(request, "after", 0, 0, kMax);
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || stop != text->data() + text->size() || value < 0) {
    return fail(
        Status::invalid("Last-Event-ID", *text, "must be the id of an event of this stream"));
  }
  return value;
}

}  // namespace weft::api
