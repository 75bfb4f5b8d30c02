#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "kernels/tensor/strided.h"
#include "kernels/tensor/transfer.h"
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

std::string_view layer_of(const ParameterInfo& info) {
  return std::string_view(info.name).substr(0, info.name.rfind('.') + 1);
}

// Of the element `at` of a table [positions, features], as Whisper's are (Radford et al. 2022).
float sinusoid(int64_t at, int64_t features) {
  constexpr double kLongest = 10000;  // wave, over 2 pi
  const int64_t waves = features / 2, feature = at % features, position = at / features;
  const double exponent =
      static_cast<double>(feature % waves) / static_cast<double>(std::max<int64_t>(1, waves - 1));
  const double angle = static_cast<double>(position) / std::pow(kLongest, exponent);
  return static_cast<float>(feature < waves ? std::sin(angle) : std::cos(angle));
}

}  // namespace

Part counted_part(const ParameterInfo& info, int index) {
  const int64_t elements = local_shape(info).elements();
  if (info.shard.whole()) return {0, index == 0 ? elements : 0};
  const int64_t repeated = info.shard.repeated;
  if (repeated == 0) return {0, elements};
  WEFT_CHECK(info.shard.dim == 0 && info.shard.ranges.size() == 1, "{} is repeated", info.name);
  const int64_t before = repeated * (info.shape.elements() / info.shape[0]);
  return {before, elements - before};
}

bool same_layer(const ParameterInfo& a, const ParameterInfo& b) {
  return a.unit == b.unit && !layer_of(a).empty() && layer_of(a) == layer_of(b);
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
    value.set_requires_grad(info.trained);
    parameters.push_back({info, std::move(value)});
  }
  return parameters;
}

Tensor without_memory(Allocator& allocator, const Shape& shape, DType dtype) {
  const Strides strides{};
  return Tensor::full(allocator, {1}, std::numeric_limits<double>::quiet_NaN(), dtype)
      .view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), 0);
}

std::vector<Parameter> make_trunk_parameters(Rank& rank, std::span<const ParameterInfo> plan) {
  if (rank.keeps_parameters) return make_parameters(*rank.allocator, plan);
  std::vector<Parameter> parameters;
  for (const ParameterInfo& info : plan) {
    Tensor value = without_memory(*rank.allocator, local_shape(info), DType::kF32);
    value.set_requires_grad(info.trained);
    parameters.push_back({info, std::move(value)});
  }
  return parameters;
}

void initialize_values(ThreadPool& pool, const ParameterInfo& info, Part own, float* values,
                       uint64_t seed) {
  constexpr uint64_t kInitialization = 0x1417;
  constexpr int64_t kGrain = 4096;
  const RandomKey key = RandomKey{seed}.derive(kInitialization, hash_of(info.name));
  const auto value_of = [&](int64_t global) {
    if (info.initializer == Initializer::kNormal) {
      return static_cast<float>(info.deviation * normal_at(key, static_cast<uint64_t>(global)));
    }
    if (info.initializer == Initializer::kUniform) {
      const double between = uniform_at(key, static_cast<uint64_t>(global));  // 0 and 1
      return static_cast<float>(info.deviation * (2 * between - 1));
    }
    if (info.initializer == Initializer::kSinusoids) return sinusoid(global, info.shape[1]);
    if (info.initializer == Initializer::kConstant) return static_cast<float>(info.deviation);
    return info.initializer == Initializer::kOnes ? 1.0F : 0.0F;
  };
  pool.parallel_for(own.length, kGrain, [&](int64_t from, int64_t to) {
    for_each_shard_run(info, [&](int64_t local, int64_t global, int64_t count) {
      const int64_t begin = std::max(local, own.start + from);
      const int64_t end = std::min(local + count, own.start + to);
      for (int64_t i = begin; i < end; ++i) values[i - own.start] = value_of(global + i - local);
    });
  });
}

void initialize_parameters(std::span<Parameter> parameters, uint64_t seed) {
  ThreadPool alone(1);
  for (Parameter& parameter : parameters) {
    change_on_host<float>(parameter.value, [&](float* values) {
      initialize_values(alone, parameter.info, {0, parameter.value.elements()}, values, seed);
    });
  }
}

}  // namespace weft
