#include "cluster/agent/chunk_exchange.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "proto/base/hash.h"

namespace weft {
namespace asio = boost::asio;

namespace {
Code code_named(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    if (code_name(static_cast<Code>(i)) == name) return static_cast<Code>(i);
  }
  return Code::kInternal;
}
}  // namespace

ChunkExchange::ChunkExchange(asio::io_context& io, ChunkStore& store, int64_t cache_bytes,
                             Send send)
    : io_(io), store_(store), cache_bytes_(cache_bytes), send_(std::move(send)) {
  (void)store_.for_each([this](const std::string& hash, int64_t) { oldest_.push_back(hash); });
}

ChunkExchange::~ChunkExchange() { threads_.join(); }

// Both stores write at once. The coordinator's checks the bytes, and a chunk that it refuses goes.
void ChunkExchange::put(const proto::AttemptRef& by, const std::string& hash, std::string bytes,
                        std::function<void(Status)> done) {
  if (stopped_) return done(Status(Code::kCancelled, "the agent ends"));
  const uint64_t request = ++last_request_;
  auto frame = std::make_shared<proto::NodeFrame>();
  frame->mutable_chunk_put()->set_request(request);
  *frame->mutable_chunk_put()->mutable_attempt() = by;
  frame->mutable_chunk_put()->set_hash(hash);
  frame->mutable_chunk_put()->set_data(std::move(bytes));
  puts_[request] = {frame, std::move(done)};
  send_(*frame);
  asio::post(threads_, [this, request, frame] {
    const proto::ChunkPut& chunk = frame->chunk_put();
    Status status = store_.put_unchecked(chunk.hash(), chunk.data());
    asio::post(io_, [this, request, frame, status = std::move(status)] {
      if (status.ok()) oldest_.push_back(frame->chunk_put().hash());
      make_room();
      took_part(request, &Put::here, status);
    });
  });
}

void ChunkExchange::took_part(uint64_t request, std::optional<Status> Put::*part,
                              const Status& status) {
  const auto found = puts_.find(request);
  if (found == puts_.end()) return;
  found->second.*part = status;
  if (!found->second.here || !found->second.there) return;
  const Put put = std::move(found->second);
  puts_.erase(found);
  if (put.there->code() == Code::kInvalidArgument) {
    asio::post(threads_,
               [this, frame = put.frame] { (void)store_.remove({frame->chunk_put().hash()}); });
  }
  put.done(put.there->ok() ? *put.here : *put.there);
}

void ChunkExchange::get(const std::string& hash, GotChunk done) {
  asio::post(threads_, [this, hash, done = std::move(done)]() mutable {
    auto bytes = store_.get(hash);
    asio::post(io_, [this, hash, done = std::move(done), bytes = std::move(bytes)]() mutable {
      if (bytes) return done(std::move(bytes));
      ask(hash, std::move(done));
    });
  });
}

void ChunkExchange::ask(const std::string& hash, GotChunk done) {
  if (stopped_) return done(fail(Code::kCancelled, "the agent ends"));
  auto& get = gets_[hash];
  get.waiting.push_back(std::move(done));
  if (get.waiting.size() > 1) return;
  get.request = ++last_request_;
  proto::NodeFrame frame;
  frame.mutable_chunk_get()->set_request(get.request);
  frame.mutable_chunk_get()->set_hash(hash);
  send_(frame);
}

Result<std::string> ChunkExchange::get_blocking(const std::string& hash) {
  const auto answer = std::make_shared<std::promise<Result<std::string>>>();
  auto future = answer->get_future();
  {
    const std::lock_guard lock(blocked_mutex_);
    if (ended_) return fail(Code::kCancelled, "the agent ends");
    blocked_.insert(answer);
  }
  asio::post(io_, [this, hash, answer] {
    get(hash, [this, answer](Result<std::string> bytes) { give(answer, std::move(bytes)); });
  });
  return future.get();
}

void ChunkExchange::give(const Answer& answer, Result<std::string> bytes) {
  const std::lock_guard lock(blocked_mutex_);
  if (blocked_.erase(answer) > 0) answer->set_value(std::move(bytes));
}

void ChunkExchange::take(const proto::ChunkPutResult& result) {
  took_part(result.request(), &Put::there,
            result.stored() ? Status() : Status(code_named(result.code()), result.message()));
}

void ChunkExchange::take(proto::ChunkData data) {
  const auto found = gets_.find(data.hash());
  if (found == gets_.end() || found->second.request != data.request()) return;
  auto waiting = std::move(found->second.waiting);
  gets_.erase(found);
  if (!data.found()) {
    for (auto& done : waiting) {
      done(fail(Code::kNotFound, "the coordinator has no chunk " + data.hash()));
    }
    return;
  }
  auto shared = std::make_shared<proto::ChunkData>(std::move(data));
  asio::post(threads_, [this, shared, waiting = std::move(waiting)]() mutable {
    const bool good = sha256_hex(shared->data()) == shared->hash();
    // A full disk does not keep the bytes from those who wait for them.
    const bool kept = good && store_.put_unchecked(shared->hash(), shared->data()).ok();
    asio::post(io_, [this, shared, good, kept, waiting = std::move(waiting)] {
      if (kept) oldest_.push_back(shared->hash());
      make_room();
      for (const auto& done : waiting) {
        if (good) {
          done(shared->data());
        } else {
          done(fail(Code::kCorruption, "chunk " + shared->hash() + " came with other bytes"));
        }
      }
    });
  });
}

void ChunkExchange::send_again() {
  for (const auto& [request, put] : puts_) {
    if (!put.there) send_(*put.frame);
  }
  for (const auto& [hash, get] : gets_) {
    proto::NodeFrame frame;
    frame.mutable_chunk_get()->set_request(get.request);
    frame.mutable_chunk_get()->set_hash(hash);
    send_(frame);
  }
}

// Everything here is at the coordinator too, or a rank still has it, so the oldest may go: where
// there is more than the bound, and before each further try on a full disk.
void ChunkExchange::make_room() {
  const bool over = store_.bytes() > cache_bytes_ && oldest_.size() >= 8;
  if (making_room_ || oldest_.empty() || !(over || store_.full())) return;
  std::vector<std::string> leaving;
  for (size_t count = (oldest_.size() + 7) / 8; count > 0; --count) {
    leaving.push_back(std::move(oldest_.front()));
    oldest_.pop_front();
  }
  making_room_ = true;
  asio::post(threads_, [this, leaving = std::move(leaving)]() mutable {
    const bool gone = store_.remove(leaving).ok();
    asio::post(io_, [this, gone, leaving = std::move(leaving)] {
      if (!gone) oldest_.insert(oldest_.begin(), leaving.begin(), leaving.end());
      making_room_ = false;
    });
  });
}

void ChunkExchange::stop() {
  stopped_ = true;
  const Status ended(Code::kCancelled, "the agent ends");
  for (auto& [request, put] : std::exchange(puts_, {})) put.done(ended);
  for (auto& [hash, get] : std::exchange(gets_, {})) {
    for (auto& done : get.waiting) done(fail(ended));
  }
  const std::lock_guard lock(blocked_mutex_);
  ended_ = true;
  for (const Answer& answer : std::exchange(blocked_, {})) answer->set_value(fail(ended));
}

}  // namespace weft
