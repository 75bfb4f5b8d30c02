#include "coordinator/launcher/launch_record.h"

#include <gtest/gtest.h>

#include "coordinator/launcher/attempt_end.h"
#include "worker/admission/memory.h"

namespace weft {
namespace {

proto::Placement placement() {
  proto::Placement placed;
  for (const auto& [name, slots] : {std::pair{"n1", 2}, std::pair{"n2", 1}}) {
    auto* node = placed.add_nodes();
    node->set_name(name);
    for (int slot = 0; slot < slots; ++slot) node->add_slots(slot + 1);
  }
  return placed;
}

TEST(LaunchRecord, RanksAreNumberedNodeByNode) {
  int32_t slot = 0;
  EXPECT_EQ(node_of_rank(placement(), 0), "n1");
  EXPECT_EQ(node_of_rank(placement(), 1, &slot), "n1");
  EXPECT_EQ(slot, 2);
  EXPECT_EQ(node_of_rank(placement(), 2), "n2");
  EXPECT_EQ(node_of_rank(placement(), 3), "");
  EXPECT_EQ(node_of_rank(placement(), -1), "");
}

TEST(LaunchRecord, CarriesWhatTheRanksNeedAndASecretOfItsOwn) {
  SimulatedClock clock;
  const auto store = JobStore::open(make_memory_key_value(), clock).value();
  proto::ObjectManifest object;
  object.set_id("obj-1");
  ASSERT_TRUE(store->put_object(object).ok());
  std::map<std::string, proto::NodeInfo> nodes;
  for (const char* name : {"n1", "n2"}) {
    nodes[name].set_name(name);
    nodes[name].set_cores(8);
    nodes[name].set_slots(4);
    nodes[name].set_memory_bytes(int64_t{8} << 30);
  }
  proto::Job job;
  job.set_id("job-1");
  job.set_attempt(1);
  *job.mutable_placement() = placement();
  auto* data = job.mutable_spec()->add_tasks()->mutable_data();
  data->set_train("obj-1");
  data->set_validation("obj-1");
  auto record = make_launch_record(*store, job, nodes, "key").value();
  EXPECT_EQ(record.objects_size(), 1);
  ASSERT_EQ(record.ranks_size(), 3);
  EXPECT_EQ(record.ranks(1).local_rank(), 1);
  EXPECT_EQ(record.ranks(2).local_rank(), 0);
  EXPECT_EQ(record.ranks(2).threads(), 2);
  EXPECT_EQ(record.ranks(2).memory_bytes(), memory_of_slot(int64_t{8} << 30, 4));
  EXPECT_EQ(record.secret().size(), 64u);
  job.set_attempt(2);
  EXPECT_NE(make_launch_record(*store, job, nodes, "key").value().secret(), record.secret());
  EXPECT_NE(make_launch_record(*store, job, nodes, "other").value().secret(), record.secret());
  data->set_validation("obj-2");
  EXPECT_EQ(make_launch_record(*store, job, nodes, "key").error().code(), Code::kNotFound);
}

TEST(AttemptEnd, TheBackOffDoublesUpToALimit) {
  const RestartPolicy policy{2, 300};
  EXPECT_EQ(back_off_ms(policy, 1), 2000);
  EXPECT_EQ(back_off_ms(policy, 4), 16'000);
  EXPECT_EQ(back_off_ms(policy, 1000), 300'000);
}

}  // namespace
}  // namespace weft
