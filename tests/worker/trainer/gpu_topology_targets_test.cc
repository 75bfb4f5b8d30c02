// Topology-invariant training of encoder-decoders on GPUs made of fibers, with the played NCCL
// between them: losses, norms, weights and moments of a mesh are those of one such GPU, bit for
// bit.
#include "cluster/comm/threads/thread_ranks.h"
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/nccl_rank.h"
#include "tests/worker/trainer/topology_tasks_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

class GpuTopologyTargets : public TopologyTasks {
 protected:
  static Trace on_gpus(const proto::LaunchRecord& launch, MeshDegrees mesh) {
    cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
    Trace trace;
    std::mutex mutex;
    run_on_threads(
        mesh, [&](Rank& rank) { testing::train_steps(rank, launch, /*steps=*/2, trace, mutex); },
        on_gpu);
    return trace;
  }
  Trace run(const std::string& text, MeshDegrees mesh, int zero = 0) {
    proto::LaunchRecord launch = record(text, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    return on_gpus(launch, mesh);
  }
  // Four blocks of a row each; in bf16 two rounds, and heads and tables that four ranks cut.
  void expect_bits_of_one(const std::function<std::string(const std::string&)>& job) {
    const std::string text = job("reproducible_blocks: 4, batch_size: 4");
    const Trace one = run(text, {});
    ASSERT_EQ(one.losses.size(), 2U);
    for (const MeshDegrees mesh :
         {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2}}) {
      EXPECT_EQ(difference(one, run(text, mesh)), "") << mesh.data << mesh.sequence << mesh.tensor;
    }
    const std::string half =
        job("reproducible_blocks: 4, batch_size: 8, micro_batch_size: 4, precision: bf16, "
            "activation_checkpointing: full");
    const Trace of_half = run(half, {});
    EXPECT_NE(difference(one, of_half), "");
    EXPECT_EQ(difference(of_half, run(half, {1, 1, 4})), "");
    EXPECT_EQ(difference(of_half, run(half, {1, 2, 2}, /*zero=*/3)), "");
  }
};

TEST_F(GpuTopologyTargets, TextsHaveTheBitsOfOne) {
  write_tasks(WEFT_SOURCE_DIR);
  expect_bits_of_one([](const std::string& settings) { return writing_job(kGated, settings); });
}

TEST_F(GpuTopologyTargets, RecordingsHaveTheBitsOfOne) {
  add_recordings(9);
  expect_bits_of_one([](const std::string& settings) { return hearing_job(settings); });
}

// The same comparison finds that other training depends on the mesh.
TEST_F(GpuTopologyTargets, WithoutItMeshesDiffer) {
  write_tasks(WEFT_SOURCE_DIR);
  const std::string text = as_usual(writing_job(kRelu, "batch_size: 2"));
  EXPECT_NE(difference(run(text, {}), run(text, {1, 1, 2})), "");
}

}  // namespace
}  // namespace weft
