#include "proto/json/job_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "google/protobuf/struct.pb.h"
#include "proto/job.pb.h"
#include "proto/json/data_rules.h"
#include "proto/json/names.h"
#include "proto/json/refusal.h"
#include "proto/json/rule_text.h"
#include "proto/json/rules.h"
#include "proto/json/target_rules.h"
#include "proto/json/value.h"

namespace weft {

using proto::JobSpec;
using proto::TaskSpec;

std::string task_type_name(const TaskSpec& task) {
  return enum_name(*proto::TaskType_descriptor()->FindValueByNumber(task.type()));
}

bool sees_images(const TaskSpec& task) {
  return task.type() == proto::TASK_TYPE_IMAGE_CLASSIFICATION;
}

bool sees_images(const JobSpec& spec) {
  return std::ranges::any_of(spec.tasks(), [](const TaskSpec& task) { return sees_images(task); });
}

bool chooses(const TaskSpec& task) { return task.type() == proto::TASK_TYPE_MULTIPLE_CHOICE; }

int64_t rows_together(const JobSpec& spec) {
  int64_t rows = 1;
  for (const TaskSpec& task : spec.tasks()) {
    if (chooses(task)) rows = std::lcm(rows, std::max<int64_t>(1, task.labels()));
  }
  return rows;
}

bool classifies(const TaskSpec& task) {
  return task.type() == proto::TASK_TYPE_SEQUENCE_CLASSIFICATION ||
         task.type() == proto::TASK_TYPE_TOKEN_CLASSIFICATION || chooses(task) || sees_images(task);
}

bool models_language(const TaskSpec& task) {
  return task.type() == proto::TASK_TYPE_CAUSAL_LM || task.type() == proto::TASK_TYPE_MASKED_LM ||
         permutes(task) || writes_targets(task);
}

bool permutes(const TaskSpec& task) { return task.type() == proto::TASK_TYPE_PERMUTATION_LM; }

int64_t permuted_tokens(double rate, int64_t tokens) {
  const int64_t rounded = std::llround(rate * static_cast<double>(tokens));
  return std::max<int64_t>(0, std::min(std::max<int64_t>(1, rounded), tokens - 1));
}

int64_t permuted_tokens(const JobSpec& spec) {
  int64_t most = 0;
  for (const TaskSpec& task : spec.tasks()) {
    if (!permutes(task)) continue;
    most = std::max(most, permuted_tokens(task.mask_rate(), spec.training().sequence_length()));
  }
  return most;
}

bool embeds(const TaskSpec& task) { return task.type() == proto::TASK_TYPE_EMBEDDING; }

bool finds_answers(const TaskSpec& task) {
  return task.type() == proto::TASK_TYPE_QUESTION_ANSWERING;
}

bool hears(const TaskSpec& task) { return task.type() == proto::TASK_TYPE_SPEECH_RECOGNITION; }

bool hears(const JobSpec& spec) {
  return std::ranges::any_of(spec.tasks(), [](const TaskSpec& task) { return hears(task); });
}

bool writes_targets(const TaskSpec& task) {
  return task.type() == proto::TASK_TYPE_SEQ2SEQ || hears(task);
}

bool writes_targets(const JobSpec& spec) {
  return std::ranges::any_of(spec.tasks(),
                             [](const TaskSpec& task) { return writes_targets(task); });
}

namespace {

constexpr int64_t kRanksMax = 65536;
constexpr int32_t kSequenceLength = 128;

std::string kind_name(const JobSpec& spec) {
  return enum_name(*proto::JobKind_descriptor()->FindValueByNumber(spec.kind()));
}

Status check_model(const JobSpec& spec, const Refusal& refuse) {
  const proto::ModelSpec& model = spec.model();
  bool from = !model.from().empty();
  std::string kind = kind_name(spec);
  if (spec.kind() == proto::JOB_KIND_PRETRAIN && from) {
    return refuse("model.from", model.from(),
                  "cannot be used with kind pretrain, which starts from model.family and "
                  "model.config; to go on from a model use fine_tune or multi_task");
  }
  if (spec.kind() == proto::JOB_KIND_FINE_TUNE && !from) {
    return refuse("model.from", "", "is required for kind fine_tune: the model to start from");
  }
  if (from && model.has_family()) {
    return refuse("model.family", model.family(),
                  "comes with model.from; leave one of the two out");
  }
  if (from && model.has_config()) {
    return refuse("model.config", "", "comes with model.from; leave one of the two out");
  }
  if (from) return {};
  if (!model.has_family()) {
    return refuse("model.family", "",
                  kind == "pretrain" ? "is required for kind pretrain"
                                     : "is required where model.from is not given");
  }
  if (!model.has_config()) {
    return refuse("model.config", "",
                  "is required with model.family; {} takes the family's own defaults");
  }
  return {};
}

Status finish_adapter(JobSpec& spec, const Refusal& refuse) {
  if (!spec.has_adapter()) return {};
  if (spec.model().from().empty()) {
    return refuse("adapter", "",
                  "needs model.from: what it adapts is frozen, so it has to have learned already");
  }
  std::set<std::string> seen;
  for (int i = 0; i < spec.adapter().targets_size(); ++i) {
    const std::string& target = spec.adapter().targets(i);
    const std::string path = join_index("adapter.targets", static_cast<size_t>(i));
    if (target.empty()) return refuse(path, "", "must not be empty");
    if (!seen.insert(target).second) return refuse(path, target, "stands there twice");
  }
  if (spec.adapter().base_model().empty()) {
    spec.mutable_adapter()->set_base_model(spec.model().from());
  }
  return {};
}

Status check_task_count(const JobSpec& spec, const Refusal& refuse) {
  int count = spec.tasks_size();
  if (spec.kind() == proto::JOB_KIND_MULTI_TASK) {
    if (count >= 2) return {};
    return refuse("tasks", count, "must have at least 2 elements for kind multi_task");
  }
  if (count == 1) return {};
  return refuse("tasks", count,
                "must have exactly 1 element for kind " + kind_name(spec) +
                    "; kind multi_task takes several");
}

Status finish_task(TaskSpec& task, const std::string& path, const Refusal& refuse) {
  const std::string type = task_type_name(task);
  if (!task.has_name()) task.set_name(type);
  WEFT_RETURN_IF_ERROR(check_images(task, path, refuse));
  WEFT_RETURN_IF_ERROR(check_recordings(task, path, refuse));
  WEFT_RETURN_IF_ERROR(finish_keys(task, path, refuse));
  const bool answers = finds_answers(task);
  const bool masks = task.type() == proto::TASK_TYPE_MASKED_LM;
  if (!masks && !permutes(task) && task.has_mask_rate()) {
    return refuse(path + ".mask_rate", plain_number(task.mask_rate()),
                  "is only for masked_lm and permutation_lm");
  }
  if (masks && !task.has_mask_rate()) task.set_mask_rate(kMaskRate);
  if (permutes(task) && !task.has_mask_rate()) task.set_mask_rate(kPermutedRate);
  if (!classifies(task) && task.has_labels()) {
    return refuse(path + ".labels", task.labels(),
                  "is only for sequence_classification, token_classification, multiple_choice and "
                  "image_classification");
  }
  WEFT_RETURN_IF_ERROR(finish_pair(task, path, refuse));
  WEFT_RETURN_IF_ERROR(finish_target(task, path, refuse));
  if (!classifies(task) && !answers) return {};
  if (classifies(task) && !task.has_labels()) {
    return refuse(path + ".labels", "", "is required for " + type);
  }
  if (sees_images(task)) return {};
  const proto::DataSpec& data = task.data();
  if (data.format() == proto::DATA_FORMAT_TEXT) {
    return refuse(path + ".data.format", "text",
                  "must be jsonl for " + type + ": plain text has no labels");
  }
  if (data.text() == data.label()) {
    return refuse(path + ".data.label", data.label(), "must differ from data.text");
  }
  return {};
}

Status finish_tasks(JobSpec& spec, const Refusal& refuse) {
  WEFT_RETURN_IF_ERROR(check_task_count(spec, refuse));
  std::set<std::string> names;
  for (int i = 0; i < spec.tasks_size(); ++i) {
    TaskSpec& task = *spec.mutable_tasks(i);
    std::string path = join_index("tasks", static_cast<size_t>(i));
    WEFT_RETURN_IF_ERROR(finish_task(task, path, refuse));
    WEFT_RETURN_IF_ERROR(finish_stride(task, path, spec.training().sequence_length(), refuse));
    if (permutes(task) && spec.training().sequence_length() < 2) {
      return refuse("training.sequence_length", spec.training().sequence_length(),
                    "must be at least 2 for permutation_lm: a token is predicted from others");
    }
    if (!names.insert(task.name()).second) {
      return refuse(path + ".name", task.name(),
                    "must be unique in the job; give each task a name of its own");
    }
    const TaskSpec& first = spec.tasks(0);
    if (sees_images(task) != sees_images(first) || hears(task) != hears(first)) {
      return refuse(path + ".type", task_type_name(task),
                    "must not stand beside " + task_type_name(first) +
                        ": a model reads images, recordings or texts");
    }
  }
  return {};
}

Status check_tokenizer(const JobSpec& spec, const Refusal& refuse) {
  if (sees_images(spec)) {
    if (!spec.has_tokenizer()) return {};
    return refuse("tokenizer", "",
                  "is not for image_classification: images have no tokens of text");
  }
  if (!spec.has_tokenizer()) {
    if (!spec.model().from().empty()) return {};
    return refuse("tokenizer", "", "is required where the model is made from a configuration");
  }
  const proto::TokenizerSpec& tokenizer = spec.tokenizer();
  switch (tokenizer.type()) {
    case proto::TOKENIZER_TYPE_BYTE:
      if (tokenizer.from().empty()) return {};
      return refuse("tokenizer.from", tokenizer.from(), "is only for type tokenizer_json");
    case proto::TOKENIZER_TYPE_TOKENIZER_JSON:
      if (!tokenizer.from().empty()) return {};
      return refuse("tokenizer.from", "",
                    "is required for type tokenizer_json; leave tokenizer out to use the model's");
    default:
      return refuse("tokenizer.type", "", "is required in tokenizer");
  }
}

bool is_automatic(const JobSpec& spec) {
  return spec.parallel().mode() == proto::PARALLEL_MODE_AUTO;
}

// Before defaults are applied, which do not differ from what was written.
Status check_automatic(const JobSpec& spec, const Refusal& refuse) {
  if (!is_automatic(spec)) return {};
  const proto::ParallelSpec& mesh = spec.parallel();
  const auto alone = [&](const char* key, bool given, const std::string& value) -> Status {
    if (!given) return {};
    return refuse(std::string("parallel.") + key, value,
                  "cannot stand beside parallel: auto, which chooses it");
  };
  WEFT_RETURN_IF_ERROR(alone("data", mesh.has_data(), std::to_string(mesh.data())));
  WEFT_RETURN_IF_ERROR(alone("sequence", mesh.has_sequence(), std::to_string(mesh.sequence())));
  WEFT_RETURN_IF_ERROR(alone("tensor", mesh.has_tensor(), std::to_string(mesh.tensor())));
  WEFT_RETURN_IF_ERROR(alone("sequence_attention", mesh.has_sequence_attention(),
                             enum_name(*proto::SequenceAttention_descriptor()->FindValueByNumber(
                                 mesh.sequence_attention()))));
  WEFT_RETURN_IF_ERROR(alone("ulysses", mesh.ulysses() != 0, std::to_string(mesh.ulysses())));
  return alone("zero", mesh.has_zero(), std::to_string(mesh.zero()));
}

Status finish_mesh(JobSpec& spec, const Refusal& refuse) {
  if (is_automatic(spec)) {
    const proto::ResourceSpec& asked = spec.resources();
    if (asked.slots() == 0 || asked.nodes() <= asked.slots()) return {};
    return refuse("resources.nodes", asked.nodes(),
                  "must be at most resources.slots = " + std::to_string(asked.slots()));
  }
  const proto::ParallelSpec& mesh = spec.parallel();
  int64_t ranks = int64_t{mesh.data()} * mesh.sequence() * mesh.tensor();
  if (ranks > kRanksMax) {
    return refuse("parallel", ranks,
                  "has too many ranks: data x sequence x tensor must be at most " +
                      std::to_string(kRanksMax));
  }
  const bool grid = mesh.sequence_attention() == proto::SEQUENCE_ATTENTION_ULYSSES_RING;
  if (mesh.ulysses() != 0 && !grid) {
    return refuse("parallel.ulysses", mesh.ulysses(),
                  "is only for parallel.sequence_attention: ulysses_ring");
  }
  if (grid && mesh.ulysses() == 0) {
    return refuse("parallel.ulysses", "",
                  "is required for parallel.sequence_attention: ulysses_ring: a divisor of "
                  "parallel.sequence = " +
                      std::to_string(mesh.sequence()));
  }
  if (grid && mesh.sequence() % mesh.ulysses() != 0) {
    return refuse("parallel.ulysses", mesh.ulysses(),
                  "must divide parallel.sequence = " + std::to_string(mesh.sequence()));
  }
  proto::ResourceSpec& resources = *spec.mutable_resources();
  if (resources.slots() != 0 && resources.slots() != ranks) {
    return refuse("resources.slots", resources.slots(),
                  "must be parallel.data x parallel.sequence x parallel.tensor = " +
                      std::to_string(ranks) + ", or left out");
  }
  resources.set_slots(static_cast<int32_t>(ranks));
  if (resources.nodes() > ranks) {
    return refuse("resources.nodes", resources.nodes(),
                  "must be at most the number of ranks, " + std::to_string(ranks));
  }
  return {};
}

// Of an embedding, whose pairs are told apart from all others of the step: all rows are computed
// at once.
Status check_pairs(const JobSpec& spec, const Refusal& refuse) {
  if (!std::ranges::any_of(spec.tasks(), embeds)) return {};
  const proto::TrainingSpec& training = spec.training();
  if (training.batch_size() < 4 || training.batch_size() % 2 != 0) {
    return refuse("training.batch_size", training.batch_size(),
                  "must be even and at least 4 for an embedding: each pair is two sequences, told "
                  "apart from the others of the step");
  }
  const int32_t data = is_automatic(spec) ? 1 : spec.parallel().data();
  const int32_t rows = (training.batch_size() + data - 1) / data;
  if (training.micro_batch_size() == 0 || training.micro_batch_size() == rows) return {};
  return refuse("training.micro_batch_size", training.micro_batch_size(),
                "must be all rows of a rank, " + std::to_string(rows) +
                    ", for an embedding, or left out: a pair is told apart from all others of the "
                    "step, which accumulation would make fewer");
}

// Of a multiple choice, whose questions stay whole.
Status check_choices(const JobSpec& spec, const Refusal& refuse) {
  const int64_t together = rows_together(spec);
  const proto::TrainingSpec& training = spec.training();
  const int64_t data = is_automatic(spec) ? 1 : spec.parallel().data();
  if (together == 1) return {};
  const std::string rule = fmt::format("must be a multiple of {}", together);
  const char* why = ", by the labels of its multiple_choice: each choice is a sequence";
  if (training.batch_size() % (data * together) != 0) {
    const std::string ranks = data > 1 ? fmt::format(" x parallel.data = {}", data) : "";
    return refuse("training.batch_size", training.batch_size(), rule + ranks + why);
  }
  if (training.micro_batch_size() % together == 0) return {};
  return refuse("training.micro_batch_size", training.micro_batch_size(), rule + why);
}

Status finish_batch(JobSpec& spec, const Refusal& refuse) {
  WEFT_RETURN_IF_ERROR(check_pairs(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_choices(spec, refuse));
  proto::TrainingSpec& training = *spec.mutable_training();
  if (is_automatic(spec)) {
    if (training.micro_batch_size() <= training.batch_size()) return {};
    return refuse("training.micro_batch_size", training.micro_batch_size(),
                  "must be at most training.batch_size = " + std::to_string(training.batch_size()));
  }
  int32_t data = spec.parallel().data();
  if (data > training.batch_size()) {
    return refuse("parallel.data", data,
                  "must be at most training.batch_size = " + std::to_string(training.batch_size()) +
                      ", or some ranks would have no rows");
  }
  int32_t rows = (training.batch_size() + data - 1) / data;  // of the fullest rank
  if (training.micro_batch_size() > rows) {
    return refuse("training.micro_batch_size", training.micro_batch_size(),
                  "must be at most the rows of one rank, training.batch_size / parallel.data = " +
                      std::to_string(rows));
  }
  if (training.micro_batch_size() == 0) training.set_micro_batch_size(rows);
  // Of images and recordings it follows from the model.
  const bool known = training.has_sequence_length();
  if (known && spec.parallel().sequence() > training.sequence_length()) {
    return refuse(
        "parallel.sequence", spec.parallel().sequence(),
        "must be at most training.sequence_length = " + std::to_string(training.sequence_length()) +
            ", or some ranks would have no tokens");
  }
  return {};
}

// Of topology-invariant training on a mesh, whose tokens are whole blocks.
Status check_rows_in_blocks(const JobSpec& spec, const Refusal& refuse) {
  const proto::TrainingSpec& training = spec.training();
  const int64_t blocks = training.reproducible_blocks();
  const int64_t rows = int64_t{training.micro_batch_size()} * spec.parallel().data();  // at once
  if (training.batch_size() % rows != 0) {
    return refuse("training.batch_size", training.batch_size(),
                  "must be a multiple of the rows at once, training.micro_batch_size x "
                  "parallel.data = " +
                      std::to_string(rows) + ", with training.reproducible: topology");
  }
  // The batch, where it is all there at once.
  const auto refuse_rows = [&](const std::string& rule) {
    const bool whole = rows == training.batch_size();
    return refuse(
        whole ? "training.batch_size" : "training.micro_batch_size",
        whole ? training.batch_size() : training.micro_batch_size(),
        fmt::format("must give rows at once, training.micro_batch_size x parallel.data, now {}, "
                    "that {}",
                    rows, rule));
  };
  if (const int64_t together = rows_together(spec);
      rows % (blocks * together) != 0 && together > 1) {
    return refuse_rows(
        fmt::format("are a multiple of {}, training.reproducible_blocks x the labels of a "
                    "multiple_choice, with training.reproducible: topology, as a block has whole "
                    "questions",
                    blocks * together));
  }
  if (rows % blocks == 0) return {};
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const TaskSpec& task = spec.tasks(i);
    const bool whole = classifies(task) || finds_answers(task) || embeds(task);
    if (!whole && !writes_targets(task)) continue;
    return refuse_rows(
        fmt::format("are a multiple of training.reproducible_blocks = {} for {} {} with "
                    "training.reproducible: topology, {}",
                    blocks, embeds(task) ? "an" : "a", task_type_name(task),
                    sees_images(spec) ? "as an image has a class token beside its patches"
                                      : "as its rows are as long as the longest of the batch"));
  }
  if (blocks % rows != 0) {
    return refuse_rows(
        fmt::format("divide training.reproducible_blocks = {} or are a multiple of it with "
                    "training.reproducible: topology",
                    blocks));
  }
  if (training.sequence_length() % (blocks / rows) != 0) {
    return refuse("training.sequence_length", training.sequence_length(),
                  "must be a multiple of training.reproducible_blocks / the rows at once = " +
                      std::to_string(blocks / rows) + " with training.reproducible: topology");
  }
  return {};
}

// Of topology-invariant training, as far as the model does not matter.
Status check_reproducible(const JobSpec& spec, const Refusal& refuse) {
  const proto::TrainingSpec& training = spec.training();
  const proto::ParallelSpec& mesh = spec.parallel();
  if (training.reproducible() != proto::REPRODUCIBLE_TOPOLOGY) {
    proto::TrainingSpec untouched;
    WEFT_RETURN_IF_ERROR(apply_defaults(untouched));
    if (training.reproducible_blocks() == untouched.reproducible_blocks()) return {};
    return refuse("training.reproducible_blocks", training.reproducible_blocks(),
                  "is only for training.reproducible: topology");
  }
  const int64_t blocks = training.reproducible_blocks();
  if ((blocks & (blocks - 1)) != 0) {
    return refuse("training.reproducible_blocks", blocks, "must be a power of two");
  }
  if (training.precision() == proto::PRECISION_FP16) {
    return refuse("training.precision", "fp16",
                  "must be fp32 or bf16 with training.reproducible: topology");
  }
  if (is_automatic(spec)) return {};
  const int64_t ranks = int64_t{mesh.data()} * mesh.sequence() * mesh.tensor();
  if (blocks % ranks != 0) {
    return refuse("parallel", ranks,
                  "must give a number of ranks, data x sequence x tensor, that divides "
                  "training.reproducible_blocks = " +
                      std::to_string(blocks) + " with training.reproducible: topology");
  }
  if (mesh.sequence_attention() == proto::SEQUENCE_ATTENTION_RING ||
      mesh.sequence_attention() == proto::SEQUENCE_ATTENTION_ULYSSES_RING) {
    return refuse("parallel.sequence_attention",
                  enum_name(*proto::SequenceAttention_descriptor()->FindValueByNumber(
                      mesh.sequence_attention())),
                  "must be ulysses or auto with training.reproducible: topology, whose attention "
                  "exchanges heads");
  }
  return check_rows_in_blocks(spec, refuse);
}

Status check_evaluation(const JobSpec& spec, const Refusal& refuse) {
  const proto::TrainingSpec& training = spec.training();
  bool validates = false;
  for (const TaskSpec& task : spec.tasks()) validates |= !task.data().validation().empty();
  if (training.evaluate_every() > 0 && !validates) {
    return refuse("training.evaluate_every", training.evaluate_every(),
                  "needs a task with data.validation to evaluate on");
  }
  if (training.early_stop().patience() > 0 && training.evaluate_every() == 0) {
    return refuse("training.early_stop.patience", training.early_stop().patience(),
                  "needs training.evaluate_every above 0");
  }
  if (spec.checkpoint().keep_best() && training.evaluate_every() == 0) {
    return refuse("checkpoint.keep_best", "true", "needs training.evaluate_every above 0");
  }
  return {};
}

Status check_training(const JobSpec& spec, const Refusal& refuse) {
  const proto::TrainingSpec& training = spec.training();
  for (const TaskSpec& task : spec.tasks()) {
    if (task.type() != proto::TASK_TYPE_CAUSAL_LM || training.sequence_length() > 1) continue;
    return refuse("training.sequence_length", training.sequence_length(),
                  "must be at least 2 for a causal_lm: a row's first token is not predicted");
  }
  const auto& betas = training.optimizer().betas();
  for (int i = 0; i < betas.size(); ++i) {
    if (betas[i] >= 0 && betas[i] < 1) continue;
    return refuse(join_index("training.optimizer.betas", static_cast<size_t>(i)),
                  plain_number(betas[i]), "must be at least 0 and below 1");
  }
  if (training.schedule().warmup_steps() > training.steps()) {
    return refuse("training.schedule.warmup_steps", training.schedule().warmup_steps(),
                  "must be at most training.steps = " + std::to_string(training.steps()));
  }
  return check_evaluation(spec, refuse);
}

}  // namespace

Status finish_job(JobSpec& spec, const LineMap* lines) {
  Refusal refuse(lines);
  WEFT_RETURN_IF_ERROR(check_automatic(spec, refuse));
  const proto::ParallelSpec mesh = spec.parallel();
  const bool recomputes = spec.training().has_activation_checkpointing();
  WEFT_RETURN_IF_ERROR(apply_defaults(spec));
  if (is_automatic(spec)) {
    *spec.mutable_parallel() = mesh;
    if (!recomputes) spec.mutable_training()->clear_activation_checkpointing();
  }
  WEFT_RETURN_IF_ERROR(check_rules(spec, lines));
  if (!spec.training().has_sequence_length() && !sees_images(spec) && !hears(spec)) {
    spec.mutable_training()->set_sequence_length(kSequenceLength);
  }
  WEFT_RETURN_IF_ERROR(check_model(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_adapter(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_tasks(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_targets(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_tokenizer(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_mesh(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_batch(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_training(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_reproducible(spec, refuse));
  return spec.model().has_config() ? finish_model_fit(spec, spec.model().config(), lines)
                                   : Status();
}

}  // namespace weft
