#include "worker/optimizer/gradients.h"

#include <gtest/gtest.h>

#include <cmath>

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

TEST(Gradients, PartialOnesAreSummedOverTheTensorAxisToo) {
  testing::run_mesh({.data = 2, .tensor = 2}, [](Rank& rank) {
    std::vector<Parameter> parameters = make_pair(rank);
    parameters[0].info.partial_over_tensor = true;
    for (Parameter& parameter : parameters) {
      parameter.value.set_grad(Tensor::full(*rank.allocator, parameter.value.shape(), 1.0));
    }
    reduce_gradients(rank, parameters);
    EXPECT_EQ(parameters[0].value.grad().data<float>()[0], 4.0F);
    EXPECT_EQ(parameters[1].value.grad().data<float>()[0], 2.0F);
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

}  // namespace
}  // namespace weft
