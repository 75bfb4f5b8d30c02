// parse_orted: words by the shell's rules for double quotes only, then a table of what may stand
// there.
#include <algorithm>
#include <array>
#include <optional>

#include "cluster/shepherd/open_mpi.h"

namespace weft::open_mpi {
namespace {

constexpr size_t kCommandBytesMax = 64 << 10;
constexpr std::string_view kDigits = "0123456789";
// What mpirun puts around orted where the user's login shell is sh, ksh or, to it, something like
// them (fish): there the shell would read a profile (setup_shell in its plm_rsh_module.c).
constexpr std::string_view kBeforeOrted = "( test ! -r ./.profile || . ./.profile; ";
constexpr std::string_view kAfterOrted = " )";

enum class Value { kFixed, kNumber, kWords, kNetworks, kRanges, kNodes, kUri, kOurs };

struct Parameter {
  std::string_view name;
  Value value;
  std::string_view fixed = {};
};

// kOurs: each node has its own; what mpirun's node has is dropped.
constexpr std::array<Parameter, 24> kParameters{{
    {"ess", Value::kFixed, "env"},
    {"ess_base_jobid", Value::kNumber},
    {"ess_base_vpid", Value::kNumber},
    {"ess_base_num_procs", Value::kNumber},
    {"orte_node_regex", Value::kNodes},
    {"orte_hnp_uri", Value::kUri},
    {"plm", Value::kFixed, "rsh"},
    {"plm_rsh_agent", Value::kOurs},
    {"plm_rsh_no_tree_spawn", Value::kFixed, "1"},
    {"plm_rsh_disable_qrsh", Value::kFixed, "1"},
    {"plm_rsh_disable_llspawn", Value::kFixed, "1"},
    {"if_base_do_not_resolve", Value::kFixed, "1"},
    {"pml", Value::kWords},
    {"btl", Value::kWords},
    {"btl_tcp_if_include", Value::kNetworks},
    {"oob_tcp_if_include", Value::kNetworks},
    {"btl_tcp_port_min_v4", Value::kNumber},
    {"btl_tcp_port_range_v4", Value::kNumber},
    {"oob_tcp_dynamic_ipv4_ports", Value::kRanges},
    {"mpi_yield_when_idle", Value::kFixed, "1"},
    {"orte_tmpdir_base", Value::kOurs},
    {"hwloc_base_binding_policy", Value::kFixed, "none"},
    {"pmix", Value::kWords},
    {"rmaps_base_mapping_policy", Value::kWords},
}};

// One word, quotes removed. Outside of quotes nothing that a shell would act on is allowed; inside,
// nothing that it would expand.
std::optional<std::string> next_word(std::string_view& rest, Status& error) {
  const size_t start = rest.find_first_not_of(' ');
  if (start == std::string_view::npos) return std::nullopt;
  rest.remove_prefix(start);
  std::string word;
  bool quoted = false;
  size_t at = 0;
  for (; at < rest.size(); ++at) {
    const char letter = rest[at];
    if (letter == '"') {
      quoted = !quoted;
    } else if (letter == ' ' && !quoted) {
      break;
    } else if (letter < 0x20 || letter > 0x7e || letter == '$' || letter == '`' || letter == '\\' ||
               letter == '\'' || (!quoted && std::string_view(";&|<>()*?!#~{}[]").find(letter) !=
                                                 std::string_view::npos)) {
      error = Status::invalid("orted", std::string(rest.substr(0, std::min(at + 1, size_t{80}))),
                              "must hold nothing that a shell would act on");
      return std::nullopt;
    } else {
      word.push_back(letter);
    }
  }
  if (quoted) {
    error = Status::invalid("orted", std::string(rest.substr(0, 80)), "must close its quote");
    return std::nullopt;
  }
  rest.remove_prefix(at);
  return word;
}

std::string_view without_profile(std::string_view command) {
  if (!command.starts_with(kBeforeOrted) || !command.ends_with(kAfterOrted)) return command;
  command.remove_prefix(kBeforeOrted.size());
  command.remove_suffix(kAfterOrted.size());
  return command;
}

bool consists_of(std::string_view text, std::string_view allowed) {
  return !text.empty() && text.size() <= 4096 &&
         text.find_first_not_of(allowed) == std::string_view::npos;
}

bool is_valid(const Parameter& parameter, std::string_view value) {
  switch (parameter.value) {
    case Value::kFixed: return value == parameter.fixed;
    case Value::kNumber: return consists_of(value, kDigits) && value.size() <= 10;
    case Value::kWords: return consists_of(value, kWordLetters);
    case Value::kNetworks: return consists_of(value, "0123456789./,");
    case Value::kRanges: return consists_of(value, "0123456789,-");
    case Value::kNodes: return consists_of(value, std::string(kWordLetters) + ".[]:@()");
    case Value::kUri: return consists_of(value, std::string(kWordLetters) + ".;:/[]");
    case Value::kOurs: return true;
  }
  return false;
}

Status refuse(const std::string& word, const std::string& rule) {
  return Status::invalid("orted", word.substr(0, 80), rule);
}

Result<std::vector<std::string>> words_of(std::string_view command) {
  if (command.size() > kCommandBytesMax) return fail(refuse("...", "must be shorter"));
  std::vector<std::string> words;
  Status error;
  while (auto word = next_word(command, error)) words.push_back(std::move(*word));
  if (!error.ok()) return fail(std::move(error));
  return words;
}

}  // namespace

Result<std::vector<std::string>> parse_orted(std::string_view command) {
  WEFT_ASSIGN_OR_RETURN(const auto words, words_of(without_profile(command)));
  if (words.empty() || words[0] != "orted") {
    return fail(refuse(words.empty() ? "" : words[0], "the program must be orted"));
  }
  std::vector<std::string> arguments;
  std::vector<std::string_view> seen;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--daemonize") continue;  // it stays the shepherd's child
    if (words[i] != "-mca" && words[i] != "--mca") {
      return fail(refuse(words[i], "is not an option that is known here"));
    }
    if (i + 2 >= words.size()) return fail(refuse(words[i], "must have a name and a value"));
    const std::string& name = words[i + 1];
    const std::string& value = words[i + 2];
    i += 2;
    const auto known = std::find_if(kParameters.begin(), kParameters.end(),
                                    [&](const auto& each) { return each.name == name; });
    if (known == kParameters.end()) {
      return fail(refuse(name, "is not a parameter that is known here"));
    }
    if (!is_valid(*known, value)) return fail(refuse(name + " " + value, "is not a valid value"));
    seen.push_back(known->name);
    if (known->value != Value::kOurs) {
      arguments.insert(arguments.end(), {"-mca", name, value});
    }
  }
  for (const std::string_view needed : {"ess_base_jobid", "ess_base_vpid", "orte_hnp_uri"}) {
    if (std::find(seen.begin(), seen.end(), needed) == seen.end()) {
      return fail(refuse(std::string(needed), "must be given"));
    }
  }
  return arguments;
}

}  // namespace weft::open_mpi
