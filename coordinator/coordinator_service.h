// The Service of a coordinator: over the job store and the chunks. It changes records; the
// supervisor (coordinator/launcher) watches them and makes the nodes follow.
//
// Thread safety: as Service. Ownership: refers to what Parts names, which lives longer.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "coordinator/launcher/inspector.h"
#include "coordinator/scheduler/drain.h"
#include "coordinator/service.h"
#include "coordinator/store/content.h"
#include "coordinator/store/job_store.h"
#include "proto/base/clock.h"
#include "worker/admission/shards.h"

namespace weft {

// What a job's state does not allow.
Status wrong_state(const proto::Job& job, const std::string& rule);

class CoordinatorService final : public Service {
 public:
  struct Parts {
    JobStore& store;
    Content& content;
    const Clock& clock;
    std::string data_folder;  // whose free space health() tells; empty: none
    std::string version;
    Drain* drain = nullptr;          // none: drain() is refused
    Inspector* inspector = nullptr;  // none: stack() and traces are refused
  };
  explicit CoordinatorService(Parts parts);

  Result<proto::Job> submit(proto::JobSpec spec, const std::string& idempotency_key,
                            const std::string& request_hash) override;
  Result<proto::JobSpec> validate(proto::JobSpec spec) override;
  Result<proto::JobPlan> plan(const proto::PlanRequest& request) override;
  Result<proto::Job> job(const std::string& id) override;
  Result<JobPage> jobs(const JobFilter& filter) override;
  Result<proto::Job> cancel(const std::string& id) override;
  Result<proto::Job> pause(const std::string& id) override;
  Result<proto::Job> resume(const std::string& id, const proto::ResumeRequest& change) override;
  Result<proto::Job> checkpoint_now(const std::string& id) override;
  Result<proto::Job> set_priority(const std::string& id, int32_t priority) override;
  Status remove(const std::string& id) override;

  Result<SequencePage<proto::JobEvent>> events(const std::string& job, int64_t after,
                                               int limit) override;
  Result<SequencePage<proto::MetricRecord>> metrics(const std::string& job, int64_t after,
                                                    int limit, const std::string& task) override;
  Result<std::vector<LogStream>> log_streams(const std::string& job) override;
  Result<LogSlice> logs(const std::string& job, int32_t attempt, int32_t rank, int64_t offset,
                        int64_t limit) override;
  std::unique_ptr<Subscription> watch(const std::string& job, unsigned topics,
                                      std::function<void()> wake) override;

  Result<proto::JobStack> stack(const std::string& job) override;
  Result<proto::JobTrace> start_trace(const std::string& job, int steps) override;
  Result<proto::JobTrace> trace(const std::string& job) override;
  Result<proto::JobTrace> end_trace(const std::string& job) override;
  Result<std::vector<proto::RankTrace>> trace_parts(const std::string& job) override;

  Result<std::vector<proto::CheckpointManifest>> checkpoints(const std::string& job) override;
  Result<proto::CheckpointManifest> checkpoint(const std::string& id) override;
  Result<std::shared_ptr<const proto::CheckpointManifest>> read_checkpoint(
      const std::string& id) override;
  Status remove_checkpoint(const std::string& id) override;

  std::vector<proto::NodeInfo> nodes() override;
  Status forget_node(const std::string& name) override;
  Status put_chunk(const std::string& hash, std::string_view bytes) override;
  Result<std::string> get_chunk(const std::string& hash) override;
  Result<std::vector<std::string>> missing_chunks(const std::vector<std::string>& hashes) override;
  Result<proto::ObjectManifest> put_object(proto::ObjectManifest manifest) override;
  Result<proto::ObjectManifest> object(const std::string& id) override;
  Health health() override;
  Status drain(int seconds) override;

 private:
  Parts parts_;
  const Clock::Duration started_;

  Status probe();
  struct Admitted {
    proto::JobSpec spec;                 // with its mesh
    std::optional<proto::JobPlan> plan;  // what chose it, if it had to be chosen
    proto::RankMemory memory;
    ParameterCount parameters;
  };
  // rows_at_once: as PlanRequirements has it.
  Result<Admitted> admit(proto::JobSpec spec, int64_t rows_at_once = 0);
  static void change_run(JobEdit& edit, const Admitted& admitted);

  std::mutex probe_mutex_;      // guards the next members, never held over a write
  Clock::Duration probed_{-1};  // when the last probe began
  bool probing_ = false;
  Status probe_;
};

}  // namespace weft
