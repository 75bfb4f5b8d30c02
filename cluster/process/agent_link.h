// A rank's line to its node's agent: Progress over a unix socket. Frames are 4 bytes big-endian
// length and a serialized RankFrame.
//
// Thread safety: every call from any thread; a reader and a writer thread of its own do the
// traffic. Ownership: owns the socket. Invariants: 1. messages are numbered from 1 and kept until
// the coordinator's RankReply says that they are durable. 2. after a reconnect (the agent was
// restarted) everything unacknowledged is sent again, in order, and unanswered chunk requests
// too. 3. a reply that the disk is full or a peer is away makes the message wait and go again; any
// other refusal is final and is what send() and flush() return from then on. 4. only a message that
// was never written changes: metrics join the metrics that wait last in the queue. 5. where a
// thread of its own is refused memory, send() and flush() return that from then on, the other calls
// throw it; the line stays, and what still goes out is why the rank ends (RankFailed).
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "worker/progress.h"

namespace weft {

class AgentLink final : public Progress {
 public:
  // `hello` is sent first on every connection. `now`, where there is one, says once a second what
  // the rank does, on a thread of this object; it outlives it.
  AgentLink(std::string socket_path, proto::RankHello hello,
            std::function<proto::RankNow()> now = {});
  // Asked for the rank's stacks, from now on; on a thread of this object.
  void on_inspect(std::function<proto::RankStack()> inspect);
  // As that, with what is recorded for the request so far; nothing: nothing is.
  void on_trace_now(std::function<std::optional<proto::RankTrace>(uint64_t request)> trace_so_far);
  ~AgentLink() override;

  Status send(proto::RankEnvelope message) override;
  Status flush() override;
  // Like flush, but gives up: false when something was still unacknowledged.
  bool flush_for(double seconds);
  std::optional<proto::Control> take_control() override;
  std::optional<proto::Inspect> take_trace_request() override;
  void send_trace(proto::RankTrace trace) override;
  Status put_chunk(const std::string& hash, std::string_view bytes) override;
  Result<std::string> get_chunk(const std::string& hash) override;

 private:
  struct Request {
    std::string frame;
    std::string_view rest;  // follows it, and is whose it is that asks: chunks are large
    bool sent = false;
    std::promise<proto::RankFrame> answer;
  };
  struct Next {
    std::string frame;  // empty: nothing to write now
    std::string_view rest;
    std::shared_ptr<const Request> request;  // whose it is; null: nobody's who waits for it
  };

  void stop();
  void connect_and_read();
  void read_frames(int fd);
  void take(proto::RankFrame frame);
  void inspect(const proto::Inspect& inspect);
  void post(const proto::RankFrame& frame);
  void take_reply(const proto::RankReply& reply);
  void write_frames();
  void fail(const Status& failure);  // invariant 5; needs mutex_
  void wait_for_work(std::unique_lock<std::mutex>& lock);
  Next next_frame();  // needs mutex_
  // Returns, or throws, only when `rest` is read no more.
  proto::RankFrame ask(uint64_t request, std::string frame, std::string_view rest = {});
  bool joins_last(proto::RankEnvelope& message);
  proto::RankEnvelope addressed(proto::RankEnvelope message) const;
  std::string greeting() const;

  const std::string path_;
  const proto::RankHello hello_;
  const std::string greeting_;  // the hello's frame
  const std::function<proto::RankNow()> now_;

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::deque<proto::RankEnvelope> unacknowledged_;
  uint64_t last_sequence_ = 0;
  uint64_t next_to_write_ = 1;  // sequence
  uint64_t never_written_ = 1;  // sequence: from here on no message was ever on the wire
  std::chrono::steady_clock::time_point write_after_;
  std::chrono::steady_clock::time_point tell_now_at_;
  std::map<uint64_t, std::shared_ptr<Request>> requests_;
  std::shared_ptr<const Request> being_written_;
  uint64_t last_request_ = 0;
  std::deque<proto::Control> controls_;
  std::optional<proto::Inspect> trace_request_;
  std::function<proto::RankStack()> inspect_;
  std::function<std::optional<proto::RankTrace>(uint64_t)> trace_so_far_;
  std::deque<std::string> frames_;  // that are sent once, if they are
  Status refused_, failure_;
  int fd_ = -1;
  bool stopping_ = false;

  std::thread reader_, writer_;
};

}  // namespace weft
