#include "worker/setup_state.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "worker/admission/shards.h"
#include "worker/checkpoint/reader.h"
#include "worker/models/hf_folder.h"
#include "worker/optimizer/exact_squares.h"

namespace weft {
namespace {

// A tensor of the checkpoint as a whole, row-major.
Result<std::vector<float>> load_whole(const proto::CheckpointManifest& manifest,
                                      const ParameterInfo& info, Progress& progress) {
  const auto memory = make_caching_allocator();
  const Tensor value = Tensor::empty(*memory, info.shape);
  const checkpoint::StateTensor target{&info, proto::TENSOR_ROLE_WEIGHT, Singles(value)};
  WEFT_ASSIGN_OR_RETURN(const auto missing,
                        checkpoint::load(manifest, {&target, 1}, [&](const std::string& hash) {
                          return progress.get_chunk(hash);
                        }));
  if (missing.empty()) return value.to_vector<float>();
  return fail(Status(Code::kCorruption, "model.from: the checkpoint lacks " + info.name));
}

// Calls visit(first index of a state tensor's own elements, global index, count) for each run of
// them that is contiguous in the whole parameter.
void for_each_own_run(const ParameterInfo& info, const Part& own,
                      const std::function<void(size_t, int64_t, int64_t)>& visit) {
  for_each_shard_run(info, [&](int64_t local, int64_t global, int64_t count) {
    const int64_t begin = std::max(local, own.start);
    const int64_t end = std::min(local + count, own.start + own.length);
    if (begin >= end) return;
    visit(static_cast<size_t>(begin - own.start), global + begin - local, end - begin);
  });
}

// Of the weights that the magnitudes stand beside, by name, the sums of squares of all ranks, which
// do not depend on who has which elements.
class MagnitudeSums {
 public:
  MagnitudeSums(Rank& rank, const Training& training)
      : out_in_(training.family->layout() == ops::WeightLayout::kOutIn) {
    for (const Parameter& parameter : training.optimizer->parameters()) {
      const ParameterInfo& info = parameter.info;
      if (adapter_part(info) == AdapterPart::kMagnitude) {
        places_[info.adapts] = {elements_, info.shape[0]};
        elements_ += info.shape[0];
      }
    }
    for (size_t i = 0; i < training.optimizer->states().size(); ++i) {
      const bool adapted = places_.contains(training.optimizer->parameters()[i].info.name);
      shared_out_ |= adapted && training.optimizer->states()[i].own.has_value();
    }
    const auto outputs = static_cast<size_t>(elements_);
    std::vector<double> largest(outputs), upper(outputs), lower(outputs);
    int64_t inputs = 1;
    each_element(rank, training, [&](size_t output, float x, int64_t count) {
      largest[output] = std::max(largest[output], std::abs(double{x}));
      inputs = std::max(inputs, count);
    });
    over_ranks(rank, largest, ReduceOp::kMax);
    std::vector<SquareCut> cuts;
    for (const double most : largest) cuts.emplace_back(most > 0 ? most : 1, inputs);
    each_element(rank, training, [&](size_t output, float x, int64_t) {
      ExactSquares sums{upper[output], lower[output]};
      cuts[output].add(x, sums);
      upper[output] = sums.upper;
      lower[output] = sums.lower;
    });
    over_ranks(rank, upper, ReduceOp::kSum);
    over_ranks(rank, lower, ReduceOp::kSum);
    for (size_t i = 0; i < outputs; ++i) sums_.push_back(upper[i] + lower[i]);
  }
  std::span<const double> of(const std::string& weight) const {
    const Part& place = places_.at(weight);
    return std::span(sums_).subspan(static_cast<size_t>(place.start),
                                    static_cast<size_t>(place.length));
  }

 private:
  // Calls visit(output among all, x, the weight's inputs) for each element that this rank counts.
  template <typename Visit>
  void each_element(Rank& rank, const Training& training, const Visit& visit) const {
    const auto& parameters = training.optimizer->parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParameterInfo& info = parameters[i].info;
      const auto found = places_.find(info.name);
      if (found == places_.end()) continue;
      const Part counted = counted_part(info, rank.mesh.index(Axis::kTensor));
      const AdamW::State& state = training.optimizer->states()[i];
      const std::vector<float> values = state.master.to_vector();
      const int64_t columns = info.shape[1], inputs = info.shape[out_in_ ? 1 : 0];
      const Part own = state.own.value_or(Part{0, std::ssize(values)});
      const Part part = common_part(own, counted);
      for_each_own_run(info, part, [&](size_t local, int64_t global, int64_t count) {
        size_t at = local + static_cast<size_t>(part.start - own.start);
        for (int64_t k = global; k < global + count; ++k) {
          const int64_t output = out_in_ ? k / columns : k % columns;
          visit(static_cast<size_t>(found->second.start + output), values[at++], inputs);
        }
      });
    }
  }
  // Each element is counted by one rank of the world, or by each replica alike.
  void over_ranks(Rank& rank, std::vector<double>& values, ReduceOp op) const {
    Tensor all = Tensor::from<double>(*rank.allocator, {elements_}, values);
    rank.mesh.axis(Axis::kTensor).all_reduce(all, op);
    if (shared_out_) rank.mesh.axis(Axis::kReplica).all_reduce(all, op);
    values = all.to_vector<double>();
  }

  const bool out_in_;
  bool shared_out_ = false;  // each replica has a part of its own
  int64_t elements_ = 0;
  std::map<std::string, Part> places_;
  std::vector<double> sums_;
};

}  // namespace

Status initialize_magnitudes(Rank& rank, Training& training) {
  if (!training.config->adapter.dora) return {};
  const MagnitudeSums all(rank, training);
  auto& parameters = training.optimizer->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterInfo& info = parameters[i].info;
    if (adapter_part(info) != AdapterPart::kMagnitude) continue;
    const std::span<const double> sums = all.of(info.adapts);
    if (const auto zero = std::ranges::find(sums, 0.0); zero != sums.end()) {
      return Status::invalid("adapter.dora", "true",
                             "must be false, as " + info.adapts + " gives only zeros for output " +
                                 std::to_string(zero - sums.begin()) +
                                 ", whose norm DoRA divides by");
    }
    AdamW::State& state = training.optimizer->states()[i];
    std::vector<float> values = state.master.to_vector();
    for_each_own_run(info, state.own.value_or(Part{0, std::ssize(values)}),
                     [&](size_t local, int64_t global, int64_t count) {
                       for (int64_t k = 0; k < count; ++k) {
                         values[local + static_cast<size_t>(k)] =
                             static_cast<float>(std::sqrt(sums[static_cast<size_t>(global + k)]));
                       }
                     });
    state.master.set(values.data());
  }
  return {};
}

Status merge_adapter(const proto::CheckpointManifest& manifest, Progress& progress,
                     Training& training) {
  if (!manifest.has_adapter()) return {};
  const ModelFamily& family = *training.family;
  WEFT_ASSIGN_OR_RETURN(const Adapter adapter,
                        find_adapter(manifest.adapter(), family, *training.config));
  const ModelConfigPtr config = family.with_adapter(*training.config, adapter);
  std::map<std::string, std::vector<ParameterInfo>> adapters;  // their parts, by what they adapt
  for (ParameterInfo& info : family.plan(*config, 1, 0)) {
    if (!info.adapts.empty()) adapters[info.adapts].push_back(std::move(info));
  }
  for (checkpoint::StateTensor& tensor : training.state_tensors()) {
    const auto found = adapters.find(tensor.info->name);
    if (tensor.role != proto::TENSOR_ROLE_WEIGHT || found == adapters.end()) continue;
    WEFT_ASSIGN_OR_RETURN(const auto a, load_whole(manifest, found->second[0], progress));
    WEFT_ASSIGN_OR_RETURN(const auto b, load_whole(manifest, found->second[1], progress));
    MergedAdapter merged(adapter, family.layout(), a, b);
    if (adapter.dora) {  // whose norms need all of the weight on every rank
      ParameterInfo whole = *tensor.info;
      whole.shard = {};
      WEFT_ASSIGN_OR_RETURN(const auto weight, load_whole(manifest, whole, progress));
      WEFT_ASSIGN_OR_RETURN(const auto magnitude, load_whole(manifest, found->second[2], progress));
      merged.measure(0, weight);
      merged.rescale(magnitude);
    }
    std::vector<float> values = tensor.value.to_vector();
    for_each_own_run(*tensor.info, tensor.own.value_or(Part{0, std::ssize(values)}),
                     [&](size_t local, int64_t global, int64_t count) {
                       merged.merge_into(
                           global, std::span(values).subspan(local, static_cast<size_t>(count)));
                     });
    tensor.value.set(values.data());
  }
  return {};
}

void initialize(ThreadPool& pool, Training& training, uint64_t seed,
                const std::function<bool(const ParameterInfo&)>& wanted) {
  for (size_t i = 0; i < training.optimizer->parameters().size(); ++i) {
    const ParameterInfo& info = training.optimizer->parameters()[i].info;
    const AdamW::State& state = training.optimizer->states()[i];
    if (!wanted(info)) continue;
    state.master.set_on_host([&](float* values) {
      const Part own = state.own.value_or(Part{0, state.master.elements()});
      initialize_values(pool, info, own, values, seed);
    });
  }
}

Status initialize_absent(ThreadPool& pool, const proto::JobSpec& spec, Training& training,
                         const std::set<std::string>& given) {
  std::set<std::string> absent;
  for (const Parameter& parameter : training.trunk->parameters()) {
    const ParameterInfo& info = parameter.info;
    if (!info.adapts.empty() || given.contains(info.name)) continue;
    if (!info.trained && models_language(spec)) {
      return Status::invalid("model.from", "without " + info.name, kFrozenHeadRule);
    }
    absent.insert(info.name);
  }
  initialize(pool, training, spec.training().seed(),
             [&](const ParameterInfo& info) { return absent.contains(info.name); });
  return {};
}

std::vector<checkpoint::StateTensor> Training::state_tensors() {
  std::vector<checkpoint::StateTensor> tensors;
  const auto& parameters = optimizer->parameters();
  const auto& states = optimizer->states();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterInfo* info = &parameters[i].info;
    const std::optional<Part>& own = states[i].own;
    tensors.push_back({info, proto::TENSOR_ROLE_WEIGHT, states[i].master, own});
    if (!info->trained) continue;
    tensors.push_back({info, proto::TENSOR_ROLE_FIRST_MOMENT, states[i].first_moment, own});
    tensors.push_back({info, proto::TENSOR_ROLE_SECOND_MOMENT, states[i].second_moment, own});
  }
  return tensors;
}

std::vector<checkpoint::StateTensor> Training::unstored_tensors() {
  std::vector<checkpoint::StateTensor> tensors = state_tensors();
  std::erase_if(tensors,
                [this](const auto& tensor) { return frozen_stored && !tensor.info->trained; });
  return tensors;
}

void Training::keep_frozen(std::span<const proto::TensorEntry> entries) {
  if (std::exchange(frozen_stored, true)) return;
  std::set<std::string> frozen;
  for (const Parameter& parameter : trunk->parameters()) {
    if (!parameter.info.trained) frozen.insert(parameter.info.name);
  }
  for (const proto::TensorEntry& entry : entries) {
    if (frozen.contains(entry.name())) *manifest.add_tensors() = entry;
  }
}

}  // namespace weft
