// docs/reference/rest.md is what the table of routes says. WEFT_WRITE_REFERENCE=FILE writes the
// page there (docs/reference/generate.sh does).
#include "coordinator/api/rest_reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "tests/coordinator/api/served.h"

namespace weft::api {
namespace {

TEST(RestReference, TheCommittedPageIsTheGeneratedOne) {
  Served served;
  const std::string page = rest_reference(make_router(served.service));
  if (const char* file = std::getenv("WEFT_WRITE_REFERENCE")) {
    std::ofstream out(file);
    out << page;
    ASSERT_TRUE(out.flush().good());
    return;
  }
  std::ifstream in(WEFT_SOURCE_DIR "/docs/reference/rest.md");
  const std::string committed{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(committed, page) << "run docs/reference/generate.sh";
}

TEST(RestReference, NamesEveryRouteAndItsParameters) {
  Served served;
  const Router router = make_router(served.service);
  const std::string page = rest_reference(router);
  for (const Route& route : router.routes()) {
    EXPECT_THAT(page, testing::HasSubstr("### " + route.method + " " + route.pattern + "\n"));
    for (const QueryParameter& parameter : route.query) {
      EXPECT_THAT(page, testing::HasSubstr("| `" + parameter.name + "` | " + parameter.help));
    }
  }
}

// Of every field of every body and answer, and of every query parameter.
TEST(RestReference, EveryFieldHasAMeaning) {
  Served served;
  std::istringstream page(rest_reference(make_router(served.service)));
  int fields = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `")) continue;
    ++fields;
    EXPECT_FALSE(line.ends_with("|  |")) << line;
  }
  EXPECT_GT(fields, 200);
}

}  // namespace
}  // namespace weft::api
