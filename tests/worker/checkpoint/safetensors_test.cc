// The safetensors reader against hostile headers, slices, conversions and shards; the writer
// against the reader.
#include "worker/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "worker/checkpoint/safetensors_convert.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

class SafetensorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/safetensors-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string put(const std::string& name, const std::string& content) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  // A file with this header and so many data bytes.
  std::string put_header(const std::string& header, size_t data_bytes) const {
    const auto length = static_cast<uint64_t>(header.size());
    std::string text(8, '\0');
    std::memcpy(text.data(), &length, 8);
    return put("model.safetensors", text + header + std::string(data_bytes, '\0'));
  }
  std::string read_text(const std::string& path) const {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }

  std::string folder_;
};

Status write_counting(const std::string& path, const std::vector<SafetensorSpec>& specs) {
  return write_safetensors(path, specs, [](const SafetensorSpec& spec, const FloatSink& write) {
    int64_t count = 1;
    for (const int64_t size : spec.shape) count *= size;
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(i);
      if (Status status = write({&value, 1}); !status.ok()) return status;
    }
    return Status();
  });
}

struct Hostile {
  const char* header;
  size_t data_bytes;
  const char* expected;  // part of the message
};

class HostileHeader : public SafetensorsTest, public ::testing::WithParamInterface<Hostile> {};

TEST_P(HostileHeader, IsAnErrorThatSaysWhy) {
  const Hostile& hostile = GetParam();
  const auto file = SafetensorsFile::open(put_header(hostile.header, hostile.data_bytes));
  ASSERT_FALSE(file.has_value()) << hostile.header;
  EXPECT_THAT(file.error().to_string(), HasSubstr(hostile.expected));
  EXPECT_THAT(file.error().to_string(), HasSubstr("model.safetensors"));
}

#define TENSOR(fields) R"({"a":{)" fields R"(}})"
INSTANTIATE_TEST_SUITE_P(
    Table, HostileHeader,
    ::testing::Values(
        Hostile{"", 0, "header"}, Hostile{"[]", 0, "must start with {"},
        Hostile{" {}", 0, "must start with {"}, Hostile{"{", 0, "model.safetensors"},
        Hostile{"{} x", 0, "model.safetensors"}, Hostile{R"({"a":1})", 0, "\"a\""},
        Hostile{R"({"a":[]})", 0, "must be an object"}, Hostile{R"({"a":{}})", 0, "is missing"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1])"), 4, "data_offsets"},
        Hostile{TENSOR(R"("dtype":"F32","data_offsets":[0,4])"), 4, "shape"},
        Hostile{TENSOR(R"("shape":[1],"data_offsets":[0,4])"), 4, "dtype"},
        Hostile{TENSOR(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), 4, "F33"},
        Hostile{TENSOR(R"("dtype":5,"shape":[1],"data_offsets":[0,4])"), 4, "must be a string"},
        Hostile{TENSOR(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), 4, "must be an array"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4, "at least 0"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), 4, "at least 0"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"), 0,
                "63 bits"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0,
                "63 bits"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"), 4,
                "at least 0"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), 4, "two integers"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), 4, "two integers"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":["0","4"])"), 4, "two integers"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), 4, "before the start"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 3, "must lie in"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775807])"), 4,
                "must lie in"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4, "must span"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[0],"data_offsets":[0,4])"), 4, "must span"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 8, "end at byte 4"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), 8, "gap"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1)"), 4, "not a key"},
        Hostile{TENSOR(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],)"
                       R"("data_offsets":[0,4])"),
                4, "16 dims"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                8, "overlaps \"a\""},
        Hostile{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                8, "model.safetensors"},
        Hostile{R"({"__metadata__":1})", 0, "__metadata__"},
        Hostile{R"({"__metadata__":{"a":1}})", 0, "must be a string"},
        Hostile{"[[[[[[[[[[[[[[[[[[[[", 0, "header"}));
#undef TENSOR

TEST_F(SafetensorsTest, ALengthBeyondTheFileIsRefused) {
  const std::string huge = put("a.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}"));
  EXPECT_THAT(SafetensorsFile::open(huge).error().to_string(), HasSubstr("header length"));
  EXPECT_FALSE(SafetensorsFile::open(put("b", "1234567")).has_value());
  EXPECT_FALSE(SafetensorsFile::open(folder_).has_value());
  EXPECT_EQ(SafetensorsFile::open(folder_ + "/none").error().code(), Code::kNotFound);
}

TEST_F(SafetensorsTest, WhatIsWrittenIsReadAlongEachDim) {
  const std::string path = folder_ + "/model.safetensors";
  ASSERT_TRUE(write_counting(path, {{"z", {2, 3, 4}}, {"a", {5}}, {"s", {}}, {"e", {0, 7}}}).ok());
  const std::string text = read_text(path);
  uint64_t length = 0;
  std::memcpy(&length, text.data(), 8);
  EXPECT_EQ(length % 8, 0U);
  EXPECT_EQ(text.size(), 8 + length + 4 * (24 + 5 + 1));
  EXPECT_LT(text.find("\"a\""), text.find("\"z\""));
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));

  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.has_value()) << file.error().to_string();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->find("none"), nullptr);
  EXPECT_EQ(file->find("s")->elements(), 1);
  for (int dim = 0; dim < 3; ++dim) {
    const std::vector<int64_t> shape = {2, 3, 4};
    const int64_t size = shape[static_cast<size_t>(dim)];
    for (int64_t start = 0; start <= size; ++start) {
      const int64_t count = size - start;
      std::vector<float> out(static_cast<size_t>(24 / size * count));
      ASSERT_TRUE(file->read("z", dim, start, count, out).ok());
      size_t at = 0;
      for (int64_t i = 0; i < 24; ++i) {
        const int64_t index[3] = {i / 12, i / 4 % 3, i % 4};
        if (index[dim] < start) continue;
        EXPECT_EQ(out[at++], static_cast<float>(i)) << dim << " " << start;
      }
      EXPECT_EQ(at, out.size());
    }
  }
  std::vector<float> out(24);
  EXPECT_TRUE(file->read("z", out).ok());
  EXPECT_FALSE(file->read("z", 3, 0, 1, out).ok());
  EXPECT_FALSE(file->read("z", 0, 1, 2, out).ok());
  EXPECT_FALSE(file->read("z", 0, -1, 1, out).ok());
  EXPECT_FALSE(file->read("z", 0, 1, INT64_MAX, out).ok());
  EXPECT_FALSE(file->read("z", 0, 0, 1, out).ok()) << "24 elements of room for 12";
  EXPECT_EQ(file->read("none", out).code(), Code::kNotFound);
}

TEST_F(SafetensorsTest, OtherDtypesAreConverted) {
  std::string data;
  const auto add = [&data](auto value) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  add(0.1);
  add(int64_t{-7});
  add(uint16_t{0x3C00});  // F16 1
  add(uint16_t{0xBF80});  // BF16 -1
  add(int32_t{9});
  const std::string header = R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                             R"("i":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},)"
                             R"("h":{"dtype":"F16","shape":[1],"data_offsets":[16,18]},)"
                             R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[18,20]},)"
                             R"("n":{"dtype":"I32","shape":[1],"data_offsets":[20,24]}})";
  const auto length = static_cast<uint64_t>(header.size());
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  const auto file = SafetensorsFile::open(put("x", text + header + data));
  ASSERT_TRUE(file.has_value()) << file.error().to_string();
  const auto value = [&](const char* name) {
    float out = 0;
    EXPECT_TRUE(file->read(name, {&out, 1}).ok());
    return out;
  };
  EXPECT_EQ(value("d"), 0.1F);
  EXPECT_EQ(value("i"), -7.0F);
  EXPECT_EQ(value("h"), 1.0F);
  EXPECT_EQ(value("b"), -1.0F);
  float out = 0;
  EXPECT_THAT(file->read("n", {&out, 1}).to_string(), HasSubstr("I32"));
  int64_t integer = 0;
  EXPECT_TRUE(file->read_integers("n", {&integer, 1}).ok());
  EXPECT_EQ(integer, 9);
  EXPECT_TRUE(file->read_integers("i", {&integer, 1}).ok());
  EXPECT_EQ(integer, -7);
  EXPECT_FALSE(file->read_integers("d", {&integer, 1}).ok());
}

TEST_F(SafetensorsTest, TheWriterRefusesWhatDoesNotFitItsHeader) {
  const std::string path = folder_ + "/m.safetensors";
  EXPECT_THAT(write_counting(path, {{"a", {1}}, {"a", {2}}}).to_string(), HasSubstr("\"a\""));
  EXPECT_FALSE(write_counting(path, {{"\xff", {1}}}).ok());
  EXPECT_FALSE(write_counting(path, {{"a", {-1}}}).ok());
  const std::vector<float> two = {1, 2};
  const auto give_two = [&](const SafetensorSpec&, const FloatSink& write) { return write(two); };
  EXPECT_THAT(write_safetensors(path, {{"a", {1}}}, give_two).to_string(), HasSubstr("more"));
  EXPECT_THAT(write_safetensors(path, {{"a", {3}}}, give_two).to_string(), HasSubstr("fewer"));
  EXPECT_FALSE(write_counting(folder_ + "/none/m.safetensors", {{"a", {1}}}).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(SafetensorsTest, ShardsAreOneCheckpoint) {
  ASSERT_TRUE(write_counting(folder_ + "/model-00001.safetensors", {{"a", {2, 2}}}).ok());
  ASSERT_TRUE(write_counting(folder_ + "/model-00002.safetensors", {{"b", {3}}}).ok());
  const auto index = [&](const std::string& map) {
    put("model.safetensors.index.json",
        R"({"metadata":{"total_size":28},"weight_map":)" + map + "}");
    return SafetensorsSet::open_folder(folder_);
  };
  const auto set = index(R"({"a":"model-00001.safetensors","b":"model-00002.safetensors"})");
  ASSERT_TRUE(set.has_value()) << set.error().to_string();
  EXPECT_EQ(set->names(), (std::vector<std::string>{"a", "b"}));
  std::vector<float> out(2);
  ASSERT_TRUE(set->read("a", 1, 1, 1, out).ok());
  EXPECT_EQ(out, (std::vector<float>{1, 3}));
  EXPECT_EQ(set->read("c", -1, 0, 0, out).code(), Code::kNotFound);

  const auto refused = [&](const std::string& map, const std::string& expected) {
    const auto wrong = index(map);
    ASSERT_FALSE(wrong.has_value()) << map;
    EXPECT_THAT(wrong.error().to_string(), HasSubstr(expected));
  };
  refused(R"({"a":"model-00002.safetensors","b":"model-00002.safetensors"})", "\"a\"");
  refused(R"({"a":"model-00001.safetensors","c":"model-00002.safetensors"})", "\"c\"");
  refused(R"({"a":"../model-00001.safetensors"})", "same folder");
  refused(R"({"a":5})", "file name");
  refused("[]", "must be an object");
  refused("{}", "must name a tensor");
  refused(R"({"a":"model-00003.safetensors"})", "model-00003");
  std::filesystem::remove(folder_ + "/model.safetensors.index.json");
  EXPECT_EQ(SafetensorsSet::open_folder(folder_).error().code(), Code::kNotFound);
  EXPECT_THAT(SafetensorsSet::open(
                  {folder_ + "/model-00001.safetensors", folder_ + "/model-00001.safetensors"})
                  .error()
                  .to_string(),
              HasSubstr("too"));
}

}  // namespace
}  // namespace weft
