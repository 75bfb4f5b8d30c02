// `weft evaluate` and `weft classify`: what they answer and what they refuse.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "proto/base/hash.h"
#include "tests/coordinator/cli/served_cli.h"

namespace weft::cli {
namespace {

using nlohmann::json;

// Copies of models that transformers saved (40 positions), with a tokenizer of letters. The
// classifier has three classes.
class ModelCommands : public ServedCli {
 protected:
  void SetUp() override {
    ServedCli::SetUp();
    for (const char* name : {"gpt2-causal", "gpt2-sequence"}) {
      fs::copy(std::string(WEFT_SOURCE_DIR "/tests/fixtures/golden/") + name + "/hf", file(name));
      fs::copy(WEFT_SOURCE_DIR "/tests/fixtures/letters_tokenizer.json",
               file(name) + "/tokenizer.json");
    }
    write("rows.jsonl",
          "{\"text\":\"thread\",\"label\":1}\n\n{\"text\":\"warp\",\"label\":0}\n"
          "{\"text\":\"weft\",\"label\":2}\n");
    write("text.txt", "awarpandaweft");
  }
  void name_classes(const json& names = {{"0", "low"}, {"1", "middle"}, {"2", "high"}}) {
    const std::string path = file("gpt2-sequence/config.json");
    json config = json::parse(std::ifstream(path));
    config["id2label"] = names;
    std::ofstream(path) << config.dump();
  }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }

  json answer(std::vector<std::string> line) {
    line.push_back("--json");
    const Outcome done = weft(line);
    EXPECT_EQ(done.exit, kExitOk) << done.err;
    return json::parse(done.out, nullptr, false);
  }
  std::vector<json> answers(std::vector<std::string> line) {
    line.push_back("--json");
    const Outcome done = weft(line);
    EXPECT_EQ(done.exit, kExitOk) << done.err;
    std::vector<json> rows;
    std::istringstream lines(done.out);
    for (std::string each; std::getline(lines, each);) rows.push_back(json::parse(each));
    return rows;
  }
  std::string refusal(const std::vector<std::string>& line) {
    const Outcome done = weft(line);
    EXPECT_EQ(done.exit, kExitError) << done.out;
    EXPECT_EQ(done.out, "");
    return done.err;
  }
};

// Copies of encoders that transformers saved, whose tokenizer masks.
class EncoderCommands : public ModelCommands {
 protected:
  void SetUp() override {
    ModelCommands::SetUp();
    json tokenizer =
        json::parse(std::ifstream(WEFT_SOURCE_DIR "/tests/fixtures/letters_tokenizer.json"));
    json& letters = tokenizer["model"]["vocab"];
    letters["\u0120"] = letters.size();  // the space before a word
    tokenizer["added_tokens"].push_back({{"id", letters.size()},
                                         {"content", "[MASK]"},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", true}});
    for (const char* name : {"bert-masked", "bert-token", "xlnet-permutation"}) {
      fs::copy(std::string(WEFT_SOURCE_DIR "/tests/fixtures/golden/") + name + "/hf", file(name));
      std::ofstream(file(name) + "/tokenizer.json") << tokenizer.dump();
    }
    write("words.jsonl",
          "{\"text\":[\"warp\",\"weft\"],\"label\":[0,1]}\n\n{\"text\":[\"a\"],\"label\":[1]}\n");
  }
};

TEST_F(EncoderCommands, WordsHaveClassesOfTheirOwn) {
  const std::string model = file("bert-token"), rows = file("words.jsonl");
  const std::vector<json> found = answers({"classify", model, "--file", rows});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[1]["line"], 3);
  ASSERT_EQ(found[0]["words"].size(), 2U);
  EXPECT_EQ(found[0]["words"][1]["word"], "weft");
  int hits = 0;
  for (const auto& [word, label] :
       {std::pair{found[0]["words"][0], 0}, {found[0]["words"][1], 1}, {found[1]["words"][0], 1}}) {
    hits += word["label"] == label ? 1 : 0;
    EXPECT_EQ(word["label"], word["class"]);
  }
  const json told = answer({"evaluate", model, rows});
  EXPECT_EQ(told["type"], "token_classification");
  EXPECT_EQ(told["labels"], 3);
  EXPECT_EQ(told["accuracy"], hits / 3.0);
  EXPECT_FALSE(told.contains("f1")) << "no class is called as an entity's";
  EXPECT_EQ(answers({"classify", model, "--text", " warp  weft "})[0]["words"], found[0]["words"]);
  EXPECT_EQ(answers({"classify", model, "--text", "warp weft", "--sequence-length",
                     "4"})[0]["words"][1]["label"],
            json());
  write("raw.jsonl", "{\"text\":\"warp weft\"}\n");
  EXPECT_THAT(refusal({"classify", model, "--file", file("raw.jsonl")}),
              HasSubstr("must be a list of words"));
}

TEST_F(EncoderCommands, MaskedModelsAreMeasuredAlikeEachTime) {
  write("text.txt", "awarpandaweftandawarpandaweftandawarp");
  const std::vector<std::string> line{"evaluate", file("bert-masked"), file("text.txt")};
  const json told = answer(line);
  EXPECT_EQ(told["type"], "masked_lm");
  EXPECT_GT(told["labels"], 0);
  EXPECT_NEAR(told["perplexity"].get<double>(), std::exp(told["loss"].get<double>()), 1e-6);
  EXPECT_EQ(told, answer(line));
  EXPECT_THAT(refusal({"classify", file("bert-masked"), "--text", "a"}), HasSubstr("masked_lm"));
}

TEST_F(EncoderCommands, OrdersOfPredictionsAreMeasuredAlikeEachTime) {
  write("text.txt", "awarpandaweftandawarpandaweftandawarp");
  const std::vector<std::string> line{"evaluate", file("xlnet-permutation"), file("text.txt"),
                                      "--sequence-length", "12"};
  const json told = answer(line);
  EXPECT_EQ(told["type"], "permutation_lm");
  EXPECT_EQ(told["labels"], 6) << "two of each row of twelve, and of the one that is left none";
  EXPECT_NEAR(told["perplexity"].get<double>(), std::exp(told["loss"].get<double>()), 1e-6);
  EXPECT_EQ(told, answer(line));
  EXPECT_THAT(refusal({"classify", file("xlnet-permutation"), "--text", "a"}),
              HasSubstr("permutation_lm"));
}

TEST_F(EncoderCommands, AFileHereIsNoCheckpointsId) {
  write("plain", "no model");
  const auto before = fs::current_path();
  fs::current_path(fs::path(file("plain")).parent_path());
  EXPECT_THAT(refusal({"evaluate", "plain", file("plain")}),
              AllOf(HasSubstr("MODEL"), HasSubstr("exported folder with config.json")));
  write("job-01", "what it has logged");
  EXPECT_EQ(weft({"evaluate", "job-01", file("plain")}).exit, 102);  // no such job
  fs::current_path(before);
}

TEST_F(EncoderCommands, QuestionsWithChoicesAreMeasured) {
  const std::string model = file("bert-choice");
  fs::copy(WEFT_SOURCE_DIR "/tests/fixtures/golden/bert-choice/hf", model);
  json tokenizer =
      json::parse(std::ifstream(WEFT_SOURCE_DIR "/tests/fixtures/letters_tokenizer.json"));
  const auto part = [](const char* text, int type) {
    return json{{"Sequence", {{"id", text}, {"type_id", type}}}};
  };
  tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                 {"single", {part("A", 0)}},
                                 {"pair", {part("A", 0), part("B", 1)}},
                                 {"special_tokens", json::object()}};
  std::ofstream(model + "/tokenizer.json") << tokenizer.dump();
  write("one.jsonl",
        "{\"text\":\"warp\",\"choices\":[\"a\",\"thread\",\"loom\"],\"label\":1}\n"
        "{\"text\":\"weft\",\"choices\":[\"or\",\"and\",\"yarn\"],\"label\":0}\n");
  write("two.jsonl",  // the same questions with their choices in another order
        "{\"text\":\"warp\",\"endings\":[\"loom\",\"a\",\"thread\"],\"right\":2}\n"
        "{\"text\":\"weft\",\"endings\":[\"yarn\",\"or\",\"and\"],\"right\":1}\n");
  const json told = answer({"evaluate", model, file("one.jsonl")});
  EXPECT_EQ(told["type"], "multiple_choice");
  EXPECT_EQ(told["rows"], 2);
  EXPECT_EQ(told["labels"], 2);
  EXPECT_GT(told["loss"], 0);
  EXPECT_FALSE(told.contains("perplexity"));
  const json turned = answer({"evaluate", model, file("two.jsonl"), "--text-pair-key", "endings",
                              "--label-key", "right", "--batch-size", "1"});
  EXPECT_NEAR(turned["loss"].get<double>(), told["loss"].get<double>(), 1e-6);
  EXPECT_EQ(turned["accuracy"], told["accuracy"]);
  EXPECT_THAT(weft({"evaluate", model, file("one.jsonl")}).out, HasSubstr("of 2 questions)"));
  EXPECT_THAT(refusal({"evaluate", model, file("two.jsonl")}),
              HasSubstr("must have rows with the key 'choices'"));
  write("three.jsonl", "{\"text\":\"a\",\"choices\":[\"b\",\"c\"],\"label\":2}\n");
  EXPECT_THAT(refusal({"evaluate", model, file("three.jsonl")}), HasSubstr("must be below 2"));
}

TEST_F(ModelCommands, EvaluateTellsWhatClassifyFinds) {
  const std::string model = file("gpt2-sequence"), rows = file("rows.jsonl");
  const std::vector<json> found = answers({"classify", model, "--file", rows});
  ASSERT_EQ(found.size(), 3U);
  const std::vector<std::string> labels{"1", "0", "2"};
  double loss = 0, hits = 0;
  for (size_t i = 0; i < 3; ++i) {
    loss -= std::log(found[i]["probabilities"][labels[i]].get<double>()) / 3;
    hits += std::to_string(found[i]["label"].get<int>()) == labels[i] ? 1 : 0;
    EXPECT_EQ(found[i]["probability"], found[i]["probabilities"][found[i]["label"].dump()]);
  }
  EXPECT_EQ(found[1]["line"], 3);
  EXPECT_EQ(found[1]["file"], rows);
  EXPECT_EQ(found[1]["text"], "warp");
  const json told = answer({"evaluate", model, rows, "--batch-size", "2"});
  EXPECT_NEAR(told["loss"].get<double>(), loss, 1e-6);
  EXPECT_EQ(told["accuracy"], hits / 3);
  EXPECT_EQ(told["labels"], 3);
  EXPECT_EQ(told["tokens"], 14);
  EXPECT_EQ(told["type"], "sequence_classification");
  EXPECT_EQ(told["sequence_length"], 40);
  EXPECT_FALSE(told.contains("perplexity"));
  const Outcome people = weft({"evaluate", model, rows});
  EXPECT_THAT(people.out, HasSubstr("3 rows, 14 tokens"));
  EXPECT_THAT(people.out, HasSubstr("of 3 rows)"));
}

TEST_F(ModelCommands, ClassesAreToldAsTheDataSaysThem) {
  const std::string model = file("gpt2-sequence");
  const std::vector<std::string> one{"classify", model, "--text", "thread"};
  const json number = answers(one).at(0);
  EXPECT_TRUE(number["label"].is_number());
  name_classes();
  const json named = answers(one).at(0);
  const std::vector<std::string> names{"low", "middle", "high"};
  EXPECT_EQ(named["label"], names[number["label"].get<size_t>()]);
  EXPECT_EQ(named["class"], number["label"]);
  EXPECT_FALSE(named.contains("line"));
  const std::string table = weft(one).out;
  EXPECT_THAT(table, HasSubstr("CLASS"));
  for (const std::string& name : names) EXPECT_THAT(table, HasSubstr(name));
  const std::string several = weft({"classify", model, "--text", "thread", "--text", "warp"}).out;
  EXPECT_THAT(several, HasSubstr("thread"));
  EXPECT_THAT(several, HasSubstr("warp"));
  // Both spellings of a label count.
  const json numbers = answer({"evaluate", model, file("rows.jsonl")});
  write("names.jsonl",
        "{\"text\":\"thread\",\"label\":\"middle\"}\n{\"text\":\"warp\",\"label\":\"low\"}\n"
        "{\"text\":\"weft\",\"label\":\"high\"}\n");
  EXPECT_EQ(answer({"evaluate", model, file("names.jsonl")})["loss"], numbers["loss"]);
  write("names.jsonl", "{\"text\":\"thread\",\"label\":\"huge\"}\n");
  EXPECT_THAT(refusal({"evaluate", model, file("names.jsonl")}),
              HasSubstr("must be a label of the training data: low, middle, high"));
}

// Where only some classes have names, a number would be another class's.
TEST_F(ModelCommands, NamesThatLookLikeNumbersAreNoNumbers) {
  const std::string model = file("gpt2-sequence"), numbers = file("rows.jsonl");
  const double loss = answer({"evaluate", model, numbers})["loss"];
  name_classes({{"0", "2"}, {"1", "low"}, {"2", "LABEL_2"}});
  const json told = answers({"classify", model, "--text", "thread"}).at(0);
  EXPECT_EQ(told["probabilities"].size(), 3U);
  EXPECT_TRUE(told["probabilities"].contains("LABEL_2"));
  EXPECT_THAT(refusal({"evaluate", model, numbers}),
              HasSubstr("label must be a string, as in \"2\""));
  write("names.jsonl",
        "{\"text\":\"thread\",\"label\":\"low\"}\n{\"text\":\"warp\",\"label\":\"2\"}\n"
        "{\"text\":\"weft\",\"label\":\"LABEL_2\"}\n");
  EXPECT_EQ(answer({"evaluate", model, file("names.jsonl")})["loss"], loss);
  name_classes({{"0", "0"}, {"1", "1"}, {"2", "2"}});  // either way the same
  EXPECT_EQ(answer({"evaluate", model, numbers})["loss"], loss);
  name_classes({{"0", "LABEL_0"}, {"1", "LABEL_1"}, {"2", "LABEL_2"}});
  write("names.jsonl",
        "{\"text\":\"thread\",\"label\":\"LABEL_1\"}\n{\"text\":\"warp\",\"label\":\"LABEL_0\"}\n"
        "{\"text\":\"weft\",\"label\":\"LABEL_2\"}\n");
  EXPECT_EQ(answer({"evaluate", model, file("names.jsonl")})["loss"], loss);
}

TEST_F(ModelCommands, ALanguageModelHasAPerplexity) {
  const json told = answer({"evaluate", file("gpt2-causal"), file("text.txt")});
  EXPECT_NEAR(told["perplexity"].get<double>(), std::exp(told["loss"].get<double>()), 1e-9);
  EXPECT_EQ(told["labels"], 12);
  EXPECT_EQ(told["type"], "causal_lm");
  write("rows2.jsonl", "{\"body\":\"awarp\"}\n{\"body\":\"andaweft\"}\n");
  EXPECT_EQ(
      answer({"evaluate", file("gpt2-causal"), file("rows2.jsonl"), "--text-key", "body"})["loss"],
      told["loss"]);
  const json halves =
      answer({"evaluate", file("gpt2-causal"), file("text.txt"), "--precision", "bf16"});
  EXPECT_EQ(halves["precision"], "bf16");
  EXPECT_NE(halves["loss"], told["loss"]);
  EXPECT_EQ(
      answer({"evaluate", file("gpt2-causal"), file("text.txt"), "--sequence-length", "4"})["rows"],
      4);
}

TEST_F(ModelCommands, WhatIsCutIsToldOf) {
  const std::string model = file("gpt2-sequence"), rows = file("rows.jsonl");
  EXPECT_EQ(answers({"classify", model, "--text", "thread", "--sequence-length", "4"})
                .at(0)["dropped_tokens"],
            2);
  EXPECT_EQ(answer({"evaluate", model, rows, "--sequence-length", "4"})["cut_rows"], 1);
  for (const Outcome& outcome :
       {weft({"classify", model, "--file", rows, "--sequence-length", "4"}),
        weft({"evaluate", model, rows, "--sequence-length", "4"})}) {
    EXPECT_THAT(outcome.err, HasSubstr("1 of 3"));
    EXPECT_THAT(outcome.err, HasSubstr("longer than 4 tokens"));
  }
}

TEST_F(ModelCommands, BadInputNamesFieldValueAndRule) {
  const std::string model = file("gpt2-sequence");
  const auto rows = [&](const std::string& text) {
    write("bad.jsonl", text);
    return file("bad.jsonl");
  };
  const std::string good = "{\"text\":\"a\",\"label\":0}\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {good + "{\"text\":\"a\",\"label\":3}\n", "bad.jsonl line 2: label must be in [0, 3)"},
      {good + "{\"text\":\"a\",\"label\":-1}\n", "must not be below 0 (got -1)"},
      {good + "{\"text\":\"a\",\"label\":1.5}\n", "must be an integer or a string (got 1.5)"},
      {good + "{\"label\":0}\n", "line 2: text is missing"},
      {good + "{\"text\":\"\",\"label\":0}\n", "line 2: text must not be empty"},
      {"{\"text\":\"a\",\"label\":\"low\"}\n", "must be an integer in [0, 3)"},
      {"{\"text\":\"a\"}\n", "must have rows with the key 'label'"},
      {"{\"text\":\"a\",\"text\":\"b\",\"label\":0}\n", "bad.jsonl line 1: text is written twice"},
      {"{\"text\":\"a\xff\",\"label\":0}\n", "bad.jsonl line 1: not valid JSON"},
      {"", "must hold at least one row"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_THAT(refusal({"evaluate", model, rows(text)}), HasSubstr(expected));
  }
  EXPECT_THAT(refusal({"evaluate", model, file("text.txt")}), HasSubstr("must be JSONL"));
  EXPECT_THAT(refusal({"evaluate", model, file("none")}), HasSubstr("DATA"));
  EXPECT_THAT(refusal({"evaluate", model, "obj-1"}), HasSubstr("must be a file or folder here"));
  EXPECT_THAT(refusal({"evaluate", model, file("rows.jsonl"), "--sequence-length", "41"}),
              HasSubstr("40 positions"));
  EXPECT_THAT(refusal({"evaluate", model, file("rows.jsonl"), "--task", "mood"}),
              HasSubstr("a folder has one head"));
  EXPECT_THAT(refusal({"classify", model, "--file", rows(good + "{\"label\":0}\n")}),
              HasSubstr("line 2: text is missing"));
  EXPECT_THAT(refusal({"classify", model, "--file", rows("\n")}),
              HasSubstr("must hold at least one row"));
  EXPECT_THAT(refusal({"classify", model, "--file", file("none")}), HasSubstr("--file"));
  EXPECT_THAT(refusal({"classify", model, "--text", ""}), HasSubstr("--text: text must not be"));
  EXPECT_THAT(refusal({"classify", model, "--text", "a\xff"}), HasSubstr("byte 0xff"));
  EXPECT_THAT(refusal({"classify", file("gpt2-causal"), "--text", "a"}),
              HasSubstr("must be of type sequence_classification, token_classification or "
                        "image_classification, as no other has classes (got causal_lm)"));
  EXPECT_THAT(refusal({"generate", model, "--prompt", "a"}),
              HasSubstr("must be of type causal_lm or seq2seq, as no other generates text (got "
                        "sequence_classification)"));
  for (const auto& [option, rule] : {std::pair{"--label-key", "is for labels; the model learned a"},
                                     {"--text-pair-key", "is for a second text; the model"}}) {
    EXPECT_THAT(refusal({"evaluate", file("gpt2-causal"), file("rows.jsonl"), option, "text"}),
                HasSubstr(std::string(option) + " " + rule));
  }
  EXPECT_THAT(refusal({"evaluate", file("gpt2-causal"), file("text.txt"), "--text-key", "text"}),
              HasSubstr("--text-key is for JSONL; the data is text"));
  EXPECT_THAT(
      refusal({"evaluate", file("gpt2-causal"), file("text.txt"), "--target-length", "8"}),
      HasSubstr("--target-length is for a task that writes; the model's is of type causal_lm"));
  EXPECT_THAT(refusal({"classify", folder_, "--text", "a"}), HasSubstr("with config.json"));
  EXPECT_EQ(weft({"classify", model}).exit, kExitUsage);
  EXPECT_EQ(weft({"classify", model, "--text", "a", "--file", "b"}).exit, kExitUsage);
  EXPECT_EQ(weft({"evaluate", "ckpt-none", file("text.txt")}).exit, kExitNotFound);
}

TEST_F(ModelCommands, ACacheThatLacksFilesIsFilledAgain) {
  add_checkpoint(submit(), "ckpt-1");
  const std::string chunk(32, 'w');
  ASSERT_TRUE(served_.service.put_chunk(sha256_hex(chunk), chunk).ok());
  const std::vector<std::string> line{"evaluate", "ckpt-1", file("text.txt")};
  ::setenv("XDG_CACHE_HOME", file("token").c_str(), 1);
  EXPECT_THAT(refusal(line), HasSubstr("XDG_CACHE_HOME must be writable"));
  ::setenv("XDG_CACHE_HOME", file("cache").c_str(), 1);
  const std::string kept = "cache/weft/exports/ckpt-1-causal_lm";
  fs::create_directories(file(kept));
  write(kept + "/config.json", "{}");
  refusal(line);  // the checkpoint is but one of its tensors
  ::unsetenv("XDG_CACHE_HOME");
  EXPECT_TRUE(fs::exists(file(kept + "/model.safetensors")));
}

TEST_F(ModelCommands, ACheckpointsTaskIsTheOnlyOneOrNamed) {
  const std::string id = submit();
  add_checkpoint(id, "ckpt-1");
  proto::CheckpointManifest both = served_.store->checkpoints(id).value().at(0);
  both.set_id("ckpt-2");
  proto::TaskSpec& task = *both.add_tasks();
  task.set_name("mood");
  task.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  task.set_labels(2);
  task.mutable_data()->set_text("review");
  task.mutable_data()->set_label("stars");
  proto::CheckpointManifest three = both;
  three.set_id("ckpt-3");
  *three.add_tasks() = task;
  three.mutable_tasks(2)->set_name("topic");
  ASSERT_TRUE(served_.store->edit_job(id, [&](JobEdit& edit) {
    edit.checkpoints = {both, three};
    return Status();
  }));
  const std::string text = file("text.txt");
  EXPECT_THAT(refusal({"evaluate", "ckpt-2", text}),
              HasSubstr("must be one of ckpt-2's: causal_lm, mood"));
  EXPECT_THAT(refusal({"evaluate", "ckpt-2", text, "--task", "topic"}),
              HasSubstr("must be one of this checkpoint's tasks: causal_lm, mood"));
  EXPECT_THAT(refusal({"classify", "ckpt-3", "--text", "a"}),
              HasSubstr("must be one of ckpt-3's: mood, topic"));
  EXPECT_THAT(refusal({"classify", "ckpt-2", "--text", "a", "--task", "causal_lm"}),
              HasSubstr("task causal_lm, of type causal_lm, has no classes"));
  // The rows' keys are those that the task was trained with.
  const std::string rows = file("rows.jsonl");
  EXPECT_THAT(refusal({"evaluate", "ckpt-2", rows, "--task", "mood"}), HasSubstr("key 'review'"));
  EXPECT_THAT(refusal({"evaluate", "ckpt-2", rows, "--task", "mood", "--text-key", "text"}),
              HasSubstr("key 'stars'"));
  EXPECT_THAT(refusal({"classify", "ckpt-2", "--file", rows}), HasSubstr("review is missing"));
  EXPECT_THAT(refusal({"classify", "ckpt-2", "--text", ""}), HasSubstr("--text: text must not be"));
}

}  // namespace
}  // namespace weft::cli
