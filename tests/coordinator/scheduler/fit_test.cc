#include "coordinator/scheduler/fit.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

std::string text(const std::vector<int>& free, int slots, int nodes) {
  const auto counts = fit_gang(free, slots, nodes);
  if (!counts) return "no";
  std::string out;
  for (const SlotCount& c : *counts)
    out += std::to_string(c.node) + "x" + std::to_string(c.slots) + " ";
  return out;
}

TEST(Fit, AsFewNodesAsPossibleAndTheTightest) {
  EXPECT_EQ(text({4, 2, 3}, 2, 0), "1x2 ");
  EXPECT_EQ(text({4, 2, 3}, 3, 0), "2x3 ");
  EXPECT_EQ(text({4, 2, 3}, 6, 0), "0x4 1x2 ");
  EXPECT_EQ(text({4, 2, 3}, 9, 0), "0x4 2x3 1x2 ");
  EXPECT_EQ(text({4, 2, 3}, 10, 0), "no");
  EXPECT_EQ(text({}, 1, 0), "no");
}

TEST(Fit, ExactlySoManyNodesEvenly) {
  EXPECT_EQ(text({4, 2, 3}, 2, 2), "1x1 2x1 ");
  EXPECT_EQ(text({4, 2, 3}, 5, 2), "2x3 1x2 ");
  EXPECT_EQ(text({4, 1, 1}, 4, 2), "no");
  EXPECT_EQ(text({4, 1, 1}, 3, 3), "1x1 2x1 0x1 ");
  EXPECT_EQ(text({4, 4}, 3, 3), "no");
}

TEST(Fit, NamesWhatCanNeverBe) {
  const std::vector<SnapshotNode> nodes{{"a", 2, true}, {"b", 2, false}};
  EXPECT_TRUE(check_feasible(nodes, {4, 2}).ok());
  EXPECT_TRUE(check_feasible({}, {4096, 0}).ok()) << "nothing is known yet";
  EXPECT_EQ(check_feasible(nodes, {5, 0}).field(), "resources.slots");
  EXPECT_EQ(check_feasible(nodes, {3, 3}).field(), "resources.nodes");
  EXPECT_EQ(check_feasible(nodes, {3, 1}).field(), "resources.nodes");
  EXPECT_EQ(check_feasible({}, {1, 2}).field(), "resources.nodes");
  EXPECT_EQ(check_feasible(nodes, {1, 0, true}).field(), "resources.device");
  std::vector<SnapshotNode> mixed = nodes;
  mixed[1].gpu = true;
  EXPECT_TRUE(check_feasible(mixed, {2, 0, true}).ok());
  EXPECT_EQ(check_feasible(mixed, {3, 0}).field(), "resources.slots");  // of one device 2 at most
}

TEST(Fit, TheErrorIsOfWhatWasWritten) {
  const std::vector<SnapshotNode> nodes{{"a", 2, true}};
  const Status status = check_feasible(nodes, {4, 0}, {"parallel.data", "4"});
  EXPECT_EQ(status.field(), "parallel.data");
  EXPECT_EQ(status.value(), "4");
  EXPECT_EQ(status.message(),
            "parallel.data asks for 4 ranks, one a slot, but all known nodes have 2 slots on 1 "
            "node; ask for fewer, or let further nodes join");
  EXPECT_EQ(check_feasible({{"a", 2, true}, {"b", 1, true}}, {3, 3}).message(),
            "resources.nodes must be at most the number of known nodes: 2");
  EXPECT_EQ(check_feasible({{"a", 3, true}, {"b", 1, true}}, {4, 2}).message(),
            "resources.nodes must be a number of nodes over which 4 ranks, spread evenly, fit the "
            "known nodes: 4 slots on 2 nodes");
}

TEST(Fit, ANodeSuitsRanksOfItsDeviceAndMemory) {
  SnapshotNode node{"a", 2, true};
  EXPECT_TRUE(suits(node, {.memory = {.host = 100}})) << "it is not known what it has";
  node.slot_bytes = 50;
  EXPECT_FALSE(suits(node, {.memory = {.host = 51}}));
  EXPECT_TRUE(suits(node, {.memory = {.host = 50, .gpu = 100, .gpu_host = 100}}));
  EXPECT_FALSE(suits(node, {.gpu = true}));
  node.gpu = true;
  node.gpu_bytes = 80;
  EXPECT_TRUE(suits(node, {.memory = {.host = 100, .gpu = 80, .gpu_host = 50}}));
  EXPECT_FALSE(suits(node, {.memory = {.gpu = 81}}));
  EXPECT_FALSE(suits(node, {.memory = {.gpu_host = 51}}));
}

}  // namespace
}  // namespace weft
