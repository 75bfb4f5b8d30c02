// Errors: of usage, of input, of the service; plain and with --json.

#include "coordinator/cli/usage.h"
#include "proto/api.pb.h"
#include "proto/json/message_json.h"
#include "tests/coordinator/cli/served_cli.h"

namespace weft::cli {
namespace {

// The one error that standard error holds.
proto::ApiError error_in(const std::string& text) {
  proto::ErrorBody body;
  EXPECT_TRUE(text.ends_with("}\n")) << text;
  EXPECT_EQ(text.find('\n'), text.size() - 1) << text;
  const Status status = read_json(text, body, {.allow_output_only = true});
  EXPECT_TRUE(status.ok()) << status.to_string() << "\n" << text;
  return body.error();
}

TEST_F(ServedCli, EveryCommandTellsUsageErrorsAsJson) {
  for (const CommandWords& command : all_commands()) {
    std::vector<std::string> line = {"--no-such-option", "--json"};
    if (!command.name.empty()) line.insert(line.begin(), command.name);
    const Outcome wrong = weft(line);
    EXPECT_EQ(wrong.exit, kExitUsage) << command.name;
    EXPECT_EQ(wrong.out, "") << command.name;
    const proto::ApiError error = error_in(wrong.err);
    EXPECT_EQ(error.code(), "invalid_argument") << command.name;
    EXPECT_NE(error.message(), "") << command.name;
    EXPECT_THAT(error.rule(), HasSubstr(command.name + (command.name.empty() ? "" : " --help")));
    for (const OptionWords& positional : command.positionals) {
      // Theirs may be left out.
      if (command.name == "checkpoints" || command.name == "nodes") continue;
      const Outcome missing = weft({command.name, "--json"});
      EXPECT_EQ(missing.exit, kExitUsage) << command.name << " " << positional.name;
      error_in(missing.err);
    }
  }
}

TEST_F(ServedCli, UsageErrorsNameTheOptionAndWhatThereIs) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"ls", "--limit", "x"}, "--limit"},
      {{"ls", "--limit", "0"}, "--limit"},
      {{"ls", "--state", "queud"}, "--state"},
      {{"ls", "--state", "queued,"}, "--state"},
      {{"ls", "--label", "x"}, "--label"},
      {{"ls", "--server", "a:b"}, "--server"},
      {{"submit", "-f", "job.yaml", "--set", "x"}, "--set"},
      {{"submit"}, "--file"},
      {{"logs", "job-1", "--rank", "-2"}, "--rank"},
      {{"up", "--nodes", "0"}, "--nodes"},
      {{"up", "--address", "localhost"}, "--address"},
      {{"join", "a:b:c:", "--token", "-"}, "COORDINATOR"},
      {{"priority", "job-1", "2000"}, "PRIORITY"},
      {{"completion", "tcsh"}, "SHELL"},
      {{"fine-tune", "a", "b", "--task", "x"}, "--task"},
      {{"show", ""}, "JOB"},
      {{"cancel", "job-1", "a/b"}, "JOB"},
      {{"nonsense"}, "COMMAND"},
      {{"generate", "ckpt-1", "--temperature", "nan"}, "--temperature"},
      {{"generate", "ckpt-1", "--temperature", "1e9"}, "--temperature"},
      {{"generate", "ckpt-1", "--temperature", ""}, "--temperature"},
      {{"generate", "ckpt-1", "--seed", "99999999999999999999"}, "--seed"},
      {{"generate", "ckpt-1", "--seed", "1.5"}, "--seed"},
      {{"submit", "-f", "job.yaml", "--idempotency-key", ""}, "--idempotency-key"},
      {{"join", "localhost", "--token", "-", "--name", "a b"}, "--name"},
      {{"checkpoints", ""}, "JOB"},
      {{"generate", "ckpt-1", "--top-k", "-1"}, "--top-k"},
      {{"fine-tune", "a", "b", "--learning-rate", "nan"}, "--learning-rate"},
      {{"fine-tune", "a", "b", "--learning-rate", "0"}, "--learning-rate"},
      {{"evaluate", "a"}, "DATA"},
      {{"evaluate", "a", "b", "--batch-size", "0"}, "--batch-size"},
      {{"classify", "a", "--text", "b", "--precision", "fp8"}, "--precision"},
  };
  for (const auto& [line, field] : cases) {
    std::vector<std::string> json = line;
    json.push_back("--json");
    const Outcome wrong = weft(json);
    EXPECT_EQ(wrong.exit, kExitUsage) << field;
    EXPECT_EQ(error_in(wrong.err).field(), field) << wrong.err;
    const Outcome plain = weft(line);
    EXPECT_EQ(plain.exit, kExitUsage);
    EXPECT_TRUE(plain.err.starts_with("weft: ")) << plain.err;
    EXPECT_THAT(plain.err, testing::AnyOf(HasSubstr("--help"), HasSubstr("did you mean")));
  }
  EXPECT_THAT(weft({"sumbit"}).err, HasSubstr("did you mean 'weft submit'?"));
  EXPECT_THAT(weft({"--data", "show", "chekpoints"}).err, HasSubstr("'weft checkpoints'"));
  EXPECT_THAT(weft({}).err, HasSubstr("Usage: weft"));
  EXPECT_EQ(weft({}).exit, kExitUsage);
}

TEST_F(ServedCli, WhatIsMissingHereIsAnErrorOfInput) {
  const std::string job = submit();
  add_checkpoint(job, "ckpt-1");
  const std::string none = folder_ + "/none";
  write("far.yaml",
        "name: a\nkind: fine_tune\nmodel: {from: ./none}\n"
        "tasks: [{type: causal_lm, data: {train: text.txt}}]\ntraining: {steps: 1}\n");
  write("no_data.yaml",
        "name: a\nkind: fine_tune\nmodel: {from: ckpt-1}\n"
        "tasks: [{type: causal_lm, data: {train: none.txt}}]\ntraining: {steps: 1}\n");
  const std::vector<std::vector<std::string>> cases = {
      {"submit", "-f", none},
      {"validate", "-f", none},
      {"validate", "-f", folder_ + "/far.yaml"},
      {"submit", "-f", folder_ + "/no_data.yaml"},
      {"ls", "--token-file", none},
      {"ls", "--data", none, "--token-file", none},
      {"generate", none, "--prompt", "x"},
      {"generate", folder_, "--prompt", "x"},
      {"fine-tune", none, folder_ + "/text.txt"},
      {"evaluate", none, folder_ + "/text.txt"},
      {"evaluate", folder_, folder_ + "/text.txt"},
      {"evaluate", "ckpt-1", none},
      {"classify", none, "--text", "x"},
      {"fine-tune", "ckpt-1", none},
      {"token", "--join", "--data", none},
  };
  for (std::vector<std::string> line : cases) {
    EXPECT_EQ(weft(line).exit, kExitError) << line[0] << " " << line[1];
    line.push_back("--json");
    const Outcome wrong = weft(line);
    EXPECT_EQ(wrong.exit, kExitError) << line[0];
    EXPECT_NE(error_in(wrong.err).code(), "not_found") << wrong.err;
    EXPECT_EQ(error_in(wrong.err).request_id(), "") << wrong.err;
    EXPECT_EQ(wrong.out, "");
  }
  const std::vector<std::vector<std::string>> unknown = {
      {"show", "job-none"},
      {"watch", "job-none"},
      {"stack", "job-none"},
      {"trace", "job-none", "-o", folder_ + "/trace.json"},
      {"logs", "job-none"},
      {"events", "job-none"},
      {"metrics", "job-none"},
      {"cancel", "job-none"},
      {"rm", "job-none"},
      {"priority", "job-none", "1"},
      {"checkpoints", "job-none"},
      {"export", "ckpt-none", "--to", folder_ + "/to"},
      {"rm-checkpoint", "ckpt-none"},
      {"generate", "ckpt-none", "--prompt", "x"},
      {"evaluate", "ckpt-none", folder_ + "/text.txt"},
      {"evaluate", "job-none", folder_ + "/text.txt"},
      {"classify", "ckpt-none", "--text", "x"},
      {"fine-tune", "ckpt-none", folder_ + "/text.txt"},
  };
  for (std::vector<std::string> line : unknown) {
    EXPECT_EQ(weft(line).exit, kExitNotFound) << line[0];
    line.push_back("--json");
    const proto::ApiError error = error_in(weft(line).err);
    EXPECT_EQ(error.code(), "not_found") << line[0];
    EXPECT_THAT(error.request_id(), testing::StartsWith("req-")) << line[0];
  }
}

// A port that is taken is told before anything is made.
TEST_F(ServedCli, UpOnABusyPortLeavesNoFolder) {
  const std::string data = folder_ + "/cluster";
  const std::string busy = std::to_string(served_.server->port());
  for (const char* option : {"--port", "--agent-port"}) {
    const Outcome up = weft({"up", "--data", data, option, busy});
    EXPECT_EQ(up.exit, kExitError);
    EXPECT_THAT(up.err, HasSubstr("port " + busy + " of 127.0.0.1 is in use"));
    EXPECT_THAT(up.err, HasSubstr(option));
    EXPECT_FALSE(fs::exists(data));
  }
  const Outcome foreign = weft({"up", "--data", data, "--address", "192.0.2.1"});
  EXPECT_THAT(foreign.err, HasSubstr("must be an IPv4 address of this machine (got 192.0.2.1)"));
  const Outcome same = weft({"up", "--data", data, "--port", "7999", "--agent-port", "7999"});
  EXPECT_THAT(same.err, HasSubstr("must differ from --port"));
  EXPECT_FALSE(fs::exists(data));
}

TEST_F(ServedCli, MemoryOfANodeIsEnoughForARank) {
  const std::string data = folder_ + "/cluster";
  for (const char* bytes : {"-5", "100", "1e9", "many"}) {
    for (const Outcome& outcome :
         {weft({"up", "--data", data, "--memory-bytes", bytes}),
          weft({"join", "127.0.0.1:1", "--token", "x", "--memory-bytes", bytes})}) {
      EXPECT_EQ(outcome.exit, kExitUsage);
      EXPECT_THAT(outcome.err, HasSubstr("must be a whole number from 268435456 to "));
    }
  }
  const Outcome shared =
      weft({"up", "--data", data, "--nodes", "2", "--memory-bytes", "300000000"});
  EXPECT_EQ(shared.exit, kExitError);
  EXPECT_THAT(shared.err, HasSubstr("--memory-bytes must be at least 268435456 for each of 2 nodes"
                                    " (got 300000000)"));
  EXPECT_FALSE(fs::exists(data));
}

// Which token is right depends on whom it is for: the address is looked at first.
TEST_F(ServedCli, JoinLooksAtTheAddressBeforeTheToken) {
  const std::string data = folder_ + "/node";
  const Outcome nobody = weft({"join", "127.0.0.1:1", "--token", "short", "--data", data});
  EXPECT_EQ(nobody.exit, kExitError);
  EXPECT_THAT(nobody.err, HasSubstr("cannot reach 127.0.0.1:1: Connection refused"));
  const Outcome unknown = weft({"join", "no-such-host.invalid", "--token", "short", "--json"});
  EXPECT_EQ(error_in(unknown.err).field(), "COORDINATOR");
  const std::string here = "127.0.0.1:" + std::to_string(served_.server->port());
  const Outcome token = weft({"join", here, "--token", "short", "--data", data, "--json"});
  EXPECT_EQ(error_in(token.err).field(), "--token");
  EXPECT_FALSE(fs::exists(data));
}

TEST(Commands, EachAndItsOptionsHaveAHelpText) {
  int options = 0;
  for (const CommandWords& command : all_commands()) {
    EXPECT_NE(command.help, "") << command.name;
    for (const auto* list : {&command.options, &command.positionals}) {
      for (const OptionWords& option : *list) {
        ++options;
        EXPECT_NE(option.help, "") << command.name << " " << option.name;
        EXPECT_FALSE(option.help.ends_with('.')) << command.name << " " << option.name;
      }
    }
  }
  EXPECT_GT(options, 80);
}

TEST(Nearest, IsNearOrNothing) {
  const std::vector<std::string> words = {"submit", "show", "ls", "checkpoints", "checkpoint"};
  EXPECT_EQ(nearest("sumbit", words), "submit");
  EXPECT_EQ(nearest("checkpoits", words), "checkpoints");
  EXPECT_EQ(nearest("list", words), "ls");
  EXPECT_EQ(nearest("zzz", words), "");
}

}  // namespace
}  // namespace weft::cli
