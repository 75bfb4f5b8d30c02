#include "worker/optimizer/gradients.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <thread>

#include "cluster/comm/watched_communicator.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "tests/testing/rank_runner.h"

namespace weft {
namespace {

// A replicated parameter [3] and one cut along dim 0 of [5] over the tensor axis.
std::vector<Parameter> make_pair(Rank& rank) {
  const Part part = part_of(5, rank.mesh.size(Axis::kTensor), rank.mesh.index(Axis::kTensor));
  std::vector<Parameter> parameters(2);
  parameters[0].info.shape = {3};
  parameters[0].value = Tensor::zeros(*rank.allocator, {3});
  parameters[1].info.shape = {5};
  parameters[1].info.shard = {0, {part}};
  parameters[1].value = Tensor::zeros(*rank.allocator, {part.length});
  for (Parameter& parameter : parameters) parameter.value.set_requires_grad(true);
  return parameters;
}

TEST(Gradients, AreSummedOverReplicasOnly) {
  testing::run_mesh({.data = 2, .sequence = 2, .tensor = 2}, [](Rank& rank) {
    std::vector<Parameter> parameters = make_pair(rank);
    const int replica = rank.mesh.index(Axis::kReplica), tensor = rank.mesh.index(Axis::kTensor);
    const double own = 1.0 + replica + 10 * tensor;
    parameters[1].value.set_grad(Tensor::full(*rank.allocator, parameters[1].value.shape(), own));
    if (replica == 3) {  // the others have none: zeros
      parameters[0].value.set_grad(Tensor::full(*rank.allocator, {3}, 7.0));
    }
    reduce_gradients(rank, parameters);
    for (float value : parameters[1].value.grad().to_vector<float>()) {
      EXPECT_EQ(value, static_cast<float>(10 + 40 * tensor));
    }
    for (float value : parameters[0].value.grad().to_vector<float>()) EXPECT_EQ(value, 7.0F);
  });
}

TEST(Gradients, TheNormCountsReplicatedParametersOnce) {
  for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{.tensor = 2}, MeshDegrees{.tensor = 4},
                                 MeshDegrees{.data = 2, .tensor = 2}}) {
    testing::run_mesh(mesh, [](Rank& rank) {
      std::vector<Parameter> parameters = make_pair(rank);
      for (Parameter& parameter : parameters) {
        parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.value.shape(), 2.0));
      }
      EXPECT_NEAR(global_gradient_norm(rank, parameters), std::sqrt(8 * 4.0), 1e-12);
    });
  }
}

TEST(Gradients, AreClippedAsTorchDoes) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 1.0 / 4.000001, 1e-15);
  EXPECT_EQ(clip_factor(4.0, 0.0), 1.0);
}

TEST(Gradients, MoreThanOneBucket) {
  testing::run_ranks(2, [](Rank& rank) {
    std::vector<Parameter> parameters(3);
    for (Parameter& parameter : parameters) {
      parameter.info.shape = {3 << 20};
      parameter.value = Tensor::zeros(*rank.allocator, parameter.info.shape);
      parameter.value.set_requires_grad(true);
      parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.info.shape, 1.5));
    }
    reduce_gradients(rank, parameters);
    for (const Parameter& parameter : parameters) {
      EXPECT_EQ(parameter.value.grad().data<float>()[0], 3.0F);
      EXPECT_EQ(parameter.value.grad().data<float>()[(3 << 20) - 1], 3.0F);
    }
  });
}

// Parameters of several units, of sizes that no number of ranks divides.
std::vector<Parameter> make_units(Rank& rank) {
  std::vector<Parameter> parameters;
  for (int64_t i = 0; i < 7; ++i) {
    Parameter parameter;
    parameter.info.name = "p" + std::to_string(i);
    parameter.info.shape = {3 + 5 * i, 11};
    parameter.info.unit = i / 3;
    parameter.value = Tensor::full(*rank.allocator, parameter.info.shape, 0.5);
    parameter.value.set_requires_grad(true);
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

TEST(Buckets, EachElementIsOwnedOnce) {
  testing::run_ranks(1, [](Rank& rank) {
    const std::vector<Parameter> parameters = make_units(rank);
    std::vector<int64_t> owned(parameters.size(), 0);
    for (int replica = 0; replica < 3; ++replica) {
      const Buckets buckets(parameters, 3, replica, 4096);
      EXPECT_GE(buckets.all().size(), 3U);
      EXPECT_EQ(buckets.all().front().unit, 2);  // the last parameters come first
      for (const Bucket& bucket : buckets.all()) {
        EXPECT_TRUE(bucket.entries.size() == 1 || bucket.elements * 4 <= 4096);
        for (const Bucket::Entry& entry : bucket.entries) {
          EXPECT_EQ(entry.offset % 32, 0);
          EXPECT_EQ(parameters[entry.parameter].info.unit, bucket.unit);
          owned[entry.parameter] += entry.own.length;
        }
      }
    }
    for (size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_EQ(owned[i], parameters[i].value.elements());
    }
  });
}

TEST(Buckets, AWeightAndItsBiasAreTogether) {
  // Into 96 the last two fit, each in 32, and the bias of 8 would, but its weight would not. A
  // layer of more than that is cut.
  const std::vector<BucketItem> items = {{0, 96}, {0, 32, LookedUp::kNever, /*joined=*/true},
                                         {0, 32}, {0, 8, LookedUp::kNever, /*joined=*/true},
                                         {0, 4},  {0, 32}};
  std::vector<std::vector<size_t>> found;
  const Buckets buckets(items, 2, 0, 4 * 96);
  for (const Bucket& bucket : buckets.all()) {
    found.emplace_back();
    for (const Bucket::Entry& entry : bucket.entries) found.back().push_back(entry.parameter);
  }
  EXPECT_EQ(found, (std::vector<std::vector<size_t>>{{5, 4}, {3, 2}, {1}, {0}}));
  const ParameterInfo weight{"h.0.c_fc.weight"}, bias{"h.0.c_fc.bias"}, other{"h.0.ln_2.bias"};
  EXPECT_TRUE(same_layer(weight, bias));
  EXPECT_FALSE(same_layer(weight, other));
  EXPECT_FALSE(same_layer({"a"}, {"b"}));
}

TEST(Buckets, WhatIsCompleteLastHoldsNothingUp) {
  const std::vector<BucketItem> items = {{0, 64, LookedUp::kByToken},
                                         {1, 4},
                                         {1, 4, LookedUp::kNever, /*joined=*/true},
                                         {1, 32},
                                         {1, 32}};
  const Buckets buckets(items, 2, 0);
  ASSERT_EQ(buckets.all().size(), 3U);
  EXPECT_EQ(buckets.all()[0].entries.size(), 2U);
  EXPECT_EQ(buckets.bucket_of(2), 1U);
  EXPECT_EQ(buckets.bucket_of(1), 1U);
  EXPECT_EQ(buckets.bucket_of(0), 2U);
}

// x -> x p0 p1 ... : every gradient, its bits, of one backward pass.
std::vector<std::vector<float>> reduced(Rank& rank, int zero, bool overlap, bool idle_rank) {
  std::vector<Parameter> parameters = make_units(rank);
  Communicator& replicas = rank.mesh.axis(Axis::kReplica);
  const Buckets buckets(parameters, replicas.size(), replicas.rank(), 4096);
  GradientReducer reducer(rank, parameters, buckets, zero, overlap);
  reducer.begin(parameters);
  if (!idle_rank || replicas.rank() != 1) {
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    Tensor sum;
    for (const Parameter& parameter : parameters) {
      if (parameter.info.name == "p4") continue;  // of no use to this loss
      Tensor weights = Tensor::empty(*rank.allocator, parameter.info.shape);
      for (int64_t i = 0; i < weights.elements(); ++i) {
        weights.data<float>()[i] = std::sin(static_cast<float>(i * 7 + 31 * replicas.rank()));
      }
      const Tensor term =
          ops::sum(cx, ops::multiply(cx, parameter.value, weights), std::array{0, 1});
      sum = sum ? ops::add(cx, sum, term) : term;
    }
    reducer.arm(tape);
    tape.backward(cx, sum);
  }
  reducer.flush();
  reducer.finish();
  std::vector<std::vector<float>> gradients;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (zero > 0 && replicas.size() > 1) {
      EXPECT_FALSE(parameters[i].value.grad());
      gradients.push_back(reducer.own_gradient(i).to_vector<float>());
      continue;
    }
    const std::vector<float> whole = parameters[i].value.grad().to_vector<float>();
    const Part& own = buckets.entry_of(i).own;
    gradients.emplace_back(whole.begin() + own.start, whole.begin() + own.start + own.length);
  }
  gradients.push_back({static_cast<float>(reducer.squares()), reducer.finite() ? 1.0F : 0.0F});
  return gradients;
}

TEST(GradientReducer, NeitherOverlapNorSharingChangesABit) {
  for (const int replicas : {1, 2, 3}) {
    for (const bool idle : {false, true}) {
      testing::run_ranks(replicas, [&](Rank& rank) {
        const auto plain = reduced(rank, 0, false, idle);
        for (int zero = 0; zero <= 3; ++zero) {
          EXPECT_EQ(reduced(rank, zero, true, idle), plain) << replicas << " zero " << zero;
        }
      });
    }
  }
}

// A table [29, 6] that four tokens look rows up in by their ids, and that logits may use too,
// beside one of 13 positions and a parameter that is used after them. Their gradients' own parts.
struct TableCase {
  int zero = 0;
  bool overlap = true, tied = true, idle_rank = false;
  TableUse use;
};
std::vector<std::vector<float>> table_gradients(Rank& rank, const TableCase& which) {
  std::vector<Parameter> parameters(3);
  for (size_t i = 0; i < 3; ++i) {
    parameters[i].info.name = "p" + std::to_string(i);
    parameters[i].info.shape = i == 0 ? Shape{29, 6} : i == 1 ? Shape{13, 6} : Shape{6};
    if (i == 0) parameters[i].info.looked_up = LookedUp::kByToken;
    if (i == 1) parameters[i].info.looked_up = LookedUp::kByPosition;
    parameters[i].value = Tensor::empty(*rank.allocator, parameters[i].info.shape);
    for (int64_t at = 0; at < parameters[i].value.elements(); ++at) {
      parameters[i].value.data<float>()[at] = std::cos(static_cast<float>(at + 5));
    }
    parameters[i].value.set_requires_grad(true);
  }
  Communicator& replicas = rank.mesh.axis(Axis::kReplica);
  const Buckets buckets(parameters, replicas.size(), replicas.rank());
  EXPECT_EQ(buckets.all().size(), 3U);  // each table has its own
  GradientReducer reducer(rank, parameters, buckets, which.zero, which.overlap);
  reducer.begin(parameters, which.use);
  if (!which.idle_rank || replicas.rank() != 1) {
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const int64_t second = 7 * replicas.rank();
    const Tensor ids =
        Tensor::from<int64_t>(*rank.allocator, {2, 2}, std::array<int64_t, 4>{3, second, 3, 28});
    const int64_t at = 4 * replicas.rank();
    const Tensor positions = Tensor::from<int64_t>(
        *rank.allocator, {2, 2}, std::array<int64_t, 4>{at, at + 1, at + 2, at + 3});
    Tensor x = ops::embedding(cx, ids, parameters[0].value);
    x = ops::add(cx, x, ops::embedding(cx, positions, parameters[1].value));
    x = ops::multiply(cx, x, parameters[2].value);
    if (which.tied) {
      x = ops::linear(cx, x, parameters[0].value, Tensor(), ops::WeightLayout::kOutIn);
    }
    const Tensor sum = ops::sum(cx, ops::multiply(cx, x, x), std::array{0, 1, 2});
    reducer.arm(tape);
    tape.backward(cx, sum);
  }
  reducer.flush();
  reducer.finish();
  std::vector<std::vector<float>> gradients;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (which.zero > 0 && replicas.size() > 1) {
      gradients.push_back(reducer.own_gradient(i).to_vector<float>());
      continue;
    }
    const std::vector<float> whole = parameters[i].value.grad().to_vector<float>();
    const Part& own = buckets.entry_of(i).own;
    gradients.emplace_back(whole.begin() + own.start, whole.begin() + own.start + own.length);
  }
  EXPECT_TRUE(reducer.finite());
  return gradients;
}

TEST(GradientReducer, TablesSendTheRowsThatWereLookedUp) {
  for (const int replicas : {2, 3}) {
    for (const bool tied : {false, true}) {
      for (const bool idle : {false, true}) {
        testing::run_ranks(replicas, [&](Rank& rank) {
          const Communicator& comm = rank.mesh.axis(Axis::kReplica);
          int64_t before = comm.bytes_sent();
          const auto whole = table_gradients(rank, {0, true, tied, idle, {}});
          const int64_t sent_whole = comm.bytes_sent() - before;
          const TableUse use{.tokens = 4, .tied = tied, .accumulated = false};
          before = comm.bytes_sent();
          const auto rows = table_gradients(rank, {0, true, tied, idle, use});
          const int64_t others = replicas - 1, own = idle && comm.rank() == 1 ? 0 : 4;
          const int64_t by_rows = others * (8 + own * (2 * 8 + 6 * 4));  // the rows once
          // 29 x 6 and 13 x 6, rounded up to 32s.
          const int64_t summed = 2 * others * 4 * ((tied ? 0 : 192) + 96) / replicas;
          EXPECT_EQ(comm.bytes_sent() - before, sent_whole + by_rows - summed);
          for (size_t i = 0; i < rows.size(); ++i) {
            ASSERT_EQ(rows[i].size(), whole[i].size());
            for (size_t at = 0; at < rows[i].size(); ++at) {
              EXPECT_NEAR(rows[i][at], whole[i][at], 1e-5F * (1 + std::abs(whole[i][at])));
            }
          }
          EXPECT_EQ(table_gradients(rank, {0, false, tied, idle, use}), rows);
          for (int zero = 1; zero <= 3; ++zero) {
            EXPECT_EQ(table_gradients(rank, {zero, true, tied, idle, use}), rows) << zero;
          }
        });
      }
    }
  }
}

// A table that so many tokens of this rank look up, and a block: a norm, two matrices of its
// attention and one of its MLP, each a bucket of 512, 768, 1536 and 512 bytes (the norm's of 128).
struct BlockGradients {
  std::vector<int64_t> sent;  // bytes of what was summed, and -1 for the rows, in this order
  std::vector<std::vector<float>> own;
};
bool is_of_rows(const Span& span, int64_t tokens) {
  return std::string_view(span.name) == "all_gather" && span.bytes == tokens * 8 * 4;
}
BlockGradients block_gradients(Rank& rank, Activity& activity, int64_t tokens, bool overlap) {
  std::vector<Parameter> parameters(5);
  const std::array shapes = {Shape{128, 8}, Shape{8}, Shape{8, 24}, Shape{24, 16}, Shape{16, 8}};
  for (size_t i = 0; i < 5; ++i) {
    ParameterInfo& info = parameters[i].info;
    info.name = "layer" + std::to_string(i) + ".weight";
    info.shape = shapes[i];
    info.unit = i > 0 ? 1 : 0;
    info.behind_attention = i == 4;
    if (i == 0) info.looked_up = LookedUp::kByToken;
    Tensor& value = parameters[i].value;
    value = Tensor::empty(*rank.allocator, info.shape);
    for (int64_t at = 0; at < value.elements(); ++at) {
      value.data<float>()[at] = std::cos(static_cast<float>(at + 5));
    }
    value.set_requires_grad(true);
  }
  const int replica = rank.mesh.index(Axis::kReplica);
  const Buckets buckets(parameters, 2, replica, 512);
  EXPECT_EQ(buckets.all().size(), 5U);
  GradientReducer reducer(rank, parameters, buckets, /*zero=*/1, overlap);
  activity.start_recording({});
  reducer.begin(parameters, {.tokens = tokens, .tied = false, .accumulated = false});
  if (replica == 0) {  // the other has none, and sends in the same order
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < tokens; ++i) ids.push_back(i * i % 128);
    Tensor x = ops::embedding(cx, Tensor::from<int64_t>(*rank.allocator, {tokens}, ids),
                              parameters[0].value);
    x = ops::multiply(cx, x, parameters[1].value);
    for (size_t i = 2; i < 5; ++i) {
      x = ops::linear(cx, x, parameters[i].value, Tensor(), ops::WeightLayout::kInOut);
    }
    const Tensor sum = ops::sum(cx, ops::multiply(cx, x, x), std::array{0, 1});
    reducer.arm(tape);
    tape.backward(cx, sum);
    // They leave without the flush; the other rank, which has none, waits for them there.
    const auto have_come = [&] {
      return std::ranges::any_of(activity.recording_so_far()->spans,
                                 [&](const Span& span) { return is_of_rows(span, tokens); });
    };
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (overlap && !have_come() && std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    }
    EXPECT_EQ(have_come(), overlap);
  }
  reducer.flush();
  reducer.finish();
  BlockGradients result;
  for (const Span& span : activity.take_recording().spans) {
    if (span.lane != Lane::kCommunication) continue;
    const bool sum = std::string_view(span.name) == "reduce_scatter";
    if (sum || is_of_rows(span, tokens)) result.sent.push_back(sum ? span.bytes : -1);
  }
  for (size_t i = 0; i < 5; ++i) {
    result.own.push_back(reducer.own_gradient(i).to_vector<float>());
  }
  return result;
}

// The sums of both attention's matrices are 384 and 768 bytes to the other rank, the rows 32 each.
TEST(GradientReducer, RowsTravelBesideGradientsThatArePutOff) {
  testing::run_ranks(2, [](Rank& outer) {
    Communicator& world = outer.mesh.axis(Axis::kWorld);
    Activity activity;
    auto watched = comm::watched(world.split(0, world.rank()), activity, {.compare = true});
    Rank rank{make_caching_allocator(), std::make_unique<ThreadPool>(1),
              std::move(*Mesh::create(std::move(watched), {.data = 2})), Logger()};
    const std::vector<std::pair<int64_t, std::vector<int64_t>>> cases = {
        {11, {512, 1536, 768, 128, -1}},
        {12, {512, 1536, 128, -1, 768}},
        {35, {512, 1536, 128, -1, 768}},
        {36, {512, 128, -1, 768, 1536}}};
    for (const auto& [tokens, order] : cases) {
      const BlockGradients found = block_gradients(rank, activity, tokens, true);
      EXPECT_EQ(found.sent, order) << tokens;
      EXPECT_EQ(found.own, block_gradients(rank, activity, tokens, false).own);
    }
  });
}

TEST(GradientReducer, RoundsAddUp) {
  testing::run_ranks(2, [](Rank& rank) {
    std::vector<Parameter> parameters = make_units(rank);
    const Buckets buckets(parameters, 2, rank.mesh.index(Axis::kReplica), 4096);
    GradientReducer reducer(rank, parameters, buckets, 2);
    reducer.begin(parameters);
    for (int round = 1; round <= 3; ++round) {
      for (const Parameter& parameter : parameters) {
        parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.info.shape, round));
      }
      reducer.flush();
    }
    reducer.finish();
    for (size_t i = 0; i < parameters.size(); ++i) {
      for (float value : reducer.own_gradient(i).to_vector<float>()) EXPECT_EQ(value, 12.0F);
    }
  });
}

TEST(GradientReducer, KnowsWhoseGradientWasNotFinite) {
  testing::run_ranks(2, [](Rank& rank) {
    std::vector<Parameter> parameters = make_units(rank);
    const int index = rank.mesh.index(Axis::kReplica);
    const Buckets buckets(parameters, 2, index, 4096);
    for (const Parameter& parameter : parameters) {
      parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.info.shape, 1));
    }
    if (index == 1) parameters[2].value.grad().data<float>()[17] = HUGE_VALF;
    GradientReducer reducer(rank, parameters, buckets, 1);
    reducer.begin(parameters);
    reducer.flush();
    reducer.finish();
    EXPECT_EQ(reducer.finite(), index == 0);
  });
}

}  // namespace
}  // namespace weft
