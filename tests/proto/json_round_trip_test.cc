// What is written reads back to the same message; and no bytes make a reader crash.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "google/protobuf/util/message_differencer.h"
#include "json_sample.pb.h"
#include "proto/job.pb.h"
#include "proto/json/base64.h"
#include "proto/json/job_rules.h"
#include "proto/json/utf8.h"
#include "proto/json/writer.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using google::protobuf::Message;
using google::protobuf::util::MessageDifferencer;

ReadOptions stored() {
  ReadOptions options;
  options.allow_output_only = true;
  return options;
}

void expect_round_trip(const Message& message) {
  std::unique_ptr<Message> again(message.New());
  for (int indent : {0, 2}) {
    std::string text = write_json(message, {indent});
    ASSERT_EQ(read_json(text, *again, stored()).to_string(), "ok") << text;
    EXPECT_TRUE(MessageDifferencer::Equals(message, *again)) << text;
    ASSERT_EQ(read_yaml(text, *again, stored()).to_string(), "ok") << text;
    EXPECT_TRUE(MessageDifferencer::Equals(message, *again)) << text;
    EXPECT_EQ(write_json(*again, {indent}), text);
  }
}

testing::Sample full_sample() {
  testing::Sample message;
  message.set_int32_field(std::numeric_limits<int32_t>::min());
  message.set_int64_field(std::numeric_limits<int64_t>::min());
  message.set_uint32_field(std::numeric_limits<uint32_t>::max());
  message.set_uint64_field(std::numeric_limits<uint64_t>::max());
  message.set_double_field(0.1 + 0.2);
  message.set_float_field(0.1F);
  message.set_bool_field(true);
  message.set_string_field("a \"b\" \\ / \n\t\x01 \x7f caf\xc3\xa9 \xf0\x9f\x98\x80 \xe2\x80\xa8");
  message.set_bytes_field(std::string("\0\xff\x10", 3));
  message.set_color(testing::COLOR_DARK_BLUE);
  message.set_plain(testing::SOME);
  message.mutable_inner()->set_number(-3);
  message.add_numbers(0);
  message.add_numbers(-1);
  message.add_inners();
  message.add_colors(testing::COLOR_RED);
  (*message.mutable_texts())["k.1"] = "v";
  (*message.mutable_texts())[""] = "";
  (*message.mutable_by_number())[-7].set_text("seven");
  (*message.mutable_by_bool())[false] = 1e300;
  (*message.mutable_by_size())[std::numeric_limits<uint64_t>::max()] = "max";
  message.mutable_right()->set_number(1);
  auto& free = *message.mutable_free()->mutable_fields();
  free["layer_norm_epsilon"].set_number_value(1e-05);
  free["n_layer"].set_number_value(4);
  free["none"].set_null_value(google::protobuf::NULL_VALUE);
  free["list"].mutable_list_value()->add_values()->set_bool_value(false);
  free["deep"].mutable_struct_value()->mutable_fields();
  message.mutable_any()->set_string_value("x");
  message.set_maybe(0);
  message.set_created_ms(1);
  message.mutable_child()->set_string_field("child");
  return message;
}

TEST(RoundTrip, OfEveryKindOfField) {
  expect_round_trip(full_sample());
  expect_round_trip(testing::Sample());
}

TEST(RoundTrip, ZerosAreWrittenAndUnsetFieldsAreNot) {
  testing::Inner inner;
  EXPECT_EQ(write_json(inner), R"({"number":0,"text":""})");
  testing::Sample message;
  std::string text = write_json(message);
  EXPECT_NE(text.find("\"double_field\":0.0"), std::string::npos);
  EXPECT_NE(text.find("\"plain\":\"none\""), std::string::npos);
  EXPECT_NE(text.find("\"numbers\":[]"), std::string::npos);
  for (const char* absent : {"\"color\"", "\"inner\"", "\"maybe\"", "\"left\"", "\"free\""}) {
    EXPECT_EQ(text.find(absent), std::string::npos) << absent;
  }
  message.set_maybe(0);
  EXPECT_NE(write_json(message).find("\"maybe\":0"), std::string::npos);
  WriteOptions nulls;
  nulls.unset_as_null = true;
  EXPECT_NE(write_json(message, nulls).find("\"inner\":null"), std::string::npos);
}

TEST(RoundTrip, DoublesAreShortestAndExact) {
  EXPECT_EQ(format_double(1e-05, true), "1e-05");
  EXPECT_EQ(format_double(0.0003, true), "0.0003");
  EXPECT_EQ(format_double(0.1, true), "0.1");
  EXPECT_EQ(format_double(2, true), "2.0");
  EXPECT_EQ(format_double(2, false), "2");
  EXPECT_EQ(format_double(-0.0, false), "-0.0");
  EXPECT_EQ(format_double(1e300, true), "1e+300");
  EXPECT_EQ(format_double(std::nan(""), true), "null");
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    uint64_t bits = random();
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(std::strtod(format_double(value, i % 2 == 0).c_str(), nullptr), value);
  }
}

TEST(RoundTrip, BadUtf8BecomesTheReplacementCharacter) {
  std::string text = quote_json("a\xff\xc3z");
  EXPECT_EQ(text, "\"a\xEF\xBF\xBD\xEF\xBF\xBDz\"");
  EXPECT_TRUE(parse_strict(text).has_value());
}

TEST(RoundTrip, OfBase64) {
  std::mt19937 random(2);
  for (size_t size = 0; size < 100; ++size) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(random());
    EXPECT_EQ(base64_decode(base64_encode(bytes)), bytes);
  }
  EXPECT_EQ(base64_encode("fo"), "Zm8=");
  EXPECT_EQ(base64_decode("Zg=="), "f");
  for (const char* bad : {"Z", "Zg", "Zg=", "Zh==", "=g==", "Z===", "Zg==Zg==", "Z g="}) {
    EXPECT_FALSE(base64_decode(bad).has_value()) << bad;
  }
}

TEST(Lenient, AClientSkipsWhatItDoesNotKnow) {
  ReadOptions lenient;
  lenient.lenient = true;
  testing::Sample message;
  const char* text = R"({"new_key": {"a": [1]}, "inner": null, "created_ms": 5, "maybe": 1})";
  ASSERT_EQ(read_json(text, message, lenient).to_string(), "ok");
  EXPECT_EQ(message.maybe(), 1);
  EXPECT_EQ(message.created_ms(), 5);
  EXPECT_FALSE(message.has_inner());
}

TEST(Parse, KeepsIntegersApartFromNumbers) {
  auto value = parse_strict("[0, -1, 18446744073709551615, 1.0, 1e2, -0, \"\\ud83d\\ude00\"]");
  ASSERT_TRUE(value.has_value());
  EXPECT_TRUE((*value)[0].is_number_unsigned());
  EXPECT_EQ((*value)[1].get<int>(), -1);
  EXPECT_EQ((*value)[2].get<uint64_t>(), std::numeric_limits<uint64_t>::max());
  EXPECT_TRUE((*value)[3].is_number_float());
  EXPECT_EQ((*value)[4].get<double>(), 100);
  EXPECT_EQ((*value)[6].get<std::string>(), "\xf0\x9f\x98\x80");
}

TEST(Yaml, PlainScalarsFollowTheCoreSchema) {
  auto value = parse_yaml(
      "[010, 0x1F, 0o17, +5, -5, 1., .5, 3.0e-4, 1e3, ~, True, yes, '1', 1e, 0b1, -a, 1:30]");
  ASSERT_EQ(value.has_value() ? "ok" : value.error().to_string(), "ok");
  const auto& at = value->items;
  const double numbers[] = {10, 31, 15, 5, -5, 1, 0.5, 3e-4, 1000};
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(at[i].as_double(), numbers[i]) << i;
  EXPECT_EQ(at[0].kind, JsonValue::Kind::kInteger);
  EXPECT_EQ(at[8].kind, JsonValue::Kind::kNumber);
  EXPECT_TRUE(at[9].is_null());
  EXPECT_TRUE(at[10].boolean);
  for (size_t i = 11; i < at.size(); ++i) EXPECT_TRUE(at[i].is_string()) << i;
}

// ---- random bytes
// -----------------------------------------------------------------------------------

std::string mutated(std::string text, std::mt19937& random) {
  static constexpr std::string_view kPieces[] = {"{",
                                                 "}",
                                                 "[",
                                                 "]",
                                                 ":",
                                                 ",",
                                                 "\"",
                                                 "'",
                                                 "\n",
                                                 " ",
                                                 "- ",
                                                 "&a",
                                                 "*a",
                                                 "!t",
                                                 "|",
                                                 ">",
                                                 "#",
                                                 "? ",
                                                 "---\n",
                                                 "\t",
                                                 "0",
                                                 "-1",
                                                 "1e9",
                                                 ".5",
                                                 "null",
                                                 "true",
                                                 "\\u0000",
                                                 "\xc3",
                                                 "\xa9",
                                                 "\xef\xbb\xbf",
                                                 "99999999999999999999",
                                                 "~",
                                                 "%",
                                                 "@",
                                                 "\r",
                                                 "<<: "};
  auto below = [&](size_t count) { return random() % count; };
  size_t edits = 1 + below(4);
  for (size_t i = 0; i < edits; ++i) {
    size_t at = below(text.size() + 1);
    switch (below(4)) {
      case 0:
        text.insert(at, kPieces[below(std::size(kPieces))]);
        break;
      case 1:
        text.erase(at, below(12));
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(random());
        break;
      default:
        text.insert(at, text.substr(below(text.size() + 1), below(40)));
    }
  }
  return text;
}

// Reads each mutation; what is accepted must be written and read back to the same message.
void fuzz(const std::string& text, const Message& empty, bool yaml, unsigned seed) {
  std::mt19937 random(seed);
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string changed = mutated(text, random);
    std::unique_ptr<Message> message(empty.New());
    LineMap lines;
    ReadOptions options = stored();
    options.lines = &lines;
    Status status =
        yaml ? read_yaml(changed, *message, options) : read_json(changed, *message, options);
    if (!status.ok()) {
      ++refused;
      ASSERT_FALSE(status.message().empty());
      ASSERT_EQ(utf8_first_invalid(status.to_string()), std::string_view::npos) << changed;
      continue;
    }
    ++accepted;
    std::unique_ptr<Message> again(empty.New());
    std::string written = write_json(*message);
    ASSERT_EQ(read_json(written, *again, stored()).to_string(), "ok") << changed << written;
    ASSERT_TRUE(MessageDifferencer::Equals(*message, *again)) << changed << "\n" << written;
    if (auto* spec = google::protobuf::DynamicCastToGenerated<proto::JobSpec>(message.get())) {
      proto::JobSpec finished = *spec;
      if (!finish_job(finished, &lines).ok()) continue;
      proto::JobSpec twice = finished;
      ASSERT_EQ(finish_job(twice).to_string(), "ok") << changed;
      ASSERT_TRUE(MessageDifferencer::Equals(finished, twice)) << changed;
    }
  }
  EXPECT_GT(accepted, 20);
  EXPECT_GT(refused, 500);
}

TEST(RandomBytes, OfAJobFile) {
  std::ifstream in(WEFT_SOURCE_DIR "/tests/proto/sample_job.yaml");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  fuzz(text, proto::JobSpec(), true, 11);
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(text, spec).ok());
  fuzz(write_json(spec, {1}), proto::JobSpec(), false, 12);
}

TEST(RandomBytes, OfEveryKindOfField) {
  std::string text = write_json(full_sample(), {1});
  fuzz(text, testing::Sample(), false, 13);
  fuzz(text, testing::Sample(), true, 14);
}

}  // namespace
}  // namespace weft
