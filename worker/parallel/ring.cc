#include "worker/parallel/ring.h"

#include <utility>

#include "kernels/tensor/strided.h"

namespace weft::parallel {
namespace {

using attention::BlockGrads;
using attention::Parameters;
using attention::Partial;

constexpr int kTokenDim = 2;

Tensor tokens_of(const Tensor& x, int64_t start, int64_t length) {
  Shape shape = x.shape();
  shape[kTokenDim] = length;
  return x.view(shape, x.strides(), start * x.strides()[kTokenDim]);
}

Shape with_tokens(Shape shape, int64_t tokens) {
  shape[kTokenDim] = tokens;
  return shape;
}

// Where each token of the runs stands in the whole.
Tensor index_of(Allocator& allocator, const std::vector<Part>& runs) {
  std::vector<int64_t> index;
  for (const Part& run : runs) {
    for (int64_t i = 0; i < run.length; ++i) index.push_back(run.start + i);
  }
  return Tensor::from<int64_t>(allocator, {static_cast<int64_t>(index.size())}, index);
}

}  // namespace

// One tensor on its way out and another on its way in. It ends before its tensors do.
struct Ring::Journey {
  Tensor sent, received;
  std::vector<Part> runs;  // of this rank, which `received` is about
  Pending pending;

  Tensor arrive() {
    pending.wait();
    sent = Tensor();
    return std::move(received);
  }
};

Ring::Ring(Communicator& comm, SequenceLayout layout, const Parameters& parameters, int64_t rows)
    : comm_(comm),
      layout_(std::move(layout)),
      parameters_(parameters),
      visible_(parameters.visibility, rows, layout_.tokens()) {
  WEFT_CHECK(layout_.ranks() == comm.size(), "{} ranks, a layout of {}", comm.size(),
             layout_.ranks());
  WEFT_CHECK(!parameters.bias && !parameters.sinks, "bias and sinks do not go round");
  for (int shift = 0; shift < comm.size(); ++shift) trades_.push_back(trade(shift));
}

Ring::Trade Ring::trade(int shift) const {
  const int size = comm_.size();
  Trade trade;
  trade.to = (comm_.rank() + shift) % size;
  trade.from = (comm_.rank() - shift + size) % size;
  trade.sent = visible_.of(own(), layout_.runs(trade.to));
  trade.received = visible_.of(layout_.runs(trade.from), own());
  return trade;
}

Parameters Ring::parameters_for(Context& cx, const std::vector<Part>& keys) const {
  Parameters some = parameters_;
  some.visibility = visible_.cut(cx.allocator, own(), keys, !parameters_.alibi_slopes.empty());
  some.dropout.queries = some.dropout.keys = layout_.tokens();
  if (some.dropout.rate > 0) {
    some.dropout.query_index = index_of(cx.allocator, own());
    some.dropout.key_index = index_of(cx.allocator, keys);
  }
  return some;
}

Tensor Ring::packed(Context& cx, const Tensor& x, const std::vector<Part>& runs) const {
  const int64_t tokens = total_length(runs);
  if (tokens == own_tokens()) return as_contiguous(cx.pool, x);
  const Tensor some = Tensor::empty(cx.allocator, with_tokens(x.shape(), tokens), x.dtype());
  int64_t at = 0;
  for (const Part& run : runs) {
    copy_into(cx.pool, tokens_of(x, layout_.find(comm_.rank(), run.start), run.length),
              tokens_of(some, at, run.length));
    at += run.length;
  }
  return some;
}

Ring::Journey Ring::send_keys(Context& cx, const Tensor& x, int shift) const {
  const Trade& trade = trades_[static_cast<size_t>(shift)];
  Journey journey;
  journey.sent = packed(cx, x, trade.sent);
  journey.received =
      Tensor::empty(cx.allocator, with_tokens(x.shape(), total_length(trade.received)), x.dtype());
  journey.pending = comm_.start_send_receive(journey.sent, trade.to, journey.received, trade.from);
  return journey;
}

Ring::Journey Ring::send_gradient(Context& cx, Tensor gradient, const Tensor& own_gradient,
                                  int shift) const {
  const Trade& trade = trades_[static_cast<size_t>(shift)];
  const auto like_own = [&](int64_t tokens) {
    return Tensor::empty(cx.allocator, with_tokens(own_gradient.shape(), tokens),
                         own_gradient.dtype());
  };
  Journey journey;
  journey.sent = gradient ? as_contiguous(cx.pool, gradient) : like_own(0);
  journey.received = like_own(total_length(trade.sent));
  journey.runs = trade.sent;
  journey.pending = comm_.start_send_receive(journey.sent, trade.from, journey.received, trade.to);
  return journey;
}

void Ring::add_home(Context& cx, Journey journey, const Tensor& own_gradient) const {
  const Tensor received = journey.arrive();
  int64_t at = 0;
  for (const Part& run : journey.runs) {
    add_into(cx.pool, tokens_of(received, at, run.length),
             tokens_of(own_gradient, layout_.find(comm_.rank(), run.start), run.length));
    at += run.length;
  }
}

Partial Ring::forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v) const {
  const int size = comm_.size();
  WEFT_CHECK(q.dim(2) == own_tokens() && k.dim(2) == own_tokens() && v.dim(2) == own_tokens(),
             "{} queries, {} keys of {} tokens", q.dim(2), k.dim(2), own_tokens());
  Journey next_k, next_v;
  const auto start = [&](int shift) {
    if (shift >= size) return;
    next_k = send_keys(cx, k, shift);
    next_v = send_keys(cx, v, shift);
  };
  start(1);
  Partial whole = attention::block_forward(cx, q, k, v, parameters_for(cx, own()));
  for (int shift = 1; shift < size; ++shift) {
    const Block block{next_k.arrive(), next_v.arrive()};
    start(shift + 1);
    const std::vector<Part>& keys = trades_[static_cast<size_t>(shift)].received;
    if (keys.empty()) continue;
    const Partial part =
        attention::block_forward(cx, q, block.k, block.v, parameters_for(cx, keys));
    attention::merge(cx, whole, part);
  }
  return whole;
}

BlockGrads Ring::backward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& d_output, const Tensor& log_sum_exp,
                          const Tensor& delta) const {
  const int size = comm_.size();
  Journey next_k, next_v, home_k, home_v;
  const auto start = [&](int shift) {
    if (shift >= size) return;
    next_k = send_keys(cx, k, shift);
    next_v = send_keys(cx, v, shift);
  };
  const auto of_block = [&](const Tensor& keys, const Tensor& values,
                            const std::vector<Part>& runs) {
    return attention::block_backward(cx, q, keys, values, d_output, log_sum_exp, delta,
                                     parameters_for(cx, runs));
  };
  start(1);
  const BlockGrads total = of_block(k, v, own());
  const auto finish_home = [&] {
    if (!home_k.pending) return;
    add_home(cx, std::move(home_k), total.k);
    add_home(cx, std::move(home_v), total.v);
  };
  for (int shift = 1; shift < size; ++shift) {
    BlockGrads part;
    {
      const Block block{next_k.arrive(), next_v.arrive()};
      start(shift + 1);
      const std::vector<Part>& keys = trades_[static_cast<size_t>(shift)].received;
      if (!keys.empty()) part = of_block(block.k, block.v, keys);
    }
    if (part.q) add_into(cx.pool, part.q, total.q);
    part.q = Tensor();
    finish_home();
    home_k = send_gradient(cx, std::move(part.k), total.k, shift);
    home_v = send_gradient(cx, std::move(part.v), total.v, shift);
  }
  finish_home();
  return total;
}

}  // namespace weft::parallel
