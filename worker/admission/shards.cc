#include "worker/admission/shards.h"

#include <algorithm>

#include "proto/job.pb.h"

namespace weft {

std::vector<BucketItem> shards_of(const ModelFamily& family, const ModelConfig& config,
                                  const proto::JobSpec& spec, int tensor_index) {
  std::vector<BucketItem> items;
  for (const ParameterInfo& info : family.plan(config, spec.parallel().tensor(), tensor_index)) {
    const int64_t whole = info.shape.elements();
    int64_t part = 0;
    for (const Part& range : info.shard.ranges) part += range.length;
    items.push_back(
        {info.unit, info.shard.whole() ? whole : whole / info.shape[info.shard.dim] * part});
  }
  int64_t unit = 0;
  for (const proto::TaskSpec& task : spec.tasks()) {
    --unit;
    if (task.labels() > 0) items.push_back({unit, int64_t{task.labels()} * config.hidden});
  }
  return items;
}

bool models_language(const proto::JobSpec& spec) {
  return std::any_of(spec.tasks().begin(), spec.tasks().end(),
                     [](const auto& task) { return task.type() == proto::TASK_TYPE_CAUSAL_LM; });
}

}  // namespace weft
