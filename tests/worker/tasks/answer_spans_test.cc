// Which span of a window answers a question, by logits of the row's tokens.
#include "worker/tasks/answer_spans.h"

#include <gtest/gtest.h>

#include <cmath>

namespace weft {
namespace {

// 60 tokens of a question and three of a text, behind which one more stands.
constexpr ContextWindow kWindow{.sample = 4, .first = 60, .tokens = 3};

std::vector<float> logits(float question, float first, float second, float third) {
  std::vector<float> all(60, question);
  all.insert(all.end(), {first, second, third, -1.0F});
  return all;
}

TEST(AnswerSpans, TakeTheLargestSumInOrder) {
  const std::vector<float> starts = logits(0, 1, 3, 2), ends = logits(0, 5, 1, 2);
  const FoundAnswer found = best_answer(starts, ends, kWindow);
  EXPECT_EQ(found.sample, 4);
  EXPECT_EQ(found.span.first, 0);  // 1 + 5; 3 + 5 would end before it begins
  EXPECT_EQ(found.span.last, 0);
  EXPECT_EQ(found.score, 6);
  EXPECT_EQ(found.none_score, 0);
}

TEST(AnswerSpans, ProbabilitiesAreOfTheTextAndTheFirstToken) {
  const std::vector<float> starts = logits(0, 1, 3, 2), ends = logits(0, 4, 1, 2);
  const FoundAnswer found = likeliest_answer(starts, ends, kWindow);
  const double of_starts = 1 + std::exp(1.0) + std::exp(3.0) + std::exp(2.0);
  const double of_ends = 1 + std::exp(4.0) + std::exp(1.0) + std::exp(2.0);
  EXPECT_NEAR(std::exp(found.score - found.log_total), std::exp(5.0) / of_starts / of_ends, 1e-12);
}

// Twenty tokens of the question are likelier than any of the text.
TEST(AnswerSpans, WithoutAnyAmongTheLikeliestTheTextsOwnAreTaken) {
  const std::vector<float> starts = logits(7, 1, 3, 2), ends = logits(7, 0, 1, 2);
  EXPECT_LT(best_answer(starts, ends, kWindow).span.first, 0);
  const FoundAnswer found = likeliest_answer(starts, ends, kWindow);
  EXPECT_EQ(found.span.first, 1);
  EXPECT_EQ(found.span.last, 2);
  EXPECT_EQ(found.score, 5);
  EXPECT_EQ(found.none_score, 14);
}

}  // namespace
}  // namespace weft
