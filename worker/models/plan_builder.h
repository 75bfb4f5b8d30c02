// Lists a trunk's parameters in their order, unit by unit.
//
// Thread safety: one thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "worker/models/parameter.h"

namespace weft {

class PlanBuilder {
 public:
  // Weight decay applies to it.
  void matrix(std::string name, Shape shape, Shard shard, double deviation,
              LookedUp looked_up = LookedUp::kNever) {
    plan_.push_back({std::move(name), shape, std::move(shard), Initializer::kNormal, deviation,
                     /*decay=*/true, unit_, looked_up, /*keep_fp32=*/false, behind_attention_});
  }
  // A table of positions, [positions, features].
  void sinusoids(std::string name, int64_t positions, int64_t features) {
    matrix(std::move(name), {positions, features}, {}, 0);
    plan_.back().initializer = Initializer::kSinusoids;
  }
  void vector(std::string name, Shape shape, Shard shard, Initializer initializer) {
    plan_.push_back({std::move(name), shape, std::move(shard), initializer, 0, /*decay=*/false,
                     unit_, LookedUp::kNever, /*keep_fp32=*/false, behind_attention_});
  }
  // A weight of a norm, which every rank has whole.
  void norm_vector(std::string name, int64_t features, Initializer initializer) {
    vector(std::move(name), {features}, {}, initializer);
    plan_.back().keep_fp32 = true;
  }
  void constant_norm_vector(std::string name, int64_t features, double value) {
    norm_vector(std::move(name), features, Initializer::kConstant);
    plan_.back().deviation = value;
  }
  void next_unit() {
    ++unit_;
    behind_attention_ = false;
  }
  // The rest of this unit is used behind its attention.
  void behind_attention() { behind_attention_ = true; }
  std::vector<ParameterInfo> take() { return std::move(plan_); }

 private:
  int64_t unit_ = 0;
  bool behind_attention_ = false;
  std::vector<ParameterInfo> plan_;
};

}  // namespace weft
