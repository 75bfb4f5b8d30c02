#include "worker/tasks/mixing.h"

#include <utility>

#include "proto/base/check.h"

namespace weft::tasks {

Mixing::Mixing(std::vector<double> weights)
    : shares_(std::move(weights)), credits_(shares_.size(), 0.0) {
  double sum = 0;
  for (double weight : shares_) sum += weight;
  WEFT_CHECK(!shares_.empty() && sum > 0, "{} tasks of weight {}", shares_.size(), sum);
  for (double& share : shares_) share /= sum;
}

int Mixing::next() {
  size_t best = 0;
  for (size_t i = 0; i < shares_.size(); ++i) {
    credits_[i] += shares_[i];
    if (credits_[i] > credits_[best]) best = i;
  }
  credits_[best] -= 1;
  return static_cast<int>(best);
}

void Mixing::restore(std::vector<double> credits) {
  WEFT_CHECK(credits.size() == shares_.size(), "{} credits", credits.size());
  credits_ = std::move(credits);
}

}  // namespace weft::tasks
