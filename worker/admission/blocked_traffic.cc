#include "worker/admission/blocked_traffic.h"

#include <algorithm>
#include <numeric>

#include "proto/json/job_rules.h"
#include "worker/admission/memory_sizes.h"

namespace weft {
namespace {

// A term of each rank to the rank that adds it up, and the sums back (parallel/tree_sum.h).
AxisTraffic tree_sum_traffic(int64_t elements, int ranks, int rank) {
  AxisTraffic both = scatter_traffic(elements, kSingle, ranks, rank);
  both += gather_traffic(elements, kSingle, ranks, rank);
  return both;
}

struct Round {
  Round(const ModelConfig& config, const proto::JobSpec& spec) {
    const proto::TrainingSpec& training = spec.training();
    precision = precision_of(spec);
    element = static_cast<int64_t>(size_of(precision));
    replicas = spec.parallel().data() * spec.parallel().sequence();
    const int64_t at_once = int64_t{training.micro_batch_size()} * spec.parallel().data();
    rounds = training.batch_size() / at_once;
    tokens = at_once * training.sequence_length() / replicas;
    layers = config.layers;
    of_text = config.image.size == 0;
    token_blocks = training.reproducible_blocks() / replicas;
    head_norms = config.head_norms ? 2 * config.head_features : 0;
    if (config.key_heads < config.heads) {
      key_copies =
          static_cast<int>(std::max<int64_t>(1, spec.parallel().tensor() / config.key_heads));
    }
    head_features = config.head_features;
    hidden = config.hidden;
    recompute = training.activation_checkpointing();
  }
  int replicas;
  bool of_text;
  DType precision;
  int64_t element, rounds, tokens, layers, hidden;
  int64_t token_blocks, head_norms;  // of a layer's norms of queries and keys, features
  int key_copies = 1;                // ranks of the tensor axis that hold the same head of keys
  int64_t head_features;
  proto::ActivationCheckpointing recompute;
};

// Over the tensor axis: rows are gathered in the values' type, terms of sums travel in fp32.
AxisTraffic tensor_round(const Round& s, bool language_model, int ranks, int rank) {
  const AxisTraffic gather = gather_traffic(s.tokens, s.element * s.hidden, ranks, rank);
  const AxisTraffic rows = scatter_traffic(s.tokens, s.element * s.hidden, ranks, rank);
  const AxisTraffic terms = scatter_traffic(s.tokens, kSingle * s.hidden, ranks, rank);
  const AxisTraffic half = gather + terms;  // of a block forwards: its attention or its MLP
  AxisTraffic all = half * (2 * s.layers);
  if (s.of_text) all += rows + gather;  // of the embedding, and its gradient
  // Backwards a half's gathered input once more for its weights' gradients, and that of its result.
  all += (gather * 2 + terms) * (2 * s.layers);
  if (s.recompute == proto::ACTIVATION_CHECKPOINTING_SELECTIVE) all += half * s.layers;
  if (s.recompute == proto::ACTIVATION_CHECKPOINTING_FULL) all += half * (2 * s.layers);
  all += gather;  // what the head reads
  if (s.head_norms > 0) {
    AxisTraffic gradients = scatter_traffic(s.token_blocks, kSingle * s.head_norms, ranks, rank);
    gradients.messages *= 2;
    all += gradients * s.layers;
  }
  // Keys' and values' gradients, of which every rank that holds them has terms.
  all += tree_sum_traffic(s.tokens * s.head_features, s.key_copies, rank % s.key_copies) *
         (2 * s.layers);
  if (!language_model) return all;
  all += gather_traffic(3 * ranks, kSingle * s.tokens, ranks, rank);  // maximum, sum, label's logit
  all += terms;
  return all;
}

// Values that come back after the update, or are gathered for the passes.
AxisTraffic value_traffic(const Buckets& buckets, std::span<const ShardSize> shards, const Round& s,
                          int zero, bool tied_logits) {
  AxisTraffic all;
  if (zero == 0 || s.replicas == 1) return all;
  const int64_t others = s.replicas - 1;
  int64_t last = 0;
  for (const Bucket& bucket : buckets.all()) last = std::max(last, bucket.unit);
  for (const Bucket& bucket : buckets.all()) {
    const int64_t bytes = s.element * bucket.own_places(s.precision).length;
    const AxisTraffic values{bytes * others, others};
    const bool gathered = zero == 3 && bucket.unit >= 0;
    all += values * (repeats_of(bucket, shards) * (gathered ? 2 * s.rounds : 1));
    const bool stays_open = !tied_logits && (bucket.unit == 0 || bucket.unit == last);
    if (gathered && stays_open) all -= values * s.rounds;
  }
  return all;
}

}  // namespace

int ranks_in_row(const proto::JobSpec& spec) {
  const int64_t rows = int64_t{spec.training().micro_batch_size()} * spec.parallel().data();
  const int64_t replicas = int64_t{spec.parallel().data()} * spec.parallel().sequence();
  return static_cast<int>(replicas / std::gcd(rows, replicas));
}

StepTraffic blocked_traffic(const ModelConfig& config, const proto::JobSpec& spec,
                            std::span<const ShardSize> shards, const MeshPlace& place) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const Round s(config, spec);
  const bool language_model = models_language(spec);
  const int replica = place.data * mesh.sequence() + place.sequence;
  const int world = s.replicas * mesh.tensor(), rank = replica * mesh.tensor() + place.tensor;
  StepTraffic step;
  if (mesh.tensor() > 1) {
    step.tensor = tensor_round(s, language_model, mesh.tensor(), place.tensor) * s.rounds;
  }
  if (const int in_row = ranks_in_row(spec); in_row > 1) {
    AttentionSizes sizes;
    sizes.tokens = spec.training().sequence_length();
    sizes.own_tokens = sizes.tokens / in_row;
    sizes.rows = s.tokens / sizes.own_tokens;
    sizes.heads = config.heads / mesh.tensor();
    sizes.key_heads = std::max<int64_t>(1, config.key_heads / mesh.tensor());
    sizes.features = sizes.values = config.head_features;
    sizes.element = s.element;
    const auto heads = parallel::all_blocked_head_parts(sizes.heads, sizes.key_heads, in_row);
    const AttentionTraffic layer =
        exchange_traffic(sizes, heads, replica % in_row, s.key_copies > 1);
    const bool again = s.recompute != proto::ACTIVATION_CHECKPOINTING_NONE;
    step.sequence = layer.forward * (s.rounds * s.layers * (again ? 2 : 1));
    step.sequence += layer.backward * (s.rounds * s.layers);
  }
  for (const ShardSize& shard : shards) {
    const bool by_all = shard.whole && shard.unit >= 0;
    step.replica +=
        tree_sum_traffic(shard.elements, by_all ? world : s.replicas, by_all ? rank : replica) *
        (s.rounds * shard.repeats);
  }
  if (language_model && config.tied) {  // a second gradient of the table, from the logits
    step.replica += tree_sum_traffic(shards.front().elements, s.replicas, replica) * s.rounds;
  }
  if (std::ranges::any_of(spec.tasks(), embeds)) {  // an embedding's sums, of all rows
    step.replica +=
        gather_traffic(spec.training().batch_size(), kSingle * config.hidden, s.replicas, replica);
  }
  const int zero = s.replicas > 1 ? mesh.zero() : 0;
  const Buckets buckets(bucket_items(shards), s.replicas, replica, mesh.bucket_bytes());
  step.replica += value_traffic(buckets, shards, s, zero, config.tied && language_model);
  return step;
}

}  // namespace weft
