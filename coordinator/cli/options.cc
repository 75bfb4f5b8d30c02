#include "coordinator/cli/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/completion.h"

namespace weft::cli {
namespace {

constexpr const char* kVersion = "0.1.0";

// Options live here until the command has run. `command` is what the chosen subcommand set.
struct Parsed {
  Context context;
  SubmitOptions submit;
  ListOptions list;
  FollowOptions follow;
  ExportOptions exported;
  GenerateOptions generate;
  FineTuneOptions fine_tune;
  UpOptions up;
  JoinOptions join;
  std::string job, checkpoint, shell;
  std::vector<std::string> jobs;
  int priority = 0;
  int64_t seed = 0;
  bool now = false, join_token = false;
  std::function<int()> command;
};

CLI::App* add(CLI::App& app, Parsed& p, const std::string& name, const std::string& help,
              std::function<int()> command) {
  CLI::App* made = app.add_subcommand(name, help);
  made->fallthrough();  // --json and the like may stand behind the command
  made->callback([&p, command = std::move(command)] { p.command = command; });
  return made;
}

void add_submission(CLI::App* app, SubmitOptions& options) {
  app->add_option("-f,--file", options.file, "Job file in YAML; -: standard input")->required();
  app->add_option("--set", options.sets, "KEY=VALUE replaces one key, as in training.steps=100")
      ->allow_extra_args(false)
      ->take_all();
}

void add_job_commands(CLI::App& app, Parsed& p) {
  CLI::App* submit_app =
      add(app, p, "submit", "Submit a job file", [&p] { return submit(p.context, p.submit); });
  add_submission(submit_app, p.submit);
  submit_app->add_flag("--wait", p.submit.wait, "Wait for its end; the exit status is the job's");
  submit_app->add_option("--idempotency-key", p.submit.idempotency_key,
                         "The same key gives the same job");

  CLI::App* validate_app = add(app, p, "validate", "Check a job file without a server",
                               [&p] { return validate(p.context, p.submit); });
  add_submission(validate_app, p.submit);

  CLI::App* list_app =
      add(app, p, "ls", "List jobs, newest first", [&p] { return list_jobs(p.context, p.list); });
  list_app->add_option("--state", p.list.state, "One or several states, separated by commas");
  list_app->add_option("--name", p.list.name, "Exactly this name");
  list_app->add_option("--kind", p.list.kind, "pretrain, fine_tune or multi_task");
  list_app->add_option("--label", p.list.labels, "KEY=VALUE; may be repeated");
  list_app->add_option("--limit", p.list.limit, "Jobs to show")->check(CLI::Range(1, 1000));
  list_app->add_flag("--all", p.list.all, "All of them");

  add(app, p, "show", "A job, its ranks, and why it waits",
      [&p] { return show_job(p.context, p.job); })
      ->add_option("JOB", p.job, "Id of the job")
      ->required();

  const auto action = [&](const char* name, const char* help) {
    add(app, p, name, help, [&p, name] { return act(p.context, name, p.jobs); })
        ->add_option("JOB", p.jobs, "Ids of jobs")
        ->required();
  };
  action("cancel", "Write a last checkpoint and end the job");
  action("pause", "Write a checkpoint and free the slots");
  action("resume", "Queue a paused job again");
  action("checkpoint", "Write a checkpoint and go on");

  CLI::App* remove_app = add(app, p, "rm", "Delete finished jobs with all that they left",
                             [&p] { return remove_jobs(p.context, p.jobs); });
  remove_app->add_option("JOB", p.jobs, "Ids of jobs")->required();

  CLI::App* priority_app = add(app, p, "priority", "Change a job's priority",
                               [&p] { return set_priority(p.context, p.job, p.priority); });
  priority_app->add_option("JOB", p.job, "Id of the job")->required();
  priority_app->add_option("PRIORITY", p.priority, "Higher starts first")
      ->required()
      ->check(CLI::Range(-1000, 1000));
}

void add_follow_commands(CLI::App& app, Parsed& p) {
  add(app, p, "watch", "Follow a job to its end; the exit status is the job's",
      [&p] { return watch(p.context, p.job); })
      ->add_option("JOB", p.job, "Id of the job")
      ->required();

  const auto common = [&](CLI::App* made) {
    made->add_option("JOB", p.follow.job, "Id of the job")->required();
    made->add_flag("-f,--follow", p.follow.follow, "Go on until the job is finished");
    return made;
  };
  CLI::App* logs_app = common(
      add(app, p, "logs", "What a job's ranks wrote", [&p] { return logs(p.context, p.follow); }));
  logs_app->add_option("--rank", p.follow.rank, "Number, all, or launcher; default 0");
  logs_app->add_option("--attempt", p.follow.attempt, "Default: the current one")
      ->check(CLI::Range(0, 1 << 30));
  common(add(app, p, "events", "What happened to a job",
             [&p] { return events(p.context, p.follow); }));
  CLI::App* metrics_app = common(add(app, p, "metrics", "Loss and other figures of its steps",
                                     [&p] { return metrics(p.context, p.follow); }));
  metrics_app->add_option("--task", p.follow.task, "Only this task's");
}

void add_checkpoint_commands(CLI::App& app, Parsed& p) {
  add(app, p, "checkpoints", "List checkpoints", [&p] {
    return checkpoints(p.context, p.job);
  })->add_option("JOB", p.job, "Only this job's");
  add(app, p, "rm-checkpoint", "Delete a checkpoint",
      [&p] { return remove_checkpoint(p.context, p.checkpoint); })
      ->add_option("CHECKPOINT", p.checkpoint, "Its id")
      ->required();

  CLI::App* export_app = add(app, p, "export", "Write a checkpoint as a Hugging Face folder",
                             [&p] { return export_checkpoint(p.context, p.exported); });
  export_app->add_option("CHECKPOINT", p.exported.checkpoint, "Its id")->required();
  export_app->add_option("--to", p.exported.folder, "A new or an empty folder")->required();
  export_app->add_option("--task", p.exported.task, "Whose head; default: the language model");

  CLI::App* generate_app = add(app, p, "generate", "Let a checkpoint's model write on",
                               [&p] { return generate(p.context, p.generate); });
  GenerateOptions& g = p.generate;
  generate_app->add_option("CHECKPOINT", g.checkpoint, "Its id, or an exported folder")->required();
  generate_app->add_option("--prompt", g.prompt, "The text to go on from");
  generate_app->add_option("--max-tokens", g.max_tokens, "Tokens to write")
      ->check(CLI::Range(1, 1000000));
  generate_app->add_option("--temperature", g.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0));
  generate_app->add_option("--top-k", g.top_k, "Only the k likeliest tokens; 0: all")
      ->check(CLI::Range(0, 1 << 30));
  generate_app->add_option("--seed", p.seed, "The same seed gives the same text")
      ->check(CLI::NonNegativeNumber)
      ->each([&p](const std::string&) { p.generate.seed = 0; });
  generate_app->add_option("--task", g.task, "Whose head");
}

void add_fine_tune(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "fine-tune", "Write and submit a job that tunes a model on data",
                       [&p] { return fine_tune(p.context, p.fine_tune); });
  FineTuneOptions& o = p.fine_tune;
  made->add_option("MODEL", o.model, "A checkpoint's id or a Hugging Face folder")->required();
  made->add_option("DATA", o.data, "A text or JSONL file, or a folder of them")->required();
  made->add_option("--validation", o.validation, "Held-out data");
  made->add_option("--name", o.name, "Name of the job");
  made->add_option("--task", o.task, "What it learns")
      ->check(CLI::IsMember({"causal_lm", "sequence_classification"}));
  made->add_option("--labels", o.labels, "Classes of sequence_classification");
  made->add_option("--steps", o.steps, "Optimizer steps")->check(CLI::PositiveNumber);
  made->add_option("--batch-size", o.batch_size, "Sequences a step")->check(CLI::PositiveNumber);
  made->add_option("--sequence-length", o.sequence_length, "Tokens a sequence")
      ->check(CLI::PositiveNumber);
  made->add_option("--learning-rate", o.learning_rate, "Peak")->check(CLI::PositiveNumber);
  made->add_option("--slots", o.slots, "Ranks, tensor parallel")->check(CLI::PositiveNumber);
  made->add_option("--file", o.file, "Where to write the job file; default: NAME.yaml");
  made->add_flag("--dry-run", o.dry_run, "Print the job file only");
  made->add_flag("--wait", o.wait, "Wait for its end");
}

void add_cluster_commands(CLI::App& app, Parsed& p) {
  add(app, p, "nodes", "List the nodes", [&p] { return nodes(p.context); });

  CLI::App* up_app = add(app, p, "up", "Start a coordinator and agents on this machine",
                         [&p] { return up(p.context, p.up); });
  up_app->add_option("--nodes", p.up.nodes, "Agents to start")
      ->check(CLI::Range(1, 64))
      ->each([&p](const std::string&) { p.up.nodes_given = true; });
  up_app->add_option("--slots-per-node", p.up.slots_per_node, "Ranks that a node runs at once")
      ->check(CLI::Range(1, 1024))
      ->each([&p](const std::string&) { p.up.slots_given = true; });
  up_app->add_option("--port", p.up.port, "Of the REST API; default 7070")
      ->check(CLI::Range(1, 65535));
  up_app->add_option("--agent-port", p.up.agent_port, "For agents; default: the next free one")
      ->check(CLI::Range(1, 65535));
  up_app->add_option("--address", p.up.address, "To listen on; default: 127.0.0.1");
  up_app->add_option("--host-name", p.up.host_names, "A further name the API is reached by");

  add(app, p, "down", "Stop what 'up' or 'join' started", [&p] {
    return down(p.context, p.now);
  })->add_flag("--now", p.now, "Without a last checkpoint of the running jobs");

  CLI::App* join_app = add(app, p, "join", "Make this machine a node of a cluster",
                           [&p] { return join(p.context, p.join); });
  join_app->add_option("COORDINATOR", p.join.coordinator, "HOST[:PORT] for agents, default 7071")
      ->required();
  join_app
      ->add_option("--token", p.join.token,
                   "Join token: a file, -: standard input, or the token itself")
      ->required();
  join_app->add_option("--name", p.join.name, "Of this node; default: the machine's");
  join_app->add_option("--slots", p.join.slots, "Ranks it runs at once; default: its cores")
      ->check(CLI::Range(1, 1024));

  add(app, p, "token", "Where the server and its token are", [&p] {
    return token(p.context, p.join_token);
  })->add_flag("--join", p.join_token, "Print the token that nodes join with");
  add(app, p, "doctor", "Check what this machine lacks", [&p] { return doctor(p.context); });
  add(app, p, "version", "Print the version", [&p] {
    print(p.context.json ? fmt::format("{{\"version\": \"{}\"}}\n", kVersion)
                         : fmt::format("weft {}\n", kVersion));
    return kExitOk;
  });
}

std::vector<CommandWords> command_words(const CLI::App& app) {
  std::vector<CommandWords> words;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    CommandWords entry{command->get_name(), command->get_description(), {}};
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) entry.options.push_back("--" + name);
    }
    words.push_back(std::move(entry));
  }
  return words;
}

void add_globals(CLI::App& app, Parsed& p) {
  app.require_subcommand(1);
  app.set_version_flag("--version", fmt::format("weft {}", kVersion));
  app.add_option("--server", p.context.settings.server, "HOST:PORT of the coordinator");
  app.add_option("--token-file", p.context.settings.token_file, "File with the API's token");
  app.add_option("--data", p.context.settings.data, "Data folder of 'weft up'");
  app.add_flag("--json", p.context.json, "Print JSON");
  app.footer(
      "The coordinator is looked for in --server, WEFT_SERVER, the data folder (--data or "
      "WEFT_DATA),\n~/.config/weft/config.yaml (server, token_file), ~/.local/share/weft.\n"
      "Exit status: 0 ok, 1 error, 2 usage, 100 the job failed, 101 not finished, 102 not found,\n"
      "103 cancelled.");
}

}  // namespace

int run(int argc, char** argv) {
  Parsed p;
  p.context.terminal = find_terminal();
  CLI::App app("Weft, a distributed training service", "weft");
  add_globals(app, p);
  add_job_commands(app, p);
  add_follow_commands(app, p);
  add_checkpoint_commands(app, p);
  add_fine_tune(app, p);
  add_cluster_commands(app, p);
  add(app, p, "completion", "Print a completion script for bash, zsh or fish",
      [&p, &app] {
        print(completion_script(p.shell, command_words(app)));
        return kExitOk;
      })
      ->add_option("SHELL", p.shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (p.generate.seed) p.generate.seed = p.seed;
  int exit = kExitError;
  try {
    exit = p.command();
  } catch (const std::exception& error) {
    return report(p.context, Status(Code::kInternal, error.what()));
  }
  if (std::fflush(stdout) != 0 && exit == kExitOk) {
    return report(p.context, Status(Code::kResourceExhausted, "cannot write the output"));
  }
  return exit;
}

}  // namespace weft::cli
