// How long a step of a job takes on a mesh, before anything is started.
//
// The model: a rank's arithmetic at the rate of large products, its passes over memory at the rate
// at which memory streams, both of as many cores as it has for itself; bytes that it sends at the
// rate of the link and a latency for every message. docs/PERFORMANCE.md says what was measured of
// it, and the constants below what they come from.
//
// What is hidden: sums of gradients behind the backward pass, the values of ZeRO's levels behind
// the forward pass, but for those with which it begins: of the embedding, of which the rows that go
// ahead are enough, and of the first block, or of its attention; keys and values of a ring behind
// the attention, transfers of the tensor axis behind the products that are cut for them, as far as
// they cross between machines. Within one the ranks' own cores move them, so nothing is hidden
// there unless cores are left over; a GPU's engines move them beside its arithmetic. Of
// topology-invariant training nothing is hidden.
//
// Thread safety: pure functions.
#pragma once

#include <span>

#include "worker/admission/traffic.h"

namespace weft {

// What one core of a node, or one of its GPUs, and its links do; measured by the agent
// (cluster/agent), and where a figure is 0, these: a slow core and a slow network, so that what
// they decide is no worse than it seems.
struct HostSpeed {
  double flops = 50e9;       // fp32 operations a second in large products
  double half_flops = 50e9;  // of bf16 and fp16
  double memory = 6e9;       // bytes a second that a copy reads and writes together
  double link = 1e9 / 8;     // bytes a second of the network
  double local = 12e9;       // payload a second between GPUs of the host, over PCIe 4.0 x16
  // Seconds of a message within the host, and of one over the network; and of either for each rank
  // more on the core that moves it, until all have had their turn.
  double local_latency = 50e-6, network_latency = 100e-6, turn = 200e-6;
};

// A GPU of which nothing was measured, in the middle of what runs bf16 on tensor cores (fp32 beside
// them), its neighbours reached through the host.
inline constexpr HostSpeed kUnknownGpu = {.flops = 15e12,
                                          .half_flops = 120e12,
                                          .memory = 1e12,
                                          .local_latency = 20e-6,
                                          .network_latency = 50e-6,
                                          .turn = 0};

// Ranks of a mesh that run on one host. In the order of their numbers, host by host.
struct HostShare {
  HostSpeed speed;
  int cores = 1;    // of the host; GPUs where ranks compute on them
  int threads = 1;  // of each rank
  int ranks = 1;
  bool gpu = false;
  bool loopback = false;  // the other hosts are of the same machine, whose cores are the network
};

struct StepTime {
  double compute = 0;        // seconds of arithmetic and passes over memory of the slowest rank
  double communication = 0;  // of what it sends
  double hidden = 0;         // of that, behind the arithmetic
  double step() const { return compute + communication - hidden; }
};

// `spec` is finished; `shards` are those of rank 0 of the tensor axis; the hosts' ranks are as many
// as its mesh.
StepTime estimate_step(const ModelConfig& config, const proto::JobSpec& spec,
                       std::span<const ShardSize> shards, const StepTraffic& traffic,
                       std::span<const HostShare> hosts);

}  // namespace weft
