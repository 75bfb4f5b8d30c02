#include "worker/planner/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "proto/json/job_rules.h"
#include "worker/admission/check_blocks.h"
#include "worker/admission/check_relative.h"
#include "worker/admission/memory.h"
#include "worker/admission/mesh_text.h"

namespace weft {
namespace {

using proto::JobSpec;
using proto::MeshPlan;

// Predictions are no better than this: meshes so much slower than the fastest are as good.
constexpr double kAsGood = 1.03;
constexpr int kTokensMin = 16;  // of a row on a rank of the sequence axis

int64_t share(int64_t whole, int64_t parts) { return (whole + parts - 1) / parts; }

std::string seconds_text(double seconds) {
  return seconds < 1 ? fmt::format("{:.3g} ms", seconds * 1e3) : fmt::format("{:.3g} s", seconds);
}

// As a job file says it.
void set_attention(proto::ParallelSpec& mesh, int ulysses) {
  const bool grid = ulysses > 1 && ulysses < mesh.sequence();
  mesh.set_sequence_attention(grid           ? proto::SEQUENCE_ATTENTION_ULYSSES_RING
                              : ulysses == 1 ? proto::SEQUENCE_ATTENTION_RING
                                             : proto::SEQUENCE_ATTENTION_ULYSSES);
  mesh.set_ulysses(grid ? ulysses : 0);
}

// Of the sequence axis. Topology-invariant training exchanges heads among as many as share a row.
int exchanging_ranks(const ModelConfig& config, const JobSpec& spec) {
  const bool exchanges = spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
  return exchanges ? spec.parallel().sequence() : ulysses_degree(config, spec);
}

// A mesh, and the messages that its rank sends a step over all axes.
struct Candidate {
  MeshPlan mesh;
  int64_t messages = 0;
};

class Planner {
 public:
  explicit Planner(const PlanRequirements& requirements)
      : r_(requirements), automatic_(r_.spec.parallel().mode() == proto::PARALLEL_MODE_AUTO) {}

  proto::JobPlan run() {
    if (automatic_) {
      for (const int slots : r_.slots) add_meshes_of(slots);
    } else {
      add_mesh(r_.spec);
    }
    std::stable_sort(meshes_.begin(), meshes_.end(), [](const Candidate& a, const Candidate& b) {
      return order_of(a.mesh) < order_of(b.mesh);
    });
    proto::JobPlan plan;
    for (const Candidate& each : meshes_) *plan.add_meshes() = each.mesh;
    choose(plan);
    return plan;
  }

 private:
  // Among meshes as good: the order in which they are preferred.
  static std::tuple<int, int64_t, int64_t> cost_of(const Candidate& each) {
    const MeshPlan& mesh = each.mesh;
    return {mesh.slots(), each.messages,
            mesh.tensor_bytes() + mesh.sequence_bytes() + mesh.replica_bytes()};
  }

  // Of those as fast the one that sends least, though hidden, then the one that needs least.
  static std::tuple<bool, double, double, int64_t> order_of(const MeshPlan& mesh) {
    return {!mesh.fits(), mesh.fits() ? mesh.step_seconds() : 0,
            mesh.fits() ? mesh.communication_seconds() : 0, mesh.memory_bytes()};
  }

  void add_meshes_of(int slots) {
    const proto::TrainingSpec& training = r_.spec.training();
    for (int tensor = 1; tensor <= std::min<int64_t>(slots, r_.config.heads); ++tensor) {
      if (slots % tensor != 0) continue;
      for (int sequence = 1; sequence <= slots / tensor; ++sequence) {
        if (slots / tensor % sequence != 0) continue;
        const int data = slots / tensor / sequence;
        const bool few_tokens = training.sequence_length() < int64_t{kTokensMin} * sequence;
        if (data > training.batch_size() || (sequence > 1 && few_tokens)) continue;
        JobSpec spec = r_.spec;
        proto::ParallelSpec& mesh = *spec.mutable_parallel();
        mesh.clear_mode();
        mesh.set_data(data);
        mesh.set_sequence(sequence);
        mesh.set_tensor(tensor);
        if (!mesh.has_bucket_bytes()) mesh.set_bucket_bytes(kBucketBytes);
        add_mesh(spec);
      }
    }
  }

  // The fastest variant of a mesh that fits, else the one that needs least memory.
  void add_mesh(const JobSpec& spec) {
    std::optional<Candidate> best;
    for (const SlotMemory& device : r_.devices) {
      for (const int64_t rows : micro_batches(spec)) {
        JobSpec variant = spec;
        variant.mutable_training()->set_micro_batch_size(static_cast<int32_t>(rows));
        // Smaller micro-batches only take longer than these, where they fit with nothing saved.
        if (is_allowed(variant) && add_variants(variant, device, best)) break;
      }
    }
    if (best) meshes_.push_back(std::move(*best));
  }

  // Whether the one that saves no memory fits.
  bool add_variants(JobSpec& variant, const SlotMemory& device, std::optional<Candidate>& best) {
    variant.mutable_resources()->set_device(device.gpu ? proto::COMPUTE_DEVICE_GPU
                                                       : proto::COMPUTE_DEVICE_CPU);
    bool first = true, first_fits = false;
    for (const auto recompute : recomputations()) {
      for (const int zero : levels(variant)) {
        variant.mutable_training()->set_activation_checkpointing(recompute);
        variant.mutable_parallel()->set_zero(zero);
        Candidate found = look_at(variant, device);
        if (std::exchange(first, false)) first_fits = found.mesh.fits();
        if (!best || order_of(found.mesh) < order_of(best->mesh)) best = std::move(found);
      }
    }
    return first_fits;
  }

  // Other rules may stand against it (training.reproducible).
  bool is_allowed(JobSpec spec) {
    Status status = finish_job(spec);
    if (status.ok()) status = check_blocks(spec, r_.config);
    if (status.ok()) status = check_relative(spec, r_.config);
    if (!status.ok() && refusal_.empty()) refusal_ = status.to_string();
    return status.ok();
  }

  std::vector<int64_t> micro_batches(const JobSpec& spec) const {
    if (r_.rows_at_once > 0) {
      if (r_.rows_at_once % spec.parallel().data() != 0) return {};
      return {r_.rows_at_once / spec.parallel().data()};
    }
    const int64_t given = spec.training().micro_batch_size();
    const int64_t rows = share(spec.training().batch_size(), spec.parallel().data());
    if (std::ranges::any_of(spec.tasks(), embeds)) return {rows};
    if (given > 0) return {std::min(given, rows)};
    std::vector<int64_t> sizes;
    const int64_t least = rows_together(spec);
    for (int64_t size = rows; size > least; size = share(size / least, 2) * least) {
      sizes.push_back(size);
    }
    sizes.push_back(least);
    return sizes;
  }

  std::vector<proto::ActivationCheckpointing> recomputations() const {
    if (!automatic_ || r_.spec.training().has_activation_checkpointing()) {
      return {r_.spec.training().activation_checkpointing()};
    }
    return {proto::ACTIVATION_CHECKPOINTING_NONE, proto::ACTIVATION_CHECKPOINTING_SELECTIVE,
            proto::ACTIVATION_CHECKPOINTING_FULL};
  }

  std::vector<int> levels(const JobSpec& spec) const {
    if (!automatic_) return {spec.parallel().zero()};
    if (spec.parallel().data() * spec.parallel().sequence() == 1) return {0};
    return {0, 1, 2, 3};
  }

  const std::vector<ShardSize>& shards_on(const JobSpec& spec) {
    std::vector<ShardSize>& shards = shards_[spec.parallel().tensor()];
    if (shards.empty()) shards = shards_of(r_.family, r_.config, spec, 0);
    return shards;
  }

  Candidate look_at(const JobSpec& spec, const SlotMemory& device) {
    const proto::ParallelSpec& mesh = spec.parallel();
    const std::vector<ShardSize>& shards = shards_on(spec);
    Candidate found;
    MeshPlan& plan = found.mesh;
    plan.set_data(mesh.data());
    plan.set_sequence(mesh.sequence());
    plan.set_tensor(mesh.tensor());
    plan.set_ulysses(exchanging_ranks(r_.config, spec));
    plan.set_zero(mesh.zero());
    plan.set_activation_checkpointing(spec.training().activation_checkpointing());
    plan.set_micro_batch_size(spec.training().micro_batch_size());
    plan.set_slots(mesh.data() * mesh.sequence() * mesh.tensor());
    const MemoryEstimate memory = estimate_memory(r_.config, spec, shards);
    const RankNeeds needs = memory.needs(device.gpu, device.threads);
    plan.set_device(device.gpu ? proto::COMPUTE_DEVICE_GPU : proto::COMPUTE_DEVICE_CPU);
    plan.set_memory_bytes(needs.memory);
    plan.set_host_bytes(needs.host);
    fill_memory(memory, needs, *plan.mutable_memory());
    const auto hosts = r_.find_hosts(plan.slots(), needs);
    plan.set_fits(hosts.has_value());
    if (!hosts) {
      plan.set_problem(problem_of(plan.slots(), needs, device));
      return found;
    }
    plan.set_nodes(static_cast<int32_t>(hosts->size()));
    StepTraffic traffic = step_traffic(r_.config, spec, shards, {});
    // Of a ring with a causal mask the last rank sends most; in windows those in the middle, which
    // send keys on and gradients back.
    for (const int at : {mesh.sequence() / 2, mesh.sequence() - 1}) {
      traffic.sequence =
          std::max(traffic.sequence, step_traffic(r_.config, spec, shards, {0, at, 0}).sequence,
                   [](const AxisTraffic& a, const AxisTraffic& b) { return a.bytes < b.bytes; });
    }
    plan.set_tensor_bytes(traffic.tensor.bytes);
    plan.set_sequence_bytes(traffic.sequence.bytes);
    plan.set_replica_bytes(traffic.replica.bytes);
    found.messages = traffic.tensor.messages + traffic.sequence.messages + traffic.replica.messages;
    const StepTime time = estimate_step(r_.config, spec, shards, traffic, *hosts);
    plan.set_step_seconds(time.step());
    plan.set_compute_seconds(time.compute);
    plan.set_communication_seconds(time.communication);
    plan.set_hidden_seconds(time.hidden);
    return found;
  }

  static std::string problem_of(int slots, const RankNeeds& needs, const SlotMemory& device) {
    const auto lacks = [](int64_t has, int64_t wanted) { return has > 0 && wanted > has; };
    const auto text = [](int64_t wanted, const char* of, int64_t has) {
      return fmt::format("a rank needs {}; the largest {} has {}", bytes_text(wanted), of,
                         bytes_text(has));
    };
    if (lacks(device.memory, needs.memory)) {
      return text(needs.memory, device.gpu ? "GPU" : "slot", device.memory);
    }
    if (lacks(device.host, needs.host)) {
      return text(needs.host, "slot, beside its GPU,", device.host);
    }
    return fmt::format("a rank needs {}; fewer than {} slots that work together have so much",
                       bytes_text(needs.memory), slots);
  }

  static void fill_memory(const MemoryEstimate& memory, const RankNeeds& needs,
                          proto::MemoryPlan& plan) {
    plan.set_parameters(memory.parameters);
    plan.set_optimizer(memory.optimizer);
    plan.set_gradients(memory.gradients);
    plan.set_activations(memory.activations);
    plan.set_workspace(memory.workspace);
    plan.set_checkpoint(memory.checkpoint);
    plan.set_process(needs.memory - (needs.gpu ? memory.tensors() : memory.total()));
  }

  void choose(proto::JobPlan& plan) const {
    if (meshes_.empty()) {
      plan.set_reason(refusal_.empty() ? too_many_slots() : "the job allows no mesh: " + refusal_);
      return;
    }
    const MeshPlan& fastest = meshes_.front().mesh;
    if (!fastest.fits()) {
      plan.set_reason(fmt::format("none of {} fits: the one that needs least is {}: {}",
                                  count_text(meshes_.size()), mesh_text(fastest),
                                  fastest.problem()));
      return;
    }
    const Candidate* chosen = &meshes_.front();
    size_t fitting = 0;
    for (const Candidate& each : meshes_) {
      if (!each.mesh.fits()) break;
      ++fitting;
      const bool as_good = each.mesh.step_seconds() <= kAsGood * fastest.step_seconds();
      if (as_good && cost_of(each) < cost_of(*chosen)) chosen = &each;
    }
    *plan.mutable_chosen() = chosen->mesh;
    plan.set_reason(automatic_ ? reason_of(*chosen, fitting) : "the job file says this mesh");
  }

  // The bounds of add_meshes_of.
  std::string too_many_slots() const {
    return fmt::format(
        "no mesh that 'parallel: auto' looks at has so many slots: its data axis has at most "
        "training.batch_size = {} ranks, its tensor axis at most the model's heads = {}, its "
        "sequence axis at least {} of training.sequence_length = {} tokens a rank",
        r_.spec.training().batch_size(), r_.config.heads, kTokensMin,
        r_.spec.training().sequence_length());
  }

  // What a mesh that is not the fastest is chosen for.
  static std::string why_instead_of(const Candidate& fastest, const Candidate& chosen) {
    const auto fewer = [](const char* what, int64_t count, int64_t other) {
      return fmt::format("with {} {} instead of {}", count, what, other);
    };
    const int slots = chosen.mesh.slots(), fastests = fastest.mesh.slots();
    if (slots < fastests) return fewer("slots", slots, fastests);
    if (chosen.messages < fastest.messages) {
      return fewer("messages a step and rank", chosen.messages, fastest.messages);
    }
    return "with fewer bytes sent";
  }

  std::string reason_of(const Candidate& candidate, size_t fitting) const {
    const MeshPlan& chosen = candidate.mesh;
    std::string text =
        fmt::format("{} a step predicted, {} of it communication that nothing hides; ",
                    seconds_text(chosen.step_seconds()),
                    seconds_text(chosen.communication_seconds() - chosen.hidden_seconds()));
    if (fitting == 1) {
      text += "the only mesh that fits";
    } else {
      const bool first = &candidate == &meshes_.front();
      const MeshPlan& other = meshes_[first ? 1 : 0].mesh;
      text += first ? "the fastest"
                    : fmt::format("as good as the fastest (within 3%), {},",
                                  why_instead_of(meshes_.front(), candidate));
      text += fmt::format(" of {} that fit; {} takes {}", count_text(fitting), mesh_text(other),
                          seconds_text(other.step_seconds()));
    }
    const size_t rest = meshes_.size() - fitting;
    if (rest > 0) text += fmt::format("; {} {} not fit", rest, rest == 1 ? "does" : "do");
    return text;
  }

  static std::string count_text(size_t count) {
    return fmt::format("{} mesh{}", count, count == 1 ? "" : "es");
  }

  const PlanRequirements& r_;
  const bool automatic_;
  std::vector<Candidate> meshes_;
  std::map<int, std::vector<ShardSize>> shards_;  // by degree of the tensor axis
  std::string refusal_;                           // of the first mesh that the job's rules refuse
};

}  // namespace

proto::JobPlan plan_job(const PlanRequirements& requirements) {
  return Planner(requirements).run();
}

proto::JobSpec with_choice(const proto::JobSpec& spec, const proto::MeshPlan& choice) {
  proto::JobSpec chosen = spec;
  proto::ParallelSpec& mesh = *chosen.mutable_parallel();
  mesh.clear_mode();
  mesh.set_data(choice.data());
  mesh.set_sequence(choice.sequence());
  mesh.set_tensor(choice.tensor());
  mesh.set_zero(choice.zero());
  if (choice.sequence() > 1) set_attention(mesh, choice.ulysses());
  chosen.mutable_training()->set_activation_checkpointing(choice.activation_checkpointing());
  chosen.mutable_training()->set_micro_batch_size(choice.micro_batch_size());
  chosen.mutable_resources()->set_slots(choice.slots());
  chosen.mutable_resources()->set_device(choice.device());
  return chosen;
}

void settle_attention(const ModelConfig& config, proto::JobSpec& spec) {
  proto::ParallelSpec& mesh = *spec.mutable_parallel();
  const bool open = mesh.sequence_attention() == proto::SEQUENCE_ATTENTION_AUTO;
  if (open && mesh.sequence() > 1) set_attention(mesh, exchanging_ranks(config, spec));
}

}  // namespace weft
