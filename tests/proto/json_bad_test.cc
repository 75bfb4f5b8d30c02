// What is refused, and how each refusal reads: field, line and rule.
#include <gtest/gtest.h>

#include "json_sample.pb.h"
#include "proto/json/message_json.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

struct Bad {
  const char* text;
  const char* field;
  int line;
  const char* error;  // part of the message
};

void expect_refused(const Bad& bad, const Status& status) {
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad.text << "\n" << status.to_string();
  EXPECT_EQ(status.field(), bad.field) << bad.text << "\n" << status.to_string();
  EXPECT_EQ(status.line(), bad.line) << bad.text << "\n" << status.to_string();
  EXPECT_NE(status.message().find(bad.error), std::string::npos) << bad.text << "\n"
                                                                 << status.to_string();
  EXPECT_FALSE(status.rule().empty()) << bad.text;
}

// Documents that are JSON and YAML at once; both readers say the same.
const Bad kBoth[] = {
    {"{\"int32_fielt\": 1}", "int32_fielt", 1, "did you mean int32_field?"},
    {"{\n\"zzzzzzzzz\": 1}", "zzzzzzzzz", 2, "known here: int32_field, "},
    {"{\n\"inner\": {\n\"numbre\": 1}}", "inner.numbre", 3, "did you mean number?"},
    {"{\"inners\": [{}, {\"tekst\": 1}]}", "inners[1].tekst", 1, "did you mean text?"},
    {"{\"maybe\": 1,\n\"maybe\": 1}", "maybe", 2, "is written twice"},
    {"{\"inner\": {\"number\": 1,\n\"number\": 2}}", "inner.number", 2, "is written twice"},
    {"{\"free\": {\"a\": [{\"b\": 1,\n\"b\": 2}]}}", "free.a[0].b", 2, "is written twice"},
    {"{\"texts\": {\"k\": \"1\",\n\n\"k\": \"2\"}}", "texts.k", 3, "is written twice"},
    {"{\"int32_field\": \"3\"}", "int32_field", 1, "must be an integer, not a string"},
    {"{\"int32_field\":\n 1.5}", "int32_field", 2, "without fraction or exponent"},
    {"{\"int32_field\": 1e3}", "int32_field", 1, "without fraction or exponent"},
    {"{\"int32_field\": 2147483648}", "int32_field", 1, "between -2147483648 and 2147483647"},
    {"{\"int32_field\": -2147483649}", "int32_field", 1, "between -2147483648"},
    {"{\"int32_field\": 18446744073709551615}", "int32_field", 1, "between -2147483648"},
    {"{\"uint32_field\": -1}", "uint32_field", 1, "between 0 and 4294967295"},
    {"{\"uint32_field\": 4294967296}", "uint32_field", 1, "between 0 and 4294967295"},
    {"{\"uint64_field\": -1}", "uint64_field", 1, "between 0 and 18446744073709551615"},
    {"{\"int64_field\": 9223372036854775808}", "int64_field", 1, "and 9223372036854775807"},
    {"{\"int64_field\": 18446744073709551616}", "int64_field", 1, "does not fit 64 bits"},
    {"{\"int64_field\": -9223372036854775809}", "int64_field", 1, "does not fit 64 bits"},
    {"{\"int32_field\": true}", "int32_field", 1, "must be an integer, not a boolean"},
    {"{\"double_field\": true}", "double_field", 1, "must be a number, not a boolean"},
    {"{\"double_field\": \"1\"}", "double_field", 1, "must be a number, not a string"},
    {"{\"double_field\": 1e999}", "double_field", 1, "beyond the range of a double"},
    {"{\"float_field\": 1e39}", "float_field", 1, "must fit a 32-bit float"},
    {"{\"bool_field\": 1}", "bool_field", 1, "must be true or false, not an integer"},
    {"{\"bool_field\": \"true\"}", "bool_field", 1, "must be true or false, not a string"},
    {"{\"string_field\": 7}", "string_field", 1, "a string (put it in quotes), not an integer"},
    {"{\"string_field\": false}", "string_field", 1, "a string (put it in quotes)"},
    {"{\"string_field\": [1]}", "string_field", 1, "must be a string, not a list"},
    {"{\"string_field\": null}", "string_field", 1, "is empty; leave the key out"},
    {"{\"bytes_field\": \"a\"}", "bytes_field", 1, "must be base64"},
    {"{\"bytes_field\": \"QQ\"}", "bytes_field", 1, "must be base64"},
    {"{\"bytes_field\": \"QR==\"}", "bytes_field", 1, "must be base64"},
    {"{\"color\": \"blue\"}", "color", 1, "must be red or dark_blue"},
    {"{\"color\": \"dark-blue\"}", "color", 1, "did you mean dark_blue?"},
    {"{\"color\": \"COLOR_RED\"}", "color", 1, "must be red or dark_blue"},
    {"{\"color\": \"unspecified\"}", "color", 1, "must be red or dark_blue"},
    {"{\"color\": 1}", "color", 1, "a string, red or dark_blue, not an integer"},
    {"{\"colors\": [\"red\",\n\"pink\"]}", "colors[1]", 2, "must be red or dark_blue"},
    {"{\"inner\": 1}", "inner", 1, "must be an object, not an integer"},
    {"{\"inner\": []}", "inner", 1, "must be an object, not a list"},
    {"{\"inner\": null}", "inner", 1, "is empty"},
    {"{\"numbers\": 1}", "numbers", 1, "must be a list, not an integer"},
    {"{\"numbers\": [1, \"2\"]}", "numbers[1]", 1, "must be an integer, not a string"},
    {"{\"numbers\": [1,\nnull]}", "numbers[1]", 2, "must be an integer, not null"},
    {"{\"inners\": {}}", "inners", 1, "must be a list, not an object"},
    {"{\"texts\": []}", "texts", 1, "must be an object, not a list"},
    {"{\"texts\": {\"a\": 1}}", "texts.a", 1, "must be a string"},
    {"{\"by_number\": {\"x\": {}}}", "by_number.x", 1, "must be an integer, not a string"},
    {"{\"by_number\": {\"3000000000\": {}}}", "by_number.3000000000", 1, "must be between"},
    {"{\"by_number\": {\"99999999999999999999\": {}}}", "by_number.99999999999999999999", 1,
     "must be an integer"},
    {"{\"by_bool\": {\"yes\": 1}}", "by_bool.yes", 1, "must be true or false"},
    {"{\"left\": 1,\n\"right\": {}}", "right", 2, "cannot stand beside left"},
    {"{\"free\": []}", "free", 1, "must be an object, not a list"},
    {"{\"free\": {\"a\": 9007199254740993}}", "free.a", 1, "must be within 2^53"},
    {"{\"created_ms\": 1}", "created_ms", 1, "is set by the service"},
    {"{\"child\": {\"created_ms\": 1}}", "child.created_ms", 1, "is set by the service"},
    {"[]", "document", 1, "must be an object, not a list"},
};

TEST(BadDocument, IsRefusedAlikeAsJsonAndAsYaml) {
  for (const Bad& bad : kBoth) {
    testing::Sample message;
    message.set_maybe(7);
    expect_refused(bad, read_json(bad.text, message));
    expect_refused(bad, read_yaml(bad.text, message));
    EXPECT_EQ(message.maybe(), 7) << "changed by a document that was refused";
  }
}

const Bad kJson[] = {
    {"", "", 1, "not valid JSON"},
    {"{", "", 1, "not valid JSON"},
    {"{}\n{}", "", 2, "expected end of input"},
    {"{}\n\n x", "", 3, "not valid JSON"},
    {"{\"maybe\": 1,}", "", 1, "not valid JSON"},
    {"{\"maybe\": 1\n \"left\": 2}", "", 2, "not valid JSON"},
    {"{'maybe': 1}", "", 1, "not valid JSON"},
    {"{maybe: 1}", "", 1, "not valid JSON"},
    {"{\"maybe\": 01}", "", 1, "not valid JSON"},
    {"{\"maybe\": +1}", "", 1, "not valid JSON"},
    {"{\"maybe\": 0x1}", "", 1, "not valid JSON"},
    {"{\"double_field\": .5}", "", 1, "not valid JSON"},
    {"{\"double_field\": NaN}", "", 1, "not valid JSON"},
    {"{\"double_field\":\nInfinity}", "", 2, "not valid JSON"},
    {"{\"double_field\": -Infinity}", "", 1, "not valid JSON"},
    {"{\"double_field\": nan}", "", 1, "not valid JSON"},
    {"{\"maybe\": 1} // note", "", 1, "not valid JSON"},
    {"/* note */ {}", "", 1, "not valid JSON"},
    {"{\"string_field\": \"a\nb\"}", "", 1, "not valid JSON"},
    {"{\"string_field\": \"\\x41\"}", "", 1, "not valid JSON"},
    {"{\"string_field\": \"\\ud800\"}", "", 1, "not valid JSON"},
    {"{\"string_field\": \"\xff\"}", "", 1, "not valid JSON"},
    {"{\"string_field\": \"\xc0\xaf\"}", "", 1, "not valid JSON"},
    {"{\"string_field\": \"\xed\xa0\x80\"}", "", 1, "not valid JSON"},
    {"nul", "", 1, "not valid JSON"},
    {"7", "document", 1, "must be an object, not an integer"},
    {"null", "document", 1, "must be an object, not null"},
};

TEST(BadDocument, OfJsonIsRefused) {
  for (const Bad& bad : kJson) {
    testing::Sample message;
    expect_refused(bad, read_json(bad.text, message));
  }
}

const Bad kYaml[] = {
    {"", "", 1, "is empty"},
    {"# only a note\n", "", 1, "is empty"},
    {"maybe: 1\nmaybe: 2\n", "maybe", 2, "is written twice"},
    {"inner:\n  number: 1\n  'number': 2\n", "inner.number", 3, "is written twice"},
    {"maybe: 1\n---\nmaybe: 2\n", "document", 2, "has a second document"},
    {"a: &x 1\n", "a", 1, "has an anchor"},
    {"numbers: &x [1]\n", "numbers", 1, "has an anchor"},
    {"texts:\n  a: *x\n", "texts.a", 2, "is an alias"},
    {"texts:\n  <<: *x\n", "texts.<<", 2, "is an alias"},
    {"&x maybe: 1\n", "document", 1, "has a key with an anchor"},
    {"maybe: 1\n*x : 1\n", "document", 2, "has a key that is an alias"},
    {"string_field: !!str 1\n", "string_field", 1, "has a tag"},
    {"numbers: !mine [1]\n", "numbers", 1, "has a tag"},
    {"? [a, b]\n: 1\n", "document", 1, "a key that is not a scalar"},
    {"bool_field: yes\n", "bool_field", 1, "must be true or false, not a string"},
    {"bool_field: on\n", "bool_field", 1, "must be true or false, not a string"},
    {"inner:\n  number:\n", "inner.number", 2, "is empty; leave the key out"},
    {"maybe: ~\n", "maybe", 1, "is empty; leave the key out"},
    {"\n\nmaybe: 1_000\n", "maybe", 3, "must be an integer, not a string"},
    {"maybe: '10'\n", "maybe", 1, "must be an integer, not a string"},
    {"maybe: |\n  10\n", "maybe", 2, "must be an integer, not a string"},
    {"maybe: 0x80000000\n", "maybe", 1, "between -2147483648 and 2147483647"},
    {"maybe: 0xfffffffffffffffff\n", "maybe", 1, "does not fit 64 bits"},
    {"double_field: .nan\n", "double_field", 1, "must be a finite number"},
    {"double_field: -.inf\n", "double_field", 1, "must be a finite number"},
    {"double_field: 1e400\n", "double_field", 1, "beyond the range of a double"},
    {"string_field: 1.0\n", "string_field", 1, "put it in quotes"},
    {"string_field: null\n", "string_field", 1, "is empty"},
    {"- 1\n- 2\n", "document", 1, "must be an object, not a list"},
    {"just text\n", "document", 1, "must be an object, not a string"},
    {"<<: {maybe: 1}\n", "<<", 1, "is not a known key"},
    {"inner: {number: 1\n", "", 2, "not valid YAML"},
    {"inner:\n\tnumber: 1\n", "", 2, "not valid YAML"},
    {"maybe: 1\n left: 2\n", "", 1, "not valid YAML"},
    {"string_field: \"a\n", "", 1, "not valid YAML"},
    {"maybe: 1\nstring_field: \xff\n", "", 2, "not valid UTF-8"},
    {"%YAML 3.0\n---\nmaybe: 1\n", "", 1, "not valid YAML"},
};

TEST(BadDocument, OfYamlIsRefused) {
  for (const Bad& bad : kYaml) {
    testing::Sample message;
    expect_refused(bad, read_yaml(bad.text, message));
  }
}

std::string nested(int depth, const std::string& open, const std::string& close) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

TEST(BadDocument, DepthIsBounded) {
  EXPECT_TRUE(parse_json(nested(64, "[", "]")).has_value());
  for (int depth : {65, 1000, 100000}) {
    auto json = parse_json(nested(depth, "[", "]"));
    ASSERT_FALSE(json.has_value());
    EXPECT_NE(json.error().rule().find("more than 64 levels"), std::string::npos);
    EXPECT_FALSE(parse_yaml(nested(depth, "[", "]")).has_value());
    EXPECT_FALSE(parse_yaml(nested(depth, "- ", "x")).has_value());
    EXPECT_FALSE(parse_yaml(nested(depth, "{a: ", "}")).has_value());
  }
}

TEST(BadDocument, SizeIsBounded) {
  ParseLimits limits;
  limits.bytes_max = 10;
  EXPECT_TRUE(parse_json("[1, 2, 3 ]", limits).has_value());
  EXPECT_EQ(parse_json("[1, 2, 3  ]", limits).error().code(), Code::kResourceExhausted);
  EXPECT_EQ(parse_yaml("[1, 2, 3  ]", limits).error().code(), Code::kResourceExhausted);
}

TEST(BadPath, OfASettingIsRefused) {
  struct {
    const char *path, *value, *field, *rule;
  } cases[] = {
      {"", "1", "path", "has an empty part"},
      {"inner..number", "1", "", "has an empty part"},
      {"inner.nmber", "1", "inner.nmber", "did you mean number?"},
      {"inner.number.x", "1", "inner.number", "has no keys below it"},
      {"inner.number", "x", "inner.number", "must be an integer"},
      {"inner[0].number", "1", "inner", "is not a list"},
      {"inners.number", "1", "inners", "say which element"},
      {"inners[1].number", "1", "inners[1]", "has 0 elements"},
      {"inners[x].number", "1", "", "has a malformed index"},
      {"inners[-1].number", "1", "", "has a malformed index"},
      {"inners[99999999999].number", "1", "", "has a malformed index"},
      {"inners[0", "1", "", "has a malformed index"},
      {"numbers[0].x", "1", "numbers[0]", "has no keys below it"},
      {"maybe", "", "maybe", "needs a value"},
      {"maybe", "{", "maybe", "must be valid YAML"},
      {"maybe", "99999999999999999999", "maybe", "does not fit 64 bits"},
      {"inner", "{number: 1, number: 2}", "inner.number", "is written twice"},
      {"numbers", "[1, *a]", "numbers[1]", "is an alias"},
      {"created_ms", "1", "created_ms", "is set by the service"},
      {"free.a[2]", "1", "free.a[2]", "has 0 elements"},
  };
  for (const auto& bad : cases) {
    testing::Sample message;
    Status status = set_path(message, bad.path, bad.value);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad.path;
    if (*bad.field != '\0') {
      EXPECT_EQ(status.field(), bad.field) << status.to_string();
    }
    EXPECT_NE(status.rule().find(bad.rule), std::string::npos) << status.to_string();
    EXPECT_EQ(status.line(), 0);
    EXPECT_EQ(message.ByteSizeLong(), 0U) << bad.path;
  }
}

}  // namespace
}  // namespace weft
