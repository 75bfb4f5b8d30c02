// Chunks between ranks, this node's store and the coordinator.
//
// Thread safety: the io_context's one thread; the store's blocking calls run on threads of their
// own. get_blocking() from any other thread. Ownership: the agent owns it. Invariants: 1. a put is
// answered ok only when both this node's and the coordinator's store have it. 2. what was asked
// and not answered is asked again after a reconnect. 3. bytes from the coordinator are checked
// against their hash, and a rank's bytes by the coordinator. 4. get_blocking() does not wait beyond
// stop(), also where the io_context has ended before.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/chunks/chunk_store.h"
#include "proto/node.pb.h"

namespace weft {

class ChunkExchange {
 public:
  using Send = std::function<bool(const proto::NodeFrame&)>;
  using GotChunk = std::function<void(Result<std::string>)>;

  ChunkExchange(boost::asio::io_context& io, ChunkStore& store, int64_t cache_bytes, Send send);
  ~ChunkExchange();

  // For an attempt, which the coordinator keeps it for.
  void put(const proto::AttemptRef& by, const std::string& hash, std::string bytes,
           std::function<void(Status)> done);
  void get(const std::string& hash, GotChunk done);
  Result<std::string> get_blocking(const std::string& hash);

  void take(const proto::ChunkPutResult& result);
  void take(proto::ChunkData data);
  void send_again();
  // Every waiting call fails; for the agent's end.
  void stop();

 private:
  struct Put {
    std::shared_ptr<proto::NodeFrame> frame;
    std::function<void(Status)> done;
    std::optional<Status> here{}, there{};  // this node's answer, the coordinator's
  };
  struct Get {
    uint64_t request = 0;
    std::vector<GotChunk> waiting;
  };
  using Answer = std::shared_ptr<std::promise<Result<std::string>>>;
  void give(const Answer& answer, Result<std::string> bytes);
  void took_part(uint64_t request, std::optional<Status> Put::*part, const Status& status);
  void ask(const std::string& hash, GotChunk done);
  void make_room();

  boost::asio::io_context& io_;
  ChunkStore& store_;
  const int64_t cache_bytes_;
  const Send send_;
  bool stopped_ = false;
  uint64_t last_request_ = 0;
  std::map<uint64_t, Put> puts_;
  std::map<std::string, Get> gets_;
  std::deque<std::string> oldest_;  // hashes in the order in which they came
  bool making_room_ = false;

  std::mutex blocked_mutex_;  // guards the next two
  std::set<Answer> blocked_;  // what get_blocking() waits for
  bool ended_ = false;

  boost::asio::thread_pool threads_{4};  // mostly waiting for the disk
};

}  // namespace weft
