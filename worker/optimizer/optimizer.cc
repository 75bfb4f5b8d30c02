#include "worker/optimizer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "kernels/autograd/op.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/update.h"
#include "kernels/cuda/backend.h"
#include "kernels/tensor/strided.h"
#include "worker/models/model.h"

namespace weft {
namespace {

constexpr int64_t kAlignment = 32;     // elements: whole cache lines of half types too
constexpr int64_t kSegment = 1 << 15;  // elements of one piece of work
constexpr int64_t kFirstBlock = 1;     // a unit
constexpr int64_t kBlock = 1 << 11;    // elements updated, then rounded, while they are in cache

// Of what numbers of Singles are.
DType kept_as(DType values) { return values == DType::kBF16 ? DType::kBF16 : DType::kF32; }

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

// Views of one buffer, one a parameter; empty handles for those that are not `wanted`.
std::vector<Tensor> flat(Allocator& allocator, std::span<const Parameter> parameters, DType dtype,
                         const std::function<bool(const ParameterInfo&)>& wanted) {
  int64_t total = 0;
  const auto elements_of = [&](const Parameter& parameter) {
    return wanted(parameter.info) ? aligned(parameter.value.elements()) : 0;
  };
  for (const Parameter& parameter : parameters) total += elements_of(parameter);
  const Tensor buffer = Tensor::zeros(allocator, {total}, dtype);
  std::vector<Tensor> views;
  int64_t at = 0;
  for (const Parameter& parameter : parameters) {
    views.push_back(wanted(parameter.info) ? shaped_slice_of(buffer, at, parameter.value.shape())
                                           : Tensor());
    at += elements_of(parameter);
  }
  return views;
}

// Zeros for what lies at these places of a bucket's values. fp32 numbers among those of a half type
// begin at even places, so here too.
Tensor zeros_for(Allocator& allocator, Part places, DType dtype) {
  const int64_t before = is_half(dtype) ? places.start % 2 : 0;
  return slice_of(Tensor::zeros(allocator, {before + places.length}, dtype), before, places.length);
}

// numbers: of masters. Nothing to do where they are the values.
void round_into(ThreadPool& pool, const Tensor& numbers, const Tensor& value) {
  if (value.raw() == numbers.raw()) return;
  copy_into(pool, cpu::converted(pool, numbers, value.dtype()), value);
}

}  // namespace

struct AdamW::Update {
  cpu::AdamWFactors factors;
  const State* state;
  Tensor gradient, rounded;  // of fp16 the value, where it is kept whole
};

AdamW::AdamW(Rank& rank, std::vector<Parameter> parameters, AdamWOptions options, DType values,
             ZeroOptions zero)
    : rank_(rank),
      replicas_(rank.mesh.axis(Axis::kReplica)),
      parameters_(std::move(parameters)),
      options_(options),
      values_(values),
      level_(replicas_.size() > 1 ? zero.level : 0),
      buckets_(parameters_, replicas_.size(), replicas_.rank(), zero.bucket_bytes),
      states_(parameters_.size()),
      changed_(buckets_.all().size()),
      coming_(buckets_.all().size()) {
  std::vector<Tensor> old_values;
  for (const Parameter& parameter : parameters_) old_values.push_back(parameter.value.detach());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (keeps(buckets_.bucket_of(i))) keep(i, old_values[i]);
  }
  if (level_ == 0) {
    keep_whole(old_values);
  } else {
    share_out(old_values);
  }
  order_buckets(/*looked_up=*/0);
  if (level_ == 0) publish();
}

void AdamW::keep_whole(const std::vector<Tensor>& old_values) {
  const auto in_halves = [&](const ParameterInfo& info) {
    return info.trained && kept_as(value_dtype(info.keep_fp32, values_)) == DType::kBF16;
  };
  const auto whole = [&](const ParameterInfo& info) { return info.trained && !in_halves(info); };
  const auto all = [](const ParameterInfo& info) { return info.trained; };
  const std::vector<Tensor> singles = flat(*rank_.allocator, parameters_, DType::kF32, whole);
  const std::vector<Tensor> upper = flat(*rank_.allocator, parameters_, DType::kBF16, in_halves);
  const std::vector<Tensor> lower = flat(*rank_.allocator, parameters_, DType::kBF16, in_halves);
  const std::vector<Tensor> first = flat(*rank_.allocator, parameters_, DType::kF32, all);
  const std::vector<Tensor> second = flat(*rank_.allocator, parameters_, DType::kF32, all);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].info.trained) continue;
    states_[i].master = Singles(singles[i] ? singles[i] : upper[i], lower[i]);
    states_[i].master.set(*rank_.pool, old_values[i]);
    parameters_[i].value.rebind(states_[i].master.numbers);
    states_[i].first_moment = first[i];
    states_[i].second_moment = second[i];
  }
  const auto rounds = [&](const ParameterInfo& info) {
    return info.trained && value_dtype(info.keep_fp32, values_) == DType::kF16;
  };
  const std::vector<Tensor> rounded = flat(*rank_.allocator, parameters_, DType::kF16, rounds);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (rounded[i]) parameters_[i].value.rebind(rounded[i]);
  }
}

void AdamW::share_out(const std::vector<Tensor>& old_values) {
  Allocator& allocator = *rank_.allocator;
  for (size_t b = 0; b < buckets_.all().size(); ++b) {
    const Bucket& bucket = buckets_.all()[b];
    if (keeps(b)) {
      own_numbers_.emplace_back();
      whole_values_.emplace_back();
      continue;
    }
    const Shape own{bucket.own.length};
    const DType kept = bucket.trained ? kept_as(values_) : values_;
    const Part places = bucket.own_places(kept);
    const int64_t all_places = bucket.place_of(bucket.elements, values_);
    Tensor whole = gathers(b) ? Tensor() : Tensor::zeros(allocator, {all_places}, values_);
    Tensor numbers = whole && values_ == kept ? slice_of(whole, places.start, places.length)
                                              : zeros_for(allocator, places, kept);
    // Unused where a value is kept in fp32.
    const Tensor low =
        bucket.trained && kept == DType::kBF16 ? Tensor::zeros(allocator, own, kept) : Tensor();
    const Tensor first = bucket.trained ? Tensor::zeros(allocator, own) : Tensor();
    const Tensor second = bucket.trained ? Tensor::zeros(allocator, own) : Tensor();
    for (const Bucket::Entry& entry : bucket.entries) {
      const int64_t at =
          entry.own.length == 0 ? 0 : entry.offset + entry.own.start - bucket.own.start;
      State& state = states_[entry.parameter];
      state.own = entry.own;
      const bool in_halves = low && value_dtype(entry.keep_fp32, kept) == DType::kBF16;
      state.master = Singles(values_of(numbers, places.start, bucket, entry, entry.own),
                             in_halves ? slice_of(low, at, entry.own.length) : Tensor());
      if (bucket.trained) {
        state.first_moment = slice_of(first, at, entry.own.length);
        state.second_moment = slice_of(second, at, entry.own.length);
      }
      const Tensor& old = old_values[entry.parameter];
      const Parameter& parameter = parameters_[entry.parameter];
      if (old.contiguous()) {
        state.master.set(*rank_.pool, slice_of(old, entry.own.start, entry.own.length));
      }
      parameter.value.rebind(
          whole ? values_of(whole, bucket, entry, old.shape())
                : without_memory(allocator, old.shape(), value_dtype(entry.keep_fp32, values_)));
    }
    own_numbers_.push_back(std::move(numbers));
    whole_values_.push_back(std::move(whole));
  }
}

// What is frozen and whole on every rank stays where it is, but in the model's precision.
void AdamW::keep(size_t index, Tensor& old_value) {
  const Parameter& parameter = parameters_[index];
  const DType dtype = value_dtype(parameter.info.keep_fp32, values_);
  states_[index].master = Singles(cpu::converted(*rank_.pool, old_value, dtype));
  parameter.value.rebind(states_[index].master.numbers);
  old_value = Tensor();
}

void AdamW::publish() {
  if (level_ == 0) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      round_into(*rank_.pool, states_[i].master.numbers, parameters_[i].value);
    }
    return;
  }
  for (const size_t b : order_) {
    if (!gathers(b) && !keeps(b)) round_own(b, whole_values_[b]);
  }
  std::fill(changed_.begin(), changed_.end(), 1);
  finish_values();
}

void AdamW::defer(int64_t looked_up) {
  deferred_ = level_ == 1 || level_ == 2;
  if (deferred_) order_buckets(looked_up);
}

void AdamW::order_buckets(int64_t looked_up) {
  order_.clear();
  std::vector<size_t> tables;
  for (size_t b = buckets_.all().size(); b > 0; --b) {
    const Bucket& bucket = buckets_.all()[b - 1];
    const Tensor& value = parameters_[bucket.entries[0].parameter].value;
    const bool last = rows_go_ahead(bucket, looked_up, value.shape()[-1]);
    (last ? tables : order_).push_back(b - 1);
  }
  tables_ = tables.size();
  order_.insert(order_.end(), tables.begin(), tables.end());
}

void AdamW::start_bucket(size_t bucket) {
  if (std::exchange(changed_[bucket], 0) == 0 || gathers(bucket) || keeps(bucket)) return;
  coming_[bucket] = gather_own(bucket, whole_values_[bucket]);
}

void AdamW::start_values(int64_t unit) {
  for (const size_t b : order_) {
    if (buckets_.all()[b].unit == unit) start_bucket(b);
  }
}

void AdamW::start_values() {
  for (const size_t b : order_) start_bucket(b);
}

void AdamW::finish_values(int64_t unit) {
  start_values(unit);
  for (size_t b = 0; b < coming_.size(); ++b) {
    if (buckets_.all()[b].unit == unit) coming_[b].wait();
  }
}

void AdamW::finish_attention(int64_t unit) {
  start_values(unit);
  for (size_t b = 0; b < coming_.size(); ++b) {
    if (buckets_.all()[b].unit == unit && !behind_attention(b)) coming_[b].wait();
  }
}

bool AdamW::behind_attention(size_t bucket) const {
  return std::ranges::all_of(buckets_.all()[bucket].entries, [&](const Bucket::Entry& entry) {
    return parameters_[entry.parameter].info.behind_attention;
  });
}

void AdamW::finish_values() {
  start_values();
  for (TableRows& rows : rows_) rows.wait();  // of a rank that looked none up
  rows_.clear();
  for (Pending& pending : coming_) pending.wait();
}

void AdamW::start_rows(std::span<const int64_t> ids) {
  std::vector<int64_t> rows(ids.begin(), ids.end());
  std::ranges::sort(rows);
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  for (size_t place = order_.size() - tables_; place < order_.size(); ++place) {
    const Bucket& bucket = buckets_.all()[order_[place]];
    if (changed_[order_[place]] == 0 || rows.empty()) continue;
    const Tensor& table = parameters_[bucket.entries[0].parameter].value;
    rows_.emplace_back(rank_, bucket, whole_values_[order_[place]], table.dim(1), rows);
  }
  for (size_t place = 0; !comes_last(place); ++place) start_bucket(order_[place]);
}

bool AdamW::finish_rows(int64_t unit, const Tensor& ids) {
  if (rows_.empty()) return false;
  for (TableRows& rows : rows_) {
    for (const int64_t id : ids.to_vector<int64_t>()) {
      WEFT_CHECK(rows.has(id), "row {} is looked up, but was not asked for", id);
    }
    rows.finish();
  }
  rows_.clear();
  for (size_t place = 0; !comes_last(place); ++place) {
    if (buckets_.all()[order_[place]].unit == unit) coming_[order_[place]].wait();
  }
  return true;
}

void AdamW::round_own(size_t index, const Tensor& flat) const {
  const Bucket& bucket = buckets_.all()[index];
  const Tensor& numbers = own_numbers_[index];
  if (numbers.dtype() == flat.dtype()) {  // they lie alike
    const Part places = bucket.own_places(flat.dtype());
    return round_into(*rank_.pool, numbers, slice_of(flat, places.start, places.length));
  }
  for (const Bucket::Entry& entry : bucket.entries) {
    if (entry.own.length == 0) continue;
    round_into(*rank_.pool, states_[entry.parameter].master.numbers,
               values_of(flat, 0, bucket, entry, entry.own));
  }
}

Pending AdamW::gather_own(size_t index, const Tensor& flat) const {
  const Bucket& bucket = buckets_.all()[index];
  const Part places = bucket.own_places(flat.dtype());
  const Tensor own = slice_of(flat, places.start, places.length);
  return replicas_.start([own, flat = flat, counts = bucket.place_counts(flat.dtype())](
                             Communicator& c) mutable { c.all_gather(own, flat, counts); });
}

Pending AdamW::gather(size_t bucket, const Tensor& flat) const {
  round_own(bucket, flat);
  return gather_own(bucket, flat);
}

AdamW::Update AdamW::update_of(size_t index, const Tensor& gradient, double rate,
                               double gradient_scale) {
  State& state = states_[index];
  const Tensor& value = parameters_[index].value;
  const double count = static_cast<double>(++state.updates);
  const double decay = parameters_[index].info.decay ? options_.weight_decay : 0.0;
  const cpu::AdamWFactors factors{
      .scale = static_cast<float>(gradient_scale),
      .beta1 = static_cast<float>(options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .rest1 = static_cast<float>(1.0 - options_.beta1),
      .rest2 = static_cast<float>(1.0 - options_.beta2),
      .keep = static_cast<float>(1.0 - rate * decay),
      .step = static_cast<float>(rate / (1.0 - std::pow(options_.beta1, count))),
      .root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options_.beta2, count))),
      .epsilon = static_cast<float>(options_.epsilon)};
  return {factors, &state, as_contiguous(*rank_.pool, gradient),
          level_ == 0 && value.dtype() == DType::kF16 ? value : Tensor()};
}

// In place, beside its inputs and outputs.
class AdamW::Step final : public Kernel {
 public:
  explicit Step(std::span<const Update> updates) : updates_(updates) {}
  std::string_view name() const override { return "adamw"; }
  void cpu(Context& cx, std::span<const Tensor>, std::span<Tensor>) override {
    struct Segment {
      const Update* update;
      int64_t begin;
    };
    std::vector<Segment> segments;
    for (const Update& update : updates_) {
      for (int64_t at = 0; at < update.gradient.elements(); at += kSegment) {
        segments.push_back({&update, at});
      }
    }
    cx.pool.parallel_for(std::ssize(segments), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto& [update, from] = segments[static_cast<size_t>(i)];
        apply(*update, from, std::min(from + kSegment, update->gradient.elements()));
      }
    });
  }
  void cuda(Context& cx, std::span<const Tensor>, std::span<Tensor>) override {
    std::vector<cuda::AdamWUpdate> all;
    for (const Update& update : updates_) {
      all.push_back({update.factors, update.gradient, update.state->master,
                     update.state->first_moment, update.state->second_moment, update.rounded});
    }
    cuda::backend(cx).adamw(all);
  }

 private:
  static void apply(const Update& update, int64_t begin, int64_t end) {
    const float* g = update.gradient.data<float>();
    float* m = update.state->first_moment.data<float>();
    float* v = update.state->second_moment.data<float>();
    const Singles& master = update.state->master;
    if (master.low) {
      return cpu::update().adamw_halves(update.factors, g + begin, m + begin, v + begin,
                                        master.numbers.data<bfloat16>() + begin,
                                        master.low.data<bfloat16>() + begin, end - begin);
    }
    float* p = master.numbers.data<float>();
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t n = std::min(kBlock, end - at);
      cpu::update().adamw(update.factors, g + at, m + at, v + at, p + at, n);
      if (update.rounded) cpu::round(p + at, update.rounded.data<float16>() + at, n);
    }
  }
  const std::span<const Update> updates_;
};

void AdamW::apply_all(std::span<const Update> updates) const {
  Context cx = rank_.context();
  Step kernel(updates);
  run_kernel(cx, kernel, {}, {});
}

void AdamW::step(double learning_rate, double gradient_scale) {
  WEFT_CHECK(level_ == 0, "gradients of a shared-out state come from its reducer");
  std::vector<Update> updates;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor gradient = parameters_[i].value.grad();
    if (!gradient) continue;
    updates.push_back(update_of(i, gradient, learning_rate, gradient_scale));
    parameters_[i].value.set_grad(Tensor());
  }
  apply_all(updates);
}

void AdamW::step(GradientReducer& gradients, double learning_rate, double gradient_scale) {
  if (level_ == 0) {
    step(learning_rate, gradient_scale);
    gradients.clear();
    return;
  }
  // A bucket's values are gathered while the next one's are updated, those that the next forward
  // pass needs at once first; heads are in no gate's way. The rows that go ahead of a table are
  // needed before what the first block uses behind its attention, which leaves behind them.
  for (size_t place = 0; place < order_.size(); ++place) {
    const size_t b = order_[place];
    std::vector<Update> updates;
    for (const Bucket::Entry& entry : buckets_.all()[b].entries) {
      const Tensor gradient = gradients.own_gradient(entry.parameter);
      if (!gradient) continue;
      updates.push_back(update_of(entry.parameter, gradient, learning_rate, gradient_scale));
    }
    if (updates.empty()) continue;
    apply_all(updates);
    if (!gathers(b)) round_own(b, whole_values_[b]);
    changed_[b] = 1;
    const bool soon = buckets_.all()[b].unit <= kFirstBlock && !comes_last(place) &&
                      !(tables_ > 0 && behind_attention(b));
    if (!deferred_ || soon) start_bucket(b);
  }
  gradients.clear();
  if (!deferred_) return finish_values();
  for (size_t b = 0; b < coming_.size(); ++b) {
    if (buckets_.all()[b].unit < 0) coming_[b].wait();
  }
}

void round_parameters(Rank& rank, std::span<Parameter> parameters, DType dtype) {
  for (Parameter& parameter : parameters) {
    const DType own = value_dtype(parameter.info.keep_fp32, dtype);
    parameter.value.rebind(cpu::converted(*rank.pool, parameter.value, own));
  }
}

}  // namespace weft
