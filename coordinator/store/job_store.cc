#include "coordinator/store/job_store.h"

#include <algorithm>
#include <utility>

#include "coordinator/store/keys.h"
#include "coordinator/store/topics.h"
#include "proto/base/check.h"

namespace weft {
namespace {

template <typename Message>
Result<Message> parse(const std::string& what, std::string_view bytes) {
  Message message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(Code::kCorruption, what + ": its record in the job store cannot be read");
  }
  return message;
}

Status no_job(const std::string& id) {
  return Status(Code::kNotFound, "no such job")
      .with_field("id")
      .with_value(id)
      .with_rule("'weft ls' and GET /api/v1/jobs list what there is");
}

}  // namespace

bool is_finished(proto::JobState state) {
  return state == proto::JOB_STATE_SUCCEEDED || state == proto::JOB_STATE_FAILED ||
         state == proto::JOB_STATE_CANCELLED;
}

bool is_active(proto::JobState state) {
  return state == proto::JOB_STATE_STARTING || state == proto::JOB_STATE_RUNNING ||
         state == proto::JOB_STATE_PAUSING || state == proto::JOB_STATE_CANCELLING;
}

std::string state_name(proto::JobState state) {
  constexpr std::string_view prefix = "JOB_STATE_";
  std::string name = proto::JobState_Name(state);
  if (name.starts_with(prefix)) name.erase(0, prefix.size());
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return name;
}

proto::JobEvent& JobEdit::event(const std::string& type, const std::string& level,
                                std::string message) {
  proto::JobEvent& added = events.emplace_back();
  added.set_type(type);
  added.set_level(level);
  added.set_message(std::move(message));
  return added;
}

JobStore::JobStore(std::unique_ptr<KeyValue> bytes, const Clock& clock)
    : bytes_(std::move(bytes)), clock_(clock) {}
JobStore::~JobStore() = default;

Result<std::unique_ptr<JobStore>> JobStore::open(std::unique_ptr<KeyValue> bytes,
                                                 const Clock& clock) {
  std::unique_ptr<JobStore> store(new JobStore(std::move(bytes), clock));
  WEFT_RETURN_IF_ERROR(store->load());
  return store;
}

Status JobStore::load() {
  WEFT_ASSIGN_OR_RETURN(const auto version, bytes_->get(keys::schema()));
  if (!version) {
    WriteSet first;
    first.puts.emplace_back(keys::schema(), keys::kSchemaVersion);
    WEFT_RETURN_IF_ERROR(bytes_->write(first));
  } else if (*version != keys::kSchemaVersion) {
    return Status(Code::kFailedPrecondition, "the job store was written by another version of weft")
        .with_field("schema version")
        .with_value(*version)
        .with_rule("must be " + std::string(keys::kSchemaVersion));
  }
  Status broken;
  const auto keep_job = [&](std::string_view key, std::string_view value) {
    auto job = parse<proto::Job>(std::string(key), value);
    if (!job) return broken = job.error(), false;
    last_submit_sequence_ = std::max(last_submit_sequence_, job->submit_sequence());
    order_[job->submit_sequence()] = job->id();
    if (!job->idempotency_key().empty()) idempotency_[job->idempotency_key()] = job->id();
    const std::string id = job->id();
    jobs_[id] = std::make_shared<proto::Job>(std::move(*job));
    return true;
  };
  WEFT_RETURN_IF_ERROR(bytes_->scan(keys::job(""), keys::after(keys::job("")), keep_job));
  WEFT_RETURN_IF_ERROR(broken);
  const auto keep_node = [&](std::string_view key, std::string_view value) {
    auto node = parse<proto::NodeInfo>(std::string(key), value);
    if (!node) return broken = node.error(), false;
    const std::string name = node->name();
    nodes_[name] = std::move(*node);
    return true;
  };
  WEFT_RETURN_IF_ERROR(bytes_->scan(keys::node(""), keys::after(keys::node("")), keep_node));
  WEFT_RETURN_IF_ERROR(broken);
  for (const auto& [id, job] : jobs_) {
    Counters& counters = counters_[id];
    const auto number = [](const auto& entry) {
      return entry ? static_cast<int64_t>(keys::from_big_endian(
                         std::string_view(entry->first).substr(entry->first.size() - 8)))
                   : int64_t{0};
    };
    WEFT_ASSIGN_OR_RETURN(const auto event,
                          bytes_->last(keys::events(id), keys::after(keys::events(id))));
    WEFT_ASSIGN_OR_RETURN(const auto metric,
                          bytes_->last(keys::metrics(id), keys::after(keys::metrics(id))));
    counters = {number(event), number(metric)};
  }
  return {};
}

JobPointer JobStore::find(const std::string& id) const {
  std::lock_guard lock(cache_mutex_);
  auto it = jobs_.find(id);
  return it == jobs_.end() ? nullptr : it->second;
}

Result<proto::Job> JobStore::job(const std::string& id) const {
  const JobPointer found = find(id);
  if (!found) return fail(no_job(id));
  return *found;
}

std::vector<JobPointer> JobStore::jobs() const {
  std::lock_guard lock(cache_mutex_);
  std::vector<JobPointer> all;
  all.reserve(order_.size());
  for (const auto& [sequence, id] : order_) all.push_back(jobs_.at(id));
  return all;
}

// Under write_mutex_. Null: the key is free.
Result<JobPointer> JobStore::keyed(const std::string& key, const std::string& request_hash) const {
  auto it = key.empty() ? idempotency_.end() : idempotency_.find(key);
  if (it == idempotency_.end()) return JobPointer();
  const JobPointer earlier = find(it->second);
  if (earlier->request_hash() == request_hash) return earlier;
  return fail(
      Status(Code::kAlreadyExists, "this idempotency key was used for another request")
          .with_field("Idempotency-Key")
          .with_value(key)
          .with_rule("take a new key for each new request; " + earlier->id() + " holds this one"));
}

Result<JobPointer> JobStore::find_by_key(const std::string& key, const std::string& request_hash) {
  std::lock_guard writer(write_mutex_);
  return keyed(key, request_hash);
}

Result<proto::Job> JobStore::create_job(JobEdit edit) {
  std::lock_guard writer(write_mutex_);
  WEFT_ASSIGN_OR_RETURN(const JobPointer earlier,
                        keyed(edit.job.idempotency_key(), edit.job.request_hash()));
  if (earlier) return *earlier;
  if (find(edit.job.id())) return fail(Code::kAlreadyExists, "job id taken: " + edit.job.id());
  edit.job.set_submit_sequence(last_submit_sequence_ + 1);
  edit.job.set_created_ms(clock_.wall_ms());
  WEFT_ASSIGN_OR_RETURN(proto::Job stored, commit(std::move(edit), nullptr, {}));
  last_submit_sequence_ = stored.submit_sequence();
  if (!stored.idempotency_key().empty()) idempotency_[stored.idempotency_key()] = stored.id();
  return stored;
}

Result<proto::Job> JobStore::edit_job(const std::string& id, const JobEditor& editor) {
  std::lock_guard writer(write_mutex_);
  const JobPointer before = find(id);
  if (!before) return fail(no_job(id));
  JobEdit edit;
  edit.job = *before;
  WEFT_RETURN_IF_ERROR(editor(edit));
  return commit(std::move(edit), before, {});
}

namespace {
Status check_fence(const proto::Job& job, int32_t attempt) {
  if (is_active(job.state()) && job.attempt() == attempt) return {};
  return Status(Code::kStale, job.id() + ": attempt " + std::to_string(attempt) + " is over")
      .with_field("attempt")
      .with_value(std::to_string(attempt))
      .with_rule("the job is " + state_name(job.state()) + " on attempt " +
                 std::to_string(job.attempt()));
}
}  // namespace

Result<proto::Job> JobStore::edit_attempt(const std::string& id, int32_t attempt,
                                          const JobEditor& editor) {
  return edit_job(id, [&](JobEdit& edit) -> Status {
    WEFT_RETURN_IF_ERROR(check_fence(edit.job, attempt));
    return editor(edit);
  });
}

Result<bool> JobStore::apply_rank(const std::string& id, const RankPosition& position,
                                  const JobEditor& editor) {
  std::lock_guard writer(write_mutex_);
  const JobPointer before = find(id);
  if (!before) return fail(no_job(id));
  WriteSet set;
  if (position.sequence > 0) {
    const std::string key = keys::rank(id, position.attempt, position.rank);
    WEFT_ASSIGN_OR_RETURN(const auto stored, bytes_->get(key));
    const uint64_t last = stored ? keys::from_big_endian(*stored) : 0;
    if (position.sequence <= last) return false;
    WEFT_RETURN_IF_ERROR(check_fence(*before, position.attempt));
    if (position.sequence != last + 1) {
      return fail(Status(Code::kFailedPrecondition, id + ": a message of the rank is missing")
                      .with_field("sequence")
                      .with_value(std::to_string(position.sequence))
                      .with_rule("the next one must be " + std::to_string(last + 1)));
    }
    set.puts.emplace_back(key, keys::big_endian(position.sequence, 8));
  }
  WEFT_RETURN_IF_ERROR(check_fence(*before, position.attempt));
  JobEdit edit;
  edit.job = *before;
  WEFT_RETURN_IF_ERROR(editor(edit));
  WEFT_ASSIGN_OR_RETURN(const proto::Job ignored, commit(std::move(edit), before, std::move(set)));
  return true;
}

// Under write_mutex_. Sequences are taken from counters_ but move it only once the write is
// durable.
Result<proto::Job> JobStore::commit(JobEdit edit, const JobPointer& before, WriteSet set) {
  const std::string id = edit.job.id();
  WEFT_CHECK(!before || before->id() == id);
  unsigned topics = 0;
  if (!edit.events.empty()) topics |= kTopicEvents;
  if (!edit.metrics.empty()) topics |= kTopicMetrics;
  if (!edit.checkpoints.empty() || !edit.removed_checkpoints.empty()) topics |= kTopicCheckpoints;
  const std::string bytes_before = before ? before->SerializeAsString() : "";
  if (!before || edit.job.SerializeAsString() != bytes_before) topics |= kTopicJob;
  if (topics == 0 && set.puts.empty()) return edit.job;
  edit.job.set_updated_ms(clock_.wall_ms());
  fill_events(edit, set);
  fill_metrics(edit, set);
  WEFT_RETURN_IF_ERROR(fill_checkpoints(edit, set));
  if (topics & kTopicJob) set.puts.emplace_back(keys::job(id), edit.job.SerializeAsString());
  WEFT_RETURN_IF_ERROR(bytes_->write(set));

  Counters& counters = counters_[id];
  if (!edit.events.empty()) counters.events = edit.events.back().sequence();
  if (!edit.metrics.empty()) counters.metrics = edit.metrics.back().sequence();
  if (topics & kTopicJob) {
    std::lock_guard lock(cache_mutex_);
    jobs_[id] = std::make_shared<proto::Job>(edit.job);
    order_[edit.job.submit_sequence()] = id;
  }
  if (topics != 0) hub_.notify(id, topics);
  return std::move(edit.job);
}

void JobStore::fill_events(JobEdit& edit, WriteSet& set) {
  int64_t sequence = counters_[edit.job.id()].events;
  for (proto::JobEvent& event : edit.events) {
    event.set_sequence(++sequence);
    event.set_time_ms(clock_.wall_ms());
    event.set_attempt(edit.job.attempt());
    if (event.step() == 0) event.set_step(edit.job.step());
    set.puts.emplace_back(keys::event(edit.job.id(), sequence), event.SerializeAsString());
  }
}

void JobStore::fill_metrics(JobEdit& edit, WriteSet& set) {
  int64_t sequence = counters_[edit.job.id()].metrics;
  for (proto::MetricRecord& record : edit.metrics) {
    record.set_sequence(++sequence);
    record.set_attempt(edit.job.attempt());
    if (record.time_ms() == 0) record.set_time_ms(clock_.wall_ms());
    set.puts.emplace_back(keys::metric(edit.job.id(), sequence), record.SerializeAsString());
  }
}

Status JobStore::fill_checkpoints(JobEdit& edit, WriteSet& set) {
  for (const std::string& id : edit.removed_checkpoints) {
    WEFT_ASSIGN_OR_RETURN(const proto::CheckpointManifest old, checkpoint(id));
    set.removes.push_back(keys::checkpoint(id));
    set.removes.push_back(keys::checkpoint_of(old.job(), old.created_ms(), id));
  }
  for (const proto::CheckpointManifest& manifest : edit.checkpoints) {
    WEFT_CHECK(!manifest.id().empty() && manifest.job() == edit.job.id());
    set.puts.emplace_back(keys::checkpoint(manifest.id()), manifest.SerializeAsString());
    set.puts.emplace_back(keys::checkpoint_of(manifest.job(), manifest.created_ms(), manifest.id()),
                          "");
  }
  return {};
}

void JobStore::set_wait(const std::string& id, const std::string& reason, bool infeasible) {
  std::lock_guard writer(write_mutex_);
  const JobPointer before = find(id);
  if (!before || before->state() != proto::JOB_STATE_QUEUED) return;
  if (before->reason() == reason && before->infeasible() == infeasible) return;
  auto after = std::make_shared<proto::Job>(*before);
  after->set_reason(reason);
  after->set_infeasible(infeasible);
  {
    std::lock_guard lock(cache_mutex_);
    jobs_[id] = std::move(after);
  }
  hub_.notify(id, kTopicJob);
}

void JobStore::set_stall(const std::string& id, const std::string& why) {
  {
    std::lock_guard lock(cache_mutex_);
    const auto it = stalls_.find(id);
    if ((it == stalls_.end() ? "" : it->second) == why) return;
    if (why.empty()) {
      stalls_.erase(it);
    } else {
      stalls_[id] = why;
    }
  }
  hub_.notify(id, kTopicJob);
}

proto::Job JobStore::show(proto::Job job) const {
  std::lock_guard lock(cache_mutex_);
  const auto it = stalls_.find(job.id());
  if (it == stalls_.end() || !is_active(job.state())) return job;
  job.set_reason(it->second + (job.reason().empty() ? "" : "; " + job.reason()));
  return job;
}

Status JobStore::remove_job(const std::string& id) {
  std::lock_guard writer(write_mutex_);
  const JobPointer job = find(id);
  if (!job) return no_job(id);
  if (!is_finished(job->state())) {
    return Status(Code::kFailedPrecondition, id + " is " + state_name(job->state()))
        .with_field("state")
        .with_value(state_name(job->state()))
        .with_rule("only a finished job can be removed; cancel it first");
  }
  WriteSet set;
  set.removes.push_back(keys::job(id));
  WEFT_ASSIGN_OR_RETURN(const auto manifests, checkpoints(id));
  for (const auto& manifest : manifests) set.removes.push_back(keys::checkpoint(manifest.id()));
  for (const std::string& prefix : {keys::events(id), keys::metrics(id), keys::logs(id),
                                    keys::ranks(id), keys::checkpoints(id)}) {
    set.removed_ranges.emplace_back(prefix, keys::after(prefix));
  }
  WEFT_RETURN_IF_ERROR(bytes_->write(set));
  counters_.erase(id);
  if (!job->idempotency_key().empty()) idempotency_.erase(job->idempotency_key());
  {
    std::lock_guard lock(cache_mutex_);
    order_.erase(job->submit_sequence());
    jobs_.erase(id);
  }
  hub_.notify(id, kTopicJob | kTopicCheckpoints);
  return {};
}

Status JobStore::probe() {
  WriteSet set;
  set.puts.emplace_back(keys::probe(), std::to_string(clock_.wall_ms()));
  return bytes_->write(set);
}

}  // namespace weft
