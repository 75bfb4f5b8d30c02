#include "coordinator/cli/command_tree.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string_view>

#include "coordinator/cli/command_tree_parts.h"
#include "coordinator/cli/usage.h"
#include "proto/job.pb.h"
#include "proto/json/names.h"

namespace weft::cli {
namespace {

constexpr const char* kVersion = "0.1.0";

// "--limit N in [1 - 1000] = 100", "--kind KIND {pretrain,...}", "JOB... required".
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_items_expected_max() == 0) return "";
    std::string type = option->get_type_name();
    for (const auto& [from, to] : {std::pair<const char*, const char*>{":INT in", " in"},
                                   {":FLOAT in", " in"},
                                   {":{", " {"}}) {
      if (const size_t at = type.find(from); at != std::string::npos) {
        type.replace(at, std::string_view(from).size(), to);
      }
    }
    while (type.starts_with(' ')) type.erase(0, 1);
    if (option->get_positional() && type == kPath) type.clear();  // its name and help say so
    const bool many = option->get_expected_max() > 1 && option->get_positional();
    std::string out = many ? "..." : "";
    if (!type.empty()) out += " " + type;
    if (!option->get_default_str().empty()) out += " = " + option->get_default_str();
    return out + (option->get_required() ? " (required)" : "");
  }
};

CLI::Option* add_job(CLI::App* app, std::string& job) {
  return app->add_option("JOB", job, "Id of the job")->type_name("")->required()->check(id());
}

CLI::Option* add_checkpoint(CLI::App* app, std::string& checkpoint, const char* help) {
  return app->add_option("CHECKPOINT", checkpoint, help)->type_name("")->required();
}

void add_submission(CLI::App* app, SubmitOptions& options) {
  app->add_option("-f,--file", options.file, "Job file in YAML; -: standard input")
      ->type_name("FILE")
      ->required();
  app->add_option("--set", options.sets, "Replaces one key, as in training.steps=100; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->take_all()
      ->check(key_and_value());
  app->footer(
      "Paths in it start from its folder. Of a folder all files are taken but hidden ones; links "
      "to\n"
      "files are followed, other links refused. The model's configuration and every row of the "
      "data\n"
      "are read and checked first; what has been uploaded already (obj-..., ckpt-...) is checked "
      "by\n"
      "the service, its rows by the ranks when they start.");
}

void add_plan(CLI::App& app, Parsed& p) {
  CLI::App* plan_app =
      add(app, p, "plan", "Show the meshes a job could run on, what they need, and the choice",
          [&p] { return plan(p.context, p.submit); });
  add_submission(plan_app, p.submit);
  plan_app->footer(
      "Memory, bytes and times are predicted for the nodes as they are known; nothing is uploaded "
      "or\n"
      "run. * is what 'parallel: auto' gets; ROWS: training.micro_batch_size; EXPOSED: "
      "communication\n"
      "that no arithmetic hides. Exit status 1 where nothing fits.");
}

void add_resume(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "resume", "Queue a paused or failed job again, on any mesh",
                       [&p] { return resume(p.context, p.resume); });
  made->add_option("JOB", p.resume.jobs, "Ids of jobs")->type_name("")->required()->check(id());
  made->add_option("--parallel", p.resume.parallel,
                   "The mesh from now on: auto, or keys of a job file's parallel as in "
                   "data=2,tensor=2; default: as before")
      ->type_name("MESH")
      ->check(mesh());
  made->add_option("--nodes", p.resume.nodes,
                   "Spread over exactly so many nodes; 0: as few as possible; default: as before")
      ->type_name("N")
      ->check(whole_number_from(0, 65536));
  made->add_option("--slots", p.resume.slots,
                   "Slots for --parallel auto; 0: as many as are worth it, the default")
      ->type_name("N")
      ->check(whole_number_from(0, 65536));
  made->footer(
      "The job goes on from its newest checkpoint, with the same batches. On another mesh its "
      "loss\n"
      "curve goes on to 1e-4, and bit for bit with training.reproducible: topology; 'weft show' "
      "says\n"
      "which. Degrees that are left out are 1. A queued job, as one whose nodes are lost, changes "
      "its\n"
      "mesh too; one that runs has to be paused first.");
}

void add_list(CLI::App& app, Parsed& p) {
  CLI::App* list_app =
      add(app, p, "ls", "List jobs, newest first", [&p] { return list_jobs(p.context, p.list); });
  list_app->add_option("--state", p.list.state, "One or several states, separated by commas")
      ->type_name("STATE:{" + state_choices() + "}")
      ->check(job_states());
  list_app->add_option("--name", p.list.name, "Exactly this name")->type_name("NAME");
  list_app->add_option("--kind", p.list.kind, "Only jobs of this kind")
      ->type_name("KIND")
      ->check(CLI::IsMember({"pretrain", "fine_tune", "multi_task"}));
  list_app->add_option("--label", p.list.labels, "Only jobs with this label; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->take_all()
      ->check(key_and_value());
  list_app->add_option("--limit", p.list.limit, "Jobs to show")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  list_app->add_flag("--all", p.list.all, "All of them");
  list_app->add_flag("--ids", p.list.ids, "Only their ids, one a line");
  list_app->footer(
      "'weft cancel $(weft ls --ids --all --state queued,running --label sweep=7)' ends a sweep.");
}

void add_job_commands(CLI::App& app, Parsed& p) {
  CLI::App* submit_app =
      add(app, p, "submit", "Submit a job file", [&p] { return submit(p.context, p.submit); });
  add_submission(submit_app, p.submit);
  submit_app->add_flag("--wait", p.submit.wait, "Wait for its end; the exit status is the job's");
  submit_app
      ->add_option("--idempotency-key", p.submit.idempotency_key,
                   "The same key gives the same job; default: a new one")
      ->type_name("KEY")
      ->check(idempotency_key());

  CLI::App* validate_app =
      add(app, p, "validate", "Check a job file and what it names here, without a server",
          [&p] { return validate(p.context, p.submit); });
  add_submission(validate_app, p.submit);

  add_plan(app, p);
  add_list(app, p);

  add_job(add(app, p, "show", "A job, its ranks, and why it waits",
              [&p] { return show_job(p.context, p.job); }),
          p.job);

  const auto jobs = [&](CLI::App* made) {
    made->add_option("JOB", p.jobs, "Ids of jobs")->type_name("")->required()->check(id());
  };
  const auto action = [&](const char* name, const char* help) {
    CLI::App* made = add(app, p, name, help, [&p, name] { return act(p.context, name, p.jobs); });
    jobs(made);
    return made;
  };
  const char* waits =
      "A step or an evaluation whose rest would take more than 10 seconds is left between two\n"
      "micro-batches, and done again should the job go on. One micro-batch is waited for.";
  action("cancel", "Write a last checkpoint and end the job")->footer(waits);
  action("pause", "Write a checkpoint and free the slots")->footer(waits);
  add_resume(app, p);
  action("checkpoint", "Write a checkpoint and go on");
  jobs(add(app, p, "rm", "Delete finished jobs with all that they left",
           [&p] { return remove_jobs(p.context, p.jobs); }));

  CLI::App* priority_app = add(app, p, "priority", "Change a job's priority",
                               [&p] { return set_priority(p.context, p.job, p.priority); });
  add_job(priority_app, p.job);
  priority_app->add_option("PRIORITY", p.priority, "Higher starts first")
      ->type_name("")
      ->required()
      ->check(CLI::Range(-1000, 1000));
}

void add_follow_commands(CLI::App& app, Parsed& p) {
  CLI::App* watch_app =
      add(app, p, "watch", "Follow a job to its end; the exit status is the job's",
          [&p] { return watch(p.context, p.job); });
  add_job(watch_app, p.job);
  watch_app->footer(
      "tokens/s is smoothed: the mean over about the last 20 seconds, evaluations included.\n"
      "The time left is that of the steps left at the same speed.");

  const auto common = [&](CLI::App* made) {
    add_job(made, p.follow.job);
    made->add_flag("-f,--follow", p.follow.follow, "Go on until the job is finished");
    return made;
  };
  CLI::App* logs_app = common(
      add(app, p, "logs", "What a job's ranks wrote", [&p] { return logs(p.context, p.follow); }));
  logs_app->add_option("--rank", p.follow.rank, "Number, all, or launcher; default: 0")
      ->type_name("RANK")
      ->check(rank_choice());
  logs_app->add_option("--attempt", p.follow.attempt, "Default: the current one")
      ->type_name("N")
      ->check(whole_number_from(0, 1 << 30));
  common(add(app, p, "events", "What happened to a job",
             [&p] { return events(p.context, p.follow); }));
  CLI::App* metrics_app = common(add(app, p, "metrics", "Loss and other figures of its steps",
                                     [&p] { return metrics(p.context, p.follow); }));
  metrics_app->add_option("--task", p.follow.task, "Only this task's")->type_name("TASK");
}

void add_inspect_commands(CLI::App& app, Parsed& p) {
  CLI::App* stack_app = add(app, p, "stack", "What each rank of a job does now",
                            [&p] { return stack(p.context, p.stack); });
  add_job(stack_app, p.stack.job);
  stack_app->add_flag("--threads", p.stack.threads,
                      "The stack of their compute thread, and their other threads");
  stack_app->footer(
      "A rank that hangs or is stopped is shown as it was last heard of. A job whose ranks get\n"
      "nothing done for hang_seconds of its file is ended and starts again by itself.");

  CLI::App* trace_app = add(app, p, "trace", "Record what a running job's ranks do, for Perfetto",
                            [&p] { return trace(p.context, p.trace); });
  add_job(trace_app, p.trace.job);
  trace_app->add_option("--steps", p.trace.steps, "Steps to record, from the next one on")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  trace_app->add_option("-o,--output", p.trace.file, "Default: JOB.trace.json")->type_name("FILE");
  trace_app
      ->add_option("--timeout", p.trace.timeout,
                   "End it once no rank has got anything done for so long (5 to 86400); what there "
                   "is is written")
      ->type_name("SECONDS")
      ->check(number_from(5, 86400))
      ->capture_default_str();
  trace_app->footer(
      "The file is in the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing\n"
      "open: a process a rank, with its compute thread, its communication thread and the writing\n"
      "of checkpoints; all times are on rank 0's clock. Hidden is the communication during which\n"
      "the compute thread did not wait for it. Ctrl-C ends the recording and writes what there "
      "is.");
}

void add_generate(CLI::App& app, Parsed& p) {
  CLI::App* made =
      add(app, p, "generate", "Let a checkpoint's model write on, or write for a text (t5)",
          [&p] { return generate(p.context, p.generate); });
  GenerateOptions& g = p.generate;
  add_checkpoint(made, g.checkpoint,
                 "Its id, or a job's for its best or else newest, or an exported folder")
      ->type_name(kPath);
  CLI::Option* prompt = made->add_option("--prompt", g.prompt, "The text to go on from, or to read")
                            ->type_name("TEXT");
  CLI::Option* message =
      made->add_option("--message", g.message,
                       "A user's message to answer, which the model's chat template renders")
          ->type_name("TEXT")
          ->excludes(prompt);
  made->add_option("--system", g.system, "What the system says before the message")
      ->type_name("TEXT")
      ->needs(message);
  made->add_option("--max-tokens", g.max_tokens, "Tokens to write")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  made->add_option("--temperature", g.temperature, "From 0 (always the likeliest token) to 100")
      ->type_name("T")
      ->check(number_from(0, 100))
      ->capture_default_str();
  made->add_option("--top-k", g.top_k, "Only the k likeliest tokens; 0: all")
      ->type_name("K")
      ->check(whole_number_from(0, 1 << 30))
      ->capture_default_str();
  made->add_option("--seed", p.seed, "The same seed gives the same text; default: a random one")
      ->type_name("N")
      ->check(whole_number_from(0, INT64_MAX))
      ->each([&p](const std::string&) { p.generate.seed = 0; });
  made->add_option("--task", g.task, "Of a checkpoint: whose head; default: the language model's")
      ->type_name("TASK");
  made->footer(
      "A prompt of any bytes reaches a model with the byte tokenizer as it is; what is written is\n"
      "text, in which a byte that belongs to no UTF-8 character is U+FFFD. Of a prompt that is "
      "longer\n"
      "than the model's positions the last tokens count. A checkpoint's export is kept for the "
      "next\n"
      "time in ~/.cache/weft/exports (XDG_CACHE_HOME), which may be removed at any time.");
}

void add_checkpoint_commands(CLI::App& app, Parsed& p) {
  add(app, p, "checkpoints", "List checkpoints", [&p] { return checkpoints(p.context, p.job); })
      ->add_option("JOB", p.job, "Only this job's")
      ->type_name("")
      ->check(id());
  add_checkpoint(add(app, p, "rm-checkpoint", "Delete a checkpoint",
                     [&p] { return remove_checkpoint(p.context, p.checkpoint); }),
                 p.checkpoint, "Its id")
      ->check(id());

  CLI::App* export_app = add(app, p, "export", "Write a checkpoint as a Hugging Face folder",
                             [&p] { return export_checkpoint(p.context, p.exported); });
  add_checkpoint(export_app, p.exported.checkpoint,
                 "Its id, or a job's for its best or else newest")
      ->check(id());
  export_app->add_option("--to", p.exported.folder, "A new or an empty folder")
      ->type_name("FOLDER")
      ->required();
  export_app->add_option("--task", p.exported.task, "Whose head; default: the language model's")
      ->type_name("TASK");
  export_app->add_flag("--adapter", p.exported.adapter,
                       "The adapter alone, as a PEFT folder; default: merged into the model");
  add_generate(app, p);
  add_model_commands(app, p);
}

// Of JSONL to learn from.
void add_row_keys(CLI::App* made, FineTuneOptions& o) {
  const auto key = [&](const char* name, std::string& into, const char* help) {
    made->add_option(name, into, help)->type_name("KEY");
  };
  key("--text-key", o.text_key,
      "JSONL: the key that holds the text or a chat's messages (a row may have messages instead), "
      "or a question; default: text, of a question_answering question");
  key("--label-key", o.label_key,
      "JSONL: the key that holds the label, or answers; default: label, of a question_answering "
      "answers");
  key("--text-pair-key,--text-pair", o.pair_key,
      "JSONL: the key that holds a second text; a classifier reads both as a pair, without "
      "labels an embedding learns that they belong together, an answer is a part of it, an "
      "encoder-decoder writes it, and of a list of them one is chosen; default: none, of an "
      "embedding text_pair, of a question_answering context, of a seq2seq target, of a "
      "multiple_choice choices, of a speech_recognition transcription");
}

void add_adapter(CLI::App* made, FineTuneOptions& o) {
  CLI::Option* rank =
      made->add_option("--lora-rank", o.lora_rank,
                       "Train low-rank adapters of this rank, all else frozen; default: the whole "
                       "model is trained")
          ->type_name("N")
          ->check(whole_number_from(1, 65536));
  made->add_option("--lora-alpha", o.lora_alpha,
                   "The adapters are scaled by this / rank; default: 8")
      ->type_name("ALPHA")
      ->check(number_from(1e-6, 1000000))
      ->needs(rank);
  made->add_option("--lora-targets", o.lora_targets,
                   "Linear maps to adapt, as q_proj,v_proj, or all-linear; default: the family's")
      ->type_name("NAMES")
      ->delimiter(',')
      ->needs(rank);
  made->add_flag("--dora", o.dora, "Train the adapted maps' magnitudes too (DoRA)")->needs(rank);
}

void add_fine_tune(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "fine-tune", "Write and submit a job that tunes a model on data",
                       [&p] { return fine_tune(p.context, p.fine_tune); });
  FineTuneOptions& o = p.fine_tune;
  const auto count = [&](const char* name, int& into, const char* help) {
    return made->add_option(name, into, help)->type_name("N")->check(whole_number_from(1, 1 << 30));
  };
  const auto text = [&](const char* name, std::string& into, const char* help, const char* type) {
    return made->add_option(name, into, help)->type_name(type);
  };
  text("MODEL", o.model,
       "A checkpoint's id, a job's for its best or else newest, an object's, or a Hugging Face "
       "folder",
       kPath)
      ->required();
  text("DATA", o.data,
       "A text or JSONL file, a folder of such files, a folder of images' folders, one a class, a "
       "folder of recordings with their metadata.jsonl, or an object's id",
       kPath)
      ->required();
  text("--validation", o.validation, "Held-out data: a path or an object's id", kPath);
  text("--name", o.name, "Name of the job; default: from the data's", "NAME");
  text(
      "--task", o.task,
      "What it learns, of what the model's family can; default: choices where the first row has a "
      "label and choices, answers where it has question, context and answers, classes where it has "
      "a label, of words where it has a list of them, or of images where the data is such, an "
      "embedding where --text-pair-key is given, else what goes with the model, of an "
      "encoder-decoder always seq2seq or, where it hears, speech_recognition",
      "TASK")
      ->check(CLI::IsMember(enum_names(*proto::TaskType_descriptor())));
  add_row_keys(made, o);
  count(
      "--labels", o.labels,
      "Classes, or choices in a row; default: the model's if it has all of the data's, else those "
      "of the data");
  text("--tokenizer", o.tokenizer, "byte, a tokenizer.json or an object's id; default: the model's",
       "TOKENIZER");
  count("--steps", o.steps, "Optimizer steps")->capture_default_str();
  count("--batch-size", o.batch_size,
        "Sequences a step, images or recordings; default: 8, of choices the next multiple of a "
        "row's");
  count("--sequence-length", o.sequence_length,
        "Tokens a sequence; default: the model's positions, 128 at most; not of images or "
        "recordings");
  made->add_option("--target-length", o.target_length,
                   "Tokens of a seq2seq's or recording's target, its end included; default: as "
                   "--sequence-length, of a recording as the decoder has positions")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 24));
  made->add_option("--learning-rate", o.learning_rate, "Peak")
      ->type_name("RATE")
      ->check(number_from(1e-12, 100))
      ->capture_default_str();
  add_adapter(made, o);
  made->add_flag("--augment", o.augment,
                 "Images: learn from another random part of each in every epoch, half of the time "
                 "turned over");
  count("--slots", o.slots, "Ranks, tensor parallel")->capture_default_str();
  text("--file", o.file, "Where to write the job file; default: NAME.yaml", "FILE");
  made->add_flag("--dry-run", o.dry_run, "Print the job file only");
  made->add_flag("--wait", o.wait, "Wait for its end; the exit status is the job's");
}

void add_up(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "up", "Start a coordinator and agents on this machine",
                       [&p] { return up(p.context, p.up); });
  const auto count = [&](const char* name, int& into, const char* help, int max) {
    return made->add_option(name, into, help)->type_name("N")->check(CLI::Range(1, max));
  };
  count("--nodes", p.up.nodes, "Agents to start; default: as before, else 1", 64)
      ->each([&p](const std::string&) { p.up.nodes_given = true; });
  made->add_option("--slots-per-node", p.up.slots_per_node,
                   "Ranks that a node runs at once; 0: one for each of its GPUs, or 1 where it "
                   "computes on the CPU; default: as before, else 0")
      ->type_name("N")
      ->check(CLI::Range(0, 1024))
      ->each([&p](const std::string&) { p.up.slots_given = true; });
  made->add_option("--memory-bytes", p.up.memory_bytes,
                   "Memory that the nodes share, 256 MiB each at least; default: as before, else "
                   "the machine's")
      ->type_name("N")
      ->check(whole_number_from(kLeastNodeMemory, INT64_MAX));
  count("--port", p.up.port,
        "Of the REST API; default: as before, else the next free one from 7070 on", 65535);
  count("--agent-port", p.up.agent_port, "For agents; default: as before, else the next free one",
        65535);
  made->add_option("--address", p.up.address, "To listen on; default: as before, else 127.0.0.1")
      ->type_name("IPV4")
      ->check(ipv4_address());
  made->add_option("--host-name", p.up.host_names,
                   "A further name the API is reached by; repeatable")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->take_all();
}

void add_cluster_commands(CLI::App& app, Parsed& p) {
  CLI::App* nodes_app = add(app, p, "nodes", "List the nodes, or forget one that is lost",
                            [&p] { return nodes(p.context, p.nodes); });
  CLI::Option* action = nodes_app->add_option("ACTION", p.nodes.action, "Instead of listing")
                            ->type_name("")
                            ->check(CLI::IsMember({"forget"}));
  action->needs(
      nodes_app->add_option("NODE", p.nodes.name, "Which one")->type_name("")->check(node_name()));
  add_up(app, p);
  CLI::App* down_app = add(app, p, "down", "Stop what 'up' or 'join' started",
                           [&p] { return down(p.context, p.now); });
  down_app->add_flag("--now", p.now,
                     "At once: running jobs repeat what came after their last checkpoint");
  down_app->footer(
      "Running jobs stop in a checkpoint, for which it waits up to 30 s, and go on from it with "
      "the\n"
      "next 'weft up'; jobs that wait or are paused stay so.");

  CLI::App* join_app = add(app, p, "join", "Make this machine a node of a cluster",
                           [&p] { return join(p.context, p.join); });
  join_app->add_option("COORDINATOR", p.join.coordinator, "HOST[:PORT] for agents, default 7071")
      ->type_name("")
      ->required()
      ->check(server_address());
  join_app
      ->add_option("--token", p.join.token,
                   "Join token: a file, -: standard input, or the token itself")
      ->type_name("TOKEN")
      ->required();
  join_app->add_option("--name", p.join.name, "Of this node; default: the machine's")
      ->type_name("NAME")
      ->check(node_name());
  join_app
      ->add_option("--slots", p.join.slots,
                   "Ranks it runs at once; default: one a GPU, or one a core without one")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  join_app
      ->add_option("--memory-bytes", p.join.memory_bytes,
                   "Memory for its ranks, 256 MiB at least; default: the machine's")
      ->type_name("N")
      ->check(whole_number_from(kLeastNodeMemory, INT64_MAX));

  add(app, p, "token", "Where the server and its token are", [&p] {
    return token(p.context, p.join_token);
  })->add_flag("--join", p.join_token, "Print the token that nodes join with");
  add(app, p, "doctor", "Check what this machine lacks", [&p] { return doctor(p.context); });
  add(app, p, "version", "Print the version", [&p] {
    print(p.context.json ? fmt::format("{{\"version\": \"{}\"}}\n", kVersion)
                         : fmt::format("weft {}\n", kVersion));
    return kExitOk;
  });
  add(app, p, "completion", "Print a completion script for bash, zsh or fish",
      [&p, &app] {
        print(completion_script(p.shell, words_of(app)));
        return kExitOk;
      })
      ->add_option("SHELL", p.shell, "Whose script")
      ->type_name("")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
}

void add_globals(CLI::App& app, Parsed& p) {
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag("--version", fmt::format("weft {}", kVersion), "Print the version and exit");
  app.add_option("--server", p.context.settings.server,
                 "Of the coordinator; the port may be left out")
      ->type_name("HOST:PORT")
      ->check(server_address());
  app.add_option("--token-file", p.context.settings.token_file, "File with the API's token")
      ->type_name("FILE");
  app.add_option("--data", p.context.settings.data, "Data folder of 'weft up'")
      ->type_name("FOLDER");
  app.add_flag("--json", p.context.json, "Answers and errors as JSON");
  app.footer(
      "The coordinator is looked for in --server, WEFT_SERVER, the data folder (--data or "
      "WEFT_DATA),\n~/.config/weft/config.yaml (server, token_file), ~/.local/share/weft. Its "
      "token:\n"
      "--token-file, WEFT_TOKEN_FILE, token_file of a config.yaml that names the server, the\n"
      "data folder.\n"
      "Exit status: 0 ok, 1 error, 2 usage, 100 the job failed, 101 not finished, 102 not found\n"
      "(a job, checkpoint or the like; a file that is missing here is 1), 103 cancelled.\n"
      "With --json an error is one line on standard error: {\"error\": {\"code\", \"message\", "
      "\"field\",\n\"value\", \"rule\", \"line\", \"request_id\"}}, as the REST API answers it.");
}

}  // namespace

CLI::App* add(CLI::App& app, Parsed& p, const std::string& name, const std::string& help,
              std::function<int()> command) {
  CLI::App* made = app.add_subcommand(name, help);
  made->fallthrough();  // --json and the like may stand behind the command
  made->callback([&p, command = std::move(command)] { p.command = command; });
  return made;
}

void add_commands(CLI::App& app, Parsed& parsed) {
  app.formatter(std::make_shared<HelpFormatter>());  // before the commands, which inherit it
  add_globals(app, parsed);
  add_job_commands(app, parsed);
  add_follow_commands(app, parsed);
  add_inspect_commands(app, parsed);
  add_checkpoint_commands(app, parsed);
  add_fine_tune(app, parsed);
  add_cluster_commands(app, parsed);
}

}  // namespace weft::cli
