#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/progress_line.h"
#include "proto/json/writer.h"

namespace weft::cli {
namespace {

constexpr double kCheckpointSeconds = 20;
constexpr double kStopSeconds = 15;

Result<std::vector<proto::Job>> unfinished_jobs(ApiClient& client) {
  std::vector<proto::Job> jobs;
  std::string after;
  do {
    proto::JobPage page;
    WEFT_RETURN_IF_ERROR(client.get(
        "jobs?state=queued,starting,running,pausing,paused,cancelling&limit=1000&after=" +
            encoded(after),
        page));
    jobs.insert(jobs.end(), page.jobs().begin(), page.jobs().end());
    after = page.next();
  } while (!after.empty());
  return jobs;
}

// Asks every running job for a checkpoint and waits a while for them.
void save_running(const Context& context, ApiClient& client, std::vector<proto::Job>& jobs) {
  std::vector<const proto::Job*> asked;
  for (const proto::Job& job : jobs) {
    if (job.state() != proto::JOB_STATE_RUNNING) continue;
    if (client.send("POST", "jobs/" + job.id() + "/checkpoint", nullptr, nullptr).ok()) {
      asked.push_back(&job);
    }
  }
  ProgressLine line(context.json);
  if (!asked.empty()) {
    line.show(fmt::format("waiting for the checkpoints of {} running jobs", asked.size()));
  }
  wait_until(kCheckpointSeconds, [&] {
    for (const proto::Job* before : asked) {
      const Result<proto::Job> now = client.job(before->id());
      if (now && now->state() == proto::JOB_STATE_RUNNING &&
          now->checkpoint() == before->checkpoint()) {
        return false;
      }
    }
    return true;
  });
  for (proto::Job& job : jobs) {
    if (const Result<proto::Job> now = client.job(job.id())) job = *now;
  }
}

// What becomes of a job while nothing runs.
std::string fate(const proto::Job& job) {
  switch (job.state()) {
    case proto::JOB_STATE_QUEUED:
      return "is queued and stays so";
    case proto::JOB_STATE_PAUSED:
      return "is paused and stays so";
    case proto::JOB_STATE_STARTING:
    case proto::JOB_STATE_RUNNING:
    case proto::JOB_STATE_PAUSING:
    case proto::JOB_STATE_CANCELLING:
      return fmt::format(
          "is stopped at step {}; the next 'weft up' goes on {}", job.step(),
          job.checkpoint().empty() ? "from its beginning" : "from " + job.checkpoint());
    default:
      return "is " + state_name(job.state());
  }
}

// What `down` found.
struct Stopped {
  bool anything = false;  // a program was running
  bool answered = true;   // the coordinator said what its jobs are
  std::vector<proto::Job> jobs;
};

void tell(const Context& context, const Stopped& stopped) {
  if (context.json) {
    JsonWriter out(2);
    out.begin_object().key("stopped").boolean(stopped.anything).key("jobs").begin_array();
    for (const proto::Job& job : stopped.jobs) {
      out.begin_object().key("id").string(job.id()).key("state").string(state_name(job.state()));
      out.key("attempt").integer(job.attempt()).key("step").integer(job.step());
      out.key("steps").integer(job.steps()).key("loss");
      job.has_loss() ? out.number(job.loss()) : out.null();
      out.key("checkpoint").string(job.checkpoint()).key("fate").string(fate(job)).end_object();
    }
    print(out.end_array().end_object().take() + "\n");
    return;
  }
  for (const proto::Job& job : stopped.jobs) {
    print(printable(fmt::format("{} ({}) {}", job.id(), job.name(), fate(job))) + "\n");
  }
  if (!stopped.answered) {
    print(
        "the coordinator does not answer; its jobs go on from their last checkpoints at the next "
        "'weft up'\n");
  }
  print(stopped.anything ? "stopped\n"
                         : fmt::format("nothing runs for {}\n", data_folder(context.settings)));
}

Status stop_all(const Context& context, bool now, Stopped& stopped) {
  const std::string data = data_folder(context.settings);
  WEFT_ASSIGN_OR_RETURN(const proto::LocalCluster cluster, read_local_cluster(data));
  WEFT_ASSIGN_OR_RETURN([[maybe_unused]] const FolderLock lock, FolderLock::take(data));
  LocalPrograms programs(data, cluster);
  const Process coordinator = programs.running("coordinator");
  if (is_alive(coordinator)) {
    Settings settings;
    settings.data = data;
    Result<ApiClient> client = ApiClient::connect(settings);
    auto jobs = client ? unfinished_jobs(*client) : fail(client.error());
    stopped.answered = jobs.has_value();
    if (jobs && !now) save_running(context, *client, *jobs);
    if (jobs) stopped.jobs = std::move(*jobs);
  }
  // The coordinator first: what the ending ranks report reaches it at the next start, in which
  // their attempts are found to be over.
  const std::vector<Process> agents = programs.agents();
  stopped.anything = is_alive(coordinator) || !agents.empty();
  stop_processes({coordinator}, kStopSeconds);
  stop_processes(programs.agents(), kStopSeconds);
  return Status();
}

}  // namespace

int down(const Context& context, bool now) {
  Stopped stopped;
  const Status status = stop_all(context, now, stopped);
  // kNotFound: no cluster was ever started there.
  if (!status.ok() && status.code() != Code::kNotFound) return report(context, status);
  tell(context, stopped);
  return kExitOk;
}

}  // namespace weft::cli
