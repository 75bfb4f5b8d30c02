#include "worker/admission/shards.h"

#include <algorithm>

#include "proto/job.pb.h"

namespace weft {
namespace {

constexpr int64_t kBlocksPlanned = 2;  // the first, and one that stands for all further ones

}  // namespace

std::vector<ShardSize> shards_of(const ModelFamily& family, const ModelConfig& config,
                                 const proto::JobSpec& spec, int tensor_index) {
  std::vector<ShardSize> shards;
  const int64_t planned = std::min(config.layers, kBlocksPlanned);
  const std::vector<ParameterInfo> plan =
      family.plan(*family.with_layers(config, planned), spec.parallel().tensor(), tensor_index);
  for (size_t i = 0; i < plan.size(); ++i) {
    const ParameterInfo& info = plan[i];
    const int64_t all = info.shape.elements();
    int64_t part = 0;
    for (const Part& range : info.shard.ranges) part += range.length;
    const bool whole = info.shard.whole();
    shards.push_back({info.unit, whole ? all : all / info.shape[info.shard.dim] * part, whole,
                      info.shape.dims() >= 2, info.looked_up,
                      i > 0 && same_layer(plan[i - 1], info), info.shard.copy, info.shard.copies,
                      info.keep_fp32, info.behind_attention, info.trained});
    if (maps_input(info)) shards.back().adapts = whole ? Adapts::kColumn : Adapts::kRow;
    if (info.unit == planned) shards.back().repeats += config.layers - planned;
    if (info.unit > planned) shards.back().unit += config.layers - planned;
  }
  int64_t unit = 0;
  for (const proto::TaskSpec& task : spec.tasks()) {
    --unit;
    if (task.labels() > 0) {
      shards.push_back({unit, int64_t{task.labels()} * config.hidden, true, true});
    }
  }
  return shards;
}

AdaptedMaps adapted_maps(std::span<const ShardSize> shards) {
  AdaptedMaps maps;
  for (const ShardSize& shard : shards) {
    if (shard.unit != 1 || shard.adapts == Adapts::kNothing) continue;
    const bool column = shard.adapts == Adapts::kColumn;
    if (shard.behind_attention) {
      ++(column ? maps.mlp_columns : maps.mlp_rows);
    } else {
      ++(column ? maps.columns : maps.rows);
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

bool models_language(const proto::JobSpec& spec) {
  return std::any_of(spec.tasks().begin(), spec.tasks().end(),
                     [](const auto& task) { return task.type() == proto::TASK_TYPE_CAUSAL_LM; });
}

}  // namespace weft
