#include "worker/admission/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "worker/admission/blocked_memory.h"
#include "worker/admission/memory_sizes.h"
#include "worker/parallel/head_parts.h"

namespace weft {
namespace {

constexpr int64_t kChunkElements = 1 << 25;  // of logits at once (kernels/ops/linear_cross_entropy)
constexpr int64_t kInFlight = 2;             // buckets, from level 2 on (optimizer/gradients.h)
// Of the attention that cuDNN may compute there (kernels/cuda/attention_choice.h).
constexpr int64_t kCudnnWorkspaceMax = int64_t{1} << 30;

// What a rank takes beside its tensors, as its limit counts it (cluster/process/process.h): data of
// the program and its libraries, MPI's, generated code, stacks; what the allocator holds of each
// byte of tensors; what it leaves the libraries of a limit (kernels/tensor/allocator.cc). What a
// checkpoint takes beside its copy, out of which chunks are sent: threads (checkpoint/writer.cc)
// and what the allocator does not foresee. Measured, docs/PERFORMANCE.md.
constexpr int64_t kProgramBytes = 21'000'000;
constexpr double kHeld = 1.07;
constexpr int64_t kOthersMin = int64_t{32} << 20;
constexpr int64_t kWriterBytes = 15'000'000;
// Of each further thread that computes: its stack (cluster/process/process.h) and what malloc and
// the libraries keep for it, and the matrix that it keeps turned for the products that follow, of
// at most so many elements (kernels/cpu/gemm_onednn.cc).
constexpr int64_t kThreadBytes = 1'100'000;
constexpr int64_t kTurnedMax = int64_t{1} << 21;
// On a GPU: context, kernels, workspaces of cuBLASLt and buffers of NCCL; what is held of each byte
// of tensors; of the host, what the driver maps there and pinned buffers. Not measured yet.
constexpr int64_t kGpuProgramBytes = 1'200'000'000, kGpuDriverBytes = 1'700'000'000;
constexpr double kGpuHeld = 1.22;

// What a process needs of its limit, that has `taken` so much before its first checkpoint: that is
// written out of what its tensors leave to others, or beyond it.
int64_t limit_for(int64_t taken, int64_t checkpoint) {
  const int64_t others = std::max(kOthersMin, taken / 31);  // a 32nd of the sum
  return taken + std::max(others, kWriterBytes + checkpoint);
}

// What a thread of a CPU takes for attention's gradients, whatever the batch
// (kernels/attention/backward.cc): packed tiles of queries and of their gradients, a sum of those;
// of a tile of keys and values the sums, unless several heads share them, and copies of a half
// type; blocks of scores.
int64_t attention_tiles(const Sizes& s) {
  constexpr int64_t kKeys = 512, kQueries = 64;
  const int64_t width = s.features / s.heads, element = s.fp16 ? kSingle : s.element;
  const bool half = element < kSingle;
  const int64_t sums = s.key_features == s.features ? 2 * kSingle : 0;
  return kKeys * width * (sums + (half ? 3 * element : 0)) +
         kQueries * width * (4 * element + kSingle) +
         kQueries * kQueries * (2 * kSingle + (half ? 3 : 2) * element);
}

// Of a bias by distance: its gradient, beside a block's, and what each row and head adds to that.
int64_t distance_gradients(const Sizes& s) {
  constexpr int64_t kQueries = 64;  // a tile's, which stand in one piece behind each distance
  if (s.distances == 0) return 0;
  return 2 * s.element * s.heads * s.distances +
         kSingle * s.heads * (s.distances + s.batch * (s.distances + 2 * (kQueries - 1)));
}

// Of terms by distance: their gradient, of a half type in fp32, too.
int64_t relative_gradients(const Sizes& s) {
  if (!s.relative) return 0;
  return (s.element + (s.element < kSingle ? kSingle : 0)) * s.scores;
}

// What the last block's backward pass adds to what is kept, in its MLP: the gradients of the
// stream and of the inner features; or in its attention, once the MLP's part is freed: those of
// query, key and value, each beside the sum it is added to, or while they are computed, beside that
// of their result. workspace: of those. (On a GPU, which has no such tiles, they are too small to
// count.)
int64_t block_backward(const Sizes& s, int64_t workspace) {
  const int64_t streams = s.between * s.hidden + s.tokens * s.hidden;
  const int64_t of_heads = s.tokens * (s.features + 2 * s.key_features);
  const int64_t visiting = s.sequence > 1 ? 4 * s.tokens * s.key_features : 0;  // and its gradient
  const int64_t in_mlp = (s.full() ? s.attention() + s.mlp() : 0) +
                         s.element * (streams + (s.gated ? 2 : 1) * s.tokens * s.inner);
  const int64_t computed =
      s.element * (of_heads + s.tokens * s.features) + attention_tiles(s) + relative_gradients(s);
  const int64_t in_attention = (s.again() ? s.attention() : 0) - (s.full() ? 0 : s.mlp()) +
                               s.element * (streams + visiting) +
                               std::max(3 * s.element * of_heads, computed) + workspace +
                               distance_gradients(s);
  return std::max(in_mlp, in_attention);
}

// Of cuDNN's gradients of attention: those of the scores, or where any order will do, sums of
// those of the queries; and the dots of each query's output with its gradient.
int64_t cudnn_workspace(const Sizes& s) {
  const auto within = [](int64_t bytes) { return bytes <= kCudnnWorkspaceMax ? bytes : 0; };
  const int64_t dots = kSingle * s.tokens * s.heads;
  int64_t most = 0;
  for (const ByCudnn& each : s.by_cudnn) {
    if (each.ordered) most = std::max(most, within(s.element * each.scores + dots));
    if (each.unordered) most = std::max(most, within(kSingle * s.tokens * s.features + dots));
  }
  return most;
}

// On a GPU at work for a block's attention, beyond what it is on a CPU. The gradient of scores with
// terms by distance is there in one precision alone.
int64_t gpu_workspace(const Sizes& s) {
  if (!s.relative) return cudnn_workspace(s);
  return s.gpu_relatives + s.element * s.scores - relative_gradients(s);
}

int64_t loss_ends(const Sizes& s) {
  const int64_t whole = s.element * s.tokens * s.hidden;
  return (s.tensor > 1 ? 2 * whole : whole) + s.embedding();
}

// At the loss: the normed stream, whole, and its gradient; of a language model a chunk of logits
// too. bf16 rounds their gradient, fp16 takes all in fp32 copies.
int64_t loss_workspace(const Sizes& s, bool language_model) {
  if (!language_model) return loss_ends(s);
  const int64_t rows =
      std::min(s.with_logits, std::max<int64_t>(16, kChunkElements / s.vocabulary));
  const int64_t logits = rows * s.vocabulary * (s.element == kSingle || s.fp16 ? 4 : 6);
  return loss_ends(s) + logits +
         (s.fp16 ? kSingle * s.hidden * (2 * s.with_logits + s.vocabulary) : 0);
}

// The same on a GPU: the logits become their gradient, in the precision of the model; the table
// is filled up to whole units of columns (kernels/cuda/gpu_losses.cc).
int64_t loss_on_gpu(const Sizes& s, bool language_model) {
  if (!language_model) return loss_ends(s);
  const int64_t columns = gpu_logit_columns(s.vocabulary), row = s.element * columns;
  const int64_t rows = std::min(s.with_logits, gpu_logit_rows(s.vocabulary, s.element));
  return loss_ends(s) + rows * row + (columns > s.vocabulary ? row * s.hidden : 0);
}

// Whether a rank exchanges something else in every block. A communicator works in order, so that
// what the block before has sent is there then.
bool in_turn(const Sizes& s) { return s.replicas > 1 && (s.sequence > 1 || s.tensor > 1); }

// Gradients of this pass and of those before it, when those of the last `sent` bytes of parameters
// have left for the replicas, as many of them under way as can be, beside the parts that they are
// summed in. The table's, which the loss makes, have left before these, or stay.
int64_t gradients_held(const StepMemory& m, int64_t sent) {
  const Sizes& s = m.s;
  if (s.replicas == 1) return m.table + std::max(m.earlier, sent);
  const int64_t staying = m.table_leaves ? 0 : m.table;
  const int64_t left = sent + m.table - staying;
  int64_t whole = in_turn(s) ? std::min(sent, kSingle * m.parameters.block_gradients) : left;
  if (m.zero >= 2) {
    whole = std::min(whole, kInFlight * kSingle * m.parameters.block_bucket);
    const int64_t parts = share(s.accumulates ? whole : left, s.replicas);
    return staying + m.earlier + whole + parts;
  }
  const int64_t waiting = s.accumulates ? m.earlier - left : 0;
  const int64_t summed =
      m.zero == 0 ? left + share(whole, s.replicas) : whole + share(left, s.replicas);
  return staying + waiting + summed;
}

// At work in the backward pass of a block of the stack.
void set_backward(MemoryEstimate& moment, const Sizes& s) {
  moment.workspace = block_backward(s, 0);
  moment.gpu_more = block_backward(s, gpu_workspace(s)) - moment.workspace;
}

// Of an encoder-decoder the backward pass of the encoder's last block, when the decoder's gradients
// are there or travel, `at_work` those of the block itself; of other models that of the last block.
MemoryEstimate turning(const StepMemory& m, MemoryEstimate backward, int64_t at_work) {
  if (!m.source) return backward;
  backward.gradients = at_work + gradients_held(m, kSingle * m.parameters.decoder_gradients);
  backward.activations = m.batch() + m.kept_source();
  set_backward(backward, *m.source);
  return backward;
}

std::vector<MemoryEstimate> moments_of(const StepMemory& m) {
  const Sizes& s = m.s;
  const Parameters& parameters = m.parameters;
  const bool lm = m.language_model;

  const int64_t scaled = lm && m.scales_logits ? s.stream() : 0;
  MemoryEstimate loss = m.all;  // the moment of the loss
  loss.parameters += m.whole(lm && m.tied ? parameters.embedding_unit : parameters.last_unit);
  loss.gradients = m.earlier + m.table;
  loss.activations = m.kept;
  loss.workspace = loss_workspace(s, lm) + scaled;
  loss.gpu_more = loss_on_gpu(s, lm) + scaled - loss.workspace;

  MemoryEstimate backward = m.all;  // of the last block
  backward.parameters += m.whole(2 * parameters.block_unit);
  backward.gradients = m.earlier + m.table + kSingle * parameters.largest_gradient +
                       (m.table_leaves ? share(m.table, s.replicas) : 0);
  backward.activations = m.kept;
  set_backward(backward, s);

  // Two blocks further, or one where they leave in turn: gradients travel, and those of the MLP at
  // work wait for the rest of their bucket.
  const int64_t mlp = std::min((s.gated ? 3 : 2) * s.hidden * s.inner, parameters.block_bucket);
  const int64_t at_work =
      kSingle * std::max(parameters.largest_gradient, in_turn(s) ? mlp : int64_t{0});
  const int64_t further = std::min<int64_t>(in_turn(s) ? 1 : 2, s.layers - 1);
  MemoryEstimate sending = backward;
  sending.gradients = at_work + gradients_held(m, further * kSingle * parameters.block_gradients);
  sending.activations -= further * s.kept_block();

  const Sizes& encoder = m.source ? *m.source : s;
  // The first block's, when the others' gradients are there or travel, and what they kept is gone.
  const int64_t head = m.tied || !m.table_leaves ? 0 : parameters.table;  // of the last unit
  const int64_t others =
      parameters.trained - parameters.embedding_gradients - parameters.block_gradients;
  MemoryEstimate first = backward;
  first.gradients = at_work + gradients_held(m, kSingle * (others - head));
  first.activations = m.batch() + encoder.convolutions() + encoder.kept_block();
  set_backward(first, encoder);

  // The end, when what travels as buckets does.
  const int64_t by_buckets = kSingle * (parameters.trained - parameters.only_rows);
  MemoryEstimate end = m.all;
  end.parameters += m.whole(parameters.block_unit);
  end.gradients = gradients_held(m, by_buckets - (m.table_leaves ? m.table : 0));
  if (m.zero == 0) end.gradients = std::max(end.gradients, m.gradients);
  if (m.zero >= 2) {  // the last two buckets
    end.gradients = m.gradients + (m.table_leaves ? 0 : m.table) +
                    kSingle * (parameters.embedding_bucket + parameters.block_bucket);
  }
  end.activations = m.batch() + encoder.convolutions();
  end.workspace = 2 * encoder.element * encoder.tokens * encoder.hidden;
  // Of the windows' activations, and of what came into them.
  if (encoder.hears) end.workspace = 6 * encoder.stream();

  // Before it, when the first block's gradients are copied into their last bucket; one of the two
  // is counted where there are earlier ones, or a bucket less is under way.
  MemoryEstimate packing = end;
  const int64_t bucket = kSingle * parameters.block_bucket;
  const bool counted = s.accumulates || m.zero >= 2 || in_turn(s);
  if (s.replicas > 1) {
    packing.gradients =
        (counted ? 1 : 2) * bucket +
        gradients_held(m, kSingle * (others - head + parameters.block_gradients) - bucket);
  }
  return {loss, backward, sending, turning(m, backward, at_work), first, packing, end};
}

}  // namespace

MemoryEstimate estimate_memory(const ModelFamily& family, const ModelConfig& config,
                               const proto::JobSpec& spec) {
  // Of ranks that share heads of keys unevenly not the first has most. Few differ: parts of what is
  // cut evenly are of two lengths.
  const int tensor = spec.parallel().tensor(), blocks = blocks_of(spec);
  const int64_t alike = blocks > 0 ? config.heads : std::min<int64_t>(config.heads, tensor);
  const auto parts = blocks > 0 ? parallel::blocked_head_parts : parallel::head_parts;
  std::vector<ShardSize> most;
  int64_t elements = -1;
  std::set<std::array<int64_t, 4>> seen;
  for (int index = 0; index < (config.key_heads < alike ? tensor : 1); ++index) {
    const auto [queries, keys] = parts(config.heads, config.key_heads, tensor, index);
    const int64_t inner = part_of(config.inner, tensor, index).length;
    const int64_t rows = part_of(config.vocabulary, tensor, index).length;
    if (!seen.insert({queries.length, keys.length, inner, rows}).second) continue;
    std::vector<ShardSize> shards = shards_of(family, config, spec, index);
    int64_t sum = 0;
    for (const ShardSize& shard : shards) sum += shard.elements;
    if (sum <= elements) continue;
    elements = sum;
    most = std::move(shards);
  }
  return estimate_memory(config, spec, most);
}

MemoryEstimate estimate_memory(const ModelConfig& config, const proto::JobSpec& spec,
                               std::span<const ShardSize> shards) {
  const StepMemory m(config, spec, shards);
  std::vector<MemoryEstimate> moments = m.s.blocks > 0 ? blocked_moments(m) : moments_of(m);
  MemoryEstimate made = m.all;  // what the ranks start from, beside the values it is made of
  // Frozen values are rounded one by one, before the optimizer's state is made.
  const Parameters& all = m.parameters;
  const int64_t loaded = kSingle * all.count + m.s.element * all.largest;
  const int64_t making = m.all.tensors() + kSingle * all.trained;
  if (m.zero < 3) {
    made.workspace =
        (all.trained < all.count ? std::max(loaded, making) : making) - m.all.tensors();
  }
  moments.push_back(made);
  const auto on_gpu = [](const MemoryEstimate& a) { return a.tensors() + a.gpu_more; };
  MemoryEstimate most = *std::ranges::max_element(moments, {}, &MemoryEstimate::tensors);
  most.gpu_more = on_gpu(*std::ranges::max_element(moments, {}, on_gpu)) - most.tensors();
  most.gpu_more = std::max<int64_t>(0, most.gpu_more);
  const ModelConfig::ImageShape& image = config.image;
  if (image.size > 0) {
    most.images = kSingle * spec.training().batch_size() * (image.tokens() - 1) * image.values();
  }
  const ModelConfig::AudioShape& audio = config.audio;
  if (audio.mel_bins > 0) {  // and the windows, as they are made
    most.images = kSingle * spec.training().batch_size() * audio.frames() * audio.mel_bins +
                  kSingle * m.source->tokens * audio.values();
  }
  most.thread = kThreadBytes + m.s.element * std::min(kTurnedMax, m.parameters.largest_of_block);
  return most;
}

int64_t MemoryEstimate::process(int threads) const {
  const double held = kHeld * static_cast<double>(tensors());
  const int64_t program = kProgramBytes + images + std::max(0, threads - 1) * thread;
  return limit_for(program + static_cast<int64_t>(held), checkpoint);
}

int64_t MemoryEstimate::gpu() const {
  const double held = kGpuHeld * static_cast<double>(tensors() + gpu_more);
  return kGpuProgramBytes + static_cast<int64_t>(held);
}

int64_t MemoryEstimate::gpu_host() const {
  return limit_for(kProgramBytes + kGpuDriverBytes + images, checkpoint);
}

RankNeeds MemoryEstimate::needs(bool on_gpu, int threads) const {
  if (!on_gpu) return {false, process(threads), 0};
  return {true, gpu(), gpu_host()};
}

std::string MemoryEstimate::to_string() const {
  return fmt::format(
      "{}: parameters {}, optimizer {}, gradients {}, activations {}, workspace {}, checkpoint {}",
      bytes_text(total()), bytes_text(parameters), bytes_text(optimizer), bytes_text(gradients),
      bytes_text(activations), bytes_text(workspace), bytes_text(checkpoint));
}

int64_t memory_of_slot(int64_t memory_bytes, int slots) {
  constexpr int64_t kReservedMax = int64_t{2} << 30;
  const int64_t ours = memory_bytes - std::min(memory_bytes / 10, kReservedMax);
  return memory_bytes <= 0 ? 0 : ours / std::max(1, slots);
}

int64_t memory_of_gpu(int64_t gpu_bytes, int gpus, int slots) {
  if (gpu_bytes <= 0 || gpus <= 0) return 0;
  return gpu_bytes / share(std::max(1, slots), gpus);
}

int64_t beyond_doubt(const MemoryEstimate& estimate) { return estimate.tensors() / 4 * 3; }

std::string bytes_text(int64_t bytes) {
  constexpr std::array kUnits{"MiB", "GiB", "TiB", "PiB", "EiB"};
  constexpr double kWritten = 999.5;  // three digits have an exponent from here on
  double value = static_cast<double>(bytes) / (1 << 20);
  size_t unit = 0;
  for (; value >= kWritten && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.3g} {}", value, kUnits[unit]);
}

}  // namespace weft
