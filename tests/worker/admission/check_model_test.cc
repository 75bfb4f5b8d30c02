#include "worker/admission/check_model.h"

#include <gmock/gmock.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <map>

#include "proto/checkpoint.pb.h"
#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "worker/admission/check_blocks.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/models/model.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kTokenizer =
    std::string(WEFT_SOURCE_DIR) + "/tests/worker/data/fixtures/bpe_tokenizer.json";

std::string config(const std::map<std::string, std::string>& changes = {}) {
  std::map<std::string, std::string> keys{
      {"model_type", "\"gpt2\""}, {"n_embd", "6"},       {"n_head", "3"}, {"n_inner", "5"},
      {"vocab_size", "2000"},     {"n_positions", "32"}, {"n_layer", "1"}};
  for (const auto& [key, value] : changes) keys[key] = value;
  std::string text;
  for (const auto& [key, value] : keys) {
    if (!value.empty()) text += (text.empty() ? "{" : ", ") + ("\"" + key + "\": " + value);
  }
  return text + "}";
}

class CheckModelTest : public testing::Test {
 protected:
  CheckModelTest()
      : folder_(fs::temp_directory_path() / ("weft-admission-" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write("config.json", config());
    for (const ParameterInfo& info : plan(config())) {
      shapes_[info.name] = {info.shape.extents().begin(), info.shape.extents().end()};
    }
    write_weights("model.safetensors", shapes_);
    fs::copy_file(kTokenizer, folder_ / "tokenizer.json");
  }
  ~CheckModelTest() override { fs::remove_all(folder_); }

  using Shapes = std::map<std::string, std::vector<int64_t>>;
  static std::vector<ParameterInfo> plan(const std::string& text) {
    const ModelFamily* family = find_family("gpt2");
    return family->plan(*family->parse_config(text).value(), 1, 0);
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream in(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write_weights(const std::string& name, const Shapes& shapes) const {
    std::vector<SafetensorSpec> specs;
    for (const auto& [tensor, shape] : shapes) specs.push_back({tensor, shape});
    const auto zeros = [](const SafetensorSpec& spec, const FloatSink& sink) {
      int64_t count = 1;
      for (int64_t extent : spec.shape) count *= extent;
      return sink(std::vector<float>(static_cast<size_t>(count)));
    };
    ASSERT_TRUE(write_safetensors((folder_ / name).string(), specs, zeros).ok());
  }
  static proto::JobSpec fine_tune() {
    proto::JobSpec spec;
    spec.set_name("tune");
    spec.set_kind(proto::JOB_KIND_FINE_TUNE);
    spec.mutable_model()->set_from("obj-1");
    auto* task = spec.add_tasks();
    task->set_type(proto::TASK_TYPE_CAUSAL_LM);
    task->mutable_data()->set_train("obj-2");
    spec.mutable_training()->set_steps(10);
    spec.mutable_training()->set_sequence_length(32);
    return spec;
  }
  Status check(proto::JobSpec spec, ModelInputs inputs = {}) const {
    EXPECT_TRUE(finish_job(spec).ok()) << finish_job(spec).to_string();
    const auto files = open_input_files(folder_.string());
    if (spec.model().from() == "obj-1") inputs.model = files->get();
    return check_model(spec, inputs);
  }
  void refused(const Status& status, const std::string& field, const std::string& value,
               const std::string& rule) const {
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_EQ(status.field(), field) << status.to_string();
    EXPECT_THAT(status.value(), HasSubstr(value)) << status.to_string();
    EXPECT_THAT(status.rule(), HasSubstr(rule)) << status.to_string();
  }

  const fs::path folder_;
  Shapes shapes_;
};

TEST_F(CheckModelTest, TakesAFolderThatFits) {
  EXPECT_EQ(check(fine_tune()).to_string(), "ok");
  auto shorter = fine_tune();
  shorter.mutable_training()->set_sequence_length(8);
  EXPECT_TRUE(check(shorter).ok());
}

// A step whose bytes are beyond counting names the most that this model can have.
TEST_F(CheckModelTest, RefusesAStepOfUncountableBytes) {
  proto::JobSpec spec = fine_tune();
  spec.set_kind(proto::JOB_KIND_PRETRAIN);
  spec.mutable_model()->Clear();
  spec.mutable_model()->set_family("gpt2");
  spec.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  auto& config = *spec.mutable_model()->mutable_config()->mutable_fields();
  config["n_positions"].set_number_value(1 << 24);
  spec.mutable_training()->set_sequence_length(1 << 24);
  spec.mutable_training()->set_batch_size(1 << 20);
  const Status many = check(spec);
  const std::string rule = "with this model and training.sequence_length = 16777216";
  refused(many, "training.batch_size", "1048576", rule);
  const int most = std::stoi(many.rule().substr(std::string("must be at most ").size()));
  spec.mutable_training()->set_batch_size(most);
  EXPECT_TRUE(check(spec).ok()) << check(spec).to_string();
  spec.mutable_training()->set_batch_size(most + 1);
  EXPECT_EQ(check(spec).field(), "training.batch_size");
  spec.mutable_training()->set_batch_size(1);
  config["n_layer"].set_number_value(100000);
  config["n_embd"].set_number_value(12 << 10);
  const Status row = check(spec);
  refused(row, "training.sequence_length", "16777216", "must be at most ");
  const int longest = std::stoi(row.rule().substr(std::string("must be at most ").size()));
  spec.mutable_training()->set_sequence_length(longest);
  EXPECT_TRUE(check(spec).ok()) << check(spec).to_string();
  spec.mutable_training()->set_sequence_length(longest + 1);
  EXPECT_EQ(check(spec).field(), "training.sequence_length");
}

TEST_F(CheckModelTest, ReadsTheConfiguration) {
  const std::tuple<std::string, std::string, std::string> cases[] = {
      {"{\"n_embd\": 6", "config.json", "valid JSON"},
      {"[1]", "config.json", "must be named by config.json"},
      {config({{"model_type", "\"mamba\""}}), "model_type mamba", "must be one of gpt2, llama"},
      {config({{"model_type", ""}}), "model_type absent", "must be named"},
      {config({{"n_head", "4"}}), "n_head 4", "must divide n_embd"},
      {config({{"n_embd", "\"six\""}}), "n_embd \"six\"", "must be an integer"},
      {config({{"rope_theta", "10000"}}), "rope_theta 10000", ""},
      {config({{"n_embd", "6"}, {"n_embd\": 6, \"n_embd", "6"}}), "n_embd", "twice"},
  };
  for (const auto& [text, value, rule] : cases) {
    write("config.json", text);
    refused(check(fine_tune()), "model.from", value, rule);
  }
  fs::remove(folder_ / "config.json");
  refused(check(fine_tune()), "model.from", "obj-1", "must hold config.json");
}

TEST_F(CheckModelTest, HoldsTheWeightsAgainstTheConfiguration) {
  Shapes missing = shapes_, wrong = shapes_, more = shapes_;
  missing.erase("transformer.h.0.mlp.c_fc.bias");
  write_weights("model.safetensors", missing);
  refused(check(fine_tune()), "model.from", "transformer.h.0.mlp.c_fc.bias", "must hold it");
  wrong["transformer.wte.weight"] = {1999, 6};
  write_weights("model.safetensors", wrong);
  refused(check(fine_tune()), "model.from", "transformer.wte.weight [1999, 6]", "[2000, 6]");
  more["transformer.h.1.ln_1.weight"] = {6};
  write_weights("model.safetensors", more);
  refused(check(fine_tune()), "model.from", "transformer.h.1.ln_1.weight", "must be a parameter");
  write_weights("model.safetensors", shapes_);
  std::string bytes = read("model.safetensors");
  for (size_t at = bytes.find("F32"); at < 20'000 && at != std::string::npos;
       at = bytes.find("F32", at)) {
    bytes.replace(at, 3, "I32");
  }
  write("model.safetensors", bytes);
  refused(check(fine_tune()), "model.from", "I32", "must be F32");
}

TEST_F(CheckModelTest, HoldsAnAdaptersTargetsAgainstTheModel) {
  proto::JobSpec spec = fine_tune();
  spec.mutable_adapter()->set_type(proto::ADAPTER_TYPE_LORA);
  spec.mutable_adapter()->add_targets("mlp.c_fc");
  EXPECT_TRUE(check(spec).ok()) << check(spec).to_string();
  spec.mutable_adapter()->add_targets("q_proj");
  refused(check(spec), "adapter.targets[1]", "q_proj", "c_attn, c_fc, c_proj");
}

// An adapter would leave a head frozen that no file gave.
TEST_F(CheckModelTest, AnAdapterNeedsTheHeadThatACausalTaskReads) {
  write("config.json", config({{"tie_word_embeddings", "false"}}));
  Shapes shapes = shapes_;
  shapes["score.weight"] = {3, 6};
  write_weights("model.safetensors", shapes);
  auto spec = fine_tune();
  EXPECT_EQ(check(spec).to_string(), "ok");
  spec.mutable_adapter()->set_type(proto::ADAPTER_TYPE_LORA);
  refused(check(spec), "model.from", "without lm_head.weight", "must hold lm_head.weight");
  auto& task = *spec.mutable_tasks(0);
  task.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  task.set_labels(3);
  task.mutable_data()->set_format(proto::DATA_FORMAT_JSONL);
  EXPECT_EQ(check(spec).to_string(), "ok");
  task = fine_tune().tasks(0);
  shapes["lm_head.weight"] = {2000, 6};
  write_weights("model.safetensors", shapes);
  EXPECT_EQ(check(spec).to_string(), "ok");
}

TEST_F(CheckModelTest, ReadsTheHeadersOfDamagedFiles) {
  const std::string whole = read("model.safetensors");
  for (const std::string& bytes :
       {std::string(), whole.substr(0, 5), whole.substr(0, 40), whole.substr(0, whole.size() - 1),
        std::string(8, '\xff') + whole.substr(8), whole + "x"}) {
    write("model.safetensors", bytes);
    const Status status = check(fine_tune());
    EXPECT_EQ(status.field(), "model.from") << status.to_string();
    EXPECT_THAT(status.value(), HasSubstr("model.safetensors"));
    EXPECT_FALSE(status.rule().empty()) << status.to_string();
  }
  fs::remove(folder_ / "model.safetensors");
  refused(check(fine_tune()), "model.from", "neither",
          "must hold model.safetensors or model.safetensors.index.json");
}

TEST_F(CheckModelTest, TakesWeightsInSeveralFiles) {
  Shapes first, second;
  std::string map;
  for (const auto& [name, shape] : shapes_) {
    const bool one = first.size() < 5;
    (one ? first : second)[name] = shape;
    map += (map.empty() ? "\"" : ", \"") + name + "\": \"" + (one ? "a" : "b") + ".safetensors\"";
  }
  fs::remove(folder_ / "model.safetensors");
  write_weights("a.safetensors", first);
  write_weights("b.safetensors", second);
  write("model.safetensors.index.json", "{\"weight_map\": {" + map + "}}");
  EXPECT_EQ(check(fine_tune()).to_string(), "ok");
  fs::remove(folder_ / "b.safetensors");
  refused(check(fine_tune()), "model.from", "b.safetensors", "no such file");
}

TEST_F(CheckModelTest, TheModelFitsTheBlocks) {
  const auto check_on = [&](const ModelConfig& model, int sequence, int tensor) {
    proto::JobSpec spec = fine_tune();
    spec.mutable_training()->set_reproducible(proto::REPRODUCIBLE_TOPOLOGY);
    spec.mutable_training()->set_reproducible_blocks(8);
    spec.mutable_training()->set_batch_size(2);
    spec.mutable_training()->set_micro_batch_size(2);
    spec.mutable_parallel()->set_data(1);
    spec.mutable_parallel()->set_sequence(sequence);
    spec.mutable_parallel()->set_tensor(tensor);
    return check_blocks(spec, model).to_string();
  };
  const auto refuses = [&](const std::map<std::string, std::string>& changes, int sequence,
                           int tensor) {
    return check_on(*find_family("gpt2")->parse_config(config(changes)).value(), sequence, tensor);
  };
  const std::map<std::string, std::string> fits{
      {"n_embd", "32"}, {"n_head", "4"}, {"n_inner", "64"}};
  const auto with = [&](const std::string& key, const std::string& value) {
    auto changes = fits;
    changes[key] = value;
    return changes;
  };
  EXPECT_EQ(refuses(fits, 2, 2), "ok");
  EXPECT_EQ(refuses(fits, 4, 2), "ok");  // two rows: two ranks share the tokens of a row
  EXPECT_EQ(refuses(with("n_head", "2"), 4, 2), "ok");  // and one of them has no head
  EXPECT_THAT(refuses(with("n_head", "1"), 1, 2),
              HasSubstr("parallel.tensor must divide the model's 1 heads with"));
  EXPECT_THAT(refuses(with("n_inner", "60"), 1, 1),
              HasSubstr("must divide the model's 60 inner features"));
  EXPECT_EQ(refuses(with("vocab_size", "2002"), 1, 2), "ok");  // it need not divide evenly
  const auto grouped = [&](const std::string& heads, const std::string& key_heads, int tensor,
                           int sequence = 1) {
    const auto model = find_family("llama")->parse_config(
        R"({"hidden_size": 32, "head_dim": 8, "intermediate_size": 48, "num_attention_heads": )" +
        heads + R"(, "num_key_value_heads": )" + key_heads + "}");
    return check_on(*model.value(), sequence, tensor);
  };
  EXPECT_EQ(grouped("8", "4", 4), "ok");
  EXPECT_EQ(grouped("8", "4", 8), "ok");  // a head of keys on several ranks
  EXPECT_EQ(grouped("8", "1", 8), "ok");
  EXPECT_EQ(grouped("8", "2", 4, 2), "ok");
  EXPECT_EQ(grouped("12", "3", 1), "ok");
  EXPECT_EQ(grouped("12", "3", 1, 8), "ok");
  EXPECT_THAT(grouped("12", "3", 8), HasSubstr("divide the model's 12 heads with"));
  EXPECT_EQ(grouped("12", "3", 2), "ok");  // of which one is on both ranks
  EXPECT_EQ(grouped("40", "10", 4, 2), "ok");
  const auto narrow = find_family("llama")->parse_config(
      R"({"hidden_size": 32, "head_dim": 6, "intermediate_size": 48, "num_attention_heads": 8,
          "num_key_value_heads": 2})");
  EXPECT_THAT(check_on(*narrow.value(), 1, 1),
              HasSubstr("the model's 12 features of all keys with"));
}

TEST_F(CheckModelTest, TheJobFitsTheModel) {
  auto longer = fine_tune();
  longer.mutable_training()->set_sequence_length(33);
  refused(check(longer), "training.sequence_length", "33", "n_positions = 32");
  auto wide = fine_tune();
  wide.mutable_parallel()->set_tensor(4);
  EXPECT_EQ(check(wide).to_string(), "ok");  // a rank without heads has its share of the rest
  wide.mutable_parallel()->set_tensor(2001);
  refused(check(wide), "parallel.tensor", "2001", "vocab_size = ");
}

TEST_F(CheckModelTest, TheTokenizerFitsTheModel) {
  fs::remove(folder_ / "tokenizer.json");
  refused(check(fine_tune()), "tokenizer", "absent", "no tokenizer.json");
  write("tokenizer.model", "\n\x0e\n\x05<unk>");
  refused(check(fine_tune()), "tokenizer", "absent", "AutoTokenizer.from_pretrained('FOLDER')");
  auto bytes = fine_tune();
  bytes.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  EXPECT_TRUE(check(bytes).ok());
  auto given = fine_tune();
  given.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_TOKENIZER_JSON);
  given.mutable_tokenizer()->set_from("obj-3");
  const auto file = open_input_files(kTokenizer).value();
  EXPECT_EQ(check(given, {.tokenizer = file.get()}).to_string(), "ok");
  const auto sentencepiece = open_input_files((folder_ / "tokenizer.model").string()).value();
  EXPECT_THAT(check(given, {.tokenizer = sentencepiece.get()}).to_string(),
              HasSubstr("AutoTokenizer.from_pretrained"));
  const auto folder = open_input_files(folder_.string()).value();
  refused(check(given, {.tokenizer = folder.get()}), "tokenizer.from", "a folder without it",
          "AutoTokenizer.from_pretrained");
  write("tokenizer.json", "{}");
  EXPECT_EQ(check(fine_tune()).field(), "model.from");
  EXPECT_THAT(check(fine_tune()).value(), HasSubstr("tokenizer.json"));

  fs::remove(folder_ / "tokenizer.json");
  fs::copy_file(kTokenizer, folder_ / "tokenizer.json");
  write("config.json", config({{"vocab_size", "300"}}));
  shapes_["transformer.wte.weight"] = {300, 6};
  write_weights("model.safetensors", shapes_);
  refused(check(fine_tune()), "model.from", "tokens", "vocab_size = 300");
  refused(check(given, {.tokenizer = file.get()}), "tokenizer.from", "bpe_tokenizer.json",
          "vocab_size = 300");
  write("config.json", config({{"vocab_size", "256"}}));
  shapes_["transformer.wte.weight"] = {256, 6};
  write_weights("model.safetensors", shapes_);
  refused(check(bytes), "model.config.vocab_size", "256", "at least 257");
}

// The fixture's tokenizer with bert's template: three tokens around two texts.
TEST_F(CheckModelTest, PairsFitTheirRows) {
  auto spec = fine_tune();
  proto::TaskSpec& task = *spec.mutable_tasks(0);
  task.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  task.set_labels(2);
  task.mutable_data()->set_format(proto::DATA_FORMAT_JSONL);
  task.mutable_data()->set_text_pair("second");
  refused(check(spec), "model.from", "tokenizer.json", "one row of two texts");
  nlohmann::json tokenizer = nlohmann::json::parse(read("tokenizer.json"));
  tokenizer["post_processor"] = {
      {"type", "BertProcessing"}, {"cls", {"<|endoftext|>", 995}}, {"sep", {"<|pad|>", 996}}};
  write("tokenizer.json", tokenizer.dump());
  spec.mutable_training()->set_sequence_length(5);
  EXPECT_EQ(check(spec).to_string(), "ok");
  spec.mutable_training()->set_sequence_length(4);
  refused(check(spec), "training.sequence_length", "4", "the 3 tokens");
  spec.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  refused(check(spec), "tokenizer.type", "byte", "one row of two texts");
}

TEST_F(CheckModelTest, ATargetHasRoomBesideItsEnd) {
  auto spec = fine_tune();
  spec.set_kind(proto::JOB_KIND_PRETRAIN);
  spec.mutable_model()->Clear();
  spec.mutable_model()->set_family("t5");
  spec.mutable_model()->mutable_config();
  spec.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  spec.mutable_tasks(0)->set_type(proto::TASK_TYPE_SEQ2SEQ);
  spec.mutable_tasks(0)->mutable_data()->set_format(proto::DATA_FORMAT_JSONL);
  spec.mutable_tasks(0)->mutable_data()->set_target("summary");
  spec.mutable_training()->set_target_length(2);
  EXPECT_EQ(check(spec).to_string(), "ok");
  spec.mutable_training()->set_target_length(1);
  refused(check(spec), "training.target_length", "1", "the 1 tokens");
}

TEST_F(CheckModelTest, ReadsAJobsOwnConfiguration) {
  auto spec = fine_tune();
  spec.set_kind(proto::JOB_KIND_PRETRAIN);
  spec.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  spec.mutable_model()->Clear();
  spec.mutable_model()->set_family("gpt2");
  *spec.mutable_model()->mutable_config() = json_to_struct(config({{"model_type", ""}})).value();
  EXPECT_EQ(check(spec).to_string(), "ok");
  auto& fields = *spec.mutable_model()->mutable_config()->mutable_fields();
  fields["n_head"].set_number_value(4);
  refused(check(spec), "model.config.n_head", "4", "must divide");
  fields["n_head"].set_number_value(3);
  fields["rope_theta"].set_number_value(1e4);
  EXPECT_EQ(check(spec).field(), "model.config.rope_theta");
  EXPECT_THAT(check(spec).message(), testing::StartsWith("model.config.rope_theta "));
}

// Whichever of its files they stand in.
TEST_F(CheckModelTest, SettingsOfRecordingsAreThoseOfTheModel) {
  const std::string text = R"({"model_type": "whisper", "d_model": 8, "encoder_layers": 1,
      "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
      "encoder_ffn_dim": 9, "decoder_ffn_dim": 9, "vocab_size": 2000, "num_mel_bins": 4,
      "max_source_positions": 50, "max_target_positions": 32, "decoder_start_token_id": 0})";
  write("config.json", text);
  const ModelFamily& family = *find_family("whisper");
  Shapes shapes;
  for (const ParameterInfo& info : family.plan(**family.parse_config(text), 1, 0)) {
    shapes[info.name] = {info.shape.extents().begin(), info.shape.extents().end()};
  }
  write_weights("model.safetensors", shapes);
  write("tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
  proto::JobSpec spec = fine_tune();
  spec.mutable_training()->clear_sequence_length();
  proto::TaskSpec& task = *spec.mutable_tasks(0);
  task.set_type(proto::TASK_TYPE_SPEECH_RECOGNITION);
  task.mutable_data()->set_format(proto::DATA_FORMAT_AUDIO);
  const std::string rule = "must be the model's num_mel_bins = 4";
  write("preprocessor_config.json", R"({"feature_size": 80})");
  refused(check(spec), "model.from", "preprocessor_config.json: feature_size 80", rule);
  write("processor_config.json", R"({"processor_class": "WhisperProcessor"})");
  refused(check(spec), "model.from", "preprocessor_config.json: feature_size 80", rule);
  write("processor_config.json", R"({"feature_extractor": {"feature_size": 81}})");
  refused(check(spec), "model.from", "processor_config.json: feature_size 81", rule);
  write("processor_config.json", R"({"feature_extractor": {"feature_size": 4}})");
  const Status fits = check(spec);
  EXPECT_TRUE(fits.ok()) << fits.to_string();
}

// What a model makes of an image is known once the model is.
TEST_F(CheckModelTest, AJobOfImagesHasTheTokensOfItsModel) {
  const ModelFamily& family = *find_family("vit");
  const ModelConfigPtr config = *family.parse_config(
      R"({"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
          "intermediate_size": 9, "image_size": 12, "patch_size": 4})");
  proto::CheckpointManifest base;
  base.set_id("ckpt-1");
  base.set_family("vit");
  *base.mutable_config() = json_to_struct(family.config_json(*config, {})).value();
  for (const ParameterInfo& info : family.plan(*config, 1, 0)) {
    auto& tensor = *base.add_tensors();
    tensor.set_name(info.name);
    tensor.set_role(proto::TENSOR_ROLE_WEIGHT);
    for (const int64_t extent : info.shape.extents()) tensor.add_shape(extent);
  }
  proto::JobSpec spec = fine_tune();
  spec.mutable_model()->set_from("ckpt-1");
  refused(check(spec, {.base = &base}), "tasks[0].type", "causal_lm", "that vit learns: image");
  proto::TaskSpec& task = *spec.mutable_tasks(0);
  task.set_type(proto::TASK_TYPE_IMAGE_CLASSIFICATION);
  task.set_labels(3);
  task.mutable_data()->set_format(proto::DATA_FORMAT_IMAGES);
  refused(check(spec, {.base = &base}), "training.sequence_length", "32", "10");
  spec.mutable_training()->set_sequence_length(10);
  EXPECT_EQ(check(spec, {.base = &base}).to_string(), "ok");
  spec.mutable_training()->clear_sequence_length();
  ASSERT_TRUE(finish_job(spec).ok());
  EXPECT_FALSE(spec.training().has_sequence_length());
  ASSERT_TRUE(check_model(spec, {.base = &base}).ok());
  EXPECT_EQ(spec.training().sequence_length(), 10);
}

TEST_F(CheckModelTest, ReadsACheckpointsManifest) {
  proto::CheckpointManifest base;
  base.set_id("ckpt-1");
  base.set_family("gpt2");
  *base.mutable_config() = json_to_struct(config()).value();
  for (const auto& [name, shape] : shapes_) {
    auto& tensor = *base.add_tensors();
    tensor.set_name(name);
    tensor.set_role(proto::TENSOR_ROLE_WEIGHT);
    for (int64_t extent : shape) tensor.add_shape(extent);
  }
  auto spec = fine_tune();
  spec.mutable_model()->set_from("ckpt-1");
  EXPECT_EQ(check(spec, {.base = &base}).to_string(), "ok");
  spec.mutable_training()->set_sequence_length(40);
  refused(check(spec, {.base = &base}), "training.sequence_length", "40", "n_positions = 32");
  spec.mutable_training()->set_sequence_length(8);
  base.mutable_tensors(0)->set_shape(0, 7);
  refused(check(spec, {.base = &base}), "model.from", "ckpt-1", "shape");
  base.set_family("mamba");
  refused(check(spec, {.base = &base}), "model.from", "ckpt-1: family mamba", "must be one of");
}

}  // namespace
}  // namespace weft
