// What a rank of a job needs of memory, before anything is started: how much its share of the
// model takes, and what a step adds to that at its largest moment.
//
// Formula: the tensors that a pre-norm transformer block keeps for its backward pass (as counted
// by Korthikanti et al. 2022, section 4, but for the fused ops of kernels/), in four moments of
// which the largest counts: the loss, the backward pass of the last block and of the first, and the
// end of it.
// Optimizer state after Rajbhandari et al. 2020, section 3.1, with fp32 gradients, and what its
// levels share out; two moments more then: before the first step, when the values that the state
// is made of are there too, and two blocks into the backward pass, when buckets are on their way.
// Every transfer counts as ending as late as it may. Topology-invariant training has its own
// moments (blocked_memory.h).
//
// Accuracy: against memory_peak_bytes of real runs whose transfers end as late as they may
// (tests/worker/admission/memory_test.cc: 112 configurations of 1 to 8 ranks, fp32 and half types,
// each kind of recomputation, accumulation, each level of ZeRO, buckets of a block and of a matrix)
// `tensors()` is 0.95 to 1.06 of what the rank that has most measured; those models are small and
// of one family. A classification is counted with rows of training.sequence_length tokens, but
// takes those of the longest row of each batch. Not counted: data sets; of topology-invariant
// training on a GPU the copies that its products make there.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "worker/admission/shards.h"

namespace weft::proto {
class JobSpec;
}

namespace weft {

// What a rank needs to train.
struct RankNeeds {
  bool gpu = false;    // it computes on one
  int64_t memory = 0;  // bytes, of the GPU's memory or else of the node's
  int64_t host = 0;    // of the node's, beside a GPU's
};

// Bytes of the rank with the largest shard, at its largest moment.
struct MemoryEstimate {
  int64_t parameters = 0;   // values that the passes compute with
  int64_t optimizer = 0;    // what masters have beside the values, and both moments
  int64_t gradients = 0;    // at that moment
  int64_t activations = 0;  // kept for the backward pass
  int64_t workspace = 0;    // of the ops at work: logits of a chunk, a block's own gradients
  int64_t checkpoint = 0;   // the copy that is written while training goes on
  // Tensors of a GPU's largest moment beyond these: its chunks are larger, cuDNN has a workspace.
  int64_t gpu_more = 0;
  // Of a step's images, all of which every rank has: beside its tensors.
  int64_t images = 0;
  // What each thread that computes takes beyond the first: its stack and its room for products.
  int64_t thread = 0;
  int64_t tensors() const { return parameters + optimizer + gradients + activations + workspace; }
  int64_t total() const { return tensors() + checkpoint; }
  // What the process needs of its limit (RLIMIT_DATA) to train with `threads` that compute: 1.0 to
  // 1.1 of the smallest limit under which ranks of the benchmark trained (tests/bench/plan.py).
  int64_t process(int threads = 1) const;
  // Where it computes on a GPU: what it needs of the GPU's memory, and of that limit.
  int64_t gpu() const;
  int64_t gpu_host() const;
  RankNeeds needs(bool on_gpu, int threads = 1) const;
  std::string to_string() const;  // "1.2 GiB: parameters 0.3 GiB, ..."
};

// `spec` is finished; of it parallel, training and tasks are read. `shards` are those of rank 0 of
// the tensor axis, which are the largest.
MemoryEstimate estimate_memory(const ModelConfig& config, const proto::JobSpec& spec,
                               std::span<const ShardSize> shards);
MemoryEstimate estimate_memory(const ModelFamily& family, const ModelConfig& config,
                               const proto::JobSpec& spec);

// What a rank may take where `memory_bytes` are shared by `slots` ranks: a tenth of it, at most
// 2 GiB, stays for everything else. 0: not known.
int64_t memory_of_slot(int64_t memory_bytes, int slots);

// What a rank may take of a GPU of `gpu_bytes`, where `slots` ranks have `gpus` of them. 0: not
// known.
int64_t memory_of_gpu(int64_t gpu_bytes, int gpus, int slots);

// What a rank cannot possibly do without: three quarters of the tensors that it is said to have.
int64_t beyond_doubt(const MemoryEstimate& estimate);

// "1.5 GiB", "12 MiB": for people, in the units of 'weft nodes' and 'weft plan'.
std::string bytes_text(int64_t bytes);

// What makes a rank need less.
inline constexpr const char* kLessMemory =
    "lower training.micro_batch_size or training.sequence_length, set "
    "training.activation_checkpointing: full, or raise parallel.tensor or parallel.zero; 'weft "
    "plan' "
    "shows what every mesh needs";

}  // namespace weft
