#include "worker/planner/step_time.h"

#include <algorithm>
#include <utility>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "worker/parallel/head_parts.h"

namespace weft {
namespace {

// What blocks' attention, softmax and masks included, reaches of the rate of large products, and
// products of a training step's sizes (docs/PERFORMANCE.md, Attention on the CPU and Products).
constexpr double kAttentionShare = 0.65, kProductShare = 0.85;
// The same of topology-invariant training, whose products are cut into blocks and operands copied;
// more logits of a rank than these are computed twice there.
constexpr double kBlockedShare = 0.75;
constexpr double kLogitsKept = 1 << 24;
// Passes over an activation that is kept: written, read by the next op, read and answered on the
// way back.
constexpr double kActivationPasses = 6;
// Tokens of a row on a rank from which products of the tensor axis are cut
// (worker/parallel/tensor_parallel.h).
constexpr int64_t kCutTokensMin = 256;
// Bytes of AdamW a parameter: four floats read, three written (in bf16 one of them as its halves);
// and one more for the norm.
constexpr double kUpdateBytes = 32;
// Bytes of memory that one byte between ranks of a host is: its receiver reads it where the sender
// has it, writes it, reads that and its own, and writes the sum (cluster/comm/mpi).
constexpr double kPayloadPasses = 5;

struct Work {
  double products = 0, attention = 0;  // operations
  double bytes = 0;                    // read and written
};

int64_t share(int64_t whole, int64_t parts) { return (whole + parts - 1) / parts; }

bool half(const proto::JobSpec& spec) {
  return spec.training().precision() == proto::PRECISION_BF16 ||
         spec.training().precision() == proto::PRECISION_FP16;
}

bool in_blocks(const proto::JobSpec& spec) {
  return spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
}

// Of a row of so many tokens, over them; in a window each token but the first ones sees as many.
double mean_keys_seen(const parallel::AttentionPattern& pattern, int64_t tokens) {
  const auto all = static_cast<double>(tokens);
  if (!pattern.causal) return all;
  const double window = static_cast<double>(pattern.window_left) + 1;
  if (pattern.window_left < 0 || window >= all) return all / 2;
  return window - window * window / (2 * all);
}

// Of the heads of the rank that has most.
struct Features {
  double queries = 0, keys = 0;
};
Features features_of(const ModelConfig& config, const proto::JobSpec& spec) {
  Features most;
  const auto parts_of =
      in_blocks(spec) ? parallel::all_blocked_head_parts : parallel::all_head_parts;
  for (const auto& parts : parts_of(config.heads, config.key_heads, spec.parallel().tensor())) {
    const auto width = static_cast<double>(config.head_features);
    most.queries = std::max(most.queries, width * static_cast<double>(parts.queries.length));
    most.keys = std::max(most.keys, width * static_cast<double>(parts.keys.length));
  }
  return most;
}

// Operations of DoRA: B A for the norms, `passes` times, and with dropout the products of what it
// leaves with the frozen weights, forwards and backwards, of so many tokens.
double of_magnitudes(const ModelConfig& config, std::span<const ShardSize> shards, double tokens,
                     double passes) {
  double weights = 0, inputs = 0;  // elements of what is adapted; of the map that is looked at
  for (const ShardSize& shard : shards) {
    const auto elements = static_cast<double>(shard.elements);
    if (shard.adapter_part == AdapterPart::kInput) {
      inputs = elements / static_cast<double>(config.adapter.rank);
    } else if (shard.adapter_part == AdapterPart::kMagnitude) {
      weights += inputs * elements * static_cast<double>(shard.repeats);
    }
  }
  const double products = config.adapter.dropout > 0 ? 2 * tokens : 0;
  return 2 * weights * (static_cast<double>(config.adapter.rank) * passes + products);
}

// Of which share of the tokens logits are computed, in the task with most of them.
double share_with_logits(const proto::JobSpec& spec) {
  double most = 0;
  for (const proto::TaskSpec& task : spec.tasks()) {
    if (!models_language(task)) continue;
    const double rate = task.mask_rate();
    most = std::max(most, task.type() == proto::TASK_TYPE_MASKED_LM ? rate
                          : permutes(task) ? rate / (1 + rate)  // of tokens and predictions
                                           : 1.0);
  }
  return most;
}

// By a token, in all blocks of the last stack.
double keys_seen(const ModelConfig& config, const StackShape& stack) {
  const auto others = static_cast<double>(config.other_layers);
  const auto layers = static_cast<double>(stack.layers);
  return (layers - others) * mean_keys_seen(config.attention, stack.length) +
         others * mean_keys_seen(config.other_attention, stack.length) +
         layers * static_cast<double>(stack.source);
}

bool on_gpu(const proto::JobSpec& spec) {
  return spec.resources().device() == proto::COMPUTE_DEVICE_GPU;
}

// Two forwards and five backwards, of the keys that a token sees; with terms by distance one and
// two more, and two again for these terms' gradient. A GPU takes those of all distances, twice as
// many as keys, and two more each for the scores' gradient and for fixed sums of the others.
double attention_products(const ModelConfig& config, const proto::JobSpec& spec, bool again) {
  double forwards = 2, backwards = 5;
  if (config.relative) {
    forwards += on_gpu(spec) ? 2 : 1;
    backwards += on_gpu(spec) ? 8 : 4;
  }
  return forwards + backwards + (again ? forwards : 0);
}

// That a GPU moves of a score with terms by distance: forwards what is by distance, twice as much,
// is written and half of it read, the score written and read; backwards it is read three times, its
// gradient written and read twice, and by distance written and read twice.
double relative_bytes(double element, bool again) {
  constexpr double kSingle = 4;
  const double forwards = 3 * kSingle + 2 * element, backwards = 12 * element;
  return forwards + backwards + (again ? forwards : 0);
}

// Of a matrix, which of a rank's tokens it maps: convolutions are whole on each rank of the tensor
// axis, for its own tokens between blocks.
double share_of_tokens(const ModelConfig& config, const proto::ParallelSpec& mesh,
                       const ShardSize& shard) {
  return config.audio.mel_bins > 0 && shard.whole ? 1.0 / mesh.tensor() : 1;
}

// Of a recording's token what comes to the first convolution, counted as a matrix: it maps three
// windows instead of one, of which no gradient is asked for.
double of_windows(const ModelConfig& config, const proto::ParallelSpec& mesh) {
  return 2 * static_cast<double>(config.audio.values() * config.hidden) / mesh.tensor();
}

// Operations for logits of so many tokens, in so many rounds.
double of_logits(const ModelConfig& config, const proto::JobSpec& spec, double predicted,
                 int64_t rounds) {
  const auto vocabulary = static_cast<double>(share(config.vocabulary, spec.parallel().tensor()));
  const double logits = predicted / static_cast<double>(rounds) * vocabulary;
  const bool frozen_table = config.adapter.rank > 0;
  const int times = in_blocks(spec) && logits > kLogitsKept ? 8 : frozen_table ? 4 : 6;
  return times * predicted * static_cast<double>(config.hidden) * vocabulary;
}

// Of the rank with the largest shards, over a whole step.
Work work_of(const ModelConfig& config, const proto::JobSpec& spec,
             std::span<const ShardSize> shards) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const proto::TrainingSpec& training = spec.training();
  const auto recompute = training.activation_checkpointing();
  const bool full = recompute == proto::ACTIVATION_CHECKPOINTING_FULL;
  const bool again = recompute != proto::ACTIVATION_CHECKPOINTING_NONE;
  const double element = half(spec) ? 2 : 4;
  const int64_t rows = share(training.batch_size(), mesh.data());
  const int64_t rounds = share(rows, std::max<int64_t>(1, training.micro_batch_size()));
  const StackShape stack = last_stack(config, spec);
  const double tokens = static_cast<double>(rows * share(stack.queries(), mesh.sequence()));
  const double sources = static_cast<double>(rows * share(stack.source, mesh.sequence()));
  double matrices = 0, parameters = 0;      // elements
  double frozen_matrices = 0, trained = 0;  // of these
  double encoder = 0;                       // of the matrices; its tokens are the sources
  for (const ShardSize& shard : shards) {
    const double elements = static_cast<double>(shard.elements * shard.repeats);
    parameters += elements;
    if (shard.trained) trained += elements;
    if (shard.unit <= 0 || shard.unit >= config.last_unit() || !shard.matrix) continue;
    const bool encodes = shard.unit <= config.encoder_layers;
    (encodes ? encoder : matrices) += elements * share_of_tokens(config, mesh, shard);
    if (!shard.trained) frozen_matrices += elements;
  }
  const Features attended = features_of(config, spec);
  const double features = attended.queries, keys = attended.keys;
  const double hidden = static_cast<double>(config.hidden);
  const double layers = static_cast<double>(stack.layers);
  const double encoder_layers = static_cast<double>(config.encoder_layers);
  const double inner = static_cast<double>(share(config.inner, mesh.tensor()));
  const double halves = 2 * hidden * (features + keys);  // of a block's matrices, in an attention
  const double attentions = layers * (stack.source > 0 ? 2 : 1);
  Work work;
  const double repeated = full ? matrices : again ? attentions * halves : 0;
  const double encoder_repeated = full ? encoder : again ? encoder_layers * halves : 0;
  // Forwards, for the input's gradient, and for the weight's.
  work.products = 2 * tokens * (3 * matrices - frozen_matrices + repeated) +
                  2 * sources * (3 * encoder + encoder_repeated);
  work.products += of_logits(config, spec, tokens * share_with_logits(spec), rounds);
  // Patches, of which no gradient is asked for.
  const double patch = static_cast<double>(config.image.values()) / mesh.tensor();
  work.products += (config.adapter.rank > 0 ? 2 : 4) * tokens * patch * hidden;
  work.products += sources * of_windows(config, mesh);
  work.products += of_magnitudes(config, shards, tokens * (again ? 1.5 : 1),
                                 static_cast<double>(rounds) * (full    ? 2
                                                                : again ? 1.5
                                                                        : 1));
  work.attention = (tokens * keys_seen(config, stack) +
                    sources * encoder_layers * mean_keys_seen(config.attention, stack.source)) *
                   features * 2 * attention_products(config, spec, again);
  // Elements a token and block.
  const double kept = 4 * hidden + 2 * (features + keys) + (config.gated ? 3 : 2) * inner;
  work.bytes = element * (tokens * layers + sources * encoder_layers) * kept * kActivationPasses *
               (full    ? 1.5
                : again ? 1.2
                        : 1);
  if (config.relative && on_gpu(spec)) {
    work.bytes += tokens * keys_seen(config, stack) * features /
                  static_cast<double>(config.head_features) * relative_bytes(element, again);
  }
  const int replicas = mesh.data() * mesh.sequence();
  const int sharing = mesh.zero() > 0 ? replicas : 1;
  work.bytes += kUpdateBytes * trained / sharing;
  // Products read the values three times a micro-batch and add to gradients; buckets are packed.
  work.bytes += static_cast<double>(rounds) * (3 * element * parameters + 8 * trained);
  if (replicas > 1) work.bytes += 8 * trained;
  return work;
}

// How an axis lies on the hosts: ranks r, r + stride, ... of every group of `size`.
struct AxisShape {
  int size = 1, stride = 1;
};

// Of the other members of a rank's group the share that is on other hosts; the largest over the
// ranks. Ranks of a host follow each other.
double crossing(const AxisShape& axis, std::span<const int> host_of) {
  if (axis.size == 1) return 0;
  int fewest = axis.size;  // members of a group on one host
  const int ranks = static_cast<int>(host_of.size());
  for (int first = 0; first < ranks; ++first) {
    if (first / axis.stride % axis.size != 0) continue;
    for (int i = 0, on_host = 0; i < axis.size; ++i) {
      const auto member = static_cast<size_t>(first + i * axis.stride);
      ++on_host;
      const bool last = i + 1 == axis.size ||
                        host_of[member] != host_of[member + static_cast<size_t>(axis.stride)];
      if (last) fewest = std::min(fewest, std::exchange(on_host, 0));
    }
  }
  return static_cast<double>(axis.size - fewest) / (axis.size - 1);
}

struct Links {
  double network = 1e30, local = 1e30;            // bytes a second that a rank has of them
  double network_latency = 0, local_latency = 0;  // seconds
};
struct AxisTime {
  double network = 0, local = 0;  // seconds
};

AxisTime time_of(const AxisTraffic& traffic, double crossing, const Links& links) {
  const double bytes = static_cast<double>(traffic.bytes);
  const double messages = static_cast<double>(traffic.messages);
  return {crossing * (bytes / links.network + messages * links.network_latency),
          (1 - crossing) * (bytes / links.local + messages * links.local_latency)};
}

// Of the transfers of the tensor axis, `transfer` seconds each, what runs beside the products that
// are cut for it (parallel/overlapped_linear.h), operations at `rate`: forwards 1/t of a product,
// backwards 1/t of the input's gradient, and where that one is scattered all of the weight's.
double beside_products(const ModelConfig& config, const proto::JobSpec& spec, double transfer,
                       double rate) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const proto::TrainingSpec& training = spec.training();
  const int64_t row = training.sequence_length() + permuted_tokens(spec);
  const int64_t own = row / mesh.sequence() / mesh.tensor();
  const bool fp16 = training.precision() == proto::PRECISION_FP16;
  if (mesh.tensor() == 1 || own < kCutTokensMin || (fp16 && !on_gpu(spec))) return 0;
  const int64_t rows = share(training.batch_size(), mesh.data());
  const int64_t at_once = std::clamp<int64_t>(training.micro_batch_size(), 1, rows);
  const double tokens = static_cast<double>(at_once * own * mesh.tensor());
  const double rounds = static_cast<double>(share(rows, at_once));
  const auto recompute = training.activation_checkpointing();
  const int attention_times = recompute == proto::ACTIVATION_CHECKPOINTING_NONE ? 1 : 2;
  const int mlp_times = recompute == proto::ACTIVATION_CHECKPOINTING_FULL ? 2 : 1;
  const Features attended = features_of(config, spec);
  const double inner = static_cast<double>(share(config.inner, mesh.tensor()));
  // Before the attention or the MLP, and after it.
  const auto hidden = [&](double before, double after, int times) {
    const double a_column = 2 * tokens * static_cast<double>(config.hidden) / rate;  // seconds
    const auto beside = [&](double product, double parts) {
      return std::min(transfer, product * a_column * parts);
    };
    const double part = 1.0 / mesh.tensor();
    return times * (beside(before, part) + beside(after, part)) + beside(before, 1 + part) +
           beside(after, part);
  };
  return rounds * static_cast<double>(config.layers) *
         (hidden(attended.queries + 2 * attended.keys, attended.queries, attention_times) +
          hidden((config.gated ? 2 : 1) * inner, inner, mlp_times));
}

// Passes that a GPU has recorded wait for no values (worker/setup.cc), which all come before them.
bool values_come_during_passes(const proto::JobSpec& spec) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const bool recorded =
      on_gpu(spec) && mesh.tensor() == 1 && mesh.sequence() == 1 && mesh.zero() < 3;
  return !recorded;
}

// One such transfer of the tensor axis, of the rank that has most.
AxisTraffic tensor_transfer(const ModelConfig& config, const proto::JobSpec& spec) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const int64_t rows = share(spec.training().batch_size(), mesh.data());
  const int64_t at_once = std::clamp<int64_t>(spec.training().micro_batch_size(), 1, rows);
  const int64_t width = (half(spec) ? 2 : 4) * at_once * config.hidden;
  const int64_t row = spec.training().sequence_length() + permuted_tokens(spec);
  return gather_traffic(share(row, mesh.sequence()), width, mesh.tensor(), 0);
}

}  // namespace

StepTime estimate_step(const ModelConfig& config, const proto::JobSpec& spec,
                       std::span<const ShardSize> shards, const StepTraffic& traffic,
                       std::span<const HostShare> hosts) {
  const Work work = work_of(config, spec, shards);
  const proto::ParallelSpec& mesh = spec.parallel();
  std::vector<int> host_of;
  StepTime time;
  Links links;
  double attention = 0, slowest = 0;  // seconds; operations a second of products
  bool spare = true, apart = true;
  for (size_t i = 0; i < hosts.size(); ++i) {
    const HostShare& host = hosts[i];
    host_of.insert(host_of.end(), static_cast<size_t>(host.ranks), static_cast<int>(i));
    const double cores =
        std::min<double>(host.threads, static_cast<double>(host.cores) / host.ranks);
    const double rate = cores * (half(spec) ? host.speed.half_flops : host.speed.flops);
    const double seen = work.attention / (rate * kAttentionShare);
    const double products = rate * (in_blocks(spec) ? kBlockedShare : kProductShare);
    const double compute =
        work.products / products + seen + work.bytes / (cores * host.speed.memory);
    time.compute = std::max(time.compute, compute);
    slowest = i == 0 ? products : std::min(slowest, products);
    attention = std::max(attention, seen);
    const double own = std::min(cores, 1.0);  // of a core that moves the rank's bytes
    links.network = std::min(links.network, host.speed.link / host.ranks);
    const double local = host.gpu ? host.speed.local : host.speed.memory / kPayloadPasses;
    links.local = std::min(links.local, own * local);
    const double wait = host.speed.turn * (1 / own - 1);
    links.network_latency = std::max(links.network_latency, host.speed.network_latency + wait);
    links.local_latency = std::max(links.local_latency, host.speed.local_latency + wait);
    spare = spare && (host.gpu || host.threads * host.ranks < host.cores);
    apart = apart && !host.loopback;
  }
  const int sequence = mesh.sequence(), tensor = mesh.tensor();
  const auto axis_time = [&](const AxisTraffic& sent, const AxisShape& shape) {
    return time_of(sent, crossing(shape, host_of), links);
  };
  const AxisTime by_tensor = axis_time(traffic.tensor, {tensor, 1});
  const AxisTime by_sequence = axis_time(traffic.sequence, {sequence, tensor});
  const AxisTime by_replica = axis_time(traffic.replica, {mesh.data() * sequence, tensor});
  time.communication = by_tensor.network + by_tensor.local + by_sequence.network +
                       by_sequence.local + by_replica.network + by_replica.local;
  const int64_t rows = share(spec.training().batch_size(), mesh.data());
  const int64_t rounds = share(rows, std::max<int64_t>(1, spec.training().micro_batch_size()));
  const auto passes = static_cast<double>(rounds);
  // Gradients leave during the backward pass of the last micro-batch, from level 2 on of each;
  // values come during the forward pass of the first one, at level 3 of each.
  const double backward = time.compute * 2 / 3 / (mesh.zero() >= 2 ? 1 : passes);
  const double forward = time.compute / 3 / (mesh.zero() == 3 ? 1 : passes);
  const auto hideable = [&](const AxisTime& axis) {
    return (spare || apart ? axis.network : 0) + (spare ? axis.local : 0);
  };
  if (in_blocks(spec)) return time;
  const double transfer = hideable(axis_time(tensor_transfer(config, spec), {tensor, 1}));
  const auto hideable_values = [&](const AxisTraffic& sent) {
    return hideable(axis_time(sent, {mesh.data() * sequence, tensor}));
  };
  const double first = hideable_values(traffic.values.first);
  const double later = hideable_values(traffic.values.later);
  const double hidden =
      beside_products(config, spec, transfer, slowest) +
      std::min(hideable(by_replica) - first - later, backward) +
      (values_come_during_passes(spec) ? std::min(later, forward) : 0.0) +
      (ulysses_degree(config, spec) < sequence ? std::min(hideable(by_sequence), attention) : 0.0);
  time.hidden = std::min(hidden, time.compute);  // which all of them share
  return time;
}

}  // namespace weft
