// The mean of a step's loss is over the labels that count in the whole batch, whatever the mesh,
// the micro-batches, the packing and the masks: random draws of all of them in fp32 against one
// rank that takes each document by itself, in float64, and divides by a count of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <random>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/gradients.h"
#include "worker/tasks/task.h"

namespace weft {
namespace {

constexpr const char* kConfig = R"({"n_embd": 8, "n_head": 4, "n_layer": 1, "vocab_size": 11,
    "n_positions": 16, "initializer_range": 0.4, "resid_pdrop": 0, "embd_pdrop": 0,
    "attn_pdrop": 0})";

struct Draw {
  MeshDegrees mesh;
  TaskRows rows;
  int64_t micro_batch = 1;
};

using Random = std::mt19937;

int64_t below(Random& random, int64_t end) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(end));
}

MeshDegrees drawn_mesh(Random& random) {
  MeshDegrees mesh;
  for (int* degree : {&mesh.data, &mesh.sequence, &mesh.tensor}) {
    const int wanted = 1 + static_cast<int>(below(random, 3));
    if (mesh.world() * wanted <= 6) *degree = wanted;
  }
  if (below(random, 2) == 0) mesh.ulysses = mesh.sequence;
  return mesh;
}

// Documents one behind the other with positions of their own, padding behind them. Labels by the
// rule of the task, or given: some of them, in some rows none at all.
Draw drawn(uint32_t seed) {
  Random random(seed);
  Draw draw;
  draw.mesh = drawn_mesh(random);
  TaskRows& rows = draw.rows;
  rows.rows = 1 + below(random, 5);
  rows.tokens = 3 + below(random, 12);
  draw.micro_batch = 1 + below(random, 3);
  const bool given = below(random, 2) == 0;
  for (int64_t row = 0; row < rows.rows; ++row) {
    const int64_t real = below(random, 4) == 0 ? below(random, rows.tokens) : rows.tokens;
    const bool silent = given && below(random, 3) == 0;
    int64_t document = 0, position = 0;
    for (int64_t token = 0; token < rows.tokens; ++token) {
      const bool begins = token == 0 || below(random, 4) == 0;
      if (begins) position = 0;
      if (begins && token > 0) ++document;
      rows.ids.push_back(below(random, 11));
      rows.documents.push_back(document);
      rows.positions.push_back(position++);
      rows.valid.push_back(token < real ? 1 : 0);
      const bool counts = token < real && !begins && !silent && below(random, 3) > 0;
      if (given) rows.labels.push_back(counts ? rows.ids.back() : kNoLabel);
    }
  }
  return draw;
}

using Gradients = std::map<std::string, std::vector<double>>;

struct Outcome {
  double loss = 0;
  Gradients gradients;  // whole parameters
};

struct Model {
  explicit Model(Rank& rank)
      : trunk(*find_family("gpt2")->make_trunk(rank, *find_family("gpt2")->parse_config(kConfig))),
        task(*make_task(rank, "causal_lm", trunk->config(), {.name = "lm"})) {
    initialize_parameters(trunk->parameters(), 5);
  }
  std::unique_ptr<Trunk> trunk;
  std::unique_ptr<Task> task;
};

// As a training step does it.
Outcome on_mesh(const Draw& draw) {
  Outcome outcome;
  std::mutex mutex;
  testing::run_mesh(draw.mesh, [&](Rank& rank) {
    Model model(rank);
    const int64_t labels = model.task->label_count(draw.rows);
    const double share = labels > 0 ? 1.0 / static_cast<double>(labels) : 0;
    double loss = 0;
    for (const Part& part : micro_batches(rank.mesh, draw.rows.rows, draw.micro_batch)) {
      Tape tape;
      Context cx = rank.context();
      cx.tape = &tape;
      TaskBatch batch = model.task->assemble(draw.rows, part);
      if (share > 0) batch.seed = share;
      const Tensor sum = model.task->loss_sum(cx, *model.trunk, batch);
      loss += double{*sum.data<float>()} * share;
      tape.backward(cx, sum, Tensor::full(*rank.allocator, sum.shape(), share));
    }
    reduce_gradients(rank, model.trunk->parameters());
    const std::lock_guard lock(mutex);
    if (rank.mesh.index(Axis::kTensor) == 0) outcome.loss += loss;
    for (const Parameter& parameter : model.trunk->parameters()) {
      std::vector<double>& whole = outcome.gradients[parameter.info.name];
      whole.resize(static_cast<size_t>(parameter.info.shape.elements()));
      const std::vector<float> mine = parameter.value.grad().to_vector<float>();
      for_each_shard_run(parameter.info, [&](int64_t local, int64_t global, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          whole[static_cast<size_t>(global + i)] = double{mine[static_cast<size_t>(local + i)]};
        }
      });
    }
  });
  return outcome;
}

// One document: its tokens, and what each of them is to predict.
struct Document {
  std::vector<int64_t> ids, positions, targets;
};

// Nothing but valid tokens; a target is the next token of the document where that counts.
std::vector<Document> documents_of(const TaskRows& rows) {
  std::vector<Document> all;
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t token = 0; token < rows.tokens; ++token) {
      const auto at = static_cast<size_t>(row * rows.tokens + token);
      if (rows.valid[at] == 0) continue;
      const bool begins = token == 0 || rows.documents[at] != rows.documents[at - 1];
      if (begins) all.emplace_back();
      Document& document = all.back();
      if (!begins) {
        document.targets.back() = rows.labels.empty() ? rows.ids[at] : rows.labels[at];
      }
      document.ids.push_back(rows.ids[at]);
      document.positions.push_back(rows.positions[at]);
      document.targets.push_back(kNoLabel);
    }
  }
  return all;
}

Tensor row_of(Rank& rank, const std::vector<int64_t>& values) {
  return Tensor::from<int64_t>(*rank.allocator, {1, static_cast<int64_t>(values.size())}, values);
}

// In float64, document by document, divided at the end.
Outcome by_hand(const Draw& draw) {
  Outcome outcome;
  testing::run_ranks(1, [&](Rank& rank) {
    Model model(rank);
    Context cx = rank.context();
    for (const Parameter& parameter : model.trunk->parameters()) {
      parameter.value.rebind(ops::cast(cx, parameter.value.detach(), DType::kF64));
    }
    int64_t labels = 0;
    for (const Document& document : documents_of(draw.rows)) {
      Tape tape;
      cx.tape = &tape;
      TokenBatch batch;
      batch.ids = row_of(rank, document.ids);
      batch.positions = row_of(rank, document.positions);
      batch.tokens = batch.own_tokens = batch.ids.dim(1);
      batch.layout = std::make_shared<const parallel::SequenceLayout>(
          parallel::SequenceLayout::contiguous(batch.tokens, 1));
      batch.rows = 1;
      const Tensor logits = model.trunk->token_logits(cx, batch, model.trunk->forward(cx, batch));
      ASSERT_EQ(logits.dtype(), DType::kF64);
      const Tensor sum = ops::cross_entropy_sum(cx, logits, row_of(rank, document.targets),
                                                {.ignore_index = kNoLabel});
      outcome.loss += *sum.data<double>();
      tape.backward(cx, sum);
      cx.tape = nullptr;
      for (const int64_t target : document.targets) labels += target == kNoLabel ? 0 : 1;
    }
    const double count = labels > 0 ? static_cast<double>(labels) : 1;
    outcome.loss /= count;
    for (const Parameter& parameter : model.trunk->parameters()) {
      std::vector<double>& whole = outcome.gradients[parameter.info.name];
      whole.resize(static_cast<size_t>(parameter.info.shape.elements()));
      const Tensor gradient = parameter.value.grad();
      if (gradient) whole = gradient.to_vector<double>();
      for (double& value : whole) value /= count;
    }
  });
  return outcome;
}

TEST(Normalization, IsByTheLabelsOfTheWholeBatch) {
  int masked_ranks = 0, empty_batches = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const Draw draw = drawn(seed);
    SCOPED_TRACE("draw " + std::to_string(seed) + ": " + std::to_string(draw.mesh.data) + " x " +
                 std::to_string(draw.mesh.sequence) + " x " + std::to_string(draw.mesh.tensor));
    const Outcome expected = by_hand(draw), outcome = on_mesh(draw);
    EXPECT_NEAR(outcome.loss, expected.loss, 1e-5 * (1 + std::abs(expected.loss)));
    double largest = 0;
    for (const auto& [name, values] : expected.gradients) {
      for (const double value : values) largest = std::max(largest, std::abs(value));
    }
    for (const auto& [name, values] : expected.gradients) {
      const std::vector<double>& mine = outcome.gradients.at(name);
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_NEAR(mine[i], values[i], 2e-5 * largest) << name << " at " << i;
      }
    }
    empty_batches += largest == 0 ? 1 : 0;
    // A rank of the data axis none of whose rows has a label, beside one that has some.
    for (int index = 0; index < draw.mesh.data && largest > 0 && !draw.rows.labels.empty();
         ++index) {
      const Part part = part_of(draw.rows.rows, draw.mesh.data, index);
      const auto begin = draw.rows.labels.begin() + part.start * draw.rows.tokens;
      masked_ranks += std::all_of(begin, begin + part.length * draw.rows.tokens,
                                  [](int64_t label) { return label == kNoLabel; })
                          ? 1
                          : 0;
    }
  }
  EXPECT_GE(masked_ranks, 10);  // otherwise the draws do not cover them
  EXPECT_GE(empty_batches, 2);
}

}  // namespace
}  // namespace weft
