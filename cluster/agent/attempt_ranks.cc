#include "cluster/agent/attempt_ranks.h"

#include <algorithm>
#include <utility>

#include "cluster/process/process.h"

namespace weft {

void AttemptRanks::send(const proto::RankEnvelope& envelope) {
  proto::NodeFrame frame;
  *frame.mutable_rank()->mutable_envelope() = envelope;
  send_(frame);
}

void AttemptRanks::attach(const std::shared_ptr<LocalChannel>& channel,
                          const proto::RankEnvelope& hello) {
  Line& line = lines_[hello.rank()];
  if (line.channel != nullptr) line.channel->close();
  line.channel = channel;
  line.hello = hello;
  line.unanswered.clear();  // it sends them again
  send(hello);
  if (pending_) {
    proto::RankFrame frame;
    *frame.mutable_control() = *pending_;
    channel->send(frame);
  }
}

void AttemptRanks::take(int rank, const std::shared_ptr<LocalChannel>& from,
                        const std::string& bytes) {
  proto::RankFrame frame;
  const auto line = lines_.find(rank);
  if (line == lines_.end() || line->second.channel != from) return;
  if (!frame.ParseFromString(bytes)) return from->close();
  if (frame.has_envelope()) {
    proto::RankEnvelope& envelope = *frame.mutable_envelope();
    envelope.set_job(line->second.hello.job());  // a rank speaks for itself only
    envelope.set_attempt(line->second.hello.attempt());
    envelope.set_rank(rank);
    send(envelope);
    if (envelope.sequence() > 0) line->second.unanswered[envelope.sequence()] = envelope;
  } else if (frame.has_now()) {
    line->second.now = std::move(*frame.mutable_now());
    line->second.now_ns = boot_time_ns();
  } else if (frame.has_inspected()) {
    proto::NodeFrame answer;
    proto::AttemptInspected& told = *answer.mutable_inspected();
    fill_ref(line->second, *told.mutable_attempt());
    told.set_request(frame.inspected().request());
    proto::RankStack& stack = *told.add_ranks();
    stack.Swap(frame.mutable_inspected()->mutable_stack());
    line->second.now = stack.now();
    line->second.now_ns = boot_time_ns();
    *stack.mutable_now() = now_of(rank, line->second);
    send_(answer);
  } else if (frame.has_trace()) {
    proto::NodeFrame answer;
    fill_ref(line->second, *answer.mutable_trace()->mutable_attempt());
    answer.mutable_trace()->mutable_trace()->Swap(frame.mutable_trace());
    answer.mutable_trace()->mutable_trace()->set_rank(rank);
    send_(answer);
  } else if (frame.has_chunk_put()) {
    put_chunk(line->second, std::move(*frame.mutable_chunk_put()));
  } else if (frame.has_chunk_get()) {
    get_chunk(from, frame.chunk_get());
  }
}

void AttemptRanks::fill_ref(const Line& line, proto::AttemptRef& ref) {
  ref.set_job(line.hello.job());
  ref.set_attempt(line.hello.attempt());
}

void AttemptRanks::put_chunk(const Line& line, proto::RankChunkPut put) {
  const auto answered = [from = line.channel, request = put.request()](Status status) {
    proto::RankFrame answer;
    auto& result = *answer.mutable_chunk_put_result();
    result.set_request(request);
    if (!status.ok()) result.set_code(std::string(code_name(status.code())));
    result.set_message(status.message());
    from->send(answer);
  };
  proto::AttemptRef by;
  fill_ref(line, by);
  chunks_.put(by, put.chunk().hash(), std::move(*put.mutable_data()), answered);
}

void AttemptRanks::get_chunk(const std::shared_ptr<LocalChannel>& from,
                             const proto::RankChunkGet& get) {
  const uint64_t request = get.request();
  chunks_.get(get.hash(), [from, request](Result<std::string> bytes) {
    proto::RankFrame answer;
    auto& data = *answer.mutable_chunk_data();
    data.set_request(request);
    if (bytes) {
      data.set_data(std::move(*bytes));
    } else {
      data.set_code(std::string(code_name(bytes.error().code())));
      data.set_message(bytes.error().message());
    }
    from->send(answer);
  });
}

void AttemptRanks::detach(int rank, const std::shared_ptr<LocalChannel>& channel) {
  const auto line = lines_.find(rank);
  if (line != lines_.end() && line->second.channel == channel) line->second.channel = nullptr;
}

void AttemptRanks::reply(int rank, const proto::RankReply& reply) {
  const auto line = lines_.find(rank);
  if (line == lines_.end()) return;
  line->second.unanswered.erase(reply.sequence());
  proto::RankFrame frame;
  *frame.mutable_reply() = reply;
  if (line->second.channel != nullptr) line->second.channel->send(frame);
}

void AttemptRanks::control(const proto::Control& control) {
  if (!pending_ || control.kind() >= pending_->kind()) pending_ = control;
  for (auto& [rank, line] : lines_) {
    proto::RankFrame frame;
    *frame.mutable_control() = control;
    if (line.channel != nullptr) line.channel->send(frame);
  }
}

void AttemptRanks::reconnected() {
  for (const auto& [rank, line] : lines_) {
    send(line.hello);
    for (const auto& [sequence, envelope] : line.unanswered) send(envelope);
  }
}

proto::RankNow AttemptRanks::now_of(int rank, const Line& line) const {
  proto::RankNow now = line.now.value_or(proto::RankNow());
  now.set_rank(rank);
  now.set_pid(line.hello.hello().pid());
  now.set_process(process_state(now.pid()));
  if (line.now) now.set_age_seconds(static_cast<double>(boot_time_ns() - line.now_ns) * 1e-9);
  return now;
}

void AttemptRanks::fill_now(proto::AttemptNow& now) const {
  for (const auto& [rank, line] : lines_) *now.add_ranks() = now_of(rank, line);
}

void AttemptRanks::inspect(const proto::InspectAttempt& question, const std::vector<int>& ranks) {
  proto::NodeFrame answer;
  proto::AttemptInspected& told = *answer.mutable_inspected();
  *told.mutable_attempt() = question.attempt();
  told.set_request(question.inspect().request());
  for (const int rank : ranks) {
    const auto line = lines_.find(rank);
    proto::RankNow now;
    now.set_rank(rank);
    std::string problem = "it has not yet reported";
    if (line != lines_.end()) {
      now = now_of(rank, line->second);
      problem = now.process() == "stopped"        ? "its process is stopped and answers nothing"
                : line->second.channel == nullptr ? "it is not connected to its agent"
                                                  : "";
    }
    if (problem.empty()) {
      proto::RankFrame frame;
      *frame.mutable_inspect() = question.inspect();
      line->second.channel->send(frame);
      continue;
    }
    proto::RankStack& stack = *told.add_ranks();
    *stack.mutable_now() = now;
    stack.set_problem(problem);
  }
  const bool of_trace = question.inspect().trace_steps() > 0 || question.inspect().trace_now();
  if (told.ranks_size() > 0 && !of_trace) send_(answer);
}

bool AttemptRanks::quiet() const {
  return std::all_of(lines_.begin(), lines_.end(),
                     [](const auto& each) { return each.second.unanswered.empty(); });
}

}  // namespace weft
