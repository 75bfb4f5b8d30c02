#include "worker/recorded_passes.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"

namespace weft {
namespace {

void add_tensors(const TokenBatch& tokens, std::vector<Tensor>& all) {
  const Predictions& asked = tokens.predictions;
  all.insert(all.end(), {tokens.ids, tokens.positions, tokens.token_types, tokens.key_valid,
                         tokens.documents, tokens.patches, asked.places, asked.marks,
                         asked.query_order, asked.key_order, asked.together});
}

// All that differs from one batch of a shape to the next, but for random numbers.
std::vector<Tensor> tensors_of(const TaskBatch& batch) {
  std::vector<Tensor> all{batch.labels, batch.pooled, batch.counted, batch.device_seed};
  add_tensors(batch.tokens, all);
  if (batch.tokens.source != nullptr) add_tensors(*batch.tokens.source, all);
  return all;
}

void add_numbers(const TokenBatch& tokens, std::vector<int64_t>& key) {
  key.insert(key.end(),
             {tokens.tokens, tokens.own_tokens, tokens.rows, tokens.first_row,
              tokens.predictions.count, static_cast<int64_t>(tokens.training),
              static_cast<int64_t>(tokens.recompute), static_cast<int64_t>(tokens.random.stream)});
}

// What has to be the same for a pass to queue the same work.
std::vector<int64_t> key_of(int64_t task, const TaskBatch& batch) {
  std::vector<int64_t> key{task};
  add_numbers(batch.tokens, key);
  if (batch.tokens.source != nullptr) add_numbers(*batch.tokens.source, key);
  for (const Tensor& tensor : tensors_of(batch)) {
    key.push_back(tensor ? tensor.shape().dims() : -1);
    if (!tensor) continue;
    key.push_back(static_cast<int64_t>(tensor.dtype()));
    for (const int64_t extent : tensor.shape().extents()) key.push_back(extent);
  }
  return key;
}

}  // namespace

struct RecordedPasses::Shape {
  std::vector<int64_t> key;
  int64_t seen = 0;
  int64_t last_run = 0;
  int conflicts = 0;
  bool refused = false;
  // Of a recording.
  TaskBatch batch;  // whose tensors it reads
  std::vector<const void*> addresses;
  std::vector<size_t> fresh;  // parameters that had no gradient before it
  std::unique_ptr<cuda::Recording> recording;
};

std::unique_ptr<RecordedPasses> RecordedPasses::create(Rank& rank,
                                                       std::span<const Parameter> parameters) {
  if (rank.allocator->device().is_cpu()) return nullptr;
  return std::unique_ptr<RecordedPasses>(new RecordedPasses(rank, parameters));
}

RecordedPasses::RecordedPasses(Rank& rank, std::span<const Parameter> parameters)
    : rank_(rank),
      gpu_(static_cast<cuda::Backend&>(*rank.allocator->stream())),
      parameters_(parameters.begin(), parameters.end()) {}

RecordedPasses::~RecordedPasses() = default;

Tensor RecordedPasses::run(int64_t task, TaskBatch batch, const Pass& pass) {
  Shape& shape = shape_of(task, batch);
  shape.last_run = ++runs_;
  Tensor loss;
  if (!shape.recording && !shape.refused && shape.seen >= kSeenFirst && has_room()) {
    record(shape, batch, pass);
  }
  if (shape.recording) loss = replay(shape, batch);
  if (loss) return loss;
  ++shape.seen;
  ++counts_.eager;
  as_it_is([&] { loss = pass(batch); });
  return loss;
}

void RecordedPasses::as_it_is(const std::function<void()>& work) { gpu_.in_pass(work); }

RecordedPasses::Shape& RecordedPasses::shape_of(int64_t task, const TaskBatch& batch) {
  std::vector<int64_t> key = key_of(task, batch);
  for (const auto& shape : shapes_) {
    if (shape->key == key) return *shape;
  }
  if (shapes_.size() == kShapesMax) {
    shapes_.erase(
        std::min_element(shapes_.begin(), shapes_.end(),
                         [](const auto& a, const auto& b) { return a->last_run < b->last_run; }));
  }
  shapes_.push_back(std::make_unique<Shape>());
  shapes_.back()->key = std::move(key);
  return *shapes_.back();
}

// Room for one more recording, made where one has been idle.
bool RecordedPasses::has_room() {
  size_t kept = 0;
  Shape* oldest = nullptr;
  for (const auto& shape : shapes_) {
    if (!shape->recording) continue;
    ++kept;
    if (oldest == nullptr || shape->last_run < oldest->last_run) oldest = shape.get();
  }
  if (kept < kRecordingsMax) return true;
  if (runs_ - oldest->last_run < kIdleRuns) return false;
  oldest->recording.reset();
  oldest->batch = TaskBatch();
  return true;
}

// Leaves the gradients as they are: nothing is computed yet.
void RecordedPasses::record(Shape& shape, const TaskBatch& batch, const Pass& pass) {
  std::vector<Tensor> held;
  for (const Parameter& parameter : parameters_) held.push_back(parameter.value.grad());
  const auto restore = [&] {
    for (size_t i = 0; i < held.size(); ++i) parameters_[i].value.set_grad(held[i]);
  };
  shape.batch = batch;
  shape.addresses = addresses();
  shape.fresh.clear();
  auto recording = gpu_.record(batch.tokens.random.seed, [&] {
    std::vector<Tensor> results = {pass(shape.batch)};
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const Tensor gradient = parameters_[i].value.grad();
      if (!gradient || held[i]) continue;
      shape.fresh.push_back(i);
      results.push_back(gradient);
    }
    restore();
    return results;
  });
  restore();
  shape.conflicts = 0;
  if (recording) {
    shape.recording = std::move(*recording);
    ++counts_.recorded;
    return;
  }
  // Memory that was not there yet is once the pass has run.
  shape.refused = shape.seen > 2 * kSeenFirst;
  shape.batch = TaskBatch();
  rank_.log.debug("a pass runs without a graph: {}", recording.error().message());
}

// The loss; nothing where the pass has to run, on `batch`.
Tensor RecordedPasses::replay(Shape& shape, TaskBatch& batch) {
  {
    const std::vector<Tensor> to = tensors_of(shape.batch), from = tensors_of(batch);
    for (size_t i = 0; i < to.size(); ++i) {
      if (to[i] && to[i].raw() != from[i].raw()) gpu_.copy(from[i], to[i]);
    }
  }
  const RandomKey random = batch.tokens.random;
  batch = shape.batch;  // what came in makes room
  batch.tokens.random = random;
  std::vector<Tensor> results;
  const bool same = shape.addresses == addresses();
  if (!same || !shape.recording->queue(random.seed, results)) {
    rank_.log.debug("a pass runs without its graph: {}",
                    same ? "its memory is in use" : "its parameters or gradients have moved");
    if (++shape.conflicts >= kConflictsMax) {
      shape.recording.reset();
      shape.batch = TaskBatch();
      shape.seen = 0;
    }
    return Tensor();
  }
  shape.conflicts = 0;
  ++counts_.replayed;
  for (size_t i = 0; i < shape.fresh.size(); ++i) {
    parameters_[shape.fresh[i]].value.set_grad(results[i + 1]);
  }
  return results[0];
}

std::vector<const void*> RecordedPasses::addresses() const {
  std::vector<const void*> all;
  for (const Parameter& parameter : parameters_) {
    all.push_back(parameter.value.raw());
    const Tensor gradient = parameter.value.grad();
    all.push_back(gradient ? gradient.raw() : nullptr);
  }
  return all;
}

}  // namespace weft
