#include <gtest/gtest.h>

#include "proto/base/clock.h"
#include "proto/base/hash.h"
#include "proto/base/status.h"

namespace weft {
namespace {

Result<int> parse_digit(char c) {
  if (c < '0' || c > '9')
    return fail(Status::invalid("digit", std::string(1, c), "must be 0 to 9"));
  return c - '0';
}

Result<int> sum_of_digits(char a, char b) {
  WEFT_ASSIGN_OR_RETURN(const int left, parse_digit(a));
  WEFT_ASSIGN_OR_RETURN(const int right, parse_digit(b));
  return left + right;
}

TEST(Status, PassesOnFieldValueAndRule) {
  EXPECT_EQ(sum_of_digits('3', '4').value(), 7);
  const Status status = sum_of_digits('3', 'x').error();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.field(), "digit");
  EXPECT_EQ(status.value(), "x");
  EXPECT_EQ(status.to_string(), "digit must be 0 to 9 (got x)");
  Status wrong_state(Code::kFailedPrecondition, "job-x is cancelled");
  wrong_state.with_rule("only a paused job can be resumed");
  EXPECT_EQ(wrong_state.to_string(), "job-x is cancelled: only a paused job can be resumed");
}

TEST(Status, KeepsTheRequestThatWasRefused) {
  Status refused = Status::invalid("steps", "0", "must be at least 1");
  EXPECT_EQ(refused.request_id(), "");
  refused.with_request_id("req-1");
  EXPECT_EQ(refused.with_prefix("job.yaml").request_id(), "req-1");
}

TEST(Hash, MatchesFips180AndRfc4231) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_NE(random_hex(16), random_hex(16));
}

TEST(SimulatedClock, AdvancesOnlyWhenTold) {
  SimulatedClock clock(1000);
  EXPECT_EQ(clock.wall_ms(), 1000);
  clock.advance(std::chrono::seconds(2));
  EXPECT_EQ(clock.wall_ms(), 3000);
  EXPECT_EQ(clock.monotonic(), std::chrono::seconds(2));
}

}  // namespace
}  // namespace weft
