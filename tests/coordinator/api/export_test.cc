#include "coordinator/api/export.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "proto/base/hash.h"
#include "proto/json/message_json.h"
#include "proto/json/parse.h"
#include "proto/json/value.h"

namespace weft::api {
namespace {

using Chunks = std::map<std::string, std::string>;

float element(const std::string& name, int64_t index) {
  return static_cast<float>(name.size() * 1000) + static_cast<float>(index);
}

// Adds a tensor whose element i is element(name, i), cut along `dim` at `cuts`, in chunks of at
// most `chunk_bytes`; the tiles stand in reverse order.
void add_tensor(proto::CheckpointManifest& manifest, Chunks& chunks, const std::string& name,
                const std::vector<int64_t>& shape, int dim, std::vector<int64_t> cuts,
                size_t chunk_bytes) {
  proto::TensorEntry& entry = *manifest.add_tensors();
  entry.set_name(name);
  entry.set_role(proto::TENSOR_ROLE_WEIGHT);
  entry.set_dtype("F32");
  int64_t outer = 1, inner = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    entry.add_shape(shape[i]);
    if (static_cast<int>(i) < dim) outer *= shape[i];
    if (static_cast<int>(i) > dim) inner *= shape[i];
  }
  const int64_t extent = shape[static_cast<size_t>(dim)];
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(extent);
  for (size_t t = cuts.size() - 1; t-- > 0;) {
    proto::Tile& tile = *entry.add_tiles();
    tile.set_dim(dim);
    tile.set_start(cuts[t]);
    tile.set_length(cuts[t + 1] - cuts[t]);
    std::string bytes;
    for (int64_t o = 0; o < outer; ++o) {
      for (int64_t i = cuts[t] * inner; i < cuts[t + 1] * inner; ++i) {
        const float value = element(name, o * extent * inner + i);
        char raw[4];
        std::memcpy(raw, &value, 4);
        bytes.append(raw, 4);
      }
    }
    for (size_t at = 0; at < bytes.size(); at += chunk_bytes) {
      const std::string piece = bytes.substr(at, chunk_bytes);
      proto::ChunkRef& ref = *tile.add_chunks();
      ref.set_hash(sha256_hex(piece));
      ref.set_size(static_cast<int64_t>(piece.size()));
      chunks[ref.hash()] = piece;
    }
  }
}

proto::CheckpointManifest sample(Chunks& chunks) {
  proto::CheckpointManifest manifest;
  manifest.set_id("ckpt-1");
  manifest.set_family("gpt2");
  const Status read = read_json(
      R"({"id":"ckpt-1","family":"gpt2",
          "config":{"n_layer":1,"n_head":2,"n_embd":6,"n_positions":8,"vocab_size":257},
          "tasks":[{"name":"kind","type":"sequence_classification","labels":3},
                   {"name":"lm","type":"causal_lm"}]})",
      manifest, {.lenient = true});
  EXPECT_TRUE(read.ok()) << read.to_string();
  add_tensor(manifest, chunks, "transformer.wte.weight", {257, 6}, 0, {100, 200}, 64);
  add_tensor(manifest, chunks, "transformer.h.0.attn.c_attn.weight", {6, 18}, 1, {5, 6, 12}, 28);
  add_tensor(manifest, chunks, "transformer.ln_f.bias", {6}, 0, {}, 1 << 20);
  add_tensor(manifest, chunks, "kind.score.weight", {3, 6}, 1, {2}, 8);
  add_tensor(manifest, chunks, "transformer.wpe.weight", {8, 6}, 0, {}, 1 << 20);
  manifest.mutable_tensors()->Mutable(4)->set_role(proto::TENSOR_ROLE_FIRST_MOMENT);
  return manifest;
}

Result<std::string> whole(const ExportedFile& file, const Chunks& chunks) {
  ExportReader reader(file, [&](const std::string& hash) -> Result<std::string> {
    const auto it = chunks.find(hash);
    if (it == chunks.end()) return fail(Code::kNotFound, "no chunk " + hash);
    return it->second;
  });
  std::string out;
  while (true) {
    WEFT_ASSIGN_OR_RETURN(const bool more, reader.read(out));
    if (!more) return out;
  }
}

const ExportedFile& file_of(const Export& exported, const std::string& name) {
  for (const ExportedFile& file : exported.files) {
    if (file.name == name) return file;
  }
  ADD_FAILURE() << "no file " << name;
  return exported.files.front();
}

// name -> shape of the header; checks every element and that the bytes tile the file.
std::map<std::string, std::vector<int64_t>> check_weights(
    const std::string& bytes, const std::map<std::string, std::string>& stored_names) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  const auto head = parse_json(std::string_view(bytes).substr(8, size));
  EXPECT_TRUE(head.has_value());
  EXPECT_EQ(size % 8, 0U);
  std::map<std::string, std::vector<int64_t>> shapes;
  size_t at = 8 + size;
  for (const JsonMember& member : head->members) {
    if (member.key == "__metadata__") continue;
    EXPECT_EQ(member.value.find("dtype")->text, "F32");
    int64_t count = 1;
    for (const JsonValue& extent : member.value.find("shape")->items) {
      shapes[member.key].push_back(extent.integer);
      count *= extent.integer;
    }
    const auto& offsets = member.value.find("data_offsets")->items;
    EXPECT_EQ(static_cast<size_t>(offsets[0].integer), at - 8 - size);
    const auto stored = stored_names.find(member.key);
    for (int64_t i = 0; i < count; ++i, at += 4) {
      float value = 0;
      std::memcpy(&value, bytes.data() + at, 4);
      EXPECT_EQ(value, element(stored == stored_names.end() ? member.key : stored->second, i))
          << member.key << " " << i;
    }
    EXPECT_EQ(static_cast<size_t>(offsets[1].integer), at - 8 - size);
  }
  EXPECT_EQ(at, bytes.size());
  return shapes;
}

TEST(Export, AssemblesTilesOfEveryDim) {
  Chunks chunks;
  const auto exported = make_export(sample(chunks), "");
  ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
  EXPECT_EQ(exported->task, "lm");
  const ExportedFile& file = file_of(*exported, "model.safetensors");
  const auto bytes = whole(file, chunks);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().to_string();
  EXPECT_EQ(static_cast<int64_t>(bytes->size()), file.bytes);
  const auto shapes = check_weights(*bytes, {});
  EXPECT_EQ(shapes.size(), 3U);
  EXPECT_EQ(shapes.at("transformer.h.0.attn.c_attn.weight"), (std::vector<int64_t>{6, 18}));
  EXPECT_NE(file_of(*exported, "config.json").text.find("GPT2LMHeadModel"), std::string::npos);
}

TEST(Export, TakesTheHeadThatIsAskedFor) {
  Chunks chunks;
  const auto exported = make_export(sample(chunks), "kind");
  ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
  const auto bytes = whole(file_of(*exported, "model.safetensors"), chunks);
  ASSERT_TRUE(bytes.has_value());
  const auto shapes = check_weights(*bytes, {{"score.weight", "kind.score.weight"}});
  EXPECT_EQ(shapes.at("score.weight"), (std::vector<int64_t>{3, 6}));
  const std::string& config = file_of(*exported, "config.json").text;
  EXPECT_NE(config.find("GPT2ForSequenceClassification"), std::string::npos);
  EXPECT_NE(config.find("LABEL_2"), std::string::npos);
  proto::CheckpointManifest named = sample(chunks);
  for (const auto& [task, first] : {std::pair{"lm", "none"}, std::pair{"kind", "gpl"}}) {
    proto::TaskLabels& labels = *named.add_label_names();
    labels.set_task(task);
    for (const char* name : {first, "mit"}) labels.add_names(name);
  }
  const auto of_names = make_export(named, "kind");
  ASSERT_TRUE(of_names.has_value());
  const auto json = parse_json(file_of(*of_names, "config.json").text);
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ(json->find("id2label")->find("0")->text, "gpl");
  EXPECT_EQ(json->find("label2id")->find("mit")->integer, 1);
  EXPECT_EQ(json->find("id2label")->find("2")->text, "LABEL_2") << "no row of the data had it";
  const auto none = make_export(sample(chunks), "other");
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().field(), "task");
  EXPECT_NE(none.error().rule().find("kind, lm"), std::string::npos);
}

// sample() with an adapter of c_attn.
proto::CheckpointManifest adapted(Chunks& chunks) {
  proto::CheckpointManifest manifest = sample(chunks);
  manifest.mutable_adapter()->set_type(proto::ADAPTER_TYPE_LORA);
  manifest.mutable_adapter()->set_rank(2);
  manifest.mutable_adapter()->set_alpha(3);
  manifest.mutable_adapter()->add_targets("c_attn");
  manifest.mutable_adapter()->set_base_model("some/gpt2");
  const std::string map = "transformer.h.0.attn.c_attn.";
  add_tensor(manifest, chunks, map + "lora_A.weight", {2, 6}, 1, {4}, 8);
  add_tensor(manifest, chunks, map + "lora_B.weight", {18, 2}, 0, {5, 6, 12}, 12);
  add_tensor(manifest, chunks, map + "lora_B.weight", {18, 2}, 0, {}, 64);
  manifest.mutable_tensors()->rbegin()->set_role(proto::TENSOR_ROLE_FIRST_MOMENT);
  return manifest;
}

TEST(Export, AnAdapterIsMergedIntoTheWeights) {
  Chunks chunks;
  const proto::CheckpointManifest manifest = adapted(chunks);
  const auto exported = make_export(manifest, "");
  ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
  const ExportedFile& file = file_of(*exported, "model.safetensors");
  ASSERT_EQ(file.tensors.size(), 3U);
  EXPECT_EQ(file.text.find("lora"), std::string::npos);
  const auto bytes = whole(file, chunks);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().to_string();
  EXPECT_EQ(static_cast<int64_t>(bytes->size()), file.bytes);
  // The first tensor by name is c_attn [6, 18].
  const std::string name = "transformer.h.0.attn.c_attn.";
  for (int64_t in = 0; in < 6; ++in) {
    for (int64_t out = 0; out < 18; ++out) {
      double expected = double{element(name + "weight", in * 18 + out)};
      for (int64_t r = 0; r < 2; ++r) {
        expected += 1.5 * double{element(name + "lora_A.weight", r * 6 + in)} *
                    double{element(name + "lora_B.weight", out * 2 + r)};
      }
      float value = 0;
      std::memcpy(&value, bytes->data() + file.text.size() + 4 * (in * 18 + out), 4);
      EXPECT_NEAR(double{value} / expected, 1, 1e-6) << in << " " << out;
    }
  }
}

// With DoRA each output times magnitude / norm, a column of c_attn here.
TEST(Export, MagnitudesRescaleTheMergedWeights) {
  Chunks chunks;
  proto::CheckpointManifest manifest = adapted(chunks);
  manifest.mutable_adapter()->set_dora(true);
  EXPECT_EQ(make_export(manifest, "").error().code(), Code::kCorruption);  // has no magnitudes
  const std::string name = "transformer.h.0.attn.c_attn.";
  add_tensor(manifest, chunks, name + "lora_magnitude_vector", {18}, 0, {5, 6, 12}, 12);
  const auto exported = make_export(manifest, "");
  ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
  const ExportedFile& file = file_of(*exported, "model.safetensors");
  EXPECT_EQ(file.text.find("lora"), std::string::npos);
  const auto bytes = whole(file, chunks);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().to_string();
  EXPECT_EQ(static_cast<int64_t>(bytes->size()), file.bytes);
  for (int64_t out = 0; out < 18; ++out) {
    std::array<double, 6> sums{};
    double squares = 0;
    for (int64_t in = 0; in < 6; ++in) {
      double& sum = sums[static_cast<size_t>(in)];
      sum = double{element(name + "weight", in * 18 + out)};
      for (int64_t r = 0; r < 2; ++r) {
        sum += 1.5 * double{element(name + "lora_A.weight", r * 6 + in)} *
               double{element(name + "lora_B.weight", out * 2 + r)};
      }
      squares += sum * sum;
    }
    const double factor = double{element(name + "lora_magnitude_vector", out)} / std::sqrt(squares);
    for (int64_t in = 0; in < 6; ++in) {
      float value = 0;
      std::memcpy(&value, bytes->data() + file.text.size() + 4 * (in * 18 + out), 4);
      EXPECT_NEAR(double{value} / (factor * sums[static_cast<size_t>(in)]), 1, 1e-6)
          << in << " " << out;
    }
  }
  const auto alone = make_export(manifest, "", /*adapter_only=*/true);
  ASSERT_TRUE(alone.has_value()) << alone.error().to_string();
  EXPECT_TRUE(parse_peft_config(file_of(*alone, "adapter_config.json").text)->adapter.dora);
  EXPECT_NE(file_of(*alone, "adapter_model.safetensors")
                .text.find("base_model.model." + name + "lora_magnitude_vector"),
            std::string::npos);
}

TEST(Export, RefusesAnAdapterOfOtherShapes) {
  for (const int rank : {1, 3, 64}) {
    Chunks chunks;
    proto::CheckpointManifest manifest = adapted(chunks);
    manifest.mutable_adapter()->set_rank(rank);
    const auto exported = make_export(manifest, "");
    ASSERT_FALSE(exported.has_value()) << rank;
    EXPECT_EQ(exported.error().code(), Code::kCorruption);
  }
}

TEST(Export, AnAdapterAloneIsAPeftFolder) {
  Chunks chunks;
  const proto::CheckpointManifest manifest = adapted(chunks);
  const std::string prefix = "base_model.model.", map = "transformer.h.0.attn.c_attn.";
  for (const std::string task : {"lm", "kind"}) {
    const auto exported = make_export(manifest, task, /*adapter_only=*/true);
    ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
    ASSERT_EQ(exported->files.size(), 2U);
    const auto config = parse_peft_config(file_of(*exported, "adapter_config.json").text);
    ASSERT_TRUE(config.has_value()) << config.error().to_string();
    EXPECT_EQ(config->base_model, "some/gpt2");
    EXPECT_EQ(config->adapter.scaling(), 1.5);
    EXPECT_EQ(config->task_type, task == "kind" ? "SEQ_CLS" : "CAUSAL_LM");
    const auto bytes = whole(file_of(*exported, "adapter_model.safetensors"), chunks);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().to_string();
    const auto shapes =
        check_weights(*bytes, {{prefix + map + "lora_A.weight", map + "lora_A.weight"},
                               {prefix + map + "lora_B.weight", map + "lora_B.weight"},
                               {prefix + "score.weight", "kind.score.weight"}});
    EXPECT_EQ(shapes.size(), task == "kind" ? 3U : 2U);
    EXPECT_EQ(shapes.at(prefix + map + "lora_B.weight"), (std::vector<int64_t>{18, 2}));
  }
  const auto none = make_export(sample(chunks), "lm", true);
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().field(), "adapter");
}

TEST(Export, AnAdapterOfChoicesHasNoTypeOfTask) {
  Chunks chunks;
  proto::CheckpointManifest manifest = adapted(chunks);
  manifest.mutable_tasks(0)->set_type(proto::TASK_TYPE_MULTIPLE_CHOICE);
  const auto exported = make_export(manifest, "kind", /*adapter_only=*/true);
  ASSERT_TRUE(exported.has_value()) << exported.error().to_string();
  const auto config = parse_json(file_of(*exported, "adapter_config.json").text);
  ASSERT_TRUE(config.has_value());
  EXPECT_TRUE(config->find("task_type")->is_null());
}

TEST(Export, RefusesTilesThatDoNotCoverTheirTensor) {
  for (int kind = 0; kind < 4; ++kind) {
    Chunks chunks;
    proto::CheckpointManifest manifest = sample(chunks);
    proto::TensorEntry& tensor = *manifest.mutable_tensors(1);
    if (kind == 0) tensor.mutable_tiles()->RemoveLast();
    if (kind == 1) tensor.mutable_tiles(0)->set_start(13);
    if (kind == 2) tensor.mutable_tiles(1)->mutable_chunks()->RemoveLast();
    if (kind == 3) tensor.mutable_tiles(1)->set_dim(0);
    const auto exported = make_export(manifest, "");
    ASSERT_FALSE(exported.has_value()) << kind;
    EXPECT_EQ(exported.error().code(), Code::kCorruption);
  }
}

TEST(Export, AMissingOrShortChunkEndsTheFile) {
  Chunks chunks;
  const auto exported = make_export(sample(chunks), "");
  ASSERT_TRUE(exported.has_value());
  const ExportedFile& file = file_of(*exported, "model.safetensors");
  const std::string hash = file.tensors[1].entry.tiles(0).chunks(0).hash();
  chunks[hash].pop_back();
  EXPECT_EQ(whole(file, chunks).error().code(), Code::kCorruption);
  chunks.erase(hash);
  EXPECT_EQ(whole(file, chunks).error().code(), Code::kNotFound);
}

TEST(Export, ByteTokenizerHasEveryByte) {
  const auto json = parse_json(byte_tokenizer_json(257));
  ASSERT_TRUE(json.has_value()) << json.error().to_string();
  const auto& vocabulary = json->find("model")->find("vocab")->members;
  EXPECT_EQ(vocabulary.size(), 257U);
  std::map<std::string, int64_t> ids;
  for (const JsonMember& member : vocabulary) ids[member.key] = member.value.integer;
  EXPECT_EQ(ids.at("A"), 'A');
  EXPECT_EQ(ids.at("\xc4\xa0"), ' ');   // U+0120
  EXPECT_EQ(ids.at("\xc4\x8a"), '\n');  // U+010A
  EXPECT_EQ(ids.at("\xc3\xbf"), 0xff);
  EXPECT_EQ(parse_json(byte_tokenizer_json(256))->find("model")->find("vocab")->members.size(),
            256U);
}

TEST(Export, StoredTokenizerFilesAreHandedThrough) {
  Chunks chunks;
  proto::CheckpointManifest manifest = sample(chunks);
  const auto stored = [&](const std::string& path, const std::string& text) {
    proto::ObjectFile file;
    file.set_path(path);
    file.set_size(static_cast<int64_t>(text.size()));
    if (text.empty()) return file;
    proto::ChunkRef& ref = *file.add_chunks();
    ref.set_hash(sha256_hex(text));
    ref.set_size(file.size());
    chunks[ref.hash()] = text;
    return file;
  };
  *manifest.mutable_tokenizer() = stored("tokenizer.json", "{tokenizer}");
  *manifest.add_extra_files() = stored("sub/tokenizer_config.json", "{config}");
  *manifest.add_extra_files() = stored("config.json", "{not this}");
  *manifest.add_extra_files() = stored("empty.txt", "");
  const auto exported = make_export(manifest, "");
  ASSERT_TRUE(exported.has_value());
  EXPECT_EQ(exported->files.size(), 5U);
  EXPECT_EQ(*whole(file_of(*exported, "tokenizer.json"), chunks), "{tokenizer}");
  EXPECT_EQ(*whole(file_of(*exported, "tokenizer_config.json"), chunks), "{config}");
  EXPECT_EQ(*whole(file_of(*exported, "empty.txt"), chunks), "");
  EXPECT_NE(file_of(*exported, "config.json").text, "{not this}");
}

}  // namespace
}  // namespace weft::api
