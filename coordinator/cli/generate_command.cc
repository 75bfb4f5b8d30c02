#include <fmt/format.h>

#include <cstdio>
#include <random>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_model.h"
#include "proto/json/job_rules.h"
#include "proto/json/writer.h"
#include "worker/data/tokenizers/unicode.h"
#include "worker/serve/chat_prompt.h"
#include "worker/serve/generate.h"

namespace weft::cli {
namespace {

Result<Generated> run(const Context& context, GenerateOptions& options) {
  if (options.checkpoint.empty()) return fail(Code::kInvalidArgument, "no checkpoint");
  weft::GenerateOptions how;
  how.max_tokens = options.max_tokens;
  how.greedy = options.temperature == 0;
  if (!how.greedy) how.temperature = options.temperature;
  how.top_k = options.top_k;
  how.seed = options.seed ? static_cast<uint64_t>(*options.seed) : std::random_device()();
  WEFT_RETURN_IF_ERROR(check_options(how));
  WEFT_ASSIGN_OR_RETURN(LocalModel source,
                        find_local_model(context, "CHECKPOINT", options.checkpoint, options.task,
                                         {proto::TASK_TYPE_CAUSAL_LM, proto::TASK_TYPE_SEQ2SEQ}));
  WEFT_RETURN_IF_ERROR(fetch_model(context, source));
  options.checkpoint = source.name;
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  const bool writes = writes_targets(source.task);
  Result<LoadedModel> model = load_hf_folder(rank, source.folder, writes ? "seq2seq" : "causal_lm");
  if (!model) return fail(local(model.error()));
  if (!options.message.empty()) {
    WEFT_ASSIGN_OR_RETURN(ChatPrompt chat,
                          chat_prompt(*model->tokenizer, options.system, options.message));
    options.prompt = std::move(chat.text);
    how.ends = std::move(chat.ends);
    how.whole_prompt = true;
  } else if (!context.json && !writes) {  // the model takes any bytes; what is printed is text
    print(tokenizers::to_valid_utf8(options.prompt));
  }
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
