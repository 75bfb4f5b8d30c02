// Gradients that travel during the backward pass, and state, gradients and parameters that the data
// ranks share out: the same training as without.
#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>

#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/admission/traffic.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {
namespace {

class Zero : public Trainer {
 protected:
  proto::LaunchRecord shared(const std::string& job, MeshDegrees mesh, int zero,
                             int64_t bucket_bytes = 4096) {
    proto::LaunchRecord launch = record(job, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(bucket_bytes);
    return launch;
  }
  std::map<int64_t, double> curve(const std::string& job, MeshDegrees mesh = {}, int zero = 0) {
    MemoryCluster cluster;
    const Status status = train(shared(in_22_steps(job), mesh, zero), cluster);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return cluster.losses();
  }
  static void expect_near(const std::map<int64_t, double>& a, const std::map<int64_t, double>& b,
                          const std::string& what, double most = 1e-4) {
    ASSERT_EQ(a.size(), b.size()) << what;
    for (const auto& [step, loss] : a) {
      EXPECT_NEAR(loss, b.at(step), most * std::abs(b.at(step))) << what << " step " << step;
    }
  }
};

std::string with(const std::string& setting) {
  std::string job = kTwoTasks;
  return job.insert(job.find("seed: 17,"), setting + ", ");
}

const std::vector<MeshDegrees> kMeshes = {{2, 1, 1}, {3, 1, 1}, {2, 1, 2}, {1, 2, 1}};

std::string name_of(MeshDegrees mesh, int zero) {
  return std::to_string(mesh.data) + "x" + std::to_string(mesh.sequence) + "x" +
         std::to_string(mesh.tensor) + " zero " + std::to_string(zero);
}

// Two tasks, accumulation over uneven micro-batches, evaluations, dropout, clipping. A level that
// sums gradients after each micro-batch adds in another order.
TEST_F(Zero, EveryLevelHasTheLossesOfLevel0) {
  for (const MeshDegrees mesh : kMeshes) {
    const auto whole = curve(kTwoTasks, mesh, 0);
    EXPECT_EQ(curve(kTwoTasks, mesh, 1), whole) << name_of(mesh, 1);
    const auto second = curve(kTwoTasks, mesh, 2);
    expect_near(second, whole, name_of(mesh, 2));
    EXPECT_EQ(curve(kTwoTasks, mesh, 3), second) << name_of(mesh, 3);
  }
}

TEST_F(Zero, EveryLevelHasTheLossesOfLevel0WhereRanksShareHeadsOfKeys) {
  const std::string job = two_grouped_tasks();
  const MeshDegrees mesh{2, 1, 4};
  const auto whole = curve(job, mesh, 0);
  EXPECT_EQ(curve(job, mesh, 1), whole);
  const auto second = curve(job, mesh, 2);
  expect_near(second, whole, name_of(mesh, 2));
  EXPECT_EQ(curve(job, mesh, 3), second);
  expect_near(curve(job), whole, "one rank");
}

TEST_F(Zero, WithoutAccumulationEveryLevelHasTheSameBits) {
  std::string job = kTwoTasks;
  job.replace(job.find("micro_batch_size: 2"), 19, "micro_batch_size: 0");
  for (const MeshDegrees mesh : {MeshDegrees{3, 1, 1}, MeshDegrees{2, 1, 2}}) {
    const auto whole = curve(job, mesh, 0);
    for (int zero = 1; zero <= 3; ++zero) {
      EXPECT_EQ(curve(job, mesh, zero), whole) << name_of(mesh, zero);
    }
  }
}

// Rows of one row of tokens a rank are at most a quarter of the table. Of the Llama no logits use
// it.
TEST_F(Zero, RowsThatGoAheadChangeNoBit) {
  std::string half = with("precision: bf16");
  for (std::string job : {std::string(kTwoTasks), two_grouped_tasks(), half}) {
    job.replace(job.find("micro_batch_size: 2"), 19, "micro_batch_size: 1");
    for (const MeshDegrees mesh : {MeshDegrees{2, 1, 1}, MeshDegrees{3, 1, 1}}) {
      const proto::JobSpec spec = shared(job, mesh, 1).spec();
      const ModelFamily& family = *find_family(spec.model().family());
      const auto config = family.parse_config(struct_to_json(spec.model().config()));
      EXPECT_EQ(tokens_ahead(**config, spec), 20 * mesh.data);
      EXPECT_EQ(curve(job, mesh, 1), curve(job, mesh, 0)) << name_of(mesh, 1);
    }
  }
}

TEST_F(Zero, HalfPrecisionHasSharedMasters) {
  for (const char* precision : {"precision: bf16", "precision: fp16"}) {
    const auto whole = curve(with(precision), {2, 1, 1}, 0);
    EXPECT_EQ(curve(with(precision), {2, 1, 1}, 1), whole) << precision;
    const auto second = curve(with(precision), {2, 1, 1}, 2);
    expect_near(second, whole, precision, 0.02);
    EXPECT_EQ(curve(with(precision), {2, 1, 1}, 3), second) << precision;
  }
}

TEST_F(Zero, RecomputedActivationsGatherAgain) {
  const auto whole = curve(kTwoTasks, {2, 1, 2}, 3);
  for (const char* what : {"selective", "full"}) {
    EXPECT_EQ(curve(with(std::string("activation_checkpointing: ") + what), {2, 1, 2}, 3), whole);
  }
}

TEST_F(Zero, AnyLevelGoesOnFromAnyOther) {
  const auto whole = losses(kTwoTasks, {});
  struct Way {
    MeshDegrees from, to;
    int zero_from, zero_to;
  };
  for (const Way& way : {Way{{3, 1, 1}, {1, 1, 2}, 3, 0}, Way{{1, 1, 3}, {2, 1, 2}, 0, 3},
                         Way{{2, 1, 2}, {3, 1, 1}, 1, 2}, Way{{2, 2, 1}, {2, 1, 1}, 2, 1}}) {
    MemoryCluster cluster;
    cluster.die_after_step = 24;
    EXPECT_THROW(static_cast<void>(train(shared(kTwoTasks, way.from, way.zero_from), cluster)),
                 StatusError);
    cluster.die_after_step = -1;
    proto::LaunchRecord attempt = shared(kTwoTasks, way.to, way.zero_to);
    *attempt.mutable_resume() = cluster.checkpoints.back();
    ASSERT_TRUE(train(attempt, cluster).ok());
    expect_near(cluster.losses(), whole, name_of(way.to, way.zero_to));
  }
}

// A checkpoint of shared-out state holds the same elements, in tiles that no level shows in.
TEST_F(Zero, CheckpointsDoNotShowTheLevel) {
  const auto elements = [&](int zero) {
    MemoryCluster cluster;
    EXPECT_TRUE(train(shared(kTwoTasks, {2, 1, 2}, zero), cluster).ok());
    std::map<std::pair<std::string, int>, std::map<std::pair<int64_t, int64_t>, std::string>> all;
    for (const proto::TensorEntry& entry : cluster.checkpoints.back().tensors()) {
      for (const proto::Tile& tile : entry.tiles()) {
        std::string& bytes = all[{entry.name(), entry.role()}][{tile.start(), tile.length()}];
        for (const proto::ChunkRef& chunk : tile.chunks()) bytes += cluster.chunks.at(chunk.hash());
      }
    }
    return all;
  };
  EXPECT_EQ(elements(1), elements(0));
}

// ---- what a step does on one rank --------------------------------------------------------------

// On its way back the gradient becomes NaN, while the loss stays as it is.
class PoisonsGradient final : public ops::ForwardOp {
 public:
  std::string_view name() const override { return "poisons_gradient"; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    return {inputs[0].detach()};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> gradients) override {
    return {Tensor::full(cx.allocator, gradients[0].shape(), std::nan(""), gradients[0].dtype())};
  }
};

// A task whose last micro-batch on one rank goes wrong.
class Poisoned final : public Task {
 public:
  Poisoned(Rank& rank, const ModelConfig& config, std::unique_ptr<Task> inner, int at_call,
           bool loss)
      : Task(rank, config, {inner->name(), 0}),
        inner_(std::move(inner)),
        at_call_(at_call),
        loss_(loss) {}
  std::string_view type() const override { return inner_->type(); }
  int64_t label_count(const TaskRows& rows) const override { return inner_->label_count(rows); }
  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    return inner_->assemble(rows, part);
  }
  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    const Tensor sum = inner_->loss_sum(cx, trunk, batch);
    if (++calls_ != at_call_) return sum;
    if (!loss_) return apply_one(cx, std::make_unique<PoisonsGradient>(), {sum});
    return ops::multiply(cx, sum, Tensor::full(*rank_.allocator, sum.shape(), std::nan("")));
  }
  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return inner_->logits(cx, trunk, batch);
  }
  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return inner_->evaluate(cx, trunk, batch);
  }
  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    return inner_->metrics(sums);
  }

 private:
  const std::unique_ptr<Task> inner_;
  const int at_call_;
  const bool loss_;
  int calls_ = 0;
};

constexpr const char* kDeep = R"(
name: deep
kind: pretrain
model:
  family: gpt2
  config: {n_layer: 8, n_head: 2, n_embd: 64, n_positions: 16, vocab_size: 257,
           resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}
tokenizer: {type: byte}
tasks: [{type: causal_lm, data: {train: obj-text}}]
training: {steps: 4, batch_size: 4, micro_batch_size: 1, sequence_length: 8}
)";

class ZeroStep : public Zero {
 protected:
  // Weights and moments, bit for bit.
  static std::vector<uint32_t> state_of(Training& training) {
    std::vector<uint32_t> all;
    for (const auto& tensor : training.state_tensors()) {
      for (const float value : tensor.value.to_vector()) {
        all.push_back(std::bit_cast<uint32_t>(value));
      }
    }
    return all;
  }
};

// Ranks 2 and 3 share a model out: what goes wrong on one reaches the other's gradients.
TEST_F(ZeroStep, WhatIsNotFiniteOnOneRankStopsAll) {
  for (int zero = 0; zero <= 3; ++zero) {
    for (const auto& [first, loss] : {std::pair{2, true}, {3, true}, {2, false}}) {
      on_ranks(
          shared(kDeep, {2, 1, 2}, zero), [&](Rank& rank, const auto& spec, Training& training) {
            TrainingTask& task = training.tasks[0];
            EXPECT_TRUE(run_step(rank, spec, training, task, 1e-3).applied);
            const int world = rank.mesh.index(Axis::kWorld);
            // Two micro-batches a step; the last one of a single rank.
            const int bad = world == first ? 2 : -1;
            task.task =
                std::make_unique<Poisoned>(rank, *training.config, std::move(task.task), bad, loss);
            const auto before = state_of(training);
            const StepResult result = run_step(rank, spec, training, task, 1e-3);
            EXPECT_FALSE(result.applied);
            EXPECT_EQ(result.culprit, 2) << world;
            EXPECT_EQ(std::isfinite(result.loss), !loss);
            EXPECT_EQ(state_of(training), before) << world << " zero " << zero;
            EXPECT_TRUE(run_step(rank, spec, training, task, 1e-3).applied);
          });
    }
  }
}

// Bytes that a rank sends to those that hold the same parameters, by docs/PERFORMANCE.md.
TEST_F(ZeroStep, SendsTheBytesOfTheFormula) {
  for (const int data : {2, 3, 4}) {
    for (int zero = 0; zero <= 3; ++zero) {
      on_ranks(shared(kDeep, {data, 1, 1}, zero), [&](Rank& rank, const auto& spec, Training& t) {
        Communicator& replicas = rank.mesh.axis(Axis::kReplica);
        const int64_t before = replicas.bytes_sent();
        run_step(rank, spec, t, t.tasks[0], 1e-3);
        t.optimizer->finish_values();
        const int64_t rounds = (4 + data - 1) / data;
        ReplicaSizes sizes{data, zero, rounds, DType::kF32, /*tied_logits=*/true};
        sizes.tables = table_use(*t.config, spec, /*language_model=*/true);
        const std::vector<char> rows = sent_as_rows(t.optimizer->buckets(), sizes.tables, 64, data);
        ASSERT_GE(std::ranges::count(rows, 1), 1);
        sizes.width = 64;
        const int64_t own_rows = part_of(4, data, rank.mesh.index(Axis::kData)).length;
        sizes.tokens = 8 * (zero >= 2 ? own_rows : 1);  // of level 0 and 1 the last micro-batch's
        const int64_t expected = replica_traffic(t.optimizer->buckets(), sizes).bytes;
        EXPECT_EQ(replicas.bytes_sent() - before, expected) << data << " zero " << zero;
      });
    }
  }
}

// After an update each unit's values travel when the forward pass gets to the one before it, the
// embeddings' and the first block's at once; then they are what they would have been without
// waiting. Where ranks share rows: else nothing in the forward pass would wait behind them.
TEST_F(ZeroStep, ValuesFollowUnitByUnit) {
  std::string job = kDeep;
  job.replace(job.find("micro_batch_size: 1"), 19, "micro_batch_size: 4");
  std::vector<std::vector<float>> whole;  // of level 0, by parameter
  std::mutex mutex;
  on_ranks(shared(job, {1, 2, 1}, 0), [&](Rank& rank, const auto& spec, Training& training) {
    run_step(rank, spec, training, training.tasks[0], 1e-3);
    const std::lock_guard lock(mutex);
    whole.clear();
    for (const Parameter& parameter : training.optimizer->parameters()) {
      whole.push_back(parameter.value.to_vector<float>());
    }
  });
  for (const int zero : {1, 2}) {
    on_ranks(shared(job, {1, 2, 1}, zero), [&](Rank& rank, const auto& spec, Training& training) {
      AdamW& optimizer = *training.optimizer;
      run_step(rank, spec, training, training.tasks[0], 1e-3);
      Communicator& replicas = rank.mesh.axis(Axis::kReplica);
      const auto bytes_of = [&](int64_t unit) {
        int64_t bytes = 0;
        for (const Bucket& bucket : optimizer.buckets().all()) {
          if (bucket.unit == unit) bytes += 4 * bucket.own.length;
        }
        return bytes;
      };
      const auto right = [&](int64_t unit) {
        bool all = true;
        for (size_t i = 0; i < whole.size(); ++i) {
          const auto& [info, value] = optimizer.parameters()[i];
          if (info.unit == unit) all &= value.to_vector<float>() == whole[i];
        }
        return all;
      };
      training.values->open(0, std::nullopt);
      EXPECT_TRUE(right(0)) << zero;
      training.values->open(1, std::nullopt);
      EXPECT_TRUE(right(1)) << zero;
      const int64_t last = 9;  // behind eight blocks
      for (int64_t unit = 2; unit <= last; ++unit) {
        EXPECT_FALSE(right(unit)) << zero << " unit " << unit;
        const int64_t before = replicas.bytes_sent();
        training.values->open(unit, std::nullopt);
        EXPECT_EQ(replicas.bytes_sent() - before, bytes_of(unit)) << zero << " unit " << unit;
        EXPECT_TRUE(right(unit)) << zero << " unit " << unit;
      }
      optimizer.finish_values();
      EXPECT_GT(bytes_of(last), 0);
    });
  }
}

// Never more than two units' whole parameters on a rank, and of gradients no more than the rank's
// parts, the unit at work and the buckets under way.
TEST_F(ZeroStep, Level3HoldsTwoUnits) {
  for (const int data : {2, 4}) {
    on_ranks(shared(kDeep, {data, 1, 1}, 3, 1 << 30), [&](Rank& rank, const auto& spec,
                                                          Training& training) {
      int64_t unit = 0, all = 0;
      for (const Bucket& bucket : training.optimizer->buckets().all()) {
        unit = std::max(unit, 4 * bucket.elements);
        all += 4 * bucket.elements;
      }
      run_step(rank, spec, training, training.tasks[0], 1e-3);
      const int64_t live = rank.allocator->stats().live_bytes;
      EXPECT_LT(live, 3 * all / data + unit / 4);  // masters, which are the values, and moments
      rank.allocator->reset_peak();
      TrainingTask& task = training.tasks[0];
      const TaskRows rows = task.feed.next(4);
      Context cx = rank.context();
      (void)task.task->evaluate(cx, *training.trunk, task.task->assemble(rows, {0, 1}));
      training.gate->close();
      const int64_t forward = rank.allocator->stats().peak_bytes - live;
      EXPECT_GT(forward, 2 * unit);
      EXPECT_LT(forward, 2 * unit + unit / 2);  // one row of 8 tokens: few activations
      rank.allocator->reset_peak();
      run_step(rank, spec, training, task, 1e-3);
      const int64_t step = rank.allocator->stats().peak_bytes - live;
      const auto in_flight = static_cast<int64_t>(GradientReducer::kInFlight);
      EXPECT_LT(step, 2 * unit + all / data + (in_flight + 1) * 2 * unit + unit);
      EXPECT_LT(rank.allocator->stats().live_bytes, live + unit / 100);
    });
  }
}

TEST_F(ZeroStep, MemoryFallsWithTheLevel) {
  std::map<int, int64_t> live, peak;
  std::mutex mutex;
  for (int zero = 0; zero <= 3; ++zero) {
    on_ranks(shared(kDeep, {4, 1, 1}, zero, 64 << 10),
             [&](Rank& rank, const auto& spec, Training& training) {
               run_step(rank, spec, training, training.tasks[0], 1e-3);
               rank.allocator->reset_peak();
               run_step(rank, spec, training, training.tasks[0], 1e-3);
               const std::lock_guard lock(mutex);
               live[zero] = std::max(live[zero], rank.allocator->stats().live_bytes);
               peak[zero] = std::max(peak[zero], rank.allocator->stats().peak_bytes);
             });
  }
  EXPECT_LT(live[1], live[0] * 6 / 10);
  EXPECT_LT(live[3], live[1] * 6 / 10);
  EXPECT_LT(peak[1], peak[0]);
  EXPECT_LT(peak[2], peak[1]);
  EXPECT_LT(peak[3], peak[2]);
}

}  // namespace
}  // namespace weft
