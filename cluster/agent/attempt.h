// One attempt on this node, from its launch record to its removal: inputs staged, shepherd started
// or found again, ranks and logs relayed, end told until the coordinator has taken it.
//
// Thread safety: the agent's thread; staging runs on another and comes back to it. Ownership: the
// agent owns attempts; a staging in progress shares its attempt.
// Invariants: 1. what a restart needs is in the note before it is acted upon. 2. the end is told
// only once everything of the attempt on this node is gone. 3. its folder stays until the
// coordinator has revoked the attempt and has the logs (or has not taken them for ten minutes).
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cluster/agent/attempt_ranks.h"
#include "cluster/agent/log_relay.h"
#include "cluster/agent/options.h"
#include "cluster/process/process.h"
#include "proto/base/log.h"
#include "proto/shepherd.pb.h"

namespace weft {

// What all attempts of an agent share.
struct AttemptWorld {
  boost::asio::io_context& io;
  boost::asio::thread_pool& staging;
  const AgentOptions& options;
  const AgentPlaces& places;
  ChunkExchange& chunks;
  Logger log;
  std::function<bool(const proto::NodeFrame&)> send;
  int64_t lease_deadline_ns = 0;  // on CLOCK_BOOTTIME; 0: nothing granted yet
};

struct ExitEvidence {  // as AttemptExit has it
  bool permanent = false, out_of_memory = false;
};

// Why attempts end when their agent does: an exit with it is planned.
inline constexpr std::string_view kAgentEnds = "the agent was told to end";

class Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  Attempt(AttemptWorld& world, proto::AttemptNote note);
  // A new attempt's note. Errors: a record that this node cannot launch.
  static Result<proto::AttemptNote> make_note(const AttemptWorld& world, const std::string& node,
                                              proto::LaunchRecord record);

  static std::string note_name(const proto::AttemptRef& ref);  // the file's
  void prepare();               // stage, then start the shepherd
  void adopt();                 // after a restart of the agent: go on from the note
  void start();                 // mpirun, on the head node
  void stop(const std::string& why);
  void revoke();                // the coordinator is done with it
  void renew();                 // the lease in the world has moved
  void control(const proto::Control& control);
  void inspect(const proto::InspectAttempt& question);
  void remote_orted(const proto::RemoteOrted& wanted);
  void remote_orted_result(const proto::RemoteOrtedResult& result);
  void reconnected();           // to the coordinator
  void tick();

  const proto::AttemptRef& ref() const { return note_.attempt(); }
  const proto::LaunchRecord& record() const { return note_.record(); }
  AttemptRanks& ranks() { return ranks_; }
  LogRelay& logs() { return logs_; }
  bool over() const { return note_.has_exit(); }
  bool told() const { return exit_told_; }  // the end, on the present connection
  bool forgotten() const { return forgotten_; }

 private:
  bool is_head() const { return record().nodes(0).name() == record().node(); }
  Status make_folders() const;
  bool kill_leftovers() const;
  void start_shepherd();
  void connect_shepherd();
  void take_from_shepherd(const std::string& bytes);
  void send_to_shepherd(const proto::ShepherdFrame& frame);
  void tell_prepared();
  void shepherd_gone();
  void finish(int exit_code, const std::string& message, ExitEvidence evidence = {});
  void tell_exit();
  void forget();
  bool logs_settled() const;
  void save();
  std::string note_file() const;

  AttemptWorld& world_;
  proto::AttemptNote note_;
  AttemptRanks ranks_;
  LogRelay logs_;
  std::shared_ptr<std::atomic<bool>> cancelled_;  // of the staging
  bool staging_ = false;
  std::unique_ptr<Process> shepherd_;             // where this agent started it
  std::shared_ptr<LocalChannel> channel_;
  std::string stop_why_;                          // asked for, not yet told to the shepherd
  std::map<uint64_t, proto::RemoteOrted> asked_;  // of other nodes, for a reconnect
  bool starting_over_ = false;                    // without what an agent before may have started
  int64_t over_since_ns_ = 0;
  bool exit_told_ = false, revoked_ = false, forgotten_ = false;
};

std::string key_of(const proto::AttemptRef& ref);  // "job-x/2"

}  // namespace weft
