#include "worker/models/adapter.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "proto/job.pb.h"
#include "worker/models/model.h"

namespace weft {
namespace {

constexpr std::string_view kWeight = ".weight", kInput = ".lora_A.weight",
                           kOutput = ".lora_B.weight";

// Whether it is a linear map of a block: of all that has two dims only tables lie elsewhere.
bool is_linear(const ParameterInfo& info, int64_t layers) {
  return info.unit >= 1 && info.unit <= layers && info.shape.dims() == 2 &&
         info.name.ends_with(kWeight);
}

std::string module_of(const ParameterInfo& info) {
  return info.name.substr(0, info.name.size() - kWeight.size());
}

bool ends_with_name(const std::string& module, const std::string& target) {
  return module == target || module.ends_with("." + target);
}

std::string last_part(const std::string& module) { return module.substr(module.rfind('.') + 1); }

bool is_number(std::string_view part) {
  return !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
}

// Whether a part of the name is a block's number, as PEFT's own lists of all linear maps have it.
bool has_number(const std::string& name) {
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    if (is_number(std::string_view(name).substr(at, end - at))) return true;
    at = end + 1;
  }
  return false;
}

// What follows the block's number: "attn.c_attn" of "transformer.h.0.attn.c_attn".
std::string within_block(const std::string& module) {
  size_t at = 0;
  while (at < module.size()) {
    const size_t end = std::min(module.find('.', at), module.size());
    const bool number = is_number(std::string_view(module).substr(at, end - at));
    at = std::min(end + 1, module.size());
    if (number) return module.substr(at);
  }
  return module;
}

int dim_of(ops::WeightLayout layout, bool output) {
  return (layout == ops::WeightLayout::kOutIn) == output ? 0 : 1;
}

// A [rank, in] (output false) or B [out, rank] of a weight: cut where that one is, or whole.
ParameterInfo adapter_of(const ParameterInfo& weight, const Adapter& adapter,
                         ops::WeightLayout layout, bool output) {
  const int dim = dim_of(layout, output);
  const int64_t features = weight.shape[dim];
  ParameterInfo info;
  info.name = module_of(weight) + std::string(output ? kOutput : kInput);
  info.shape = output ? Shape{features, adapter.rank} : Shape{adapter.rank, features};
  if (weight.shard.dim == dim) {
    info.shard = weight.shard;
    info.shard.dim = output ? 0 : 1;
  }
  if (!output) {
    info.initializer = Initializer::kUniform;
    info.deviation = 1 / std::sqrt(static_cast<double>(features));
  }
  info.decay = true;
  info.unit = weight.unit;
  info.behind_attention = weight.behind_attention;
  info.adapts = weight.name;
  return info;
}

}  // namespace

double Adapter::scaling() const {
  const auto parts = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(parts) : parts);
}

Result<Adapter> find_adapter(const proto::AdapterSpec& spec, const ModelFamily& family,
                             const ModelConfig& config) {
  return find_adapter(Adapter{spec.rank(),
                              spec.alpha(),
                              spec.dropout(),
                              spec.rslora(),
                              {spec.targets().begin(), spec.targets().end()}},
                      family, config);
}

Result<Adapter> find_adapter(Adapter adapter, const ModelFamily& family,
                             const ModelConfig& config) {
  // One block would not tell a name that is of this block only.
  const bool by_block = std::ranges::any_of(adapter.targets, has_number);
  const int64_t blocks = by_block ? config.layers : 2;
  std::vector<ParameterInfo> maps = family.base_plan(*family.with_layers(config, blocks), 1, 0);
  std::erase_if(maps, [&](const ParameterInfo& info) { return !is_linear(info, blocks); });
  std::set<std::string> last_parts;
  for (const ParameterInfo& info : maps) last_parts.insert(last_part(module_of(info)));
  const std::vector<std::string> all(last_parts.begin(), last_parts.end());
  if (adapter.targets.empty()) adapter.targets = family.default_targets();
  if (adapter.targets == std::vector{std::string(kAllLinear)}) adapter.targets = all;
  std::string known;
  for (const std::string& part : all) known += part + ", ";
  std::map<int64_t, std::set<std::string>> adapted;  // by block, names within it
  for (size_t i = 0; i < adapter.targets.size(); ++i) {
    const std::string& target = adapter.targets[i];
    bool found = false;
    for (const ParameterInfo& info : maps) {
      if (!ends_with_name(module_of(info), target)) continue;
      adapted[info.unit].insert(within_block(module_of(info)));
      found = true;
    }
    if (found) continue;
    return fail(Status::invalid("adapter.targets[" + std::to_string(i) + "]", target,
                                "must end the name of a linear map of " +
                                    std::string(family.name()) + "'s blocks: " + known + "or be " +
                                    std::string(kAllLinear) + " alone"));
  }
  const std::set<std::string>& first = adapted[1];
  for (int64_t block = 1; block <= blocks; ++block) {
    if (adapted[block] == first) continue;
    return fail(Status::invalid("adapter.targets", adapter.targets.front() + ", ...",
                                "must adapt the same linear maps in every block"));
  }
  if (by_block) adapter.targets.assign(first.begin(), first.end());
  return adapter;
}

std::vector<ParameterInfo> adapted_plan(std::vector<ParameterInfo> plan, const ModelConfig& config,
                                        ops::WeightLayout layout) {
  const Adapter& adapter = config.adapter;
  std::vector<ParameterInfo> all, of_unit;
  for (ParameterInfo& info : plan) {
    if (!all.empty() && info.unit != all.back().unit) {
      std::ranges::move(std::exchange(of_unit, {}), std::back_inserter(all));
    }
    const std::string module = is_linear(info, config.layers) ? module_of(info) : "";
    const auto names = [&](const std::string& target) { return ends_with_name(module, target); };
    if (!module.empty() && std::ranges::any_of(adapter.targets, names)) {
      of_unit.push_back(adapter_of(info, adapter, layout, /*output=*/false));
      of_unit.push_back(adapter_of(info, adapter, layout, /*output=*/true));
    }
    info.trained = false;
    info.looked_up = LookedUp::kNever;  // whose rows' gradients nobody asks for
    all.push_back(std::move(info));
  }
  return all;  // behind the blocks there is a norm
}

bool maps_input(const ParameterInfo& info) {
  return !info.adapts.empty() && info.name.ends_with(kInput);
}

MergedDelta::MergedDelta(const Adapter& adapter, ops::WeightLayout layout, std::span<const float> a,
                         std::span<const float> b)
    : rank_(adapter.rank) {
  const auto rank = static_cast<size_t>(rank_);
  const size_t in = a.size() / rank, out = b.size() / rank;
  const auto scaling = static_cast<float>(adapter.scaling());
  const bool out_in = layout == ops::WeightLayout::kOutIn;
  columns_ = static_cast<int64_t>(out_in ? in : out);
  left_.resize(out_in ? b.size() : a.size());
  right_.resize(out_in ? a.size() : b.size());
  for (size_t r = 0; r < rank; ++r) {
    for (size_t i = 0; i < in; ++i) {
      const float value = a[r * in + i];
      (out_in ? right_[r * in + i] : left_[i * rank + r]) = out_in ? value : scaling * value;
    }
    for (size_t o = 0; o < out; ++o) {
      const float value = b[o * rank + r];
      (out_in ? left_[o * rank + r] : right_[r * out + o]) = out_in ? scaling * value : value;
    }
  }
}

void MergedDelta::add_to(int64_t first, std::span<float> weight) const {
  std::vector<float> sums;
  for (int64_t done = 0; done < std::ssize(weight);) {
    const int64_t row = (first + done) / columns_, column = (first + done) % columns_;
    const int64_t count = std::min(columns_ - column, std::ssize(weight) - done);
    sums.assign(static_cast<size_t>(count), 0);
    for (int64_t r = 0; r < rank_; ++r) {
      const float factor = left_[static_cast<size_t>(row * rank_ + r)];
      const float* from = right_.data() + r * columns_ + column;
      for (int64_t i = 0; i < count; ++i) sums[static_cast<size_t>(i)] += factor * from[i];
    }
    float* to = weight.data() + done;
    for (int64_t i = 0; i < count; ++i) to[i] += sums[static_cast<size_t>(i)];
    done += count;
  }
}

}  // namespace weft
