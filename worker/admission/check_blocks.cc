#include "worker/admission/check_blocks.h"

#include <fmt/format.h>

#include <utility>

#include "proto/job.pb.h"

namespace weft {

Status check_blocks(const proto::JobSpec& spec, const ModelConfig& config) {
  if (spec.training().reproducible() != proto::REPRODUCIBLE_TOPOLOGY) return {};
  if (spec.parallel().mode() == proto::PARALLEL_MODE_AUTO) return {};  // there is no mesh yet
  const int64_t blocks = spec.training().reproducible_blocks(), tensor = spec.parallel().tensor();
  const auto refuse = [&](const char* field, int64_t value, const std::string& rule) {
    return Status::invalid(field, std::to_string(value),
                           rule + " with training.reproducible: topology");
  };
  if (config.heads % tensor != 0) {
    return refuse("parallel.tensor", tensor,
                  fmt::format("must divide the model's {} heads", config.heads));
  }
  const int64_t queries = config.heads * config.head_features;
  const int64_t keys = config.key_heads * config.head_features;
  const std::pair<int64_t, const char*> cut[] = {{config.hidden, "hidden features"},
                                                 {config.inner, "inner features"},
                                                 {queries, "features of all queries"},
                                                 {keys, "features of all keys"}};
  for (const auto& [features, name] : cut) {
    if (features % blocks == 0) continue;
    return refuse("training.reproducible_blocks", blocks,
                  fmt::format("must divide the model's {} {}", features, name));
  }
  if (config.vocabulary < blocks && config.image.size == 0) {
    return refuse("training.reproducible_blocks", blocks,
                  fmt::format("must be at most the vocabulary of {}", config.vocabulary));
  }
  return {};
}

}  // namespace weft
