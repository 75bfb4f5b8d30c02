#include "worker/admission/memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/job.pb.h"

namespace weft {
namespace {

constexpr int64_t kSingle = 4;               // bytes of fp32, in which everything is summed
constexpr int64_t kBatchBytes = 8 * 4;       // a token's id, position, document and label
constexpr int64_t kChunkElements = 1 << 24;  // of logits at once (kernels/ops/linear_cross_entropy)

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
  }
  int64_t tensor, sequence, replicas, batch, tokens, between;
  int64_t hidden, heads, features, inner, vocabulary, layers;
  int64_t element;  // bytes
  bool accumulates, fp16;
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
  // query, key and value, each beside the sum it is added to.
  int64_t block_backward() const {
    const bool full = recompute == proto::ACTIVATION_CHECKPOINTING_FULL;
    const bool again = recompute != proto::ACTIVATION_CHECKPOINTING_NONE;
    const int64_t streams = between * hidden + tokens * hidden;
    const int64_t visiting = sequence > 1 ? 4 * tokens * features : 0;  // a block and its gradient
    const int64_t in_mlp = (full ? attention() + mlp() : 0) + element * (streams + tokens * inner);
    const int64_t in_attention = (again ? attention() : 0) - (full ? 0 : mlp()) +
                                 element * (streams + 9 * tokens * features + visiting);
    return std::max(in_mlp, in_attention);
  }
  // At the loss: the normed stream, whole, and its gradient; of a language model a chunk of logits
  // too. bf16 rounds their gradient, fp16 takes all in fp32 copies.
  int64_t loss(bool language_model) const {
    const int64_t whole = element * tokens * hidden;
    const int64_t ends = tensor > 1 ? 2 * whole : whole;
    if (!language_model) return ends;
    const int64_t rows = std::min(tokens, std::max<int64_t>(16, kChunkElements / vocabulary));
    const int64_t logits = rows * vocabulary * (element == kSingle || fp16 ? 4 : 6);
    return ends + logits + (fp16 ? kSingle * hidden * (2 * tokens + vocabulary) : 0);
  }
};

struct Parameters {
  int64_t count = 0;      // on this rank
  int64_t largest = 0;    // of one parameter
  int64_t embedding = 0;  // the table that the logits are made with
};

Parameters count_parameters(const ModelFamily& family, const ModelConfig& config,
                            const proto::JobSpec& spec) {
  Parameters found;
  const auto add = [&](int64_t elements) {
    found.count += elements;
    found.largest = std::max(found.largest, elements);
  };
  for (const ParameterInfo& info : family.plan(config, spec.parallel().tensor(), 0)) {
    const int64_t whole = info.shape.elements();
    int64_t part = 0;
    for (const Part& range : info.shard.ranges) part += range.length;
    add(info.shard.whole() ? whole : whole / info.shape[info.shard.dim] * part);
  }
  for (const proto::TaskSpec& task : spec.tasks()) add(int64_t{task.labels()} * config.hidden);
  found.embedding = share(config.vocabulary, spec.parallel().tensor()) * config.hidden;
  return found;
}

bool models_language(const proto::JobSpec& spec) {
  return std::any_of(spec.tasks().begin(), spec.tasks().end(),
                     [](const auto& task) { return task.type() == proto::TASK_TYPE_CAUSAL_LM; });
}

}  // namespace

MemoryEstimate estimate_memory(const ModelFamily& family, const ModelConfig& config,
                               const proto::JobSpec& spec) {
  const Sizes s(config, spec);
  const Parameters parameters = count_parameters(family, config, spec);
  const bool lm = models_language(spec);
  MemoryEstimate all;
  all.parameters = s.element * parameters.count;
  all.optimizer = (s.element == kSingle ? 8 : 12) * parameters.count;
  all.checkpoint = share(12 * parameters.count, s.replicas);
  const int64_t gradients = kSingle * parameters.count;
  const int64_t earlier = s.accumulates ? gradients : 0;  // of micro-batches before
  const int64_t table = lm ? kSingle * parameters.embedding : 0;
  const int64_t final_norm = 2 * s.stream();
  const int64_t kept = kBatchBytes * s.tokens + s.layers * s.kept_block() + final_norm;

  MemoryEstimate loss = all;  // the moment of the loss
  loss.gradients = earlier + table;
  loss.activations = kept;
  loss.workspace = s.loss(lm);

  MemoryEstimate backward = all;  // of the last block
  backward.gradients = earlier + table + kSingle * parameters.largest;
  backward.activations = kept;
  backward.workspace = s.block_backward();

  MemoryEstimate end = all;  // of the backward pass
  end.gradients = gradients + table;
  end.activations = kBatchBytes * s.tokens;
  end.workspace = 2 * s.element * s.tokens * s.hidden;

  return std::max({loss, backward, end}, [](const MemoryEstimate& a, const MemoryEstimate& b) {
    return a.tensors() < b.tensors();
  });
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

bool clearly_too_large(const MemoryEstimate& estimate, int64_t allowed) {
  return allowed > 0 && estimate.tensors() / 4 * 3 > allowed;
}

std::string bytes_text(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (value >= 1e9) return fmt::format("{:.3g} GB", value / 1e9);
  return fmt::format("{:.3g} MB", value / 1e6);
}

}  // namespace weft
