// Nodes, and the device that a job asks for, as the scheduler takes them.
// Thread safety: pure.
#pragma once

#include <algorithm>
#include <optional>

#include "coordinator/scheduler/snapshot.h"
#include "proto/job.pb.h"
#include "proto/node.pb.h"
#include "worker/admission/memory.h"

namespace weft {

// Whether on GPUs; nothing: either will do.
inline std::optional<bool> wanted_gpu(const proto::ResourceSpec& resources) {
  if (resources.device() == proto::COMPUTE_DEVICE_GPU) return true;
  if (resources.device() == proto::COMPUTE_DEVICE_CPU) return false;
  return std::nullopt;
}

// Of a rank on that node.
inline int threads_of(const proto::NodeInfo& node, const proto::ResourceSpec& asked) {
  if (asked.threads_per_slot() > 0) return asked.threads_per_slot();
  return std::max(1, node.cores() / std::max(1, node.slots()));
}

inline SnapshotNode snapshot_of(const proto::NodeInfo& node, bool usable = true) {
  const bool loopback = node.address().starts_with("127.");
  return {node.name(),
          node.slots(),
          usable,
          loopback ? node.address() : "",
          node.gpus() > 0,
          memory_of_slot(node.memory_bytes(), node.slots()),
          memory_of_gpu(node.gpu_memory_bytes(), node.gpus(), node.slots())};
}

inline RankMemory memory_of(const proto::RankMemory& memory) {
  return {memory.host_bytes(), memory.gpu_bytes(), memory.gpu_host_bytes()};
}

inline Gang gang_of(const proto::JobSpec& spec, const proto::RankMemory& memory) {
  const proto::ResourceSpec& resources = spec.resources();
  return {std::max(1, resources.slots()), resources.nodes(), wanted_gpu(resources),
          memory_of(memory)};
}

}  // namespace weft
