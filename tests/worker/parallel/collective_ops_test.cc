// Values and gradients of each collective op against what the definition says, on axes of 1 to 5
// ranks and extents that leave some ranks without a part.
#include "worker/parallel/collective_ops.h"

#include <gtest/gtest.h>

#include "tests/testing/rank_runner.h"
#include "tests/worker/parallel/shards.h"

namespace weft::parallel {
namespace {

using testing::cut;
using testing::drawn;
using testing::expect_near;
using testing::leaf;

struct Case {
  Context cx;
  Communicator& comm;
  int dim;
  Shape shape;  // of the whole

  int64_t whole() const { return shape[dim]; }
  // Each rank's own tensor, and what they add up to.
  Tensor own(uint64_t stream) {
    return drawn(cx, shape, stream + static_cast<uint64_t>(comm.rank()));
  }
  Tensor sum(uint64_t stream) {
    Tensor total = Tensor::zeros(cx.allocator, shape, DType::kF64);
    for (int r = 0; r < comm.size(); ++r) {
      add_into(cx.pool, drawn(cx, shape, stream + static_cast<uint64_t>(r)), total);
    }
    return total;
  }
  Tensor part(const Tensor& x) { return cut(cx, comm, x, dim); }
};

constexpr uint64_t kX = 100, kWeight = 200;

// d(sum(weight * y)) / dx, and y as expected.
void check(Case& c, const Tensor& x, const std::function<Tensor(Context&, const Tensor&)>& op,
           const Tensor& y_expected, const Tensor& weight, const Tensor& gradient) {
  Tape tape;
  Context recorded = c.cx;
  recorded.tape = &tape;
  const Tensor y = op(recorded, x);
  expect_near(y, y_expected, 1e-12, "value");
  tape.backward(recorded, y, weight);
  expect_near(x.grad(), gradient, 1e-12, "gradient");
}

void check_all(Case c) {
  const Tensor replicated = drawn(c.cx, c.shape, kX);
  const Tensor shared_weight = drawn(c.cx, c.shape, kWeight);
  Communicator& comm = c.comm;
  const int dim = c.dim;
  const int64_t whole = c.whole();
  {
    SCOPED_TRACE("copy_to_axis");
    check(
        c, leaf(clone(c.cx.pool, replicated)),
        [&](Context& cx, const Tensor& x) { return copy_to_axis(cx, comm, x); }, replicated,
        c.own(kWeight), c.sum(kWeight));
  }
  {
    SCOPED_TRACE("sum_over_axis");
    check(
        c, leaf(c.own(kX)),
        [&](Context& cx, const Tensor& x) { return sum_over_axis(cx, comm, x); }, c.sum(kX),
        shared_weight, shared_weight);
  }
  {
    SCOPED_TRACE("gather_along");
    check(
        c, leaf(c.part(replicated)),
        [&](Context& cx, const Tensor& x) { return gather_along(cx, comm, x, dim, whole); },
        replicated, c.own(kWeight), c.part(c.sum(kWeight)));
  }
  {
    SCOPED_TRACE("scatter_sum_along");
    check(
        c, leaf(c.own(kX)),
        [&](Context& cx, const Tensor& x) { return scatter_sum_along(cx, comm, x, dim); },
        c.part(c.sum(kX)), c.part(shared_weight), shared_weight);
  }
  {
    SCOPED_TRACE("split_along");
    check(
        c, leaf(clone(c.cx.pool, replicated)),
        [&](Context& cx, const Tensor& x) { return split_along(cx, comm, x, dim); },
        c.part(replicated), c.part(shared_weight), shared_weight);
  }
  {
    SCOPED_TRACE("join_along");
    check(
        c, leaf(c.part(replicated)),
        [&](Context& cx, const Tensor& x) { return join_along(cx, comm, x, dim, whole); },
        replicated, shared_weight, c.part(shared_weight));
  }
}

class CollectiveOps : public ::testing::TestWithParam<int> {};

TEST_P(CollectiveOps, ValuesAndGradients) {
  testing::run_ranks(GetParam(), [](Rank& rank) {
    Communicator& world = rank.mesh.axis(Axis::kWorld);
    for (const Shape& shape : {Shape{7}, Shape{3, 5, 2}, Shape{1, 6, 4}, Shape{2, 1, 3}}) {
      for (int dim = -1; dim < shape.dims(); ++dim) {
        SCOPED_TRACE(shape.to_string() + " dim " + std::to_string(dim));
        check_all({rank.context(), world, dim, shape});
      }
    }
  });
}

// Views work like any other tensor.
TEST_P(CollectiveOps, StridedInput) {
  testing::run_ranks(GetParam(), [](Rank& rank) {
    Context cx = rank.context();
    Communicator& world = rank.mesh.axis(Axis::kWorld);
    const Tensor x = drawn(cx, {5, 3}, kX);
    const int order[] = {1, 0};
    const Tensor turned = ops::permute(cx, x, order);
    const Tensor part = split_along(cx, world, turned, 1);
    expect_near(part, cut(cx, world, ops::contiguous(cx, turned), 1), 0, "part");
    expect_near(join_along(cx, world, part, 1, 5), ops::contiguous(cx, turned), 0, "whole");
    expect_near(scatter_sum_along(cx, world, turned, 0),
                ops::scale(cx, cut(cx, world, ops::contiguous(cx, turned), 0), world.size()), 1e-12,
                "sum");
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, CollectiveOps, ::testing::Range(1, 6));

}  // namespace
}  // namespace weft::parallel
