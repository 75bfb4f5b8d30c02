// What topology-invariant training computes, op by op: the same bits on every mesh.
#include "worker/parallel/blocked.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <mutex>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "tests/testing/rank_runner.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

constexpr int kBlocks = 4;
constexpr int64_t kTokens = 640, kHidden = 12;

// Elements [first, first + length) along dim 0 or 1 of a matrix that every mesh has.
Tensor cut(Rank& rank, const Shape& whole, int dim, Part part, int salt) {
  Shape shape = whole;
  shape[dim] = part.length;
  Tensor x = Tensor::empty(*rank.allocator, shape);
  for (int64_t row = 0; row < shape[0]; ++row) {
    for (int64_t column = 0; column < shape[1]; ++column) {
      const int64_t at =
          (row + (dim == 0 ? part.start : 0)) * whole[1] + column + (dim == 1 ? part.start : 0);
      x.data<float>()[row * shape[1] + column] = std::sin(static_cast<float>(at * 3 + salt));
    }
  }
  return x.set_requires_grad(true);
}

// Where a rank's numbers stand in the whole, row by row.
struct Whole {
  std::vector<float> values;
  void put(const Shape& whole, int dim, Part part, const Tensor& x) {
    values.resize(static_cast<size_t>(whole.elements()));
    const std::vector<float> own = x.to_vector<float>();
    const int64_t width = dim == 1 ? part.length : whole[1];
    for (size_t i = 0; i < own.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / width + (dim == 0 ? part.start : 0);
      const int64_t column = static_cast<int64_t>(i) % width + (dim == 1 ? part.start : 0);
      values[static_cast<size_t>(row * whole[1] + column)] = own[i];
    }
  }
};

struct Outcome {
  double loss = 0;
  Whole x, table, bias;
  std::vector<int64_t> best;
};

// This rank's tokens between blocks: the replica's, shared out over the tensor axis.
Part own_tokens(Rank& rank) {
  const Part replica =
      part_of(kTokens, rank.mesh.size(Axis::kReplica), rank.mesh.index(Axis::kReplica));
  const Part own =
      part_of(replica.length, rank.mesh.size(Axis::kTensor), rank.mesh.index(Axis::kTensor));
  return {replica.start + own.start, own.length};
}

Outcome loss_on(MeshDegrees mesh, int64_t vocabulary, int64_t kept_max, bool biased) {
  Outcome all;
  std::mutex mutex;
  testing::run_mesh(mesh, [&](Rank& rank) {
    rank.blocks = kBlocks;
    const Part own = own_tokens(rank),
               ids = part_of(vocabulary, mesh.tensor, rank.mesh.index(Axis::kTensor));
    const Part replica =
        part_of(kTokens, rank.mesh.size(Axis::kReplica), rank.mesh.index(Axis::kReplica));
    const Tensor x = cut(rank, {kTokens, kHidden}, 0, own, 1);
    const Tensor table = cut(rank, {vocabulary, kHidden}, 0, ids, 2);
    const Tensor bias = cut(rank, {vocabulary, 1}, 0, ids, 3);
    std::vector<int64_t> label;
    for (int64_t i = 0; i < replica.length; ++i) {
      label.push_back((replica.start + i) % 5 == 4 ? -100 : (replica.start + i) * 7 % vocabulary);
    }
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    Tensor best;
    const Tensor sum = blocked_linear_cross_entropy(
        cx, blocked_axis(rank, replica.length), x, table,
        Tensor::from<int64_t>(*rank.allocator, {replica.length}, label), vocabulary,
        {.ignore_index = -100}, &best, kept_max,
        biased ? ops::reshape(cx, bias, {ids.length}) : Tensor());
    tape.backward(cx, sum);
    const Tensor of_table = tree_sum(cx, rank.mesh.axis(Axis::kReplica), table.grad());
    const Tensor of_bias =
        biased ? tree_sum(cx, rank.mesh.axis(Axis::kReplica), bias.grad()) : Tensor();
    const std::lock_guard lock(mutex);
    all.loss = *sum.data<float>();
    all.x.put({kTokens, kHidden}, 0, own, x.grad());
    all.table.put({vocabulary, kHidden}, 0, ids, of_table);
    if (biased) all.bias.put({vocabulary, 1}, 0, ids, of_bias);
    all.best.resize(kTokens);
    const std::vector<int64_t> likeliest = best.to_vector<int64_t>();
    std::copy(likeliest.begin(), likeliest.end(), all.best.begin() + replica.start);
  });
  return all;
}

// Logits that are kept and logits that are computed again.
void expect_the_bits_of_one_rank(bool biased) {
  constexpr int64_t kVocabulary = 102;  // blocks of 26, 25, 26 and 25
  const Outcome one = loss_on({}, kVocabulary, kKeptLogits, biased);
  EXPECT_GT(one.loss, 0);
  EXPECT_EQ(std::ssize(one.bias.values), biased ? kVocabulary : 0);
  for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{1, 1, 2}, MeshDegrees{2, 1, 1},
                                 MeshDegrees{1, 1, 4}, MeshDegrees{2, 1, 2}}) {
    for (const int64_t kept_max : {int64_t{0}, kTokens * kVocabulary / 3, kKeptLogits}) {
      const Outcome other = loss_on(mesh, kVocabulary, kept_max, biased);
      const std::string where = std::to_string(mesh.data) + "x" + std::to_string(mesh.tensor) +
                                " keeps " + std::to_string(kept_max);
      EXPECT_EQ(other.loss, one.loss) << where;
      EXPECT_EQ(other.x.values, one.x.values) << where;
      EXPECT_EQ(other.table.values, one.table.values) << where;
      EXPECT_EQ(other.bias.values, one.bias.values) << where;
      EXPECT_EQ(other.best, one.best) << where;
    }
  }
}

TEST(BlockedLoss, HasTheBitsOfOneRank) { expect_the_bits_of_one_rank(/*biased=*/false); }

TEST(BlockedLoss, HasTheBitsOfOneRankWithABias) { expect_the_bits_of_one_rank(/*biased=*/true); }

// x -> four features, an activation: gradients of x, weight and bias.
Outcome linear_on(MeshDegrees mesh) {
  constexpr int64_t kOut = kBlocks;
  Outcome all;
  std::mutex mutex;
  testing::run_mesh(mesh, [&](Rank& rank) {
    rank.blocks = kBlocks;
    const Part own = own_tokens(rank);
    const Part features = part_of(kOut, mesh.tensor, rank.mesh.index(Axis::kTensor));
    const Part replica =
        part_of(kTokens, rank.mesh.size(Axis::kReplica), rank.mesh.index(Axis::kReplica));
    const Tensor x = cut(rank, {kTokens, kHidden}, 0, own, 1);
    const Tensor weight = cut(rank, {kHidden, kOut}, 1, features, 2);
    const Tensor bias = Tensor::zeros(*rank.allocator, {features.length}).set_requires_grad(true);
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const Tensor y =
        blocked_linear(cx, blocked_axis(rank, replica.length), x, weight, bias,
                       {.shared = Shared::kOutputs, .activation = ops::Activation::kSigmoid});
    tape.backward(
        cx, y,
        ops::reshape(cx, cut(rank, {kTokens, kOut}, 0, replica, 5), {1, replica.length, kOut})
            .detach()
            .view({1, replica.length, features.length}, std::array<int64_t, 3>{0, kOut, 1},
                  features.start));
    Communicator& replicas = rank.mesh.axis(Axis::kReplica);
    const Tensor of_weight = tree_sum(cx, replicas, weight.grad());
    const Tensor of_bias = tree_sum(cx, replicas, bias.grad());
    const std::lock_guard lock(mutex);
    all.x.put({kTokens, kHidden}, 0, own, x.grad());
    all.table.put({kHidden, kOut}, 1, features, of_weight);
    all.bias.put({1, kOut}, 1, features, of_bias);
  });
  return all;
}

// On four ranks of the tensor axis each has one feature.
TEST(BlockedLinear, HasTheBitsOfOneRank) {
  const Outcome one = linear_on({});
  for (const MeshDegrees mesh :
       {MeshDegrees{1, 1, 2}, MeshDegrees{1, 1, 4}, MeshDegrees{2, 1, 2}, MeshDegrees{4, 1, 1}}) {
    const Outcome other = linear_on(mesh);
    const std::string where = std::to_string(mesh.data) + "x" + std::to_string(mesh.tensor);
    EXPECT_EQ(other.x.values, one.x.values) << where;
    EXPECT_EQ(other.table.values, one.table.values) << where;
    EXPECT_EQ(other.bias.values, one.bias.values) << where;
  }
}

// Five distances in three buckets, four heads: the table's gradient.
Whole distances_on(MeshDegrees mesh) {
  constexpr int64_t kHeads = 4;
  const std::vector<int64_t> bucket{0, 0, 1, 2, 2};
  const int64_t distances = std::ssize(bucket);
  Whole gradient;
  std::mutex mutex;
  testing::run_mesh(mesh, [&](Rank& rank) {
    rank.blocks = kBlocks;
    const Part heads = part_of(kHeads, mesh.tensor, rank.mesh.index(Axis::kTensor));
    const Part blocks =
        part_of(kBlocks, rank.mesh.size(Axis::kReplica), rank.mesh.index(Axis::kReplica));
    const Tensor table = cut(rank, {3, kHeads}, 1, heads, 2);
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const Tensor of_each = Tensor::from<int64_t>(*rank.allocator, {distances}, bucket);
    const Tensor bias = blocked_distance_bias(cx, blocked_axis(rank, kTokens), table, of_each);
    ASSERT_EQ(bias.shape(), (Shape{blocks.length, heads.length, distances}));
    const Tensor seed = Tensor::empty(*rank.allocator, bias.shape());
    for (int64_t i = 0; i < seed.elements(); ++i) {
      const int64_t distance = i % distances, head = i / distances % heads.length;
      const int64_t at = bucket[static_cast<size_t>(distance)] * heads.length + head;
      EXPECT_EQ(bias.data<float>()[i], table.data<float>()[at]);
      const int64_t block = blocks.start + i / distances / heads.length;
      const int64_t whole = (block * kHeads + heads.start + head) * distances + distance;
      seed.data<float>()[i] = std::sin(static_cast<float>(whole * 3 + 1));
    }
    tape.backward(cx, bias, seed);
    const Tensor all = tree_sum(cx, rank.mesh.axis(Axis::kReplica), table.grad());
    const std::lock_guard lock(mutex);
    gradient.put({3, kHeads}, 1, heads, all);
  });
  return gradient;
}

TEST(BlockedDistanceBias, HasTheBitsOfOneRank) {
  const Whole one = distances_on({});
  EXPECT_NE(one.values, std::vector<float>(12, 0));
  for (const MeshDegrees mesh :
       {MeshDegrees{1, 1, 2}, MeshDegrees{2, 1, 1}, MeshDegrees{2, 1, 2}, MeshDegrees{4, 1, 1}}) {
    EXPECT_EQ(distances_on(mesh).values, one.values) << mesh.data << "x" << mesh.tensor;
  }
}

// Two weights and biases of one input, of other widths: gradients of all, and the bytes that a rank
// of the tensor axis sends.
struct Several {
  Whole x, wide, narrow, wide_bias, narrow_bias;
  int64_t bytes = 0;
};
Several linears_on(MeshDegrees mesh) {
  constexpr int64_t kWide = 6 * kBlocks, kNarrow = 2 * kBlocks;
  Several all;
  std::mutex mutex;
  testing::run_mesh(mesh, [&](Rank& rank) {
    rank.blocks = kBlocks;
    const Part own = own_tokens(rank);
    const Part replica =
        part_of(kTokens, rank.mesh.size(Axis::kReplica), rank.mesh.index(Axis::kReplica));
    const auto shard = [&](int64_t features) {
      return part_of(features, mesh.tensor, rank.mesh.index(Axis::kTensor));
    };
    const Tensor x = cut(rank, {kTokens, kHidden}, 0, own, 1);
    const std::array weights = {cut(rank, {kWide, kHidden}, 0, shard(kWide), 2),
                                cut(rank, {kNarrow, kHidden}, 0, shard(kNarrow), 3)};
    const auto bias = [&](int64_t features, int salt) {
      const Tensor row = cut(rank, {1, features}, 1, shard(features), salt).detach();
      return row.view({row.dim(1)}, std::array<int64_t, 1>{1}, 0).set_requires_grad(true);
    };
    const std::array biases = {bias(kWide, 7), bias(kNarrow, 8)};
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const Communicator& tensor = rank.mesh.axis(Axis::kTensor);
    const int64_t before = tensor.bytes_sent();
    const std::vector<Tensor> y = blocked_linears(cx, blocked_axis(rank, replica.length), x,
                                                  weights, biases, ops::WeightLayout::kOutIn);
    const auto weighted = [&](const Tensor& each, int64_t features, int salt) {
      const Tensor whole = cut(rank, {kTokens, features}, 1, shard(features), salt).detach();
      const Tensor factor = ops::slice(cx, whole, 0, replica.start, replica.length);
      return ops::sum_all(cx, ops::multiply(cx, each, ops::reshape(cx, factor, each.shape())));
    };
    // Of the square too, so that biases reach other gradients.
    const auto squared = [&](const Tensor& each) { return ops::multiply(cx, each, each); };
    tape.backward(
        cx, ops::add(cx, weighted(squared(y[0]), kWide, 5), weighted(squared(y[1]), kNarrow, 6)));
    const int64_t sent = tensor.bytes_sent() - before;
    Communicator& replicas = rank.mesh.axis(Axis::kReplica);
    const Tensor of_wide = tree_sum(cx, replicas, weights[0].grad());
    const Tensor of_narrow = tree_sum(cx, replicas, weights[1].grad());
    const Tensor of_wide_bias = tree_sum(cx, replicas, biases[0].grad());
    const Tensor of_narrow_bias = tree_sum(cx, replicas, biases[1].grad());
    const std::lock_guard lock(mutex);
    all.x.put({kTokens, kHidden}, 0, own, x.grad());
    all.wide.put({kWide, kHidden}, 0, shard(kWide), of_wide);
    all.narrow.put({kNarrow, kHidden}, 0, shard(kNarrow), of_narrow);
    all.wide_bias.put({1, kWide}, 1, shard(kWide), of_wide_bias);
    all.narrow_bias.put({1, kNarrow}, 1, shard(kNarrow), of_narrow_bias);
    all.bytes = sent;
  });
  return all;
}

TEST(BlockedLinears, HaveTheBitsOfOneRankAndOneGatherOfTheInput) {
  const Several one = linears_on({});
  for (const MeshDegrees mesh :
       {MeshDegrees{1, 1, 2}, MeshDegrees{1, 1, 4}, MeshDegrees{2, 1, 2}, MeshDegrees{4, 1, 1}}) {
    const Several other = linears_on(mesh);
    const std::string where = std::to_string(mesh.data) + "x" + std::to_string(mesh.tensor);
    EXPECT_EQ(other.x.values, one.x.values) << where;
    EXPECT_EQ(other.wide.values, one.wide.values) << where;
    EXPECT_EQ(other.narrow.values, one.narrow.values) << where;
    EXPECT_EQ(other.wide_bias.values, one.wide_bias.values) << where;
    EXPECT_EQ(other.narrow_bias.values, one.narrow_bias.values) << where;
    // The input forwards, once more for the weights' gradients, and terms of its own.
    const int64_t rows = kTokens / mesh.data / mesh.tensor * (mesh.tensor - 1);
    EXPECT_EQ(other.bytes, 3 * rows * kHidden * 4) << where;
  }
}

}  // namespace
}  // namespace weft::parallel
