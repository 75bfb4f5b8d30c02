#include "worker/admission/shards.h"

#include <algorithm>

#include "proto/job.pb.h"

namespace weft {
namespace {

// Units, from the second block on, that are as the one before them become its repeats.
void fold(std::vector<ShardSize>& shards) {
  std::vector<ShardSize> folded;
  size_t before = 0;  // in `folded`, of the newest unit
  for (size_t first = 0, end = 0; first < shards.size(); first = end) {
    while (end < shards.size() && shards[end].unit == shards[first].unit) ++end;
    const size_t count = end - first;
    const auto alike = [&](const ShardSize& a, ShardSize b) {
      b.unit = a.unit;
      b.repeats = a.repeats;
      return a == b;
    };
    if (shards[first].unit > 2 && folded.size() == before + count &&
        std::equal(folded.begin() + static_cast<std::ptrdiff_t>(before), folded.end(),
                   shards.begin() + static_cast<std::ptrdiff_t>(first), alike)) {
      for (size_t i = before; i < folded.size(); ++i) ++folded[i].repeats;
      continue;
    }
    before = folded.size();
    folded.insert(folded.end(), shards.begin() + static_cast<std::ptrdiff_t>(first),
                  shards.begin() + static_cast<std::ptrdiff_t>(end));
  }
  shards = std::move(folded);
}

}  // namespace

std::vector<ShardSize> shards_of(const ModelFamily& family, const ModelConfig& config,
                                 const proto::JobSpec& spec, int tensor_index) {
  std::vector<ShardSize> shards;
  const std::vector<ParameterInfo> plan =
      family.plan(config, spec.parallel().tensor(), tensor_index);
  for (size_t i = 0; i < plan.size(); ++i) {
    const ParameterInfo& info = plan[i];
    const int64_t all = info.shape.elements();
    int64_t part = 0;
    for (const Part& range : info.shard.ranges) part += range.length;
    const bool whole = info.shard.whole();
    shards.push_back({info.unit, whole ? all : all / info.shape[info.shard.dim] * part, whole,
                      info.shape.dims() >= 2, info.looked_up,
                      i > 0 && same_layer(plan[i - 1], info), info.shard.copy, info.shard.copies});
  }
  fold(shards);
  int64_t unit = 0;
  for (const proto::TaskSpec& task : spec.tasks()) {
    --unit;
    if (task.labels() > 0) {
      shards.push_back({unit, int64_t{task.labels()} * config.hidden, true, true});
    }
  }
  return shards;
}

std::vector<BucketItem> bucket_items(std::span<const ShardSize> shards) {
  std::vector<BucketItem> items;
  for (const ShardSize& shard : shards) {
    items.push_back({shard.unit, shard.elements, shard.looked_up, shard.joined});
  }
  return items;
}

int64_t repeats_of(const Bucket& bucket, std::span<const ShardSize> shards) {
  return shards[bucket.entries.front().parameter].repeats;
}

bool models_language(const proto::JobSpec& spec) {
  return std::any_of(spec.tasks().begin(), spec.tasks().end(),
                     [](const auto& task) { return task.type() == proto::TASK_TYPE_CAUSAL_LM; });
}

}  // namespace weft
