#include "cluster/process/agent_link.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "cluster/process/frame_io.h"
#include "kernels/tensor/pinning.h"
#include "worker/parallel/pending.h"
#include "worker/parallel/refusals.h"

namespace weft {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr auto kRetryConnect = std::chrono::milliseconds(200);
constexpr auto kTellNow = std::chrono::seconds(1);
constexpr auto kRetryRefused = std::chrono::milliseconds(500);
// Beyond it send() waits: the coordinator has been away for long.
constexpr size_t kMessagesMax = 20000;
// Each message costs the coordinator a synced write, so a fast job's metrics must not queue there:
// no more than this many messages are on their way, and the metrics behind them share one.
constexpr uint64_t kInFlightMax = 4;
constexpr int kRecordsMax = 1000;

Code code_of(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    if (code_name(static_cast<Code>(i)) == name) return static_cast<Code>(i);
  }
  return Code::kInternal;
}

Status status_of(const std::string& code, const std::string& message) {
  return code.empty() || code == "ok" ? Status() : Status(code_of(code), message);
}

bool passes(Code code) { return code == Code::kResourceExhausted || code == Code::kUnavailable; }

}  // namespace

AgentLink::AgentLink(std::string socket_path, proto::RankHello hello,
                     std::function<proto::RankNow()> now)
    : path_(std::move(socket_path)),
      hello_(std::move(hello)),
      greeting_(greeting()),
      now_(std::move(now)) {
  reader_ = std::thread([this] { connect_and_read(); });
  try {
    writer_ = std::thread([this] { write_frames(); });
  } catch (...) {
    stop();
    throw;
  }
  ::pthread_setname_np(reader_.native_handle(), "agent reader");
  ::pthread_setname_np(writer_.native_handle(), "agent writer");
}

AgentLink::~AgentLink() { stop(); }

void AgentLink::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
    changed_.notify_all();
  }
  reader_.join();
  if (writer_.joinable()) writer_.join();
  if (fd_ >= 0) ::close(fd_);
}

std::string AgentLink::greeting() const {
  proto::RankFrame frame;
  *frame.mutable_envelope() = addressed({});
  *frame.mutable_envelope()->mutable_hello() = hello_;
  return framed(frame);
}

proto::RankEnvelope AgentLink::addressed(proto::RankEnvelope message) const {
  message.set_job(hello_.job());
  message.set_attempt(hello_.attempt());
  message.set_rank(hello_.rank());
  return message;
}

Status AgentLink::send(proto::RankEnvelope message) {
  std::unique_lock lock(mutex_);
  const bool last_word = message.has_failed();
  const auto lost = [&] { return !refused_.ok() || (!failure_.ok() && !last_word); };
  if (!lost() && joins_last(message)) return {};
  changed_.wait(lock, [&] { return unacknowledged_.size() < kMessagesMax || lost(); });
  if (lost()) return refused_.ok() ? failure_ : refused_;
  message = addressed(std::move(message));
  message.set_sequence(++last_sequence_);
  unacknowledged_.push_back(std::move(message));
  changed_.notify_all();
  return {};
}

bool AgentLink::joins_last(proto::RankEnvelope& message) {
  if (!message.has_metrics() || unacknowledged_.empty()) return false;
  proto::RankEnvelope& last = unacknowledged_.back();
  if (!last.has_metrics() || last.sequence() < never_written_ ||
      last.metrics().records_size() >= kRecordsMax) {
    return false;
  }
  last.mutable_metrics()->MergeFrom(message.metrics());
  return true;
}

Status AgentLink::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return unacknowledged_.empty() || !refused_.ok() || !failure_.ok(); });
  return refused_.ok() ? failure_ : refused_;
}

bool AgentLink::flush_for(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                           [&] { return unacknowledged_.empty() || !refused_.ok(); });
}

std::optional<proto::Control> AgentLink::take_control() {
  const std::lock_guard lock(mutex_);
  if (!failure_.ok()) throw StatusError(failure_);
  if (controls_.empty()) return std::nullopt;
  proto::Control control = controls_.front();
  controls_.pop_front();
  return control;
}

proto::RankFrame AgentLink::ask(uint64_t request, std::string frame, std::string_view rest) {
  auto waiting = std::make_shared<Request>();
  waiting->frame = std::move(frame);
  waiting->rest = rest;
  auto answer = waiting->answer.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) throw StatusError(failure_);
    requests_[request] = waiting;
    changed_.notify_all();
  }
  answer.wait();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return being_written_ != waiting; });
  }
  return answer.get();
}

Status AgentLink::put_chunk(const std::string& hash, std::string_view bytes) {
  proto::RankChunkPut put;
  {
    const std::lock_guard lock(mutex_);
    put.set_request(++last_request_);
  }
  put.mutable_chunk()->set_hash(hash);
  put.mutable_chunk()->set_size(static_cast<int64_t>(bytes.size()));
  const proto::RankFrame answer = ask(put.request(), head_of_chunk(put, bytes.size()), bytes);
  return status_of(answer.chunk_put_result().code(), answer.chunk_put_result().message());
}

Result<std::string> AgentLink::get_chunk(const std::string& hash) {
  proto::RankFrame frame;
  proto::RankChunkGet* get = frame.mutable_chunk_get();
  {
    const std::lock_guard lock(mutex_);
    get->set_request(++last_request_);
  }
  get->set_hash(hash);
  proto::RankFrame answer = ask(get->request(), framed(frame));
  WEFT_RETURN_IF_ERROR(status_of(answer.chunk_data().code(), answer.chunk_data().message()));
  return std::move(*answer.mutable_chunk_data()->mutable_data());
}

void AgentLink::connect_and_read() {
  run_anywhere();
  while (true) {
    const int fd = connect_unix(path_);
    if (fd >= 0 && write_all(fd, greeting_)) {
      {
        const std::lock_guard lock(mutex_);
        if (fd_ >= 0) ::close(fd_);
        fd_ = fd;
        next_to_write_ =
            unacknowledged_.empty() ? last_sequence_ + 1 : unacknowledged_.front().sequence();
        for (auto& [id, request] : requests_) request->sent = false;
        if (stopping_) ::shutdown(fd, SHUT_RDWR);
        changed_.notify_all();
      }
      const Status failure = failure_of([&] { tell_refusals([&] { read_frames(fd); }); });
      if (!failure.ok()) {
        const std::lock_guard lock(mutex_);
        fail(failure.with_prefix("a message from the agent: "));
      }
    } else if (fd >= 0) {
      ::close(fd);
    }
    std::unique_lock lock(mutex_);
    if (fd_ >= 0) {
      ::close(fd_);
      fd_ = -1;
    }
    changed_.wait_for(lock, kRetryConnect, [&] { return stopping_; });
    if (stopping_) return;
  }
}

void AgentLink::read_frames(int fd) {
  while (auto bytes = read_frame(fd)) {
    proto::RankFrame frame;
    if (!frame.ParseFromString(*bytes)) return;
    take(std::move(frame));
  }
}

void AgentLink::on_inspect(std::function<proto::RankStack()> inspect) {
  const std::lock_guard lock(mutex_);
  inspect_ = std::move(inspect);
}

void AgentLink::on_trace_now(
    std::function<std::optional<proto::RankTrace>(uint64_t)> trace_so_far) {
  const std::lock_guard lock(mutex_);
  trace_so_far_ = std::move(trace_so_far);
}

std::optional<proto::Inspect> AgentLink::take_trace_request() {
  const std::lock_guard lock(mutex_);
  return std::exchange(trace_request_, std::nullopt);
}

void AgentLink::send_trace(proto::RankTrace trace) {
  proto::RankFrame frame;
  frame.mutable_trace()->Swap(&trace);
  post(frame);
}

void AgentLink::post(const proto::RankFrame& frame) {
  std::string bytes = framed(frame);
  const std::lock_guard lock(mutex_);
  frames_.push_back(std::move(bytes));
  changed_.notify_all();
}

void AgentLink::inspect(const proto::Inspect& inspect) {
  std::function<proto::RankStack()> answer;
  std::function<std::optional<proto::RankTrace>(uint64_t)> trace_so_far;
  {
    const std::lock_guard lock(mutex_);
    if (inspect.trace_now()) {
      trace_so_far = trace_so_far_;
    } else if (inspect.trace_steps() > 0) {
      trace_request_ = inspect;
    } else {
      answer = inspect_;
    }
  }
  if (trace_so_far) {
    if (auto trace = trace_so_far(inspect.request())) send_trace(std::move(*trace));
  }
  if (!answer) return;
  proto::RankFrame frame;
  frame.mutable_inspected()->set_request(inspect.request());
  *frame.mutable_inspected()->mutable_stack() = answer();
  post(frame);
}

void AgentLink::take(proto::RankFrame frame) {
  if (frame.has_inspect()) return inspect(frame.inspect());
  uint64_t request = 0;
  const std::lock_guard lock(mutex_);
  switch (frame.body_case()) {
    case proto::RankFrame::kReply:
      take_reply(frame.reply());
      break;
    case proto::RankFrame::kControl:
      controls_.push_back(frame.control());
      break;
    case proto::RankFrame::kChunkPutResult:
      request = frame.chunk_put_result().request();
      break;
    case proto::RankFrame::kChunkData:
      request = frame.chunk_data().request();
      break;
    default:
      break;
  }
  if (const auto found = requests_.find(request); request != 0 && found != requests_.end()) {
    found->second->answer.set_value(std::move(frame));
    requests_.erase(found);
  }
  changed_.notify_all();
}

void AgentLink::take_reply(const proto::RankReply& reply) {
  const Status status = status_of(reply.code(), reply.message());
  if (!status.ok() && passes(status.code())) {
    write_after_ = SteadyClock::now() + kRetryRefused;
    next_to_write_ = std::min(next_to_write_, reply.sequence());
    return;
  }
  if (!status.ok() && refused_.ok()) refused_ = status;
  std::erase_if(unacknowledged_, [&](const proto::RankEnvelope& message) {
    return message.sequence() == reply.sequence();
  });
}

AgentLink::Next AgentLink::next_frame() {
  if (fd_ < 0) return {};
  for (auto& [id, request] : requests_) {
    if (!request->sent) {
      request->sent = true;
      return {request->frame, request->rest, request};
    }
  }
  const auto now = SteadyClock::now();
  if (now_ && now >= tell_now_at_) {
    tell_now_at_ = now + kTellNow;
    proto::RankFrame frame;
    *frame.mutable_now() = now_();
    return {framed(frame), {}, {}};
  }
  if (!frames_.empty()) {
    std::string frame = std::move(frames_.front());
    frames_.pop_front();
    return {std::move(frame), {}, {}};
  }
  if (now < write_after_) return {};
  const auto next = std::lower_bound(unacknowledged_.begin(), unacknowledged_.end(), next_to_write_,
                                     [](const proto::RankEnvelope& message, uint64_t sequence) {
                                       return message.sequence() < sequence;
                                     });
  if (next == unacknowledged_.end()) return {};
  if (next->sequence() >= unacknowledged_.front().sequence() + kInFlightMax) return {};
  next_to_write_ = next->sequence() + 1;
  never_written_ = std::max(never_written_, next_to_write_);
  proto::RankFrame frame;
  *frame.mutable_envelope() = *next;
  return {framed(frame), {}, {}};
}

void AgentLink::wait_for_work(std::unique_lock<std::mutex>& lock) {
  auto until = SteadyClock::time_point::max();
  if (fd_ >= 0 && now_) until = tell_now_at_;
  if (SteadyClock::now() < write_after_) until = std::min(until, write_after_);
  if (until == SteadyClock::time_point::max()) {
    changed_.wait(lock);
  } else {
    changed_.wait_until(lock, until);
  }
}

void AgentLink::fail(const Status& failure) {
  if (failure_.ok()) failure_ = failure;
  for (auto& [id, request] : requests_) {
    request->answer.set_exception(std::make_exception_ptr(StatusError(failure_)));
  }
  requests_.clear();
  // Ends what is being written; it goes out on the next connection.
  if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
  changed_.notify_all();
}

void AgentLink::write_frames() {
  run_anywhere();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    Next next;
    const Status failure = failure_of([&] { tell_refusals([&] { next = next_frame(); }); });
    if (!failure.ok()) {
      fail(failure.with_prefix("a message to the agent: "));
      changed_.wait_for(lock, kRetryConnect, [&] { return stopping_; });
      continue;
    }
    if (next.frame.empty()) {
      wait_for_work(lock);
      continue;
    }
    const int fd = ::dup(fd_);  // the reader may close its own meanwhile
    being_written_ = next.request;
    lock.unlock();
    if (!write_all(fd, next.frame) || !write_all(fd, next.rest)) ::shutdown(fd, SHUT_RDWR);
    ::close(fd);
    lock.lock();
    being_written_.reset();
    changed_.notify_all();
  }
}

}  // namespace weft
