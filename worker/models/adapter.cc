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
                           kOutput = ".lora_B.weight", kMagnitude = ".lora_magnitude_vector";

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

// A [rank, in], B [out, rank] or the magnitude [out] of a weight: cut where that one is, or whole.
ParameterInfo adapter_of(const ParameterInfo& weight, const Adapter& adapter,
                         ops::WeightLayout layout, AdapterPart part) {
  const bool output = part != AdapterPart::kInput;
  const int dim = dim_of(layout, output);
  const int64_t features = weight.shape[dim];
  ParameterInfo info;
  if (weight.shard.dim == dim) {
    info.shard = weight.shard;
    info.shard.dim = output ? 0 : 1;
  }
  info.decay = true;
  if (part == AdapterPart::kInput) {
    info.name = module_of(weight) + std::string(kInput);
    info.shape = Shape{adapter.rank, features};
    info.initializer = Initializer::kUniform;
    info.deviation = 1 / std::sqrt(static_cast<double>(features));
  } else if (part == AdapterPart::kOutput) {
    info.name = module_of(weight) + std::string(kOutput);
    info.shape = Shape{features, adapter.rank};
  } else {
    info.name = module_of(weight) + std::string(kMagnitude);
    info.shape = Shape{features};
    info.initializer = Initializer::kOnes;  // until the weight is known (worker/setup_state.h)
    info.decay = false;
    info.keep_fp32 = true;  // updates of it are far smaller
  }
  info.unit = weight.unit;
  info.behind_attention = weight.behind_attention;
  info.adapts = weight.name;
  return info;
}

// Whether PEFT, which looks at every layer of a model, would adapt one of a head too.
bool names_head(const std::string& target, const ModelFamily& family, const ModelConfig& config) {
  for (const HeadKind kind : kHeadKinds) {
    const auto head = family.head(config, kind, /*labels=*/2);
    const auto named = [&](const HeadLayer& layer) { return ends_with_name(layer.name, target); };
    if (head && std::ranges::any_of(head->layers, named)) return true;
  }
  return false;
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
                              spec.dora(),
                              {spec.targets().begin(), spec.targets().end()}},
                      family, config);
}

Result<Adapter> find_adapter(Adapter adapter, const ModelFamily& family,
                             const ModelConfig& config) {
  // One block would not tell a name that is of this block only.
  const bool by_block = std::ranges::any_of(adapter.targets, has_number);
  const int64_t blocks = by_block ? config.layers : 2;
  std::vector<ParameterInfo> maps =
      family.base_plan(*family.with_layers(config, blocks), 1, 0, /*blocks=*/0);
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
  const bool ambiguous = std::ranges::any_of(
      adapter.targets, [&](const auto& target) { return names_head(target, family, config); });
  if (by_block || ambiguous) adapter.targets.assign(first.begin(), first.end());
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
      of_unit.push_back(adapter_of(info, adapter, layout, AdapterPart::kInput));
      of_unit.push_back(adapter_of(info, adapter, layout, AdapterPart::kOutput));
      if (adapter.dora) {
        of_unit.push_back(adapter_of(info, adapter, layout, AdapterPart::kMagnitude));
      }
    }
    info.trained = false;
    info.looked_up = LookedUp::kNever;  // whose rows' gradients nobody asks for
    all.push_back(std::move(info));
  }
  std::ranges::move(of_unit, std::back_inserter(all));
  return all;
}

std::vector<std::string> peft_targets(const ModelFamily& family, const ModelConfig& config) {
  std::set<std::string> renamed;
  for (const ParameterInfo& info : family.plan(*family.with_layers(config, 1), 1, 0)) {
    if (adapter_part(info) != AdapterPart::kInput) continue;
    const std::string map = info.adapts.substr(0, info.adapts.size() - kWeight.size());
    const std::string in_memory = family.name_in_memory(map);
    if (in_memory == map) return config.adapter.targets;
    renamed.insert(within_block(in_memory));
  }
  return {renamed.begin(), renamed.end()};
}

AdapterPart adapter_part(const ParameterInfo& info) {
  if (info.adapts.empty()) return AdapterPart::kNone;
  if (info.name.ends_with(kInput)) return AdapterPart::kInput;
  return info.name.ends_with(kOutput) ? AdapterPart::kOutput : AdapterPart::kMagnitude;
}

void OutputSquares::add(int64_t first, std::span<const float> elements) {
  for (int64_t done = 0; done < std::ssize(elements);) {
    const int64_t row = (first + done) / columns_, column = (first + done) % columns_;
    const int64_t count = std::min(columns_ - column, std::ssize(elements) - done);
    const float* from = elements.data() + done;
    double* const to = sums_.data() + (of_rows_ ? row : column);
    const int64_t step = of_rows_ ? 0 : 1;
    for (int64_t i = 0; i < count; ++i) to[i * step] += double{from[i]} * double{from[i]};
    done += count;
  }
}

MergedAdapter::MergedAdapter(const Adapter& adapter, ops::WeightLayout layout,
                             std::span<const float> a, std::span<const float> b)
    : out_in_(layout == ops::WeightLayout::kOutIn),
      rank_(adapter.rank),
      columns_(std::ssize(out_in_ ? a : b) / rank_),
      left_(out_in_ ? b.size() : a.size()),
      right_(out_in_ ? a.size() : b.size()),
      squares_(layout, adapter.dora ? std::ssize(b) / rank_ : 0, columns_) {
  const auto rank = static_cast<size_t>(rank_);
  const size_t in = a.size() / rank, out = b.size() / rank;
  const auto scaling = static_cast<float>(adapter.scaling());
  for (size_t r = 0; r < rank; ++r) {
    for (size_t i = 0; i < in; ++i) {
      const float value = a[r * in + i];
      (out_in_ ? right_[r * in + i] : left_[i * rank + r]) = out_in_ ? value : scaling * value;
    }
    for (size_t o = 0; o < out; ++o) {
      const float value = b[o * rank + r];
      (out_in_ ? left_[o * rank + r] : right_[r * out + o]) = out_in_ ? scaling * value : value;
    }
  }
}

void MergedAdapter::measure(int64_t first, std::span<const float> weight) {
  std::vector<float> merged(weight.begin(), weight.end());
  merge_into(first, merged);
  squares_.add(first, merged);
}

void MergedAdapter::rescale(std::span<const float> magnitude) {
  for (size_t i = 0; i < magnitude.size(); ++i) {
    factors_.push_back(static_cast<float>(double{magnitude[i]} / std::sqrt(squares_.sums()[i])));
  }
}

void MergedAdapter::merge_into(int64_t first, std::span<float> weight) const {
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
    if (!factors_.empty()) {
      const float* const factors = factors_.data() + (out_in_ ? row : column);
      const int64_t step = out_in_ ? 0 : 1;
      for (int64_t i = 0; i < count; ++i) to[i] *= factors[i * step];
    }
    done += count;
  }
}

}  // namespace weft
