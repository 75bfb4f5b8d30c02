#include "worker/admission/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "proto/job.pb.h"
#include "worker/admission/shards.h"

namespace weft {
namespace {

constexpr int64_t kSingle = 4;               // bytes of fp32, in which everything is summed
constexpr int64_t kBatchBytes = 8 * 4;       // a token's id, position, document and label
constexpr int64_t kChunkElements = 1 << 24;  // of logits at once (kernels/ops/linear_cross_entropy)
// On a GPU: their bytes, and the unit of their columns (kernels/cuda/limits.h).
constexpr int64_t kGpuLogitBytes = int64_t{1} << 30, kGpuLogitColumns = 64;
// Of the attention that cuDNN may compute there (kernels/cuda/attention_choice.h).
constexpr int64_t kCudnnWorkspaceMax = int64_t{1} << 30, kCudnnWidthMin = 64;
constexpr int64_t kCudnnTokensMin = 512, kCudnnUnorderedTokensMin = 1024;

// What a rank takes before its first tensor, most of it room for its threads' stacks; what the
// allocator holds of each byte of tensors; what it leaves the libraries of a limit
// (kernels/tensor/allocator.cc). Measured, docs/PERFORMANCE.md.
constexpr int64_t kProgramBytes = 225'000'000;
constexpr double kHeld = 1.22;
constexpr int64_t kOthersMin = int64_t{32} << 20;
// On a GPU: context, kernels, workspaces of cuBLASLt and buffers of NCCL; of the host, what the
// driver maps there and pinned buffers. Not measured yet.
constexpr int64_t kGpuProgramBytes = 1'200'000'000, kGpuDriverBytes = 1'500'000'000;

int64_t share(int64_t whole, int64_t parts) { return (whole + parts - 1) / parts; }

// Sizes on the rank that has most, named as in worker/models/model.h.
struct Sizes {
  Sizes(const ModelConfig& config, const proto::JobSpec& spec) {
    const proto::ParallelSpec& mesh = spec.parallel();
    const proto::TrainingSpec& training = spec.training();
    tensor = mesh.tensor();
    sequence = mesh.sequence();
    replicas = int64_t{mesh.data()} * sequence;
    const int64_t rows = share(training.batch_size(), mesh.data());
    const int64_t micro = training.micro_batch_size();
    batch = micro > 0 ? std::min(micro, rows) : rows;
    accumulates = batch < rows;
    tokens = batch * share(training.sequence_length(), sequence);
    between = batch * share(share(training.sequence_length(), sequence), tensor);
    hidden = config.hidden;
    heads = share(config.heads, tensor);
    features = heads * (config.hidden / config.heads);
    inner = share(config.inner, tensor);
    vocabulary = share(config.vocabulary, tensor);
    layers = config.layers;
    fp16 = training.precision() == proto::PRECISION_FP16;
    const bool half = fp16 || training.precision() == proto::PRECISION_BF16;
    element = half ? 2 : kSingle;
    recompute = training.activation_checkpointing();
    scores = batch * heads * training.sequence_length() * training.sequence_length();
    const int64_t width = config.hidden / config.heads;
    const bool may_use_cudnn =
        half && sequence == 1 && training.reproducible() != proto::REPRODUCIBLE_TOPOLOGY;
    ordered_by_cudnn =
        may_use_cudnn && width > kCudnnWidthMin && training.sequence_length() >= kCudnnTokensMin;
    unordered_by_cudnn = may_use_cudnn && width >= kCudnnWidthMin &&
                         training.reproducible() == proto::REPRODUCIBLE_NONE &&
                         training.sequence_length() >= kCudnnUnorderedTokensMin;
  }
  int64_t tensor, sequence, replicas, batch, tokens, between;
  int64_t hidden, heads, features, inner, vocabulary, layers;
  int64_t element;  // bytes
  int64_t scores;   // of a block's attention
  bool accumulates, fp16;
  bool ordered_by_cudnn, unordered_by_cudnn;  // maybe: attention's gradients on a GPU
  proto::ActivationCheckpointing recompute;

  // Kept of a block's attention: norm and its statistics, query, key, value, result and
  // log-sum-exp.
  int64_t attention() const {
    return element * tokens * (hidden + 4 * features) + kSingle * (tokens * heads + 2 * between);
  }
  // Of its MLP: the residual stream, norm, the activation's input and result.
  int64_t mlp() const {
    const int64_t input = fp16 ? kSingle : element;  // fp16 is computed in fp32
    return element * (between * hidden + tokens * (hidden + inner)) + input * tokens * inner +
           kSingle * 2 * between;
  }
  int64_t stream() const { return element * between * hidden; }  // a block's input
  int64_t kept_block() const {
    if (recompute == proto::ACTIVATION_CHECKPOINTING_FULL) return stream();
    if (recompute == proto::ACTIVATION_CHECKPOINTING_SELECTIVE) return stream() + mlp();
    return stream() + attention() + mlp();
  }
  // What the last block's backward pass adds to what is kept, in its MLP: the gradients of the
  // stream and of the inner features; or in its attention, once the MLP's part is freed: those of
  // query, key and value, each beside the sum it is added to. workspace: of those.
  int64_t block_backward(int64_t workspace) const {
    const bool full = recompute == proto::ACTIVATION_CHECKPOINTING_FULL;
    const bool again = recompute != proto::ACTIVATION_CHECKPOINTING_NONE;
    const int64_t streams = between * hidden + tokens * hidden;
    const int64_t visiting = sequence > 1 ? 4 * tokens * features : 0;  // a block and its gradient
    const int64_t in_mlp = (full ? attention() + mlp() : 0) + element * (streams + tokens * inner);
    const int64_t in_attention = (again ? attention() : 0) - (full ? 0 : mlp()) +
                                 element * (streams + 9 * tokens * features + visiting) + workspace;
    return std::max(in_mlp, in_attention);
  }
  // Of cuDNN's gradients of attention: those of the scores, or where any order will do, sums of
  // those of the queries; and the dots of each query's output with its gradient.
  int64_t cudnn_workspace() const {
    const auto within = [](int64_t bytes) { return bytes <= kCudnnWorkspaceMax ? bytes : 0; };
    const int64_t dots = kSingle * tokens * heads;
    return std::max(ordered_by_cudnn ? within(element * scores + dots) : 0,
                    unordered_by_cudnn ? within(kSingle * tokens * features + dots) : 0);
  }
  int64_t loss_ends() const {
    const int64_t whole = element * tokens * hidden;
    return tensor > 1 ? 2 * whole : whole;
  }
  // The same on a GPU: the logits become their gradient, in the precision of the model; the table
  // is filled up to whole units of columns (kernels/cuda/gpu_losses.cc).
  int64_t loss_on_gpu(bool language_model) const {
    if (!language_model) return loss_ends();
    const int64_t columns = share(vocabulary, kGpuLogitColumns) * kGpuLogitColumns;
    const int64_t row = element * columns;
    const int64_t rows = std::min(tokens, std::max<int64_t>(1, kGpuLogitBytes / row));
    return loss_ends() + rows * row + (columns > vocabulary ? row * hidden : 0);
  }
  // At the loss: the normed stream, whole, and its gradient; of a language model a chunk of logits
  // too. bf16 rounds their gradient, fp16 takes all in fp32 copies.
  int64_t loss(bool language_model) const {
    if (!language_model) return loss_ends();
    const int64_t rows = std::min(tokens, std::max<int64_t>(16, kChunkElements / vocabulary));
    const int64_t logits = rows * vocabulary * (element == kSingle || fp16 ? 4 : 6);
    return loss_ends() + logits + (fp16 ? kSingle * hidden * (2 * tokens + vocabulary) : 0);
  }
};

// Elements of a rank's parameters.
struct Parameters {
  Parameters(const ModelConfig& config, const proto::JobSpec& spec,
             std::span<const ShardSize> shards) {
    const std::vector<BucketItem> items = bucket_items(shards);
    for (const BucketItem& item : items) {
      count += item.elements;
      largest = std::max(largest, item.elements);
    }
    table = share(config.vocabulary, spec.parallel().tensor()) * config.hidden;
    const int replicas = spec.parallel().data() * spec.parallel().sequence();
    const Buckets buckets(items, replicas, 0, spec.parallel().bucket_bytes());
    std::map<int64_t, int64_t> units;
    for (const Bucket& bucket : buckets.all()) {
      units[bucket.unit] += bucket.elements;
      int64_t& most = bucket.unit == 0 ? embedding_bucket : block_bucket;
      most = std::max(most, bucket.elements);
    }
    checkpoint = largest_turn(items, replicas, spec.parallel().zero());
    embedding_unit = units[0];
    block_unit = units[1];
    last_unit = units[config.layers + 1];
  }
  // Elements that one replica writes of a checkpoint: state tensors, three a parameter, go round
  // among them unless each has its own part (checkpoint/writer.cc).
  static int64_t largest_turn(const std::vector<BucketItem>& items, int replicas, int zero) {
    std::vector<int64_t> of_replica(static_cast<size_t>(replicas));
    size_t turn = 0;
    for (const BucketItem& item : items) {
      for (int role = 0; role < 3; ++role, ++turn) {
        if (zero == 0) of_replica[turn % of_replica.size()] += item.elements;
        if (zero > 0) of_replica[0] += share(item.elements, replicas);
      }
    }
    return *std::max_element(of_replica.begin(), of_replica.end());
  }

  int64_t count = 0;
  int64_t largest = 0;     // of one parameter
  int64_t table = 0;       // that embeds the tokens
  int64_t checkpoint = 0;  // of one rank's copy of the state
  int64_t embedding_unit = 0, block_unit = 0, last_unit = 0;
  int64_t embedding_bucket = 0, block_bucket = 0;  // the largest
};

}  // namespace

MemoryEstimate estimate_memory(const ModelFamily& family, const ModelConfig& config,
                               const proto::JobSpec& spec) {
  return estimate_memory(config, spec, shards_of(family, config, spec, 0));
}

MemoryEstimate estimate_memory(const ModelConfig& config, const proto::JobSpec& spec,
                               std::span<const ShardSize> shards) {
  const Sizes s(config, spec);
  const Parameters parameters(config, spec, shards);
  const bool lm = models_language(spec);
  const int zero = s.replicas > 1 ? spec.parallel().zero() : 0;
  const int64_t sharing = zero > 0 ? s.replicas : 1;
  const bool masters_apart = s.element != kSingle || zero == 3;
  MemoryEstimate all;
  all.parameters = zero < 3 ? s.element * parameters.count : 0;
  all.optimizer = share((masters_apart ? 12 : 8) * parameters.count, sharing);
  all.checkpoint = kSingle * parameters.checkpoint;
  const int64_t gradients = share(kSingle * parameters.count, zero >= 2 ? sharing : 1);
  const int64_t earlier = s.accumulates ? gradients : 0;  // of micro-batches before
  const int64_t table = lm ? kSingle * parameters.table : 0;
  const int64_t final_norm = 2 * s.stream();
  const int64_t kept = kBatchBytes * s.tokens + s.layers * s.kept_block() + final_norm;
  // Level 3's values of the units that are whole, the one on its way included.
  const auto whole = [&](int64_t elements) { return zero == 3 ? s.element * elements : 0; };

  MemoryEstimate made = all;  // what the ranks start from, beside the values that it is made of
  made.workspace = zero < 3 ? kSingle * parameters.count : 0;

  MemoryEstimate loss = all;  // the moment of the loss
  loss.parameters += whole(lm && config.tied ? parameters.embedding_unit : parameters.last_unit);
  loss.gradients = earlier + table;
  loss.activations = kept;
  loss.workspace = s.loss(lm);

  MemoryEstimate backward = all;  // of the last block
  backward.parameters += whole(2 * parameters.block_unit);
  backward.gradients = earlier + table + kSingle * parameters.largest;
  backward.activations = kept;
  backward.workspace = s.block_backward(0);

  // Two blocks further: their gradients are packed into buckets and travel.
  MemoryEstimate sending = backward;
  const int64_t block = kSingle * parameters.block_unit, two = std::min<int64_t>(2, s.layers);
  if (s.replicas > 1 && (zero >= 2 || !s.accumulates)) {
    sending.gradients += two * (block + (zero > 0 ? share(block, sharing) : 0));
    sending.activations -= two * s.kept_block();
  }

  MemoryEstimate end = all;  // of the backward pass
  end.parameters += whole(parameters.block_unit);
  end.gradients = gradients + table;
  // While the last buckets travel, so do the parts that they are summed in, about a quarter
  // of which are gone (level 0) or not there yet (level 1).
  if (s.replicas > 1 && zero <= 1) end.gradients += share(3 * gradients, 4 * s.replicas);
  if (zero >= 2) {  // the embedding's, packed, and the bucket before it that is still under way
    end.gradients = gradients + kSingle * (parameters.table + parameters.embedding_bucket +
                                           parameters.block_bucket);
  }
  end.activations = kBatchBytes * s.tokens;
  end.workspace = 2 * s.element * s.tokens * s.hidden;

  MemoryEstimate most = std::max(
      {made, loss, backward, sending, end},
      [](const MemoryEstimate& a, const MemoryEstimate& b) { return a.tensors() < b.tensors(); });
  loss.workspace = s.loss_on_gpu(lm);
  backward.workspace = sending.workspace = s.block_backward(s.cudnn_workspace());
  const int64_t on_gpu = std::max({loss.tensors(), backward.tensors(), sending.tensors()});
  most.gpu_more = std::max<int64_t>(0, on_gpu - most.tensors());
  return most;
}

int64_t MemoryEstimate::process() const {
  const int64_t taken =
      kProgramBytes + static_cast<int64_t>(kHeld * static_cast<double>(tensors())) + checkpoint;
  return taken + std::max(kOthersMin, taken / 31);  // a 32nd of the sum
}

int64_t MemoryEstimate::gpu() const {
  return kGpuProgramBytes + static_cast<int64_t>(kHeld * static_cast<double>(tensors() + gpu_more));
}

int64_t MemoryEstimate::gpu_host() const {
  const int64_t taken = kProgramBytes + kGpuDriverBytes + checkpoint;
  return taken + std::max(kOthersMin, taken / 31);
}

RankNeeds MemoryEstimate::needs(bool on_gpu) const {
  if (!on_gpu) return {false, process(), 0};
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
  const double value = static_cast<double>(bytes);
  if (value >= 1e9) return fmt::format("{:.3g} GB", value / 1e9);
  return fmt::format("{:.3g} MB", value / 1e6);
}

}  // namespace weft
