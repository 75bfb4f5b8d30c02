#include "worker/smoothed_speed.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

TEST(SmoothedSpeed, IsTheSpeedWhereThatIsConstant) {
  SmoothedSpeed speed;
  EXPECT_EQ(speed.tokens_per_second(), 0);
  EXPECT_EQ(speed.seconds_for(10), 0);
  for (int i = 0; i < 1000; ++i) {
    speed.add(0.5, 1, 100);
    ASSERT_NEAR(speed.tokens_per_second(), 200, 1e-9);
    ASSERT_NEAR(speed.seconds_for(30), 15, 1e-9);
  }
}

TEST(SmoothedSpeed, OneSlowStepMovesItLittleAndAChangeIsFollowed) {
  SmoothedSpeed speed;
  for (int i = 0; i < 600; ++i) speed.add(0.1, 1, 10);
  speed.add(1, 1, 10);
  EXPECT_GT(speed.tokens_per_second(), 94);  // the slow step's own is 10
  EXPECT_LT(speed.tokens_per_second(), 97);
  for (int i = 0; i < 100; ++i) speed.add(0.2, 1, 10);  // 20 s at half of the speed
  EXPECT_NEAR(speed.tokens_per_second(), 50 + 50 * std::exp(-1.0), 3);
  for (int i = 0; i < 500; ++i) speed.add(0.2, 1, 10);
  EXPECT_NEAR(speed.tokens_per_second(), 50, 1);
}

TEST(SmoothedSpeed, TheTimeLeftFollowsFromTheSpeedAlsoAcrossEvaluations) {
  SmoothedSpeed speed;
  for (int i = 1; i <= 400; ++i) {
    speed.add(0.1, 1, 64);
    if (i % 10 == 0) speed.add(1, 0, 0);  // an evaluation, as long as ten steps
    const double left = speed.seconds_for(50);
    ASSERT_NEAR(left, 50 * 64 / speed.tokens_per_second(), 1e-9 * left);
  }
  EXPECT_NEAR(speed.seconds_for(100), 20, 1);
}

}  // namespace
}  // namespace weft
