#include "proto/json/job_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "google/protobuf/util/message_differencer.h"
#include "proto/job.pb.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

std::string sample() {
  std::ifstream in(WEFT_SOURCE_DIR "/tests/proto/sample_job.yaml");
  return {std::istreambuf_iterator<char>(in), {}};
}

Status finish(const std::string& yaml, proto::JobSpec* spec) {
  LineMap lines;
  WEFT_RETURN_IF_ERROR(read_yaml(yaml, *spec, &lines));
  return finish_job(*spec, &lines);
}

TEST(JobRules, TheSampleIsFinished) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(sample(), &spec).to_string(), "ok");
  EXPECT_EQ(spec.resources().slots(), 2);
  EXPECT_EQ(spec.training().micro_batch_size(), 4);
  EXPECT_EQ(spec.training().log_every(), 1);
  EXPECT_TRUE(spec.training().shuffle());
  EXPECT_EQ(spec.training().optimizer().epsilon(), 1e-8);
  EXPECT_EQ(spec.max_restarts(), 5);
}

TEST(JobRules, FinishingAgainAndReadingTheWrittenFormChangeNothing) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(sample(), &spec).to_string(), "ok");
  proto::JobSpec again = spec;
  ASSERT_EQ(finish_job(again).to_string(), "ok");
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, again));
  ASSERT_EQ(finish(write_json(spec, {2}), &again).to_string(), "ok");
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, again));
}

constexpr const char* kTuned = R"(
name: small
kind: fine_tune
model: {from: ckpt-1}
tasks: [{type: causal_lm, data: {train: a.txt}}]
training: {steps: 5}
)";

TEST(JobRules, AnAdapterIsThereWhereItIsAskedFor) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(kTuned, &spec).to_string(), "ok");
  EXPECT_FALSE(spec.has_adapter());
  for (const char* adapter : {"adapter: lora\n", "adapter: {type: lora}\n"}) {
    proto::JobSpec tuned;
    ASSERT_EQ(finish(std::string(kTuned) + adapter, &tuned).to_string(), "ok") << adapter;
    EXPECT_EQ(tuned.adapter().type(), proto::ADAPTER_TYPE_LORA);
    EXPECT_EQ(tuned.adapter().rank(), 8);
    EXPECT_EQ(tuned.adapter().alpha(), 8);
    EXPECT_EQ(tuned.adapter().dropout(), 0);
    EXPECT_FALSE(tuned.adapter().rslora());
    EXPECT_FALSE(tuned.adapter().dora());
    EXPECT_EQ(tuned.adapter().base_model(), "ckpt-1");
    std::string topology = kTuned;
    topology.replace(topology.find("steps: 5"), 8, "steps: 5, reproducible: topology");
    EXPECT_EQ(finish(topology + adapter, &tuned).to_string(), "ok") << topology;
  }
}

TEST(JobRules, BadAdaptersAreRefused) {
  const auto refused = [](const std::string& yaml, const std::string& field,
                          const std::string& rule) {
    proto::JobSpec spec;
    const Status status = finish(yaml, &spec);
    EXPECT_EQ(status.field(), field) << yaml << status.to_string();
    EXPECT_NE(status.rule().find(rule), std::string::npos) << status.to_string();
  };
  const auto with = [&](const std::string& fields, const std::string& field,
                        const std::string& rule) {
    refused(std::string(kTuned) + "adapter: {type: lora, " + fields + "}\n", field, rule);
  };
  with("rank: 0", "adapter.rank", "between 1 and");
  with("alpha: 0", "adapter.alpha", "above 0");
  with("dropout: 1", "adapter.dropout", "below 1");
  with("dropout: -0.1", "adapter.dropout", "at least 0");
  with("targets: [q_proj, q_proj]", "adapter.targets[1]", "twice");
  with("targets: ['']", "adapter.targets[0]", "not be empty");
  refused(std::string(kTuned) + "adapter: {rank: 4}\n", "adapter.type", "required");
  std::string pretrain = kTuned;
  pretrain.replace(pretrain.find("fine_tune"), 9, "pretrain");
  pretrain.replace(pretrain.find("{from: ckpt-1}"), 14, "{family: gpt2, config: {}}");
  refused(pretrain + "tokenizer: {type: byte}\nadapter: lora\n", "adapter", "model.from");
}

TEST(JobRules, WhatFollowsFromTheRestIsFilledIn) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(R"(
name: small
kind: fine_tune
model: {from: ckpt-1}
tasks: [{type: causal_lm, data: {train: a.txt}}]
training: {steps: 5, batch_size: 7}
parallel: {data: 2, tensor: 3}
)",
                   &spec)
                .to_string(),
            "ok");
  EXPECT_EQ(spec.tasks(0).name(), "causal_lm");
  EXPECT_EQ(spec.tasks(0).weight(), 1);
  EXPECT_EQ(spec.tasks(0).data().format(), proto::DATA_FORMAT_TEXT);
  EXPECT_EQ(spec.training().micro_batch_size(), 4);  // 7 rows over 2 ranks: 4 and 3
  EXPECT_EQ(spec.resources().slots(), 6);
  EXPECT_FALSE(spec.has_tokenizer());
}

TEST(JobRules, OnlyTasksWithLabelsHaveTheirKey) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(sample(), &spec).to_string(), "ok");
  EXPECT_FALSE(spec.tasks(0).data().has_label());
  EXPECT_EQ(spec.tasks(1).data().label(), "label");
  // As a job has it that was stored when every task had one.
  spec.mutable_tasks(0)->mutable_data()->set_label("label");
  ASSERT_EQ(finish_job(spec).to_string(), "ok");
  EXPECT_FALSE(spec.tasks(0).data().has_label());
}

TEST(JobRules, ATokenizersFileHasAnOlderType) {
  for (const char* type : {"tokenizer_json", "byte_level_bpe"}) {
    proto::JobSpec spec;
    ASSERT_EQ(finish(std::string(kTuned) + "tokenizer: {from: obj-1, type: " + type + "}\n", &spec)
                  .to_string(),
              "ok");
    EXPECT_EQ(spec.tokenizer().type(), proto::TOKENIZER_TYPE_TOKENIZER_JSON);
    EXPECT_THAT(write_json(spec, {2}), HasSubstr("\"type\": \"tokenizer_json\""));
  }
}

TEST(JobRules, MaskedTasksHaveARate) {
  for (const auto& [type, rate, expected] : {std::tuple{"masked_lm", "", 0.15},
                                             {"masked_lm", ", mask_rate: 0.4", 0.4},
                                             {"permutation_lm", "", 1.0 / 6},
                                             {"permutation_lm", ", mask_rate: 0.4", 0.4}}) {
    proto::JobSpec spec;
    const std::string task = std::string("{type: ") + type + ", data: {train: a.txt}" + rate + "}";
    ASSERT_EQ(finish("name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [" + task +
                         "]\ntraining: {steps: 5}\n",
                     &spec)
                  .to_string(),
              "ok");
    EXPECT_EQ(spec.tasks(0).name(), type);
    EXPECT_EQ(spec.tasks(0).mask_rate(), expected);
  }
}

TEST(JobRules, APermutationPredictsAShareOfARow) {
  for (const auto& [rate, tokens, count] :
       {std::tuple{1.0 / 6, 512, 85}, {0.5, 3, 2}, {0.01, 20, 1}, {0.99, 8, 7}, {0.5, 1, 0}}) {
    EXPECT_EQ(permuted_tokens(rate, tokens), count) << rate << " " << tokens;
  }
  const auto permuted = [](int length, proto::JobSpec* spec) {
    return finish(
        "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: "
        "permutation_lm, data: {train: a.txt}}]\ntraining: {steps: 5, "
        "sequence_length: " +
            std::to_string(length) + "}\n",
        spec);
  };
  proto::JobSpec spec;
  ASSERT_EQ(permuted(60, &spec).to_string(), "ok");
  EXPECT_EQ(permuted_tokens(spec), 10);
  EXPECT_EQ(permuted(1, &spec).to_string(),
            "training.sequence_length must be at least 2 for permutation_lm: a token is predicted "
            "from others (got 1) (line 5)");
}

constexpr const char* kAutomatic = R"(
name: small
kind: fine_tune
model: {from: ckpt-1}
tasks: [{type: causal_lm, data: {train: a.txt}}]
training: {steps: 5, batch_size: 7}
)";

TEST(JobRules, AnAutomaticMeshIsLeftOpen) {
  for (const char* parallel : {"parallel: auto\n", "parallel: {mode: auto}\n"}) {
    proto::JobSpec spec;
    ASSERT_EQ(finish(std::string(kAutomatic) + parallel, &spec).to_string(), "ok");
    EXPECT_EQ(spec.parallel().mode(), proto::PARALLEL_MODE_AUTO);
    EXPECT_FALSE(spec.parallel().has_data());
    EXPECT_EQ(spec.resources().slots(), 0);
    EXPECT_EQ(spec.training().micro_batch_size(), 0);
    EXPECT_FALSE(spec.training().has_activation_checkpointing());
    EXPECT_EQ(spec.training().log_every(), 1);
    proto::JobSpec again = spec;
    ASSERT_EQ(finish_job(again).to_string(), "ok");
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, again));
  }
}

// Rules of the mesh wait until there is one.
TEST(JobRules, AnAutomaticMeshOfInvariantTrainingIsLeftOpen) {
  proto::JobSpec spec;
  const Status status = finish(R"(
name: small
kind: fine_tune
model: {from: ckpt-1}
tasks: [{type: causal_lm, data: {train: a.txt}}]
training: {steps: 5, batch_size: 8, reproducible: topology}
parallel: auto
)",
                               &spec);
  EXPECT_EQ(status.to_string(), "ok");
}

TEST(JobRules, AnAutomaticMeshStandsAlone) {
  const auto refused = [](const std::string& more) {
    proto::JobSpec spec;
    return finish(std::string(kAutomatic) + more, &spec);
  };
  for (const char* key : {"data: 2", "sequence: 1", "tensor: 4", "ulysses: 2", "zero: 0",
                          "sequence_attention: ring"}) {
    const Status status = refused(std::string("parallel: {mode: auto, ") + key + "}\n");
    const std::string text = key;
    EXPECT_EQ(status.field(), "parallel." + text.substr(0, text.find(':')));
    EXPECT_EQ(status.value(), text.substr(text.find(' ') + 1));
    EXPECT_NE(status.rule().find("cannot stand beside parallel: auto"), std::string::npos);
    EXPECT_EQ(status.line(), 7) << status.to_string();
  }
  EXPECT_EQ(refused("parallel: {mode: auto, bucket_bytes: 8192}\n").to_string(), "ok");
  for (const char* word : {"parallel: fast", "parallel: AUTO", "parallel: 4", "parallel: [1, 2]"}) {
    const Status status = refused(std::string(word) + "\n");
    EXPECT_EQ(status.field(), "parallel") << status.to_string();
    EXPECT_NE(status.rule().find("must be an object or auto"), std::string::npos)
        << status.to_string();
  }
  EXPECT_EQ(refused("parallel: auto\nresources: {slots: 2, nodes: 3}\n").field(),
            "resources.nodes");
}

TEST(JobRules, OneKeyIsSetToAuto) {
  proto::JobSpec spec;
  ASSERT_TRUE(set_path(spec, "parallel", "auto").ok());
  EXPECT_EQ(spec.parallel().mode(), proto::PARALLEL_MODE_AUTO);
  ASSERT_TRUE(set_path(spec, "parallel", "{tensor: 2}").ok());
  EXPECT_EQ(spec.parallel().mode(), proto::PARALLEL_MODE_UNSPECIFIED);
  EXPECT_EQ(set_path(spec, "parallel", "quick").field(), "parallel");
}

struct Edit {
  const char* from;
  const char* to;
  const char* field;
  int line;
  const char* rule;
};

class BadJob : public ::testing::TestWithParam<Edit> {};

// Each edit of the sample breaks one rule.
TEST_P(BadJob, IsRefusedWithFieldLineAndRule) {
  const Edit& edit = GetParam();
  std::string text = sample();
  size_t at = text.find(edit.from);
  ASSERT_NE(at, std::string::npos) << edit.from;
  text.replace(at, std::string(edit.from).size(), edit.to);
  proto::JobSpec spec;
  Status status = finish(text, &spec);
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.to_string();
  EXPECT_EQ(status.field(), edit.field) << status.to_string();
  EXPECT_EQ(status.line(), edit.line) << status.to_string();
  EXPECT_NE(status.rule().find(edit.rule), std::string::npos) << status.to_string();
}

constexpr const char* kConfig =
    "{family: gpt2, config: {n_layer: 4, n_head: 4, n_embd: 128, n_positions: 256, "
    "vocab_size: 257, layer_norm_epsilon: 1e-05}}";
constexpr const char* kFirstTask =
    "- {name: lm, type: causal_lm, weight: 1.0, data: {train: texts/, format: text}}\n";

const Edit kEdits[] = {
    {"name: licences", "name: ''", "name", 1, "must not be empty"},
    {"name: licences", "name: -x", "name", 1, "must match"},
    {"name: licences", "name: \"a\\tb\"", "name", 1, "must match"},
    {"name: licences\n", "", "name", 0, "is required"},
    {"kind: multi_task ", "priority: 1 ", "kind", 0, "is required"},
    {"kind: multi_task", "kind: pretrain", "tasks", 5, "must have exactly 1 element"},
    {"kind: multi_task", "kind: fine_tune", "model.from", 3, "is required for kind fine_tune"},
    {kConfig, "{from: ckpt-1, family: gpt2}", "model.family", 3, "comes with model.from"},
    {kConfig, "{from: ckpt-1, config: {}}", "model.config", 3, "comes with model.from"},
    {kConfig, "{config: {}}", "model.family", 3, "is required where model.from is not given"},
    {kConfig, "{family: gpt2}", "model.config", 3, "is required with model.family"},
    {kConfig, "{family: gpt3, config: {}}", "model.family", 3, "must match gpt2"},
    {"n_positions: 256", "n_positions: 100", "training.sequence_length", 8, "n_positions = 100"},
    {"n_positions: 256", "n_positions: 1.5", "model.config.n_positions", 3, "an integer"},
    {"n_positions: 256", "max_position_embeddings: 100", "training.sequence_length", 8,
     "max_position_embeddings = 100"},
    {"n_positions: 256", "n_ctx: 100", "training.sequence_length", 8, "n_ctx = 100"},
    {kConfig, "{family: llama, config: {max_position_embeddings: 100, vocab_size: 257}}",
     "training.sequence_length", 8, "max_position_embeddings = 100"},
    {kConfig, "{family: llama, config: {num_attention_heads: 0}}",
     "model.config.num_attention_heads", 3, "must be an integer"},
    {"n_head: 4", "num_attention_heads: 0", "model.config.num_attention_heads", 3,
     "must be an integer"},
    {"n_head: 4", "n_head: two", "model.config.n_head", 3, "must be an integer"},
    {"vocab_size: 257", "vocab_size: 256", "model.config.vocab_size", 3, "at least 257"},
    {"tokenizer: {type: byte}", "priority: 0", "tokenizer", 0, "is required"},
    {"{type: byte}", "{type: byte, from: t.json}", "tokenizer.from", 4, "is only for"},
    {"{type: byte}", "{type: tokenizer_json}", "tokenizer.from", 4, "is required for"},
    {"{type: byte}", "{from: t.json}", "tokenizer.type", 4, "is required"},
    {kFirstTask, "", "tasks", 5, "at least 2 elements"},
    {"name: licence,", "name: lm,", "tasks[1].name", 7, "must be unique"},
    {"weight: 1.0", "weight: 0", "tasks[0].weight", 6, "must be above 0"},
    {"weight: 1.0", "weight: -0.0", "tasks[0].weight", 6, "must be above 0"},
    {"weight: 1.0", "labels: 3", "tasks[0].labels", 6, "only for sequence_classification"},
    {"labels: 8, ", "", "tasks[1].labels", 7, "is required for sequence_classification"},
    {"weight: 1.0", "mask_rate: 0.15", "tasks[0].mask_rate", 6, "is only for masked_lm"},
    {"type: causal_lm", "type: masked_lm, mask_rate: 0", "tasks[0].mask_rate", 6, "above 0"},
    {"type: causal_lm", "type: permutation_lm, labels: 2", "tasks[0].labels", 6, "is only for"},
    {"type: causal_lm", "type: masked_lm, mask_rate: 1", "tasks[0].mask_rate", 6, "below 1"},
    {"type: causal_lm", "type: masked_lm, labels: 2", "tasks[0].labels", 6, "is only for"},
    {"type: causal_lm", "type: token_classification", "tasks[0].labels", 6,
     "is required for token_classification"},
    {"type: causal_lm", "type: token_classification, labels: 9", "tasks[0].data.format", 6,
     "must be jsonl for token_classification"},
    {"type: sequence_classification, labels: 8", "type: multiple_choice", "tasks[1].labels", 7,
     "is required for multiple_choice"},
    {"type: causal_lm", "type: multiple_choice, labels: 4", "tasks[0].data.format", 6,
     "must be jsonl with data.text_pair"},
    {"labels: 8", "labels: 1", "tasks[1].labels", 7, "must be between 2 and 100000"},
    {"labels: 8", "labels: 0", "tasks[1].labels", 7, "must be between 2 and 100000"},
    {"format: jsonl", "format: text", "tasks[1].data.format", 7, "must be jsonl"},
    {"text: text", "text: label", "tasks[1].data.label", 7, "must differ"},
    {"text: text", "text_pair: label", "tasks[1].data.text_pair", 7, "differ from data.label"},
    {"train: texts/", "label: class, train: texts/", "tasks[0].data.label", 6,
     "is only for sequence_classification, token_classification, multiple_choice and"},
    {"train: texts/", "label: '', train: texts/", "tasks[0].data.label", 6, "is only for"},
    {"train: texts/", "text: body, train: texts/", "tasks[0].data.text", 6,
     "is only for data.format: jsonl"},
    {"text: text", "text: ''", "tasks[1].data.text", 7, "must not be empty"},
    {"label: label", "label: ''", "tasks[1].data.label", 7, "must not be empty"},
    {"train: texts/", "text_pair: b, train: texts/", "tasks[0].data.text_pair", 6,
     "is only for sequence_classification, multiple_choice, question_answering and embedding"},
    {"train: train.jsonl, ", "", "tasks[1].data.train", 7, "is required"},
    {"type: causal_lm, ", "", "tasks[0].type", 6, "is required"},
    {"steps: 300, ", "", "training.steps", 8, "is required"},
    {"steps: 300", "steps: 0", "training.steps", 8, "must be between 1 and 1000000000"},
    {"steps: 300", "steps: 19", "training.schedule.warmup_steps", 9, "training.steps = 19"},
    {"batch_size: 16", "batch_size: 3", "training.micro_batch_size", 8, "parallel.data = 3"},
    {"seed: 17", "seed: -1", "training.seed", 8, "between 0 and 9007199254740991"},
    {"seed: 17", "seed: 9007199254740992", "training.seed", 8, "between 0 and 9007199254740991"},
    {"gradient_clip: 1.0", "gradient_clip: -1", "training.gradient_clip", 8, "between 0"},
    {"validation: held.jsonl, ", "", "training.evaluate_every", 8, "data.validation"},
    {"evaluate_every: 50", "early_stop: {patience: 2}", "training.early_stop.patience", 8,
     "evaluate_every above 0"},
    {"seed: 17", "dropout: 1", "training.dropout", 8, "must be at least 0 and below 1"},
    {"learning_rate: 3.0e-4", "learning_rate: 0", "training.optimizer.learning_rate", 9,
     "must be above 0 and at most 100"},
    {"[0.9, 0.95]", "[0.9]", "training.optimizer.betas", 9, "must have exactly 2 elements"},
    {"[0.9, 0.95]", "[0.9, 1]", "training.optimizer.betas[1]", 9, "below 1"},
    {"[0.9, 0.95]", "[]", "training.optimizer.betas", 9, "must not be empty"},
    {"sequence_length: 128", "sequence_length: 1", "training.sequence_length", 8,
     "must be at least 2 for a causal_lm"},
    {"keep_last: 3", "keep_last: -1", "checkpoint.keep_last", 10, "between 0 and 100000"},
    {"data: 1,", "data: 0,", "parallel.data", 11, "between 1 and 65536"},
    {"data: 1,", "data: 17,", "resources.slots", 12, "= 34"},
    {"data: 1,", "data: 65536,", "parallel", 11, "at most 65536"},
    {"slots: 2, nodes: 2", "nodes: 3", "resources.nodes", 12, "at most the number of ranks"},
    {"slots: 2", "slots: 3", "resources.slots", 12, "= 2, or left out"},
    {"{slots: 2, nodes: 2}", "{}\nmax_restarts: 1001", "max_restarts", 13, "between 0 and 1000"},
};
INSTANTIATE_TEST_SUITE_P(Edits, BadJob, ::testing::ValuesIn(kEdits));

TEST(JobRules, Gpt2sPositionsHaveLlamasNameToo) {
  std::string text = sample();
  for (const auto& [from, to] : {std::pair{"n_positions: 256", "max_position_embeddings: 2048"},
                                 {"sequence_length: 128", "sequence_length: 2048"}}) {
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), std::string(from).size(), to);
  }
  proto::JobSpec spec;
  EXPECT_EQ(finish(text, &spec).to_string(), "ok");
}

TEST(JobRules, ASizeThatIsATextIsToldAsItWasWritten) {
  std::string text = sample();
  const std::string heads = "n_head: 4";
  text.replace(text.find(heads), heads.size(), "n_head: two");
  proto::JobSpec spec;
  const Status status = finish(text, &spec);
  EXPECT_EQ(status.field(), "model.config.n_head");
  EXPECT_EQ(status.value(), "two");
}

TEST(JobRules, TheBestCheckpointIsThatOfAnEvaluation) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(sample(), spec).ok());
  spec.mutable_checkpoint()->set_keep_best(true);
  proto::JobSpec evaluated = spec;
  EXPECT_EQ(finish_job(evaluated).to_string(), "ok");
  spec.mutable_training()->clear_evaluate_every();
  const Status status = finish_job(spec);
  EXPECT_EQ(status.field(), "checkpoint.keep_best");
  EXPECT_EQ(status.rule(), "needs training.evaluate_every above 0");
}

TEST(JobRules, EveryAxisNeedsWorkForEachRank) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(sample(), spec).ok());
  spec.clear_resources();
  spec.mutable_training()->clear_micro_batch_size();
  proto::JobSpec rows = spec;
  rows.mutable_parallel()->set_data(17);
  EXPECT_EQ(finish_job(rows).field(), "parallel.data");
  proto::JobSpec tokens = spec;
  tokens.mutable_parallel()->set_sequence(129);
  EXPECT_EQ(finish_job(tokens).field(), "parallel.sequence");
  proto::JobSpec uneven = spec;
  uneven.mutable_parallel()->set_data(3);
  uneven.mutable_parallel()->set_tensor(3);
  EXPECT_EQ(finish_job(uneven).to_string(), "ok");
  EXPECT_EQ(uneven.training().micro_batch_size(), 6);
}

TEST(JobRules, TheSequenceAxisIsAGrid) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(sample(), spec).ok());
  spec.clear_resources();
  spec.mutable_parallel()->set_sequence(6);
  proto::JobSpec plain = spec;
  EXPECT_EQ(finish_job(plain).to_string(), "ok");
  EXPECT_EQ(plain.parallel().sequence_attention(), proto::SEQUENCE_ATTENTION_AUTO);
  spec.mutable_parallel()->set_ulysses(3);
  for (const auto kind : {proto::SEQUENCE_ATTENTION_AUTO, proto::SEQUENCE_ATTENTION_RING,
                          proto::SEQUENCE_ATTENTION_ULYSSES}) {
    proto::JobSpec other = spec;
    other.mutable_parallel()->set_sequence_attention(kind);
    EXPECT_EQ(finish_job(other).field(), "parallel.ulysses");
  }
  spec.mutable_parallel()->set_sequence_attention(proto::SEQUENCE_ATTENTION_ULYSSES_RING);
  proto::JobSpec grid = spec;
  EXPECT_EQ(finish_job(grid).to_string(), "ok");
  grid.mutable_parallel()->clear_ulysses();
  const Status absent = finish_job(grid);
  EXPECT_EQ(absent.field(), "parallel.ulysses");
  EXPECT_EQ(absent.rule(),
            "is required for parallel.sequence_attention: ulysses_ring: a divisor of "
            "parallel.sequence = 6");
  grid.mutable_parallel()->set_ulysses(4);
  const Status status = finish_job(grid);
  EXPECT_EQ(status.field(), "parallel.ulysses");
  EXPECT_NE(status.to_string().find("must divide parallel.sequence = 6"), std::string::npos);
}

TEST(JobRules, TopologyInvariantJobsFitTheirBlocks) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(sample(), spec).ok());
  spec.clear_resources();
  spec.mutable_training()->clear_micro_batch_size();
  spec.mutable_training()->set_reproducible(proto::REPRODUCIBLE_TOPOLOGY);
  proto::JobSpec whole = spec;
  ASSERT_EQ(finish_job(whole).to_string(), "ok");
  EXPECT_EQ(whole.training().reproducible_blocks(), 8);
  const auto refused = [&](auto change, const std::string& field, const std::string& rule) {
    proto::JobSpec other = spec;
    change(*other.mutable_training(), *other.mutable_parallel());
    const Status status = finish_job(other);
    EXPECT_EQ(status.field(), field) << status.to_string();
    EXPECT_NE(status.rule().find(rule), std::string::npos) << status.to_string();
  };
  refused([](auto& t, auto&) { t.set_reproducible_blocks(12); }, "training.reproducible_blocks",
          "a power of two");
  refused([](auto&, auto& p) { p.set_data(8); }, "parallel",
          "divides training.reproducible_blocks");
  refused([](auto& t, auto&) { t.set_precision(proto::PRECISION_FP16); }, "training.precision",
          "fp32 or bf16");
  refused([](auto&, auto& p) { p.set_sequence_attention(proto::SEQUENCE_ATTENTION_RING); },
          "parallel.sequence_attention", "ulysses or auto");
  refused([](auto& t, auto&) { t.set_micro_batch_size(6); }, "training.batch_size",
          "multiple of the rows at once");
  refused([](auto& t, auto&) { t.set_batch_size(12); }, "training.batch_size",
          "must give rows at once, training.micro_batch_size x parallel.data, now 12, that are a "
          "multiple of training.reproducible_blocks = 8 for a sequence_class");
  refused([](auto& t, auto&) { t.set_micro_batch_size(4); }, "training.micro_batch_size",
          "now 4, that are a multiple of training.reproducible_blocks = 8 for a sequence_class");
  refused([](auto& t, auto&) { t.set_batch_size(4); }, "training.batch_size",
          "for a sequence_classification");
  refused(
      [](auto& t, auto&) {
        t.set_reproducible(proto::REPRODUCIBLE_MESH);
        t.set_reproducible_blocks(4);
      },
      "training.reproducible_blocks", "only for training.reproducible: topology");
  refused(
      [](auto& t, auto&) {
        t.set_reproducible(proto::REPRODUCIBLE_NONE);
        t.set_reproducible_blocks(4);
      },
      "training.reproducible_blocks", "only for training.reproducible: topology");
  // What no mesh changes is refused before there is one.
  spec.mutable_parallel()->Clear();
  spec.mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  refused([](auto& t, auto&) { t.set_precision(proto::PRECISION_FP16); }, "training.precision",
          "fp32 or bf16");
  refused([](auto& t, auto&) { t.set_reproducible_blocks(6); }, "training.reproducible_blocks",
          "power of two");
  proto::JobSpec on_gpus = spec;
  on_gpus.mutable_resources()->set_device(proto::COMPUTE_DEVICE_GPU);
  EXPECT_EQ(finish_job(on_gpus).to_string(), "ok");
}

TEST(JobRules, RowsOfTopologyInvariantJobsDivideTheBlocksOrAreAMultiple) {
  proto::JobSpec tuned;
  ASSERT_TRUE(read_yaml(kTuned, tuned).ok());
  tuned.mutable_training()->set_reproducible(proto::REPRODUCIBLE_TOPOLOGY);
  tuned.mutable_training()->set_batch_size(4);
  tuned.mutable_training()->set_sequence_length(127);
  const Status uneven = finish_job(tuned);
  EXPECT_EQ(uneven.field(), "training.sequence_length");
  EXPECT_NE(uneven.rule().find("multiple of"), std::string::npos) << uneven.to_string();
  tuned.mutable_training()->set_batch_size(12);
  tuned.mutable_training()->clear_micro_batch_size();
  const Status between = finish_job(tuned);
  EXPECT_EQ(between.field(), "training.batch_size");
  EXPECT_NE(between.rule().find("now 12, that divide training.reproducible_blocks = 8 or are a"),
            std::string::npos)
      << between.to_string();
}

TEST(JobRules, AnEmptySpecIsRefusedNotFatal) {
  proto::JobSpec spec;
  EXPECT_EQ(finish_job(spec).field(), "name");
}

}  // namespace
}  // namespace weft
