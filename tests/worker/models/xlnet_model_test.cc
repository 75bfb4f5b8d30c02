// XLNet computes the same on every mesh that it has, on whichever side rows are padded, and learns
// to tell segments and distances apart.
#include <gtest/gtest.h>

#include "kernels/tensor/transfer.h"
#include "tests/worker/models/family_fixture.h"

namespace weft {
namespace {

constexpr const char* kSmallXlnet = R"({"vocab_size": 37, "d_model": 30, "n_head": 5, "d_inner": 40,
    "n_layer": 3, "summary_last_dropout": 0.1})";

ModelConfigPtr xlnet_config(double dropout = 0.1) {
  const ModelFamily& family = *find_family("xlnet");
  return family.with_dropout(**family.parse_config(kSmallXlnet), dropout);
}

TEST(XlnetModel, ShardsCoverEachParameterOnce) {
  for (const int size : {1, 2, 3, 5, 6}) {
    expect_shards_cover_once(*find_family("xlnet"), *xlnet_config(), size);
  }
}

TEST(XlnetModel, EveryMeshComputesTheSame) {
  const ModelFamily& family = *find_family("xlnet");
  const Outcome alone = outcome_on(family, xlnet_config(), {}, false, 0);
  EXPECT_GT(alone.norm, 0);
  for (const MeshDegrees& mesh : meshes()) {
    if (mesh.sequence > 1) continue;
    for (const int64_t micro_batch : {0, 1}) {
      const Outcome other = outcome_on(family, xlnet_config(), mesh, false, micro_batch);
      EXPECT_NEAR(other.loss / alone.loss, 1.0, 1e-5) << mesh.data << mesh.tensor;
      EXPECT_NEAR(other.norm / alone.norm, 1.0, 1e-5) << mesh.data << mesh.tensor;
    }
  }
}

TEST(XlnetModel, GatesOpenBeforeUse) {
  expect_gates_open_before_use(*find_family("xlnet"), xlnet_config(0), 6);
}

// Scores of rows with padding behind their tokens, or before them.
std::vector<float> scores_of(Rank& rank, Trunk& trunk, bool left, int64_t other_type) {
  const auto task =
      *make_task(rank, "sequence_classification", trunk.config(), {.name = "task", .labels = 3});
  initialize_parameters(task->parameters(), 18);
  constexpr int64_t kTokens = 11, kRows = 4;
  TaskRows rows{.rows = kRows, .tokens = kTokens};
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t token = 0; token < kTokens; ++token) {
      const int64_t at = token - (left ? row : 0);
      const bool valid = at >= 0 && at < kTokens - row;
      rows.ids.push_back(valid ? (row * 31 + at * at * 7 + 5) % 37 : token);
      rows.valid.push_back(valid ? 1 : 0);
      rows.token_types.push_back(!valid ? 3 : at == kTokens - row - 1 ? other_type : at / 5);
    }
    rows.labels.push_back(0);
  }
  Context cx = rank.context();
  NoGrad guard(cx);
  return task->logits(cx, trunk, task->assemble(rows, {0, kRows})).to_vector<float>();
}

TEST(XlnetModel, PaddingMayStandOnEitherSide) {
  testing::run_ranks(1, [](Rank& rank) {
    const auto trunk = *find_family("xlnet")->make_trunk(rank, xlnet_config());
    initialize_parameters(trunk->parameters(), 17);
    const auto right = scores_of(rank, *trunk, false, 2), left = scores_of(rank, *trunk, true, 2);
    for (size_t i = 0; i < right.size(); ++i) EXPECT_NEAR(left[i], right[i], 1e-6) << i;
    EXPECT_NE(scores_of(rank, *trunk, false, 1), right) << "which segment the last token is of";
  });
}

TEST(XlnetModel, HasItsTasks) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* type : {"sequence_classification", "token_classification", "multiple_choice",
                             "embedding", "permutation_lm"}) {
      EXPECT_TRUE(make_task(rank, type, *xlnet_config(), {.name = "t", .labels = 2})) << type;
    }
    for (const char* type : {"masked_lm", "question_answering"}) {
      const auto made = make_task(rank, type, *xlnet_config(), {.name = "t", .labels = 2});
      ASSERT_FALSE(made) << type;
      EXPECT_EQ(made.error().rule(),
                "must be one that xlnet learns: sequence_classification, token_classification, "
                "embedding, multiple_choice or permutation_lm")
          << type;
    }
  });
}

}  // namespace
}  // namespace weft
