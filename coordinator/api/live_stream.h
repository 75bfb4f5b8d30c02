// What the live streams (server-sent events) of a job have in common: waiting for a wake-up of the
// service, the form of an event, and the end once the job is finished.
//
// Thread safety: a stream is read by one thread at a time; wake-ups may come from any thread.
// Ownership: a stream owns its subscription; the service outlives it.
// Invariants: 1. An event's `id` is where to go on after it, so that Last-Event-ID resumes without
// gap or repeat. 2. Data is read again from the store for each piece: a slow reader holds
// nothing. 3. The last event is `end`, sent once the job is finished and everything it told has
// been sent.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "coordinator/api/http_types.h"
#include "coordinator/service.h"

namespace google::protobuf {
class Message;
}

namespace weft::api {

// "id: ...\nevent: ...\ndata: {...}\n\n"
void append_event(std::string& out, const std::string& id, std::string_view type,
                  const google::protobuf::Message& data);

bool is_finished(proto::JobState state);

class LiveStream : public BodyStream {
 public:
  LiveStream(Service& service, std::string job, unsigned topics);
  Result<Next> read(std::string& out) final;
  std::string heartbeat() const final { return ": heartbeat\n\n"; }

 protected:
  // Appends what is new, within one page; tells whether more is there already.
  virtual Result<bool> read_new(std::string& out) = 0;
  // Called once the job is finished and read_new found nothing more.
  virtual bool complete() { return true; }

  Service& service_;
  const std::string job_;
  int32_t attempt_ = 0;  // the job's current attempt, as of the last read

 private:
  std::shared_ptr<std::atomic<bool>> woken_;
  std::unique_ptr<Subscription> subscription_;
  int quiet_reads_ = 0;
};

// Answers `request` with the stream. A job that does not exist is not_found at once.
Result<Response> stream_response(Service& service, const Request& request,
                                 std::unique_ptr<LiveStream> stream);

// Where a stream starts: Last-Event-ID, else ?after=, else 0.
Result<int64_t> stream_start(const Request& request);

}  // namespace weft::api
