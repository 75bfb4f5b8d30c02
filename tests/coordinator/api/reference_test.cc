// docs/reference/rest.md is what the table of routes says. WEFT_WRITE_REFERENCE=FILE writes the
// page there (docs/reference/generate.sh does).
#include "coordinator/api/rest_reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>

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

// Those that the sources of the coordinator and of the ranks name, and the states in which a job
// ends or rests.
TEST(RestReference, NamesEveryTypeOfEvent) {
  Served served;
  const std::string page = rest_reference(make_router(served.service));
  std::set<std::string> types = {"paused", "queued", "succeeded", "failed", "cancelled"};
  const std::regex named(R"rx((?:edit\.event\(|tell_event\(|event->set_type\()\s*"([a-z_]+)")rx");
  for (const char* folder : {"coordinator", "worker"}) {
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(WEFT_SOURCE_DIR "/" + std::string(folder))) {
      if (entry.path().extension() != ".cc") continue;
      std::ifstream in(entry.path());
      const std::string text{std::istreambuf_iterator<char>(in), {}};
      for (std::sregex_iterator at(text.begin(), text.end(), named), end; at != end; ++at) {
        types.insert((*at)[1]);
      }
    }
  }
  EXPECT_GT(types.size(), 20U);
  for (const std::string& type : types) {
    EXPECT_THAT(page, testing::HasSubstr("\n| `" + type + "` | ")) << type;
  }
  const size_t first = page.find("## Types of events"), last = page.find("## Errors");
  const std::string section = page.substr(first, last - first);
  EXPECT_EQ(static_cast<size_t>(std::count(section.begin(), section.end(), '\n')), types.size() + 6)
      << "one that nothing tells of";
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
