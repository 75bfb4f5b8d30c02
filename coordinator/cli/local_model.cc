#include "coordinator/cli/local_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <vector>

#include "cluster/comm/single/single_communicator.h"
#include "coordinator/cli/checkpoint_export.h"
#include "coordinator/cli/progress_line.h"
#include "coordinator/cli/settings.h"
#include "kernels/cpu/environment.h"
#include "proto/checkpoint.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/names.h"
#include "proto/json/parse.h"
#include "proto/json/value.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSequenceLengthMax = 1024;  // of a folder, where nobody asks for more
constexpr int64_t kRowsAtOnce = 8;
constexpr const char* kSentenceFile = "sentence_bert_config.json";

std::string type_name(proto::TaskType type) {
  return enum_name(*proto::TaskType_descriptor()->FindValueByNumber(type));
}

using TaskTypes = std::vector<proto::TaskType>;

bool is_one_of(const TaskTypes& types, proto::TaskType type) {
  return types.empty() || std::ranges::find(types, type) != types.end();
}

std::string type_names(const TaskTypes& types) {
  std::vector<std::string> names;
  for (const proto::TaskType type : types) names.push_back(type_name(type));
  return one_of(names);
}

// Of a folder's head.
proto::TaskType type_of(const HfFolder& folder) {
  const auto* type = find_enum(*proto::TaskType_descriptor(), task_type(folder));
  return static_cast<proto::TaskType>(type->number());
}

std::string names_of(const std::vector<proto::TaskSpec>& tasks) {
  std::string names;
  for (const proto::TaskSpec& task : tasks) names += (names.empty() ? "" : ", ") + task.name();
  return names;
}

Result<proto::TaskSpec> choose_task(const proto::CheckpointManifest& manifest,
                                    const std::string& name, const TaskTypes& types) {
  const std::vector<proto::TaskSpec> all(manifest.tasks().begin(), manifest.tasks().end());
  std::vector<proto::TaskSpec> named, chosen;
  std::ranges::copy_if(all, std::back_inserter(named), [&](const proto::TaskSpec& task) {
    return name.empty() || task.name() == name;
  });
  if (named.empty() && !name.empty()) {
    return fail(Status::invalid("--task", name,
                                "must be one of this checkpoint's tasks: " + names_of(all)));
  }
  if (named.empty()) {  // a checkpoint without tasks is a language model
    named.emplace_back().set_type(proto::TASK_TYPE_CAUSAL_LM);
  }
  std::ranges::copy_if(named, std::back_inserter(chosen),
                       [&](const proto::TaskSpec& task) { return is_one_of(types, task.type()); });
  if (chosen.empty()) {
    const proto::TaskSpec& other = named.front();
    const char* lack = is_one_of(types, proto::TASK_TYPE_CAUSAL_LM)   ? "generates no text"
                       : is_one_of(types, proto::TASK_TYPE_EMBEDDING) ? "gives no embeddings"
                       : is_one_of(types, proto::TASK_TYPE_QUESTION_ANSWERING) ? "finds no answers"
                       : is_one_of(types, proto::TASK_TYPE_SPEECH_RECOGNITION) ? "hears nothing"
                                                                               : "has no classes";
    return fail(
        Status(Code::kInvalidArgument, fmt::format("{}: its task {}, of type {}, {}", manifest.id(),
                                                   other.name(), type_name(other.type()), lack))
            .with_field("--task")
            .with_value(other.name())
            .with_rule("must be of type " + type_names(types)));
  }
  const bool alike = std::ranges::all_of(chosen, [](const proto::TaskSpec& task) {
    return task.type() == proto::TASK_TYPE_CAUSAL_LM || writes_targets(task);
  });
  if (chosen.size() > 1 && !alike) {
    return fail(Status::invalid(
        "--task", "", fmt::format("must be one of {}'s: {}", manifest.id(), names_of(chosen))));
  }
  return chosen.front();
}

Result<LocalModel> find_folder(const std::string& field, const std::string& path,
                               const std::string& task, const TaskTypes& types) {
  std::error_code error;
  if (path.empty() || !fs::exists(path + "/config.json", error)) {
    return fail(Status::invalid(
        field, path, "must be a checkpoint's id, a job's or an exported folder with config.json"));
  }
  if (!task.empty()) {
    return fail(Status::invalid("--task", task, "is for a checkpoint: a folder has one head"));
  }
  const Result<HfFolder> folder = open_hf_folder(path);
  if (!folder) return fail(local(folder.error()));
  LocalModel model{path, path, {}, ""};
  const proto::TaskType own = type_of(*folder);
  if (!is_one_of(types, own) && types.size() > 1) {
    const bool text = is_one_of(types, proto::TASK_TYPE_CAUSAL_LM);
    return fail(Status::invalid(path + ": architectures", type_name(own),
                                fmt::format("must be of type {}, as no other {}", type_names(types),
                                            text ? "generates text" : "has classes")));
  }
  // Where it is of another type than the only one, loading it will say so, or do without its head.
  model.task.set_type(is_one_of(types, own) ? own : types.front());
  return model;
}

std::string cache_folder(const LocalModel& model) {
  const std::string cache = environment("XDG_CACHE_HOME").empty() ? home_folder() + "/.cache"
                                                                  : environment("XDG_CACHE_HOME");
  return fmt::format("{}/weft/exports/{}-{}", cache, encoded(model.name),
                     model.task.name().empty() ? "default" : encoded(model.task.name()));
}

// An export's error in words of the cache: nobody gave --to.
Status not_kept(const Status& error) {
  if (error.field() != "--to") return error;
  return Status::invalid("XDG_CACHE_HOME", error.value(), error.rule());
}

// A checkpoint may outlive what is known of its job.
Result<std::optional<proto::TrainingSpec>> training_of(const Context& context,
                                                       const LocalModel& model) {
  if (model.job.empty()) return std::nullopt;
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
  proto::Job job;
  const Status got = client.get("jobs/" + encoded(model.job), job);
  if (got.code() == Code::kNotFound) return std::nullopt;
  WEFT_RETURN_IF_ERROR(got);
  return job.spec().training();
}

DType precision_of(const std::string& asked, const std::optional<proto::TrainingSpec>& training) {
  const proto::Precision trained = training ? training->precision() : proto::PRECISION_FP32;
  if (asked == "bf16" || (asked.empty() && trained == proto::PRECISION_BF16)) return DType::kBF16;
  if (asked == "fp16" || (asked.empty() && trained == proto::PRECISION_FP16)) return DType::kF16;
  return DType::kF32;
}

// Tokens of a text that an embedding of the folder sees, as sentence-transformers writes them
// down; 0: it does not say.
Result<int64_t> sentence_length(const std::string& folder) {
  const std::string path = folder + "/" + kSentenceFile;
  std::error_code error;
  if (!fs::exists(path, error)) return 0;
  WEFT_ASSIGN_OR_RETURN(const std::string text, read_text_file(path));
  const Result<JsonValue> parsed = parse_json(text);
  if (!parsed) return fail(parsed.error().with_prefix(path + ": "));
  const JsonValue* length = parsed->find("max_seq_length");
  if (length == nullptr || length->is_null()) return 0;
  if (length->kind == JsonValue::Kind::kInteger && length->integer > 0) return length->integer;
  return fail(Status::invalid("max_seq_length", length->shown(), "must be a positive integer")
                  .with_prefix(path + ": "));
}

// Of a model that hears: an open one becomes the longest.
Result<LoadedModel> check_target_length(Result<LoadedModel> loaded, ModelUse& use) {
  const int64_t most = loaded->folder.config->target_positions;
  if (use.target_length > most) {
    return fail(Status::invalid("--target-length", std::to_string(use.target_length),
                                fmt::format("must be at most the model's {} positions", most)));
  }
  if (use.target_length == 0) use.target_length = most;
  return loaded;
}

}  // namespace

Result<LocalModel> find_local_model(const Context& context, const std::string& field,
                                    const std::string& given, const std::string& task,
                                    const TaskTypes& types) {
  std::error_code error;
  if (fs::is_directory(given, error) || !names_checkpoint(given)) {
    return find_folder(field, given, task, types);
  }
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
  LocalModel model;
  WEFT_ASSIGN_OR_RETURN(model.name, checkpoint_of(client, field, given));
  proto::CheckpointManifest manifest;  // whether it is still there, and the token valid
  WEFT_RETURN_IF_ERROR(client.get("checkpoints/" + encoded(model.name), manifest));
  WEFT_ASSIGN_OR_RETURN(model.task, choose_task(manifest, task, types));
  model.job = manifest.job();
  return model;
}

Status fetch_model(const Context& context, LocalModel& model) {
  if (!model.folder.empty()) return {};
  const std::string folder = cache_folder(model);
  std::error_code error;
  const bool there = fs::exists(folder, error);  // asked first: a whole one may come meanwhile
  const auto kept = [&] { return fs::exists(folder + "/model.safetensors", error); };
  if (!kept()) {
    if (there) fs::remove_all(folder, error);
    WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
    ProgressLine line(context.json);
    const auto task = download_export(
        client, model.name, model.task.name(), /*adapter=*/false, folder,
        [&](int64_t done, int64_t whole) {
          line.show(fmt::format("loading {} of {}", show_bytes(done), show_bytes(whole)));
        });
    if (!task && !kept()) return not_kept(task.error());  // another process may have been faster
  }
  model.folder = folder;
  return {};
}

Result<Rank> make_rank() {
  cpu::read_environment();
  WEFT_ASSIGN_OR_RETURN(Mesh mesh, Mesh::create(comm::single_world(), MeshDegrees{}));
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  return Rank{make_caching_allocator(), std::make_unique<ThreadPool>(static_cast<int>(cores)),
              std::move(mesh), Logger()};
}

Result<ModelUse> choose_use(const Context& context, const LocalModel& model,
                            const ModelOptions& options) {
  WEFT_ASSIGN_OR_RETURN(const auto training, training_of(context, model));
  const auto first = [](const std::string& asked, const std::string& trained, const char* usual) {
    return !asked.empty() ? asked : !trained.empty() ? trained : usual;
  };
  ModelUse use;
  const bool of_pairs = embeds(model.task), answers = finds_answers(model.task);
  const bool writes = writes_targets(model.task);
  use.text_key = first(options.text_key, model.task.data().text(), answers ? "question" : "text");
  use.label_key =
      first(options.label_key, model.task.data().label(), answers ? "answers" : "label");
  const proto::DataSpec& data = model.task.data();
  use.pair_key = first(options.pair_key, writes ? data.target() : data.text_pair(),
                       of_pairs              ? "text_pair"
                       : hears(model.task)   ? "transcription"
                       : writes              ? "target"
                       : answers             ? "context"
                       : chooses(model.task) ? "choices"
                                             : "");
  // A pair's loss depends on what it is told apart from, an answer's on how far rows are padded.
  use.rows_at_once = options.batch_size > 0 ? options.batch_size
                     : of_pairs && training ? training->batch_size() / 2
                     : answers && training  ? training->batch_size()
                                            : kRowsAtOnce;
  use.precision = precision_of(options.precision, training);
  use.sequence_length = options.sequence_length > 0 ? options.sequence_length
                        : training                  ? training->sequence_length()
                                                    : 0;
  if (writes) {
    use.target_length = options.target_length > 0 ? options.target_length
                        : training                ? training->target_length()
                                                  : 0;
  } else if (options.target_length > 0) {
    return fail(Status::invalid(
        "--target-length", std::to_string(options.target_length),
        "is for a task that writes; the model's is of type " + task_type_name(model.task)));
  }
  use.sequence_reason = options.sequence_length > 0 ? "as asked for" : "as its job trained";
  return use;
}

int64_t stride_of(const LocalModel& model, const ModelUse& use) {
  const proto::DataSpec& data = model.task.data();
  const bool fits = data.has_stride() && data.stride() < use.sequence_length;
  return fits ? data.stride() : use.sequence_length / kStrideShare;
}

Result<LoadedModel> load_model(const Context& context, Rank& rank, LocalModel& model,
                               ModelUse& use) {
  WEFT_RETURN_IF_ERROR(fetch_model(context, model));
  Result<LoadedModel> loaded =
      load_hf_folder(rank, model.folder, task_type_name(model.task), use.precision, use.choices);
  if (!loaded) return fail(local(loaded.error()));
  const ModelConfig& config = *loaded->folder.config;
  if (loaded->preprocessor || loaded->audio) {
    const int64_t tokens = loaded->audio ? config.audio.tokens : config.image.tokens();
    if (use.sequence_length > 0 && use.sequence_length != tokens) {
      return fail(Status::invalid("--sequence-length", std::to_string(use.sequence_length),
                                  fmt::format("must be left out, or {}: the model makes so many "
                                              "tokens of {}",
                                              tokens, loaded->audio ? "a recording" : "an image")));
    }
    use.sequence_length = tokens;
    use.sequence_reason = loaded->audio
                              ? fmt::format("{} s of a recording", loaded->audio->seconds())
                              : "patches of an image, and its class";
    return loaded->audio ? check_target_length(std::move(loaded), use) : std::move(loaded);
  }
  const int64_t positions = config.tokens_max();
  if (use.sequence_length > positions) {
    return fail(
        Status::invalid("--sequence-length", std::to_string(use.sequence_length),
                        fmt::format("must be at most the model's {} positions", positions)));
  }
  if (use.sequence_length > 0) return loaded;
  if (embeds(model.task)) {
    WEFT_ASSIGN_OR_RETURN(const int64_t asked, sentence_length(model.folder));
    use.sequence_length = std::min(positions, asked);
    use.sequence_reason = fmt::format("as {} says", kSentenceFile);
  }
  if (use.sequence_length > 0) return loaded;
  use.sequence_length = std::min(positions, kSequenceLengthMax);
  use.sequence_reason = positions > kSequenceLengthMax
                            ? positions == kAnyLength
                                  ? "the model has no longest row"
                                  : fmt::format("the model has {} positions", positions)
                            : "all of the model's positions";
  return loaded;
}

}  // namespace weft::cli
