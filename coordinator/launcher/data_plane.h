// Bulk traffic of the nodes: chunks, manifests, logs. It runs beside the supervisor, so that a
// large upload never holds up a heartbeat.
//
// Thread safety: every call from any thread. Ownership: owns its threads; refers to the stores.
// Invariants: 1. Log pieces are handled in the order of their arrival. 2. A log is acknowledged up
// to what is durable. 3. What a full disk keeps from being read or written waits for room.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cluster/rpc/channel.h"
#include "coordinator/store/content.h"
#include "coordinator/store/job_store.h"

namespace weft {

bool is_bulk(const proto::NodeFrame& frame);

class DataPlane {
 public:
  // threads 0: everything is handled inside post() (tests).
  DataPlane(JobStore& store, Content& content, int threads);
  ~DataPlane();
  void post(std::shared_ptr<Channel> channel, proto::NodeFrame frame);
  void post(std::function<void()> work);  // beside the chunks

 private:
  struct Queue {
    std::mutex mutex;  // guards the rest
    std::condition_variable ready, stopped;
    std::deque<std::function<void()>> work;
    bool stopping = false;
  };
  void add(Queue& queue, std::function<void()> work);
  static void run(Queue& queue);
  void handle(Channel& channel, const proto::NodeFrame& frame);
  void store_log(Channel& channel, const proto::LogChunk& log);
  template <typename Read>
  auto once_open(const Read& read);
  // Before a further try; false: there is none, the plane ends or has no threads to wait with.
  bool waited(Queue& queue);

  JobStore& store_;
  Content& content_;
  Queue logs_;    // one thread: in order
  Queue chunks_;  // and manifests
  std::vector<std::thread> threads_;
};

}  // namespace weft
