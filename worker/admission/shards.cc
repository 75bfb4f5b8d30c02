#include "worker/admission/shards.h"

#include <algorithm>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"

namespace weft {
namespace {

constexpr int64_t kBlocksPlanned = 2;  // the first, and one that stands for all further ones

void add(std::span<const ParameterInfo> plan, std::vector<ShardSize>& shards) {
  for (size_t i = 0; i < plan.size(); ++i) {
    const ParameterInfo& info = plan[i];
    const int64_t all = info.shape.elements();
    int64_t part = 0;
    for (const Part& range : info.shard.ranges) part += range.length;
    const bool whole = info.shard.whole();
    shards.push_back({info.unit, whole ? all : all / info.shape[info.shard.dim] * part, whole,
                      info.shape.dims() >= 2, info.looked_up,
                      i > 0 && same_layer(plan[i - 1], info), info.shard.copy, info.shard.copies,
                      info.keep_fp32, info.behind_attention, info.trained, info.reached});
    shards.back().adapter_part = adapter_part(info);
  }
}

}  // namespace

std::vector<ShardSize> shards_of(const ModelFamily& family, const ModelConfig& config,
                                 const proto::JobSpec& spec, int tensor_index) {
  std::vector<ShardSize> shards;
  const int tensor = spec.parallel().tensor();
  const ModelConfigPtr planned =
      family.with_layers(config, std::min(config.layers, kBlocksPlanned));
  add(family.plan(*planned, tensor, tensor_index, blocks_of(spec)), shards);
  // The last planned block of each stack stands for those that are left out.
  const auto repeat = [&](int64_t last, int64_t left) {
    for (ShardSize& shard : shards) {
      if (shard.unit == last) shard.repeats += left;
      if (shard.unit > last) shard.unit += left;
    }
  };
  const int64_t encoder = planned->encoder_layers, left = config.encoder_layers - encoder;
  repeat(planned->unit_of(planned->layers - 1), config.layers - planned->layers - left);
  if (encoder > 0) repeat(planned->unit_of(encoder - 1), left);
  int64_t unit = 0;
  for (const proto::TaskSpec& task : spec.tasks()) {
    --unit;
    const auto kind = head_kind(task_type_name(task));
    const auto head = kind ? family.head(config, *kind, task.labels()) : std::nullopt;
    if (!head) continue;
    std::vector<ParameterInfo> plan = head_plan(*head, config, "", tensor, tensor_index);
    for (ParameterInfo& info : plan) info.unit = unit;
    add(plan, shards);
  }
  return shards;
}

ParameterCount count_parameters(const ModelFamily& family, const ModelConfig& config,
                                const proto::JobSpec& spec) {
  proto::JobSpec whole = spec;
  whole.mutable_parallel()->set_tensor(1);
  ParameterCount count;
  for (const ShardSize& shard : shards_of(family, config, whole, 0)) {
    const int64_t elements = shard.elements * shard.repeats;
    count.all += elements;
    if (shard.trained) count.trained += elements;
  }
  return count;
}

AdaptedMaps adapted_maps(std::span<const ShardSize> shards) {
  AdaptedMaps maps;
  for (const ShardSize& shard : shards) {
    if (shard.unit != 1) continue;
    const bool in_mlp = shard.behind_attention;
    if (shard.adapter_part == AdapterPart::kInput) {
      // What is not cut by its inputs is by its outputs.
      if (shard.whole) ++(in_mlp ? maps.mlp_columns : maps.columns);
      if (!shard.whole) ++(in_mlp ? maps.mlp_rows : maps.rows);
    } else if (shard.adapter_part == AdapterPart::kMagnitude) {
      maps.rescaled = true;
      if (!shard.whole) (in_mlp ? maps.mlp_outputs : maps.outputs) += shard.elements;
    }
  }
  return maps;
}

std::vector<BucketItem> bucket_items(std::span<const ShardSize> shards) {
  std::vector<BucketItem> items;
  for (const ShardSize& shard : shards) {
    items.push_back({shard.unit, shard.elements, shard.looked_up, shard.joined, shard.keep_fp32,
                     shard.trained});
  }
  return items;
}

int64_t repeats_of(const Bucket& bucket, std::span<const ShardSize> shards) {
  return shards[bucket.entries.front().parameter].repeats;
}

StackShape last_stack(const ModelConfig& config, const proto::JobSpec& spec) {
  const proto::TrainingSpec& training = spec.training();
  if (!config.encodes_and_decodes()) {
    return {config.layers, training.sequence_length(), permuted_tokens(spec), 0};
  }
  return {config.layers - config.encoder_layers, training.target_length(), 0,
          training.sequence_length()};
}

StackShape encoder_stack(const ModelConfig& config, const proto::TrainingSpec& training) {
  return {config.encoder_layers, training.sequence_length(), 0, 0};
}

DType precision_of(const proto::JobSpec& spec) {
  switch (spec.training().precision()) {
    case proto::PRECISION_BF16:
      return DType::kBF16;
    case proto::PRECISION_FP16:
      return DType::kF16;
    default:
      return DType::kF32;
  }
}

int blocks_of(const proto::JobSpec& spec) {
  const proto::TrainingSpec& training = spec.training();
  return training.reproducible() == proto::REPRODUCIBLE_TOPOLOGY ? training.reproducible_blocks()
                                                                 : 0;
}

bool models_language(const proto::JobSpec& spec) {
  return std::ranges::any_of(spec.tasks(),
                             [](const proto::TaskSpec& task) { return models_language(task); });
}

}  // namespace weft
