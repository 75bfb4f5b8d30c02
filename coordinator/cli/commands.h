// The commands of `weft`, apart from how their options are parsed (options.cc). Each gives the exit
// status (exit_codes.h).
// Thread safety: one thread. Ownership: values.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coordinator/cli/context.h"
#include "coordinator/cli/texts.h"

namespace weft::cli {

struct JobFile;

// ---- jobs (job_commands.cc) ---------------------------------------------------------------------
struct SubmitOptions {
  std::string file;
  std::vector<std::string> sets;
  bool wait = false;
  std::string idempotency_key;  // empty: a new one
};
int submit(const Context& context, const SubmitOptions& options);
// The same with a job file that is read already.
int submit_file(const Context& context, JobFile& file, const SubmitOptions& options);
int validate(const Context& context, const SubmitOptions& options);
int plan(const Context& context, const SubmitOptions& options);  // plan_command.cc

struct ListOptions {
  std::string state, name, kind;
  std::vector<std::string> labels;
  int limit = 100;
  bool all = false;  // every page
  bool ids = false;  // nothing but ids, one a line
};
int list_jobs(const Context& context, const ListOptions& options);
int show_job(const Context& context, const std::string& job);
// "cancel", "pause", "checkpoint"
int act(const Context& context, const std::string& action, const std::vector<std::string>& jobs);
struct ResumeOptions {
  std::vector<std::string> jobs;
  std::string parallel;        // "auto", "data=2,tensor=2"; empty: as before
  int nodes = -1, slots = -1;  // -1: as before
};
int resume(const Context& context, const ResumeOptions& options);
int remove_jobs(const Context& context, const std::vector<std::string>& jobs);
int set_priority(const Context& context, const std::string& job, int priority);

// ---- what a job tells (follow_commands.cc, watch_command.cc) ------------------------------------
int watch(const Context& context, const std::string& job);
struct FollowOptions {
  std::string job;
  bool follow = false;
  int attempt = 0;   // logs; 0: the current one
  std::string rank;  // logs; a number, "all" or "launcher"
  std::string task;  // metrics
};
int logs(const Context& context, const FollowOptions& options);
int events(const Context& context, const FollowOptions& options);
int metrics(const Context& context, const FollowOptions& options);

// ---- what its ranks do (inspect_commands.cc) ----------------------------------------------------
struct StackOptions {
  std::string job;
  bool threads = false;  // the stacks of their threads too
};
int stack(const Context& context, const StackOptions& options);
struct TraceOptions {
  std::string job;
  int steps = 3;
  std::string file;     // empty: JOB.trace.json
  double timeout = 30;  // seconds in which no rank gets anything done
};
int trace(const Context& context, const TraceOptions& options);

// ---- checkpoints (checkpoint_commands.cc, generate_command.cc) ----------------------------------
int checkpoints(const Context& context, const std::string& job);
int remove_checkpoint(const Context& context, const std::string& checkpoint);
struct ExportOptions {
  std::string checkpoint, folder, task;
  bool adapter = false;
};
int export_checkpoint(const Context& context, const ExportOptions& options);
struct GenerateOptions {
  std::string checkpoint, prompt, task;
  std::string message, system;  // message empty: `prompt`
  int max_tokens = 100;
  double temperature = 0.8;
  int top_k = 40;
  std::optional<int64_t> seed;
};
int generate(const Context& context, const GenerateOptions& options);

// ---- what a model finds in data (evaluate_command.cc, classify_command.cc) ----------------------
struct ModelOptions {
  std::string model, task;          // task empty: the only one that fits
  std::string text_key, label_key;  // empty: as the model's job has them, else its task
  std::string pair_key;             // the same; else there is no second text
  std::string precision;            // empty: as its job trained, else fp32
  int sequence_length = 0;          // 0: as its job trained, else by its positions
  int target_length = 0;            // of a task that writes; 0: as its job trained, else the most
  int batch_size = 0;  // rows at once; 0: 8, of an embedding or of questions as its job trained
};
struct EvaluateOptions : ModelOptions {
  std::string data;
};
int evaluate(const Context& context, const EvaluateOptions& options);
struct ClassifyOptions : ModelOptions {
  GivenTexts given;
  std::vector<std::string> images;  // files or folders of such
};
int classify(const Context& context, const ClassifyOptions& options);
struct EmbedOptions : ModelOptions {
  GivenTexts given;
};
int embed(const Context& context, const EmbedOptions& options);  // embed_command.cc
struct AnswerOptions : ModelOptions {
  std::string question, context, file;  // file: "-" for standard input; empty: the other two
  bool allow_none = false;
};
int answer(const Context& context, const AnswerOptions& options);  // answer_command.cc
struct TranscribeOptions : ModelOptions {
  std::vector<std::string> files;
};
int transcribe(const Context& context, const TranscribeOptions& options);  // transcribe_command.cc

// ---- a job file from a model and data (fine_tune_command.cc) ------------------------------------
struct FineTuneOptions {
  std::string model, data, validation, name, file, tokenizer;
  std::string task;                           // empty: by the data
  std::string text_key, label_key, pair_key;  // empty: as the task has them
  int labels = 0;                             // 0: by the data
  int sequence_length = 0;                    // 0: by the model
  int target_length = 0;                      // of a task that writes; 0: the job's default
  int batch_size = 0;                         // 0: 8, or the next multiple of a row's choices
  int steps = 200, slots = 1;
  double learning_rate = 3e-4;
  int lora_rank = 0;      // 0: no adapter
  double lora_alpha = 0;  // 0: the job file's default
  std::vector<std::string> lora_targets;
  bool dora = false;
  bool augment = false;  // of images
  bool dry_run = false, wait = false;
};
int fine_tune(const Context& context, const FineTuneOptions& options);

// ---- the cluster (cluster_commands.cc, up_command.cc, down_command.cc, doctor.cc) ---------------
struct NodesOptions {
  std::string action, name;  // action empty: list them; "forget": the node `name`
};
int nodes(const Context& context, const NodesOptions& options);
// Which nodes have GPUs that their ranks do not use, and why: a line for each reason.
std::string unused_gpus_text(const proto::NodeList& nodes);
int token(const Context& context, bool join);
// Of a node, in bytes. Below, not even the program of a rank fits.
inline constexpr int64_t kLeastNodeMemory = int64_t{256} << 20;
struct UpOptions {
  int nodes = 1, slots_per_node = 0;  // slots 0: one a GPU, or 1 without one
  bool nodes_given = false, slots_given = false;
  int port = 0, agent_port = 0;  // 0: as recorded, else the default
  int64_t memory_bytes = 0;      // that the nodes share; 0: as recorded, else the machine's
  std::string address;           // empty: as recorded, else loopback
  std::vector<std::string> host_names;
};
int up(const Context& context, const UpOptions& options);
int down(const Context& context, bool now);
struct JoinOptions {
  std::string coordinator, token, name;  // token: "-" standard input, else a file or the token
  int slots = 0;                         // 0: as the agent finds
  int64_t memory_bytes = 0;              // 0: the machine's
};
int join(const Context& context, const JoinOptions& options);
int doctor(const Context& context);

// Waits until the job is finished; what `watch` and `submit --wait` do.
int wait_for_job(const Context& context, ApiClient& client, const std::string& job, bool quiet);

}  // namespace weft::cli
