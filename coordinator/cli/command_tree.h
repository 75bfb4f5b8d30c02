// Every command of `weft` with its options, as CLI11 parses them; help, completion and the
// reference page are written from this tree.
//
// Thread safety: one thread. Ownership: the tree refers to `Parsed`, which outlives it.
// Invariants: 1. Every command and option has a help text. 2. A value of a wrong form is refused
// while parsing (exit status 2), before anything is done.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/completion.h"

namespace CLI {
class App;
}

namespace weft::cli {

// The type of a value that is a file or folder here, or an id.
inline constexpr const char* kPath = "PATH";

// What was parsed; `command` is what the chosen command set.
struct Parsed {
  Context context;
  SubmitOptions submit;
  ListOptions list;
  ResumeOptions resume;
  FollowOptions follow;
  StackOptions stack;
  TraceOptions trace;
  ExportOptions exported;
  GenerateOptions generate;
  EvaluateOptions evaluate;
  ClassifyOptions classify;
  EmbedOptions embed;
  AnswerOptions answer;
  TranscribeOptions transcribe;
  FineTuneOptions fine_tune;
  NodesOptions nodes;
  UpOptions up;
  JoinOptions join;
  std::string job, checkpoint, shell;
  std::vector<std::string> jobs;
  int priority = 0;
  int64_t seed = 0;
  bool now = false, join_token = false;
  std::function<int()> command;
};

void add_commands(CLI::App& app, Parsed& parsed);

// The tree in words; the first entry, without a name, has the options of `weft` itself.
std::vector<CommandWords> words_of(const CLI::App& app);

}  // namespace weft::cli
