// The program's commands against a real service: what they print and how they exit.
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "tests/coordinator/cli/served_cli.h"

namespace weft::cli {
namespace {

TEST_F(ServedCli, SubmitUploadsAndTheJobIsListedAndShown) {
  const std::string id = submit();
  const proto::Job job = served_.service.job(id).value();
  const auto object = served_.service.object(job.spec().tasks(0).data().train()).value();
  ASSERT_EQ(object.files_size(), 1);
  EXPECT_EQ(object.files(0).path(), "text.txt");
  EXPECT_EQ(object.files(0).chunks_size(), 2);
  EXPECT_EQ(object.bytes(), (5 << 20) + 3);
  EXPECT_THAT(weft({"ls"}).out, HasSubstr(id));
  EXPECT_THAT(weft({"ls", "--json", "--state", "queued"}).out, HasSubstr("\"loss\": null"));
  const std::string shown = weft({"show", id}).out;
  EXPECT_THAT(shown, HasSubstr("queued"));
  EXPECT_THAT(shown, HasSubstr("(restarts in a row since the last checkpoint: 0)"));
  EXPECT_THAT(weft({"events", id}).out, HasSubstr("submitted"));
  EXPECT_EQ(weft({"priority", id, "5"}).exit, 0);
  const Outcome labelled =
      weft({"submit", "-f", folder_ + "/job.yaml", "--set", "labels.team=a", "--set",
            "labels.sweep=7", "--set", "parallel.data=2", "--set", "parallel.zero=1"});
  EXPECT_EQ(labelled.exit, kExitOk) << labelled.err;
  EXPECT_THAT(weft({"show", id}).out, HasSubstr("priority:  5\n"));
  EXPECT_THAT(weft({"show", id}).out, testing::Not(HasSubstr("labels:")));
  const std::string other = weft({"ls", "--ids", "--label", "team=a"}).out;
  const std::string page = weft({"show", other.substr(0, other.size() - 1)}).out;
  EXPECT_THAT(page, HasSubstr("labels:    sweep=7, team=a\n"));
  EXPECT_THAT(page, HasSubstr("mesh:      data 2 x sequence 1 x tensor 1, zero 1\n"));
  EXPECT_THAT(page, testing::Not(HasSubstr("adapter:")));
  EXPECT_EQ(weft({"ls", "--ids"}).out, other + id + "\n");
  const Outcome first = weft({"ls", "--ids", "--limit", "1"});
  EXPECT_EQ(first.out, other);
  EXPECT_EQ(first.err, "1 of 2 jobs; --all shows all\n");
  EXPECT_EQ(weft({"ls", "--ids", "--name", "nope"}).out, "");
}

TEST_F(ServedCli, ShownIsWhatAnAdapterTrains) {
  const std::string id = submit();
  EXPECT_THAT(weft({"show", id}).out, HasSubstr("trains:    all 3072 parameters\n"));
  ASSERT_TRUE(served_.store->edit_job(id, [](JobEdit& edit) {
    proto::AdapterSpec& adapter = *edit.job.mutable_spec()->mutable_adapter();
    adapter.set_type(proto::ADAPTER_TYPE_LORA);
    adapter.set_rank(4);
    for (const char* target : {"c_attn", "mlp.c_fc"}) adapter.add_targets(target);
    return Status();
  }));
  const std::string page = weft({"show", id}).out;
  EXPECT_THAT(page, HasSubstr("adapter:   lora, rank 4, of c_attn, mlp.c_fc\n"));
}

// Also where what did not fit was flushed long before the end.
TEST_F(ServedCli, OutputThatIsNotWholeIsAnError) {
  const std::string id = submit();
  served_.add_metrics(id, 3);
  served_.set_state(id, proto::JOB_STATE_SUCCEEDED);
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  for (const std::vector<std::string>& line : {std::vector<std::string>{"metrics", id},
                                               {"events", id, "-f"},
                                               {"watch", id},
                                               {"ls"},
                                               {"ls", "--help"},
                                               {"--version"}}) {
    const Outcome outcome = weft(line, full);
    EXPECT_EQ(outcome.exit, kExitError) << line[0];
    EXPECT_THAT(outcome.err, HasSubstr("cannot write the output")) << line[0];
  }
  ::close(full);
}

TEST_F(ServedCli, StackAndTraceNeedRanks) {
  const std::string id = submit();
  const std::string file = folder_ + "/trace.json";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"stack", id}, {"trace", id, "-o", file}}) {
    const Outcome refused = weft(command);
    EXPECT_EQ(refused.exit, kExitError) << command[0];
    EXPECT_THAT(refused.err, HasSubstr("must be running"));
  }
  EXPECT_FALSE(std::filesystem::exists(file)) << "nothing is left of a trace that failed";
  EXPECT_EQ(weft({"stack", "job-absent"}).exit, kExitNotFound);
  EXPECT_EQ(weft({"trace", "job-absent", "-o", file}).exit, kExitNotFound);
  EXPECT_EQ(weft({"trace", id, "--steps", "0"}).exit, kExitUsage);
  EXPECT_EQ(weft({"trace", id, "-o", folder_ + "/absent/trace.json"}).exit, kExitError);
  served_.set_state(id, proto::JOB_STATE_RUNNING);
  EXPECT_THAT(weft({"stack", id}).out, HasSubstr(id + " is running, attempt 1"));
  EXPECT_THAT(weft({"stack", id, "--json"}).out, HasSubstr("\"ranks\": []"));
}

TEST_F(ServedCli, CtrlCEndsTheRecordingOfATrace) {
  const std::string id = submit();
  served_.set_state(id, proto::JOB_STATE_RUNNING);
  const std::string file = folder_ + "/trace.json";
  std::thread interrupting([&] {
    while (!served_.service.trace(id)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ::kill(::getpid(), SIGINT);
  });
  const Outcome ended = weft({"trace", id, "-o", file, "--steps", "1000", "--timeout", "86400"});
  interrupting.join();
  EXPECT_EQ(ended.exit, kExitError) << "no rank is there to have recorded anything";
  EXPECT_EQ(served_.service.trace(id)->state(), "failed");
  ASSERT_TRUE(served_.service.start_trace(id, 1000));
  EXPECT_THAT(
      weft({"trace", id, "-o", file}).err,
      HasSubstr("Ctrl-C of the 'weft trace' that records it, or DELETE /api/v1/jobs/" + id));
}

TEST_F(ServedCli, ResumeTakesAnotherMesh) {
  const std::string id = submit();
  EXPECT_EQ(weft({"pause", id}).exit, kExitOk);
  const Outcome done = weft({"resume", id, "--parallel", "data=2,zero=1"});
  EXPECT_EQ(done.exit, kExitOk) << done.err;
  EXPECT_THAT(done.out, HasSubstr(id + " is queued\nmesh: data 2 x sequence 1 x tensor 1, zero 1"));
  const Outcome json = weft({"resume", id, "--parallel", "tensor=2", "--nodes", "2", "--json"});
  EXPECT_EQ(json.exit, kExitOk) << json.err;
  for (const char* part : {"\"tensor\": 2", "\"nodes\": 2", "\"slots\": 2", "\"zero\": 0"}) {
    EXPECT_THAT(json.out, HasSubstr(part));
  }
  const Outcome refused = weft({"resume", id, "--parallel", "data=9", "--nodes", "0", "--json"});
  EXPECT_EQ(refused.exit, kExitError);
  EXPECT_THAT(refused.err, HasSubstr("\"field\":\"parallel.data\""));
  EXPECT_EQ(weft({"resume", id, "--parallel", "auto"}).exit, kExitError) << "no node has joined";
  for (const char* bad : {"fast", "data", "data=x", "data=0", "dat=2", "=2", "data=2,data=4", ""}) {
    const Outcome usage = weft({"resume", id, "--parallel", bad});
    EXPECT_EQ(usage.exit, kExitUsage) << bad;
    EXPECT_THAT(usage.err, HasSubstr("--parallel")) << bad;
  }
  EXPECT_EQ(weft({"resume", id, "--slots", "-2"}).exit, kExitUsage);
  EXPECT_EQ(weft({"resume", "job-absent", "--nodes", "1"}).exit, kExitNotFound);
  EXPECT_EQ(weft({"resume", "job-absent", "--parallel", "data=2"}).exit, kExitNotFound);
  EXPECT_EQ(weft({"resume", id}).exit, kExitOk);
  EXPECT_THAT(weft({"completion", "bash"}).out, HasSubstr("--parallel"));
}

TEST_F(ServedCli, ExitCodesSayWhatBecameOfTheJob) {
  const std::string id = submit();
  served_.set_state(id, proto::JOB_STATE_RUNNING);
  std::thread later([&] { served_.set_state(id, proto::JOB_STATE_SUCCEEDED); });
  EXPECT_EQ(weft({"watch", id}).exit, kExitOk);
  later.join();
  served_.set_state(id, proto::JOB_STATE_FAILED);
  EXPECT_EQ(weft({"watch", id}).exit, kExitJobFailed);
  served_.set_state(id, proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(weft({"watch", id}).exit, kExitCancelled);
  served_.set_state(id, proto::JOB_STATE_PAUSED);
  EXPECT_EQ(weft({"watch", id}).exit, kExitNotFinished);
  const Outcome absent = weft({"show", "job-absent"});
  EXPECT_EQ(absent.exit, kExitNotFound);
  EXPECT_THAT(absent.err, HasSubstr("no such job: 'weft ls'"));
  EXPECT_THAT(absent.err, HasSubstr("job-absent"));
  EXPECT_EQ(weft({"cancel", "job-absent"}).exit, kExitNotFound);
  EXPECT_THAT(weft({"rm", id}).err, HasSubstr(id + " is paused: only a finished job"));
  EXPECT_THAT(weft({"rm-checkpoint", "ckpt-absent"}).err,
              HasSubstr("no such checkpoint: 'weft checkpoints'"));
  EXPECT_EQ(weft({"nonsense"}).exit, kExitUsage);
  EXPECT_EQ(weft({"show"}).exit, kExitUsage);
  EXPECT_EQ(weft({"ls", "--limit", "x"}).exit, kExitUsage);
  EXPECT_EQ(weft({"--help"}).exit, kExitOk);
  EXPECT_EQ(weft({"version"}).exit, kExitOk);
}

TEST_F(ServedCli, ErrorsNameFieldValueRuleAndLine) {
  write("bad.yaml", "name: small\nkind: pretrain\npriority: high\n");
  const Outcome bad = weft({"submit", "-f", folder_ + "/bad.yaml"});
  EXPECT_EQ(bad.exit, kExitError);
  for (const char* part : {"priority", "high", "3"}) EXPECT_THAT(bad.err, HasSubstr(part));
  const Outcome json = weft({"submit", "--json", "-f", folder_ + "/bad.yaml"});
  EXPECT_THAT(json.err, HasSubstr("\"field\":\"priority\""));
  const Outcome misspelt = weft({"ls", "--state", "queud"});
  EXPECT_THAT(misspelt.err, HasSubstr("queued"));
  EXPECT_EQ(misspelt.exit, kExitUsage);
  const Outcome valid = weft({"validate", "-f", folder_ + "/job.yaml"});
  EXPECT_EQ(valid.exit, kExitOk) << valid.err;
  write("token", "another-token-of-someone\n");
  EXPECT_THAT(weft({"ls"}).err, HasSubstr("token"));
  served_.server->stop();
  write("token", served_.token);
  EXPECT_THAT(weft({"ls"}).err, HasSubstr("cannot reach"));
}

TEST_F(ServedCli, PlansAndKeepsTheChoice) {
  const std::vector<std::string> automatic = {"-f", folder_ + "/job.yaml", "--set",
                                              "parallel=auto"};
  const auto with = [&](std::vector<std::string> words) {
    words.insert(words.begin() + 1, automatic.begin(), automatic.end());
    return weft(words);
  };
  const Outcome early = with({"plan"});
  EXPECT_EQ(early.exit, kExitError);
  EXPECT_THAT(early.err, HasSubstr("resources.slots"));
  proto::NodeInfo node;
  node.set_name("a");
  node.set_slots(2);
  node.set_memory_bytes(int64_t{1} << 32);
  node.set_state(proto::NODE_STATE_READY);
  ASSERT_TRUE(served_.store->put_node(node, true).ok());
  const Outcome table = with({"plan"});
  EXPECT_EQ(table.exit, kExitOk) << table.err;
  for (const char* part : {"MEMORY A RANK", "\n*  ", "data 1 x ", " a step predicted"}) {
    EXPECT_THAT(table.out, HasSubstr(part));
  }
  const Outcome json = with({"plan", "--json"});
  EXPECT_THAT(json.out, HasSubstr("\"meshes\": ["));
  // Nothing was uploaded or stored.
  EXPECT_THAT(weft({"ls"}).out, HasSubstr("no jobs"));
  const Outcome valid = with({"validate"});
  EXPECT_THAT(valid.out, HasSubstr("the mesh that the service chooses"));
  const Outcome large = with({"plan", "--set", "training.batch_size=1048576", "--set",
                              "training.micro_batch_size=1048576"});
  EXPECT_EQ(large.exit, kExitError);
  EXPECT_THAT(large.out, HasSubstr("a rank needs"));
  EXPECT_THAT(large.err, HasSubstr("nothing fits"));
  const Outcome both = with({"plan", "--set", "parallel.tensor=2"});
  EXPECT_EQ(both.exit, kExitError);
  EXPECT_THAT(both.err, HasSubstr("parallel.tensor cannot stand beside parallel: auto"));
  const Outcome done = with({"submit"});
  EXPECT_EQ(done.exit, kExitOk) << done.err;
  EXPECT_THAT(done.out, HasSubstr("mesh: data "));
  const Outcome shown = weft({"show", done.out.substr(0, done.out.find(' '))});
  for (const char* part : {"chosen:", "because:", "predicted"}) {
    EXPECT_THAT(shown.out, HasSubstr(part));
  }
}

TEST_F(ServedCli, ALostNodeIsForgotten) {
  proto::NodeInfo node;
  node.set_name("old");
  node.set_slots(1);
  node.set_state(proto::NODE_STATE_READY);
  ASSERT_TRUE(served_.store->put_node(node, true).ok());
  const Outcome answers = weft({"nodes", "forget", "old"});
  EXPECT_EQ(answers.exit, kExitError);
  EXPECT_THAT(answers.err, HasSubstr("must be lost"));
  node.set_state(proto::NODE_STATE_LOST);
  ASSERT_TRUE(served_.store->put_node(node, true).ok());
  EXPECT_THAT(weft({"nodes"}).out, HasSubstr("old"));
  const Outcome gone = weft({"nodes", "forget", "old"});
  EXPECT_EQ(gone.exit, kExitOk) << gone.err;
  EXPECT_THAT(weft({"nodes"}).out, testing::Not(HasSubstr("old")));
  const Outcome again = weft({"nodes", "forget", "old"});
  EXPECT_EQ(again.exit, kExitNotFound);
  EXPECT_THAT(again.err, HasSubstr("no such node: 'weft nodes'"));
  EXPECT_THAT(again.err, HasSubstr("(got old)"));
  EXPECT_EQ(weft({"nodes", "forget"}).exit, kExitUsage);
  EXPECT_EQ(weft({"nodes", "shut", "old"}).exit, kExitUsage);
}

TEST_F(ServedCli, RecordsArePrintedAndFollowed) {
  const std::string id = submit();
  served_.set_state(id, proto::JOB_STATE_RUNNING);
  served_.add_metrics(id, 1500);
  ASSERT_TRUE(served_.store->append_log(id, 1, 0, 0, "line 1\nline 2").has_value());
  const Outcome metrics = weft({"metrics", id});
  EXPECT_THAT(metrics.out, HasSubstr("step   1500  loss 1.5"));
  EXPECT_THAT(weft({"metrics", id, "--task", "nope"}).err,
              HasSubstr("task must be one of the job's tasks: causal_lm (got nope)"));
  EXPECT_THAT(weft({"ls", "--name", "nope"}).out, HasSubstr("no job is like that"));
  EXPECT_EQ(weft({"logs", id}).out, "line 1\nline 2\n");
  EXPECT_EQ(weft({"logs", id, "--rank", "all"}).out, "line 1\nline 2\n");
  EXPECT_EQ(weft({"logs", id, "--rank", "x"}).exit, kExitUsage);
  EXPECT_EQ(weft({"logs", id, "-f", "--rank", "all"}).exit, kExitUsage);
  served_.set_state(id, proto::JOB_STATE_SUCCEEDED);
  const Outcome followed = weft({"metrics", id, "-f", "--json"});
  EXPECT_EQ(followed.exit, 0);
  EXPECT_EQ(std::count(followed.out.begin(), followed.out.end(), '\n'), 1500);
  EXPECT_EQ(weft({"logs", id, "-f"}).out, "line 1\nline 2");
  EXPECT_EQ(weft({"rm", id, "--json"}).out, "{\"id\":\"" + id + "\",\"deleted\":true}\n");
  EXPECT_EQ(weft({"show", id}).exit, kExitNotFound);
}

TEST_F(ServedCli, ExportIsWholeOrNotThere) {
  const std::string id = submit();
  EXPECT_THAT(weft({"export", id, "--to", folder_ + "/none"}).err,
              HasSubstr("'weft checkpoint " + id + "'"));
  add_checkpoint(id, "ckpt-1");
  EXPECT_THAT(weft({"checkpoints", id}).out, HasSubstr("ckpt-1"));
  EXPECT_THAT(weft({"checkpoints"}).out, HasSubstr("ckpt-1"));
  const std::string target = folder_ + "/out";
  const Outcome broken = weft({"export", "ckpt-1", "--to", target});  // its chunk is not there
  EXPECT_NE(broken.exit, 0);
  EXPECT_FALSE(fs::exists(target));
  const std::string bytes(32, 'w');
  ASSERT_TRUE(served_.service.put_chunk(sha256_hex(bytes), bytes).ok());
  const Outcome done = weft({"export", "ckpt-1", "--to", target});
  EXPECT_EQ(done.exit, 0) << done.err;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    EXPECT_TRUE(fs::exists(target + "/" + name)) << name;
  }
  EXPECT_NE(weft({"export", "ckpt-1", "--to", target}).exit, 0);  // not empty
  EXPECT_EQ(weft({"export", "ckpt-2", "--to", folder_ + "/other"}).exit, kExitNotFound);
  EXPECT_NE(weft({"export", "ckpt-1", "--to", folder_ + "/other", "--task", "x"}).exit, 0);
  int left_over = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    left_over += entry.path().filename().string().starts_with(".") ? 1 : 0;
  }
  EXPECT_EQ(left_over, 0);
}

TEST_F(ServedCli, OfAJobTheBestCheckpointIsExportedOrElseTheNewest) {
  const std::string id = submit(), bytes(32, 'w');
  add_checkpoint(id, "ckpt-1");
  add_checkpoint(id, "ckpt-2");
  ASSERT_TRUE(served_.service.put_chunk(sha256_hex(bytes), bytes).ok());
  for (const bool best : {false, true}) {
    ASSERT_TRUE(served_.store->edit_job(id, [&](JobEdit& edit) {
      edit.job.set_checkpoint("ckpt-2");
      if (best) edit.job.set_best_checkpoint("ckpt-1");
      return Status();
    }));
    const Outcome done = weft({"export", id, "--to", folder_ + (best ? "/best" : "/newest")});
    EXPECT_THAT(done.out, HasSubstr(best ? "ckpt-1 with" : "ckpt-2 with")) << done.err;
  }
  const Outcome told = weft({"export", id, "--to", folder_ + "/told", "--json"});
  EXPECT_THAT(told.out, HasSubstr(R"("checkpoint": "ckpt-1")"));
  EXPECT_THAT(weft({"show", id}).out, HasSubstr("best checkpoint"));
}

TEST_F(ServedCli, ExportTakesFilesOfAnySize) {
  const std::string chunk(4 << 20, 'w');
  add_checkpoint(submit(), "ckpt-1", chunk, 5);
  ASSERT_TRUE(served_.service.put_chunk(sha256_hex(chunk), chunk).ok());
  const Outcome done = weft({"export", "ckpt-1", "--to", folder_ + "/out"});
  ASSERT_EQ(done.exit, 0) << done.err;
  EXPECT_GT(fs::file_size(folder_ + "/out/model.safetensors"), 5 * chunk.size());
}

TEST_F(ServedCli, AnExportOntoAFullDiskSaysWhichAndLeavesNothing) {
  const std::string small = folder_ + "/small", chunk(4 << 20, 'w');
  fs::create_directory(small);
  ASSERT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=8m"), 0)
      << "a small tmpfs needs root: " << std::strerror(errno);
  add_checkpoint(submit(), "ckpt-1", chunk, 5);
  ASSERT_TRUE(served_.service.put_chunk(sha256_hex(chunk), chunk).ok());
  const Outcome done = weft({"export", "ckpt-1", "--to", small + "/out"});
  EXPECT_EQ(done.exit, kExitError);
  EXPECT_THAT(done.err, HasSubstr("No space left on device"));
  EXPECT_THAT(done.err, HasSubstr("0 of 8 MiB free at " + small));
  EXPECT_THAT(done.err, HasSubstr("free some room and export again"));
  EXPECT_TRUE(fs::is_empty(small));
  ::umount(small.c_str());
}

TEST_F(ServedCli, OnlyALanguageModelGenerates) {
  const std::string id = submit();
  add_checkpoint(id, "ckpt-1");
  proto::CheckpointManifest both = served_.store->checkpoints(id).value().at(0);
  both.set_id("ckpt-2");
  proto::TaskSpec& task = *both.add_tasks();
  task.set_name("mood");
  task.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  task.set_labels(2);
  proto::CheckpointManifest classifier = both;
  classifier.set_id("ckpt-3");
  classifier.mutable_tasks()->DeleteSubrange(0, 1);
  ASSERT_TRUE(served_.store->edit_job(id, [&](JobEdit& edit) {
    edit.checkpoints = {both, classifier};
    return Status();
  }));
  const std::vector<std::vector<std::string>> refused = {
      {"generate", "ckpt-2", "--prompt", "x", "--task", "mood"},
      {"generate", "ckpt-3", "--prompt", "x"},
  };
  for (const std::vector<std::string>& line : refused) {
    const Outcome outcome = weft(line);
    EXPECT_EQ(outcome.exit, kExitError) << line[1];
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, HasSubstr("task mood, of type sequence_classification")) << line[1];
  }
  // With the language model's head only its chunk, which is not there, is in the way.
  const Outcome chosen = weft({"generate", "ckpt-2", "--prompt", "x"});
  EXPECT_NE(chosen.exit, kExitOk);
  EXPECT_THAT(chosen.err, testing::Not(HasSubstr("mood")));
}

TEST_F(ServedCli, APromptThatIsTooLongIsToldOf) {
  const std::string folder = folder_ + "/model";  // of 40 positions
  fs::copy(WEFT_SOURCE_DIR "/tests/fixtures/golden/gpt2-causal/hf", folder);
  write("model/tokenizer.json",
        R"({"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"ByteLevel",)"
        R"("add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":)"
        R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},)"
        R"("model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})");
  const auto generate = [&](size_t tokens, const char* more) {
    return weft({"generate", folder, "--prompt", std::string(tokens, 'a'), "--max-tokens", "1",
                 "--temperature", "0", more});
  };
  const Outcome fits = generate(40, "--seed=1");
  EXPECT_EQ(fits.exit, kExitOk) << fits.err;
  EXPECT_EQ(fits.err, "");
  EXPECT_THAT(generate(45, "--seed=1").err,
              HasSubstr("the first 5 tokens of the prompt were left out"));
  EXPECT_THAT(generate(45, "--json").out, HasSubstr("\"dropped_prompt_tokens\": 5"));
}

}  // namespace
}  // namespace weft::cli
