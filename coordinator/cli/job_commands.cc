#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/job_file.h"
#include "coordinator/cli/progress_line.h"
#include "coordinator/cli/upload.h"
#include "coordinator/cli/usage.h"
#include "proto/api.pb.h"
#include "proto/base/clock.h"
#include "proto/base/hash.h"
#include "proto/json/names.h"
#include "worker/admission/mesh_text.h"

namespace weft::cli {
namespace {

constexpr int kPageMax = 1000;

std::string kind_name(proto::JobKind kind) {
  const auto* value = proto::JobKind_descriptor()->FindValueByNumber(kind);
  return value == nullptr ? "" : enum_name(*value);
}

std::string percent(const proto::Job& job) {
  if (job.steps() <= 0) return "-";
  return fmt::format("{}/{}", job.step(), job.steps());
}

Status list_page(ApiClient& client, const ListOptions& options, const std::string& after,
                 proto::JobPage& page) {
  std::string path = fmt::format("jobs?order=newest&limit={}",
                                 options.all ? kPageMax : std::clamp(options.limit, 1, kPageMax));
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) path += fmt::format("&{}={}", name, encoded(value));
  };
  add("state", options.state);
  add("name", options.name);
  add("kind", options.kind);
  add("after", after);
  for (const std::string& label : options.labels) add("label", label);
  return client.get(path, page);
}

std::string job_table(const Context& context, const proto::JobPage& page) {
  Table table({"ID", "NAME", "KIND", "STATE", "ATTEMPT", "STEP", "LOSS", "AGE", "REASON"});
  table.drop_first({2, 4, 7});
  table.shrink(1);
  for (const size_t column : {4, 5, 6, 7}) table.align_right(column);
  const int64_t now = SystemClock().wall_ms();
  for (const proto::Job& job : page.jobs()) {
    table.add({job.id(), job.name(), kind_name(job.kind()), state_name(job.state()),
               std::to_string(job.attempt()), percent(job),
               job.has_loss() ? show_number(job.loss()) : "-", show_age(job.created_ms(), now),
               job.reason()},
              state_color(job.state()), 3);
  }
  return table.text(context.terminal);
}

using Facts = std::vector<std::pair<std::string, std::string>>;

void add_fact(Facts& out, const std::string& name, const std::string& value) {
  if (!value.empty() && value != "-") out.emplace_back(printable(name) + ":", printable(value));
}

std::string facts_text(const Facts& facts) {
  int width = 0;
  for (const auto& [name, value] : facts) width = std::max(width, display_width(name));
  std::string out;
  for (const auto& [name, value] : facts) {
    const auto pad = static_cast<size_t>(width - display_width(name) + 1);
    out += name + std::string(pad, ' ') + value + "\n";
  }
  return out;
}

std::string rank_table(const Context& context, const proto::Job& job) {
  Table table({"RANK", "NODE", "SLOT", "PID", "DATA", "SEQUENCE", "TENSOR"});
  for (const size_t column : {0, 2, 3, 4, 5, 6}) table.align_right(column);
  for (const proto::RankInfo& rank : job.ranks()) {
    table.add({std::to_string(rank.rank()), rank.node(), std::to_string(rank.slot()),
               rank.pid() > 0 ? std::to_string(rank.pid()) : "-", std::to_string(rank.data()),
               std::to_string(rank.sequence()), std::to_string(rank.tensor())});
  }
  return table.empty() ? "" : "\n" + table.text(context.terminal);
}

// "set=a, team=search"
std::string labels_text(const proto::JobSpec& spec) {
  const std::map<std::string, std::string> sorted(spec.labels().begin(), spec.labels().end());
  std::string text;
  for (const auto& [key, value] : sorted) {
    text += (text.empty() ? "" : ", ") + key + "=" + value;
  }
  return text;
}

// "lora, rank 8, of c_attn, mlp.c_fc"
std::string adapter_text(const proto::AdapterSpec& adapter) {
  const auto* type = proto::AdapterType_descriptor()->FindValueByNumber(adapter.type());
  return fmt::format("{}, rank {}, of {}", enum_name(*type), adapter.rank(),
                     fmt::join(adapter.targets(), ", "));
}

// "294912 of 124734720 parameters (0.236%)", as the event of the submission has them; empty: it
// does not.
std::string trained_text(const proto::JobEvent& submitted) {
  const auto number = [&](const char* name) {
    const auto it = submitted.data().find(name);
    return it == submitted.data().end() ? 0 : std::strtoll(it->second.c_str(), nullptr, 10);
  };
  const auto all = number("parameters"), trained = number("trained_parameters");
  if (all == 0 || trained == all) return all == 0 ? "" : fmt::format("all {} parameters", all);
  return fmt::format("{} of {} parameters ({:.3g}%)", trained, all,
                     100.0 * static_cast<double>(trained) / static_cast<double>(all));
}

Result<proto::JobEvent> first_event(ApiClient& client, const std::string& job) {
  proto::EventPage page;
  WEFT_RETURN_IF_ERROR(
      client.get(fmt::format("jobs/{}/events?after=0&limit=1", encoded(job)), page));
  return page.events().empty() ? proto::JobEvent() : page.events(0);
}

std::string job_page(const Context& context, const proto::Job& job,
                     const proto::JobEvent& submitted) {
  Facts out;
  add_fact(out, "job", job.id());
  add_fact(out, "name", job.name());
  add_fact(out, "kind", kind_name(job.kind()));
  add_fact(out, "state", state_name(job.state()));
  add_fact(out, "reason", job.reason());
  add_fact(out, "priority", std::to_string(job.spec().priority()));
  add_fact(out, "labels", labels_text(job.spec()));
  add_fact(out, "attempt",
           fmt::format("{} (restarts in a row since the last checkpoint: {})", job.attempt(),
                       job.restarts()));
  add_fact(out, "step", percent(job));
  add_fact(out, "loss", job.has_loss() ? show_number(job.loss()) : "");
  add_fact(out, "validation", job.has_validation_loss() ? show_number(job.validation_loss()) : "");
  add_fact(out, "tokens/s",
           job.has_tokens_per_second() ? show_number(job.tokens_per_second()) : "");
  add_fact(
      out, "time left",
      job.has_seconds_left() && !is_finished(job.state()) ? show_seconds(job.seconds_left()) : "");
  add_fact(out, "trains", trained_text(submitted));
  if (job.spec().has_adapter()) add_fact(out, "adapter", adapter_text(job.spec().adapter()));
  add_fact(out, "mesh", mesh_text(job.spec().parallel()));
  if (job.has_plan()) {
    add_fact(out, "chosen", mesh_text(job.plan().chosen()));
    add_fact(out, "because", job.plan().reason());
  }
  add_fact(out, "submitted", show_time(job.created_ms()));
  add_fact(out, "started", show_time(job.started_ms()));
  add_fact(out, "finished", show_time(job.finished_ms()));
  add_fact(out, "checkpoint", job.checkpoint());
  add_fact(out, "best checkpoint", job.best_checkpoint());
  add_fact(out, "resumed", job.resume_note());
  const std::map<std::string, double> results(job.results().begin(), job.results().end());
  for (const auto& [name, value] : results) add_fact(out, name, show_number(value));
  return facts_text(out) + rank_table(context, job);
}

// The job with its defaults, if nothing is wrong with it, with what it names and with its data.
Result<proto::JobSpec> check_whole(const JobFile& file) {
  WEFT_ASSIGN_OR_RETURN(proto::JobSpec spec, check_job(file));
  if (const auto inputs = local_inputs(file); !inputs) return fail(inputs.error());
  WEFT_RETURN_IF_ERROR(check_data(file, spec));
  return spec;
}

// Uploads what the checked job names and submits it.
Result<proto::Job> send_job(const Context& context, ApiClient& client, JobFile& file,
                            const std::string& idempotency_key) {
  ProgressLine line(context.json);
  Uploader uploader(client, [&line](int64_t done, int64_t all) {
    line.show(fmt::format("uploading {} {} of {}",
                          bar(static_cast<double>(done) / static_cast<double>(all), 30),
                          show_bytes(done), show_bytes(all)));
  });
  WEFT_RETURN_IF_ERROR(
      replace_inputs(file, [&](const LocalInput& input) { return uploader.upload(input); }));
  line.clear();
  proto::Job job;
  Status status = client.send("POST", "jobs", &file.spec, &job, idempotency_key);
  if (!status.ok()) return fail(status.with_line(file.lines.find(status.field())));
  return job;
}

std::string mesh_line(const proto::Job& job) {
  return fmt::format("mesh: {}{}\n", mesh_text(job.spec().parallel()),
                     job.has_plan() ? fmt::format("; 'weft show {}' says why", job.id()) : "");
}

// Resources are one whole for the service, so what is not said stays as the job has it.
Result<proto::Job> resume_one(ApiClient& client, const std::string& id,
                              const ResumeOptions& options) {
  proto::ResumeRequest change;
  if (!options.parallel.empty()) {
    WEFT_ASSIGN_OR_RETURN(*change.mutable_parallel(), parse_mesh(options.parallel));
  }
  if (options.nodes >= 0 || options.slots >= 0) {
    WEFT_ASSIGN_OR_RETURN(const proto::Job before, client.job(id));
    proto::ResourceSpec& resources = *change.mutable_resources();
    resources = before.spec().resources();
    resources.set_slots(std::max(0, options.slots));
    if (options.nodes >= 0) resources.set_nodes(options.nodes);
  }
  const bool changes = change.has_parallel() || change.has_resources();
  proto::Job job;
  WEFT_RETURN_IF_ERROR(client.send("POST", fmt::format("jobs/{}/resume", encoded(id)),
                                   changes ? &change : nullptr, &job));
  return job;
}

}  // namespace

int submit(const Context& context, const SubmitOptions& options) {
  Result<JobFile> file = read_job_file(options.file, options.sets);
  return file ? submit_file(context, *file, options) : report(context, file.error());
}

int submit_file(const Context& context, JobFile& file, const SubmitOptions& options) {
  if (const auto whole = check_whole(file); !whole) return report(context, whole.error());
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  const std::string key =
      options.idempotency_key.empty() ? "weft-" + random_hex(16) : options.idempotency_key;
  const Result<proto::Job> job = send_job(context, *client, file, key);
  if (!job) return report(context, job.error());
  if (options.wait) {
    if (!context.json) print(fmt::format("{} is {}\n", job->id(), state_name(job->state())));
    const int status = wait_for_job(context, *client, job->id(), context.json);
    if (!context.json) return status;
    const Result<proto::Job> end = client->job(job->id());
    if (!end) return report(context, end.error());
    print_json(*end);
    return status;
  }
  if (context.json) {
    print_json(*job);
    return kExitOk;
  }
  print(fmt::format("{} is {}{}\n", job->id(), state_name(job->state()),
                    job->reason().empty() ? "" : ": " + printable(job->reason())));
  if (job->has_plan()) print(mesh_line(*job));
  print(fmt::format("'weft watch {}' follows it\n", job->id()));
  return kExitOk;
}

int validate(const Context& context, const SubmitOptions& options) {
  Result<JobFile> file = read_job_file(options.file, options.sets);
  if (!file) return report(context, file.error());
  const Result<proto::JobSpec> spec = check_whole(*file);
  if (!spec) return report(context, spec.error());
  if (context.json) {
    print_json(*spec);
  } else {
    const bool open = spec->parallel().mode() == proto::PARALLEL_MODE_AUTO;
    print(fmt::format("{}: a valid {} job of {} steps on {}\n", spec->name(),
                      kind_name(spec->kind()), spec->training().steps(),
                      open ? "the mesh that the service chooses; 'weft plan' shows it"
                           : fmt::format("{} slot{}", spec->resources().slots(),
                                         spec->resources().slots() == 1 ? "" : "s")));
  }
  return kExitOk;
}

int list_jobs(const Context& context, const ListOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  proto::JobPage all;
  std::string after;
  do {
    proto::JobPage page;
    const Status status = list_page(*client, options, after, page);
    if (!status.ok()) return report(context, status);
    after = page.next();
    all.MergeFrom(page);
  } while (options.all && !after.empty());
  all.set_next(after);
  const std::string rest =
      after.empty() ? ""
                    : fmt::format("{} of {} jobs; --all shows all\n", all.jobs_size(), all.total());
  if (context.json) {
    print_json(all);
  } else if (options.ids) {
    for (const proto::Job& job : all.jobs()) print(job.id() + "\n");
    fmt::print(stderr, "{}", rest);
  } else if (all.jobs().empty()) {
    const bool filtered = !options.state.empty() || !options.name.empty() ||
                          !options.kind.empty() || !options.labels.empty();
    print(filtered ? "no job is like that; 'weft ls' lists all\n"
                   : "no jobs; 'weft submit -f job.yaml' submits one\n");
  } else {
    print(job_table(context, all) + rest);
  }
  return kExitOk;
}

int show_job(const Context& context, const std::string& id) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  const Result<proto::Job> job = client->job(id);
  if (!job) return report(context, job.error());
  if (context.json) {
    print_json(*job);
    return kExitOk;
  }
  const Result<proto::JobEvent> submitted = first_event(*client, id);
  if (!submitted) return report(context, submitted.error());
  print(job_page(context, *job, *submitted));
  return kExitOk;
}

int act(const Context& context, const std::string& action, const std::vector<std::string>& jobs) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  int exit = kExitOk;
  for (const std::string& id : jobs) {
    proto::Job job;
    const Status status =
        client->send("POST", fmt::format("jobs/{}/{}", encoded(id), action), nullptr, &job);
    if (!status.ok()) {
      exit = report(context, status);
    } else if (context.json) {
      print_json(job);
    } else {
      print(fmt::format("{} is {}{}\n", job.id(), state_name(job.state()),
                        action == "checkpoint" ? "; a checkpoint is being written" : ""));
    }
  }
  return exit;
}

int resume(const Context& context, const ResumeOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  int exit = kExitOk;
  for (const std::string& id : options.jobs) {
    const Result<proto::Job> job = resume_one(*client, id, options);
    if (!job) {
      exit = report(context, job.error());
    } else if (context.json) {
      print_json(*job);
    } else {
      print(fmt::format("{} is {}\n", job->id(), state_name(job->state())));
      if (!options.parallel.empty()) print(mesh_line(*job));
    }
  }
  return exit;
}

int remove_jobs(const Context& context, const std::vector<std::string>& jobs) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  int exit = kExitOk;
  for (const std::string& id : jobs) {
    const Status status = client->send("DELETE", "jobs/" + encoded(id), nullptr, nullptr);
    if (!status.ok()) {
      exit = report(context, status);
    } else {
      tell_deleted(context, id);
    }
  }
  return exit;
}

int set_priority(const Context& context, const std::string& id, int priority) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  proto::JobPatch patch;
  patch.set_priority(priority);
  proto::Job job;
  const Status status = client->send("PATCH", "jobs/" + encoded(id), &patch, &job);
  if (!status.ok()) return report(context, status);
  if (context.json) {
    print_json(job);
  } else {
    print(fmt::format("{} has priority {}\n", job.id(), job.spec().priority()));
  }
  return kExitOk;
}

}  // namespace weft::cli
