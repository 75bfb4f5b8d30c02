// What a job's ranks do now (`weft stack`), and what they did during some steps (`weft trace`).
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "cluster/process/rank_now.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/progress_line.h"
#include "proto/api.pb.h"

namespace weft::cli {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(200);
constexpr double kQuietSeconds = 5;  // after which the progress line says why

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal may set it

// While it lives, the first Ctrl-C is only noted in `interrupted`; the second ends the program.
class NotedInterrupt {
 public:
  NotedInterrupt() {
    interrupted = false;
    struct sigaction noted {};
    noted.sa_handler = [](int) { interrupted = true; };
    noted.sa_flags = SA_RESETHAND | SA_RESTART;
    ::sigaction(SIGINT, &noted, &before_);
  }
  ~NotedInterrupt() { ::sigaction(SIGINT, &before_, nullptr); }
  NotedInterrupt(const NotedInterrupt&) = delete;
  NotedInterrupt& operator=(const NotedInterrupt&) = delete;

 private:
  struct sigaction before_ {};
};

void print_stack(const proto::JobStack& stack, bool threads) {
  std::string out = fmt::format("{} is {}, attempt {}\n", stack.job(), state_name(stack.state()),
                                stack.attempt());
  std::string silent;
  for (const proto::RankStack& rank : stack.ranks()) {
    const proto::RankNow& now = rank.now();
    out += printable(describe(now)) + "\n";
    out += fmt::format("  on {}, process {} ({})", printable(rank.node()), now.pid(),
                       now.process().empty() ? "unknown" : printable(now.process()));
    if (!now.phase().empty()) {
      out += fmt::format(", {} for {}", printable(now.phase()), show_seconds(now.phase_seconds()));
    }
    if (now.age_seconds() >= 1)
      out += fmt::format(", as of {} ago", show_seconds(now.age_seconds()));
    out += "\n";
    if (!rank.problem().empty()) out += "  " + printable(rank.problem()) + "\n";
    for (const proto::ThreadStack& thread : rank.threads()) {
      if (!threads) break;
      out += fmt::format("  thread {} {}\n", thread.thread(), printable(thread.name()));
      for (const std::string& frame : thread.frames()) out += "    " + printable(frame) + "\n";
      if (thread.frames().empty()) out += "    its stack is not taken\n";
    }
    if (!rank.problem().empty()) silent += fmt::format(" {}", now.rank());
  }
  if (!silent.empty()) {
    out += fmt::format("no answer from rank{}; the job has {} ranks\n", silent, stack.ranks_size());
  }
  print(out);
}

// "rank 3 of n2 (its process is stopped), rank 5 of n2 (...)"
std::string missing_text(const proto::JobTrace& trace) {
  constexpr int kMost = 3;
  std::string text;
  for (int i = 0; i < std::min(kMost, trace.missing_size()); ++i) {
    const proto::MissingRank& rank = trace.missing(i);
    text += fmt::format("{}rank {} of {} ({})", i == 0 ? "" : ", ", rank.rank(), rank.node(),
                        rank.problem());
  }
  if (trace.missing_size() > kMost) text += fmt::format(", {} more", trace.missing_size() - kMost);
  return printable(text);
}

std::string progress_of(const proto::JobTrace& trace) {
  const int waiting = trace.missing_size();
  std::string text = fmt::format("recording {} steps: waiting for {} rank{}", trace.steps(),
                                 waiting, waiting == 1 ? "" : "s");
  if (trace.quiet_seconds() < kQuietSeconds) return text;
  return text + fmt::format("; nothing done for {}: {}", show_seconds(trace.quiet_seconds()),
                            missing_text(trace));
}

// Has the steps recorded and waits until every rank's part is there, or no more will come. Ctrl-C
// ends the recording as the timeout does: it would else go on, and no other could begin meanwhile.
Result<proto::JobTrace> record_steps(const Context& context, ApiClient& client,
                                     const std::string& path, const TraceOptions& options) {
  const NotedInterrupt noted;
  proto::TraceRequest request;
  request.set_steps(options.steps);
  proto::JobTrace begun;
  WEFT_RETURN_IF_ERROR(client.send("POST", path, &request, &begun));
  ProgressLine line(context.json);
  bool ended = false;
  while (true) {
    proto::JobTrace trace;
    WEFT_RETURN_IF_ERROR(client.get(path, trace));
    if (trace.state() == "complete" || trace.state() == "incomplete") return trace;
    if (!trace.problem().empty()) {
      std::string why = fmt::format("the trace of {}: {}", trace.job(), trace.problem());
      if (trace.missing_size() > 0) why += "; missing: " + missing_text(trace);
      return fail(Code::kUnavailable, why);
    }
    line.show(progress_of(trace));
    if (!ended && (interrupted || trace.quiet_seconds() > options.timeout)) {
      WEFT_RETURN_IF_ERROR(client.send("DELETE", path, nullptr, nullptr));
      ended = true;
    }
    std::this_thread::sleep_for(kPoll);
  }
}

// Writes to `file` only once the trace is there; whether it may is asked before anything is
// recorded.
Result<proto::JobTrace> record(const Context& context, ApiClient& client, const std::string& path,
                               const std::string& file, const TraceOptions& options) {
  const Status full = Status::invalid("--output", file, "cannot be written");
  std::error_code ignored;
  const bool is_new = !std::filesystem::exists(std::filesystem::symlink_status(file, ignored));
  const bool writable = std::ofstream(file, std::ios::binary | std::ios::app).is_open();
  if (is_new) std::filesystem::remove(file, ignored);
  if (!writable) return fail(full);
  WEFT_ASSIGN_OR_RETURN(proto::JobTrace trace, record_steps(context, client, path, options));
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  WEFT_RETURN_IF_ERROR(client.download(path + "/events", [&](std::string_view piece) -> Status {
    out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    return out ? Status() : full;
  }));
  out.close();
  if (!out) return fail(full);
  return trace;
}

void print_summary(const proto::JobTrace& trace, const std::string& file, int asked) {
  std::string out = fmt::format("{}: steps {} to {} of {}", file, trace.first_step(),
                                trace.first_step() + trace.steps() - 1, trace.job());
  if (trace.state() == "incomplete") {
    out += fmt::format("\nincomplete: {}; missing or cut short: {}", trace.problem(),
                       missing_text(trace));
  } else if (trace.steps() < asked) {
    out += fmt::format("; it ended before {} were done", asked);
  }
  out += "\n";
  for (const proto::RankTraceSummary& rank : trace.ranks()) {
    out += fmt::format("rank {}: {:.3f} s, compute {:.3f} s, communication {:.3f} s", rank.rank(),
                       rank.seconds(), rank.compute_seconds(), rank.communication_seconds());
    if (rank.has_hidden_share()) out += fmt::format(", {:.0f}% hidden", 100 * rank.hidden_share());
    if (rank.truncated()) out += "; more happened than there was room for: record fewer steps";
    out += "\n";
  }
  print(out + "https://ui.perfetto.dev opens it\n");
}

}  // namespace

int stack(const Context& context, const StackOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  proto::JobStack found;
  Status status;
  {
    ProgressLine line(context.json);
    line.show("asking the ranks, for up to 3 s");
    status = client->get("jobs/" + encoded(options.job) + "/stack", found);
  }
  if (!status.ok()) return report(context, status);
  if (context.json) {
    print_json(found);
  } else {
    print_stack(found, options.threads);
  }
  return kExitOk;
}

int trace(const Context& context, const TraceOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  const std::string path = "jobs/" + encoded(options.job) + "/trace";
  const std::string file = options.file.empty() ? options.job + ".trace.json" : options.file;
  const Result<proto::JobTrace> trace = record(context, *client, path, file, options);
  if (!trace) return report(context, trace.error());
  if (context.json) {
    print_json(*trace);
  } else {
    print_summary(*trace, file, options.steps);
  }
  return kExitOk;
}

}  // namespace weft::cli
