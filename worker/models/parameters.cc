#include <string_view>
#include <utility>

#include "kernels/ops/ops.h"
#include "worker/models/model.h"

namespace weft {
namespace {

// FNV-1a: a stream of random numbers for each name.
uint64_t hash_of(std::string_view name) {
  uint64_t hash = 14695981039346656037ULL;
  for (char letter : name) {
    hash = (hash ^ static_cast<uint8_t>(letter)) * 1099511628211ULL;
  }
  return hash;
}

Shape local_shape(const ParameterInfo& info) {
  Shape shape = info.shape;
  if (info.shard.whole()) return shape;
  int64_t length = 0;
  for (const Part& range : info.shard.ranges) length += range.length;
  shape[info.shard.dim] = length;
  return shape;
}

}  // namespace

Tensor Trunk::token_logits(Context& cx, const TokenBatch& batch, const Tensor& hidden) {
  const TokenHead head = token_head(cx, batch, hidden);
  return ops::linear(cx, head.input, head.table, Tensor(), ops::WeightLayout::kOutIn);
}

void for_each_shard_run(const ParameterInfo& info,
                        const std::function<void(int64_t, int64_t, int64_t)>& visit) {
  if (info.shard.whole()) return visit(0, 0, info.shape.elements());
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < info.shard.dim; ++i) outer *= info.shape[i];
  for (int i = info.shard.dim + 1; i < info.shape.dims(); ++i) inner *= info.shape[i];
  const int64_t extent = info.shape[info.shard.dim];
  int64_t local = 0;
  for (int64_t o = 0; o < outer; ++o) {
    for (const Part& range : info.shard.ranges) {
      visit(local, (o * extent + range.start) * inner, range.length * inner);
      local += range.length * inner;
    }
  }
}

std::vector<Parameter> make_parameters(Allocator& allocator, std::span<const ParameterInfo> plan) {
  std::vector<Parameter> parameters;
  parameters.reserve(plan.size());
  for (const ParameterInfo& info : plan) {
    Tensor value = Tensor::empty(allocator, local_shape(info));
    value.set_requires_grad(true);
    parameters.push_back({info, std::move(value)});
  }
  return parameters;
}

void initialize_parameters(std::span<Parameter> parameters, uint64_t seed) {
  constexpr uint64_t kInitialization = 0x1417;
  for (Parameter& parameter : parameters) {
    const ParameterInfo& info = parameter.info;
    float* values = parameter.value.data<float>();
    const RandomKey key = RandomKey{seed}.derive(kInitialization, hash_of(info.name));
    for_each_shard_run(info, [&](int64_t local, int64_t global, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        float value = info.initializer == Initializer::kOnes ? 1.0F : 0.0F;
        if (info.initializer == Initializer::kNormal) {
          value = static_cast<float>(info.deviation *
                                     normal_at(key, static_cast<uint64_t>(global + i)));
        }
        values[local + i] = value;
      }
    });
  }
}

}  // namespace weft
