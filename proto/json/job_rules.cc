#include "proto/json/job_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <span>

#include "google/protobuf/struct.pb.h"
#include "proto/job.pb.h"
#include "proto/json/names.h"
#include "proto/json/rule_text.h"
#include "proto/json/rules.h"
#include "proto/json/value.h"

namespace weft {

using proto::JobSpec;
using proto::TaskSpec;

std::string task_type_name(const TaskSpec& task) {
  return enum_name(*proto::TaskType_descriptor()->FindValueByNumber(task.type()));
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
         task.type() == proto::TASK_TYPE_TOKEN_CLASSIFICATION || chooses(task);
}

bool models_language(const TaskSpec& task) {
  return task.type() == proto::TASK_TYPE_CAUSAL_LM || task.type() == proto::TASK_TYPE_MASKED_LM;
}

bool embeds(const TaskSpec& task) { return task.type() == proto::TASK_TYPE_EMBEDDING; }

namespace {

constexpr int64_t kRanksMax = 65536;
constexpr int64_t kByteTokens = 257;  // 256 bytes and the end of a text

// Makes the errors, each with its line.
class Refusal {
 public:
  explicit Refusal(const LineMap* lines) : lines_(lines) {}
  Status operator()(std::string field, std::string value, std::string rule) const {
    int line = lines_ == nullptr ? 0 : lines_->find(field);
    return Status::invalid(std::move(field), std::move(value), std::move(rule)).with_line(line);
  }
  Status operator()(std::string field, int64_t value, std::string rule) const {
    return (*this)(std::move(field), std::to_string(value), std::move(rule));
  }

 private:
  const LineMap* lines_;
};

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
  if (spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY) {
    return refuse("training.reproducible", "topology",
                  "must be mesh or none with an adapter, whose products are not cut into blocks");
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

Status finish_pair(TaskSpec& task, const std::string& path, const Refusal& refuse) {
  proto::DataSpec& data = *task.mutable_data();
  if (embeds(task) && !data.has_text_pair()) data.set_text_pair("text_pair");
  if (chooses(task) && !data.has_text_pair()) data.set_text_pair("choices");
  if (!data.has_text_pair()) return {};
  const std::string field = path + ".data.text_pair";
  if (!embeds(task) && !chooses(task) && task.type() != proto::TASK_TYPE_SEQUENCE_CLASSIFICATION) {
    return refuse(field, data.text_pair(),
                  "is only for sequence_classification, multiple_choice and embedding");
  }
  if (data.text_pair().empty()) return refuse(field, "", "must not be empty");
  if (data.format() == proto::DATA_FORMAT_TEXT) {
    return refuse(path + ".data.format", "text",
                  "must be jsonl with data.text_pair: plain text has no pairs");
  }
  if (data.text_pair() == data.text()) {
    return refuse(field, data.text_pair(), "must differ from data.text");
  }
  if (!embeds(task) && data.text_pair() == data.label()) {
    return refuse(field, data.text_pair(), "must differ from data.label");
  }
  return {};
}

Status finish_task(TaskSpec& task, const std::string& path, const Refusal& refuse) {
  const std::string type = task_type_name(task);
  if (!task.has_name()) task.set_name(type);
  const bool masks = task.type() == proto::TASK_TYPE_MASKED_LM;
  if (!masks && task.has_mask_rate()) {
    return refuse(path + ".mask_rate", plain_number(task.mask_rate()), "is only for masked_lm");
  }
  if (masks && !task.has_mask_rate()) task.set_mask_rate(kMaskRate);
  if (!classifies(task) && task.has_labels()) {
    return refuse(path + ".labels", task.labels(),
                  "is only for sequence_classification, token_classification and multiple_choice");
  }
  WEFT_RETURN_IF_ERROR(finish_pair(task, path, refuse));
  if (!classifies(task)) return {};
  if (!task.has_labels()) return refuse(path + ".labels", "", "is required for " + type);
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
    if (!names.insert(task.name()).second) {
      return refuse(path + ".name", task.name(),
                    "must be unique in the job; give each task a name of its own");
    }
  }
  return {};
}

Status check_tokenizer(const JobSpec& spec, const Refusal& refuse) {
  if (!spec.has_tokenizer()) {
    if (!spec.model().from().empty()) return {};
    return refuse("tokenizer", "", "is required where the model is made from a configuration");
  }
  const proto::TokenizerSpec& tokenizer = spec.tokenizer();
  switch (tokenizer.type()) {
    case proto::TOKENIZER_TYPE_BYTE:
      if (tokenizer.from().empty()) return {};
      return refuse("tokenizer.from", tokenizer.from(), "is only for type byte_level_bpe");
    case proto::TOKENIZER_TYPE_BYTE_LEVEL_BPE:
      if (!tokenizer.from().empty()) return {};
      return refuse("tokenizer.from", "",
                    "is required for type byte_level_bpe; leave tokenizer out to use the model's");
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
  if (training.reproducible() == proto::REPRODUCIBLE_TOPOLOGY) {
    return refuse("training.reproducible", "topology",
                  "must be mesh or none for an embedding, whose loss is not cut into blocks");
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
  if (spec.parallel().sequence() > training.sequence_length()) {
    return refuse(
        "parallel.sequence", spec.parallel().sequence(),
        "must be at most training.sequence_length = " + std::to_string(training.sequence_length()) +
            ", or some ranks would have no tokens");
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
  const int64_t rows = int64_t{training.micro_batch_size()} * mesh.data();  // at once
  if (training.batch_size() % rows != 0) {
    return refuse("training.batch_size", training.batch_size(),
                  "must be a multiple of the rows at once, training.micro_batch_size x "
                  "parallel.data = " +
                      std::to_string(rows) + ", with training.reproducible: topology");
  }
  if (rows % blocks == 0) return {};
  if (blocks % rows != 0) {
    return refuse("training.batch_size", training.batch_size(),
                  "must give rows at once, now " + std::to_string(rows) +
                      ", that divide training.reproducible_blocks = " + std::to_string(blocks) +
                      " or are a multiple of it with training.reproducible: topology");
  }
  if (training.sequence_length() % (blocks / rows) != 0) {
    return refuse("training.sequence_length", training.sequence_length(),
                  "must be a multiple of training.reproducible_blocks / the rows at once = " +
                      std::to_string(blocks / rows) + " with training.reproducible: topology");
  }
  for (int i = 0; i < spec.tasks_size(); ++i) {
    if (!classifies(spec.tasks(i))) continue;
    return refuse(
        "training.batch_size", training.batch_size(),
        "must give rows at once, now " + std::to_string(rows) +
            ", that are a multiple of training.reproducible_blocks = " + std::to_string(blocks) +
            " for a " + task_type_name(spec.tasks(i)) +
            " with training.reproducible: topology, as its rows are as long as the longest of the "
            "batch");
  }
  return {};
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
  for (const TaskSpec& task : spec.tasks()) {
    const bool invariant = training.reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
    if (!invariant || (task.type() != proto::TASK_TYPE_MASKED_LM && !chooses(task))) continue;
    return refuse("training.reproducible", "topology",
                  "must be mesh or none with a " + task_type_name(task) + ", whose " +
                      (chooses(task) ? "questions" : "predicted tokens") +
                      " are not cut into blocks");
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

// A size of the configuration; `fallback` where the key is not written.
Result<int64_t> config_size(const google::protobuf::Struct& config, const std::string& key,
                            int64_t fallback, const Refusal& refuse) {
  auto at = config.fields().find(key);
  if (at == config.fields().end()) return fallback;
  constexpr double kMost = std::numeric_limits<int32_t>::max();
  const double number = at->second.number_value();
  const int64_t size = number >= 1 && number <= kMost ? static_cast<int64_t>(number) : 0;
  if (size == 0 || static_cast<double>(size) != number) {
    const std::string got =
        at->second.has_number_value() ? fmt::format("{}", number) : at->second.string_value();
    return fail(refuse("model.config." + key, got,
                       fmt::format("must be an integer from 1 to {:.0f}", kMost)));
  }
  return size;
}

// Names of one thing, as the family's reader takes them (worker/models).
using Names = std::span<const char* const>;
constexpr const char* kPositions[] = {"max_position_embeddings"};
constexpr const char* kHeads[] = {"num_attention_heads"};
constexpr const char* kGpt2Positions[] = {"n_positions", "max_position_embeddings", "n_ctx"};
constexpr const char* kGpt2Heads[] = {"n_head", "num_attention_heads"};
constexpr const char* kDistilbertHeads[] = {"n_heads", "num_attention_heads"};

// Keys of a family's configuration and its own defaults.
struct FamilyKeys {
  std::string_view family;
  Names positions;
  int64_t positions_absent;
  Names heads;
  int64_t heads_absent, vocabulary_absent;
  int64_t padding_absent = -1;  // pad_token_id, behind which positions begin; -1: at 0
};
constexpr FamilyKeys kFamilies[] = {
    {"gpt2", kGpt2Positions, 1024, kGpt2Heads, 12, 50257},
    {"llama", kPositions, 2048, kHeads, 32, 32000},
    {"mistral", kPositions, 131072, kHeads, 32, 32000},
    {"qwen2", kPositions, 32768, kHeads, 32, 151936},
    {"qwen3", kPositions, 32768, kHeads, 32, 151936},
    {"bert", kPositions, 512, kHeads, 12, 30522},
    {"roberta", kPositions, 512, kHeads, 12, 50265, /*padding_absent=*/1},
    {"distilbert", kPositions, 512, kDistilbertHeads, 12, 30522},
};

// The first name that the configuration has, else the family's own.
const char* name_in(const google::protobuf::Struct& config, Names names) {
  const auto found =
      std::ranges::find_if(names, [&](const char* name) { return config.fields().contains(name); });
  return found == names.end() ? names.front() : *found;
}

// The family is the job's, or stands in the configuration.
const FamilyKeys& keys_of(const JobSpec& spec, const google::protobuf::Struct& config) {
  const auto type = config.fields().find("model_type");
  const std::string& name =
      type == config.fields().end() ? spec.model().family() : type->second.string_value();
  const auto* found = std::ranges::find(kFamilies, name, &FamilyKeys::family);
  return found == std::end(kFamilies) ? kFamilies[0] : *found;
}

}  // namespace

Status check_model_fit(const JobSpec& spec, const google::protobuf::Struct& config,
                       const LineMap* lines) {
  Refusal refuse(lines);
  const FamilyKeys& keys = keys_of(spec, config);
  const char* const positions_name = name_in(config, keys.positions);
  WEFT_ASSIGN_OR_RETURN(int64_t positions,
                        config_size(config, positions_name, keys.positions_absent, refuse));
  const auto heads = config_size(config, name_in(config, keys.heads), keys.heads_absent, refuse);
  if (!heads) return heads.error();
  WEFT_ASSIGN_OR_RETURN(int64_t vocabulary,
                        config_size(config, "vocab_size", keys.vocabulary_absent, refuse));
  std::string positions_rule = fmt::format("must be at most the model's {}", positions_name);
  if (keys.padding_absent >= 0) {
    const auto padding = config.fields().find("pad_token_id");
    const bool given = padding != config.fields().end() && padding->second.has_number_value();
    const double token =
        given ? padding->second.number_value() : 0;  // of the vocabulary, or refused
    positions -=
        1 + (given ? static_cast<int64_t>(std::clamp<double>(token, 0, 1e9)) : keys.padding_absent);
    positions_rule += " less pad_token_id + 1";
  }
  if (spec.training().sequence_length() > positions) {
    return refuse("training.sequence_length", spec.training().sequence_length(),
                  fmt::format("{} = {}", positions_rule, positions));
  }
  if (spec.parallel().tensor() > vocabulary) {
    return refuse("parallel.tensor", spec.parallel().tensor(),
                  "must be at most the model's vocab_size = " + std::to_string(vocabulary));
  }
  if (spec.tokenizer().type() == proto::TOKENIZER_TYPE_BYTE && vocabulary < kByteTokens) {
    return refuse("model.config.vocab_size", vocabulary,
                  "must be at least 257, the tokens of the byte tokenizer");
  }
  return {};
}

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
  WEFT_RETURN_IF_ERROR(check_model(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_adapter(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_tasks(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_tokenizer(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_mesh(spec, refuse));
  WEFT_RETURN_IF_ERROR(finish_batch(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_training(spec, refuse));
  WEFT_RETURN_IF_ERROR(check_reproducible(spec, refuse));
  if (spec.model().has_config()) {
    WEFT_RETURN_IF_ERROR(check_model_fit(spec, spec.model().config(), lines));
  }
  return {};
}

}  // namespace weft
