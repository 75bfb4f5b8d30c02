#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/job_progress.h"
#include "coordinator/cli/progress_line.h"

namespace weft::cli {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(250);
constexpr auto kPlainLineEvery = std::chrono::seconds(5);
constexpr int kFailuresMax = 240;  // polls without an answer: about a minute

std::string colored_state(const Context& context, const proto::Job& job) {
  std::string text = progress_text(job);
  const std::string state = state_name(job.state());
  const size_t at = job.id().size() + 1;
  return text.replace(at, state.size(), colored(context.terminal, state_color(job.state()), state));
}

}  // namespace

int wait_for_job(const Context& context, ApiClient& client, const std::string& id, bool quiet) {
  using Clock = std::chrono::steady_clock;
  ProgressLine line(quiet || context.json || !context.terminal.is_terminal);
  std::string last_state;
  int64_t last_step = -1;
  int failures = 0;
  auto last_line = Clock::now();
  while (true) {
    const Result<proto::Job> job = client.job(id);
    if (!job) {
      // A coordinator that is being restarted comes back; the job goes on meanwhile.
      if (job.error().code() != Code::kUnavailable || ++failures > kFailuresMax) {
        line.clear();
        return report(context, job.error());
      }
      line.show("the coordinator does not answer; trying again");
      std::this_thread::sleep_for(kPoll);
      continue;
    }
    failures = 0;
    const std::string state =
        fmt::format("{} {} {}", state_name(job->state()), job->attempt(), job->reason());
    const bool stopped = is_finished(job->state()) || job->state() == proto::JOB_STATE_PAUSED;
    const bool news = state != last_state;
    const bool due = job->step() != last_step && Clock::now() - last_line > kPlainLineEvery;
    if (context.json && !quiet && (news || due)) print_json_line(*job);
    if (!context.json && !quiet) {
      if (news || (due && !line.active())) {
        line.clear();
        print(colored_state(context, *job) + "\n");
        std::fflush(stdout);
      }
      if (!stopped) line.show(progress_bar(*job, line.columns()));
    }
    if (news || due) {
      last_state = state;
      last_step = job->step();
      last_line = Clock::now();
    }
    if (stopped) return exit_code(job->state());
    std::this_thread::sleep_for(kPoll);
  }
}

int watch(const Context& context, const std::string& job) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  return wait_for_job(context, *client, job, false);
}

}  // namespace weft::cli
