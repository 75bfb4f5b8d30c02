// What every family has to do, on every mesh: configurations of 37 tokens and 11 or more positions,
// decoders as language models, encoders and models of images as classifiers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/autograd/tape.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/gradients.h"
#include "worker/tasks/task.h"

namespace weft {

inline const std::vector<MeshDegrees>& meshes() {
  static const std::vector<MeshDegrees> all{{.data = 2},
                                            {.data = 3},
                                            {.sequence = 2},
                                            {.sequence = 4},
                                            {.tensor = 2},
                                            {.tensor = 3},
                                            {.tensor = 5},
                                            {.tensor = 6},  // more ranks than heads
                                            {.data = 2, .sequence = 2},
                                            {.data = 2, .tensor = 2},
                                            {.sequence = 2, .tensor = 2}};
  return all;
}

// Of what counts of each rank's (counted_part).
inline void expect_shards_cover_once(const ModelFamily& family, const ModelConfig& config, int size,
                                     int blocks = 0) {
  std::map<std::string, std::vector<int>> seen;
  for (int index = 0; index < size; ++index) {
    for (const ParameterInfo& info : family.plan(config, size, index, blocks)) {
      std::vector<int>& counts = seen[info.name];
      counts.resize(static_cast<size_t>(info.shape.elements()));
      const Part counted = counted_part(info, index);
      for_each_shard_run(info, [&](int64_t local, int64_t global, int64_t count) {
        const Part part = common_part(counted, {local, count});
        for (int64_t i = 0; i < part.length; ++i) {
          ++counts[static_cast<size_t>(global + part.start - local + i)];
        }
      });
    }
  }
  for (const auto& [name, counts] : seen) {
    for (int count : counts) ASSERT_EQ(count, 1) << name << " over " << size;
  }
}

inline TaskRows some_rows(int64_t rows, int64_t tokens, bool left) {
  TaskRows batch;
  batch.rows = rows;
  batch.tokens = tokens;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t token = 0; token < tokens; ++token) {
      batch.ids.push_back((row * 31 + token * token * 7 + 3) % 37);
      batch.valid.push_back((left ? token >= row % 4 : token < tokens - row % 4) ? 1 : 0);
    }
  }
  return batch;
}

inline TaskRows some_images(int64_t images, const ModelConfig::ImageShape& shape) {
  TaskRows batch;
  batch.rows = images;
  batch.tokens = shape.tokens();
  for (int64_t i = 0; i < images * (batch.tokens - 1) * shape.values(); ++i) {
    batch.patches.push_back(static_cast<float>(i * i * 7 % 37 - 18) / 16);
  }
  return batch;
}

// A task that the model can have, and what its rows need beside their tokens.
struct TestTask {
  TestTask(Rank& rank, const ModelConfig& config)
      : types(config.token_types),
        image(config.image),
        task(*make_task(rank,
                        config.attention.causal ? "causal_lm"
                        : config.image.size > 0 ? "image_classification"
                                                : "sequence_classification",
                        config, {.name = "task", .labels = config.attention.causal ? 0 : 3})) {
    initialize_parameters(task->parameters(), 18);
  }
  TaskRows rows(int64_t count, int64_t tokens, bool left) const {
    TaskRows rows = image.size > 0 ? some_images(count, image) : some_rows(count, tokens, left);
    for (int64_t i = 0; types > 0 && i < count * tokens; ++i) {
      rows.token_types.push_back(i / 4 % types);
    }
    if (task->parameters().empty()) return rows;
    for (int64_t row = 0; row < count; ++row) rows.labels.push_back(row % 3);
    return rows;
  }
  const int64_t types;
  const ModelConfig::ImageShape image;
  std::unique_ptr<Task> task;
};

struct Outcome {
  double loss = 0, norm = 0;
};

// Loss and gradient norm of 5 uneven rows with dropout, on every rank.
inline Outcome outcome_of(Rank& rank, Trunk& trunk, bool left, int64_t micro_batch) {
  const TestTask test(rank, trunk.config());
  const std::unique_ptr<Task>& task = test.task;
  const TaskRows rows = test.rows(5, 11, left);
  const double labels = static_cast<double>(task->label_count(rows));
  double sum = 0;
  for (const Part& part : micro_batches(rank.mesh, rows.rows, micro_batch)) {
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    TaskBatch batch = task->assemble(rows, part);
    batch.tokens.training = true;
    batch.tokens.random = {.seed = 5, .stream = 9};
    const Tensor loss = task->loss_sum(cx, trunk, batch);
    sum += double{*loss.data<float>()};
    cx.tape = nullptr;
    tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), 1 / labels));
  }
  std::vector<Parameter> all = trunk.parameters();
  all.insert(all.end(), task->parameters().begin(), task->parameters().end());
  reduce_gradients(rank, all);
  const double norm = global_gradient_norm(rank, all);
  Tensor total = Tensor::full(*rank.allocator, {1}, sum, DType::kF64);
  rank.mesh.axis(Axis::kReplica).all_reduce(total, ReduceOp::kSum);
  return {*total.data<double>() / labels, norm};
}

inline Outcome outcome_on(const ModelFamily& family, const ModelConfigPtr& config, MeshDegrees mesh,
                          bool left, int64_t micro_batch) {
  Outcome outcome;
  testing::run_mesh(mesh, [&](Rank& rank) {
    auto trunk = *family.make_trunk(rank, config);
    initialize_parameters(trunk->parameters(), 17);
    const Outcome own = outcome_of(rank, *trunk, left, micro_batch);
    if (rank.mesh.index(Axis::kWorld) == 0) outcome = own;
  });
  return outcome;
}

// Whose parameters are NaN until the gate opens what they belong to.
class HidingGate final : public ParameterGate {
 public:
  explicit HidingGate(std::vector<Parameter>& parameters) : parameters_(parameters) {
    for (const Parameter& parameter : parameters) {
      values_.push_back(parameter.value.to_vector<float>());
      parameter.value.detach().fill(std::numeric_limits<double>::quiet_NaN());
    }
  }
  void open(int64_t unit, std::optional<int64_t>) override {
    show(unit, false);
    show(unit, true);
  }
  void open_attention(int64_t unit, std::optional<int64_t>) override { show(unit, false); }
  void open_rest(int64_t unit) override { rest += show(unit, true); }
  bool closes() const override { return false; }
  int rest = 0;  // parameters that open_rest had to show

 private:
  int show(int64_t unit, bool behind_attention) {
    int shown = 0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const auto& [info, value] = parameters_[i];
      if (info.unit != unit || info.behind_attention != behind_attention) continue;
      std::ranges::copy(values_[i], value.data<float>());
      ++shown;
    }
    return shown;
  }
  std::vector<Parameter>& parameters_;
  std::vector<std::vector<float>> values_;
};

// behind: parameters of a block that are behind its attention.
inline void expect_gates_open_before_use(const ModelFamily& family, const ModelConfigPtr& config,
                                         int behind) {
  for (const Recompute recompute :
       {Recompute::kNothing, Recompute::kAttention, Recompute::kBlock}) {
    testing::run_ranks(1, [&](Rank& rank) {
      auto trunk = *family.make_trunk(rank, config);
      initialize_parameters(trunk->parameters(), 17);
      const TestTask test(rank, *config);
      const std::unique_ptr<Task>& task = test.task;
      const TaskRows rows = test.rows(2, 11, false);
      const auto loss = [&] {
        Tape tape;
        Context cx = rank.context();
        cx.tape = &tape;
        TaskBatch batch = task->assemble(rows, {0, 2});
        batch.tokens.recompute = recompute;
        return *task->loss_sum(cx, *trunk, batch).data<float>();
      };
      const float open = loss();
      HidingGate gate(trunk->parameters());
      trunk->set_gate(&gate);
      EXPECT_EQ(loss(), open);
      EXPECT_EQ(gate.rest, behind * trunk->config().layers);
    });
  }
}

// With what dropout the configuration has; on `more` meshes beside those of meshes().
inline void expect_meshes_agree(const ModelFamily& family, const ModelConfigPtr& config,
                                const std::vector<MeshDegrees>& more) {
  std::vector<MeshDegrees> all = meshes();
  all.insert(all.end(), more.begin(), more.end());
  for (bool left : {false, true}) {
    const Outcome whole = outcome_on(family, config, {}, left, 0);
    EXPECT_GT(whole.loss, config->attention.causal ? 3.0 : 0.5);
    for (const MeshDegrees& mesh : all) {
      for (int64_t micro_batch : {0, 1}) {
        const Outcome other = outcome_on(family, config, mesh, left, micro_batch);
        EXPECT_NEAR(other.loss / whole.loss, 1.0, 1e-5)
            << mesh.data << mesh.sequence << mesh.tensor << left;
        EXPECT_NEAR(other.norm / whole.norm, 1.0, 1e-5)
            << mesh.data << mesh.sequence << mesh.tensor << left;
      }
    }
  }
}

}  // namespace weft
