// Topology-invariant training on the GPUs of this machine, which ranks share out: losses, norms,
// weights and moments of meshes of 2 and 4 are those of one rank, bit for bit. Ranks that share a
// GPU talk by way of pinned memory.
#include <fmt/format.h>

#include <chrono>

#include "cluster/comm/rank_gpu.h"
#include "cluster/comm/threads/thread_ranks.h"
#include "tests/gpu/topology_sizes.h"
#include "tests/worker/trainer/topology_run.h"
#include "tests/worker/trainer/trainer_fixture.h"

namespace weft::gpu {
namespace {

using testing::difference;
using testing::Trace;

constexpr int kSteps = 3;

RankPlace shared_out(std::unique_ptr<Communicator> threads) {
  auto place = comm::take_gpu(std::move(threads), "");
  if (!place) throw StatusError(place.error());
  return std::move(*place);
}

std::string name_of(MeshDegrees mesh) {
  return fmt::format("{}x{}x{}", mesh.data, mesh.sequence, mesh.tensor);
}

class GpuTopology : public Trainer, public ::testing::WithParamInterface<TopologySize> {
 protected:
  static std::string job(const std::string& settings) {
    const TopologySize& size = GetParam();
    return fmt::format(R"(
name: topology
kind: pretrain
model:
  family: gpt2
  config: {{n_layer: {}, n_head: {}, n_embd: {}, n_positions: {}, vocab_size: 257,
           resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: {}}}
tokenizer: {{type: byte}}
tasks: [{{name: lm, type: causal_lm, data: {{train: obj-text}}}}]
training: {{steps: 12, batch_size: {}, sequence_length: {}, seed: 17,
           optimizer: {{learning_rate: 3.0e-3, weight_decay: 0.01}}, {}}}
)",
                       size.layers, size.heads, size.hidden, size.tokens, size.attention_dropout,
                       size.rows, size.tokens, settings);
  }
  static std::string invariant(const char* precision) {
    return job(fmt::format("reproducible: topology, reproducible_blocks: {}, precision: {}",
                           GetParam().blocks, precision));
  }

  Trace run(const std::string& text, MeshDegrees mesh, int zero = 0) {
    proto::LaunchRecord launch = record(text, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    Trace trace;
    std::mutex mutex;
    const auto start = std::chrono::steady_clock::now();
    run_on_threads(
        mesh, [&](Rank& rank) { testing::train_steps(rank, launch, kSteps, trace, mutex); },
        shared_out);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::printf("%s zero %d: %.2f s, losses", name_of(mesh).c_str(), zero, taken.count());
    for (const double loss : trace.losses) std::printf(" %.17g", loss);
    std::printf("\n");
    return trace;
  }

  void expect_bits_of_one(const std::string& text) {
    const Trace one = run(text, {});
    ASSERT_EQ(one.losses.size(), size_t{kSteps});
    EXPECT_EQ(difference(one, run(text, {})), "") << "one rank, again";
    for (const MeshDegrees mesh : {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2},
                                   MeshDegrees{2, 2, 1}, MeshDegrees{1, 1, 4}}) {
      EXPECT_EQ(difference(one, run(text, mesh)), "") << name_of(mesh);
    }
    EXPECT_EQ(difference(one, run(text, {2, 1, 2}, /*zero=*/2)), "") << "with ZeRO-2";
  }
};

TEST_P(GpuTopology, MeshesHaveTheBitsOfOneInSinglePrecision) {
  expect_bits_of_one(invariant("fp32"));
}

TEST_P(GpuTopology, MeshesHaveTheBitsOfOneInBf16) { expect_bits_of_one(invariant("bf16")); }

// The same comparison finds that other training depends on the mesh.
TEST_P(GpuTopology, WithoutItMeshesDiffer) {
  const std::string text = job("reproducible: mesh");
  EXPECT_NE(difference(run(text, {}), run(text, {1, 1, 2})), "");
}

INSTANTIATE_TEST_SUITE_P(, GpuTopology, ::testing::ValuesIn(topology_sizes()),
                         [](const auto& size) { return std::string(size.param.name); });

}  // namespace
}  // namespace weft::gpu
