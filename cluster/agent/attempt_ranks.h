// The ranks of one attempt on this node that are connected to the agent, and what they have said
// that the coordinator has not yet answered.
//
// Thread safety: the agent's thread. Ownership: the attempt owns it. Invariants: 1. a rank's
// messages go to the coordinator in order; after a reconnect those without an answer go again,
// first its hello.
// 2. a rank that connects late still gets what was last asked of the attempt; a request for a
// checkpoint that it has heard of before means nothing new to it (Control.request).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/agent/chunk_exchange.h"
#include "cluster/rpc/local_channel.h"
#include "proto/train.pb.h"

namespace weft {

class AttemptRanks {
 public:
  using Send = std::function<bool(const proto::NodeFrame&)>;
  AttemptRanks(ChunkExchange& chunks, Send send) : chunks_(chunks), send_(std::move(send)) {}

  // `hello` is that rank's first frame, its secret checked.
  void attach(const std::shared_ptr<LocalChannel>& channel, const proto::RankEnvelope& hello);
  void take(int rank, const std::shared_ptr<LocalChannel>& from, const std::string& bytes);
  void detach(int rank, const std::shared_ptr<LocalChannel>& channel);
  void reply(int rank, const proto::RankReply& reply);
  void control(const proto::Control& control);
  void keep(const proto::Control& control) { pending_ = control; }
  void reconnected();
  bool quiet() const;  // nothing waits for an answer
  // Asks these ranks, and answers at once for those that cannot.
  void inspect(const proto::InspectAttempt& question, const std::vector<int>& ranks);
  // What the ranks do, as far as they told, and what the kernel says of their processes.
  void fill_now(proto::AttemptNow& now) const;

 private:
  struct Line {
    std::shared_ptr<LocalChannel> channel;
    proto::RankEnvelope hello;
    std::map<uint64_t, proto::RankEnvelope> unanswered;
    std::optional<proto::RankNow> now;
    int64_t now_ns = 0;  // when it was told
  };
  void send(const proto::RankEnvelope& envelope);
  static void fill_ref(const Line& line, proto::AttemptRef& ref);
  proto::RankNow now_of(int rank, const Line& line) const;
  void put_chunk(const Line& line, proto::RankChunkPut put);
  void get_chunk(const std::shared_ptr<LocalChannel>& from, const proto::RankChunkGet& get);

  ChunkExchange& chunks_;
  const Send send_;
  std::map<int, Line> lines_;
  std::optional<proto::Control> pending_;
};

}  // namespace weft
