#include "coordinator/cli/completion.h"

#include <fmt/format.h>

#include <algorithm>

namespace weft::cli {
namespace {

using Commands = std::vector<CommandWords>;

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : between) + word;
  return out;
}

std::string quoted(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
  return "'" + out + "'";
}

std::vector<std::string> names_of(const CommandWords& command) {
  std::vector<std::string> names;
  for (const OptionWords& option : command.options) names.push_back(option.name);
  return names;
}

// The options in front of a command whose value is no command: "--server|--data".
std::string global_values(const Commands& commands, const char* between) {
  std::vector<std::string> names;
  for (const OptionWords& option : commands.front().options) {
    if (option.takes_value) names.push_back(option.name);
  }
  return joined(names, between);
}

// Whether a word of it that is no option may be the name of a file.
bool takes_paths(const CommandWords& command) {
  return std::ranges::any_of(command.positionals, &OptionWords::takes_path);
}

const char* files_of(const CommandWords& command) { return takes_paths(command) ? " files=1" : ""; }

// The shell's `case` branches of "COMMAND PREVIOUS" for values: the choices, files or nothing.
// `guard`: of a positional, behind which an option may be typed as well.
std::string value_cases(const Commands& commands, const char* choose, const char* files,
                        const char* guard) {
  std::string cases;
  const auto add = [&](const std::string& pattern, const char* before, const OptionWords& option) {
    const std::string free = option.takes_path ? files : "return";
    cases += fmt::format("    {}) {}{} ;;\n", pattern, before,
                         option.choices.empty()
                             ? free
                             : fmt::format(fmt::runtime(choose), joined(option.choices, " ")));
  };
  for (const CommandWords& command : commands) {
    for (const OptionWords& option : command.options) {
      if (!option.takes_value) continue;
      const std::string start = command.name.empty() ? "*" : quoted(command.name);
      std::string pattern = start + "' '" + option.name;
      if (!option.short_name.empty()) pattern += "|" + start + "' '" + option.short_name;
      add(pattern, "", option);
    }
    for (const OptionWords& positional : command.positionals) {
      if (!positional.choices.empty()) {
        add(quoted(command.name) + "' '" + quoted(command.name), guard, positional);
      }
    }
  }
  return cases;
}

std::string bash(const Commands& commands) {
  std::string names, cases;
  const std::string globals = joined(names_of(commands.front()), " ");
  for (const CommandWords& command : commands) {
    if (command.name.empty()) continue;
    names += (names.empty() ? "" : " ") + command.name;
    cases += fmt::format("    {}) words=\"{} {}\"{} ;;\n", command.name,
                         joined(names_of(command), " "), globals, files_of(command));
  }
  return fmt::format(
      "# bash completion of weft: source <(weft completion bash)\n"
      "_weft() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}\n"
      "  local words i command= files=\n"
      "  # bash has cut --data=x and host:1 into three words each\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case ${{COMP_WORDS[i]}} in\n"
      "      {}) [[ ${{COMP_WORDS[i+1]}} == = ]] || ((i++)) ;;\n"
      "      =|:) ((i++)) ;;\n"
      "      -*) ;;\n"
      "      *) command=${{COMP_WORDS[i]}}; break ;;\n"
      "    esac\n"
      "  done\n"
      "  if [[ $current == = ]]; then current=\n"
      "  elif [[ $before == = ]]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi\n"
      "  COMPREPLY=()\n"
      "  case \"$command $before\" in\n{}  esac\n"
      "  case $command in\n{}    *) words=\"{} {}\" ;;\n  esac\n"
      "  if [[ -n $command && $current != -* ]]; then\n"
      "    [[ -z $files ]] || mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
      "  else\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  fi\n"
      "}}\n"
      "complete -o filenames -F _weft weft\n",
      global_values(commands, "|"),
      value_cases(commands, "{{ COMPREPLY=($(compgen -W '{}' -- \"$current\")); return; }}",
                  "mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return",
                  "[[ $current == -* ]] || "),
      cases, names, globals);
}

// "name:help" words for zsh's _describe.
std::string described(const std::string& name, const std::string& help) {
  std::string escaped;
  for (const char c : name) escaped += c == ':' ? "\\:" : std::string(1, c);
  return quoted(escaped + ":" + help);
}

std::string zsh(const Commands& commands) {
  std::string names, cases, globals;
  for (const OptionWords& option : commands.front().options) {
    globals += " " + described(option.name, option.help);
  }
  for (const CommandWords& command : commands) {
    if (command.name.empty()) continue;
    names += " " + described(command.name, command.help);
    std::string options;
    for (const OptionWords& option : command.options) {
      options += " " + described(option.name, option.help);
    }
    cases += fmt::format("    {}) options+=({}){} ;;\n", command.name, options, files_of(command));
  }
  return fmt::format(
      "#compdef weft\n"
      "# zsh completion of weft: source <(weft completion zsh)\n"
      "_weft() {{\n"
      "  local command files i before=${{words[CURRENT-1]}}\n"
      "  local -a commands=({})\n"
      "  local -a options=({})\n"
      "  for ((i = 2; i < CURRENT; i++)); do\n"
      "    case ${{words[i]}} in\n"
      "      {}) ((i++)) ;;\n"
      "      -*) ;;\n"
      "      *) command=${{words[i]}}; break ;;\n"
      "    esac\n"
      "  done\n"
      "  if [[ $PREFIX == --*=* ]]; then before=${{PREFIX%%=*}}; compset -P 1 '*='; fi\n"
      "  case \"$command $before\" in\n{}  esac\n"
      "  case $command in\n{}  esac\n"
      "  if [[ $PREFIX == -* ]]; then\n"
      "    _describe -o option options\n"
      "  elif [[ -z $command ]]; then\n"
      "    _describe command commands\n"
      "  else\n"
      "    [[ -z $files ]] || _files\n"
      "  fi\n"
      "}}\n"
      "(( $+functions[compdef] )) || {{ autoload -U compinit && compinit -u }}\n"
      "compdef _weft weft\n",
      names, globals, global_values(commands, "|"),
      value_cases(commands, "{{ compadd -- {}; return; }}", "_files; return",
                  "[[ $PREFIX == -* ]] || "),
      cases);
}

std::string fish_option(const std::string& when, const OptionWords& option) {
  std::string line = fmt::format("complete -c weft {} -l {}", when, option.name.substr(2));
  if (!option.short_name.empty()) line += " -s " + option.short_name.substr(1);
  if (!option.choices.empty()) {
    line += " -x -a " + quoted(joined(option.choices, " "));
  } else if (option.takes_value) {
    line += option.takes_path ? " -r -F" : " -x";
  }
  return line + " -d " + quoted(option.help) + "\n";
}

std::string fish(const Commands& commands) {
  // fish's own __fish_seen_subcommand_from takes every word for a command, also an option's value.
  std::string out = fmt::format(
      "# fish completion of weft: weft completion fish | source\n"
      "function __weft_command\n"
      "  set -l is_value 0\n"
      "  for word in (commandline -opc)[2..]\n"
      "    if test $is_value = 1; set is_value 0; continue; end\n"
      "    switch $word\n"
      "      case {}; set is_value 1\n"
      "      case '-*'\n"
      "      case '*'; echo $word; return 0\n"
      "    end\n"
      "  end\n"
      "  return 1\n"
      "end\n",
      global_values(commands, " "));
  for (const CommandWords& command : commands) {
    if (command.name.empty()) {
      for (const OptionWords& option : command.options) out += fish_option("", option);
      continue;
    }
    out += fmt::format("complete -c weft -n 'not __weft_command >/dev/null' -f -a {} -d {}\n",
                       command.name, quoted(command.help));
    const std::string when = fmt::format("-n 'contains -- {} (__weft_command)'", command.name);
    for (const OptionWords& option : command.options) out += fish_option(when, option);
    if (!takes_paths(command)) out += fmt::format("complete -c weft {} -f\n", when);
    for (const OptionWords& positional : command.positionals) {
      if (positional.choices.empty()) continue;
      out += fmt::format("complete -c weft {} -f -a {} -d {}\n", when,
                         quoted(joined(positional.choices, " ")), quoted(positional.help));
    }
  }
  return out;
}

}  // namespace

std::string completion_script(const std::string& shell, const Commands& all) {
  Commands commands = all;  // what stands in front of every command, as --help, is named once
  for (size_t i = 1; i < commands.size(); ++i) {
    std::erase_if(commands[i].options, [&](const OptionWords& option) {
      const std::vector<std::string> globals = names_of(all.front());
      return std::find(globals.begin(), globals.end(), option.name) != globals.end();
    });
  }
  if (shell == "fish") return fish(commands);
  return shell == "zsh" ? zsh(commands) : bash(commands);
}

}  // namespace weft::cli
