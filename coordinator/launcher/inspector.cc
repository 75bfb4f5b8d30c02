#include "coordinator/launcher/inspector.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "coordinator/launcher/launch_record.h"

namespace weft {
namespace {

constexpr std::chrono::milliseconds kLook{10};  // at the clock, which may be a simulated one

int ranks_of(const proto::Job& job) {
  int ranks = 0;
  for (const auto& node : job.placement().nodes()) ranks += node.slots_size();
  return ranks;
}

// Names are told once and pointed at.
bool is_whole(const proto::RankTrace& trace) {
  const auto known = [&](int index) { return index >= 0 && index < trace.names_size(); };
  return std::all_of(trace.spans().begin(), trace.spans().end(), [&](const auto& span) {
    return known(span.name()) && known(span.detail()) && span.duration_ns() >= 0;
  });
}

}  // namespace

proto::Inspect& Inspector::ask(const proto::Job& job, uint64_t request) {
  proto::InspectAttempt& question = questions_.emplace_back();
  question.mutable_attempt()->set_job(job.id());
  question.mutable_attempt()->set_attempt(job.attempt());
  question.mutable_inspect()->set_request(request);
  return *question.mutable_inspect();
}

bool Inspector::Trace::cut() const {
  return std::any_of(parts.begin(), parts.end(),
                     [](const auto& part) { return part.second.cut(); });
}

std::vector<proto::RankStack> Inspector::stacks(const proto::Job& job, double seconds) {
  std::unique_lock lock(mutex_);
  const uint64_t request = ++last_request_;
  Waiting& waiting = waiting_[request];
  for (int rank = 0; rank < ranks_of(job); ++rank) {
    proto::RankStack& stack = waiting.ranks[rank];
    stack.mutable_now()->set_rank(rank);
    stack.set_node(node_of_rank(job.placement(), rank));
    stack.set_problem("it has not answered within " + std::to_string(static_cast<int>(seconds)) +
                      " s: this is what was last heard of it");
  }
  const auto limit = std::chrono::duration<double>(seconds);
  const auto until = clock_.monotonic() + std::chrono::duration_cast<Clock::Duration>(limit);
  ask(job, request);
  while (waiting.answers < waiting.ranks.size() && clock_.monotonic() < until) {
    answered_.wait_for(lock, kLook);
  }
  std::vector<proto::RankStack> stacks;
  for (auto& [rank, stack] : waiting.ranks) stacks.push_back(std::move(stack));
  waiting_.erase(request);
  return stacks;
}

void Inspector::start_trace(const proto::Job& job, int steps) {
  const std::lock_guard lock(mutex_);
  Trace& trace = traces_[job.id()];
  trace = {};
  trace.request = ++last_request_;
  trace.attempt = job.attempt();
  trace.steps = steps;
  trace.ranks = static_cast<size_t>(ranks_of(job));
  trace.heard_new = clock_.monotonic();
  ask(job, trace.request).set_trace_steps(steps);
  while (traces_.size() > kTracesMax) {
    traces_.erase(std::min_element(
        traces_.begin(), traces_.end(),
        [](const auto& a, const auto& b) { return a.second.request < b.second.request; }));
  }
}

std::optional<Inspector::Trace> Inspector::trace(const std::string& job) const {
  const std::lock_guard lock(mutex_);
  const auto found = traces_.find(job);
  if (found == traces_.end()) return std::nullopt;
  Trace trace = found->second;
  const auto since = [&](Clock::Duration moment) {
    return std::chrono::duration<double>(clock_.monotonic() - moment).count();
  };
  trace.over = trace.complete() ||
               (!trace.parts.empty() && since(trace.first_part) > kPartSeconds) ||
               (trace.ended && since(*trace.ended) > kCutSeconds);
  trace.quiet_seconds = since(trace.heard_new);
  for (auto& [rank, now] : trace.heard) {
    now.set_age_seconds(now.age_seconds() + since(trace.heard_at[rank]));
  }
  return trace;
}

void Inspector::end_trace(const proto::Job& job) {
  const std::lock_guard lock(mutex_);
  const auto found = traces_.find(job.id());
  if (found == traces_.end() || found->second.ended || found->second.complete()) return;
  found->second.ended = clock_.monotonic();
  ask(job, found->second.request).set_trace_now(true);
}

void Inspector::heard(const proto::AttemptNow& now) {
  const std::lock_guard lock(mutex_);
  const auto found = traces_.find(now.job());
  if (found == traces_.end() || found->second.attempt != now.attempt()) return;
  Trace& trace = found->second;
  for (const proto::RankNow& rank : now.ranks()) {
    proto::RankNow& last = trace.heard[rank.rank()];
    if (rank.progress() != last.progress()) trace.heard_new = clock_.monotonic();
    last = rank;
    trace.heard_at[rank.rank()] = clock_.monotonic();
  }
}

std::vector<proto::InspectAttempt> Inspector::take_questions() {
  const std::lock_guard lock(mutex_);
  return std::exchange(questions_, {});
}

void Inspector::known(uint64_t request, const std::vector<proto::RankNow>& ranks) {
  const std::lock_guard lock(mutex_);
  const auto waiting = waiting_.find(request);
  if (waiting == waiting_.end()) return;
  for (const proto::RankNow& now : ranks) {
    const auto stack = waiting->second.ranks.find(now.rank());
    if (stack != waiting->second.ranks.end()) *stack->second.mutable_now() = now;
  }
}

void Inspector::answer(const proto::AttemptInspected& answer) {
  const std::lock_guard lock(mutex_);
  const auto waiting = waiting_.find(answer.request());
  if (waiting == waiting_.end()) return;
  for (const proto::RankStack& told : answer.ranks()) {
    const auto stack = waiting->second.ranks.find(told.now().rank());
    if (stack == waiting->second.ranks.end()) continue;
    stack->second = told;
    ++waiting->second.answers;
  }
  answered_.notify_all();
}

void Inspector::answer(proto::TraceOfRank answer) {
  const std::lock_guard lock(mutex_);
  const auto found = traces_.find(answer.attempt().job());
  if (found == traces_.end() || found->second.request != answer.trace().request()) return;
  if (!is_whole(answer.trace())) return;
  Trace& trace = found->second;
  trace.heard_new = clock_.monotonic();
  if (trace.parts.empty()) trace.first_part = trace.heard_new;
  trace.bytes += answer.trace().ByteSizeLong();
  trace.too_large = trace.too_large || trace.bytes > kTraceBytesMax;
  const int rank = answer.trace().rank();
  if (rank < 0 || static_cast<size_t>(rank) >= trace.ranks) return;
  if (trace.too_large) return trace.parts.clear();
  trace.parts[rank] = std::move(*answer.mutable_trace());
}

}  // namespace weft
