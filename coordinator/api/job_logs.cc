#include "coordinator/api/job_logs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "coordinator/api/json_body.h"
#include "coordinator/api/live_stream.h"
#include "proto/api.pb.h"
#include "proto/json/utf8.h"

namespace weft::api {
namespace {

constexpr int64_t kSliceDefault = 64 << 10;

// Bytes of `data` without a UTF-8 sequence that its end cuts; all of them where it is not cut.
size_t whole_characters(std::string_view data) {
  for (size_t back = 1; back <= 3 && back <= data.size(); ++back) {
    const auto byte = static_cast<unsigned char>(data[data.size() - back]);
    if ((byte & 0xc0) == 0x80) continue;
    const size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? data.size() - back : data.size();
  }
  return data.size();
}

proto::LogPage make_page(const LogSlice& slice) {
  const bool last = slice.complete && slice.next >= slice.bytes;
  const size_t size = last ? slice.data.size() : whole_characters(slice.data);
  proto::LogPage page;
  std::string text;
  for (size_t i = 0; i < size;) {  // protobuf strings must be valid UTF-8
    const std::string_view rest = std::string_view(slice.data).substr(i, size - i);
    const size_t n = utf8_sequence_bytes(rest);
    text += n == 0 ? std::string_view("\xef\xbf\xbd") : rest.substr(0, n);
    i += std::max<size_t>(n, 1);
  }
  page.set_text(std::move(text));
  page.set_attempt(slice.attempt);
  page.set_rank(slice.rank);
  page.set_offset(slice.offset);
  page.set_next(slice.offset + static_cast<int64_t>(size));
  page.set_bytes(slice.bytes);
  page.set_complete(slice.complete);
  return page;
}

struct LogPlace {
  int32_t attempt = 0;  // 0: the current one, and on to later ones
  int64_t offset = 0;
};

// "2:1234", as written in a stream's ids.
Result<LogPlace> parse_place(const std::string& text) {
  LogPlace place;
  const char* end = text.data() + text.size();
  const auto [colon, first] = std::from_chars(text.data(), end, place.attempt);
  if (first == std::errc() && colon != end && *colon == ':') {
    const auto [stop, second] = std::from_chars(colon + 1, end, place.offset);
    if (second == std::errc() && stop == end && place.attempt >= 0 && place.offset >= 0) {
      return place;
    }
  }
  return fail(Status::invalid("Last-Event-ID", text, "must be the id of an event of this stream"));
}

class LogFollow final : public LiveStream {
 public:
  LogFollow(Service& service, const std::string& job, LogPlace place, int32_t rank, bool go_on)
      : LiveStream(service, job, kWatchLogs), place_(place), rank_(rank), go_on_(go_on) {}

 private:
  Result<bool> read_new(std::string& out) override {
    done_ = false;
    if (place_.attempt == 0) place_.attempt = attempt_;
    if (place_.attempt == 0) return false;  // not started yet
    Result<LogSlice> slice =
        service_.logs(job_, place_.attempt, rank_, place_.offset, kSliceDefault);
    if (!slice && slice.error().code() == Code::kNotFound) {  // this rank wrote nothing yet
      done_ = true;
      return next_attempt();
    }
    if (!slice) return fail(slice.error());
    const proto::LogPage page = make_page(*slice);
    if (page.next() > page.offset()) {
      append_event(out, fmt::format("{}:{}", place_.attempt, page.next()), "log", page);
      place_.offset = page.next();
    }
    if (place_.offset < slice->bytes) return page.next() > page.offset();
    done_ = slice->complete;
    return done_ && next_attempt();
  }
  // A job's last lines may arrive just after its end: look once more, about 2 s later.
  bool complete() override { return done_ && ++looks_after_end_ > 1; }

  bool next_attempt() {
    if (!go_on_ || place_.attempt >= attempt_) return false;
    ++place_.attempt;
    place_.offset = 0;
    return true;
  }

  LogPlace place_;
  const int32_t rank_;
  const bool go_on_;
  bool done_ = false;
  int looks_after_end_ = 0;
};

Result<Response> logs(Service& service, const Request& request) {
  const std::string& job = request.parameter("id");
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  WEFT_ASSIGN_OR_RETURN(const int64_t attempt, query_int(request, "attempt", 0, 0, 1 << 30));
  WEFT_ASSIGN_OR_RETURN(const int64_t rank, query_int(request, "rank", 0, -1, 1 << 30));
  WEFT_ASSIGN_OR_RETURN(const int64_t offset, query_int(request, "offset", 0, 0, kMax));
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kSliceDefault, 4, kLogSliceBytesMax));
  LogPlace place{static_cast<int32_t>(attempt), offset};
  if (request.wants_events()) {
    if (const std::string* last = request.header("last-event-id")) {
      WEFT_ASSIGN_OR_RETURN(place, parse_place(*last));
    }
    // A rank or attempt that cannot be is an error before the stream begins.
    WEFT_ASSIGN_OR_RETURN([[maybe_unused]] const LogSlice first,
                          service.logs(job, place.attempt, static_cast<int32_t>(rank), 0, 1));
    return stream_response(
        service, request,
        std::make_unique<LogFollow>(service, job, place, static_cast<int32_t>(rank), attempt == 0));
  }
  WEFT_ASSIGN_OR_RETURN(
      const LogSlice slice,
      service.logs(job, place.attempt, static_cast<int32_t>(rank), offset, limit));
  return json_response(make_page(slice));
}

// A page's place among the logs: attempt and rank, as in "2.-1".
using SourcePlace = std::pair<int32_t, int32_t>;

Result<SourcePlace> parse_source_place(const std::string& text) {
  SourcePlace place{0, 0};
  if (text.empty()) return place;
  const char* end = text.data() + text.size();
  const auto [dot, error] = std::from_chars(text.data(), end, place.first);
  if (error == std::errc() && dot != end && *dot == '.') {
    const auto [last, problem] = std::from_chars(dot + 1, end, place.second);
    if (problem == std::errc() && last == end) return place;
  }
  return fail(Status::invalid("after", text, "must be the `next` of a page of sources"));
}

Result<Response> log_sources(Service& service, const Request& request) {
  const std::string text = query_text(request, "after");
  WEFT_ASSIGN_OR_RETURN(const SourcePlace after, parse_source_place(text));
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kPageLimitDefault, 1, kPageLimitMax));
  WEFT_ASSIGN_OR_RETURN(const std::vector<LogStream> streams,
                        service.log_streams(request.parameter("id")));
  proto::LogSourceList page;
  page.set_next(text);
  for (const LogStream& stream : streams) {
    if (SourcePlace{stream.attempt, stream.rank} <= after) continue;
    if (page.sources_size() == limit) {
      page.set_more(true);
      break;
    }
    proto::LogSource& source = *page.add_sources();
    source.set_attempt(stream.attempt);
    source.set_rank(stream.rank);
    source.set_bytes(stream.bytes);
    page.set_next(fmt::format("{}.{}", stream.attempt, stream.rank));
  }
  return json_response(page);
}

}  // namespace

void add_log_routes(Router& router, Service& service) {
  Route text;
  text.method = "GET";
  text.pattern = "/api/v1/jobs/{id}/logs";
  text.summary = "What one rank of one attempt wrote";
  text.query = {{"attempt", "default 0: the current one; a stream then goes on to later ones"},
                {"rank", "default 0; -1: the launcher"},
                {"offset", "byte to start at"},
                {"limit", "bytes a page, 4 to 1048576, default 65536"}};
  text.response = proto::LogPage::descriptor();
  text.streams = true;
  text.handler = [&service](const Request& request) { return logs(service, request); };
  router.add(std::move(text));

  Route sources;
  sources.method = "GET";
  sources.pattern = "/api/v1/jobs/{id}/logs/sources";
  sources.summary = "Which attempts and ranks have logs";
  sources.query = {{"after", "`next` of the page before"},
                   {"limit", "items a page, 1 to 1000, default 100"}};
  sources.response = proto::LogSourceList::descriptor();
  sources.handler = [&service](const Request& request) { return log_sources(service, request); };
  router.add(std::move(sources));
}

}  // namespace weft::api
