// What `weft fine-tune` derives from a model and from data, and what it refuses.
#include "proto/json/message_json.h"
#include "tests/coordinator/cli/served_cli.h"

namespace weft::cli {
namespace {

class FineTune : public ServedCli {
 protected:
  void SetUp() override {
    ServedCli::SetUp();
    add_checkpoint(submit(), "ckpt-1");  // 16 positions, 2 heads
    write("rows.jsonl",
          "{\"text\":\"good\",\"label\":1}\n\n{\"text\":\"bad\",\"label\":0}\n"
          "{\"text\":\"so\",\"label\":2}\n");
    write("names.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"y\"}\n");
    write("plain.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
  }

  // The job that would be submitted.
  proto::JobSpec plan(std::vector<std::string> line) {
    line.insert(line.begin(), "fine-tune");
    line.insert(line.end(), {"--dry-run", "--json"});
    const Outcome done = weft(line);
    EXPECT_EQ(done.exit, kExitOk) << done.err;
    proto::JobSpec spec;
    const Status status = read_json(done.out, spec, {.lenient = true});
    EXPECT_TRUE(status.ok()) << status.to_string();
    return spec;
  }
  std::string refusal(std::vector<std::string> line) {
    line.insert(line.begin(), "fine-tune");
    line.push_back("--dry-run");
    const Outcome done = weft(line);
    EXPECT_EQ(done.exit, kExitError) << done.out;
    return done.err;
  }
  std::string file(const std::string& name) { return folder_ + "/" + name; }
};

TEST_F(FineTune, TheSequenceLengthComesFromTheModel) {
  EXPECT_EQ(plan({"ckpt-1", file("text.txt")}).training().sequence_length(), 16);
  EXPECT_EQ(
      plan({"ckpt-1", file("text.txt"), "--sequence-length", "8"}).training().sequence_length(), 8);
  EXPECT_THAT(refusal({"ckpt-1", file("text.txt"), "--sequence-length", "17"}),
              HasSubstr("16 positions"));
  const std::string golden = WEFT_SOURCE_DIR "/tests/fixtures/golden/gpt2-causal/hf";
  EXPECT_THAT(refusal({golden, file("text.txt"), "--sequence-length", "41"}),
              HasSubstr("40 positions"));
  EXPECT_THAT(refusal({golden, file("text.txt"), "--tokenizer", "byte"}), HasSubstr("vocab_size"));
  EXPECT_THAT(refusal({golden, file("text.txt")}), HasSubstr("has no tokenizer.json"));
  fs::copy(golden, file("sentencepiece"));
  write("sentencepiece/tokenizer.model", "\n\x0e\n\x05<unk>");
  EXPECT_THAT(refusal({file("sentencepiece"), file("text.txt")}),
              HasSubstr("AutoTokenizer.from_pretrained('" + file("sentencepiece") + "')"));
}

TEST_F(FineTune, ChatsAreALanguageModels) {
  const std::string chat =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  write("chats.jsonl", chat + "\n");
  const proto::JobSpec spec = plan({"ckpt-1", file("chats.jsonl")});
  EXPECT_EQ(spec.tasks(0).type(), proto::TASK_TYPE_CAUSAL_LM);
  EXPECT_EQ(spec.tasks(0).data().format(), proto::DATA_FORMAT_JSONL);
  write("broken.jsonl", chat + "\n{\"messages\": [1]}\n");
  EXPECT_THAT(refusal({"ckpt-1", file("broken.jsonl")}), HasSubstr("messages[0]"));
  EXPECT_THAT(refusal({"ckpt-1", file("chats.jsonl"), "--task", "sequence_classification"}),
              HasSubstr("label"));
}

TEST_F(FineTune, TaskAndLabelsComeFromTheData) {
  const proto::JobSpec text = plan({"ckpt-1", file("text.txt")});
  EXPECT_EQ(text.tasks(0).type(), proto::TASK_TYPE_CAUSAL_LM);
  EXPECT_EQ(text.tasks(0).data().format(), proto::DATA_FORMAT_TEXT);
  const proto::JobSpec rows =
      plan({"ckpt-1", file("rows.jsonl"), "--validation", file("rows.jsonl")});
  EXPECT_EQ(rows.tasks(0).type(), proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  EXPECT_EQ(rows.tasks(0).labels(), 3);
  EXPECT_EQ(rows.training().evaluate_every(), 20);
  EXPECT_TRUE(rows.checkpoint().keep_best());
  EXPECT_FALSE(text.checkpoint().keep_best()) << "nothing is held out";
  EXPECT_EQ(plan({"ckpt-1", file("rows.jsonl"), "--labels", "5"}).tasks(0).labels(), 5);
  EXPECT_EQ(plan({"ckpt-1", file("names.jsonl")}).tasks(0).labels(), 2);
  const proto::JobSpec lines = plan({"ckpt-1", file("plain.jsonl")});
  EXPECT_EQ(lines.tasks(0).type(), proto::TASK_TYPE_CAUSAL_LM);
  EXPECT_EQ(lines.tasks(0).data().format(), proto::DATA_FORMAT_JSONL);
  EXPECT_EQ(plan({"ckpt-1", file("rows.jsonl"), "--task", "causal_lm"}).tasks(0).type(),
            proto::TASK_TYPE_CAUSAL_LM);
  write("keys.jsonl", "{\"sentence\":\"a\",\"class\":0}\n{\"sentence\":\"b\",\"class\":1}\n");
  const proto::JobSpec keys =
      plan({"ckpt-1", file("keys.jsonl"), "--text-key", "sentence", "--label-key", "class"});
  EXPECT_EQ(keys.tasks(0).labels(), 2);
  EXPECT_EQ(keys.tasks(0).data().text(), "sentence");
  EXPECT_EQ(keys.tasks(0).data().label(), "class");
}

TEST_F(FineTune, EncodersLearnFromWordsAndFromMaskedText) {
  const std::string bert = WEFT_SOURCE_DIR "/tests/fixtures/golden/bert-masked/hf";
  write("words.jsonl", "{\"text\":[\"a\",\"b\"],\"label\":[\"O\",\"B-X\"]}\n");
  const proto::JobSpec words = plan({bert, file("words.jsonl"), "--tokenizer", "obj-t"});
  EXPECT_EQ(words.tasks(0).type(), proto::TASK_TYPE_TOKEN_CLASSIFICATION);
  EXPECT_EQ(words.tasks(0).labels(), 2);
  const proto::JobSpec text = plan({bert, file("text.txt"), "--tokenizer", "obj-t"});
  EXPECT_EQ(text.tasks(0).type(), proto::TASK_TYPE_MASKED_LM);
  EXPECT_EQ(text.tasks(0).mask_rate(), 0.15);
  EXPECT_THAT(refusal({bert, file("rows.jsonl"), "--task", "token_classification"}),
              HasSubstr("must be a list of words"));
  EXPECT_THAT(refusal({bert, file("text.txt"), "--tokenizer", "obj-t", "--labels", "3"}),
              HasSubstr("this is masked_lm: the data is text, the model is an encoder"));
}

TEST_F(FineTune, AnAdapterIsThereWhereARankIsAskedFor) {
  EXPECT_FALSE(plan({"ckpt-1", file("text.txt")}).has_adapter());
  const proto::JobSpec plain = plan({"ckpt-1", file("text.txt"), "--lora-rank", "4"});
  EXPECT_EQ(plain.adapter().type(), proto::ADAPTER_TYPE_LORA);
  EXPECT_EQ(plain.adapter().rank(), 4);
  EXPECT_EQ(plain.adapter().alpha(), 8);
  EXPECT_EQ(plain.adapter().targets_size(), 0);
  EXPECT_FALSE(plain.adapter().dora());
  const proto::JobSpec more = plan({"ckpt-1", file("text.txt"), "--lora-rank", "4", "--lora-alpha",
                                    "0.5", "--lora-targets", "c_attn,mlp.c_fc", "--dora"});
  EXPECT_TRUE(more.adapter().dora());
  EXPECT_EQ(more.adapter().alpha(), 0.5);
  ASSERT_EQ(more.adapter().targets_size(), 2);
  EXPECT_EQ(more.adapter().targets(1), "mlp.c_fc");
  EXPECT_EQ(weft({"fine-tune", "ckpt-1", file("text.txt"), "--lora-alpha", "1"}).exit, kExitUsage);
  EXPECT_EQ(weft({"fine-tune", "ckpt-1", file("text.txt"), "--dora"}).exit, kExitUsage);
  const std::string golden = WEFT_SOURCE_DIR "/tests/fixtures/golden/gpt2-causal/hf";
  EXPECT_THAT(refusal({golden, file("text.txt"), "--tokenizer", "byte", "--lora-rank", "4",
                       "--lora-targets", "q_proj"}),
              HasSubstr("adapter.targets[0]"));
}

TEST_F(FineTune, AJobStandsForItsBestOrElseNewestCheckpoint) {
  const std::string id = submit();
  EXPECT_THAT(refusal({id, file("text.txt")}), HasSubstr(id + " has no checkpoint yet"));
  const auto keep = [&](const std::function<void(proto::Job&)>& change) {
    ASSERT_TRUE(served_.store->edit_job(id, [&](JobEdit& edit) {
      change(edit.job);
      return Status();
    }));
  };
  keep([](proto::Job& job) { job.set_checkpoint("ckpt-1"); });
  EXPECT_EQ(plan({id, file("text.txt")}).model().from(), "ckpt-1");
  keep([](proto::Job& job) {
    job.set_checkpoint("ckpt-9");
    job.set_best_checkpoint("ckpt-1");
  });
  const proto::JobSpec best = plan({id, file("text.txt")});
  EXPECT_EQ(best.model().from(), "ckpt-1");
  EXPECT_EQ(best.training().sequence_length(), 16);
  EXPECT_EQ(weft({"fine-tune", "job-absent", file("text.txt")}).exit, kExitNotFound);
}

// A task takes over a checkpoint's head by its name, a folder's whatever its name.
TEST_F(FineTune, AHeadGoesOnWhereItHasAllOfTheDatasClasses) {
  proto::CheckpointManifest manifest = served_.store->checkpoint("ckpt-1").value();
  manifest.set_id("ckpt-2");
  proto::TaskSpec& task = *manifest.add_tasks();
  task.set_name("topic");
  task.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  task.set_labels(3);
  proto::TaskLabels& labels = *manifest.add_label_names();
  labels.set_task("topic");
  for (const char* name : {"z", "y", "x"}) labels.add_names(name);
  ASSERT_TRUE(served_.store->edit_job(manifest.job(), [&](JobEdit& edit) {
    edit.checkpoints.push_back(manifest);
    return Status();
  }));
  const fs::path golden = WEFT_SOURCE_DIR "/tests/fixtures/golden/gpt2-sequence/hf";
  fs::create_directory(file("hf"));
  fs::copy(golden / "model.safetensors", file("hf"));
  std::ifstream in(golden / "config.json");
  std::string config(std::istreambuf_iterator<char>(in), {});
  for (const auto& [number, name] : {std::pair("0", "z"), {"1", "y"}, {"2", "x"}}) {
    const std::string unnamed = std::string("\"LABEL_") + number + "\"";
    config.replace(config.find(unnamed), unnamed.size(), std::string("\"") + name + "\"");
  }
  write("hf/config.json", config);
  write("some.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"w\"}\n");
  write("more.jsonl",
        "{\"text\":\"c\",\"label\":\"v\"}\n{\"text\":\"a\",\"label\":\"x\"}\n"
        "{\"text\":\"b\",\"label\":\"w\"}\n");
  write("two.jsonl", "{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\",\"label\":1}\n");
  const auto job = [&](const std::string& model, const std::string& data,
                       std::vector<std::string> more = {}) {
    std::vector<std::string> line = {"fine-tune", model,         file(data),
                                     "--dry-run", "--tokenizer", "obj-7"};
    line.insert(line.end(), more.begin(), more.end());
    const Outcome done = weft(line);
    EXPECT_EQ(done.exit, kExitOk) << done.err;
    return done.out;
  };
  const std::string goes_on = "    labels: 3  # the model's, which has all of the data's\n";
  EXPECT_THAT(job("ckpt-2", "names.jsonl"),
              AllOf(HasSubstr(goes_on), HasSubstr("name: \"topic\"")));
  EXPECT_THAT(
      job("ckpt-2", "names.jsonl", {"--labels", "4"}),
      HasSubstr("as asked for; new head: the model's has 3 classes, --labels 3 keeps it\n"));
  EXPECT_THAT(job("ckpt-2", "some.jsonl"),
              AllOf(HasSubstr("labels: 2  # as many as there are different labels; new head: the "
                              "model has none for this task\n"),
                    HasSubstr("name: \"classify\"")));
  EXPECT_THAT(job(file("hf"), "names.jsonl"), HasSubstr(goes_on));
  EXPECT_THAT(job(file("hf"), "some.jsonl"), HasSubstr("; new head: the model's has 3 classes\n"));
  EXPECT_THAT(job(file("hf"), "more.jsonl"),
              HasSubstr("; new head: the model's has other classes\n"));
  EXPECT_THAT(job(file("hf"), "two.jsonl"),
              HasSubstr("; new head: the model's has 3 classes, --labels 3 keeps it\n"));
  EXPECT_THAT(job(file("hf"), "rows.jsonl"), HasSubstr("labels: 3  # the largest label and one\n"));
}

// What a job file may name by an id may be named so here too.
TEST_F(FineTune, UploadedObjectsAreTaken) {
  const auto upload = [&](const std::string& name) {
    proto::ObjectManifest object;
    proto::ObjectFile& file = *object.add_files();
    file.set_path(name);
    file.set_size(1);
    file.add_chunks()->set_hash(sha256_hex("x"));
    file.mutable_chunks(0)->set_size(1);
    EXPECT_TRUE(served_.service.put_chunk(sha256_hex("x"), "x").ok());
    return served_.service.put_object(object).value().id();
  };
  const std::string text = upload("a.txt"), rows = upload("rows.jsonl");
  const std::string model = upload("config.json");
  const proto::JobSpec job = plan({"ckpt-1", text, "--validation", text});
  EXPECT_EQ(job.tasks(0).data().train(), text);
  EXPECT_EQ(job.tasks(0).data().validation(), text);
  const proto::JobSpec classes =
      plan({"ckpt-1", rows, "--task", "sequence_classification", "--labels", "3"});
  EXPECT_EQ(classes.tasks(0).data().format(), proto::DATA_FORMAT_JSONL);
  EXPECT_EQ(classes.tasks(0).labels(), 3);
  const proto::JobSpec tuned = plan({model, file("text.txt"), "--tokenizer", "byte"});
  EXPECT_EQ(tuned.model().from(), model);
  EXPECT_EQ(tuned.training().sequence_length(), 128);
  EXPECT_EQ(plan({"ckpt-1", text, "--tokenizer", "obj-7"}).tokenizer().from(), "obj-7");
  EXPECT_THAT(refusal({"ckpt-1", rows}), HasSubstr("--task must be given"));
  EXPECT_THAT(refusal({"ckpt-1", rows, "--task", "sequence_classification"}),
              HasSubstr("--labels must be given"));
  EXPECT_THAT(refusal({"ckpt-1", text, "--task", "sequence_classification"}),
              HasSubstr("must be JSONL"));
  EXPECT_THAT(refusal({model, file("text.txt")}), HasSubstr("--tokenizer must be given"));
  EXPECT_THAT(refusal({text, file("text.txt")}), HasSubstr("must hold config.json"));
  EXPECT_EQ(weft({"fine-tune", "ckpt-1", "obj-none"}).exit, kExitNotFound);
}

TEST_F(FineTune, WhatIsWrongWithTheDataIsToldByFileLineAndRule) {
  write("array.json", "[{\"text\":\"a\"}]\n");
  write("bad.jsonl", "{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\"}\n");
  write("one.jsonl", "{\"text\":\"a\",\"label\":0}\n");
  write("below.jsonl", "{\"text\":\"a\",\"label\":-1}\n");
  write("keys.jsonl", "{\"sentence\":\"a\",\"class\":0}\n");
  write("zeros.txt", std::string("PK\0\0x", 5));
  write("empty.txt", "");
  fs::create_directories(folder_ + "/mixed");
  write("mixed/a.txt", "a");
  write("mixed/b.jsonl", "{\"text\":\"a\"}\n");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{file("array.json")}, "line 1: line must be one JSON object"},
      {{file("bad.jsonl")}, "bad.jsonl line 2"},
      {{file("one.jsonl")}, "at least two classes"},
      {{file("below.jsonl")}, "must not be below 0"},
      {{file("keys.jsonl")},
       "DATA must have rows with the key 'text', not sentence, class alone; --text-key"},
      {{file("zeros.txt")}, "zero bytes"},
      {{file("empty.txt")}, "must hold some text"},
      {{file("mixed")}, "not both"},
      {{file("text.txt"), "--task", "sequence_classification"}, "must be JSONL"},
      {{file("text.txt"), "--labels", "3"}, "the data is text"},
      {{file("rows.jsonl"), "--labels", "2"}, "the data has 3 classes"},
      {{file("rows.jsonl"), "--validation", file("plain.jsonl")}, "rows with the key 'label'"},
      {{file("text.txt"), "--slots", "3"}, "2 attention heads"},
      {{file("text.txt"), "--tokenizer", file("none")}, "must be byte, a tokenizer.json"},
      {{file("text.txt"), "--name", "a/b"}, "name"},
  };
  for (const auto& [line, told] : cases) {
    std::vector<std::string> whole = line;
    whole.insert(whole.begin(), "ckpt-1");
    EXPECT_THAT(refusal(whole), HasSubstr(told));
  }
}

// Of a family are proposed, and taken, those tasks alone that the trainer would make.
TEST_F(FineTune, TasksAreThoseOfTheFamily) {
  const std::string golden = WEFT_SOURCE_DIR "/tests/fixtures/golden/";
  const std::string xlnet = golden + "xlnet-sequence/hf", vit = golden + "vit-image/hf";
  write("answers.jsonl",
        R"({"question": "a", "context": "b", "answers": {"text": [], "answer_start": []}})"
        "\n");
  const std::string learned =
      "learns, sequence_classification, token_classification, embedding, multiple_choice or "
      "permutation_lm; ";
  EXPECT_EQ(plan({xlnet, file("text.txt"), "--tokenizer", "obj-t"}).tasks(0).type(),
            proto::TASK_TYPE_PERMUTATION_LM);
  EXPECT_THAT(refusal({xlnet, file("answers.jsonl")}),
              HasSubstr("DATA must be for a task that xlnet " + learned +
                        "it is for question_answering, as the rows have question"));
  EXPECT_THAT(refusal({xlnet, file("text.txt"), "--task", "masked_lm"}),
              HasSubstr("--task must be one that xlnet learns: sequence_classification, "));
  EXPECT_THAT(refusal({vit, file("text.txt")}),
              HasSubstr("that vit learns, image_classification; it is for masked_lm"));
  write("words.jsonl", "{\"text\":[\"a\",\"b\"],\"label\":[\"O\",\"B-X\"]}\n");
  EXPECT_THAT(refusal({"ckpt-1", file("words.jsonl")}),
              HasSubstr("that gpt2 learns, causal_lm or sequence_classification; it is for "
                        "token_classification, as the rows' 'text' is a list"));
  EXPECT_THAT(refusal({"ckpt-1", file("text.txt"), "--task", "embedding"}),
              HasSubstr("--task must be one that gpt2 learns: causal_lm or"));
}

TEST_F(FineTune, ChoicesAreToldByAListAndItsLabel) {
  const std::string bert = WEFT_SOURCE_DIR "/tests/fixtures/golden/bert-masked/hf";
  const auto rows = [&](const std::string& name, const std::string& key, const std::string& list,
                        const std::string& label) {
    write(name, "{\"text\":\"a\",\"" + key + "\":" + list + ",\"label\":" + label + "}\n");
    return file(name);
  };
  const std::string three = rows("three.jsonl", "choices", R"(["b","c","d"])", "2");
  const proto::JobSpec spec = plan({bert, three, "--tokenizer", "obj-t"});
  EXPECT_EQ(spec.tasks(0).type(), proto::TASK_TYPE_MULTIPLE_CHOICE);
  EXPECT_EQ(spec.tasks(0).name(), "choose");
  EXPECT_EQ(spec.tasks(0).labels(), 3);
  EXPECT_EQ(spec.tasks(0).data().text_pair(), "choices");
  EXPECT_EQ(spec.training().batch_size(), 9) << "whole questions";
  const std::string named = rows("named.jsonl", "endings", R"(["b","c"])", "0");
  const proto::JobSpec two = plan({bert, named, "--tokenizer", "obj-t", "--task", "multiple_choice",
                                   "--text-pair-key", "endings", "--batch-size", "4"});
  EXPECT_EQ(two.tasks(0).labels(), 2);
  EXPECT_EQ(two.tasks(0).data().text_pair(), "endings");
  EXPECT_EQ(two.training().batch_size(), 4);
  const auto refused = [&](std::vector<std::string> line, const std::string& rule) {
    line.insert(line.begin(), bert);
    line.insert(line.end(), {"--tokenizer", "obj-t"});
    EXPECT_THAT(refusal(line), HasSubstr(rule));
  };
  refused({three, "--labels", "4"},
          "--labels must be left out, or 3, as many as a row has choices");
  refused({three, "--batch-size", "8"}, "training.batch_size must be a multiple of 3");
  refused({three, "--validation", rows("two.jsonl", "choices", R"(["b","c"])", "0")},
          "--validation must have 3 choices a row, as the training data has");
  refused({rows("beyond.jsonl", "choices", R"(["b","c"])", "2")},
          "label must be below 2, the choices of a row");
  refused({rows("one.jsonl", "choices", R"(["b"])", "0")}, "must be a list of two texts or more");
  refused({named, "--task", "multiple_choice"}, "--text-pair-key names another");
  EXPECT_THAT(refusal({"ckpt-1", three}), HasSubstr("it is for multiple_choice, as the rows' "
                                                    "'choices' is a list"));
}

TEST_F(FineTune, OptionsThatNothingComesOfAreRefused) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{file("plain.jsonl"), "--label-key", "class"},
       "--label-key is for labels; this is causal_lm: the rows have no key 'class'"},
      {{file("text.txt"), "--text-key", "body"}, "--text-key is for JSONL; the data is text"},
      {{file("text.txt"), "--target-length", "7"}, "--target-length is for a seq2seq"},
  };
  for (const auto& [line, told] : cases) {
    std::vector<std::string> whole = line;
    whole.insert(whole.begin(), "ckpt-1");
    EXPECT_THAT(refusal(whole), HasSubstr(told));
  }
}

TEST_F(FineTune, TheJobFileSaysWhyAndIsNeverOverwritten) {
  const std::string job_file = file("tune.yaml");
  const Outcome dry = weft({"fine-tune", "ckpt-1", file("rows.jsonl"), "--dry-run"});
  EXPECT_THAT(dry.out, HasSubstr("sequence_length: 16  # all of the model's positions"));
  EXPECT_THAT(dry.out, HasSubstr("labels: 3  # the largest label and one"));
  write("dry.yaml", dry.out);
  EXPECT_EQ(weft({"validate", "-f", file("dry.yaml")}).exit, kExitOk);
  const Outcome done = weft({"fine-tune", "ckpt-1", file("rows.jsonl"), "--file", job_file});
  // The service refuses it, as the checkpoint has not one weight; the job file stays.
  EXPECT_EQ(done.exit, kExitError);
  EXPECT_THAT(done.err, HasSubstr("model.from"));
  EXPECT_THAT(done.out,
              HasSubstr("labels:    3 (the largest label and one; new head: the model has"));
  EXPECT_THAT(done.out, HasSubstr("sequence:  16 tokens (all of the model's positions)"));
  EXPECT_TRUE(fs::exists(job_file));
  const Outcome again = weft({"fine-tune", "ckpt-1", file("rows.jsonl"), "--file", job_file});
  EXPECT_THAT(again.err, HasSubstr("model.from"));  // the same content may be written again
  const Outcome other = weft({"fine-tune", "ckpt-1", file("names.jsonl"), "--file", job_file});
  EXPECT_EQ(other.exit, kExitError);
  EXPECT_THAT(other.err, HasSubstr("must not exist with other content"));
}

}  // namespace
}  // namespace weft::cli
