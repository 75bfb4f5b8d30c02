#include "worker/admission/check_blocks.h"

#include <fmt/format.h>

#include <numeric>

#include "proto/job.pb.h"

namespace weft {

Status check_blocks(const proto::JobSpec& spec, const ModelConfig& config) {
  if (spec.training().reproducible() != proto::REPRODUCIBLE_TOPOLOGY) return {};
  if (spec.parallel().mode() == proto::PARALLEL_MODE_AUTO) return {};  // there is no mesh yet
  const int64_t blocks = spec.training().reproducible_blocks(), tensor = spec.parallel().tensor();
  const int64_t replicas = int64_t{spec.parallel().data()} * spec.parallel().sequence();
  const int64_t rows = int64_t{spec.training().micro_batch_size()} * spec.parallel().data();
  const int64_t in_row = replicas / std::gcd(rows, replicas);  // ranks that share a row's tokens
  const auto refuse = [&](const char* field, int64_t value, const std::string& rule) {
    return Status::invalid(field, std::to_string(value),
                           rule + " with training.reproducible: topology");
  };
  const int64_t ranks = tensor * in_row;
  const bool whole_keys = config.key_heads % ranks == 0 || ranks % config.key_heads == 0;
  if (config.heads % ranks != 0 || !whole_keys) {
    return refuse(in_row > 1 ? "parallel.sequence" : "parallel.tensor",
                  in_row > 1 ? spec.parallel().sequence() : tensor,
                  config.heads % ranks != 0
                      ? fmt::format("must leave ranks that share a row's heads, now {}, that "
                                    "divide the model's {} heads",
                                    ranks, config.heads)
                      : fmt::format("must leave ranks that share a row's heads, now {}, that "
                                    "divide the model's {} heads of keys or are a multiple of them",
                                    ranks, config.key_heads));
  }
  const int64_t queries = config.heads * config.head_features;
  const int64_t keys = config.key_heads * config.head_features;
  for (const int64_t features : {config.hidden, config.inner, queries, keys}) {
    if (features % blocks == 0) continue;
    return refuse("training.reproducible_blocks", blocks,
                  fmt::format("must divide the model's {} features", features));
  }
  if (config.vocabulary < blocks && config.image.size == 0) {
    return refuse("training.reproducible_blocks", blocks,
                  fmt::format("must be at most the vocabulary of {}", config.vocabulary));
  }
  return {};
}

}  // namespace weft
