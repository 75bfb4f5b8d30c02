#include "worker/optimizer/loss_scale.h"

#include <gtest/gtest.h>

#include <cmath>

namespace weft {
namespace {

TEST(LossScale, HalvesAtOverflowAndGrowsAfterALongRun) {
  LossScale scale;
  EXPECT_EQ(scale.scale(), 65536);
  EXPECT_FALSE(scale.take(INFINITY));
  EXPECT_FALSE(scale.take(NAN));
  EXPECT_EQ(scale.scale(), 16384);
  for (int i = 1; i < LossScale::kGrowthSteps; ++i) EXPECT_TRUE(scale.take(1));
  EXPECT_EQ(scale.scale(), 16384);
  EXPECT_TRUE(scale.take(1));
  EXPECT_EQ(scale.scale(), 32768);
  EXPECT_EQ(scale.finite_steps(), 0);
}

TEST(LossScale, AnOverflowStartsTheRunAnew) {
  LossScale scale(1024, LossScale::kGrowthSteps - 1);
  EXPECT_FALSE(scale.take(INFINITY));
  EXPECT_TRUE(scale.take(0));
  EXPECT_EQ(scale.scale(), 512);
  EXPECT_EQ(scale.finite_steps(), 1);
}

TEST(LossScale, StaysBetweenItsBounds) {
  LossScale low(2, 0), high(LossScale::kMax, LossScale::kGrowthSteps - 1);
  EXPECT_FALSE(low.exhausted());
  EXPECT_FALSE(low.take(NAN));
  EXPECT_TRUE(low.exhausted());
  EXPECT_FALSE(low.take(NAN));
  EXPECT_EQ(low.scale(), LossScale::kMin);
  EXPECT_TRUE(high.take(1));
  EXPECT_EQ(high.scale(), LossScale::kMax);
}

}  // namespace
}  // namespace weft
