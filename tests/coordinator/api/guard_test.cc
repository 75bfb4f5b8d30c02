#include "coordinator/api/guard.h"

#include <gtest/gtest.h>

#include "coordinator/api/router.h"

namespace weft::api {
namespace {

const char* const kToken = "0123456789abcdef0123";

Request request(NameValues headers) {
  Request made;
  made.headers = std::move(headers);
  made.local_address = "10.1.2.3";
  made.local_port = 8;
  return made;
}

TEST(HostPortOf, TakesThePortOff) {
  EXPECT_EQ(host_port_of("LocalHost:80").host, "localhost");
  EXPECT_EQ(host_port_of("LocalHost:80").port, 80);
  EXPECT_EQ(host_port_of("[::1]:81").host, "::1");
  EXPECT_EQ(host_port_of("[::1]:81").port, 81);
  EXPECT_EQ(host_port_of("[::1]").host, "::1");
  EXPECT_EQ(host_port_of("name").host, "name");
  EXPECT_EQ(host_port_of("name").port, 0);
  for (const char* bad : {"[::1", "[::1]x", "a:b", "a:1:2", "a:", "a:999999", ""}) {
    EXPECT_EQ(host_port_of(bad).host, "") << bad;
  }
}

TEST(Guard, HostMustNameThisServer) {
  const Guard guard(kToken, {"Weft.Example"});
  for (const char* good : {"localhost", "LOCALHOST:8", "127.0.0.1:8", "[::1]:8", "10.1.2.3:8",
                           "weft.example", "weft.example:443"}) {
    EXPECT_TRUE(guard.check_origin(request({{"host", good}})).ok()) << good;
  }
  for (const char* bad : {"evil.example", "localhost.evil.example", "10.1.2.4", "", "localhost:x",
                          "localhost:9", "127.0.0.1:80", "[::1]:7", "10.1.2.3:5"}) {
    EXPECT_EQ(guard.check_origin(request({{"host", bad}})).code(), Code::kPermissionDenied) << bad;
  }
  EXPECT_EQ(guard.check_origin(request({})).code(), Code::kInvalidArgument);
  EXPECT_EQ(guard.check_origin(request({{"host", "localhost"}, {"host", "localhost"}})).code(),
            Code::kInvalidArgument);
}

TEST(Guard, PagesOfOtherSitesAreRefused) {
  const Guard guard(kToken, {});
  const auto check = [&](const char* name, const char* value) {
    return guard.check_origin(request({{"host", "localhost:8"}, {name, value}})).ok();
  };
  EXPECT_TRUE(check("origin", "http://localhost:8"));
  EXPECT_FALSE(check("origin", "http://localhost:9"));
  EXPECT_FALSE(check("origin", "https://localhost:8"));
  EXPECT_FALSE(check("origin", "http://evil.example"));
  EXPECT_FALSE(check("origin", "null"));
  EXPECT_TRUE(check("sec-fetch-site", "same-origin"));
  EXPECT_TRUE(check("sec-fetch-site", "none"));
  EXPECT_FALSE(check("sec-fetch-site", "same-site"));
  EXPECT_FALSE(check("sec-fetch-site", "cross-site"));
}

TEST(Guard, TokenMustBeTheWholeToken) {
  const Guard guard(kToken, {});
  const std::string token = kToken;
  EXPECT_TRUE(guard.check_token(request({{"authorization", "Bearer " + token}})).ok());
  EXPECT_TRUE(guard.check_token(request({{"authorization", "bearer " + token}})).ok());
  for (const std::string& bad :
       {std::string(), std::string("Bearer "), std::string("Bearer"), token, "Basic " + token,
        "Bearer " + token + "x", "Bearer " + token.substr(1), "Bearer  " + token}) {
    EXPECT_EQ(guard.check_token(request({{"authorization", bad}})).code(), Code::kUnauthenticated)
        << bad;
  }
  const std::string good = "Bearer " + token;
  EXPECT_FALSE(guard.check_token(request({{"authorization", good}, {"authorization", good}})).ok());
}

TEST(Target, IsDecodedOnceAndStaysBeneathTheRoot) {
  const auto parse = [](std::string target) {
    Request made;
    made.target = std::move(target);
    const Status status = parse_target(made);
    return std::pair(status.code(), made);
  };
  const auto [code, made] = parse("/a%20b/c%2541?x=1%26&y=a+b&flag");
  EXPECT_EQ(code, Code::kOk);
  EXPECT_EQ(made.path, (std::vector<std::string>{"a b", "c%41"}));
  EXPECT_EQ(made.query, (NameValues{{"x", "1&"}, {"y", "a b"}, {"flag", ""}}));
  for (const char* bad : {"/", "//", "/a/", "/a//b", "/../a", "/a/..", "/a/.", "/%2e%2e/a",
                          "/..%2fa", "/a%5c..", "/a%00b", "/a\\b"}) {
    EXPECT_EQ(parse(bad).first, Code::kNotFound) << bad;
  }
  for (const char* bad : {"", "a", "*", "http://localhost/a", "/a%", "/a%2", "/a%zz", "/a?x=%g1"}) {
    EXPECT_EQ(parse(bad).first, Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace weft::api
