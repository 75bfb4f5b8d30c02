// A coordinator by script: answers agents as the real one would, from maps in memory.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cluster/rpc/rpc.h"
#include "proto/node.pb.h"

namespace weft::testing {

class FakeCoordinator {
 public:
  explicit FakeCoordinator(std::string secret);
  int port() const { return server_->port(); }

  bool send(const std::string& node, const proto::NodeFrame& frame);
  void revoke(const proto::AttemptRef& ref);
  void grant(bool on);                 // off: heartbeats stay unanswered
  bool shorten_leases(double seconds);  // until one was granted; false after a minute
  int hellos_of(const std::string& node);
  void hang_up(const std::string& node);
  std::string add_chunk(const std::string& bytes);

  // Waits until `holds`, called under the lock, is true; false after a minute.
  bool wait(const std::function<bool()>& holds);

  // Guarded by mutex; read them inside wait() or under it.
  std::mutex mutex;
  std::map<std::string, int> hellos;                           // by node
  std::set<std::string> prepared;                              // "node job/attempt"
  std::map<std::string, proto::AttemptExit> exits;             // the same
  std::map<std::string, std::vector<proto::RankEnvelope>> ranks;  // "job/attempt rank"
  std::map<std::string, std::string> logs;                     // the same
  std::map<std::string, std::string> chunks;
  std::map<std::string, std::set<std::string>> running;        // by node: "job/attempt"
  int log_repeats = 0;
  bool lose_daemons = false;  // what asks another node for its orted is counted and dropped
  int daemons_lost = 0;

 private:
  void take(const std::shared_ptr<Channel>& from, const std::shared_ptr<std::string>& node,
            const proto::NodeFrame& frame);
  void take_rank(const std::shared_ptr<Channel>& from, const proto::RankEnvelope& envelope);
  void take_log(const std::shared_ptr<Channel>& from, const proto::LogChunk& chunk);
  void take_chunk(const std::shared_ptr<Channel>& from, const proto::NodeFrame& frame);
  void answer_beat(const std::shared_ptr<Channel>& from);

  std::condition_variable changed_;
  double lease_seconds_ = 20;
  int64_t leases_ = 0;  // granted so far
  bool granting_ = true;
  std::vector<proto::AttemptRef> revoked_;
  std::map<std::string, std::shared_ptr<Channel>> nodes_;
  std::unique_ptr<RpcServer> server_;
};

std::string name_of(const proto::AttemptRef& ref);

}  // namespace weft::testing
