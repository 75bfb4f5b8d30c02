#include "worker/setup_state.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "worker/admission/shards.h"
#include "worker/checkpoint/reader.h"
#include "worker/models/hf_folder.h"

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

}  // namespace

Status merge_adapter(const proto::CheckpointManifest& manifest, Progress& progress,
                     Training& training) {
  if (!manifest.has_adapter()) return {};
  const ModelFamily& family = *training.family;
  WEFT_ASSIGN_OR_RETURN(const Adapter adapter,
                        find_adapter(manifest.adapter(), family, *training.config));
  const ModelConfigPtr config = family.with_adapter(*training.config, adapter);
  std::map<std::string, std::vector<ParameterInfo>> adapters;  // A and B, by what they adapt
  for (ParameterInfo& info : family.plan(*config, 1, 0)) {
    if (!info.adapts.empty()) adapters[info.adapts].push_back(std::move(info));
  }
  for (checkpoint::StateTensor& tensor : training.state_tensors()) {
    const auto found = adapters.find(tensor.info->name);
    if (tensor.role != proto::TENSOR_ROLE_WEIGHT || found == adapters.end()) continue;
    WEFT_ASSIGN_OR_RETURN(const auto a, load_whole(manifest, found->second[0], progress));
    WEFT_ASSIGN_OR_RETURN(const auto b, load_whole(manifest, found->second[1], progress));
    const MergedDelta delta(adapter, family.layout(), a, b);
    std::vector<float> values = tensor.value.to_vector();
    const Part own = tensor.own.value_or(Part{0, std::ssize(values)});
    for_each_shard_run(*tensor.info, [&](int64_t local, int64_t global, int64_t count) {
      const int64_t begin = std::max(local, own.start);
      const int64_t end = std::min(local + count, own.start + own.length);
      if (begin >= end) return;
      delta.add_to(global + begin - local,
                   std::span(values).subspan(static_cast<size_t>(begin - own.start),
                                             static_cast<size_t>(end - begin)));
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
