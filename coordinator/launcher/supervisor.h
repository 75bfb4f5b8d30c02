// Makes the nodes follow the job store: takes the agents' channels, grants leases, places what
// waits, launches attempts, watches them and ends them.
//
// How it talks with a node: AgentHello (again after each reconnect, listing the attempts it knows)
// -> Welcome; Heartbeat -> LeaseGrant, which revokes what the store has moved on from;
// PrepareAttempt (repeated after a reconnect until it was answered) -> AttemptPrepared from every
// node -> StartAttempt to the head (repeated after a reconnect; a second one means nothing) -> rank
// messages, each answered once it is durable -> AttemptExit from every node.
//
// Thread safety: accept and stop from any thread. Hellos of known nodes and
// heartbeats are answered on the thread that delivers them, out of the lease book; everything else,
// and with it every write to the store, happens on one thread (start) or inside step() (tests).
// Ownership: shares channels; refers to Parts; whatever delivers the channels' frames (RpcServer)
// must be gone before it.
// Invariants:
// 1. A slot is given away only when the node said that the earlier attempt's processes are gone, or
// its
//    lease has certainly run out: lease_seconds and a margin after the last heartbeat was heard
//    here, on the monotonic clock; after a restart counted from the restart.
// 2. A rank's message is answered only after the synced write that applied it.
// 3. The store alone says which attempt is current; everything here can be built anew from it and
// from
//    what nodes tell in their hellos.
// 4. No lease is renewed later because the store is slow: a disk may stall for any time and costs
// no attempt. Meanwhile frames wait in the inbox, in the order of their arrival; what it may hold
// is bounded by what ranks and agents send without an answer, and by inbox_bytes_max, beyond which
// a connection is closed (its peer sends again what was never answered).
// 5. A step decides by the time at which it began: whatever had arrived by then it has taken.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "cluster/rpc/channel.h"
#include "coordinator/launcher/attempt_end.h"
#include "coordinator/launcher/data_plane.h"
#include "coordinator/launcher/inspector.h"
#include "coordinator/launcher/lease_book.h"
#include "coordinator/launcher/watchdog.h"
#include "coordinator/scheduler/drain.h"
#include "coordinator/scheduler/snapshot.h"
#include "coordinator/store/content.h"
#include "coordinator/store/job_store.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

namespace weft {

struct SupervisorOptions {
  std::string cluster = "weft";
  std::string secret;  // attempts' one-use secrets are made from it
  double lease_seconds = 30;
  double prepare_seconds = 1800;  // staging of inputs on every node
  double start_seconds = 900;     // from StartAttempt to the first step
  double control_seconds = 900;   // pause and cancel: until the ranks are stopped the hard way
  double leave_seconds = 60;      // after the end of training until the node is told to stop
  double settle_seconds = 2;      // after a first exit, for the others' messages
  double absent_seconds = 5;      // a node no longer lists an attempt that it had
  double hello_seconds = 30;      // from the connection to the hello
  double collect_seconds = 60;    // between two collections of chunks; 1 while there is no room
  double collect_grace_seconds = 3600;  // that uploads have until they are used
  RestartPolicy restarts;
  size_t inbox_bytes_max = size_t{1} << 30;
  std::string data_folder;  // whose room is watched; empty: none
  int data_threads = 4;     // mostly waiting for the disk; 0: bulk traffic inside step()
};

class Supervisor {
 public:
  struct Parts {
    JobStore& store;
    Content& content;
    const Clock& clock;
    Logger log;
    const Drain* drain = nullptr;    // none: never
    Inspector* inspector = nullptr;  // none: nobody asks
  };
  Supervisor(Parts parts, SupervisorOptions options);
  ~Supervisor();

  void start();  // its thread
  void stop();   // closes every channel; attempts go on without a coordinator
  void accept(std::shared_ptr<Channel> channel);
  // Handles everything that has arrived and whatever time has brought.
  void step();

 private:
  using Time = Clock::Duration;
  using AttemptKey = std::pair<std::string, int32_t>;  // job, attempt

  struct Session {
    std::shared_ptr<Channel> channel;
    std::string node;  // empty until its hello was accepted
    Time since{};
  };
  struct Node {
    proto::NodeInfo info;
    uint64_t session = 0;  // 0: not connected
  };
  // One node's part of an active attempt.
  struct Part {
    bool prepared = false;
    bool seen = false;        // the node has listed it
    bool gone = false;        // its processes are
    proto::AttemptExit exit;  // what is known of that
    Time absent_since{-1};
    uint64_t told_session = 0;  // the control below was sent on that session
    proto::Control told;
  };
  struct Active {
    AttemptKey key;
    std::vector<std::string> nodes;  // the head first
    std::map<std::string, Part> parts;
    bool start_sent = false;
    Time since{};  // of the present phase
    Time control_since{-1};
    Time first_exit{-1};
    std::map<std::string, proto::NodeFrame> daemons;  // orteds asked for, by node, until answered
    std::optional<EndCause> ending;                   // decided, not stored yet (full disk)
    Watchdog watchdog;
    Time next_watch{};
  };
  // Processes that may still be there though their attempt is over.
  struct Leaving {
    std::vector<int> slots;
    Time since{};
    Time stop_at{};  // when the node is told to stop; it is told again after a reconnect
    uint64_t told_session = 0;
  };
  struct Opened {
    std::shared_ptr<Channel> channel;
  };
  struct Closed {
    Status why;
  };
  struct Item {
    uint64_t session = 0;
    std::variant<Opened, proto::NodeFrame, Closed> what;
    bool answered = false;  // a hello or heartbeat that the lease book has answered
  };

  // supervisor.cc
  void run();
  void arrive(uint64_t session, Channel& channel, proto::NodeFrame frame);
  bool push(Item item, size_t bytes = 0);  // false: the inbox is full
  void take(Item item);
  void take_frame(uint64_t session, proto::NodeFrame frame, bool answered);
  void take_rank(const std::string& node, const proto::RankEnvelope& envelope);
  void retry_held();
  void ask_ranks();
  void collect();
  void take_inspected(const std::string& node, proto::NodeFrame frame);
  void relay_orted(uint64_t session, const std::string& node, proto::NodeFrame frame);
  void refuse(uint64_t session, const std::string& why);
  bool send_to(const std::string& node, const proto::NodeFrame& frame);
  Time seconds(double value) const;
  Time now() const { return now_; }

  // supervisor_nodes.cc
  void recall();  // from the store, after a start
  void take_hello(uint64_t session, const proto::AgentHello& hello, bool answered);
  void take_heartbeat(const std::string& node, const proto::Heartbeat& heartbeat);
  Status keep_node(const proto::NodeInfo& info);
  void take_exit(const std::string& node, const proto::AttemptExit& exit);
  void compare_running(const std::string& node, const std::set<AttemptKey>& listed,
                       const std::set<AttemptKey>& alive, bool hello);
  std::vector<proto::AttemptRef> revoked(const std::string& node,
                                         const std::set<AttemptKey>& listed,
                                         const std::set<AttemptKey>& alive) const;
  void check_leases();
  void check_leaving();
  void node_lost(Node& node);

  // supervisor_attempts.cc
  void schedule();
  Snapshot snapshot() const;
  bool usable(const Node& node) const;
  bool draining() const { return parts_.drain != nullptr && parts_.drain->active(); }
  void launch(const proto::Job& job);
  void send_prepare(Active& active, const std::string& node);
  void take_prepared(const std::string& node, const proto::AttemptRef& ref);
  void check_attempts();
  void check_attempt(Active& active, const proto::Job& job);
  void check_time_limit(const proto::Job& job);
  void check_controls(Active& active, const proto::Job& job);
  void send_controls(Active& active, const proto::Control& control);
  void end(Active& active, const EndCause& cause);
  void retire(const AttemptKey& key, bool stop_now);
  Active* find_active(const std::string& job, int32_t attempt);

  // supervisor_room.cc
  void check_room();
  void note_room(const std::string& place, int64_t free_bytes, int64_t bytes, bool full = false);

  const Parts parts_;
  const SupervisorOptions options_;
  std::atomic<bool> collecting_{false};  // a collection of chunks is posted or under way
  std::string collect_error_;            // of the last one, which alone uses it
  DataPlane data_;
  LeaseBook leases_;

  // The supervisor's thread only.
  Time now_{};  // when the present step began
  std::map<uint64_t, Session> sessions_;
  std::map<std::string, Node> nodes_;
  std::map<std::string, Active> active_;                          // by job
  std::map<AttemptKey, std::map<std::string, Leaving>> leaving_;  // by node
  std::map<std::pair<AttemptKey, int32_t>, std::deque<proto::RankEnvelope>> held_;
  Time next_schedule_{};
  Time next_retry_{};
  Time next_collect_{};
  Time next_room_{};
  struct FullDisk {
    std::string text;      // "node n0 (0 of 400 MiB free)"
    int64_t since_ms = 0;  // wall clock
  };
  std::map<std::string, FullDisk> full_;  // by place: a node's name, or "" for the coordinator

  std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::deque<Item> inbox_;
  size_t inbox_bytes_ = 0;
  std::map<uint64_t, proto::NodeFrame*> waiting_beats_;  // in the inbox, one a session
  uint64_t last_session_ = 0;
  bool dirty_ = true;
  bool stopping_ = false;
  std::thread thread_;
  std::unique_ptr<WatchHub::Ticket> ticket_;
};

}  // namespace weft
