#include "worker/optimizer/optimizer.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <future>

#include "kernels/cpu/convert.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/schedule.h"
#include "worker/optimizer/unit_gate.h"
#include "worker/optimizer/value_gate.h"

namespace weft {
namespace {

Parameter make_parameter(Rank& rank, const std::vector<float>& values, bool decay) {
  ParameterInfo info;
  info.name = "p";
  info.shape = {static_cast<int64_t>(values.size())};
  info.decay = decay;
  Tensor value = Tensor::from<float>(*rank.allocator, info.shape, values);
  value.set_requires_grad(true);
  return {info, value};
}

void set_gradient(Rank& rank, const Parameter& parameter, const std::vector<float>& values) {
  parameter.value.set_grad(Tensor::from<float>(*rank.allocator, parameter.info.shape, values));
}

TEST(AdamW, FollowsTheFormulaInDouble) {
  testing::run_ranks(1, [](Rank& rank) {
    const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1};
    std::vector<float> start{0.5F, -1.25F, 2.0F};
    std::vector<Parameter> parameters{make_parameter(rank, start, true),
                                      make_parameter(rank, start, false)};
    AdamW optimizer(rank, parameters, options);
    std::array<std::array<double, 3>, 2> p{}, m{}, v{};
    for (auto& row : p) row = {0.5, -1.25, 2.0};
    for (int n = 1; n <= 7; ++n) {
      const std::vector<float> gradient{0.1F * static_cast<float>(n), -0.7F, 1e-4F};
      for (const Parameter& parameter : parameters) set_gradient(rank, parameter, gradient);
      const double rate = 0.01 * n;
      optimizer.step(rate, 0.5);
      for (size_t k = 0; k < 2; ++k) {
        for (size_t i = 0; i < 3; ++i) {
          const double g = 0.5 * double{gradient[i]};
          if (k == 0) p[k][i] *= 1 - rate * options.weight_decay;
          m[k][i] = 0.9 * m[k][i] + 0.1 * g;
          v[k][i] = 0.95 * v[k][i] + 0.05 * g * g;
          const double root = std::sqrt(v[k][i]) / std::sqrt(1 - std::pow(0.95, n)) + 1e-6;
          p[k][i] -= rate / (1 - std::pow(0.9, n)) * m[k][i] / root;
          EXPECT_NEAR(parameters[k].value.data<float>()[i], p[k][i], 2e-6) << n << " " << i;
        }
      }
      EXPECT_FALSE(parameters[0].value.grad());
    }
  });
}

TEST(AdamW, AParameterWithoutGradientStandsStill) {
  testing::run_ranks(1, [](Rank& rank) {
    std::vector<Parameter> parameters{make_parameter(rank, {1.0F}, true),
                                      make_parameter(rank, {1.0F}, true)};
    AdamW optimizer(rank, parameters, {});
    set_gradient(rank, parameters[0], {1.0F});
    optimizer.step(0.1);
    EXPECT_NE(parameters[0].value.data<float>()[0], 1.0F);
    EXPECT_EQ(parameters[1].value.data<float>()[0], 1.0F);
    EXPECT_EQ(optimizer.states()[0].updates, 1);
    EXPECT_EQ(optimizer.states()[1].updates, 0);
  });
}

TEST(AdamW, GoesOnFromRestoredState) {
  testing::run_ranks(1, [](Rank& rank) {
    std::vector<Parameter> straight{make_parameter(rank, {1.0F, 2.0F}, true)};
    AdamW whole(rank, straight, {});
    for (int i = 0; i < 3; ++i) {
      set_gradient(rank, straight[0], {0.5F, -0.25F});
      whole.step(0.01);
    }
    const std::vector<float> value = straight[0].value.to_vector<float>();
    std::vector<Parameter> again{make_parameter(rank, value, true)};
    AdamW resumed(rank, again, {});
    AdamW::State& from = whole.states()[0];
    AdamW::State& to = resumed.states()[0];
    to.updates = from.updates;
    std::copy_n(from.first_moment.data<float>(), 2, to.first_moment.data<float>());
    std::copy_n(from.second_moment.data<float>(), 2, to.second_moment.data<float>());
    for (AdamW* optimizer : {&whole, &resumed}) {
      set_gradient(rank, optimizer->parameters()[0], {0.125F, 3.0F});
      optimizer->step(0.01);
    }
    EXPECT_EQ(straight[0].value.to_vector<float>(), again[0].value.to_vector<float>());
  });
}

// Of the same gradients masters and moments are those of fp32, to the last bit; what the passes
// compute with is the nearest bf16.
TEST(AdamW, MastersOfHalfTypesAreThoseOfFp32) {
  testing::run_ranks(1, [](Rank& rank) {
    std::vector<float> start;
    for (int i = 0; i < 300; ++i) start.push_back(std::sin(static_cast<float>(i)));
    const std::vector<float> few(start.begin(), start.begin() + 5);
    std::vector<std::unique_ptr<AdamW>> optimizers;
    for (const DType values : {DType::kF32, DType::kBF16, DType::kF16}) {
      std::vector<Parameter> parameters{make_parameter(rank, start, true),
                                        make_parameter(rank, few, false)};
      optimizers.push_back(std::make_unique<AdamW>(rank, parameters, AdamWOptions{}, values));
    }
    for (int step = 0; step < 100; ++step) {
      std::vector<float> gradient = start;
      for (float& value : gradient) value = std::cos(value * static_cast<float>(step));
      for (const auto& optimizer : optimizers) {
        set_gradient(rank, optimizer->parameters()[0], gradient);
        if (step % 3 == 0) {
          set_gradient(rank, optimizer->parameters()[1], {1.0F, 0.0F, -1e-3F, 1e-20F, 5.0F});
        }
        optimizer->step(0.01, 0.5);
      }
    }
    for (size_t i = 0; i < 2; ++i) {
      const AdamW::State& expected = optimizers[0]->states()[i];
      const std::vector<float> masters = expected.master.to_vector();
      for (const auto& optimizer : optimizers) {
        const AdamW::State& state = optimizer->states()[i];
        EXPECT_EQ(state.master.to_vector(), masters);
        EXPECT_EQ(state.first_moment.to_vector<float>(), expected.first_moment.to_vector<float>());
        EXPECT_EQ(state.second_moment.to_vector<float>(),
                  expected.second_moment.to_vector<float>());
      }
      const std::vector<bfloat16> values =
          optimizers[1]->parameters()[i].value.to_vector<bfloat16>();
      for (size_t e = 0; e < masters.size(); ++e) {
        EXPECT_LE(std::abs(float{values[e]} - masters[e]), std::abs(masters[e]) * 0x1p-8F);
      }
    }
  });
}

// Beside 1 a half type has nothing within 4e-4: the passes read what the update made of it.
TEST(AdamW, WhatIsKeptInFp32MovesByWhatAHalfTypeCannotTellApart) {
  for (const DType values : {DType::kBF16, DType::kF16}) {
    testing::run_ranks(1, [&](Rank& rank) {
      std::vector<Parameter> parameters{make_parameter(rank, {1.0F, 1.0F}, false),
                                        make_parameter(rank, {1.0F}, false)};
      parameters[0].info.keep_fp32 = true;
      AdamW optimizer(rank, parameters, {}, values);
      ASSERT_EQ(parameters[0].value.dtype(), DType::kF32);
      ASSERT_EQ(parameters[1].value.dtype(), values);
      for (const Parameter& parameter : parameters) {
        set_gradient(rank, parameter,
                     std::vector<float>(parameter.value.elements() == 2 ? 2 : 1, 1.0F));
      }
      optimizer.step(1e-4);
      EXPECT_NEAR(parameters[0].value.data<float>()[1], 1 - 1e-4, 1e-6);
      EXPECT_EQ(parameters[0].value.to_vector<float>(), optimizer.states()[0].master.to_vector());
      const Tensor rounded = cpu::converted(*rank.pool, parameters[1].value, DType::kF32);
      EXPECT_EQ(rounded.data<float>()[0], 1.0F);
      EXPECT_NEAR(optimizer.states()[1].master.to_vector()[0], 1 - 1e-4, 1e-6);
    });
  }
}

// A bucket has 448 elements: the third of three parts begins at 299, before a parameter in fp32. Of
// each the values are those of a state that is not shared out, and what is kept in fp32 is finer.
TEST(AdamW, SharedOutStatesHaveTheValuesOfAWholeOne) {
  const std::vector<int64_t> sizes = {97, 7, 64, 1, 250, 33};
  for (const DType values : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto made = [&](Rank& rank) {
      std::vector<Parameter> parameters;
      for (size_t i = 0; i < sizes.size(); ++i) {
        std::vector<float> start(static_cast<size_t>(sizes[i]));
        for (size_t e = 0; e < start.size(); ++e) start[e] = 1 + 0.01F * static_cast<float>(e + i);
        parameters.push_back(make_parameter(rank, start, false));
        parameters.back().info.keep_fp32 = i % 2 == 1;
      }
      return parameters;
    };
    const auto gradient = [](Rank& rank, const Parameter& parameter, int step) {
      std::vector<float> slopes(static_cast<size_t>(parameter.value.elements()));
      for (size_t e = 0; e < slopes.size(); ++e) {
        slopes[e] = std::sin(static_cast<float>(e) + static_cast<float>(step));
      }
      parameter.value.set_grad(Tensor::from<float>(*rank.allocator, parameter.info.shape, slopes));
    };
    const auto shown = [](Rank& rank, const Parameter& parameter) {
      return cpu::converted(*rank.pool, parameter.value, DType::kF32).to_vector<float>();
    };
    std::vector<std::vector<float>> expected;
    testing::run_ranks(1, [&](Rank& rank) {
      AdamW whole(rank, made(rank), {}, values);
      for (int step = 0; step < 3; ++step) {
        for (const Parameter& each : whole.parameters()) gradient(rank, each, step);
        whole.step(1e-4, 1.0);
      }
      for (const Parameter& each : whole.parameters()) expected.push_back(shown(rank, each));
    });
    for (const int level : {1, 2, 3}) {
      testing::run_ranks(3, [&](Rank& rank) {
        AdamW shared(rank, made(rank), {}, values, {level, 1 << 20});
        shared.publish();
        GradientReducer reducer(rank, shared.parameters(), shared.buckets(), level);
        for (int step = 0; step < 3; ++step) {
          reducer.begin(shared.parameters());
          for (const Parameter& each : shared.parameters()) gradient(rank, each, step);
          reducer.flush();
          reducer.finish();
          shared.step(reducer, 1e-4, 1.0 / 3);
        }
        std::optional<UnitGate> gate;
        if (level == 3) gate.emplace(rank, shared).open(0, std::nullopt);
        for (size_t i = 0; i < sizes.size(); ++i) {
          const Parameter& each = shared.parameters()[i];
          EXPECT_EQ(each.value.dtype(), i % 2 == 1 ? DType::kF32 : values);
          const std::vector<float> found = shown(rank, each);
          for (size_t e = 0; e < found.size(); ++e) {
            ASSERT_NEAR(found[e], expected[i][e], i % 2 == 1 ? 1e-6 : 2e-2)
                << level << " " << dtype_name(values) << " parameter " << i << " element " << e;
          }
        }
        if (gate) gate->close();
      });
    }
  }
}

// A replica that computes waits unit by unit, one that has no rows for all of them.
TEST(AdamW, ReplicasMayWaitForValuesByUnitOrForAll) {
  testing::run_ranks(2, [](Rank& rank) {
    std::vector<Parameter> parameters;
    for (const int64_t elements : {64, 640, 1280, 960, 800, 320}) {  // a bucket each
      const auto index = static_cast<float>(parameters.size());
      const std::vector<float> start(static_cast<size_t>(elements), index);
      parameters.push_back(make_parameter(rank, start, false));
      parameters.back().info.unit = std::ssize(parameters) / 3;  // 0 0 1 1 1 2
    }
    AdamW optimizer(rank, parameters, {}, DType::kF32, {1, 2048});
    optimizer.publish();
    ValueGate gate(optimizer, /*alone=*/false);
    GradientReducer reducer(rank, optimizer.parameters(), optimizer.buckets(), 1);
    reducer.begin(optimizer.parameters());
    for (const Parameter& parameter : optimizer.parameters()) {
      parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.info.shape, 1.0));
    }
    reducer.flush();
    reducer.finish();
    optimizer.step(reducer, 0.25, 1.0);
    if (rank.mesh.index(Axis::kReplica) == 0) {
      gate.open(0, 1);
      gate.open(1, 2);
      gate.open(2, std::nullopt);
    }
    optimizer.finish_values();
    for (size_t i = 0; i < parameters.size(); ++i) {
      for (const float value : optimizer.parameters()[i].value.to_vector<float>()) {
        ASSERT_NEAR(value, static_cast<float>(i) - 0.25F, 1e-6) << i;
      }
    }
  });
}

// Parts of the table end within rows: 45 rows of 5 are 256 aligned elements, 64 of each of the 4
// replicas. Replica 2 has nothing to compute, and waits for everything at once.
TEST(AdamW, RowsThatAreLookedUpGoAheadOfTheirTable) {
  for (const DType values : {DType::kF32, DType::kBF16}) {
    testing::run_ranks(4, [&](Rank& rank) {
      const int replica = rank.mesh.index(Axis::kReplica);
      std::vector<float> start(45 * 5);
      for (size_t i = 0; i < start.size(); ++i) start[i] = static_cast<float>(i);
      std::vector<Parameter> parameters{make_parameter(rank, start, false),
                                        make_parameter(rank, {1, 2, 3}, false),
                                        make_parameter(rank, {4, 5}, false)};
      parameters[0].info.shape = {45, 5};
      parameters[0].info.looked_up = LookedUp::kByToken;
      parameters[0].value = parameters[0].value.view({45, 5}, std::array<int64_t, 2>{5, 1}, 0);
      parameters[0].value.set_requires_grad(true);
      parameters[2].info.unit = 1;
      AdamW optimizer(rank, parameters, {}, values, {1, 2048});
      optimizer.publish();
      ValueGate gate(optimizer, /*alone=*/true, /*looked_up=*/11);
      GradientReducer reducer(rank, optimizer.parameters(), optimizer.buckets(), 1);
      const auto table = [&] {
        const Tensor& value = optimizer.parameters()[0].value;
        return cpu::converted(*rank.pool, value, DType::kF32).to_vector<float>();
      };
      for (float round = 1; round < 3; ++round) {
        reducer.begin(optimizer.parameters());
        for (const Parameter& parameter : optimizer.parameters()) {
          parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.info.shape, 1.0));
        }
        reducer.flush();
        reducer.finish();
        const auto before = table();
        optimizer.step(reducer, 64.0, 1.0);  // what bf16 shows of 224, too
        gate.begin(std::vector<int64_t>{44, 11, 3, 11, 22, 0, 33});
        const auto changed = [&](int64_t row) {
          const auto now = table();
          int64_t count = 0;
          for (auto i = static_cast<size_t>(row) * 5; i < static_cast<size_t>(row + 1) * 5; ++i) {
            count += now[i] != before[i] ? 1 : 0;
          }
          return count;
        };
        if (replica != 2) {
          gate.open_rows(0, Tensor::from<int64_t>(*rank.allocator, {2, 2}, {{3, 44, 11, 11}}), 1);
          for (int64_t row = 0; row < 45; ++row) {
            const bool asked = row % 11 == 0 || row == 3;
            const bool own = (row + 1) * 5 > replica * 64 && row * 5 < (replica + 1) * 64;
            if (own && !asked) continue;
            EXPECT_EQ(changed(row), asked ? 5 : 0) << row;
          }
          gate.open(1, std::nullopt);
          gate.open(0, std::nullopt);
        }
        if (replica == 2) optimizer.finish_values();
        const std::vector<float> now = table();
        for (size_t i = 0; i < start.size(); ++i) {  // Adam's steps are of the rate
          ASSERT_NEAR(now[i], start[i] - 64 * round, 1) << i;
        }
        optimizer.finish_values();
      }
    });
  }
}

// Replica 1 sends nothing behind what the first block's attention uses until replica 0 has opened
// that.
TEST(AdamW, AnAttentionWaitsForItsOwnValuesOnly) {
  std::promise<void> opened;
  testing::run_ranks(2, [&](Rank& rank) {
    const int replica = rank.mesh.index(Axis::kReplica);
    std::vector<Parameter> parameters;
    for (const int64_t elements : {4096, 64, 640, 1280}) {  // a bucket each
      const std::vector<float> start(static_cast<size_t>(elements), 1.0F);
      parameters.push_back(make_parameter(rank, start, false));
      parameters.back().info.unit = parameters.size() > 2 ? 1 : 0;
    }
    parameters[0].info.shape = {1024, 4};
    parameters[0].info.looked_up = LookedUp::kByToken;
    parameters[0].value = parameters[0].value.view({1024, 4}, std::array<int64_t, 2>{4, 1}, 0);
    parameters[0].value.set_requires_grad(true);
    parameters[3].info.behind_attention = true;
    AdamW optimizer(rank, parameters, {}, DType::kF32, {1, 2048});
    optimizer.publish();
    ValueGate gate(optimizer, /*alone=*/true, /*looked_up=*/4);
    GradientReducer reducer(rank, optimizer.parameters(), optimizer.buckets(), 1);
    reducer.begin(optimizer.parameters());
    for (const Parameter& parameter : optimizer.parameters()) {
      parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.info.shape, 1.0));
    }
    reducer.flush();
    reducer.finish();
    const auto changed = [&](size_t index) {
      const auto values = optimizer.parameters()[index].value.to_vector<float>();
      return std::ranges::count_if(values, [](float value) { return value < 0.9F; });
    };
    optimizer.step(reducer, 0.25, 1.0);
    Pending held;
    if (replica == 1) {
      held = rank.mesh.axis(Axis::kReplica).start([&](Communicator&) {
        const auto there = opened.get_future().wait_for(std::chrono::seconds(60));
        EXPECT_EQ(there, std::future_status::ready) << "replica 0 waits for more";
      });
    }
    gate.begin(std::vector<int64_t>{1, 1000});
    if (replica == 0) {
      gate.open_attention(1, 2);
      EXPECT_EQ(changed(2), 640);
      EXPECT_EQ(changed(3), 640);  // its own half
      opened.set_value();
    }
    held.wait();
    gate.open_rows(0, Tensor::from<int64_t>(*rank.allocator, {2}, {{1, 1000}}), 1);
    gate.open_rest(1);
    EXPECT_EQ(changed(3), 1280);
    optimizer.finish_values();
    EXPECT_EQ(changed(0), 4096);
  });
}

TEST(Schedule, CosineStartsAtZeroAndEndsAtZero) {
  const Schedule schedule{ScheduleShape::kCosine, 1e-3, 5, 20};
  EXPECT_EQ(schedule.rate(0), 0.0);
  EXPECT_NEAR(schedule.rate(1), 2e-4, 1e-12);
  EXPECT_NEAR(schedule.rate(5), 1e-3, 1e-12);
  EXPECT_NEAR(schedule.rate(10), 1e-3 * 0.5 * (1 + std::cos(M_PI / 3)), 1e-12);
  EXPECT_NEAR(schedule.rate(20), 0.0, 1e-12);
}

TEST(Schedule, LinearAndConstant) {
  const Schedule linear{ScheduleShape::kLinear, 0.5, 2, 12};
  EXPECT_EQ(linear.rate(0), 0.0);
  EXPECT_NEAR(linear.rate(1), 0.25, 1e-12);
  EXPECT_NEAR(linear.rate(7), 0.25, 1e-12);
  EXPECT_EQ(linear.rate(12), 0.0);
  EXPECT_EQ(linear.rate(100), 0.0);
  const Schedule constant{ScheduleShape::kConstant, 0.5, 2, 12};
  EXPECT_NEAR(constant.rate(1), 0.25, 1e-12);
  EXPECT_EQ(constant.rate(100), 0.5);
}

TEST(Schedule, WithoutWarmupTheFirstRateIsThePeak) {
  EXPECT_EQ((Schedule{ScheduleShape::kCosine, 0.5, 0, 10}.rate(0)), 0.5);
  EXPECT_EQ((Schedule{ScheduleShape::kLinear, 0.5, 0, 10}.rate(0)), 0.5);
}

}  // namespace
}  // namespace weft
