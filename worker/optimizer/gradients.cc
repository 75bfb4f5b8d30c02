#include "worker/optimizer/gradients.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/autograd/op.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/update.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/tensor/strided.h"
#include "kernels/tensor/transfer.h"
#include "worker/optimizer/exact_squares.h"
#include "worker/parallel/tree_sum.h"

namespace weft {
namespace {

constexpr int64_t kBlock = 1 << 14;                           // elements
constexpr int64_t kFirstBlock = 1;                            // a unit
constexpr size_t kRows = std::numeric_limits<size_t>::max();  // in the place of a bucket

// The squares of all inputs, in double. On the CPU added up in blocks of a fixed size, so that the
// sum does not depend on the pool's.
class SumOfSquares final : public Kernel {
 public:
  std::string_view name() const override { return "sum_of_squares"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    struct Block {
      const float* data;
      int64_t count;
    };
    std::vector<Block> blocks;
    for (const Tensor& input : inputs) {
      for (int64_t at = 0; at < input.elements(); at += kBlock) {
        blocks.push_back({input.data<float>() + at, std::min(kBlock, input.elements() - at)});
      }
    }
    std::vector<double> partial(blocks.size(), 0.0);
    cx.pool.parallel_for(std::ssize(blocks), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        partial[i] = cpu::update().sum_of_squares(blocks[i].data, blocks[i].count);
      }
    });
    *outputs[0].data<double>() = std::accumulate(partial.begin(), partial.end(), 0.0);
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).sum_of_squares(inputs, outputs[0]);
  }
};

Tensor sum_of_squares(Rank& rank, std::span<const Tensor> tensors) {
  Context cx = rank.context();
  Tensor sum = Tensor::empty(*rank.allocator, {1}, DType::kF64);
  SumOfSquares kernel;
  run_kernel(cx, kernel, tensors, std::span(&sum, 1));
  return sum;
}

// Input: x. Outputs: its copy, and a double that stays finite only where all of x is. Squares of
// floats cannot exceed a double.
class CopyFinite final : public Kernel {
 public:
  std::string_view name() const override { return "copy_finite"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const int64_t count = inputs[0].elements();
    const float* from = inputs[0].data<float>();
    float* to = outputs[0].data<float>();
    std::atomic<bool> finite = true;
    cx.pool.parallel_for((count + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin * kBlock; at < std::min(count, end * kBlock); at += kBlock) {
        const int64_t n = std::min(kBlock, count - at);
        std::memcpy(to + at, from + at, static_cast<size_t>(n) * sizeof(float));
        if (!std::isfinite(cpu::update().sum_of_squares(to + at, n))) finite = false;
      }
    });
    if (!finite) *outputs[1].data<double>() = std::numeric_limits<double>::quiet_NaN();
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor squares = Tensor::empty(cx.allocator, outputs[1].shape(), DType::kF64);
    cuda::Backend& gpu = cuda::backend(cx);
    gpu.copy(inputs[0], outputs[0]);
    gpu.sum_of_squares(inputs, squares);
    gpu.add(squares, outputs[1]);
  }
};

// The gradient as a contiguous fp32 tensor that the parameter holds; zeros where there was none.
Tensor whole_gradient(Rank& rank, const Parameter& parameter) {
  Tensor gradient = parameter.value.grad();
  if (gradient && gradient.contiguous()) return gradient;
  gradient = gradient ? as_contiguous(*rank.pool, gradient)
                      : Tensor::zeros(*rank.allocator, parameter.value.shape());
  parameter.value.set_grad(gradient);
  return gradient;
}

// The elements whose squares count here: of what several ranks hold those of one.
Part counted(const Rank& rank, const Parameter& parameter) {
  return counted_part(parameter.info, rank.mesh.index(Axis::kTensor));
}

}  // namespace

GradientReducer::GradientReducer(Rank& rank, std::span<const Parameter> parameters,
                                 const Buckets& buckets, int zero, bool overlap)
    : rank_(rank),
      replicas_(rank.mesh.axis(Axis::kReplica)),
      parameters_(parameters.begin(), parameters.end()),
      buckets_(buckets),
      zero_(replicas_.size() > 1 ? zero : 0),
      overlap_(overlap),
      states_(buckets.all().size()),
      complete_(parameters.size()) {
  for (size_t i = 0; i < parameters_.size(); ++i) index_of_[parameters_[i].value.id()] = i;
}

void GradientReducer::begin(std::span<const Parameter> trained, const TableUse& use) {
  health_ = Tensor::zeros(*rank_.allocator, {1}, DType::kF64);
  states_.clear();
  states_.resize(buckets_.all().size());
  for (const Parameter& parameter : trained) {
    if (!parameter.info.trained) continue;
    states_[buckets_.bucket_of(index_of_.at(parameter.value.id()))].trained = true;
  }
  add_tables(trained, use);
  start_round();
}

// Which tables' rows are sent, and in what order the buckets are.
void GradientReducer::add_tables(std::span<const Parameter> trained, const TableUse& use) {
  tables_.clear();
  order_.clear();
  std::vector<char> apart(states_.size());
  for (const Parameter& parameter : trained) {
    const Tensor& value = parameter.value;
    const LookedUp by = parameter.info.looked_up;
    if (alone() || rank_.blocks > 0 || by == LookedUp::kNever) continue;
    const size_t index = index_of_.at(value.id()), bucket = buckets_.bucket_of(index);
    if (sent_as_rows(buckets_, use, value.dim(1), replicas_.size())[bucket] == 0) continue;
    tables_.push_back({index, {}});
    apart[bucket] = 1;
    if (use.whole(by)) order_.push_back(bucket);
  }
  late_ = tables_.empty() ? std::vector<size_t>() : put_off(use);
  for (size_t b = 0; b < states_.size(); ++b) {
    if (apart[b] == 0 && std::ranges::count(late_, b) == 0) order_.push_back(b);
  }
  if (!tables_.empty()) order_.push_back(kRows);
  order_.insert(order_.end(), late_.begin(), late_.end());
}

// Buckets of the matrices of the first block's attention, in the order of the forward pass, as long
// as their sums are no more bytes than the rows: then the step ends no later, however slow the link
// is. A tensor axis' products have transfers beside them already.
std::vector<size_t> GradientReducer::put_off(const TableUse& use) const {
  const Tensor& table = parameters_[tables_[0].parameter].value;
  const int64_t rows = use.tokens * table.dim(1) * static_cast<int64_t>(size_of(table.dtype()));
  const auto is_matrix = [&](const Bucket::Entry& entry) {
    return parameters_[entry.parameter].info.shape.dims() == 2;
  };
  const auto is_used_later = [&](const Bucket::Entry& entry) {
    return is_matrix(entry) && parameters_[entry.parameter].info.behind_attention;
  };
  std::vector<size_t> chosen;
  if (rank_.mesh.size(Axis::kTensor) > 1) return chosen;
  int64_t sent = 0;  // to each other rank
  for (size_t b = states_.size(); b > 0; --b) {
    const Bucket& bucket = buckets_.all()[b - 1];
    if (bucket.unit != kFirstBlock || !std::ranges::any_of(bucket.entries, is_matrix)) continue;
    if (std::ranges::any_of(bucket.entries, is_used_later)) continue;
    const int64_t bytes = bucket.elements * int64_t{sizeof(float)} / replicas_.size();
    sent += zero_ == 0 ? 2 * bytes : bytes;
    if (sent > rows) break;
    chosen.push_back(b - 1);
  }
  return chosen;
}

void GradientReducer::start_round() {
  next_ = 0;
  rows_complete_ = false;
  row_counts_ = Tensor();
  std::fill(complete_.begin(), complete_.end(), 0);
  for (size_t b = 0; b < states_.size(); ++b) {
    states_[b].launched = false;
    states_[b].missing = std::ssize(buckets_.all()[b].entries);
  }
}

void GradientReducer::arm(Tape& tape) {
  if (rank_.blocks > 0) {
    tape.complete_leaves([this](const Tensor& leaf, const Tensor& gradient) {
      return complete_gradient(rank_, parameters_[index_of_.at(leaf.id())].info, gradient);
    });
  }
  if (alone()) return;
  std::unordered_set<uint64_t> by_rows;
  for (const Table& table : tables_) by_rows.insert(parameters_[table.parameter].value.id());
  tape.take_rows(std::move(by_rows), [this](const Tensor& leaf, RowGradient rows) {
    for (Table& table : tables_) {
      if (parameters_[table.parameter].value.id() == leaf.id()) table.rows.push_back(rows);
    }
  });
  if (!tables_.empty()) announce_rows(tape.row_count(parameters_[tables_[0].parameter].value));
  if (!overlap_) return;
  std::unordered_set<uint64_t> late;
  for (const size_t b : late_) {
    for (const Bucket::Entry& entry : buckets_.all()[b].entries) {
      late.insert(parameters_[entry.parameter].value.id());
    }
  }
  tape.put_off(std::move(late), [this] {
    rows_complete_ = true;
    launch_complete();
  });
  const std::unordered_set<uint64_t> used = tape.leaves();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!used.contains(parameters_[i].value.id())) complete(i);
  }
  tape.on_leaf_ready([this](const Tensor& leaf) { ready(leaf); });
}

void GradientReducer::ready(const Tensor& leaf) {
  const auto found = index_of_.find(leaf.id());
  if (found == index_of_.end()) return;
  complete(found->second);
  launch_complete();
}

void GradientReducer::complete(size_t parameter) {
  State& state = states_[buckets_.bucket_of(parameter)];
  if (!state.trained || complete_[parameter] != 0) return;
  WEFT_CHECK(!state.launched, "{} is ready after its bucket was sent",
             parameters_[parameter].info.name);
  complete_[parameter] = 1;
  --state.missing;
}

void GradientReducer::launch_complete() {
  for (; next_ < order_.size(); ++next_) {
    if (order_[next_] == kRows) {
      if (!rows_complete_) return;
      send_rows();
      continue;
    }
    const State& state = states_[order_[next_]];
    if (state.trained && state.missing > 0) return;
    if (state.trained) launch(order_[next_]);
  }
}

void GradientReducer::flush() {
  if (alone()) return;
  if (!tables_.empty() && !row_counts_) announce_rows(0);
  for (size_t i = 0; i < parameters_.size(); ++i) complete(i);
  rows_complete_ = true;
  launch_complete();
  if (!tables_.empty()) take_rows();
  if (every_round()) {  // the next one starts with nothing under way
    while (!in_flight_.empty()) take(in_flight_.front());
  }
  start_round();
}

void GradientReducer::launch(size_t index) {
  const Bucket& bucket = buckets_.all()[index];
  State& state = states_[index];
  state.launched = true;
  while (zero_ >= 2 && in_flight_.size() >= kInFlight) take(in_flight_.front());
  if (rank_.blocks > 0) return zero_ == 0 ? keep(index) : keep_part(index);
  Tensor flat = packed(bucket);
  const Tensor part = Tensor::empty(*rank_.allocator, {bucket.own.length});
  const bool whole = zero_ == 0;
  (whole ? state.flat : state.part) = whole ? flat : part;
  // Level 0 is an all-reduce in its two halves, so that no level depends on how a transport cuts
  // it.
  state.pending = replicas_.start([flat = std::move(flat), part = part, counts = bucket.counts,
                                   whole](Communicator& c) mutable {
    c.reduce_scatter(flat, part, counts);
    if (whole) c.all_gather(part, flat, counts);
  });
  in_flight_.push_back(index);
}

// Gradients that are sums over the ranks already.
void GradientReducer::keep(size_t index) {
  const Bucket& bucket = buckets_.all()[index];
  std::vector<Tensor>& sums = states_[index].sums;
  sums.resize(bucket.entries.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    const Parameter& parameter = parameters_[bucket.entries[i].parameter];
    const Tensor gradient = parameter.value.grad();
    parameter.value.set_grad(Tensor());
    if (gradient && sums[i]) add_into(*rank_.pool, gradient, sums[i]);
    if (gradient && !sums[i]) sums[i] = as_contiguous(*rank_.pool, gradient);
  }
}

// This rank's part of such.
void GradientReducer::keep_part(size_t index) {
  const Bucket& bucket = buckets_.all()[index];
  const Tensor part = Tensor::zeros(*rank_.allocator, {bucket.own.length});
  Context cx = rank_.context();
  for (const Bucket::Entry& entry : bucket.entries) {
    const Tensor& value = parameters_[entry.parameter].value;
    const Tensor gradient = value.grad();
    value.set_grad(Tensor());
    if (!gradient || entry.own.length == 0) continue;
    const Tensor whole = as_contiguous(*rank_.pool, gradient);
    const Tensor own = slice_of(whole, entry.own.start, entry.own.length);
    CopyFinite kernel;
    std::array outputs = {
        slice_of(part, entry.offset + entry.own.start - bucket.own.start, entry.own.length),
        health_};
    run_kernel(cx, kernel, std::span(&own, 1), outputs);
  }
  states_[index].part = part;
  in_flight_.push_back(index);
}

// A bucket's gradients, [elements]. One that fills it is sent from where it lies.
Tensor GradientReducer::packed(const Bucket& bucket) {
  const Tensor& value = parameters_[bucket.entries[0].parameter].value;
  if (bucket.elements == bucket.entries[0].elements) {
    const Tensor gradient = value.grad();
    value.set_grad(Tensor());
    if (gradient && gradient.unique() && gradient.contiguous()) {
      check_finite(gradient);
      return slice_of(gradient, 0, bucket.elements);
    }
    value.set_grad(gradient);
  }
  const Tensor flat = Tensor::empty(*rank_.allocator, {bucket.elements});
  pack(bucket, flat);
  return flat;
}

void GradientReducer::check_finite(const Tensor& values) {
  add_into(*rank_.pool, sum_of_squares(rank_, std::array{values}), health_);
}

// The gradients in their places; zeros where there is none, and in between.
void GradientReducer::pack(const Bucket& bucket, const Tensor& flat) {
  Context cx = rank_.context();
  int64_t filled = 0;
  const auto fill_to = [&](int64_t end) {
    if (filled < end) slice_of(flat, filled, end - filled).fill(0);
    filled = end;
  };
  for (const Bucket::Entry& entry : bucket.entries) {
    const Tensor& value = parameters_[entry.parameter].value;
    if (!value.grad()) continue;
    const Tensor gradient = as_contiguous(*rank_.pool, value.grad());
    value.set_grad(Tensor());
    fill_to(entry.offset);
    CopyFinite kernel;
    std::array outputs = {shaped_slice_of(flat, entry.offset, gradient.shape()), health_};
    run_kernel(cx, kernel, std::span(&gradient, 1), outputs);
    filled += entry.elements;
  }
  fill_to(bucket.elements);
}

// Waits for a bucket that was sent.
void GradientReducer::take(size_t index) {
  State& state = states_[index];
  std::erase(in_flight_, index);
  state.pending.wait();
  if (zero_ == 0) {
    state.sum = std::move(state.flat);
    for (const Bucket::Entry& entry : buckets_.all()[index].entries) {
      const Tensor& value = parameters_[entry.parameter].value;
      value.set_grad(shaped_slice_of(state.sum, entry.offset, value.shape()));
    }
  } else if (state.sum) {
    add_into(*rank_.pool, state.part, state.sum);
    state.part = Tensor();
  } else {
    state.sum = std::move(state.part);
  }
}

// Of this rank and round; maybe none.
GradientReducer::LookedUpRows GradientReducer::own_rows() {
  const auto same = [](const RowGradient& a, const RowGradient& b) {
    return a.values.raw() == b.values.raw() && a.ids.elements() == b.ids.elements();
  };
  const std::vector<RowGradient>& first = tables_[0].rows;
  int64_t count = 0;
  for (const RowGradient& rows : first) count += rows.ids.elements();
  LookedUpRows own;
  for (const Table& table : tables_) {
    WEFT_CHECK(std::ranges::equal(table.rows, first, same), "{} has rows of its own",
               parameters_[table.parameter].info.name);
    const Tensor ids = Tensor::empty(*rank_.allocator, {count}, DType::kI64);
    int64_t at = 0;
    for (const RowGradient& rows : table.rows) {
      copy_into(*rank_.pool, rows.ids, shaped_slice_of(ids, at, rows.ids.shape()));
      at += rows.ids.elements();
    }
    own.ids.push_back(ids);
  }
  const Tensor& table = parameters_[tables_[0].parameter].value;
  own.values = Tensor::empty(*rank_.allocator, {count, table.dim(1)}, table.dtype());
  int64_t at = 0;
  for (const RowGradient& rows : first) {
    copy_into(*rank_.pool, rows.values, shaped_slice_of(own.values, at, rows.values.shape()));
    at += rows.values.elements();
  }
  for (Table& each : tables_) each.rows.clear();
  check_finite(cpu::converted(*rank_.pool, own.values, DType::kF32));
  return own;
}

void GradientReducer::announce_rows(int64_t count) {
  const Tensor own = Tensor::full(*rank_.allocator, {1}, static_cast<double>(count), DType::kI64);
  row_counts_ = Tensor::empty(*rank_.allocator, {replicas_.size()}, DType::kI64);
  announced_ = replicas_.start([own, all = row_counts_](Communicator& c) mutable {
    c.all_gather(own, all, std::vector<int64_t>(static_cast<size_t>(c.size()), 1));
  });
}

void GradientReducer::send_rows() {
  const LookedUpRows own = own_rows();
  announced_.wait();
  const std::vector<int64_t> counts = row_counts_.to_vector<int64_t>();
  const int64_t count = own.values.dim(0), width = own.values.dim(1);
  WEFT_CHECK(counts[static_cast<size_t>(replicas_.rank())] == count,
             "{} rows of those that were looked up have a gradient", count);
  const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  all_rows_.values = Tensor::empty(*rank_.allocator, {all, width}, own.values.dtype());
  for (size_t i = 0; i < tables_.size(); ++i) {
    all_rows_.ids.push_back(Tensor::empty(*rank_.allocator, {all}, DType::kI64));
  }
  std::vector<int64_t> elements = counts;
  for (int64_t& n : elements) n *= width;
  rows_pending_ = replicas_.start([own, to = all_rows_, counts, elements](Communicator& c) mutable {
    c.all_gather(own.values, to.values, elements);
    for (size_t i = 0; i < to.ids.size(); ++i) c.all_gather(own.ids[i], to.ids[i], counts);
  });
}

// Adds the rows of all ranks to the sums, or to the parts of them that are this rank's.
void GradientReducer::take_rows() {
  for (const Table& table : tables_) {
    const size_t bucket = buckets_.bucket_of(table.parameter);
    if (std::ranges::count(in_flight_, bucket) != 0) take(bucket);
  }
  rows_pending_.wait();
  const LookedUpRows rows = std::exchange(all_rows_, {});
  for (size_t i = 0; i < tables_.size(); ++i) add_rows(tables_[i], rows.ids[i], rows.values);
}

void GradientReducer::add_rows(const Table& table, const Tensor& ids, const Tensor& values) {
  const auto& [info, value] = parameters_[table.parameter];
  RowGradient rows{0, ids, values};
  if (!info.shard.whole()) rows.first_id = info.shard.ranges[0].start;
  const size_t index = buckets_.bucket_of(table.parameter);
  const Bucket& bucket = buckets_.all()[index];
  const Bucket::Entry& entry = buckets_.entry_of(table.parameter);
  Tensor& sum = states_[index].sum;
  if (!sum) {  // nothing but rows
    WEFT_CHECK(!value.grad(), "{} has more than rows", info.name);
    sum = Tensor::zeros(*rank_.allocator, {zero_ == 0 ? bucket.elements : bucket.own.length});
    if (zero_ == 0) value.set_grad(shaped_slice_of(sum, entry.offset, value.shape()));
  }
  Context cx = rank_.context();
  if (zero_ == 0) {
    ops::add_rows(cx, rows, 0, slice_of(sum, entry.offset, entry.elements));
  } else {
    ops::add_rows(cx, rows, entry.own.start, own_gradient(table.parameter));
  }
}

void GradientReducer::finish() {
  while (!in_flight_.empty()) take(in_flight_.front());
  const bool whole = zero_ == 0 && (alone() || rank_.blocks > 0);
  for (size_t b = 0; whole && b < states_.size(); ++b) {
    if (!states_[b].trained) continue;
    for (size_t i = 0; i < buckets_.all()[b].entries.size(); ++i) {
      const Parameter& parameter = parameters_[buckets_.all()[b].entries[i].parameter];
      if (!alone()) parameter.value.set_grad(std::exchange(states_[b].sums[i], Tensor()));
      (void)whole_gradient(rank_, parameter);
    }
  }
  measure();
  finite_ = std::isfinite(whole ? squares_ : read_scalar(health_));
}

void GradientReducer::measure() {
  std::vector<Tensor> own_parts;
  int64_t elements = 0;  // of the whole model, those that are not trained included
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const State& state = states_[buckets_.bucket_of(i)];
    elements += parameters_[i].info.shape.elements();
    if (!state.trained) continue;
    const Part& own = buckets_.entry_of(i).own;
    const Part part = common_part(own, counted(rank_, parameters_[i]));
    if (part.length == 0) continue;
    if (zero_ == 0) {
      own_parts.push_back(slice_of(parameters_[i].value.grad(), part.start, part.length));
    } else {
      own_parts.push_back(slice_of(own_gradient(i), part.start - own.start, part.length));
    }
  }
  if (rank_.blocks == 0) {
    squares_ = read_scalar(sum_of_squares(rank_, own_parts));
    return;
  }
  const ExactSquares exact = exact_squares(rank_, own_parts, elements);
  squares_ = exact.upper;
  squares_rest_ = exact.lower;
}

Tensor GradientReducer::own_gradient(size_t parameter) const {
  const size_t index = buckets_.bucket_of(parameter);
  const Bucket& bucket = buckets_.all()[index];
  const Bucket::Entry& entry = buckets_.entry_of(parameter);
  if (!states_[index].sum) return Tensor();
  if (entry.own.length == 0) return slice_of(states_[index].sum, 0, 0);
  return slice_of(states_[index].sum, entry.offset + entry.own.start - bucket.own.start,
                  entry.own.length);
}

void GradientReducer::clear() {
  for (State& state : states_) state = State();
  clear_gradients(parameters_);
}

Tensor complete_gradient(Rank& rank, const ParameterInfo& info, const Tensor& gradient) {
  const bool of_head = info.unit < 0;  // which every rank of the tensor axis applies alike
  const Axis axis = info.shard.whole() && !of_head ? Axis::kWorld : Axis::kReplica;
  Context cx = rank.context();
  const Tensor term = as_contiguous(*rank.pool, gradient);
  const Tensor sum = parallel::tree_sum(cx, rank.mesh.axis(axis), term);
  // A rank without a row of the head's adds zeros: where all are zeros, their sign would tell.
  if (of_head) add_into(*rank.pool, Tensor::zeros(*rank.allocator, sum.shape()), sum);
  return sum;
}

void reduce_gradients(Rank& rank, std::span<Parameter> parameters) {
  Communicator& replicas = rank.mesh.axis(Axis::kReplica);
  const Buckets buckets(parameters, replicas.size(), replicas.rank());
  GradientReducer reducer(rank, parameters, buckets, /*zero=*/0);
  reducer.begin(parameters);
  reducer.flush();
  reducer.finish();
}

double global_gradient_norm(Rank& rank, std::span<Parameter> parameters) {
  Communicator& tensor = rank.mesh.axis(Axis::kTensor);
  std::vector<Tensor> parts;
  for (const Parameter& parameter : parameters) {
    const Part part = counted(rank, parameter);
    if (!parameter.value.grad() || part.length == 0) continue;
    parts.push_back(slice_of(whole_gradient(rank, parameter), part.start, part.length));
  }
  Tensor total = sum_of_squares(rank, parts);
  tensor.all_reduce(total, ReduceOp::kSum);
  return std::sqrt(read_scalar(total));
}

double clip_factor(double norm, double norm_max) {
  if (norm_max <= 0) return 1.0;
  return std::min(1.0, norm_max / (norm + 1e-6));
}

void clear_gradients(std::span<const Parameter> parameters) {
  for (const Parameter& parameter : parameters) parameter.value.set_grad(Tensor());
}

}  // namespace weft
