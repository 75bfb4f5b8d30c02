// Completion scripts: what is in them, and what the shells themselves offer by them. bash runs
// wherever the tests do; zsh and fish, which a machine may lack, answer the same questions.
#include "coordinator/cli/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "coordinator/cli/options.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
using testing::IsSupersetOf;

TEST(CompletionScript, NamesCommandsOptionsAndChoices) {
  const std::vector<CommandWords> words = {{"", "", {{"--data", "", "Folder", true, {}}}, {}},
                                           {"submit",
                                            "It's for jobs",
                                            {{"--file", "-f", "A file", true, {}},
                                             {"--wait", "", "Wait", false, {}},
                                             {"--kind", "", "Which", true, {"one", "two"}}},
                                            {{"WHAT", "", "Positional", true, {"this", "that"}}}}};
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(shell, words);
    for (const char* part : {"submit", "file", "wait", "one two", "this that", "data"}) {
      EXPECT_NE(script.find(part), std::string::npos) << shell << " " << part;
    }
  }
  EXPECT_NE(completion_script("fish", words).find("'It'\\''s for jobs'"), std::string::npos);
  EXPECT_NE(completion_script("zsh", words).find("'submit:It'\\''s for jobs'"), std::string::npos);
}

// Each reads lines of which the end is being typed, and prints a line of what is offered for each.
// readline cuts words at = and : too.
constexpr const char* kBash = R"(
source ./script
while IFS= read -r line; do
  cut=${line//=/ = }
  read -ra COMP_WORDS <<<"${cut//:/ : }"
  [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _weft
  printf '%s\t' "${COMPREPLY[@]}"
  echo
done
)";

// A completion needs zsh's line editor, and that a terminal.
constexpr const char* kZsh = R"(
zmodload zsh/zpty || exit 1
zpty terminal zsh -f -i
zpty -w terminal 'PROMPT=; unset zle_bracketed_paste; autoload -U compinit; compinit -u -D
compadd() {
  local -a hits
  [[ "${@[1,(i)(-|--)]}" == *(-O|-A|-D)* ]] || builtin compadd -A hits "$@"
  builtin compadd "$@"
  local result=$?
  for hit in $hits; do print -r -- "<$hit>"; done
  return $result
}
tell() { print; _main_complete; compstate[insert]=; compstate[list]=; print -r -- "<<END>>"; }
zle -C tell complete-word tell
bindkey "^I" tell
source ./script; print READ''Y'
zpty -r terminal output '*READY*' || exit 1
while IFS= read -r line; do
  zpty -w -n terminal $'\C-u'"$line"$'\t'
  zpty -r terminal output '*<<END>>*' || exit 1
  print -r -- "$output" | sed -n 's/^<\([^<].*\)>\r*$/\1/p' | tr '\n' '\t'
  print
done
zpty -d terminal
)";

constexpr const char* kFish = R"(
source ./script
while read -l line
  printf '%s\t' (complete -C "$line" | string split -f1 \t)
  echo
end
)";

struct Shell {
  const char* name;
  const char* command;
  const char* driver;
};

class Completion : public testing::TestWithParam<Shell> {
 protected:
  void SetUp() override {
    const std::string name = GetParam().name;
    if (std::system(("command -v " + name + " >/dev/null").c_str()) != 0) {  // NOLINT
      ASSERT_NE(name, "bash");
      GTEST_SKIP() << "there is no " << name << " on this machine; bash does the same";
    }
    std::string folder = testing::TempDir() + "weft-completion-XXXXXX";
    folder_ = ::mkdtemp(folder.data());
    write("script", completion_script(name, all_commands()));
    write("driver", GetParam().driver);
    write("job one.yaml", "");
  }
  void TearDown() override {
    if (!folder_.empty()) fs::remove_all(folder_);
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
  }

  using Words = std::set<std::string>;
  // What is offered for each line. Of a path its last part, of --option=value the value, as shells
  // differ in what of the word they repeat.
  std::vector<Words> offered(const std::vector<std::string>& lines) {
    std::string all;
    for (const std::string& line : lines) all += line + "\n";
    write("lines", all);
    const std::string command = "cd " + folder_.string() + " && HOME=$PWD timeout 120 " +
                                GetParam().command + " ./driver <lines";
    std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), ::pclose);
    std::string text;
    for (int c = std::fgetc(pipe.get()); c != EOF; c = std::fgetc(pipe.get())) {
      text += static_cast<char>(c);
    }
    std::vector<Words> offers;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
      Words& words = offers.emplace_back();
      std::istringstream tabs(line);
      for (std::string word; std::getline(tabs, word, '\t');) {
        word = word.substr(word.find_last_of("/=") + 1);
        std::erase(word, '\\');  // of fish, in front of a space
        if (!word.empty()) words.insert(word);
      }
    }
    EXPECT_EQ(offers.size(), lines.size()) << text;
    offers.resize(lines.size());
    return offers;
  }

  fs::path folder_;
};

TEST_P(Completion, OffersEveryCommandAndOption) {
  std::vector<std::string> lines = {"weft "};
  std::vector<std::vector<std::string>> wanted(1);
  for (const CommandWords& command : all_commands()) {
    if (!command.name.empty()) wanted.front().push_back(command.name);
    lines.push_back("weft --data x " + command.name + (command.name.empty() ? "--" : " --"));
    wanted.emplace_back();
    for (const OptionWords& option : command.options) wanted.back().push_back(option.name);
  }
  const std::vector<Words> offers = offered(lines);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_THAT(offers[i], IsSupersetOf(wanted[i])) << lines[i];
  }
}

TEST_P(Completion, OffersWhatMayStandThere) {
  const Words file = {"job one.yaml"}, tasks = {"causal_lm",
                                                "embedding",
                                                "image_classification",
                                                "masked_lm",
                                                "multiple_choice",
                                                "permutation_lm",
                                                "question_answering",
                                                "seq2seq",
                                                "sequence_classification",
                                                "speech_recognition",
                                                "token_classification"};
  const std::vector<std::pair<std::string, Words>> cases = {
      {"weft sub", {"submit"}},
      {"weft --data x sub", {"submit"}},
      {"weft --data=x sub", {"submit"}},
      {"weft --data ls sub", {"submit"}},
      {"weft --server host:70 --data=/x ls --ki", {"--kind"}},
      {"weft completion ", {"bash", "zsh", "fish"}},
      {"weft nodes ", {"forget"}},
      {"weft ls --state pau", {"pausing", "paused"}},
      {"weft fine-tune ls b --st", {"--steps"}},
      {"weft fine-tune a b --task ", tasks},
      {"weft fine-tune a b --task=", tasks},
      {"weft fine-tune a b --task seq", {"seq2seq", "sequence_classification"}},
      {"weft fine-tune a b --task=seq", {"seq2seq", "sequence_classification"}},
      {"weft submit -f ./jo", file},
      {"weft submit --file ./jo", file},
      {"weft submit --file=./jo", file},
      {"weft --data ./jo", file},
      {"weft --server ./jo", {}},
      {"weft --server=host:70 zz", {}},
      {"weft submit --set a=./jo", {}},
      {"weft show ./jo", {}},
  };
  std::vector<std::string> lines;
  for (const auto& [line, words] : cases) lines.push_back(line);
  const std::vector<Words> offers = offered(lines);
  for (size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(offers[i], cases[i].second) << lines[i];
}

TEST_P(Completion, OffersFilesOnlyWhereAPathIsWanted) {
  std::vector<std::pair<std::string, bool>> cases;
  for (const CommandWords& command : all_commands()) {
    for (const OptionWords& option : command.options) {
      if (!option.takes_value || !option.choices.empty()) continue;
      cases.emplace_back(command.name + " " + option.name, option.takes_path);
    }
  }
  EXPECT_GT(cases.size(), 30U);
  for (const char* words : {"--data", "--token-file", "submit --file", "plan -f", "export x --to",
                            "trace x -o", "fine-tune a b --validation", "fine-tune a --tokenizer",
                            "join x --token", "fine-tune", "fine-tune m", "generate", "evaluate",
                            "evaluate m", "classify", "classify m --file", "transcribe m"}) {
    cases.emplace_back(words, true);
  }
  for (const char* words : {"--server", "ls --name", "ls --limit", "submit -f x --set",
                            "generate x --prompt", "fine-tune a b --steps", "classify m --text",
                            "show", "pause x", "logs", "export", "nodes forget", "join"}) {
    cases.emplace_back(words, false);
  }
  std::vector<std::string> lines;
  for (const auto& [words, wanted] : cases) lines.push_back("weft " + words + " ./jo");
  const std::vector<Words> offers = offered(lines);
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(offers[i], cases[i].second ? Words{"job one.yaml"} : Words{}) << lines[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Shells, Completion,
                         testing::Values(Shell{"bash", "bash", kBash}, Shell{"zsh", "zsh -f", kZsh},
                                         Shell{"fish", "fish -N", kFish}),
                         [](const auto& shell) { return std::string(shell.param.name); });

}  // namespace
}  // namespace weft::cli
