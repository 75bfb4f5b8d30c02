#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <random>
#include <thread>

#include "cluster/comm/single/single_communicator.h"
#include "coordinator/cli/checkpoint_export.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/progress_line.h"
#include "kernels/cpu/environment.h"
#include "proto/json/names.h"
#include "proto/json/writer.h"
#include "worker/data/tokenizers/unicode.h"
#include "worker/serve/generate.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

// Text comes from a language model's head: that of the task asked for, or of any if none is.
Status check_task(const proto::CheckpointManifest& manifest, const std::string& name) {
  const proto::TaskSpec* other = nullptr;
  for (const proto::TaskSpec& task : manifest.tasks()) {
    if (!name.empty() && task.name() != name) continue;
    if (task.type() == proto::TASK_TYPE_CAUSAL_LM) return {};
    if (other == nullptr) other = &task;
  }
  if (other == nullptr) return {};  // the coordinator tells of a name that is no task's
  const std::string type =
      enum_name(*proto::TaskType_descriptor()->FindValueByNumber(other->type()));
  return Status(Code::kInvalidArgument,
                fmt::format("{}: its task {} is a {}, which generates no text", manifest.id(),
                            other->name(), type))
      .with_field("task")
      .with_value(other->name())
      .with_rule("must be of type causal_lm");
}

// A checkpoint never changes, so an export of it is kept and used again.
// `options` then names the checkpoint itself.
Result<std::string> cached_export(const Context& context, GenerateOptions& options) {
  const std::string cache = environment("XDG_CACHE_HOME").empty() ? home_folder() + "/.cache"
                                                                  : environment("XDG_CACHE_HOME");
  WEFT_ASSIGN_OR_RETURN(ApiClient client, ApiClient::connect(context.settings));
  WEFT_ASSIGN_OR_RETURN(options.checkpoint, checkpoint_of(client, options.checkpoint));
  const std::string folder =
      fmt::format("{}/weft/exports/{}-{}", cache, encoded(options.checkpoint),
                  options.task.empty() ? "default" : encoded(options.task));
  proto::CheckpointManifest known;  // whether it is still there, and the token valid
  WEFT_RETURN_IF_ERROR(client.get("checkpoints/" + encoded(options.checkpoint), known));
  WEFT_RETURN_IF_ERROR(check_task(known, options.task));
  std::error_code error;
  if (fs::exists(folder + "/model.safetensors", error)) return folder;
  ProgressLine line(context.json);
  WEFT_RETURN_IF_ERROR([&]() -> Status {
    const auto task = download_export(
        client, options.checkpoint, options.task, folder, [&](int64_t done, int64_t whole) {
          line.show(fmt::format("loading {} of {}", show_bytes(done), show_bytes(whole)));
        });
    return task ? Status() : task.error();
  }());
  return folder;
}

Result<Rank> make_rank() {
  WEFT_ASSIGN_OR_RETURN(Mesh mesh, Mesh::create(comm::single_world(), MeshDegrees{}));
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  return Rank{make_caching_allocator(), std::make_unique<ThreadPool>(static_cast<int>(cores)),
              std::move(mesh), Logger()};
}

Result<Generated> run(const Context& context, GenerateOptions& options) {
  if (options.checkpoint.empty()) return fail(Code::kInvalidArgument, "no checkpoint");
  weft::GenerateOptions how;
  how.max_tokens = options.max_tokens;
  how.greedy = options.temperature == 0;
  if (!how.greedy) how.temperature = options.temperature;
  how.top_k = options.top_k;
  how.seed = options.seed ? static_cast<uint64_t>(*options.seed) : std::random_device()();
  WEFT_RETURN_IF_ERROR(check_options(how));
  // An exported folder on this machine will do as well as a checkpoint's id.
  std::error_code error;
  std::string folder = options.checkpoint;
  if (folder.find('/') != std::string::npos || fs::is_directory(folder, error)) {
    if (!fs::exists(folder + "/config.json", error)) {
      return fail(Status::invalid("CHECKPOINT", folder,
                                  "must be a checkpoint's id, a job's or an exported folder with "
                                  "config.json"));
    }
  } else {
    WEFT_ASSIGN_OR_RETURN(folder, cached_export(context, options));
  }
  cpu::read_environment();
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  Result<LoadedModel> model = load_hf_folder(rank, folder);
  if (!model) return fail(local(model.error()));
  // The model takes any bytes; what is printed is text.
  if (!context.json) print(tokenizers::to_valid_utf8(options.prompt));
  return weft::generate(rank, *model->trunk, *model->tokenizer, options.prompt, how,
                        [&](std::string_view piece) {
                          if (!context.json) print(tokenizers::to_valid_utf8(piece));
                          std::fflush(stdout);
                          return true;
                        });
}

}  // namespace

int generate(const Context& context, const GenerateOptions& given) {
  GenerateOptions options = given;
  Result<Generated> made = fail(Code::kInternal, "");
  try {
    made = run(context, options);
  } catch (const StatusError& error) {
    made = fail(error.status());
  }
  if (!made) return report(context, made.error());
  if (context.json) {
    JsonWriter out(2);
    out.begin_object().key("checkpoint").string(options.checkpoint);
    out.key("prompt").string(options.prompt).key("text").string(made->text);
    out.key("tokens").integer(static_cast<int64_t>(made->ids.size()));
    out.key("dropped_prompt_tokens").integer(made->dropped_tokens).end_object();
    print(out.take() + "\n");
  } else {
    print("\n");
    if (made->dropped_tokens > 0) {
      fmt::print(stderr,
                 "the first {} tokens of the prompt were left out: it is longer than the model's "
                 "positions\n",
                 made->dropped_tokens);
    }
  }
  return kExitOk;
}

}  // namespace weft::cli
