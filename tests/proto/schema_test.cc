#include "proto/json/schema.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "google/protobuf/descriptor.h"
#include "proto/job.pb.h"
#include "proto/json/default_value.h"
#include "proto/json/message_json.h"
#include "proto/json/names.h"
#include "proto/json/parse.h"
#include "proto/json/pattern.h"
#include "proto/options.pb.h"

namespace weft {
namespace {

namespace pb = google::protobuf;

TEST(Schema, TheCommittedReferencePageIsTheGeneratedOne) {
  std::ifstream in(WEFT_SOURCE_DIR "/docs/reference/job-file.md");
  std::string committed{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(committed, job_file_reference())
      << "run build/release/bin/weft-reference > docs/reference/job-file.md";
}

TEST(Schema, EveryKeyOfTheReferencePageHasAMeaning) {
  std::istringstream page(job_file_reference());
  int keys = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `")) continue;
    ++keys;
    EXPECT_FALSE(line.ends_with("|  |")) << line;
  }
  EXPECT_GT(keys, 50);
}

TEST(Schema, BoundsDefaultsAndNamesOfAMessage) {
  nlohmann::ordered_json task = json_schema(*proto::TaskSpec::descriptor());
  EXPECT_EQ(task["required"].dump(), R"(["type","data"])");
  EXPECT_EQ(task["additionalProperties"], false);
  EXPECT_EQ(task["properties"]["weight"].dump(),
            R"({"type":"number","description":"Share of the steps, relative to the other tasks' )"
            R"(weights","maximum":1000000,"exclusiveMinimum":0,"default":1})");
  EXPECT_EQ(task["properties"]["type"]["enum"].dump(),
            R"(["causal_lm","sequence_classification","masked_lm","token_classification",)"
            R"("embedding","multiple_choice","question_answering",)"
            R"("image_classification","seq2seq","speech_recognition","permutation_lm"])");
  EXPECT_EQ(task["properties"]["data"]["$ref"], "#/components/schemas/DataSpec");
  nlohmann::ordered_json job = json_schema(*proto::JobSpec::descriptor());
  EXPECT_EQ(job["properties"]["tasks"]["minItems"], 1);
  EXPECT_EQ(job["properties"]["labels"]["additionalProperties"]["type"], "string");
}

TEST(Schema, ComponentsHoldEveryTypeThatIsReferredTo) {
  auto components = parse_strict(component_schemas({}, {proto::Job::descriptor()}));
  ASSERT_TRUE(components.has_value());
  for (const char* name : {"Job", "JobSpec", "PlacementNode", "EarlyStopSpec", "RankInfo"}) {
    EXPECT_TRUE(components->contains(name)) << name;
  }
  EXPECT_FALSE(components->contains("Struct"));
}

// Exactly those fields of an answer are required that are written where nothing is set.
TEST(Schema, AnAnswerRequiresWhatIsAlwaysWritten) {
  for (const pb::Message* type : std::initializer_list<const pb::Message*>{
           &proto::Job::default_instance(), &proto::RankInfo::default_instance(),
           &proto::JobEvent::default_instance()}) {
    const auto written = parse_strict(write_json(*type));
    std::set<std::string> keys;
    for (const auto& [key, value] : written->items()) keys.insert(key);
    std::set<std::string> required;
    const nlohmann::ordered_json schema = json_schema(*type->GetDescriptor(), true);
    for (const auto& key : schema["required"]) {
      required.insert(key.get<std::string>());
    }
    EXPECT_EQ(required, keys) << type->GetTypeName();
  }
}

// Every rule that stands in the schema can be carried out.
void check_type(const pb::Descriptor& type) {
  for (int i = 0; i < type.field_count(); ++i) {
    const pb::FieldDescriptor& field = *type.field(i);
    const proto::FieldRule& rule = rule_of(field);
    EXPECT_TRUE(is_pattern(rule.pattern())) << field.full_name();
    if (!rule.default_value().empty()) {
      EXPECT_TRUE(default_value(field).has_value()) << field.full_name();
      EXPECT_TRUE(field.has_presence() || field.is_repeated())
          << field.full_name() << " has a default, so it must be optional";
    }
    EXPECT_FALSE(rule.help().ends_with('.')) << field.full_name();
  }
}

TEST(Schema, EveryRuleOfTheJobSchemaCanBeCarriedOut) {
  const pb::FileDescriptor& file = *proto::JobSpec::descriptor()->file();
  for (int i = 0; i < file.message_type_count(); ++i) check_type(*file.message_type(i));
}

TEST(Pattern, MatchesTheWholeText) {
  EXPECT_TRUE(matches_pattern("gpt2", "gpt2"));
  EXPECT_FALSE(matches_pattern("gpt2 ", "gpt2"));
  EXPECT_FALSE(matches_pattern("", "gpt2"));
  EXPECT_TRUE(matches_pattern("a-1", "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"));
  EXPECT_TRUE(matches_pattern(std::string(64, 'a'), "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"));
  EXPECT_FALSE(matches_pattern(std::string(65, 'a'), "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"));
  EXPECT_FALSE(matches_pattern("a/b", "[^/]+"));
  EXPECT_TRUE(matches_pattern("aab", "a*ab"));
  EXPECT_TRUE(matches_pattern("x.y", "x\\.y|z"));
  EXPECT_TRUE(matches_pattern("z", "x\\.y|z"));
  EXPECT_FALSE(matches_pattern("xzy", "x\\.y|z"));
  EXPECT_FALSE(is_pattern("(a)"));
  EXPECT_FALSE(is_pattern("[a"));
  EXPECT_FALSE(is_pattern("a{3,1}"));
  EXPECT_FALSE(is_pattern("\\d+"));
}

}  // namespace
}  // namespace weft
