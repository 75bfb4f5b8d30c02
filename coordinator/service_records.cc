// What jobs tell, checkpoints, uploads, nodes and health.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "coordinator/coordinator_service.h"
#include "coordinator/store/topics.h"
#include "proto/base/disk.h"

namespace weft {

static_assert(kWatchJob == kTopicJob && kWatchEvents == kTopicEvents &&
              kWatchMetrics == kTopicMetrics && kWatchLogs == kTopicLogs &&
              kWatchCheckpoints == kTopicCheckpoints && kWatchNodes == kTopicNodes);

namespace {

class HubSubscription final : public Subscription {
 public:
  explicit HubSubscription(std::unique_ptr<WatchHub::Ticket> ticket) : ticket_(std::move(ticket)) {}

 private:
  std::unique_ptr<WatchHub::Ticket> ticket_;
};

Status check_page(int64_t after, int limit) {
  if (after < 0) return Status::invalid("after", std::to_string(after), "must be at least 0");
  if (limit >= 1 && limit <= kPageLimitMax) return {};
  return Status::invalid("limit", std::to_string(limit),
                         "must be 1 to " + std::to_string(kPageLimitMax));
}

// The probe's record is so small that a full disk often still takes it; a chunk it does not.
Status check_room(int64_t free_bytes, int64_t bytes) {
  const int64_t needed = kept_free(bytes) + kChunkBytesMax;
  if (free_bytes >= needed) return {};
  return Status(Code::kResourceExhausted, "the coordinator's disk is full")
      .with_rule("free some room; it takes chunks from " + std::to_string(needed) + " bytes on")
      .with_value(std::to_string(free_bytes) + " free");
}

template <typename T>
SequencePage<T> page_of(std::vector<T> items, int64_t after, int limit) {
  SequencePage<T> page;
  page.more = static_cast<int>(items.size()) > limit;
  if (page.more) items.pop_back();
  page.next = items.empty() ? after : items.back().sequence();
  page.items = std::move(items);
  return page;
}

}  // namespace

CoordinatorService::CoordinatorService(Parts parts)
    : parts_(std::move(parts)), started_(parts_.clock.monotonic()) {}

Result<SequencePage<proto::JobEvent>> CoordinatorService::events(const std::string& job,
                                                                 int64_t after, int limit) {
  WEFT_RETURN_IF_ERROR(check_page(after, limit));
  WEFT_ASSIGN_OR_RETURN(const proto::Job known, parts_.store.job(job));
  WEFT_ASSIGN_OR_RETURN(auto items, parts_.store.events(known.id(), after, limit + 1));
  return page_of(std::move(items), after, limit);
}

Result<SequencePage<proto::MetricRecord>> CoordinatorService::metrics(const std::string& job,
                                                                      int64_t after, int limit,
                                                                      const std::string& task) {
  WEFT_RETURN_IF_ERROR(check_page(after, limit));
  WEFT_ASSIGN_OR_RETURN(const proto::Job known, parts_.store.job(job));
  WEFT_ASSIGN_OR_RETURN(auto items, parts_.store.metrics(known.id(), after, limit + 1));
  auto page = page_of(std::move(items), after, limit);
  if (!task.empty()) {
    std::erase_if(page.items, [&](const auto& record) { return record.task() != task; });
  }
  return page;
}

Result<std::vector<LogStream>> CoordinatorService::log_streams(const std::string& job) {
  WEFT_ASSIGN_OR_RETURN(const proto::Job known, parts_.store.job(job));
  WEFT_ASSIGN_OR_RETURN(const auto extents, parts_.store.log_extents(known.id()));
  std::vector<LogStream> streams;
  for (const LogExtent& extent : extents) {
    streams.push_back({extent.attempt, extent.rank, extent.bytes});
  }
  return streams;
}

Result<LogSlice> CoordinatorService::logs(const std::string& job, int32_t attempt, int32_t rank,
                                          int64_t offset, int64_t limit) {
  WEFT_ASSIGN_OR_RETURN(const proto::Job known, parts_.store.job(job));
  if (offset < 0) {
    return fail(Status::invalid("offset", std::to_string(offset), "must be at least 0"));
  }
  if (limit < 1 || limit > kLogSliceBytesMax) {
    return fail(Status::invalid("limit", std::to_string(limit),
                                "must be 1 to " + std::to_string(kLogSliceBytesMax)));
  }
  if (attempt < 0 || attempt > known.attempt()) {
    return fail(Status::invalid(
        "attempt", std::to_string(attempt),
        "must be 1 to " + std::to_string(known.attempt()) + ", or 0 for the current one"));
  }
  const int last = std::max(1, known.spec().resources().slots()) - 1;
  if (rank < -1 || rank > last) {
    return fail(Status::invalid("rank", std::to_string(rank),
                                (last == 0 ? "must be 0" : "must be 0 to " + std::to_string(last)) +
                                    ", or -1 for the launcher"));
  }
  LogSlice slice;
  slice.attempt = attempt == 0 ? known.attempt() : attempt;
  slice.rank = rank;
  slice.offset = offset;
  slice.complete = slice.attempt < known.attempt() || !is_active(known.state());
  if (slice.attempt > 0) {
    WEFT_ASSIGN_OR_RETURN(slice.data,
                          parts_.store.read_log(job, slice.attempt, rank, offset, limit));
    WEFT_ASSIGN_OR_RETURN(slice.bytes, parts_.store.log_length(job, slice.attempt, rank));
  }
  slice.next = offset + static_cast<int64_t>(slice.data.size());
  return slice;
}

std::unique_ptr<Subscription> CoordinatorService::watch(const std::string& job, unsigned topics,
                                                        std::function<void()> wake) {
  return std::make_unique<HubSubscription>(
      parts_.store.hub().subscribe(job, topics, std::move(wake)));
}

Result<std::vector<proto::CheckpointManifest>> CoordinatorService::checkpoints(
    const std::string& job) {
  WEFT_ASSIGN_OR_RETURN(const proto::Job known, parts_.store.job(job));
  WEFT_ASSIGN_OR_RETURN(auto found, parts_.store.checkpoints(known.id()));
  for (auto& manifest : found) manifest.clear_tensors();
  return found;
}

Result<proto::CheckpointManifest> CoordinatorService::checkpoint(const std::string& id) {
  return parts_.store.checkpoint(id);
}

Result<std::shared_ptr<const proto::CheckpointManifest>> CoordinatorService::read_checkpoint(
    const std::string& id) {
  return parts_.content.read_checkpoint(id);
}

namespace {

// The one with the lowest validation loss but for `without`; empty: none has any.
std::string best_of(const std::vector<proto::CheckpointManifest>& stored,
                    const std::string& without) {
  const proto::CheckpointManifest* best = nullptr;
  for (const proto::CheckpointManifest& each : stored) {
    if (each.id() == without || !each.has_validation_loss()) continue;
    if (!std::isfinite(each.validation_loss())) continue;
    if (best == nullptr || each.validation_loss() < best->validation_loss()) best = &each;
  }
  return best == nullptr ? "" : best->id();
}

}  // namespace

Status CoordinatorService::remove_checkpoint(const std::string& id) {
  WEFT_ASSIGN_OR_RETURN(const auto manifest, parts_.store.checkpoint(id));
  for (const JobPointer& job : parts_.store.jobs()) {
    if (is_finished(job->state())) continue;
    if (job->checkpoint() == id || job->spec().model().from() == id) {
      return Status(Code::kFailedPrecondition, job->id() + " needs this checkpoint")
          .with_field("id")
          .with_value(id)
          .with_rule("wait until that job has finished, or cancel it");
    }
  }
  const auto stored = parts_.store.edit_job(manifest.job(), [&](JobEdit& edit) -> Status {
    edit.removed_checkpoints.push_back(id);
    if (edit.job.checkpoint() == id) {
      WEFT_ASSIGN_OR_RETURN(auto ids, parts_.store.checkpoint_ids(manifest.job()));
      std::erase(ids, id);
      edit.job.set_checkpoint(ids.empty() ? "" : ids.back());
    }
    if (edit.job.best_checkpoint() == id) {
      WEFT_ASSIGN_OR_RETURN(const auto all, parts_.store.checkpoints(manifest.job()));
      edit.job.set_best_checkpoint(best_of(all, id));
    }
    edit.event("checkpoint_removed", "info", id + " removed by request");
    return {};
  });
  return stored ? Status() : stored.error();
}

std::vector<proto::NodeInfo> CoordinatorService::nodes() { return parts_.store.nodes(); }

Status CoordinatorService::forget_node(const std::string& name) {
  return parts_.store.forget_node(name);
}

Status CoordinatorService::put_chunk(const std::string& hash, std::string_view bytes) {
  return parts_.content.put_chunk(hash, bytes);
}

Result<std::string> CoordinatorService::get_chunk(const std::string& hash) {
  return parts_.content.get_chunk(hash);
}

Result<std::vector<std::string>> CoordinatorService::missing_chunks(
    const std::vector<std::string>& hashes) {
  constexpr size_t most = 100'000;
  if (hashes.size() > most) {
    return fail(Status::invalid("hashes", std::to_string(hashes.size()),
                                "must be at most " + std::to_string(most) + " a request"));
  }
  return parts_.content.missing(hashes);
}

Result<proto::ObjectManifest> CoordinatorService::put_object(proto::ObjectManifest manifest) {
  return parts_.content.put_object(std::move(manifest));
}

Result<proto::ObjectManifest> CoordinatorService::object(const std::string& id) {
  return parts_.store.object(id);
}

// One write a second at most, however often it is asked, and one at a time: while the disk stalls
// one caller waits for it, the others are told at once.
Status CoordinatorService::probe() {
  constexpr auto kSlow = std::chrono::seconds(2);
  std::unique_lock lock(probe_mutex_);
  const Clock::Duration now = parts_.clock.monotonic();
  if (probing_ && now - probed_ > kSlow) {
    return {Code::kUnavailable, "the store does not answer; see whether its disk is stuck"};
  }
  if (probing_ || (probed_.count() >= 0 && now - probed_ < std::chrono::seconds(1))) return probe_;
  probing_ = true;
  probed_ = now;
  lock.unlock();
  Status status = parts_.store.probe();
  if (status.ok()) status = parts_.content.room();
  lock.lock();
  probing_ = false;
  return probe_ = std::move(status);
}

Health CoordinatorService::health() {
  Health health;
  Status writes = probe();
  health.version = parts_.version;
  health.uptime_seconds =
      std::chrono::duration_cast<std::chrono::seconds>(parts_.clock.monotonic() - started_).count();
  std::error_code error;
  if (!parts_.data_folder.empty()) {
    const auto space = std::filesystem::space(parts_.data_folder, error);
    if (!error) health.disk_free_bytes = static_cast<int64_t>(space.available);
    if (!error && writes.ok()) {
      writes = check_room(health.disk_free_bytes, static_cast<int64_t>(space.capacity));
    }
  }
  health.ready = writes.ok();
  if (!writes.ok()) health.problem = writes.to_string();
  health.chunk_bytes = parts_.content.bytes();
  for (const auto& node : parts_.store.nodes()) {
    (node.state() == proto::NODE_STATE_READY ? health.nodes_ready : health.nodes_lost) += 1;
  }
  for (const JobPointer& job : parts_.store.jobs()) ++health.jobs[state_name(job->state())];
  return health;
}

}  // namespace weft
