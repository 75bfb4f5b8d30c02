#include "worker/golden/replica.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "worker/golden/wide_values.h"

namespace weft::golden {
namespace {

// The larger one, a NaN if there is one.
void widen(double& largest, double off) {
  if (std::isnan(off) || off > largest) largest = off;
}

// What is compared: bf16 as fp32.
Tensor at_least_single(Context& cx, const Tensor& x) {
  return is_half(x.dtype()) ? ops::cast(cx, x, DType::kF32) : x;
}

template <typename T>
T take(Result<T> result) {
  if (!result) throw StatusError(std::move(result).error());
  return std::move(*result);
}

}  // namespace

Replica::Replica(Rank& rank, const Case& golden)
    : rank_(rank), prefix_(golden.adapter_weights.empty() ? "" : kPeftPrefix) {
  const HfFolder& folder = golden.folder;
  trunk_ = take(folder.family->make_trunk(rank, folder.config));
  task_ = take(make_task(rank, golden.task_type, *folder.config,
                         {.name = "golden", .labels = folder.labels}));
  std::vector<HeadTensor> heads;
  for (Parameter& parameter : task_->parameters()) {
    heads.push_back({task_->file_name(parameter.info.name), &parameter});
  }
  // The files of a classifier may lack the trunk's head of tokens.
  for (Parameter* parameter : parameters()) initialize_parameters({parameter, 1}, 0);
  Status status = load_hf_weights(folder, trunk_->parameters(), heads);
  if (status.ok() && !golden.adapter_weights.empty()) {
    status = load_peft_weights(golden.adapter_weights, trunk_->parameters(), heads);
  }
  if (!status.ok()) throw StatusError(status);
}

std::string Replica::file_name(const Parameter& parameter) const {
  return prefix_ + task_->file_name(parameter.info.name);
}

std::vector<Parameter*> Replica::parameters() {
  std::vector<Parameter*> all;
  for (Parameter& parameter : trunk_->parameters()) all.push_back(&parameter);
  for (Parameter& parameter : task_->parameters()) all.push_back(&parameter);
  return all;
}

std::vector<Parameter> Replica::handles() {
  std::vector<Parameter> all = trunk_->parameters();
  all.insert(all.end(), task_->parameters().begin(), task_->parameters().end());
  return all;
}

void Replica::clear() {
  for (Parameter* parameter : parameters()) parameter->value.set_grad(Tensor());
}

double Replica::sum_over_replicas(double value) {
  Tensor sum = Tensor::full(*rank_.allocator, {1}, value, DType::kF64);
  rank_.mesh.axis(Axis::kReplica).all_reduce(sum, ReduceOp::kSum);
  return read_scalar(sum);
}

double Replica::loss_of(const TaskRows& rows) {
  Context cx = rank_.context();
  double sum = 0;
  for (const Part& part : micro_batches(rank_.mesh, rows.rows, 0, task_->rows_together())) {
    const Tensor loss = task_->loss_sum(cx, *trunk_, task_->assemble(rows, part));
    sum += read_scalar(loss);
  }
  return sum_over_replicas(sum) / static_cast<double>(task_->label_count(rows));
}

Part Replica::own_rows(const TaskRows& rows) const {
  const int64_t together = task_->rows_together();
  const Part questions =
      part_of(rows.rows / together, rank_.mesh.size(Axis::kData), rank_.mesh.index(Axis::kData));
  return {questions.start * together, questions.length * together};
}

double Replica::gradients_of(const TaskRows& rows, int64_t count) {
  const int64_t together = task_->rows_together();
  const int64_t mine = own_rows(rows).length / together;
  const int64_t size = count > 1 ? (mine + count - 1) / count * together : 0;
  const double labels = static_cast<double>(task_->label_count(rows));
  double sum = 0;
  for (const Part& part : micro_batches(rank_.mesh, rows.rows, size, together)) {
    Tape tape;
    Context cx = rank_.context();
    cx.tape = &tape;
    const Tensor loss = task_->loss_sum(cx, *trunk_, task_->assemble(rows, part));
    sum += read_scalar(loss);
    cx.tape = nullptr;
    const Tensor seed = Tensor::full(*rank_.allocator, loss.shape(), 1.0 / labels, loss.dtype());
    tape.backward(cx, loss, seed);
  }
  std::vector<Parameter> all = handles();
  if (all.front().value.dtype() != DType::kF64) reduce_gradients(rank_, all);
  return sum_over_replicas(sum) / labels;
}

double Replica::norm_of(const Parameter& parameter, const std::vector<double>& master) {
  Communicator& tensor = rank_.mesh.axis(Axis::kTensor);
  double squares = 0;
  const Part counted = counted_part(parameter.info, tensor.rank());
  for (int64_t i = counted.start; i < counted.start + counted.length; ++i) {
    const double value = master[static_cast<size_t>(i)];
    squares += value * value;
  }
  Tensor sum = Tensor::full(*rank_.allocator, {1}, squares, DType::kF64);
  tensor.all_reduce(sum, ReduceOp::kSum);
  return std::sqrt(read_scalar(sum));
}

double Replica::outputs(const Case& golden, Comparer& comparer) {
  Context cx = rank_.context();
  const Part rows = own_rows(golden.inputs);
  const TaskBatch batch = task_->assemble(golden.inputs, rows);
  if (golden.tensors.contains("last_hidden_state")) {
    const Tensor hidden = trunk_->forward(cx, batch.tokens);
    Tensor joined = trunk_->joined_hidden(cx, batch.tokens, hidden);
    if (const int64_t count = batch.tokens.predictions.count; count > 0) {
      joined = ops::slice(cx, joined, 1, batch.tokens.row_tokens(), count);
    }
    compare_hidden(golden, batch, at_least_single(cx, joined), comparer);
  }
  if (golden.tensors.contains("logits")) {
    const Tensor logits = task_->logits(cx, *trunk_, batch);
    compare_logits(golden, batch, at_least_single(cx, logits), comparer);
  }
  if (golden.tensors.contains("start_logits")) {
    const Tensor logits = at_least_single(cx, task_->logits(cx, *trunk_, batch));
    compare_ends(golden, batch, "start_logits", logits, 0, comparer);
    compare_ends(golden, batch, "end_logits", logits, 1, comparer);
  }
  if (golden.tensors.contains("embedding")) {
    const Tensor vectors = task_->logits(cx, *trunk_, batch);
    compare_embedding(golden, at_least_single(cx, vectors), comparer);
  }
  return loss_of(golden.inputs);
}

void Replica::compare_embedding(const Case& golden, const Tensor& vectors, Comparer& comparer) {
  const Expected& expected = golden.tensors.at("embedding");
  double difference = 0, scale = 0;
  const std::vector<double> values = wide_values(vectors);
  for (size_t i = 0; i < values.size(); ++i) {
    widen(scale, std::abs(double{expected.values[i]}));
    widen(difference, comparer.difference(values[i], expected.values[i]));
  }
  comparer.part("embedding", difference, scale);
}

int64_t Replica::own_place(const TaskBatch& batch, int64_t token) const {
  return batch.tokens.layout->find(rank_.mesh.index(Axis::kSequence), token);
}

void Replica::compare_ends(const Case& golden, const TaskBatch& batch, const std::string& name,
                           const Tensor& logits, int64_t end, Comparer& comparer) {
  const auto found = golden.tensors.find(name);
  if (found == golden.tensors.end()) return;
  const Expected& expected = found->second;
  double difference = 0, scale = 0;
  const std::vector<double> values = wide_values(logits);
  for (int64_t row = 0; row < expected.shape[0]; ++row) {
    for (int64_t token = 0; token < expected.shape[1]; ++token) {
      const auto at = static_cast<size_t>(row * expected.shape[1] + token);
      if (golden.compared[at] == 0) continue;
      widen(scale, std::abs(double{expected.values[at]}));
      const int64_t b = row - batch.tokens.first_row, t = own_place(batch, token);
      if (b < 0 || b >= logits.dim(0) || t < 0) continue;
      const double mine = values[static_cast<size_t>((b * logits.dim(1) + t) * kSpanEnds + end)];
      widen(difference, comparer.difference(mine, expected.values[at]));
    }
  }
  comparer.part(name, difference, scale);
}

void Replica::compare_hidden(const Case& golden, const TaskBatch& batch, const Tensor& joined,
                             Comparer& comparer) {
  const Expected& expected = golden.tensors.at("last_hidden_state");
  const int64_t width = expected.shape[2];
  double difference = 0, scale = 0;
  const std::vector<double> values = wide_values(joined);
  for (int64_t row = 0; row < expected.shape[0]; ++row) {
    for (int64_t token = 0; token < expected.shape[1]; ++token) {
      const int64_t at = row * expected.shape[1] + token;
      if (golden.compared[static_cast<size_t>(at)] == 0) continue;
      const float* wanted = expected.values.data() + at * width;
      for (int64_t i = 0; i < width; ++i) widen(scale, std::abs(double{wanted[i]}));
      const int64_t b = row - batch.tokens.first_row, t = own_place(batch, token);
      if (b < 0 || b >= joined.dim(0) || t < 0 || t >= joined.dim(1)) continue;
      const double* mine = values.data() + (b * joined.dim(1) + t) * width;
      for (int64_t i = 0; i < width; ++i) {
        widen(difference, comparer.difference(mine[i], wanted[i]));
      }
    }
  }
  comparer.part("last_hidden_state", difference, scale);
}

void Replica::compare_logits(const Case& golden, const TaskBatch& batch, const Tensor& logits,
                             Comparer& comparer) {
  const Expected& expected = golden.tensors.at("logits");
  const bool of_tokens = expected.shape.dims() == 3;
  const int64_t tokens = of_tokens ? expected.shape[1] : 1, width = expected.shape[-1];
  Part columns{0, width};
  if (logits.shape()[-1] < width) {
    const Communicator& tensor = rank_.mesh.axis(Axis::kTensor);
    columns = part_of(width, tensor.size(), tensor.rank());
  }
  double difference = 0, scale = 0;
  const std::vector<double> values = wide_values(logits);
  const std::vector<int64_t> pooled =
      of_tokens ? std::vector<int64_t>() : batch.pooled.to_vector<int64_t>();
  for (int64_t row = 0; row < expected.shape[0]; ++row) {
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t at = row * tokens + token;
      if (of_tokens && golden.compared[static_cast<size_t>(at)] == 0) continue;
      const float* wanted = expected.values.data() + at * width;
      for (int64_t i = 0; i < width; ++i) widen(scale, std::abs(double{wanted[i]}));
      const int64_t b = row - batch.tokens.first_row / task_->rows_together();
      const int64_t t = of_tokens ? own_place(batch, token) : 0;
      if (b < 0 || b >= logits.dim(0) || t < 0 || (of_tokens && t >= logits.dim(1))) continue;
      if (!of_tokens && pooled[static_cast<size_t>(b * task_->rows_together())] < 0) continue;
      const int64_t line = of_tokens ? b * logits.dim(1) + t : b;
      const double* mine = values.data() + line * columns.length;
      for (int64_t i = 0; i < columns.length; ++i) {
        widen(difference, comparer.difference(mine[i], wanted[columns.start + i]));
      }
    }
  }
  comparer.part("logits", difference, scale);
}

}  // namespace weft::golden
