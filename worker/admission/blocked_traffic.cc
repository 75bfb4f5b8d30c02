#include "worker/admission/blocked_traffic.h"

#include <algorithm>
#include <numeric>

#include "proto/json/job_rules.h"
#include "worker/admission/memory_sizes.h"
#include "worker/parallel/shared_heads.h"

namespace weft {
namespace {

// A term of each rank to the rank that adds it up, and the sums back (parallel/tree_sum.h).
AxisTraffic tree_sum_traffic(int64_t elements, int ranks, int rank) {
  AxisTraffic both = scatter_traffic(elements, kSingle, ranks, rank);
  both += gather_traffic(elements, kSingle, ranks, rank);
  return both;
}

// What is computed at once, on one replica.
struct Round {
  Round(const ModelConfig& config, const proto::JobSpec& spec, std::span<const ShardSize> shards)
      : stack(last_stack(config, spec)),
        adapted(adapted_maps(shards)),
        adapter_rank(config.adapter.rank),
        adapter_dropout(config.adapter.dropout) {
    const proto::TrainingSpec& training = spec.training();
    precision = precision_of(spec);
    element = static_cast<int64_t>(size_of(precision));
    replicas = spec.parallel().data() * spec.parallel().sequence();
    const int64_t at_once = int64_t{training.micro_batch_size()} * spec.parallel().data();
    rounds = training.batch_size() / at_once;
    tokens = at_once * stack.length / replicas;
    if (stack.source > 0) {
      encoder = encoder_stack(config, training);
      source = at_once * stack.source / replicas;
    }
    of_text = config.image.size == 0;
    hears = config.audio.mel_bins > 0;
    token_blocks = training.reproducible_blocks() / replicas;
    if (config.relative) {
      distances =
          (config.relative_by_row ? tokens / stack.length : token_blocks) * (2 * stack.length - 1);
    }
    head_norms = config.head_norms && !frozen() ? 2 * config.head_features : 0;
    for (const parallel::HeadParts& parts : parallel::all_blocked_head_parts(
             config.heads, config.key_heads, spec.parallel().tensor())) {
      key_heads.push_back(parts.keys);
    }
    head_features = config.head_features;
    hidden = config.hidden;
    recompute = training.activation_checkpointing();
  }
  bool frozen() const { return adapted.all() > 0; }  // all but adapters and heads
  bool full() const { return recompute == proto::ACTIVATION_CHECKPOINTING_FULL; }
  bool selective() const { return recompute == proto::ACTIVATION_CHECKPOINTING_SELECTIVE; }
  bool again() const { return full() || selective(); }
  // Layers of whose scores, and whether of the first one's attention, gradients are asked for.
  int64_t scored() const { return stack.layers - (frozen() && adapted.columns == 0 ? 1 : 0); }
  bool first_attention() const { return !frozen() || adapted.columns + adapted.rows > 0; }

  StackShape stack;    // the last one
  StackShape encoder;  // of an encoder-decoder, else without layers
  int64_t source = 0;  // tokens of that
  AdaptedMaps adapted;
  int64_t adapter_rank;
  double adapter_dropout;
  int replicas;
  bool of_text;
  bool hears;  // the encoder's tokens are no rows of a table
  DType precision;
  int64_t element, rounds, tokens, hidden;
  int64_t token_blocks, head_norms;  // of a layer's norms of queries and keys, features
  int64_t distances = 0;             // of each block or row, that every layer maps; or none
  std::vector<Part> key_heads;       // of each rank of the tensor axis
  int64_t head_features;
  proto::ActivationCheckpointing recompute;
};

// Of keys' gradients, or of values': of every head its terms' sum among the ranks that have it.
AxisTraffic shared_heads_traffic(const Round& s, int rank) {
  const Part& own = s.key_heads[static_cast<size_t>(rank)];
  AxisTraffic all;
  for (int64_t head = own.start; head < own.start + own.length; ++head) {
    const Part ranks = parallel::ranks_with(s.key_heads, head);
    all.bytes += tree_sum_traffic(s.tokens * s.head_features, static_cast<int>(ranks.length),
                                  rank - static_cast<int>(ranks.start))
                     .bytes;
  }
  for (int other = 0; other < static_cast<int>(s.key_heads.size()); ++other) {
    const bool meets = common_part(own, s.key_heads[static_cast<size_t>(other)]).length > 0;
    if (meets && other != rank) all.messages += 2;
  }
  return all;
}

// Over the tensor axis: rows are gathered in the values' type, terms of sums travel in fp32.
struct TensorCalls {
  TensorCalls(const Round& s, int64_t tokens, int ranks, int rank)
      : gather(gather_traffic(tokens, s.element * s.hidden, ranks, rank)),
        rows(scatter_traffic(tokens, s.element * s.hidden, ranks, rank)),
        terms(scatter_traffic(tokens, kSingle * s.hidden, ranks, rank)) {}
  AxisTraffic gather, rows, terms;
};

// Of a stack's embedding and blocks; source: of the states that it attends to.
AxisTraffic stack_round(const Round& s, const StackShape& stack, const TensorCalls& own,
                        const TensorCalls& source) {
  const int64_t attentions = stack.source > 0 ? 2 : 1;
  const AxisTraffic part = own.gather + own.terms;  // of a block forwards: an attention or its MLP
  // Backwards the gradient of a part's result and, for those of its weights, its gathered input.
  const AxisTraffic back = own.gather * (s.frozen() ? 1 : 2) + own.terms;
  AxisTraffic block = (part + back) * (attentions + 1);
  if (s.again()) block += part * attentions;
  if (s.full()) block += part;
  // States for their keys and values, again for these weights' gradients; their own gradient.
  if (stack.source > 0) block += source.gather * (s.again() ? 3 : 2) + source.terms;
  AxisTraffic all = block * stack.layers;
  const bool looks_up = s.of_text && (!s.hears || stack.source > 0);
  if (looks_up) all += own.rows;  // of the embedding, and its gradient
  if (looks_up && !s.frozen()) all += own.gather;
  return all;
}

// What adapters add: A x and the terms of its gradient, of a column's A x twice, as its B has a
// gradient too; DoRA's sums of squares of rows, and its products of what dropout leaves.
AxisTraffic adapters_round(const Round& s, const TensorCalls& own, int ranks, int rank) {
  const AdaptedMaps& maps = s.adapted;
  const int64_t columns = maps.columns + maps.mlp_columns, rows = maps.rows + maps.mlp_rows;
  const int64_t layers = s.stack.layers;
  const auto forwards = [&](const AxisTraffic& column, const AxisTraffic& row) {
    AxisTraffic all = column * columns + row * rows;
    if (s.again()) all += column * maps.columns + row * maps.rows;
    if (s.full()) all += column * maps.mlp_columns + row * maps.mlp_rows;
    return all * layers;
  };
  const AxisTraffic inner = gather_traffic(s.tokens, s.element * s.adapter_rank, ranks, rank);
  const AxisTraffic inner_terms = scatter_traffic(s.tokens, kSingle * s.adapter_rank, ranks, rank);
  AxisTraffic all = forwards(inner, inner_terms);
  all += ((inner + inner_terms) * columns + inner * rows) * layers;
  if (!maps.rescaled) return all;
  all += forwards({}, tree_sum_traffic(s.hidden, ranks, rank));
  if (s.adapter_dropout == 0) return all;
  all += forwards(own.gather, own.terms) + (own.terms * columns + own.gather * rows) * layers;
  // The first block's have no gradient of their input before the first adapter.
  all -= own.terms * maps.columns;
  if (maps.columns > 0) return all;
  all -= own.gather * maps.rows;
  if (maps.rows > 0) return all;
  all -= own.terms * maps.mlp_columns;
  if (maps.mlp_columns == 0) all -= own.gather * maps.mlp_rows;
  return all;
}

// Of the first block what nobody asks for, as all before the first adapter is frozen.
AxisTraffic left_of_first(const Round& s, const TensorCalls& own) {
  AxisTraffic left = own.terms;
  if (s.adapted.columns == 0) left += own.gather;
  if (s.first_attention()) return left;
  left += own.terms;
  if (s.adapted.mlp_columns == 0) left += own.gather;
  if (s.selective()) left += own.gather + own.terms;  // computed again
  return left;
}

AxisTraffic tensor_round(const Round& s, bool language_model, int ranks, int rank) {
  const TensorCalls own(s, s.tokens, ranks, rank), source(s, s.source, ranks, rank);
  AxisTraffic all = stack_round(s, s.stack, own, source);
  if (s.encoder.layers > 0) all += stack_round(s, s.encoder, source, source);
  if (s.frozen()) {
    all += adapters_round(s, own, ranks, rank);
    all -= left_of_first(s, own);
  }
  all += own.gather;  // what the head reads
  // What distances are mapped from, again for these weights' gradients.
  const int64_t mapped = s.again() ? 3 : 2;
  all += gather_traffic(s.distances, s.element * s.hidden, ranks, rank) *
         (s.distances > 0 ? mapped * s.stack.layers : 0);
  if (s.head_norms > 0) {
    AxisTraffic gradients = scatter_traffic(s.token_blocks, kSingle * s.head_norms, ranks, rank);
    gradients.messages *= 2;
    all += gradients * s.stack.layers;
  }
  all += shared_heads_traffic(s, rank) * (2 * s.scored());
  if (!language_model) return all;
  all += gather_traffic(3 * ranks, kSingle * s.tokens, ranks, rank);  // maximum, sum, label's logit
  all += own.terms;
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
    if (!bucket.trained && !gathered) continue;
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
  const Round s(config, spec, shards);
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
    sizes.key_heads = s.key_heads[static_cast<size_t>(place.tensor)].length;
    sizes.features = sizes.values = config.head_features;
    sizes.element = s.element;
    const auto heads = parallel::exchanged_head_parts(config.heads, config.key_heads, mesh.tensor(),
                                                      place.tensor, in_row);
    const AttentionTraffic layer = exchange_traffic(
        sizes, heads, replica % in_row, parallel::shares_heads(s.key_heads, place.tensor));
    const int64_t once = s.stack.layers, left = s.selective() && !s.first_attention() ? 1 : 0;
    step.sequence = layer.forward * (s.rounds * (s.again() ? 2 * once - left : once));
    step.sequence += layer.backward * (s.rounds * s.scored());
  }
  for (const ShardSize& shard : shards) {
    if (!shard.trained || !shard.reached) continue;
    const bool by_all = shard.whole && shard.unit >= 0;
    step.replica +=
        tree_sum_traffic(shard.elements, by_all ? world : s.replicas, by_all ? rank : replica) *
        (s.rounds * shard.repeats);
  }
  // Further gradients of the table: an encoder's, and a tied one's from the logits.
  const bool tied = language_model && config.tied && !s.frozen();
  const int64_t more = (s.encoder.layers > 0 && !s.hears ? 1 : 0) + (tied ? 1 : 0);
  step.replica +=
      tree_sum_traffic(shards.front().elements, s.replicas, replica) * (s.rounds * more);
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
