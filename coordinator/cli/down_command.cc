#include <fmt/format.h>

#include <algorithm>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/progress_line.h"
#include "proto/json/writer.h"

namespace weft::cli {
namespace {

constexpr double kCheckpointSeconds = 30;
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

bool has_ranks(proto::JobState state) {
  return state == proto::JOB_STATE_RUNNING || state == proto::JOB_STATE_PAUSING ||
         state == proto::JOB_STATE_CANCELLING;
}

// A job as it was found and as it was left.
struct Stopping {
  proto::Job found, left;
  int64_t checkpoint_step = 0;  // of left.checkpoint(): where it goes on

  bool trained() const { return has_ranks(found.state()); }
  bool in_time() const { return !has_ranks(left.state()); }
  int64_t repeated() const {
    return in_time() ? 0 : std::max<int64_t>(0, left.step() - checkpoint_step);
  }
};

// Lets every job that trains stop in a checkpoint, and waits a while for them.
void drain(const Context& context, ApiClient& client, std::vector<Stopping>& jobs) {
  const auto training =
      std::count_if(jobs.begin(), jobs.end(), [](const Stopping& job) { return job.trained(); });
  proto::DrainRequest request;
  request.set_seconds(static_cast<int>(2 * (kCheckpointSeconds + kStopSeconds)));
  if (!client.send("POST", "drain", &request, nullptr).ok()) return;
  ProgressLine line(context.json);
  if (training > 0) {
    line.show(fmt::format("waiting up to {:.0f} s for {} running job{} to stop in a checkpoint",
                          kCheckpointSeconds, training, training == 1 ? "" : "s"));
  }
  wait_until(kCheckpointSeconds, [&] {
    return std::all_of(jobs.begin(), jobs.end(), [&](Stopping& job) {
      if (!job.trained() || !has_ranks(job.left.state())) return true;
      if (const Result<proto::Job> now = client.job(job.left.id())) job.left = *now;
      return !has_ranks(job.left.state());
    });
  });
}

// How things stand, after the drain or without one.
void look(ApiClient& client, std::vector<Stopping>& jobs) {
  for (Stopping& job : jobs) {
    if (const Result<proto::Job> now = client.job(job.left.id())) job.left = *now;
    if (job.left.checkpoint().empty()) continue;
    proto::CheckpointManifest manifest;
    if (client.get("checkpoints/" + job.left.checkpoint(), manifest).ok()) {
      job.checkpoint_step = manifest.state().step();
    }
  }
}

// What becomes of a job while nothing runs.
std::string fate(const Stopping& job) {
  const std::string& checkpoint = job.left.checkpoint();
  const std::string from = checkpoint.empty() ? "from its beginning" : "from " + checkpoint;
  const proto::JobState state = job.left.state();
  if (state == proto::JOB_STATE_QUEUED && job.trained()) {
    return fmt::format("checkpoint at step {}; goes on from {} with the next 'weft up'",
                       job.checkpoint_step, checkpoint);
  }
  if (state == proto::JOB_STATE_QUEUED) return "is queued and stays so";
  if (state == proto::JOB_STATE_PAUSED) return "is paused and stays so";
  if (state == proto::JOB_STATE_STARTING) {
    return fmt::format("was just starting; the next 'weft up' starts it again {}", from);
  }
  if (!has_ranks(state)) return "is " + state_name(state);
  return fmt::format(
      "is stopped at step {} without a new checkpoint; goes on {} with the next 'weft up': {} "
      "steps "
      "are repeated",
      job.left.step(), from, job.repeated());
}

// What `down` found.
struct Stopped {
  bool anything = false;  // a program was running
  bool answered = true;   // the coordinator said what its jobs are
  std::vector<Stopping> jobs;
};

void tell(const Context& context, const Stopped& stopped) {
  if (context.json) {
    JsonWriter out(2);
    out.begin_object().key("stopped").boolean(stopped.anything).key("jobs").begin_array();
    for (const Stopping& stopping : stopped.jobs) {
      const proto::Job& job = stopping.left;
      out.begin_object().key("id").string(job.id()).key("state").string(state_name(job.state()));
      out.key("attempt").integer(job.attempt()).key("step").integer(job.step());
      out.key("steps").integer(job.steps()).key("loss");
      job.has_loss() ? out.number(job.loss()) : out.null();
      out.key("checkpoint").string(job.checkpoint());
      out.key("checkpoint_step").integer(stopping.checkpoint_step);
      out.key("repeated_steps").integer(stopping.repeated());
      out.key("fate").string(fate(stopping)).end_object();
    }
    print(out.end_array().end_object().take() + "\n");
    return;
  }
  for (const Stopping& job : stopped.jobs) {
    print(printable(fmt::format("{} ({}): {}", job.left.id(), job.left.name(), fate(job))) + "\n");
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
    if (jobs) {
      for (proto::Job& job : *jobs) stopped.jobs.push_back({job, job});
      if (!now) drain(context, *client, stopped.jobs);
      look(*client, stopped.jobs);
    }
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
