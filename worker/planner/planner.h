// Which mesh a job should run on: of all that its slots allow, the one whose step is predicted to
// be the fastest among those whose ranks fit the memory of the slots that they would get.
//
// Looked at: degrees of the data, sequence and tensor axes; on the sequence axis whether heads are
// exchanged or keys go round (what sends least); each level of ZeRO; and, where the job leaves them
// open, activation checkpointing, sizes of micro-batches, and CPUs or GPUs. Of a mesh the fastest
// variant that fits stands for it.
//
// Predictions are a few percent off, and where others compute on the cores, too, each message waits
// for its turn, which they do not know. So of meshes within 3% of the fastest the one with the
// fewest slots is chosen, then the one that sends the fewest messages, then the fewest bytes.
//
// Thread safety: pure functions, as far as FindHosts is one.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "proto/job.pb.h"
#include "worker/admission/memory.h"
#include "worker/planner/step_time.h"

namespace weft {

// The hosts of `slots` ranks, all of the device that they need; nothing: they fit nowhere.
using FindHosts =
    std::function<std::optional<std::vector<HostShare>>(int slots, const RankNeeds& rank)>;

// What a device that the job may run on has for a rank, where it has most. 0: not known.
struct SlotMemory {
  bool gpu = false;
  int64_t memory = 0;  // bytes, of the GPU or else of the node
  int64_t host = 0;    // of the node, beside a GPU's
  int threads = 1;     // of a rank there, where it has most
};

struct PlanRequirements {
  const ModelFamily& family;
  const ModelConfig& config;
  // Finished. With parallel.mode auto its degrees are open, and so are training.micro_batch_size
  // where it is 0 and training.activation_checkpointing where it is not set; else this is the only
  // mesh.
  const proto::JobSpec& spec;
  std::vector<int> slots;  // numbers of slots that it may take, of which one is chosen
  std::vector<SlotMemory> devices;
  FindHosts find_hosts;
  // Only meshes whose micro_batch_size x parallel.data is this; 0: any.
  int64_t rows_at_once = 0;
};

// Every mesh that was looked at, the fastest first, then those that do not fit; what was chosen and
// why. Nothing is chosen where nothing fits; `reason` says what came nearest.
proto::JobPlan plan_job(const PlanRequirements& requirements);

// `spec` as the plan's choice completes it: degrees instead of the mode. To be finished again.
proto::JobSpec with_choice(const proto::JobSpec& spec, const proto::MeshPlan& choice);

// A mesh that says `sequence_attention: auto` says instead what that is on this model. To be
// finished.
void settle_attention(const ModelConfig& config, proto::JobSpec& spec);

}  // namespace weft
