#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_cluster.h"

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
void save_running(ApiClient& client, std::vector<proto::Job>& jobs) {
  std::vector<const proto::Job*> asked;
  for (const proto::Job& job : jobs) {
    if (job.state() != proto::JOB_STATE_RUNNING) continue;
    if (client.send("POST", "jobs/" + job.id() + "/checkpoint", nullptr, nullptr).ok()) {
      asked.push_back(&job);
    }
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

void tell(const std::vector<proto::Job>& jobs) {
  for (const proto::Job& job : jobs) {
    const std::string name = fmt::format("{} ({})", job.id(), job.name());
    switch (job.state()) {
      case proto::JOB_STATE_QUEUED:
        print(name + " is queued and stays so\n");
        break;
      case proto::JOB_STATE_PAUSED:
        print(name + " is paused and stays so\n");
        break;
      case proto::JOB_STATE_STARTING:
      case proto::JOB_STATE_RUNNING:
      case proto::JOB_STATE_PAUSING:
      case proto::JOB_STATE_CANCELLING:
        print(fmt::format(
            "{} is stopped at step {}; the next 'weft up' goes on {}\n", name, job.step(),
            job.checkpoint().empty() ? "from its beginning" : "from " + job.checkpoint()));
        break;
      default:
        print(fmt::format("{} is {}\n", name, state_name(job.state())));
    }
  }
}

Status stop_all(const Context& context, bool now) {
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
    if (jobs) {
      if (!now) save_running(*client, *jobs);
      if (!context.json) tell(*jobs);
    } else if (!context.json) {
      print(
          "the coordinator does not answer; its jobs go on from their last checkpoints at the "
          "next 'weft up'\n");
    }
  }
  // The coordinator first: what the ending ranks report reaches it at the next start, in which
  // their attempts are found to be over.
  stop_processes({coordinator}, kStopSeconds);
  stop_processes(programs.agents(), kStopSeconds);
  return Status();
}

}  // namespace

int down(const Context& context, bool now) {
  const Status status = stop_all(context, now);
  if (status.code() == Code::kNotFound) {
    if (!context.json) print("nothing runs for " + data_folder(context.settings) + "\n");
    return kExitOk;
  }
  if (!status.ok()) return report(context, status);
  if (!context.json) print("stopped\n");
  return kExitOk;
}

}  // namespace weft::cli
