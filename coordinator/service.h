// What the coordinator can be asked to do, independent of HTTP: the REST routes, the tests and the
// command line's local mode all go through this interface.
//
// Thread safety: every call from any thread; none but stack() waits for a node, some wait for a
// synced write.
// Ownership: values go in and come out; a Subscription keeps its callback registered until it is
// destroyed.
// Invariants: 1. An ok answer is durable. 2. A failure names field, value and rule where the
// caller's input is at fault: invalid_argument (bad input), not_found, already_exists (idempotency
// key reused with another body), failed_precondition (right input, wrong state), resource_exhausted
// (disk).
// 3. Sequences of events and metrics are 1, 2, 3, ... within a job without gaps, so a reader that
// asks for everything after the last one it has seen misses and repeats nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proto/api.pb.h"
#include "proto/base/status.h"
#include "proto/checkpoint.pb.h"
#include "proto/job.pb.h"
#include "proto/node.pb.h"
#include "proto/object.pb.h"
#include "proto/train.pb.h"

namespace weft {

inline constexpr int kPageLimitMax = 1000;  // items a page
inline constexpr int kPageLimitDefault = 100;
inline constexpr int kTraceStepsMax = 1000;
inline constexpr int64_t kLogSliceBytesMax = 1 << 20;  // bytes a slice

struct JobFilter {
  std::vector<proto::JobState> states;  // any of; empty: all
  proto::JobKind kind = proto::JOB_KIND_UNSPECIFIED;
  std::string name;                           // exactly; empty: all
  std::map<std::string, std::string> labels;  // all of
  std::string after;                          // `next` of the previous page
  int limit = kPageLimitDefault;              // 1 .. kPageLimitMax
  bool newest_first = false;                  // else in order of submission
};

struct JobPage {
  std::vector<proto::Job> jobs;
  std::string next;   // pass as `after` for the next page; empty: this is the last
  int64_t total = 0;  // that pass the filter, over all pages
};

// `items` are those with sequence > after, oldest first, at most limit. `next` is the sequence to
// go on after: that of the last item looked at (== after where there is nothing new).
template <typename T>
struct SequencePage {
  std::vector<T> items;
  int64_t next = 0;
  bool more = false;  // further ones are there already
};

struct LogStream {
  int32_t attempt = 0;
  int32_t rank = 0;   // -1: the launcher itself
  int64_t bytes = 0;  // received so far
};

struct LogSlice {
  std::string data;  // may cut a line or a UTF-8 sequence at its end
  int32_t attempt = 0;
  int32_t rank = 0;
  int64_t offset = 0;     // of data's first byte
  int64_t next = 0;       // offset to go on from
  int64_t bytes = 0;      // received so far; next < bytes: more is there
  bool complete = false;  // the attempt is over: nothing follows after `bytes`
};

struct Health {
  bool ready = false;   // the store accepts writes and its disk has room for a chunk
  std::string problem;  // why not, with the next step
  std::string version;
  int64_t uptime_seconds = 0;
  int64_t disk_free_bytes = 0;  // of the data folder
  int64_t chunk_bytes = 0;      // stored, approximately
  int32_t nodes_ready = 0;
  int32_t nodes_lost = 0;
  std::map<std::string, int64_t> jobs;  // count by state name ("queued", ...)
};

// What a stream is woken for; a bit mask.
enum WatchTopic : unsigned {
  kWatchJob = 1,  // the record itself: state, step, reason
  kWatchEvents = 2,
  kWatchMetrics = 4,
  kWatchLogs = 8,
  kWatchCheckpoints = 16,
  kWatchNodes = 32,  // only together with job == ""
  kWatchAll = 63,
};

// Ends the subscription when it is destroyed; afterwards the callback is neither running nor
// called.
class Subscription {
 public:
  virtual ~Subscription() = default;
};

class Service {
 public:
  virtual ~Service() = default;

  // ---- jobs ------------------------------------------------------------------------------------
  // Validates (defaults applied), chooses the mesh where parallel.mode is auto, stores and queues.
  // `idempotency_key` may be empty; the same key with the same `request_hash` returns the first
  // job, with another hash already_exists. Values of model.from (obj-, ckpt-), tokenizer.from,
  // data.train and data.validation (obj-) must name what is stored here, and the model and
  // tokenizer among them must fit the job. A request that no set of the nodes known could ever
  // satisfy is refused with field "resources..."; while no node has ever joined, everything
  // feasible in itself waits.
  virtual Result<proto::Job> submit(proto::JobSpec spec, const std::string& idempotency_key,
                                    const std::string& request_hash) = 0;
  // What submit would store, without storing it (for `validate`).
  virtual Result<proto::JobSpec> validate(proto::JobSpec spec) = 0;
  // What the meshes of a job would need, send and take on the nodes known now, and which one
  // `parallel: auto` would get; nothing of its data has to be stored. Nothing chosen: nothing fits.
  virtual Result<proto::JobPlan> plan(const proto::PlanRequest& request) = 0;
  virtual Result<proto::Job> job(const std::string& id) = 0;
  virtual Result<JobPage> jobs(const JobFilter& filter) = 0;
  // All of these return the job as it is afterwards, and are idempotent: cancelling a cancelled or
  // cancelling job is ok, cancelling a succeeded one is failed_precondition.
  virtual Result<proto::Job> cancel(const std::string& id) = 0;
  virtual Result<proto::Job> pause(const std::string& id) = 0;
  // Queues a paused or failed job again. `change` (it may be empty) gives it another mesh and other
  // resources, checked, planned and admitted as submit does: of a queued job too; of one that
  // starts or runs it is failed_precondition, unless that is what it runs on. The batch stays, and
  // of topology-invariant training the rows at once.
  virtual Result<proto::Job> resume(const std::string& id, const proto::ResumeRequest& change) = 0;
  virtual Result<proto::Job> checkpoint_now(const std::string& id) = 0;  // the job must be running
  virtual Result<proto::Job> set_priority(const std::string& id, int32_t priority) = 0;
  // Only a finished job; its events, metrics, logs and checkpoints go with it.
  virtual Status remove(const std::string& id) = 0;

  // ---- what a job tells ------------------------------------------------------------------------
  virtual Result<SequencePage<proto::JobEvent>> events(const std::string& job, int64_t after,
                                                       int limit) = 0;
  // `task` empty: all tasks.
  virtual Result<SequencePage<proto::MetricRecord>> metrics(const std::string& job, int64_t after,
                                                            int limit, const std::string& task) = 0;
  virtual Result<std::vector<LogStream>> log_streams(const std::string& job) = 0;
  // attempt 0: the current one. limit in bytes, at most kLogSliceBytesMax.
  virtual Result<LogSlice> logs(const std::string& job, int32_t attempt, int32_t rank,
                                int64_t offset, int64_t limit) = 0;
  // Calls `wake` soon after (never before) something of `topics` has been stored for the job; job
  // "" means any job. `wake` may come from any thread, several changes may share one call; it must
  // return at once (post to an executor) and must not destroy the subscription. Readers then ask
  // for what is new, so a slow reader never holds up a writer.
  virtual std::unique_ptr<Subscription> watch(const std::string& job, unsigned topics,
                                              std::function<void()> wake) = 0;

  // What each rank of an active job does now, with the stacks of its threads; waits for them, 3 s
  // at most. failed_precondition: the job has no ranks now.
  virtual Result<proto::JobStack> stack(const std::string& job) = 0;
  // Records the next 1 to kTraceStepsMax steps of a running job, in place of its trace before.
  virtual Result<proto::JobTrace> start_trace(const std::string& job, int steps) = 0;
  // How far the newest trace is. not_found: there is none (it is not durable).
  virtual Result<proto::JobTrace> trace(const std::string& job) = 0;
  // Ends it if it is still recorded: ranks send what they have, for which nobody waits longer than
  // 3 s.
  virtual Result<proto::JobTrace> end_trace(const std::string& job) = 0;
  // The ranks' parts of one that is complete, or as complete as it will be, by rank.
  virtual Result<std::vector<proto::RankTrace>> trace_parts(const std::string& job) = 0;

  // ---- checkpoints -----------------------------------------------------------------------------
  // Newest last. Manifests without `tensors` (they can be large); checkpoint() gives the whole.
  virtual Result<std::vector<proto::CheckpointManifest>> checkpoints(const std::string& job) = 0;
  virtual Result<proto::CheckpointManifest> checkpoint(const std::string& id) = 0;
  // To read its chunks, which stay as long as the caller has it and at least a minute more,
  // whether or not it is removed meanwhile.
  virtual Result<std::shared_ptr<const proto::CheckpointManifest>> read_checkpoint(
      const std::string& id) = 0;
  // Refused while an unfinished job starts or would resume from it.
  virtual Status remove_checkpoint(const std::string& id) = 0;

  // ---- nodes, uploads, health ------------------------------------------------------------------
  virtual std::vector<proto::NodeInfo> nodes() = 0;
  // One that is lost and runs nothing. It is known again once its agent comes back.
  virtual Status forget_node(const std::string& name) = 0;
  virtual Status put_chunk(const std::string& hash, std::string_view bytes) = 0;
  virtual Result<std::string> get_chunk(const std::string& hash) = 0;
  // Those of `hashes` that are not here, in order, each once. At most 100,000 a call.
  virtual Result<std::vector<std::string>> missing_chunks(
      const std::vector<std::string>& hashes) = 0;
  // `id` and `bytes` may be empty: they are filled in. Every chunk must have been put before.
  virtual Result<proto::ObjectManifest> put_object(proto::ObjectManifest manifest) = 0;
  virtual Result<proto::ObjectManifest> object(const std::string& id) = 0;
  virtual Health health() = 0;
  // For so many seconds (0 to 3600) no job is started, and running ones stop in a checkpoint and go
  // back to the queue. Not durable.
  virtual Status drain(int seconds) = 0;
};

}  // namespace weft
