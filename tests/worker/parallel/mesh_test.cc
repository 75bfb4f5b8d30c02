// A transformer block with attention, trained on one rank and on every mesh of up to eight: the
// same loss, and the same gradients once they are summed over the replicas.
#include <gtest/gtest.h>

#include "tests/testing/rank_runner.h"
#include "tests/worker/parallel/shards.h"
#include "worker/parallel/sequence_attention.h"
#include "worker/parallel/tensor_parallel.h"

namespace weft::parallel {
namespace {

using ops::WeightLayout;
using testing::cut;
using testing::drawn;
using testing::expect_near;
using testing::leaf;

constexpr int64_t kRows = 3, kTokens = 7, kHeads = 3, kFeatures = 4, kHidden = 12, kVocabulary = 9;
constexpr auto kLayout = WeightLayout::kOutIn;

// query, key, value are [heads * features, hidden]; output is [hidden, heads * features].
struct Weights {
  Tensor table, gamma, beta, query, key, value, output, bias;
  std::vector<Tensor> all() const { return {table, gamma, beta, query, key, value, output, bias}; }
};

// What a rank works on: rows of the data axis, tokens of the sequence axis.
struct Local {
  Part rows{0, kRows}, tokens{0, kTokens};
  Part heads{0, kHeads};
};

Tensor heads_first(Context& cx, const Tensor& x, int64_t heads) {
  const int order[] = {0, 2, 1, 3};
  const Tensor apart = ops::reshape(cx, x, Shape{x.dim(0), x.dim(1), heads, kFeatures});
  return ops::permute(cx, apart, order);
}

attention::Parameters parameters_of(const Local& local) {
  attention::Parameters p;
  p.scale = 0.5;
  p.visibility.causal = true;
  p.dropout = {0.1, {1, 2}, kRows, kHeads, kTokens, kTokens, local.rows.start, local.heads.start};
  return p;
}

// The sum of the losses of this rank's rows and tokens.
Tensor loss_of(Context& cx, const TensorAxis& axis, const Mesh& mesh, const Weights& w,
               const Local& local, const Tensor& ids, const Tensor& labels) {
  const Tensor embedded = vocabulary_embedding(cx, axis, ids, w.table, kVocabulary);
  const Part tokens = axis.token_part();
  const ops::GlobalIndex where{Shape{kRows, kTokens, kHidden},
                               {local.rows.start, local.tokens.start + tokens.start, 0}};
  const Tensor x = ops::dropout(cx, embedded, 0.2, {3, 4}, where);
  const Tensor normed =
      ops::layer_norm(cx, x, replicated(cx, axis, w.gamma), replicated(cx, axis, w.beta), 1e-5);
  const Tensor input = column_input(cx, axis, normed);
  const auto project = [&](const Tensor& weight) {
    return heads_first(cx, ops::linear(cx, input, weight, Tensor(), kLayout), local.heads.length);
  };
  const Tensor seen =
      sequence_attention(cx, mesh, SequenceLayout::contiguous(kTokens, mesh.size(Axis::kSequence)),
                         project(w.query), project(w.key), project(w.value), parameters_of(local));
  const int order[] = {0, 2, 1, 3};
  const Tensor joined = ops::reshape(cx, ops::contiguous(cx, ops::permute(cx, seen, order)),
                                     Shape{ids.dim(0), ids.dim(1), local.heads.length * kFeatures});
  const Tensor y = ops::add(cx, x, row_linear(cx, axis, joined, w.output, w.bias, kLayout));
  const Tensor logits = column_linear(cx, axis, y, w.table, Tensor(), kLayout);
  return vocabulary_cross_entropy(cx, axis.comm, logits, labels, kVocabulary);
}

Tensor integers(Context& cx, int64_t factor) {
  Tensor ids = Tensor::empty(cx.allocator, {kRows, kTokens}, DType::kI64);
  for (int64_t i = 0; i < ids.elements(); ++i) {
    ids.data<int64_t>()[i] = (i * factor + i / 5) % kVocabulary;
  }
  return ids;
}

Weights whole_weights(Context& cx) {
  return {drawn(cx, {kVocabulary, kHidden}, 1),
          drawn(cx, {kHidden}, 2),
          drawn(cx, {kHidden}, 3),
          drawn(cx, {kHidden, kHidden}, 4),
          drawn(cx, {kHidden, kHidden}, 5),
          drawn(cx, {kHidden, kHidden}, 6),
          drawn(cx, {kHidden, kHidden}, 7),
          drawn(cx, {kHidden}, 8)};
}

Weights shards(Context& cx, const Communicator& tensor, const Weights& w, Part heads) {
  const auto by_head = [&](const Tensor& x, int dim) {
    return clone(cx.pool, ops::slice(cx, x.detach(), dim, heads.start * kFeatures,
                                     heads.length * kFeatures));
  };
  return {cut(cx, tensor, w.table, 0), clone(cx.pool, w.gamma), clone(cx.pool, w.beta),
          by_head(w.query, 0),         by_head(w.key, 0),       by_head(w.value, 0),
          by_head(w.output, 1),        clone(cx.pool, w.bias)};
}

Weights run(Context cx, const TensorAxis& axis, const Mesh& mesh, const Weights& w,
            const Local& local, Tensor& loss) {
  Tape tape;
  const auto mine = [&](const Tensor& x) {
    const Tensor rows = ops::slice(cx, x, 0, local.rows.start, local.rows.length);
    return clone(cx.pool, ops::slice(cx, rows, 1, local.tokens.start, local.tokens.length));
  };
  const Tensor ids = mine(integers(cx, 4)), labels = mine(integers(cx, 5));
  for (Tensor x : w.all()) leaf(x);
  cx.tape = &tape;
  loss = loss_of(cx, axis, mesh, w, local, ids, labels);
  tape.backward(cx, loss);
  const auto grad = [](const Tensor& x) { return x.grad(); };
  return {grad(w.table), grad(w.gamma), grad(w.beta),   grad(w.query),
          grad(w.key),   grad(w.value), grad(w.output), grad(w.bias)};
}

void compare(Rank& rank, const Mesh& alone, bool sequence_parallel) {
  Context cx = rank.context();
  const Mesh& mesh = rank.mesh;
  const Weights whole = whole_weights(cx);
  Tensor expected;
  const Weights wanted =
      run(cx, {alone.axis(Axis::kTensor), false, kTokens}, alone, whole, {}, expected);

  const auto part = [&](Axis axis, int64_t extent) {
    return part_of(extent, mesh.size(axis), mesh.index(axis));
  };
  const Local local{part(Axis::kData, kRows), part(Axis::kSequence, kTokens),
                    part(Axis::kTensor, kHeads)};
  Communicator& tensor = mesh.axis(Axis::kTensor);
  const Weights mine = shards(cx, tensor, whole, local.heads);
  Tensor loss;
  const Weights grads =
      run(cx, {tensor, sequence_parallel, local.tokens.length}, mesh, mine, local, loss);
  Communicator& replica = mesh.axis(Axis::kReplica);
  replica.all_reduce(loss, ReduceOp::kSum);
  expect_near(loss, expected, 1e-10, "loss");
  const auto sums = grads.all(), right = shards(cx, tensor, wanted, local.heads).all();
  for (size_t i = 0; i < sums.size(); ++i) {
    Tensor sum = sums[i];
    replica.all_reduce(sum, ReduceOp::kSum);
    expect_near(sum, right[i], 1e-9, "gradient " + std::to_string(i));
  }
}

class EveryMesh : public ::testing::TestWithParam<MeshDegrees> {};

TEST_P(EveryMesh, LossAndGradientsAreThoseOfOneRank) {
  testing::run_mesh(GetParam(), [](Rank& rank) {
    Communicator& world = rank.mesh.axis(Axis::kWorld);
    const Mesh alone = *Mesh::create(world.split(world.rank(), 0), {});
    for (int ulysses = 1; ulysses <= rank.mesh.size(Axis::kSequence); ++ulysses) {
      if (rank.mesh.size(Axis::kSequence) % ulysses != 0) continue;
      rank.mesh.divide_sequence(ulysses);
      for (bool sequence_parallel : {false, true}) compare(rank, alone, sequence_parallel);
    }
  });
}

std::vector<MeshDegrees> meshes() {
  std::vector<MeshDegrees> all;
  for (int data = 1; data <= 8; ++data) {
    for (int sequence = 1; data * sequence <= 8; ++sequence) {
      for (int tensor = 1; data * sequence * tensor <= 8; ++tensor) {
        all.push_back({data, sequence, tensor});
      }
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Degrees, EveryMesh, ::testing::ValuesIn(meshes()), [](const auto& test) {
  const MeshDegrees& d = test.param;
  return "Data" + std::to_string(d.data) + "Sequence" + std::to_string(d.sequence) + "Tensor" +
         std::to_string(d.tensor);
});

}  // namespace
}  // namespace weft::parallel
