#include "coordinator/cli/completion.h"

#include <fmt/format.h>

namespace weft::cli {
namespace {

const char* const kGlobals = "--server --token-file --data --json --help";

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string quoted(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return "'" + out + "'";
}

std::string bash(const std::vector<CommandWords>& commands) {
  std::string names, cases;
  for (const CommandWords& command : commands) {
    names += (names.empty() ? "" : " ") + command.name;
    cases += fmt::format("    {}) words=\"{} {}\" ;;\n", command.name, joined(command.options),
                         kGlobals);
  }
  return fmt::format(
      "# bash completion of weft: source <(weft completion bash)\n"
      "_weft() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} words i command=\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case ${{COMP_WORDS[i]}} in -*) ;; *) command=${{COMP_WORDS[i]}}; break ;; esac\n"
      "  done\n"
      "  case $command in\n{}    *) words=\"{} {}\" ;;\n  esac\n"
      "  if [[ -n $command && $current != -* ]]; then\n"
      "    COMPREPLY=($(compgen -f -- \"$current\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  fi\n"
      "}}\n"
      "complete -o filenames -F _weft weft\n",
      cases, names, kGlobals);
}

std::string fish(const std::vector<CommandWords>& commands) {
  std::string out = "# fish completion of weft: weft completion fish | source\n";
  for (const CommandWords& command : commands) {
    out += fmt::format("complete -c weft -n __fish_use_subcommand -f -a {} -d {}\n", command.name,
                       quoted(command.help));
    for (const std::string& option : command.options) {
      out += fmt::format("complete -c weft -n '__fish_seen_subcommand_from {}' -l {}\n",
                         command.name, option.substr(2));
    }
  }
  for (const char* option : {"server", "token-file", "data", "json", "help"}) {
    out += fmt::format("complete -c weft -l {}\n", option);
  }
  return out;
}

}  // namespace

std::string completion_script(const std::string& shell, const std::vector<CommandWords>& commands) {
  if (shell == "fish") return fish(commands);
  if (shell == "zsh") {
    return "# zsh completion of weft: source <(weft completion zsh)\n"
           "autoload -U +X compinit && compinit -u\n"
           "autoload -U +X bashcompinit && bashcompinit\n" +
           bash(commands);
  }
  return bash(commands);
}

}  // namespace weft::cli
