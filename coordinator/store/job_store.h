// The durable record of jobs, their events, metrics, logs and checkpoints, of uploaded objects and
// of the nodes that ever joined. docs/FORMAT.md describes the bytes.
//
// Thread safety: every call from any thread; edits run one at a time. Ownership: owns its database.
// Invariants:
// 1. A job's state changes in one synced batch together with the event that tells of it.
// 2. A write for an attempt carries its number and is refused as kStale, inside the critical
// section
//    that would apply it, unless the job is active and on that attempt.
// 3. A rank's message is applied once: its sequence is stored in the batch that applies it.
// 4. What the memory cache shows is durable; a failed write changes nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/store/key_value.h"
#include "coordinator/store/watch.h"
#include "proto/base/clock.h"
#include "proto/base/status.h"
#include "proto/checkpoint.pb.h"
#include "proto/job.pb.h"
#include "proto/node.pb.h"
#include "proto/object.pb.h"
#include "proto/train.pb.h"

namespace weft {

using JobPointer = std::shared_ptr<const proto::Job>;

bool is_finished(proto::JobState state);  // succeeded, failed, cancelled
bool is_active(proto::JobState state);    // starting, running, pausing, cancelling: holds its slots
std::string state_name(proto::JobState state);  // "queued", ...

// What one batch changes of a job. The store fills in sequences, times and attempt numbers.
struct JobEdit {
  proto::Job job;
  std::vector<proto::JobEvent> events;
  std::vector<proto::MetricRecord> metrics;
  std::vector<proto::CheckpointManifest> checkpoints;  // newly committed, ids set
  std::vector<std::string> removed_checkpoints;

  proto::JobEvent& event(const std::string& type, const std::string& level, std::string message);
};
using JobEditor = std::function<Status(JobEdit&)>;  // a failure cancels the whole edit

struct RankPosition {
  int32_t attempt = 0;
  int32_t rank = 0;
  uint64_t sequence = 0;  // 0: not numbered, applied every time
};

struct LogExtent {
  int32_t attempt = 0;
  int32_t rank = 0;
  int64_t bytes = 0;
};

class JobStore {
 public:
  static Result<std::unique_ptr<JobStore>> open(std::unique_ptr<KeyValue> bytes,
                                                const Clock& clock);
  ~JobStore();

  // ---- jobs
  // Stores `edit.job` (id set by the caller) as a new job with its events. Where the job carries an
  // idempotency key that is taken: the earlier job if the request hash is equal, else
  // kAlreadyExists.
  Result<proto::Job> create_job(JobEdit edit);
  Result<proto::Job> job(const std::string& id) const;
  // The job that was submitted under this idempotency key; kAlreadyExists: by another request.
  Result<JobPointer> find_by_key(const std::string& key, const std::string& request_hash);
  JobPointer find(const std::string& id) const;  // null: no such job
  std::vector<JobPointer> jobs() const;          // in order of submission
  // Reads, lets `editor` change, writes. Returns the job as stored. Nothing changed: nothing
  // written.
  Result<proto::Job> edit_job(const std::string& id, const JobEditor& editor);
  // The same for a write of one attempt (invariant 2).
  Result<proto::Job> edit_attempt(const std::string& id, int32_t attempt, const JobEditor& editor);
  // The same for a message of a rank (invariants 2, 3). false: applied earlier, nothing done.
  // kFailedPrecondition: an earlier message of that rank is missing; it must be sent first.
  Result<bool> apply_rank(const std::string& id, const RankPosition& position,
                          const JobEditor& editor);
  // Why a queued job waits: only what readers see changes, for the scheduler finds it out anew.
  void set_wait(const std::string& id, const std::string& reason, bool infeasible);
  // What an active job waits for while it holds its slots (room on a disk); "": nothing. Readers
  // see it (show), nothing of it is stored.
  void set_stall(const std::string& id, const std::string& why);
  // The job as readers see it: what it waits for stands before its own reason.
  proto::Job show(proto::Job job) const;
  // Only a finished job; with everything that belongs to it.
  Status remove_job(const std::string& id);

  // ---- what a job tells; sequence > after, oldest first
  Result<std::vector<proto::JobEvent>> events(const std::string& job, int64_t after,
                                              int limit) const;
  Result<std::vector<proto::MetricRecord>> metrics(const std::string& job, int64_t after,
                                                   int limit) const;
  // Appends what is new of `data`, which starts at byte `offset` of that log; returns the log's
  // length afterwards. A gap (offset beyond the end) stores nothing and returns the length too.
  Result<int64_t> append_log(const std::string& job, int32_t attempt, int32_t rank, int64_t offset,
                             std::string_view data);
  Result<std::string> read_log(const std::string& job, int32_t attempt, int32_t rank,
                               int64_t offset, int64_t limit) const;
  Result<int64_t> log_length(const std::string& job, int32_t attempt, int32_t rank) const;
  Result<std::vector<LogExtent>> log_extents(const std::string& job) const;

  // ---- checkpoints, objects, nodes
  Result<std::vector<proto::CheckpointManifest>> checkpoints(const std::string& job) const;
  Result<std::vector<std::string>> checkpoint_ids(const std::string& job) const;  // newest last
  Result<proto::CheckpointManifest> checkpoint(const std::string& id) const;
  Status for_each_checkpoint(
      const std::function<void(const proto::CheckpointManifest&)>& visit) const;
  Status put_object(const proto::ObjectManifest& manifest);
  Result<proto::ObjectManifest> object(const std::string& id) const;
  Status for_each_object(const std::function<void(const proto::ObjectManifest&)>& visit) const;
  // durable false: only what nodes() shows changes (heartbeats).
  Status put_node(const proto::NodeInfo& node, bool durable);
  std::vector<proto::NodeInfo> nodes() const;  // in name order; joined and not forgotten
  bool has_node(const std::string& name) const;
  // Only one that is lost and where no active job is placed; kNotFound, kFailedPrecondition.
  Status forget_node(const std::string& name);

  // Writes a small record; ok when the store accepts writes.
  Status probe();
  WatchHub& hub() { return hub_; }

 private:
  JobStore(std::unique_ptr<KeyValue> bytes, const Clock& clock);
  Status load();
  Result<JobPointer> keyed(const std::string& key, const std::string& request_hash) const;
  Result<proto::Job> commit(JobEdit edit, const JobPointer& before, WriteSet set);
  void fill_events(JobEdit& edit, WriteSet& set);
  void fill_metrics(JobEdit& edit, WriteSet& set);
  Status fill_checkpoints(JobEdit& edit, WriteSet& set);

  const std::unique_ptr<KeyValue> bytes_;
  const Clock& clock_;
  WatchHub hub_;

  struct Counters {
    int64_t events = 0;  // last sequence given
    int64_t metrics = 0;
  };
  std::mutex write_mutex_;  // one edit at a time; guards the next members
  int64_t last_submit_sequence_ = 0;
  std::map<std::string, Counters> counters_;
  std::map<std::string, std::string> idempotency_;  // key -> job

  mutable std::mutex cache_mutex_;  // short; guards what readers see
  std::map<std::string, JobPointer> jobs_;
  std::map<int64_t, std::string> order_;  // submit sequence -> job
  std::map<std::string, proto::NodeInfo> nodes_;
  std::map<std::string, std::string> stalls_;  // job -> why
};

}  // namespace weft
