#include "worker/admission/traffic.h"

#include <algorithm>

#include "proto/json/job_rules.h"
#include "worker/admission/blocked_traffic.h"
#include "worker/admission/memory_sizes.h"
#include "worker/optimizer/table_rows.h"
#include "worker/parallel/sequence_choice.h"
#include "worker/parallel/visible_tokens.h"

namespace weft {
namespace {

constexpr int64_t kId = 8;                          // of a token's number
constexpr int64_t kSmallBytes = int64_t{16} << 10;  // of an all-reduce in one go (cluster/comm/mpi)
constexpr int64_t kChunkElements = 1 << 25;  // of logits at once (kernels/ops/linear_cross_entropy)
// The first unit whose values travel while a block computes: those of the embedding, or the rows of
// it that go ahead, and of the first block (or what its attention uses) are what a forward pass
// begins with.
constexpr int64_t kLaterUnit = 2;
constexpr int64_t kRingPieces = 3;  // of a shift's keys and values (parallel/ring.h)

int64_t bytes_of(DType dtype) { return static_cast<int64_t>(size_of(dtype)); }

int64_t element_bytes(const proto::JobSpec& spec) { return bytes_of(precision_of(spec)); }

// Of the values of this rank's part.
int64_t own_bytes(const Bucket& bucket, DType precision) {
  return bucket.own_places(precision).length * bytes_of(precision);
}

// Micro-batches that are alike, of so many rows.
struct Rounds {
  int64_t rows = 0, times = 0;
};

// Those of a rank of the data axis, in their order.
std::vector<Rounds> rounds_of(const proto::JobSpec& spec, int data_index) {
  const int data = spec.parallel().data();
  const int64_t rows = part_of(spec.training().batch_size(), data, data_index).length;
  const int64_t most = share(spec.training().batch_size(), data);
  const int64_t given = spec.training().micro_batch_size();
  const int64_t size = given > 0 ? std::min<int64_t>(given, most) : most;
  std::vector<Rounds> rounds;
  if (rows >= size) rounds.push_back({size, rows / size});
  if (rows % size > 0) rounds.push_back({rows % size, 1});
  return rounds;
}

int64_t count_of(std::span<const Rounds> rounds) {
  int64_t count = 0;
  for (const Rounds& alike : rounds) count += alike.times;
  return count;
}

// What a step of one rank sends over the tensor axis.
class TensorTraffic {
 public:
  TensorTraffic(const ModelConfig& config, const proto::JobSpec& spec, const AdaptedMaps& adapted,
                int index)
      : config_(config),
        spec_(spec),
        adapted_(adapted),
        ranks_(spec.parallel().tensor()),
        index_(index) {}

  // One micro-batch of `rows`, on this rank of the sequence axis `tokens` of each (and the queries
  // of what is predicted) and, where there is one, `sources` of its source.
  AxisTraffic pass(int64_t rows, int64_t tokens, int64_t sources) const {
    const int64_t width = element_bytes(spec_) * rows * config_.hidden;
    const AxisTraffic gather = gather_traffic(tokens, width, ranks_, index_);
    const AxisTraffic scatter = scatter_traffic(tokens, width, ranks_, index_);
    const StackShape stack = last_stack(config_, spec_);
    AxisTraffic all = blocks(stack, gather + scatter, sums_embedding());
    if (stack.source > 0) {  // whose states the decoder reads, joined once
      const AxisTraffic source = gather_traffic(sources, width, ranks_, index_) +
                                 scatter_traffic(sources, width, ranks_, index_);
      const bool sums = config_.audio.mel_bins == 0;  // tokens of a recording each rank makes
      all += blocks(encoder_stack(config_, spec_.training()), source, sums) + source;
    }
    if (adapted_.all() > 0) {
      all += adapters(rows, tokens);
      if (adapted_.rescaled) all += norms();
      if (adapted_.rescaled && config_.adapter.dropout > 0) all += second_products(gather, scatter);
      all -= nobody_asks_for(gather, scatter);
    }
    all += gather;  // what the head reads
    if (!models_language(spec_)) return all;
    if (stack.predictions > 0) {  // of which it is given the predictions alone
      const int64_t asked = rows * stack.predictions;
      return all + reduce_traffic(asked * config_.hidden, element_bytes(spec_), ranks_, index_) +
             loss(asked);
    }
    all += scatter;
    all += loss(rows * tokens);
    return all;
  }

 private:
  // The embedding's sum forwards and its conjugate backwards; two products of each block's parts,
  // its MLP and one attention or two, forwards and backwards; parts that are computed again.
  AxisTraffic blocks(const StackShape& stack, const AxisTraffic& both, bool embeds) const {
    const int64_t attentions = stack.source > 0 ? 2 : 1;
    int64_t parts = 2 * (attentions + 1);
    if (again()) parts += attentions;
    if (full()) parts += 1;
    return both * (parts * stack.layers + (embeds ? 1 : 0));
  }

  // What adapters map their inputs to, and its gradients; the sums of theirs come apart.
  AxisTraffic adapters(int64_t rows, int64_t tokens) const {
    const int64_t width = element_bytes(spec_) * rows * config_.adapter.rank;
    const AxisTraffic gather = gather_traffic(tokens, width, ranks_, index_);
    const AxisTraffic scatter = scatter_traffic(tokens, width, ranks_, index_);
    AxisTraffic block = (gather + scatter) * adapted_.all();
    if (again()) block += gather * adapted_.columns + scatter * adapted_.rows;
    if (full()) block += gather * adapted_.mlp_columns + scatter * adapted_.mlp_rows;
    return block * config_.layers;
  }

  // DoRA's sums of squares of row-parallel weights, wherever something is computed.
  AxisTraffic norms() const {
    const int64_t times = adapted_.rows * (again() ? 2 : 1) + adapted_.mlp_rows * (full() ? 2 : 1);
    return reduce_traffic(config_.hidden, kSingle, ranks_, index_) * (times * config_.layers);
  }

  // DoRA's products of what dropout leaves: as those of what it is given, each for itself. The
  // first block's have no gradient of their input before the first adapter.
  AxisTraffic second_products(const AxisTraffic& gather, const AxisTraffic& scatter) const {
    const int64_t columns = adapted_.columns, rows = adapted_.rows;
    const int64_t mlp_columns = adapted_.mlp_columns, mlp_rows = adapted_.mlp_rows;
    AxisTraffic block = (gather + scatter) * adapted_.all();
    if (again()) block += gather * columns + scatter * rows;
    if (full()) block += gather * mlp_columns + scatter * mlp_rows;
    AxisTraffic all = block * config_.layers;
    all -= scatter * columns;
    if (columns > 0) return all;
    all -= gather * rows;
    if (rows > 0) return all;
    all -= scatter * mlp_columns;
    if (mlp_columns == 0) all -= gather * mlp_rows;
    return all;
  }

  // Patches each rank maps by itself.
  bool sums_embedding() const { return config_.image.size == 0; }
  bool full() const {
    return spec_.training().activation_checkpointing() == proto::ACTIVATION_CHECKPOINTING_FULL;
  }
  bool again() const {
    return full() ||
           spec_.training().activation_checkpointing() == proto::ACTIVATION_CHECKPOINTING_SELECTIVE;
  }

  // Of gradients what is not sent where all but adapters is frozen: those of the embedding and, of
  // the first block, of what comes before the first adapter.
  AxisTraffic nobody_asks_for(const AxisTraffic& gather, const AxisTraffic& scatter) const {
    const bool scores = adapted_.columns > 0, attention = scores || adapted_.rows > 0;
    const bool inner = attention || adapted_.mlp_columns > 0;
    AxisTraffic left = scatter;
    if (sums_embedding()) left += gather;
    if (!scores) left += gather;
    if (!attention) left += scatter;
    if (!inner) left += gather;
    const bool selective =
        spec_.training().activation_checkpointing() == proto::ACTIVATION_CHECKPOINTING_SELECTIVE;
    if (selective && !attention) left += gather + scatter;  // nothing is computed again
    return left;
  }

  // Of each row of logits the maximum, and three sums.
  AxisTraffic loss(int64_t rows) const {
    if (rows == 0) return {};
    const int64_t vocabulary = share(config_.vocabulary, ranks_);
    const bool on_gpu = spec_.resources().device() == proto::COMPUTE_DEVICE_GPU;
    const int64_t most = on_gpu ? gpu_logit_rows(vocabulary, element_bytes(spec_))
                                : std::max<int64_t>(16, kChunkElements / vocabulary);
    const int64_t step = share(rows, std::max<int64_t>(1, share(rows, most)));
    const auto chunk = [&](int64_t count) {
      return reduce_traffic(count, kSingle, ranks_, index_) +
             reduce_traffic(3 * count, kSingle, ranks_, index_);
    };
    const AxisTraffic whole = chunk(step) * (rows / step);
    return rows % step > 0 ? whole + chunk(rows % step) : whole;
  }

  const ModelConfig& config_;
  const proto::JobSpec& spec_;
  const AdaptedMaps adapted_;
  const int ranks_, index_;
};

AttentionSizes attention_sizes(const ModelConfig& config, const proto::JobSpec& spec,
                               int tensor_index) {
  const int tensor = spec.parallel().tensor();
  AttentionSizes sizes;
  sizes.tokens = spec.training().sequence_length();
  const auto heads = parallel::head_parts(config.heads, config.key_heads, tensor, tensor_index);
  sizes.heads = heads.queries.length;
  sizes.key_heads = heads.keys.length;
  sizes.features = sizes.values = config.head_features;
  sizes.element = element_bytes(spec);
  sizes.causal = config.attention.causal;
  sizes.window_left = sizes.balanced_window_left = config.attention.window_left;
  return sizes;
}

// Of a rank of a ring: tokens whose keys leave it, and whose keys come to it, over all shifts.
struct Travelled {
  int64_t out = 0, in = 0;
};
// What a token's window hides from a rank's queries stays where it is.
Travelled in_windows(const AttentionSizes& sizes, int ranks, int rank) {
  const parallel::AttentionPattern balanced{.causal = true,
                                            .window_left = sizes.balanced_window_left};
  const parallel::SequenceLayout layout =
      parallel::balanced_layout(parallel::keys_seen(balanced, sizes.tokens, {}, {}), ranks);
  attention::Visibility rules;
  rules.causal = true;
  rules.window_left = sizes.window_left;
  const parallel::VisibleTokens visible(rules, 1, sizes.tokens, sizes.tokens);
  const auto seen = [&](int owner, int reader) {
    int64_t tokens = 0;
    for (const Part& part : visible.of(layout.runs(owner), layout.runs(reader))) {
      tokens += part.length;
    }
    return tokens;
  };
  Travelled all;
  for (int other = 0; other < ranks; ++other) {
    if (other == rank) continue;
    all.out += seen(rank, other);
    all.in += seen(other, rank);
  }
  return all;
}

// Tokens of one rank of the sequence axis (parallel/sequence_balance.h), rounded.
int64_t tokens_of(int64_t tokens, int rings, int ulysses, int rank) {
  const int64_t group = part_of(tokens, rings, rank / ulysses).length;
  return part_of(group, ulysses, rank % ulysses).length;
}

}  // namespace

AxisTraffic& AxisTraffic::operator+=(const AxisTraffic& other) {
  bytes += other.bytes;
  messages += other.messages;
  return *this;
}

AxisTraffic& AxisTraffic::operator-=(const AxisTraffic& other) {
  bytes -= other.bytes;
  messages -= other.messages;
  return *this;
}

AxisTraffic gather_traffic(int64_t whole, int64_t width, int ranks, int rank) {
  return {part_of(whole, ranks, rank).length * (ranks - 1) * width, ranks - 1};
}

AxisTraffic scatter_traffic(int64_t whole, int64_t width, int ranks, int rank) {
  return {(whole - part_of(whole, ranks, rank).length) * width, ranks - 1};
}

AxisTraffic reduce_traffic(int64_t whole, int64_t width, int ranks, int rank) {
  AxisTraffic both = scatter_traffic(whole, width, ranks, rank);
  both += gather_traffic(whole, width, ranks, rank);
  if (whole * width <= kSmallBytes) both.messages = std::min(1, ranks - 1);
  return both;
}

AttentionTraffic ring_traffic(const AttentionSizes& sizes, int ranks, int rank) {
  const int64_t unit = sizes.rows * sizes.key_heads * (sizes.features + sizes.values);
  const int64_t term =
      std::max(sizes.element, kSingle);  // of a gradient that is still to be summed
  const int64_t messages = 2 * kRingPieces * (ranks - 1);
  int64_t out = sizes.own_keys() * (ranks - 1);    // tokens whose keys leave this rank
  int64_t back = sizes.keys() - sizes.own_keys();  // whose gradients it sends home
  if (sizes.causal) {
    // Of two chunks the early one is seen by every later rank and the late one by every earlier.
    out = sizes.own_tokens * (ranks - 1 + rank) / 2;
    back = sizes.tokens * (2 * (ranks - 1) - rank) / (2 * ranks);
  }
  if (sizes.causal && std::max(sizes.window_left, sizes.balanced_window_left) >= 0) {
    const Travelled all = in_windows(sizes, ranks, rank);
    out = all.out;
    back = all.in;
  }
  const AxisTraffic forward{unit * sizes.element * out, messages};
  return {forward, {forward.bytes + unit * term * back, 2 * messages}};
}

AttentionTraffic exchange_traffic(const AttentionSizes& sizes,
                                  std::span<const parallel::HeadParts> heads, int rank,
                                  bool terms) {
  const int64_t own = sizes.own_tokens, others = sizes.tokens - own;
  const int64_t own_keys = sizes.own_keys(), other_keys = sizes.keys() - own_keys;
  const auto [queries, keys] = heads[static_cast<size_t>(rank)];
  int64_t held = 0;  // heads of keys, on all ranks
  for (const parallel::HeadParts& parts : heads) held += parts.keys.length;
  terms |= held > sizes.key_heads;
  const int64_t term = terms ? std::max(sizes.element, kSingle) : sizes.element;
  const int64_t both = sizes.features + sizes.values, left = sizes.heads - queries.length;
  const int64_t there = own * left * sizes.features + own_keys * (held - keys.length) * both +
                        queries.length * others * sizes.values;
  const int64_t back = own * left * sizes.values + queries.length * others * sizes.features;
  const int64_t messages = 4 * (std::ssize(heads) - 1);
  return {{sizes.rows * sizes.element * there, messages},
          {sizes.rows * (sizes.element * back + term * keys.length * other_keys * both), messages}};
}

AttentionTraffic sequence_traffic(const AttentionSizes& sizes, int ranks, int ulysses, int rank) {
  const int rings = ranks / ulysses, ring = rank / ulysses;
  AttentionTraffic all;
  AttentionSizes group = sizes;  // what the ranks that exchange heads have together
  group.tokens = part_of(sizes.tokens, rings, ring).length;
  group.own_tokens = tokens_of(sizes.tokens, rings, ulysses, rank);
  group.source = part_of(sizes.source, rings, ring).length;
  group.own_source = tokens_of(sizes.source, rings, ulysses, rank);
  const auto heads = parallel::all_head_parts(sizes.heads, sizes.key_heads, ulysses);
  const int place = rank % ulysses;
  if (ulysses > 1) all = exchange_traffic(group, heads, place);
  if (rings == 1) return all;
  AttentionSizes round = sizes;
  round.own_tokens = group.tokens;
  round.own_source = group.source;
  round.key_heads = heads[static_cast<size_t>(place)].keys.length;
  const AttentionTraffic ringed = ring_traffic(round, rings, ring);
  all.forward += ringed.forward;
  all.backward += ringed.backward;
  return all;
}

AxisTraffic replica_traffic(const Buckets& buckets, const ReplicaSizes& sizes,
                            std::span<const ShardSize> shards) {
  AxisTraffic all;
  if (sizes.replicas == 1) return all;
  const int64_t messages = sizes.replicas - 1;
  int64_t last = 0;
  for (const Bucket& bucket : buckets.all()) last = std::max(last, bucket.unit);
  const std::vector<char> as_rows =
      sent_as_rows(buckets, sizes.tables, sizes.width, sizes.replicas);
  bool values_sent = false;  // of the rows: once for all tables
  const auto add = [&](const AxisTraffic& sent, const Bucket& of) {
    all += sent * (shards.empty() ? 1 : repeats_of(of, shards));
  };
  for (size_t b = 0; b < buckets.all().size(); ++b) {
    const Bucket& bucket = buckets.all()[b];
    const AxisTraffic scatter{kSingle * (bucket.elements - bucket.own.length), messages};
    const AxisTraffic gather{bucket.own.length * messages, messages};  // elements
    const AxisTraffic values{own_bytes(bucket, sizes.precision) * messages, messages};
    const bool gathered = sizes.zero == 3 && bucket.unit >= 0;
    if (!bucket.trained && !gathered) continue;
    const int64_t sums = sizes.zero >= 2 ? sizes.rounds : 1;
    const bool rows = as_rows[b] != 0;
    if (rows && !values_sent) {  // how many they are, and the elements of each
      const int64_t bytes = kId * sums + sizes.tokens * sizes.width * bytes_of(sizes.precision);
      add({bytes * messages, 2 * messages * sums}, bucket);
      values_sent = true;
    }
    if (rows) add({sizes.tokens * kId * messages, messages * sums}, bucket);  // and its number
    if (bucket.trained && (!rows || sizes.tables.whole(bucket.table))) {
      add(scatter * sums, bucket);
      if (sizes.zero == 0) add({kSingle * gather.bytes, messages}, bucket);
    }
    if (sizes.zero > 0 && !gathered) add(values, bucket);
    if (!gathered) continue;
    // A unit is gathered in the forward and in the backward pass; the last one stays open between
    // them unless the loss opens the embedding, whose own backward pass does not need it.
    add(values * (2 * sizes.rounds), bucket);
    if (!sizes.tied_logits && (bucket.unit == 0 || bucket.unit == last))
      all -= values * sizes.rounds;
  }
  return all;
}

ValueTraffic forward_values(const Buckets& buckets, const ReplicaSizes& sizes,
                            std::span<const ShardSize> shards) {
  ValueTraffic values;
  if (sizes.replicas == 1 || sizes.zero == 0) return values;
  const int64_t messages = sizes.replicas - 1;
  for (const Bucket& bucket : buckets.all()) {
    const bool gathered = sizes.zero == 3 && bucket.unit >= 0;
    if (!bucket.trained && !gathered) continue;
    const int64_t passes = gathered ? sizes.rounds : 1;
    const AxisTraffic once{own_bytes(bucket, sizes.precision) * messages, messages};
    const bool last = rows_go_ahead(bucket, sizes.ahead, sizes.width);
    const bool behind = sizes.alone && sizes.zero < 3 &&
                        std::ranges::all_of(bucket.entries, [&](const Bucket::Entry& entry) {
                          return shards[entry.parameter].behind_attention;
                        });
    const bool first = bucket.unit < kLaterUnit && !last && !behind;
    AxisTraffic& sent = first ? values.first : values.later;
    sent += once * (passes * repeats_of(bucket, shards));
  }
  return values;
}

int ulysses_degree(const ModelConfig& config, const proto::JobSpec& spec) {
  if (spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY) return ranks_in_row(spec);
  const proto::ParallelSpec& mesh = spec.parallel();
  switch (mesh.sequence_attention()) {
    case proto::SEQUENCE_ATTENTION_RING:
      return 1;
    case proto::SEQUENCE_ATTENTION_ULYSSES:
      return mesh.sequence();
    case proto::SEQUENCE_ATTENTION_ULYSSES_RING:
      return mesh.ulysses();
    default:
      break;
  }
  // The ranks of the tensor axis hold the same tokens: where their heads differ, rings suit all.
  const auto parts = parallel::all_head_parts(config.heads, config.key_heads, mesh.tensor());
  const auto [queries, keys] = parts.front();
  const bool alike = std::ranges::all_of(parts, [&](const parallel::HeadParts& other) {
    return other.queries.length == queries.length && other.keys.length == keys.length;
  });
  parallel::AttentionHeads heads;
  if (alike) heads = {queries.length, keys.length};
  return parallel::least_sent(heads, mesh.sequence(), config.attention.causal,
                              element_bytes(spec) < kSingle);
}

TableUse table_use(const ModelConfig& config, const proto::JobSpec& spec, bool language_model) {
  const std::vector<Rounds> rounds = rounds_of(spec, 0);
  const proto::ParallelSpec& mesh = spec.parallel();
  const int zero = mesh.data() * mesh.sequence() > 1 ? mesh.zero() : 0;
  const int64_t tokens = share(spec.training().sequence_length(), mesh.sequence());
  const bool known = !rounds.empty() && spec.training().precision() != proto::PRECISION_FP16;
  return {known ? rounds[0].rows * tokens : 0, language_model && config.tied,
          zero < 2 && count_of(rounds) > 1};
}

int64_t tokens_ahead(const ModelConfig& config, const proto::JobSpec& spec) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const bool alone = mesh.tensor() == 1 && mesh.sequence() == 1;
  const bool follow = mesh.data() > 1 && (mesh.zero() == 1 || mesh.zero() == 2);
  const bool on_gpu = spec.resources().device() == proto::COMPUTE_DEVICE_GPU;
  const bool in_blocks = spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
  if (!alone || !follow || on_gpu || in_blocks) return 0;
  return table_use(config, spec, models_language(spec)).tokens * mesh.data();
}

namespace {

// An attention that so many layers have.
struct LayersAlike {
  AttentionSizes sizes;
  int64_t layers = 0;
};

std::vector<LayersAlike> attentions_of(const ModelConfig& config, const proto::JobSpec& spec,
                                       int tensor_index) {
  const AttentionSizes most = attention_sizes(config, spec, tensor_index);
  if (!config.encodes_and_decodes()) {
    AttentionSizes others = most;
    others.window_left = config.other_attention.window_left;
    return {{most, config.layers - config.other_layers}, {others, config.other_layers}};
  }
  const StackShape decoder = last_stack(config, spec);
  AttentionSizes to_itself = most, to_source = most;
  to_itself.tokens = to_source.tokens = decoder.length;
  to_itself.causal = true;
  to_source.source = decoder.source;
  return {{most, config.encoder_layers}, {to_itself, decoder.layers}, {to_source, decoder.layers}};
}

// Of attention over the sequence axis, in these micro-batches.
AxisTraffic scores_traffic(const ModelConfig& config, const proto::JobSpec& spec,
                           const AdaptedMaps& adapted, std::span<const Rounds> rounds,
                           const MeshPlace& place) {
  AxisTraffic sent;
  const int ranks = spec.parallel().sequence(), ulysses = ulysses_degree(config, spec);
  const std::vector<LayersAlike> attentions = attentions_of(config, spec, place.tensor);
  const auto recompute = spec.training().activation_checkpointing();
  const bool again = recompute != proto::ACTIVATION_CHECKPOINTING_NONE;
  const bool selective = recompute == proto::ACTIVATION_CHECKPOINTING_SELECTIVE;
  for (const Rounds& alike : rounds) {
    const auto of_layer = [&](AttentionSizes sizes) {
      sizes.rows = alike.rows;
      return sequence_traffic(sizes, ranks, ulysses, place.sequence);
    };
    for (const auto& [sizes, layers] : attentions) {
      if (layers == 0) continue;
      const AttentionTraffic layer = of_layer(sizes);
      sent += layer.forward * (layers * alike.times * (again ? 2 : 1));
      sent += layer.backward * (layers * alike.times);
    }
    if (adapted.all() == 0 || adapted.columns > 0) continue;
    // Nobody asks for gradients of the first block's scores.
    const AttentionTraffic first = of_layer(attentions.front().sizes);
    sent -= first.backward * alike.times;
    if (selective && adapted.rows == 0) sent -= first.forward * alike.times;
  }
  return sent;
}

// Of answers' beginnings and ends, told apart over all tokens of a row: of each the maximum and
// three sums, and the whole loss's gradient, a number.
AxisTraffic ends_traffic(const proto::JobSpec& spec, std::span<const Rounds> rounds, int rank) {
  const int ranks = spec.parallel().sequence();
  AxisTraffic sent;
  for (const Rounds& alike : rounds) {
    const int64_t ends = kSpanEnds * alike.rows;
    sent +=
        (reduce_traffic(ends, kSingle, ranks, rank) +
         reduce_traffic(3 * ends, kSingle, ranks, rank) + reduce_traffic(1, kSingle, ranks, rank)) *
        alike.times;
  }
  return sent;
}

}  // namespace

StepTraffic step_traffic(const ModelConfig& config, const proto::JobSpec& spec,
                         std::span<const ShardSize> shards, const MeshPlace& place) {
  if (spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY) {
    return blocked_traffic(config, spec, shards, place);
  }
  const proto::ParallelSpec& mesh = spec.parallel();
  const int replicas = mesh.data() * mesh.sequence();
  const int replica = place.data * mesh.sequence() + place.sequence;
  const int zero = replicas > 1 ? mesh.zero() : 0;
  std::vector<Rounds> rounds = rounds_of(spec, place.data);
  const int64_t most = count_of(rounds_of(spec, 0));
  // With no rows left, parameters are still gathered.
  if (zero == 3) rounds.push_back({0, most - count_of(rounds)});
  const int64_t passes = count_of(rounds);
  const int ulysses = ulysses_degree(config, spec);
  const auto own_tokens = [&](int64_t length) {
    return tokens_of(length, mesh.sequence() / ulysses, ulysses, place.sequence);
  };
  const StackShape stack = last_stack(config, spec);
  const int64_t tokens = own_tokens(stack.length), queries = own_tokens(stack.queries());
  StepTraffic step;
  if (mesh.tensor() > 1) {
    const TensorTraffic tensor(config, spec, adapted_maps(shards), place.tensor);
    for (const Rounds& alike : rounds) {
      step.tensor += tensor.pass(alike.rows, queries, own_tokens(stack.source)) * alike.times;
    }
    for (const ShardSize& shard : shards) {
      if (shard.unit < 0 || !shard.trained || !shard.reached) continue;
      const int ranks = shard.whole ? mesh.tensor() : shard.copies;
      const int rank = shard.whole ? place.tensor : shard.copy;
      const int64_t element = bytes_of(value_dtype(shard.keep_fp32, precision_of(spec)));
      step.tensor +=
          reduce_traffic(shard.elements, element, ranks, rank) * (passes * shard.repeats);
    }
  }
  if (mesh.sequence() > 1) {
    step.sequence = scores_traffic(config, spec, adapted_maps(shards), rounds, place);
    if (std::ranges::any_of(spec.tasks(), finds_answers)) {
      step.sequence += ends_traffic(spec, rounds, place.sequence);
    }
  }
  const Buckets buckets(bucket_items(shards), replicas, replica, mesh.bucket_bytes());
  ReplicaSizes sizes{replicas, zero, most, precision_of(spec),
                     config.tied && models_language(spec)};
  sizes.tables = table_use(config, spec, models_language(spec));
  sizes.width = config.hidden;
  for (const auto [rows, times] : rounds) {
    sizes.tokens = zero >= 2 ? sizes.tokens + rows * times * tokens : rows * tokens;
  }
  step.replica = replica_traffic(buckets, sizes, shards);
  sizes.ahead = tokens_ahead(config, spec);
  sizes.alone = mesh.tensor() == 1 && mesh.sequence() == 1;
  for (const Bucket& bucket : buckets.all()) {
    if (!rows_go_ahead(bucket, sizes.ahead, sizes.width)) continue;
    const int64_t own = sizes.ahead * sizes.width / replicas;
    step.rows_ahead += {own * bytes_of(sizes.precision) * (replicas - 1), replicas - 1};
  }
  // An embedding's sums of all rows forwards, their gradients backwards.
  if (std::ranges::any_of(spec.tasks(), embeds)) {
    const int64_t elements = spec.training().batch_size() * config.hidden;
    step.replica += reduce_traffic(elements, bytes_of(DType::kF32), replicas, replica) * 2;
  }
  step.values = forward_values(buckets, sizes, shards);
  step.values.first += step.rows_ahead;
  step.replica += step.rows_ahead;
  return step;
}

}  // namespace weft
