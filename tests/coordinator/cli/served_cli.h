// The program's commands, run in this process against a real service.
// Thread safety: one thread. Ownership: the fixture owns service and folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/options.h"
#include "tests/coordinator/api/served.h"

namespace weft::cli {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ServedCli : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "weft-served-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    ::setenv("HOME", folder_.c_str(), 1);
    ::setenv("WEFT_SERVER", ("127.0.0.1:" + std::to_string(served_.server->port())).c_str(), 1);
    ::setenv("WEFT_TOKEN_FILE", (folder_ + "/token").c_str(), 1);
    write("token", served_.token + "\n");
    write("text.txt", std::string(5 << 20, 't') + "end");
    write("job.yaml",
          "name: small\nkind: pretrain\n"
          "model: {family: gpt2, config: {n_layer: 1, n_head: 2, n_embd: 8, n_positions: 16, "
          "vocab_size: 257}}\n"
          "tokenizer: {type: byte}\ntasks: [{type: causal_lm, data: {train: text.txt}}]\n"
          "training: {steps: 10, sequence_length: 16}\n");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }

  struct Outcome {
    int exit = 0;
    std::string out, err;
  };
  // `into`: a file that standard output goes to instead of `out`; -1: none.
  Outcome weft(std::vector<std::string> arguments, int into = -1) {
    arguments.insert(arguments.begin(), "weft");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    if (into >= 0) ::dup2(into, STDOUT_FILENO);
    Outcome outcome;
    outcome.exit = run(static_cast<int>(argv.size()), argv.data());
    std::clearerr(stdout);
    outcome.out = testing::internal::GetCapturedStdout();
    outcome.err = testing::internal::GetCapturedStderr();
    return outcome;
  }
  std::string submit() {
    const Outcome done = weft({"submit", "-f", folder_ + "/job.yaml", "--json"});
    EXPECT_EQ(done.exit, 0) << done.err;
    const size_t at = done.out.find("\"id\": \"") + 7;
    return done.out.substr(at, done.out.find('"', at) - at);
  }

  // A checkpoint of that job in which only what a manifest says is there: a tensor of `chunks`
  // times the same `chunk` of fp32 elements.
  void add_checkpoint(const std::string& job, const std::string& id,
                      const std::string& chunk = std::string(32, 'w'), int chunks = 1) {
    ASSERT_TRUE(served_.store->edit_job(job, [&](JobEdit& edit) {
      edit.checkpoints.emplace_back();
      proto::CheckpointManifest& manifest = edit.checkpoints.back();
      manifest.set_id(id);
      manifest.set_job(job);
      manifest.set_family("gpt2");
      *manifest.mutable_config() = edit.job.spec().model().config();
      *manifest.add_tasks() = edit.job.spec().tasks(0);
      proto::TensorEntry& tensor = *manifest.add_tensors();
      tensor.set_name("transformer.ln_f.bias");
      tensor.set_role(proto::TENSOR_ROLE_WEIGHT);
      tensor.set_dtype("F32");
      const int64_t elements = static_cast<int64_t>(chunk.size()) / 4 * chunks;
      tensor.add_shape(elements);
      proto::Tile& tile = *tensor.add_tiles();
      tile.set_length(elements);
      for (int i = 0; i < chunks; ++i) {
        proto::ChunkRef& part = *tile.add_chunks();
        part.set_hash(sha256_hex(chunk));
        part.set_size(static_cast<int64_t>(chunk.size()));
      }
      return Status();
    }));
  }

  std::string folder_;
  api::Served served_;
};

}  // namespace weft::cli
