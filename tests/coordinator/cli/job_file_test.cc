#include "coordinator/cli/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "coordinator/cli/upload.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

class JobFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "weft-job-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    fs::create_directories(folder_ + "/texts/deep");
    write("texts/b.txt", "b");
    write("texts/a.txt", "a");
    write("texts/deep/c.txt", "c");
    write("texts/.hidden", "h");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  std::string job(const std::string& train, const std::string& model = "") {
    const std::string made =
        model.empty() ? "{family: gpt2, config: {n_layer: 1, n_head: 2, n_embd: 8, n_positions: "
                        "16, vocab_size: 257}}"
                      : "{from: " + model + "}";
    return "name: x\nkind: " + std::string(model.empty() ? "pretrain" : "fine_tune") +
           "\nmodel: " + made + "\n" + (model.empty() ? "tokenizer: {type: byte}\n" : "") +
           "tasks:\n  - type: causal_lm\n    data: {train: " + train +
           "}\ntraining: {steps: 3, sequence_length: 8}\n";
  }
  Result<JobFile> read(const std::string& text, const std::vector<std::string>& sets = {}) {
    write("job.yaml", text);
    return read_job_file(folder_ + "/job.yaml", sets);
  }
  std::string folder_;
};

TEST_F(JobFileTest, PathsStartFromTheFilesFolder) {
  auto file = read(job("texts/"));
  ASSERT_TRUE(file.has_value()) << file.error().to_string();
  EXPECT_TRUE(check_job(*file).has_value());
  const auto inputs = local_inputs(*file);
  ASSERT_TRUE(inputs.has_value()) << inputs.error().to_string();
  ASSERT_EQ(inputs->size(), 1U);
  EXPECT_EQ((*inputs)[0].field, "tasks[0].data.train");
  const auto files = files_of((*inputs)[0]);
  ASSERT_TRUE(files.has_value());
  ASSERT_EQ(files->size(), 3U);
  EXPECT_EQ((*files)[0].name, "a.txt");
  EXPECT_EQ((*files)[2].name, "deep/c.txt");
  ASSERT_TRUE(replace_inputs(*file, [](const LocalInput&) -> Result<std::string> {
                return std::string("obj-1");
              }).ok());
  EXPECT_EQ(file->spec.tasks(0).data().train(), "obj-1");
}

TEST_F(JobFileTest, WhatIsSetStandsOnNoLineOfTheFile) {
  const std::string text = job("texts/");
  const auto of_file = check_job(read(text + "priority: 1001\n").value());
  EXPECT_GT(of_file.error().line(), 0);
  const auto of_set = check_job(read(text + "priority: 1\n", {"priority=1001"}).value());
  EXPECT_EQ(of_set.error().field(), "priority");
  EXPECT_EQ(of_set.error().line(), 0);
}

TEST_F(JobFileTest, IdsAreLeftAlone) {
  auto file = read(job("obj-0011", "ckpt-7"));
  ASSERT_TRUE(file.has_value()) << file.error().to_string();
  EXPECT_TRUE(local_inputs(*file)->empty());
}

TEST_F(JobFileTest, WhatIsMissingIsNamedWithItsLine) {
  auto file = read(job("nothing.txt"));
  ASSERT_TRUE(file.has_value());
  const auto inputs = local_inputs(*file);
  ASSERT_FALSE(inputs.has_value());
  EXPECT_EQ(inputs.error().field(), "tasks[0].data.train");
  EXPECT_EQ(inputs.error().line(), 7);
  file = read(job("texts", "texts"));
  ASSERT_TRUE(file.has_value());
  EXPECT_NE(local_inputs(*file).error().rule().find("config.json"), std::string::npos);
}

// Nothing of a folder is left out in silence but hidden files.
TEST_F(JobFileTest, WhatIsNoFileIsNamed) {
  const auto refusal = [&](const std::string& name) {
    const auto files = files_of({"tasks[0].data.train", InputKind::kData, folder_ + "/texts"});
    fs::remove_all(folder_ + "/texts/" + name);
    EXPECT_FALSE(files.has_value()) << name;
    if (files) return std::string();
    EXPECT_EQ(files.error().field(), "tasks[0].data.train");
    return files.error().to_string();
  };
  using testing::HasSubstr;
  const fs::path texts = folder_ + "/texts";
  fs::create_symlink("gone.txt", texts / "dangling.txt");
  EXPECT_THAT(refusal("dangling.txt"), AllOf(HasSubstr("a link to nothing; it points to gone.txt"),
                                             HasSubstr("texts/dangling.txt)")));
  fs::create_symlink("loop.txt", texts / "loop.txt");
  EXPECT_THAT(refusal("loop.txt"), HasSubstr("a link that leads to itself"));
  fs::create_symlink("deep", texts / "linked");
  EXPECT_THAT(refusal("linked"), HasSubstr("a link to a folder"));
  ASSERT_EQ(::mkfifo((texts / "pipe").c_str(), 0600), 0);
  // Alone, too: it can be read once only, and opening it waits for somebody who writes.
  const auto alone = files_of({"data", InputKind::kData, (texts / "pipe").string()});
  ASSERT_FALSE(alone.has_value());
  EXPECT_THAT(alone.error().to_string(), HasSubstr("must be a regular file or a folder"));
  EXPECT_THAT(refusal("pipe"), HasSubstr("a pipe, a device or a socket"));
  write("texts/two\nlines.txt", "x");
  EXPECT_THAT(refusal("two\nlines.txt"), AllOf(HasSubstr("must not contain control characters"),
                                               HasSubstr("texts/two\\nlines.txt)")));
  write("texts/\xff.txt", "x");
  EXPECT_THAT(refusal("\xff.txt"), AllOf(HasSubstr("must be valid UTF-8"), HasSubstr("\\xff")));
  fs::create_symlink("a.txt", texts / "z.txt");
  fs::create_symlink("gone.txt", texts / ".hidden-link");
  const auto files = files_of({"data", InputKind::kData, texts.string()});
  ASSERT_TRUE(files.has_value()) << files.error().to_string();
  EXPECT_EQ(files->back().name, "z.txt");
}

TEST_F(JobFileTest, OfAModelsFolderGoesWhatTellsOfTheModel) {
  fs::create_directories(folder_ + "/model");
  for (const char* name : {"README.md", "config.json", "model.safetensors", "optimizer.pt",
                           "preprocessor_config.json", "processor_config.json", "vocab.txt"}) {
    write(std::string("model/") + name, "x");
  }
  const auto files = files_of({"model.from", InputKind::kModelFolder, folder_ + "/model"});
  ASSERT_TRUE(files.has_value()) << files.error().to_string();
  std::vector<std::string> names;
  for (const SourceFile& file : *files) names.push_back(file.name);
  EXPECT_EQ(names, (std::vector<std::string>{"config.json", "model.safetensors",
                                             "preprocessor_config.json", "processor_config.json",
                                             "vocab.txt"}));
}

// What only the data can tell, with the user's own path.
TEST_F(JobFileTest, DataIsReadAndHeldAgainstTheTask) {
  const auto refusal = [&](const std::string& text) {
    const auto file = read(text);
    EXPECT_TRUE(file.has_value());
    const auto spec = check_job(*file);
    EXPECT_TRUE(spec.has_value()) << spec.error().to_string();
    return check_data(*file, *spec);
  };
  EXPECT_TRUE(refusal(job("texts")).ok());
  write("empty.txt", "");
  const Status empty = refusal(job("empty.txt"));
  EXPECT_EQ(empty.field(), "tasks[0].data.train");
  EXPECT_EQ(empty.line(), 7);
  EXPECT_EQ(empty.to_string(), "tasks[0].data.train: the data is empty: it has no text (got " +
                                   folder_ + "/empty.txt) (line 7)");
  fs::create_directory(folder_ + "/nothing");
  EXPECT_THAT(refusal(job("nothing")).to_string(), testing::HasSubstr("at least one file"));
  write("rows.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\",}\n");
  const Status row = refusal(job("rows.jsonl, format: jsonl"));
  EXPECT_EQ(row.line(), 2);
  EXPECT_THAT(row.to_string(),
              testing::StartsWith("tasks[0].data.train: " + folder_ + "/rows.jsonl line 2: "));
  write("train.jsonl", "{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\",\"label\":1}\n");
  write("held.jsonl", "{\"text\":\"a\",\"label\":2}\n");
  std::string classes = job("train.jsonl, validation: held.jsonl, format: jsonl");
  classes.replace(classes.find("causal_lm"), 9, "sequence_classification\n    labels: 2");
  EXPECT_EQ(refusal(classes).to_string(),
            "tasks[0].data.validation: " + folder_ +
                "/held.jsonl line 1: label must be in [0, 2), as the task has labels: 2 (got 2)");
}

// Held-out data may have what the model's head has, seen in the training or not.
TEST_F(JobFileTest, HeldOutDataMayHaveTheModelsClasses) {
  const fs::path golden = WEFT_SOURCE_DIR "/tests/fixtures/golden/gpt2-sequence/hf";
  fs::create_directory(folder_ + "/classifier");
  fs::copy(golden / "model.safetensors", folder_ + "/classifier");
  std::ifstream in(golden / "config.json");
  std::string config(std::istreambuf_iterator<char>(in), {});
  for (const auto& [number, name] : {std::pair("0", "pos"), {"1", "neg"}, {"2", "none"}}) {
    const std::string unnamed = std::string("\"LABEL_") + number + "\"";
    config.replace(config.find(unnamed), unnamed.size(), std::string("\"") + name + "\"");
  }
  write("classifier/config.json", config);
  write("train.jsonl", "{\"text\":\"a\",\"label\":\"pos\"}\n{\"text\":\"b\",\"label\":\"neg\"}\n");
  const auto check = [&](const std::string& model, const std::string& held_out) {
    write("held.jsonl", "{\"text\":\"c\",\"label\":" + held_out + "}\n");
    std::string text = job("train.jsonl, validation: held.jsonl, format: jsonl", model) +
                       "tokenizer: {type: tokenizer_json, from: obj-1}\n";
    text.replace(text.find("causal_lm"), 9, "sequence_classification\n    labels: 3");
    const auto file = read(text);
    const auto spec = check_job(*file);
    EXPECT_TRUE(spec.has_value()) << spec.error().to_string();
    return check_data(*file, *spec).to_string();
  };
  using testing::HasSubstr;
  for (const char* model : {"classifier", "ckpt-1"}) {
    EXPECT_EQ(check(model, "\"none\""), Status().to_string());
    EXPECT_THAT(check(model, "0"), HasSubstr("held.jsonl line 1: label"));
  }
  EXPECT_THAT(check("classifier", "\"other\""), HasSubstr("must be a label of the training data"));
  // Of a checkpoint the names are not known here, but how many there may be.
  EXPECT_THAT(check("ckpt-1", "\"x\"}\n{\"text\":\"d\",\"label\":\"y\""),
              HasSubstr("held.jsonl line 2: label makes 4 different labels"));
}

TEST_F(JobFileTest, OnlyWhatAModelIsMadeOfIsTaken) {
  fs::create_directories(folder_ + "/model/runs");
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "merges.txt",
                           "tokenizer.model", "pytorch_model.bin", "README.md", "runs/events"}) {
    write(std::string("model/") + name, "x");
  }
  auto file = read(job("texts", "model"));
  ASSERT_TRUE(file.has_value());
  const auto inputs = local_inputs(*file);
  ASSERT_TRUE(inputs.has_value()) << inputs.error().to_string();
  std::vector<std::string> names;
  const auto files = files_of((*inputs)[0]);
  ASSERT_TRUE(files.has_value());
  for (const auto& [path, name] : *files) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"config.json", "merges.txt", "model.safetensors",
                                             "tokenizer.json", "tokenizer.model"}));
}

TEST_F(JobFileTest, SetReplacesOneKey) {
  auto file = read(job("texts"), {"training.steps=9", "name=other"});
  ASSERT_TRUE(file.has_value()) << file.error().to_string();
  EXPECT_EQ(file->spec.training().steps(), 9);
  EXPECT_EQ(file->spec.name(), "other");
  EXPECT_FALSE(read(job("texts"), {"training.steps"}).has_value());
  EXPECT_FALSE(read(job("texts"), {"training.stpes=9"}).has_value());
  const Status empty = read(job("texts"), {"training.steps="}).error();
  EXPECT_EQ(empty.to_string(), "training.steps needs a value, as in training.steps=100");
  const auto no_name = read(job("texts"), {"name="});  // the empty text, which breaks a rule
  ASSERT_TRUE(no_name.has_value()) << no_name.error().to_string();
  EXPECT_EQ(check_job(*no_name).error().field(), "name");
}

TEST_F(JobFileTest, ErrorsCarryFieldAndLine) {
  const auto unknown = read("name: x\nkind: pretrain\nstpes: 1\n");
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().field(), "stpes");
  EXPECT_EQ(unknown.error().line(), 3);
  const auto range = read(job("texts") + "priority: 5000\n");
  ASSERT_TRUE(range.has_value());
  const auto checked = check_job(*range);
  ASSERT_FALSE(checked.has_value());
  EXPECT_EQ(checked.error().field(), "priority");
  EXPECT_EQ(checked.error().line(), 9);
  EXPECT_EQ(read_job_file(folder_ + "/absent.yaml", {}).error().code(), Code::kInvalidArgument);
}

TEST(Examples, AreValid) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(WEFT_SOURCE_DIR "/docs/examples")) {
    if (entry.is_directory()) continue;  // data
    const auto file = read_job_file(entry.path().string(), {});
    ASSERT_TRUE(file.has_value()) << entry.path() << file.error().to_string();
    const auto spec = check_job(*file);
    ASSERT_TRUE(spec.has_value()) << entry.path() << spec.error().to_string();
    const Status data = check_data(*file, *spec);
    EXPECT_TRUE(data.ok()) << entry.path() << data.to_string();
    ++count;
  }
  EXPECT_EQ(count, 3);
}

}  // namespace
}  // namespace weft::cli
