#include "worker/admission/memory_sizes.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "proto/json/job_rules.h"
#include "worker/admission/blocked_traffic.h"
#include "worker/admission/traffic.h"
#include "worker/parallel/head_parts.h"

namespace weft {
namespace {

constexpr int64_t kBatchBytes = 8 * 4;  // a token's id, position, document and label
// On a GPU, of logits: their bytes, and the unit of their columns (kernels/cuda/limits.h).
constexpr int64_t kGpuLogitBytes = int64_t{1} << 30, kGpuLogitColumns = 64;
// And of scores by distance.
constexpr int64_t kGpuRelativeBytes = int64_t{32} << 20;
// Of the attention that cuDNN may compute (kernels/cuda/attention_choice.h).
constexpr int64_t kCudnnWidthMin = 64, kCudnnTokensMin = 512, kCudnnUnorderedTokensMin = 1024;

// The weight and, where it is trained, both moments.
int64_t state_tensors(const ShardSize& shard) { return shard.trained ? 3 : 1; }

// Elements that one replica writes of a checkpoint, of a job's first one: state tensors go round
// among them unless each has its own part, as of what is frozen (checkpoint/writer.cc).
int64_t largest_turn(std::span<const ShardSize> shards, int64_t replicas, int zero) {
  int64_t parts = 0;
  for (const ShardSize& each : shards) {
    if (zero == 0 && each.trained) continue;
    parts += state_tensors(each) * share(each.elements, replicas) * each.repeats;
  }
  if (zero > 0) return parts;
  std::vector<int64_t> of_replica(static_cast<size_t>(replicas));
  size_t turn = 0;
  const auto take_turns = [&](std::span<const ShardSize> unit, int64_t times) {
    for (const ShardSize& shard : unit) {
      for (int64_t role = 0; role < state_tensors(shard); ++role, ++turn) {
        of_replica[turn % of_replica.size()] += shard.trained ? shard.elements * times : 0;
      }
    }
  };
  for (size_t first = 0, end = 0; first < shards.size(); first = end) {
    while (end < shards.size() && shards[end].unit == shards[first].unit) ++end;
    const auto unit = shards.subspan(first, end - first);
    // After so many repeats the turns are where they were.
    int64_t turns = 0;
    for (const ShardSize& shard : unit) turns += state_tensors(shard);
    const int64_t period = replicas / std::gcd(turns, replicas);
    const int64_t periods = unit[0].repeats / period;
    for (int64_t i = 0; periods > 0 && i < period; ++i) take_turns(unit, periods);
    for (int64_t i = periods * period; i < unit[0].repeats; ++i) take_turns(unit, 1);
  }
  return parts + *std::ranges::max_element(of_replica);
}

}  // namespace

int64_t gpu_logit_columns(int64_t vocabulary) {
  return share(vocabulary, kGpuLogitColumns) * kGpuLogitColumns;
}

int64_t gpu_logit_rows(int64_t vocabulary, int64_t element) {
  return std::max<int64_t>(1, kGpuLogitBytes / (element * gpu_logit_columns(vocabulary)));
}

Sizes::Sizes(const ModelConfig& config, const proto::JobSpec& spec,
             std::span<const ShardSize> shards, const StackShape& stack)
    : adapted(adapted_maps(shards)), rank(config.adapter.rank), dropout(config.adapter.dropout) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const proto::TrainingSpec& training = spec.training();
  tensor = mesh.tensor();
  sequence = mesh.sequence();
  replicas = int64_t{mesh.data()} * sequence;
  const int64_t rows = share(training.batch_size(), mesh.data());
  const int64_t micro = training.micro_batch_size();
  batch = micro > 0 ? std::min(micro, rows) : rows;
  accumulates = batch < rows;
  tokens = batch * share(stack.queries(), sequence);
  between = batch * share(share(stack.queries(), sequence), tensor);
  key_tokens = batch * share(stack.length, sequence);
  with_logits = stack.predictions > 0 ? batch * stack.predictions : tokens;
  source_tokens = batch * share(stack.source, sequence);
  distances = config.distances > 0 ? 2 * config.distances + 1 : 0;
  hidden = config.hidden;
  // Of an encoder-decoder the encoder has them.
  hears = config.audio.mel_bins > 0 && stack.source == 0;
  const int64_t seen = hears ? config.audio.values() : config.image.values();
  patches = kSingle * tokens * seen;
  blocks = blocks_of(spec);
  const bool in_blocks = blocks > 0;
  heads = key_features = key_copies = 0;
  const auto parts_of = in_blocks ? parallel::all_blocked_head_parts : parallel::all_head_parts;
  for (const parallel::HeadParts& parts :
       parts_of(config.heads, config.key_heads, static_cast<int>(tensor))) {
    heads = std::max(heads, parts.queries.length);
    key_features = std::max(key_features, parts.keys.length * config.head_features);
  }
  features = heads * config.head_features;
  attended = features;
  key_attended = key_features;
  in_row = in_blocks ? ranks_in_row(spec) : 1;
  key_terms = 0;
  if (in_blocks) share_heads(config);
  if (config.key_heads < tensor && config.key_heads < config.heads && !in_blocks) {
    key_copies = 2 * key_features * hidden;
  }
  gated = config.gated;
  gate_apart = config.gate_apart;
  head_norms = config.head_norms ? heads + key_features / config.head_features : 0;
  angles = config.rotary ? kSingle * tokens * config.head_features : 0;
  inner = share(config.inner, tensor);
  vocabulary = share(config.vocabulary, tensor);
  layers = stack.layers;
  fp16 = training.precision() == proto::PRECISION_FP16;
  const bool half = fp16 || training.precision() == proto::PRECISION_BF16;
  element = half ? 2 : kSingle;
  // As they are computed with, for the gradient of what maps them.
  if (half && config.adapter.rank == 0) patches += element * between * seen;
  recompute = training.activation_checkpointing();
  embedded = std::ranges::any_of(spec.tasks(), embeds) ? training.batch_size() : 0;
  const int64_t whole_rows = in_blocks ? share(batch, sequence) : batch;
  scores = whole_rows * heads * stack.queries() * stack.length;
  relative = config.relative;
  const int64_t groups = config.relative_by_row ? whole_rows : in_blocks ? blocks / replicas : 1;
  relatives = relative ? groups * (2 * stack.length - 1) : 0;
  gpu_relatives = relative ? relatives_on_gpu(whole_rows * heads, config.head_features, stack) : 0;
  if (half && sequence == 1 && !in_blocks) find_cudnn(config, training, stack);
}

void Sizes::find_cudnn(const ModelConfig& config, const proto::TrainingSpec& training,
                       const StackShape& stack) {
  const int64_t width = config.head_features;
  const bool some_whole = config.attention.window_left < 0 ||
                          (config.other_layers > 0 && config.other_attention.window_left < 0);
  const bool any_order = training.reproducible() == proto::REPRODUCIBLE_NONE;
  const auto to_keys = [&](int64_t keys) {
    const int64_t least = std::min(stack.length, keys);
    return ByCudnn{width > kCudnnWidthMin && least >= kCudnnTokensMin,
                   any_order && width >= kCudnnWidthMin && least >= kCudnnUnorderedTokensMin,
                   batch * heads * stack.length * keys};
  };
  if (some_whole && distances == 0 && !relative) by_cudnn[0] = to_keys(stack.length);
  if (stack.source > 0) by_cudnn[1] = to_keys(stack.source);
}

void Sizes::share_heads(const ModelConfig& config) {
  const int64_t each =
      parallel::heads_of_term(config.heads, config.key_heads, static_cast<int>(blocks));
  const int64_t over_tokens = in_row * config.head_features;  // of a head
  attended = key_attended = 0;
  for (const auto& [queries, keys] : parallel::all_blocked_head_parts(
           config.heads, config.key_heads, static_cast<int>(tensor * in_row))) {
    attended = std::max(attended, queries.length * over_tokens);
    key_attended = std::max(key_attended, keys.length * over_tokens);
    const bool several = each > 0 && queries.length > keys.length * each;
    if (several) key_terms = std::max(key_terms, queries.length / each * over_tokens);
  }
}

int64_t Sizes::attention() const {
  const int64_t home = in_row > 1 ? tokens * features : 0;  // the result by tokens, too
  return element *
             (kept_input(adapted.columns) + tokens * 2 * attended + key_tokens * 2 * key_attended +
              home + key_copies + of_adapters(adapted.columns, adapted.rows, features) +
              of_magnitudes(adapted.outputs, adapted.rows)) +
         kSingle * (tokens * attended * heads / features + 2 * between) + of_head_norms() +
         source_attention() + of_relatives();
}

int64_t Sizes::of_relatives() const {
  if (!relative) return 0;
  return (fp16 ? kSingle : element) * scores + element * (tokens + relatives) * features;
}

// Queries with a vector of their head, each row's gradient of the distances, and of some pairs of a
// row and a head scores by distance and products.
int64_t Sizes::relatives_on_gpu(int64_t pairs, int64_t width, const StackShape& stack) const {
  const int64_t queries = stack.queries(), of_pair = 2 * stack.length - 1;  // distances
  const int64_t pair = kSingle * (queries * of_pair + (queries + of_pair) * width);
  return pairs * width * (element * queries + kSingle * of_pair) +
         std::max(pair, std::min(pairs * pair, kGpuRelativeBytes));
}

int64_t Sizes::source_attention() const {
  if (source_tokens == 0) return 0;
  return element * (between * hidden + normed() * hidden + 2 * tokens * features +
                    2 * source_tokens * key_features) +
         kSingle * (tokens * heads + 2 * between);
}

int64_t Sizes::kept_input(int64_t adapters) const {
  if (rank == 0) return normed() * hidden;
  return adapters > 0 && dropout == 0 ? between * hidden : 0;
}

int64_t Sizes::left_of_first() const {
  if (rank == 0 || again() || adapted.columns > 0) return 0;
  int64_t left = stream() + attention();
  if (adapted.rows > 0) {
    left -= element * (tokens * features + rank * between + of_magnitudes(0, adapted.rows));
  }
  if (adapted.rows > 0) return left;
  left += element * between * hidden + kSingle * 2 * between;
  if (adapted.mlp_columns > 0) return left;
  return left + element * tokens * (gated ? 2 : 1) * inner;
}

int64_t Sizes::of_adapters(int64_t columns, int64_t rows, int64_t row_features) const {
  const int64_t dropped =
      dropout > 0 ? columns * between * hidden + rows * tokens * row_features : 0;
  return rank * (columns * tokens + rows * between) + dropped;
}

int64_t Sizes::of_magnitudes(int64_t outputs, int64_t rows) const {
  return adapted.rescaled ? tokens * outputs + rows * between * hidden : 0;
}

int64_t Sizes::of_head_norms() const {
  if (head_norms == 0) return 0;
  const int64_t kept =
      blocks > 0 ? 2 : 1;  // there gamma is an op of its own, which keeps its input
  return tokens * (kept * element * (features + key_features) + kSingle * head_norms);
}

int64_t Sizes::mlp() const {
  const int64_t input = fp16 && !gated ? kSingle : element;  // kept of fp16 as it is computed with
  const bool kept_inner = rank == 0 || (adapted.mlp_rows > 0 && dropout == 0);
  return element * (between * hidden + kept_input(adapted.mlp_columns) +
                    (kept_inner ? tokens * inner : 0) +
                    of_adapters(adapted.mlp_columns, adapted.mlp_rows, inner) +
                    of_magnitudes(adapted.mlp_outputs, adapted.mlp_rows)) +
         input * tokens * ((gated ? 2 : 1) + (gate_apart ? 1 : 0)) * inner + kSingle * 2 * between;
}

int64_t Sizes::embedding() const {
  if (embedded == 0) return 0;
  const int64_t vectors = 5 * embedded * hidden, pairs = embedded / 2;
  const int64_t states = (element < kSingle ? 2 : 0) + (blocks > 0 ? 2 : 0);
  return kSingle * (vectors + 3 * pairs * pairs + states * tokens * hidden);
}

int64_t Sizes::kept_block() const {
  if (full()) return stream();
  return stream() + mlp() + (again() ? 0 : attention());
}

Parameters::Parameters(const ModelConfig& config, const proto::JobSpec& spec,
                       std::span<const ShardSize> shards) {
  for (const ShardSize& shard : shards) {
    const int64_t elements = shard.elements * shard.repeats;
    count += elements;
    kept_fp32 += shard.keep_fp32 ? elements : 0;
    trained += shard.trained ? elements : 0;
    trained_kept_fp32 += shard.keep_fp32 && shard.trained ? elements : 0;
    largest = std::max(largest, shard.elements);
    const bool decodes = config.encodes_and_decodes() && shard.unit > config.encoder_layers;
    if (decodes && shard.trained) decoder_gradients += elements;
    if (shard.unit <= 0 || shard.unit >= config.last_unit()) continue;
    largest_of_block = std::max(largest_of_block, shard.elements);
    if (shard.trained) largest_gradient = std::max(largest_gradient, shard.elements);
  }
  if (config.adapter.rank == 0) {
    table = share(config.vocabulary, spec.parallel().tensor()) * config.hidden;
  }
  const int replicas = spec.parallel().data() * spec.parallel().sequence();
  const Buckets buckets(bucket_items(shards), replicas, 0, spec.parallel().bucket_bytes());
  const TableUse use = table_use(config, spec, models_language(spec));
  std::vector<char> by_rows = sent_as_rows(buckets, use, config.hidden, replicas);
  const bool in_blocks = spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
  if (replicas == 1 || in_blocks) std::ranges::fill(by_rows, 0);
  std::map<int64_t, int64_t> units, gradients;
  for (size_t b = 0; b < by_rows.size(); ++b) {
    const Bucket& bucket = buckets.all()[b];
    units[bucket.unit] += bucket.elements;
    if (!bucket.trained) continue;
    gradients[bucket.unit] += bucket.elements;
    if (by_rows[b] != 0) {
      table_by_rows |= bucket.table == LookedUp::kByToken;
      only_rows += use.whole(bucket.table) ? 0 : bucket.elements * repeats_of(bucket, shards);
      continue;
    }
    int64_t& most = bucket.unit == 0 ? embedding_bucket : block_bucket;
    most = std::max(most, bucket.elements);
  }
  embedding_bucket = embedding_bucket > 0 ? embedding_bucket : block_bucket;
  checkpoint = largest_turn(shards, replicas, spec.parallel().zero());
  embedding_unit = units[0];
  embedding_gradients = gradients[0];
  for (const int64_t layer : {int64_t{0}, config.encoder_layers}) {  // of the larger blocks
    block_unit = std::max(block_unit, units[config.unit_of(layer)]);
    block_gradients = std::max(block_gradients, gradients[config.unit_of(layer)]);
  }
  last_unit = units[config.last_unit()];
}

StepMemory::StepMemory(const ModelConfig& config, const proto::JobSpec& spec,
                       std::span<const ShardSize> shards)
    : s(config, spec, shards, last_stack(config, spec)),
      parameters(config, spec, shards),
      language_model(models_language(spec)),
      tied(config.tied),
      scales_logits(config.logit_scale != 1),
      zero(s.replicas > 1 ? spec.parallel().zero() : 0),
      sharing(zero > 0 ? s.replicas : 1) {
  // Of masters what is not a value: of bf16 the other half, which what is kept in fp32 lacks where
  // nothing is shared out. (Level 3's units have of that too little to count.)
  const bool whole = zero < 3;
  const int64_t more = (kSingle - s.element) * parameters.kept_fp32;
  const int64_t of_masters = kSingle - (whole && !s.fp16 ? s.element : 0);
  all.parameters = whole ? s.element * parameters.count + more : 0;
  const int64_t frozen = parameters.count - parameters.trained;
  all.optimizer = share((of_masters + 2 * kSingle) * parameters.trained, sharing) -
                  (zero == 0 ? of_masters * parameters.trained_kept_fp32 : 0) +
                  (whole ? 0 : share(s.element * frozen, sharing));
  all.checkpoint = kSingle * parameters.checkpoint;
  // Sums over the ranks of blocks are shared out as soon as there is one.
  const bool shared = zero >= 2 || (zero == 1 && s.blocks > 0);
  gradients = share(kSingle * parameters.trained, shared ? sharing : 1);
  earlier = s.accumulates ? gradients : 0;
  table = language_model ? kSingle * parameters.table : 0;
  table_leaves = table > 0 && s.replicas > 1 && (parameters.table_by_rows || !tied);
  if (config.encodes_and_decodes()) {
    source.emplace(config, spec, shards, encoder_stack(config, spec.training()));
  }
  const int64_t final_norm = 2 * s.stream();
  kept = kept_source() + s.score_bias() + batch() + s.angles +
         s.element * share(s.relatives, s.blocks > 0 ? s.tensor : 1) * s.hidden +
         s.layers * s.kept_block() - s.left_of_first() + final_norm;
  // Weights of heads are used in another shape, which keeps a unit that was gathered; with blocks
  // in their own.
  if (s.relative && zero == 3 && !s.again() && s.blocks == 0)
    kept += s.element * s.layers * parameters.block_unit;
}

int64_t StepMemory::batch() const {
  const int64_t of_source = source ? kBatchBytes * source->tokens + source->patches : 0;
  return kBatchBytes * s.tokens + s.patches + of_source;
}

int64_t StepMemory::memory() const {
  return source ? source->stream() + source->element * source->normed() * source->hidden : 0;
}

int64_t StepMemory::kept_source() const {
  if (!source) return 0;
  return source->convolutions() + source->layers * source->kept_block() + memory() +
         source->score_bias();
}

}  // namespace weft
