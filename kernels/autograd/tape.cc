#include "kernels/autograd/tape.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "kernels/cpu/convert.h"
#include "kernels/tensor/strided.h"
#include "proto/base/activity.h"

namespace weft {
namespace {

struct Entry {
  std::unique_ptr<Op> op;
  std::vector<Tensor> saved;
  // By input: its identity where it requires a gradient, else 0; the handle where it is a leaf.
  std::vector<uint64_t> input_ids;
  std::vector<DType> input_dtypes;
  std::vector<Tensor> leaves;
  std::vector<uint64_t> output_ids;
  int layer = -1;  // of the model, that the op ran in
};

// Sums gradients by tensor. One that came in is only written to when nobody else can see it; of two
// dtypes (a leaf's may come in half and in fp32) the sum has the wider.
class GradientSums {
 public:
  void add(ThreadPool& pool, uint64_t id, Tensor gradient) {
    Tensor& sum = sums_[id];
    if (!sum) {
      sum = std::move(gradient);
      return;
    }
    if (size_of(sum.dtype()) < size_of(gradient.dtype())) std::swap(sum, gradient);
    if (!(sum.unique() && sum.contiguous())) {
      if (gradient.dtype() == sum.dtype() && gradient.unique() && gradient.contiguous()) {
        std::swap(sum, gradient);
      } else {
        sum = clone(pool, sum);
      }
    }
    cpu::add_converted(pool, gradient, sum);
  }
  Tensor take(uint64_t id) {
    const auto found = sums_.find(id);
    if (found == sums_.end()) return Tensor();
    Tensor sum = std::move(found->second);
    sums_.erase(found);
    return sum;
  }

 private:
  std::unordered_map<uint64_t, Tensor> sums_;
};

void add_to_leaf(ThreadPool& pool, const Tensor& leaf, Tensor gradient) {
  if (const Tensor held = leaf.grad(); held) {
    cpu::add_converted(pool, gradient, held);
    return;
  }
  gradient = cpu::converted(pool, gradient, gradient_dtype(leaf.dtype()));
  const bool ours = gradient.unique() && gradient.contiguous();
  leaf.set_grad(ours ? std::move(gradient) : clone(pool, gradient));
}

}  // namespace

struct Tape::State {
  Activity* activity = nullptr;
  std::vector<Entry> entries;
  std::function<void(const Tensor&)> leaf_ready;
  std::function<Tensor(const Tensor&, Tensor)> complete;
  std::unordered_set<uint64_t> row_leaves;
  std::function<void(const Tensor&, RowGradient)> take_rows;
  std::unordered_set<uint64_t> late_leaves;
  std::function<void()> before_late;

  // What is left of an entry whose leaves' gradients were put off.
  struct Late {
    Entry entry;
    std::vector<Tensor> output_gradients;
    std::vector<char> settled;  // by input
  };

  // The gradient of this leaf that the entry gives goes to take_rows.
  bool as_rows(const Entry& entry, const Tensor& leaf) const {
    return leaf && entry.op->gives_rows() && row_leaves.contains(leaf.id());
  }

  // Walks the entries backwards; the gradients of leaves go to to_leaf(leaf, gradient), or are
  // added to held(leaf) where there is something, and done(leaf) follows the last use of a leaf.
  template <typename Held, typename ToLeaf, typename Done>
  void walk(Context& cx, GradientSums& sums, Held held, ToLeaf to_leaf, Done done) {
    std::unordered_map<uint64_t, int> uses;
    for (const Entry& entry : entries) {
      for (const Tensor& leaf : entry.leaves) {
        if (leaf && !as_rows(entry, leaf)) ++uses[leaf.id()];
      }
    }
    std::vector<Entry> stack = std::move(entries);
    entries.clear();
    std::optional<Activity::Layer> layer;
    int number = -1;
    const auto enter = [&](const Entry& entry) {
      if (layer && entry.layer == number) return;
      layer.reset();  // before the next one begins
      layer.emplace(activity, entry.layer);
      number = entry.layer;
    };
    const auto settle = [&](const Entry& entry, size_t i, Tensor gradient) {
      const Tensor& leaf = entry.leaves[i];
      if (gradient && leaf) {
        to_leaf(leaf, std::move(gradient));
      } else if (gradient && entry.input_ids[i] != 0) {
        Tensor same = cpu::converted(cx.pool, gradient, entry.input_dtypes[i]);
        gradient = Tensor();
        sums.add(cx.pool, entry.input_ids[i], std::move(same));
      }
      if (leaf && --uses[leaf.id()] == 0) done(leaf);
    };
    std::vector<Late> late;
    while (!stack.empty()) {
      Entry entry = std::move(stack.back());
      stack.pop_back();
      enter(entry);
      if (puts_off(entry)) {
        late.push_back(put_leaves_off(cx, std::move(entry), sums, settle));
        continue;
      }
      std::vector<char> given;  // inputs whose gradients are settled
      for (const Tensor& leaf : entry.leaves) given.push_back(as_rows(entry, leaf) ? 1 : 0);
      const auto give = [&](size_t i, Tensor gradient) {
        if (std::exchange(given[i], 1) == 0) settle(entry, i, std::move(gradient));
      };
      std::vector<Tensor> gradients = input_gradients(cx, entry, sums, held, give);
      entry.op.reset();
      entry.saved.clear();
      gradients.resize(entry.input_ids.size());
      for (size_t i = 0; i < gradients.size(); ++i) give(i, std::move(gradients[i]));
    }
    if (before_late) before_late();
    for (; !late.empty(); late.pop_back()) {
      enter(late.back().entry);
      finish(cx, std::move(late.back()), settle);
    }
  }

  bool puts_off(const Entry& entry) const {
    const auto late = [&](const Tensor& leaf) { return leaf && late_leaves.contains(leaf.id()); };
    return std::ranges::any_of(entry.leaves, late) && entry.op->puts_leaves_off();
  }

  // Settles the inputs that are no leaves.
  template <typename Settle>
  Late put_leaves_off(Context& cx, Entry entry, GradientSums& sums, Settle settle) const {
    std::vector<Tensor> of_outputs = take_all(sums, entry.output_ids);
    Late late{std::move(entry), std::move(of_outputs), {}};
    std::vector<Tensor> gradients;
    if (!late.output_gradients.empty()) {
      const Activity::Op now(activity, late.entry.op->name().data());
      gradients = late.entry.op->vjp(cx, late.entry.saved, late.output_gradients);
    }
    gradients.resize(late.entry.input_ids.size());
    for (size_t i = 0; i < gradients.size(); ++i) {
      late.settled.push_back(!late.entry.leaves[i] || gradients[i] ? 1 : 0);
      if (late.settled[i] != 0) settle(late.entry, i, std::move(gradients[i]));
    }
    return late;
  }

  // Settles the others.
  template <typename Settle>
  void finish(Context& cx, Late late, Settle settle) const {
    std::vector<Tensor> gradients;
    if (!late.output_gradients.empty()) {
      const Activity::Op now(activity, late.entry.op->name().data());
      gradients = late.entry.op->leaf_vjp(cx, late.entry.saved, late.output_gradients);
    }
    gradients.resize(late.settled.size());
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (late.settled[i] == 0) settle(late.entry, i, std::move(gradients[i]));
    }
  }

  // Empty: no output has one.
  static std::vector<Tensor> take_all(GradientSums& sums, std::span<const uint64_t> output_ids) {
    std::vector<Tensor> gradients;
    for (const uint64_t id : output_ids) gradients.push_back(id == 0 ? Tensor() : sums.take(id));
    const bool any = std::ranges::any_of(gradients, [](const Tensor& x) { return bool{x}; });
    return any ? gradients : std::vector<Tensor>();
  }

  // What give(input, gradient) was not called with.
  template <typename Held, typename Give>
  std::vector<Tensor> input_gradients(Context& cx, Entry& entry, GradientSums& sums, Held held,
                                      Give give) const {
    const std::vector<Tensor> output_gradients = take_all(sums, entry.output_ids);
    if (output_gradients.empty()) return {};
    const Activity::Op now(activity, entry.op->name().data());
    if (entry.op->gives_rows()) {
      RowGradient rows = entry.op->row_gradient(entry.saved, output_gradients);
      const Tensor& leaf = entry.leaves[rows.input];
      if (as_rows(entry, leaf)) {
        take_rows(leaf, std::move(rows));
        return {};
      }
    }
    std::vector<Tensor> by_leaf;
    for (const Tensor& leaf : entry.leaves) by_leaf.push_back(leaf ? held(leaf) : Tensor());
    if (entry.op->add_to_leaves(cx, entry.saved, output_gradients, by_leaf)) return {};
    std::vector<Tensor> early = entry.op->leaf_vjp(cx, entry.saved, output_gradients);
    for (size_t i = 0; i < early.size(); ++i) {
      if (early[i]) give(i, std::move(early[i]));
    }
    std::vector<Tensor> gradients = entry.op->vjp(cx, entry.saved, output_gradients);
    WEFT_CHECK(gradients.size() <= entry.input_ids.size(), "{}: {} gradients of {} inputs",
               entry.op->name(), gradients.size(), entry.input_ids.size());
    return gradients;
  }

  bool recorded(const Tensor& output) const {
    return std::any_of(entries.rbegin(), entries.rend(), [&](const Entry& entry) {
      return std::ranges::find(entry.output_ids, output.id()) != entry.output_ids.end();
    });
  }

  Tensor seed_of(Context& cx, const Tensor& output, const Tensor& seed) const {
    WEFT_CHECK(!output.requires_grad() || output.leaf() || recorded(output),
               "an output {} that is not on this tape, or no longer: it is walked once",
               output.shape().to_string());
    if (!seed) return Tensor::full(cx.allocator, output.shape(), 1, output.dtype());
    WEFT_CHECK(seed.spec() == output.spec(), "seed {} of output {}", seed.shape().to_string(),
               output.shape().to_string());
    return seed;
  }
};

Tape::Tape(Activity* activity) : state_(std::make_unique<State>()) { state_->activity = activity; }

Activity* Tape::activity() const { return state_->activity; }

Tape::~Tape() { clear(); }

void Tape::record(std::unique_ptr<Op> op, std::span<const Tensor> inputs,
                  std::span<const Tensor> outputs) {
  Entry entry;
  for (const Tensor& input : inputs) {
    entry.input_ids.push_back(input.requires_grad() ? input.id() : 0);
    entry.input_dtypes.push_back(input ? input.dtype() : DType::kF32);
    entry.leaves.push_back(input.leaf() ? input : Tensor());
  }
  entry.saved = op->saves(inputs, outputs);
  for (const Tensor& output : outputs) {
    const bool differentiable = output && is_floating(output.dtype());
    if (differentiable) output.mark_result();
    entry.output_ids.push_back(differentiable ? output.id() : 0);
  }
  entry.op = std::move(op);
  if (state_->activity != nullptr) entry.layer = state_->activity->layer();
  state_->entries.push_back(std::move(entry));
}

void Tape::backward(Context& cx, const Tensor& output, const Tensor& seed) {
  const NoGrad inside(cx);
  GradientSums sums;
  const auto held = [&](const Tensor& leaf) { return state_->complete ? Tensor() : leaf.grad(); };
  const auto to_leaf = [&](const Tensor& leaf, Tensor gradient) {
    if (state_->complete) {
      gradient = cpu::converted(cx.pool, gradient, gradient_dtype(leaf.dtype()));
      gradient = state_->complete(leaf, std::move(gradient));
    }
    add_to_leaf(cx.pool, leaf, std::move(gradient));
  };
  const auto done = [&](const Tensor& leaf) {
    if (state_->leaf_ready) state_->leaf_ready(leaf);
  };
  Tensor first = state_->seed_of(cx, output, seed);
  if (output.leaf()) {
    to_leaf(output, std::move(first));
  } else {
    sums.add(cx.pool, output.id(), std::move(first));
  }
  state_->walk(cx, sums, held, to_leaf, done);
}

std::vector<Tensor> Tape::gradients(Context& cx, const Tensor& output, const Tensor& seed,
                                    std::span<const Tensor> targets) {
  const NoGrad inside(cx);
  GradientSums sums;
  sums.add(cx.pool, output.id(), state_->seed_of(cx, output, seed));
  state_->walk(
      cx, sums, [](const Tensor&) { return Tensor(); },
      [&](const Tensor& leaf, Tensor gradient) {
        sums.add(cx.pool, leaf.id(), std::move(gradient));
      },
      [](const Tensor&) {});
  std::vector<Tensor> result;
  for (const Tensor& target : targets) result.push_back(sums.take(target.id()));
  return result;
}

void Tape::on_leaf_ready(std::function<void(const Tensor& leaf)> hook) {
  state_->leaf_ready = std::move(hook);
}

void Tape::complete_leaves(std::function<Tensor(const Tensor& leaf, Tensor gradient)> complete) {
  state_->complete = std::move(complete);
}

void Tape::take_rows(std::unordered_set<uint64_t> leaves,
                     std::function<void(const Tensor& leaf, RowGradient rows)> take) {
  state_->row_leaves = std::move(leaves);
  state_->take_rows = std::move(take);
}

int64_t Tape::row_count(const Tensor& leaf) const {
  int64_t count = 0;
  for (const Entry& entry : state_->entries) {
    for (const Tensor& each : entry.leaves) {
      if (!each || each.id() != leaf.id() || !state_->as_rows(entry, each)) continue;
      count += entry.op->row_gradient(entry.saved, std::array{Tensor()}).ids.elements();
    }
  }
  return count;
}

void Tape::put_off(std::unordered_set<uint64_t> leaves, std::function<void()> before) {
  state_->late_leaves = std::move(leaves);
  state_->before_late = std::move(before);
}

std::unordered_set<uint64_t> Tape::leaves() const {
  std::unordered_set<uint64_t> ids;
  for (const Entry& entry : state_->entries) {
    for (const Tensor& leaf : entry.leaves) {
      if (leaf && !state_->as_rows(entry, leaf)) ids.insert(leaf.id());
    }
  }
  return ids;
}

void Tape::clear() {
  while (!state_->entries.empty()) state_->entries.pop_back();
}

size_t Tape::size() const { return state_->entries.size(); }

}  // namespace weft
