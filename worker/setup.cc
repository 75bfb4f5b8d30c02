#include "worker/setup.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <set>
#include <span>
#include <utility>

#include "kernels/cpu/gemm_choice.h"
#include "kernels/cpu/level.h"
#include "kernels/cuda/backend.h"
#include "kernels/tensor/transfer.h"
#include "proto/json/job_rules.h"
#include "worker/admission/check_blocks.h"
#include "worker/admission/head_classes.h"
#include "worker/admission/mesh_text.h"
#include "worker/admission/traffic.h"
#include "worker/checkpoint/reader.h"
#include "worker/models/hf_folder.h"
#include "worker/setup_inputs.h"
#include "worker/setup_state.h"

namespace weft {
namespace {

Status find_config(const proto::JobSpec& spec, const ModelSource& source, Training& training) {
  if (source.folder) {
    training.family = source.folder->family;
    training.config = source.folder->config;
  } else {
    const bool stored = source.manifest != nullptr;
    const std::string name = stored ? source.manifest->family() : spec.model().family();
    training.family = find_family(name);
    if (training.family == nullptr) {
      return Status::invalid("model.family", name, "must be one of " + known_families());
    }
    const std::string json =
        struct_to_json(stored ? source.manifest->config() : spec.model().config());
    Result<ModelConfigPtr> config = training.family->parse_config(json);
    if (!config) return config.error().with_prefix("model.config");
    training.config = *config;
  }
  if (spec.training().has_dropout()) {
    training.config = training.family->with_dropout(*training.config, spec.training().dropout());
  }
  if (permuted_tokens(spec) > 0) {
    training.config = training.family->with_predictions(training.config);
  }
  if (spec.has_adapter()) {
    WEFT_ASSIGN_OR_RETURN(const Adapter adapter,
                          find_adapter(spec.adapter(), *training.family, *training.config));
    training.config = training.family->with_adapter(*training.config, adapter);
  }
  if (spec.training().sequence_length() > training.config->tokens_max()) {
    return Status::invalid(
        "training.sequence_length", std::to_string(spec.training().sequence_length()),
        "the model has " + std::to_string(training.config->tokens_max()) + " positions");
  }
  return {};
}

Status open_tasks(Rank& rank, const proto::LaunchRecord& record, const ModelSource& source,
                  Training& training) {
  const proto::JobSpec& spec = record.spec();
  std::vector<double> weights;
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const proto::TaskSpec& task = spec.tasks(i);
    const std::string field = "tasks[" + std::to_string(i) + "]";
    const FeedOptions options{spec.training().sequence_length(),
                              spec.training().target_length(),
                              spec.training().seed(),
                              spec.training().shuffle(),
                              record.objects_folder(),
                              field,
                              i,
                              classes_of(source.manifest, source.folder.get(), spec, task),
                              training.preprocessor,
                              training.audio,
                              training.config->decoder_start_token_id,
                              rank.pool.get()};
    WEFT_ASSIGN_OR_RETURN(Feed feed, Feed::open(task, training.tokenizer.get(), options));
    if (feed.cut_recordings() > 0) {
      rank.log.info("{}: {} recordings are longer than {} s: what is behind is left out",
                    task.name(), feed.cut_recordings(), training.audio->seconds());
    }
    const TaskOptions of_task{task.name(), task.labels(), feed.label_names(),
                              task.has_mask_rate() ? task.mask_rate() : 1};
    WEFT_ASSIGN_OR_RETURN(auto head,
                          make_task(rank, task_type_name(task), *training.config, of_task));
    std::vector<Parameter> trained = training.trunk->parameters();
    for (const Parameter& parameter : head->parameters()) trained.push_back(parameter);
    weights.push_back(task.weight());
    proto::TaskLabels* names = training.manifest.add_label_names();
    names->set_task(task.name());
    for (const std::string& name : feed.label_names()) names->add_names(name);
    const bool others = classifies(task) && source.folder && source.folder->labels > 0 &&
                        !classifies_alike(*source.folder, task);
    const bool anew = others || !same_classes(options.first_labels, feed.label_names());
    if (anew) rank.log.info("{}: other classes than model.from has, so a new head", task.name());
    training.tasks.push_back({task, std::move(head), std::move(feed), 0, std::move(trained), anew});
  }
  training.mixing = std::make_unique<tasks::Mixing>(weights);
  return {};
}

// Writes a shard's elements to the part of its master that this rank has.
void set_master(Training& training, const std::string& name, std::span<const float> shard) {
  for (size_t i = 0; i < training.optimizer->parameters().size(); ++i) {
    if (training.optimizer->parameters()[i].info.name != name) continue;
    const AdamW::State& state = training.optimizer->states()[i];
    const int64_t start = state.own ? state.own->start : 0;
    state.master.set(shard.data() + start);
  }
}

// Of a folder, which holds one head: its classes are taken by the only task that could have made
// them, what else it has by every task.
Status load_folder(ThreadPool& pool, const proto::JobSpec& spec, const HfFolder& folder,
                   Training& training) {
  std::vector<HeadTensor> heads;
  for (TrainingTask& task : training.tasks) {
    for (Parameter& parameter : task.task->parameters()) {
      const bool others = training.tasks.size() > 1 || task.new_head;
      if (others && task.task->for_own_classes(parameter.info)) continue;
      heads.push_back({task.task->file_name(parameter.info.name), &parameter});
    }
  }
  std::set<std::string> given;
  WEFT_RETURN_IF_ERROR(
      load_hf_weights(folder, training.trunk->parameters(), heads,
                      [&](const Parameter& parameter, std::span<const float> shard) {
                        set_master(training, parameter.info.name, shard);
                        given.insert(parameter.info.name);
                      }));
  return initialize_absent(pool, spec, training, given);
}

// Weights of model.from: the trunk's must all be there, a head's are taken where name, shape and
// classes fit.
Status load_base(Rank& rank, const proto::JobSpec& spec, const ModelSource& source,
                 Progress& progress, Training& training) {
  if (source.folder) return load_folder(*rank.pool, spec, *source.folder, training);
  std::set<std::string> anew;
  for (const TrainingTask& task : training.tasks) {
    if (!task.new_head) continue;
    for (const Parameter& parameter : task.task->parameters()) {
      if (task.task->for_own_classes(parameter.info)) anew.insert(parameter.info.name);
    }
  }
  const auto stored_alike = [&](const ParameterInfo& info) {
    if (anew.contains(info.name)) return false;
    for (const proto::TensorEntry& entry : source.manifest->tensors()) {
      if (entry.name() == info.name && entry.role() == proto::TENSOR_ROLE_WEIGHT) {
        return checkpoint::shape_of(entry) == info.shape;
      }
    }
    return false;
  };
  std::vector<checkpoint::StateTensor> targets;
  for (checkpoint::StateTensor& tensor : training.state_tensors()) {
    const bool of_trunk = tensor.info->unit >= 0;
    if (tensor.role != proto::TENSOR_ROLE_WEIGHT || !tensor.info->adapts.empty()) continue;
    if (of_trunk || stored_alike(*tensor.info)) targets.push_back(std::move(tensor));
  }
  WEFT_ASSIGN_OR_RETURN(const auto missing,
                        checkpoint::load(*source.manifest, targets, [&](const std::string& hash) {
                          return progress.get_chunk(hash);
                        }));
  if (!missing.empty()) {
    return Status(Code::kCorruption, "model.from: the checkpoint lacks " + missing.front());
  }
  return merge_adapter(*source.manifest, progress, training);
}

// Why a run that was `then` does not go on bit for bit; empty: it does.
std::string difference(const proto::TrainerState& then, const proto::TrainerState& now,
                       proto::Reproducible reproducible) {
  const bool any_mesh = reproducible == proto::REPRODUCIBLE_TOPOLOGY;
  const std::string before = mesh_text(then.mesh()), mesh = mesh_text(now.mesh());
  if (!any_mesh && before != mesh) return "the mesh changed from " + before + " to " + mesh;
  if (!any_mesh && then.threads_per_rank() != now.threads_per_rank()) {
    return "threads a rank changed from " + std::to_string(then.threads_per_rank()) + " to " +
           std::to_string(now.threads_per_rank());
  }
  if (then.build() != now.build()) return "the build or the processor changed";
  if (reproducible == proto::REPRODUCIBLE_NONE) return "training.reproducible is none";
  return "";
}

Status restore(const proto::CheckpointManifest& manifest, Progress& progress, Training& training,
               proto::Reproducible reproducible) {
  const proto::TrainerState& then = manifest.state();
  const std::string changed = difference(then, training.state, reproducible);
  training.resume_note =
      "goes on from " + manifest.id() + " at step " + std::to_string(then.step()) +
      (changed.empty() ? ": bit for bit the uninterrupted run"
                       : ": equal to the uninterrupted run to 1e-4, for " + changed);
  const int count = static_cast<int>(training.tasks.size());
  if (then.positions_size() != count || then.mixing_credit_size() != count) {
    return Status(Code::kCorruption, manifest.id() + " holds other tasks than the job");
  }
  training.mixing->restore({then.mixing_credit().begin(), then.mixing_credit().end()});
  for (int i = 0; i < count; ++i) {
    TrainingTask& task = training.tasks[static_cast<size_t>(i)];
    if (then.positions(i).task() != task.spec.name()) {
      return Status(Code::kCorruption, manifest.id() + " holds other tasks than the job");
    }
    task.steps = then.positions(i).steps();
    WEFT_RETURN_IF_ERROR(task.feed.restore(then.positions(i)));
  }
  training.state.set_step(then.step());
  training.state.set_tokens(then.tokens());
  training.state.set_best_validation_loss(then.best_validation_loss());
  training.state.set_evaluations_without_improvement(then.evaluations_without_improvement());
  training.state.set_has_best(then.has_best());
  training.state.set_evaluation_left(then.evaluation_left());
  WEFT_ASSIGN_OR_RETURN(const auto missing, checkpoint::load(manifest, training.state_tensors(),
                                                             [&](const std::string& hash) {
                                                               return progress.get_chunk(hash);
                                                             }));
  if (!missing.empty()) {
    return Status(Code::kCorruption, manifest.id() + " lacks " + missing.front());
  }
  if (training.loss_scale && then.loss_scale() > 0) {
    training.loss_scale = LossScale(then.loss_scale(), then.loss_scale_steps());
  }
  size_t index = training.trunk->parameters().size();
  auto& states = training.optimizer->states();
  int64_t updates = 0;  // of the trunk: with every task's
  for (const TrainingTask& task : training.tasks) updates += task.steps;
  for (size_t i = 0; i < index; ++i) states[i].updates = updates;
  for (TrainingTask& task : training.tasks) {
    for (size_t i = 0; i < task.task->parameters().size(); ++i) {
      states[index++].updates = task.steps;
    }
  }
  return {};
}

void make_optimizer(Rank& rank, const proto::JobSpec& job, Training& training) {
  const proto::TrainingSpec& spec = job.training();
  std::vector<Parameter> all = training.trunk->parameters();
  int64_t unit = 0;
  for (TrainingTask& task : training.tasks) {
    --unit;
    for (const Parameter& parameter : task.task->parameters()) {
      all.push_back(parameter);
      all.back().info.unit = unit;
    }
  }
  const proto::OptimizerSpec& optimizer = spec.optimizer();
  AdamWOptions options;
  if (optimizer.betas_size() == 2) {
    options.beta1 = optimizer.betas(0);
    options.beta2 = optimizer.betas(1);
  }
  options.epsilon = optimizer.epsilon();
  options.weight_decay = optimizer.weight_decay();
  const ZeroOptions shared{job.parallel().zero(), job.parallel().bucket_bytes()};
  training.optimizer =
      std::make_unique<AdamW>(rank, std::move(all), options, training.precision, shared);
  training.reducer = std::make_unique<GradientReducer>(rank, training.optimizer->parameters(),
                                                       training.optimizer->buckets(),
                                                       training.optimizer->zero_level());
  const int zero = training.optimizer->zero_level();
  if (zero == 3) {
    training.gate = std::make_unique<UnitGate>(rank, *training.optimizer);
    training.trunk->set_gate(training.gate.get());
  }
  // What communicates in the middle of a pass is not recorded.
  const bool apart = rank.mesh.size(Axis::kTensor) == 1 && rank.mesh.size(Axis::kSequence) == 1;
  if (apart && !training.gate && rank.blocks == 0) {
    training.passes = RecordedPasses::create(rank, training.optimizer->parameters());
  }
  // A recorded pass asks no gate.
  if ((zero == 1 || zero == 2) && !training.passes && rank.blocks == 0) {
    training.values = std::make_unique<ValueGate>(*training.optimizer, /*alone=*/apart,
                                                  tokens_ahead(*training.config, job));
    training.trunk->set_gate(training.values.get());
  }
  training.schedule.peak = optimizer.learning_rate();
  training.schedule.warmup_steps = spec.schedule().warmup_steps();
  training.schedule.total_steps = spec.steps();
  switch (spec.schedule().type()) {
    case proto::SCHEDULE_TYPE_LINEAR:
      training.schedule.shape = ScheduleShape::kLinear;
      break;
    case proto::SCHEDULE_TYPE_CONSTANT:
      training.schedule.shape = ScheduleShape::kConstant;
      break;
    default:
      training.schedule.shape = ScheduleShape::kCosine;
      break;
  }
}

void find_precision(const proto::TrainingSpec& spec, Training& training) {
  if (spec.precision() == proto::PRECISION_BF16) training.precision = DType::kBF16;
  if (spec.precision() == proto::PRECISION_FP16) {
    training.precision = DType::kF16;
    training.loss_scale.emplace();
  }
  if (spec.activation_checkpointing() == proto::ACTIVATION_CHECKPOINTING_SELECTIVE) {
    training.recompute = Recompute::kAttention;
  }
  if (spec.activation_checkpointing() == proto::ACTIVATION_CHECKPOINTING_FULL) {
    training.recompute = Recompute::kBlock;
  }
}

// Of topology-invariant training: each replica gets consecutive tokens of what is computed at once,
// whole rows where there are enough of them; within a row heads are exchanged. A collective.
Status divide_blocks(Rank& rank, const proto::JobSpec& spec, Training& training) {
  WEFT_RETURN_IF_ERROR(check_blocks(spec, *training.config));
  rank.blocks = spec.training().reproducible_blocks();
  const int64_t rows = int64_t{spec.training().micro_batch_size()} * spec.parallel().data();
  const auto replicas = static_cast<int>(rank.mesh.size(Axis::kReplica));
  const auto data = static_cast<int>(std::gcd(rows, int64_t{replicas}));
  rank.mesh.divide_replicas(data, replicas / data);
  rank.mesh.divide_sequence(replicas / data);
  training.state.mutable_mesh()->set_ulysses(replicas / data);
  rank.log.info("topology-invariant in {} blocks: {} ranks share rows, {} the tokens of a row",
                rank.blocks, data, replicas / data);
  return {};
}

// Which of the sequence axis' ranks exchange heads. A collective.
void divide_sequence(Rank& rank, const proto::JobSpec& spec, Training& training) {
  const proto::ParallelSpec& mesh = spec.parallel();
  const int ulysses = ulysses_degree(*training.config, spec);
  rank.mesh.divide_sequence(ulysses);
  training.state.mutable_mesh()->set_ulysses(ulysses);
  if (mesh.sequence() > 1) {
    rank.log.info("attention over the sequence axis: rings of {}, groups of {} that exchange heads",
                  mesh.sequence() / ulysses, ulysses);
  }
}

void describe(Rank& rank, const proto::LaunchRecord& record, Training& training) {
  proto::CheckpointManifest& manifest = training.manifest;
  manifest.set_job(record.job());
  manifest.set_attempt(record.attempt());
  manifest.set_family(std::string(training.family->name()));
  *manifest.mutable_tasks() = record.spec().tasks();
  if (record.spec().has_adapter()) {
    *manifest.mutable_adapter() = record.spec().adapter();
    const std::vector<std::string>& targets = training.config->adapter.targets;
    manifest.mutable_adapter()->mutable_targets()->Assign(targets.begin(), targets.end());
  }
  proto::TrainerState& state = training.state;
  state.set_seed(record.spec().training().seed());
  state.set_threads_per_rank(rank.pool->size());
  *state.mutable_mesh() = record.spec().parallel();
  state.set_build(build_description(rank));
}

// Which libraries compute the products: those of the run that is resumed, so that it goes on bit
// for bit, else rank 0's choice on every rank. A collective.
Status choose_products(Rank& rank, const ModelSource& source, proto::TrainerState& state) {
  cpu::GemmChoice choice = cpu::gemm_choice();
  if (source.resumed && !source.manifest->state().gemm().empty()) {
    Result<cpu::GemmChoice> kept = cpu::parse_gemm_choice(source.manifest->state().gemm(), choice);
    if (!kept) return kept.error().with_prefix(source.manifest->id());
    choice = *kept;
  }
  std::vector<int64_t> numbers;
  for (const cpu::GemmLibrary library : choice.libraries) {
    numbers.push_back(static_cast<int64_t>(library));
  }
  Tensor libraries = Tensor::from<int64_t>(*rank.allocator, {cpu::kGemmClasses}, numbers);
  rank.mesh.axis(Axis::kWorld).broadcast(libraries, 0);
  numbers = libraries.to_vector<int64_t>();
  for (size_t i = 0; i < cpu::kGemmClasses; ++i) {
    choice.libraries[i] = static_cast<cpu::GemmLibrary>(numbers[i]);
  }
  cpu::choose_gemm(choice);
  state.set_gemm(to_string(choice));
  rank.log.info("products: {}", state.gemm());
  return {};
}

// Counts the programs that compute other bits of the same job: another order of sums, other random
// streams. Raised with each such change, so that none is called bit for bit the run of another.
constexpr int kArithmetic = 19;

}  // namespace

std::string build_description(Rank& rank) {
  std::ifstream info("/proc/cpuinfo");
  std::string line, model = "unknown processor";
  while (std::getline(info, line)) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      model = line.substr(colon + 2);
      break;
    }
  }
#ifdef __OPTIMIZE__
  const std::string kind = "optimized";
#else
  const std::string kind = "unoptimized";
#endif
  std::string description = "gcc " __VERSION__ ", " + kind + ", " + model;
  // Of a virtual machine the name alone may say no more than who made the processor.
  description += ", " + std::string(cpu::name_of(cpu::level()));
  if (!rank.allocator->device().is_cpu()) {
    description += ", " + cuda::backend(rank.context()).kind();
  }
  return description + ", arithmetic " + std::to_string(kArithmetic);
}

Result<std::unique_ptr<Training>> set_up(Rank& rank, const proto::LaunchRecord& record,
                                         Progress& progress) {
  auto training = std::make_unique<Training>();
  WEFT_ASSIGN_OR_RETURN(const ModelSource source, find_source(record));
  WEFT_RETURN_IF_ERROR(find_config(record.spec(), source, *training));
  find_precision(record.spec().training(), *training);
  describe(rank, record, *training);
  const proto::Reproducible reproducible = record.spec().training().reproducible();
  rank.repeatable = reproducible != proto::REPRODUCIBLE_NONE;
  if (reproducible == proto::REPRODUCIBLE_TOPOLOGY) {
    WEFT_RETURN_IF_ERROR(divide_blocks(rank, record.spec(), *training));
  } else {
    divide_sequence(rank, record.spec(), *training);
  }
  WEFT_ASSIGN_OR_RETURN(
      *training->manifest.mutable_config(),
      json_to_struct(training->family->config_json(*training->config, ExportHead{})));
  if (training->config->audio.mel_bins > 0) {
    WEFT_RETURN_IF_ERROR(find_audio_preprocessor(rank, source, progress, *training));
  }
  WEFT_RETURN_IF_ERROR(training->config->image.size > 0
                           ? find_preprocessor(rank, source, progress, *training)
                           : find_tokenizer(rank, record, source, progress, *training));
  const bool alone = rank.mesh.size(Axis::kReplica) == 1;
  rank.keeps_parameters = record.spec().parallel().zero() < 3 || alone;
  WEFT_ASSIGN_OR_RETURN(training->trunk, training->family->make_trunk(rank, training->config));
  WEFT_RETURN_IF_ERROR(open_tasks(rank, record, source, *training));
  make_optimizer(rank, record.spec(), *training);
  const bool from_scratch = source.manifest == nullptr && !source.folder;
  initialize(*rank.pool, *training, record.spec().training().seed(),
             [&](const ParameterInfo& info) {
               return from_scratch || info.unit < 0 || !info.adapts.empty();  // heads and adapters
             });
  if (source.resumed) {
    WEFT_RETURN_IF_ERROR(restore(*source.manifest, progress, *training, reproducible));
    const auto& tensors = source.manifest->tensors();
    training->keep_frozen(std::vector(tensors.begin(), tensors.end()));
  } else if (!from_scratch) {
    WEFT_RETURN_IF_ERROR(load_base(rank, record.spec(), source, progress, *training));
  }
  if (!source.resumed) WEFT_RETURN_IF_ERROR(initialize_magnitudes(rank, *training));
  training->optimizer->publish();
  WEFT_RETURN_IF_ERROR(choose_products(rank, source, training->state));
  return training;
}

}  // namespace weft
