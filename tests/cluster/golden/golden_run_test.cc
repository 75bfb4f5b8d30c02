#include "cluster/golden/golden_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace weft {
namespace {

std::string fixture(const std::string& name) {
  return std::string(WEFT_SOURCE_DIR) + "/tests/fixtures/golden/" + name;
}

TEST(ParseMesh, ReadsAxesByName) {
  const auto mesh = parse_mesh("tensor=2,data=3");
  ASSERT_TRUE(mesh);
  EXPECT_EQ(mesh->data, 3);
  EXPECT_EQ(mesh->sequence, 1);
  EXPECT_EQ(mesh->tensor, 2);
  EXPECT_EQ(mesh_text(*mesh), "data=3,sequence=1,tensor=2");
  EXPECT_TRUE(parse_mesh(""));
  const auto grid = parse_mesh("sequence=6,ulysses=3");
  ASSERT_TRUE(grid);
  EXPECT_EQ(grid->ulysses, 3);
  EXPECT_EQ(mesh_text(*grid), "data=1,sequence=6,tensor=1,ulysses=3");
}

TEST(ParseMesh, RefusesTheRest) {
  for (const char* text : {"pipeline=2", "data", "data=", "data=0", "data=-1", "data=2x", "data=65",
                           "data=99999999999", "data=1,data=2", "sequence=3,ulysses=2", "ulysses=2",
                           "=2", ",", "data=2;tensor=2"}) {
    EXPECT_FALSE(parse_mesh(text)) << text;
  }
}

TEST(RunGolden, OneLineACaseAndTheWorstValue) {
  std::ostringstream out, errors;
  const GoldenOptions options{.cases = {fixture("gpt2-sequence")}, .mesh = {.tensor = 2}};
  EXPECT_EQ(run_golden(options, out, errors), 0);
  const std::string text = out.str();
  EXPECT_TRUE(text.starts_with("gpt2-sequence"));
  EXPECT_NE(text.find("worst"), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(errors.str(), "");
}

TEST(RunGolden, ACaseThatCannotBeRunFailsAndTheOthersGoOn) {
  std::ostringstream out, errors;
  const GoldenOptions options{.cases = {"/nonexistent", fixture("gpt2-sequence")}, .json = true};
  EXPECT_EQ(run_golden(options, out, errors), 1);
  EXPECT_NE(errors.str().find("/nonexistent"), std::string::npos);
  EXPECT_NE(out.str().find("\"case\": \"gpt2-sequence\""), std::string::npos);
  EXPECT_NE(out.str().find("\"passed\": true"), std::string::npos);
  EXPECT_NE(out.str().find("\"passed\": false"), std::string::npos);
}

TEST(RunGolden, WithoutTheToolkitThereIsNoGpu) {
  std::ostringstream out, errors;
  const GoldenOptions options{.cases = {fixture("gpt2-sequence")}, .device = "cuda"};
  EXPECT_EQ(run_golden(options, out, errors), 1);
  EXPECT_NE(errors.str().find("built without CUDA"), std::string::npos);
}

}  // namespace
}  // namespace weft
