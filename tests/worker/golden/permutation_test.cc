// Predictions in an order of their own: XLNet's two streams agree with transformers', and what is
// no order is refused.
#include <algorithm>
#include <utility>

#include "tests/worker/golden/golden_fixture.h"

namespace weft::golden {
namespace {

// Two streams of queries.
TEST(GoldenPermutation, IsWithinTheAimOnEveryAxis) {
  const Case golden = read(fixture("xlnet-permutation"));
  for (const MeshDegrees mesh :
       {MeshDegrees{}, MeshDegrees{.tensor = 2}, MeshDegrees{.tensor = 3}, MeshDegrees{.data = 2},
        MeshDegrees{.data = 4}, MeshDegrees{.data = 2, .tensor = 2}}) {
    const Report report = run(golden, mesh);
    EXPECT_TRUE(report.passed()) << mesh.data << mesh.tensor << " " << report.worst().what << " "
                                 << report.worst().error;
    EXPECT_GT(report.deviations.size(), 150U);
    for (const char* what : {"logits", "last_hidden_state", "grad.transformer.mask_emb",
                             "grad.lm_loss.bias", "norm after of transformer.mask_emb"}) {
      EXPECT_TRUE(std::ranges::any_of(report.deviations, [&](const Deviation& deviation) {
        return deviation.what == what;
      })) << what;
    }
  }
  const Report exact = run(golden, {}, DType::kF64);
  EXPECT_TRUE(exact.passed()) << exact.worst().what << " " << exact.worst().error;
  for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{.tensor = 2}}) {
    const Report half = run(golden, mesh, DType::kBF16);
    EXPECT_TRUE(half.passed()) << half.worst().what << " " << half.worst().error << " of "
                               << half.worst().bar;
  }
}

TEST(GoldenPermutation, WhatIsWrongIsFound) {
  const Case golden = read(fixture("xlnet-permutation"));
  Case seen = golden, elsewhere = golden, alike = golden;
  std::ranges::fill(seen.inputs.order, 0);
  std::swap(elsewhere.inputs.places[0], elsewhere.inputs.places[1]);
  alike.inputs.token_types.clear();
  for (const Case* wrong : {&seen, &elsewhere, &alike}) {
    EXPECT_TRUE(fails_at(run(*wrong), "logits"));
  }
  // The first batch asks for a place twice.
  Case apart = golden;
  apart.batches[0].places.back() = 1;
  EXPECT_FALSE(run(apart).passed());
}

TEST(GoldenPermutation, WhatIsNoOrderIsRefused) {
  for (const auto& [tensor, rule] : {std::pair{"perm_mask", "must be of an order"},
                                     {"target_mapping", "must be 1 of the token"}}) {
    const Copy copy("xlnet-permutation");
    copy.set("case.safetensors", tensor, 0.5F);
    const Result<Case> golden = read_case(copy.path().string());
    ASSERT_FALSE(golden) << tensor;
    EXPECT_NE(golden.error().to_string().find(std::string(tensor) + " " + rule), std::string::npos)
        << golden.error().to_string();
  }
}

}  // namespace
}  // namespace weft::golden
