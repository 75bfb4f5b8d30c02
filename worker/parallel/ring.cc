#include "worker/parallel/ring.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "kernels/tensor/strided.h"

namespace weft::parallel {
namespace {

using attention::BlockGrads;
using attention::Parameters;
using attention::Partial;

constexpr int kTokenDim = 2;
// Of a block. With as many there are no more keys and values of others on a rank than without any
// overlap, gradients on their way home aside.
constexpr int kPieces = 3;
constexpr size_t kAhead = 2;  // pieces on their way while one is computed on

Tensor tokens_of(const Tensor& x, int64_t start, int64_t length) {
  Shape shape = x.shape();
  shape[kTokenDim] = length;
  return x.view(shape, x.strides(), start * x.strides()[kTokenDim]);
}

Shape with_tokens(Shape shape, int64_t tokens) {
  shape[kTokenDim] = tokens;
  return shape;
}

// The tokens [part.start, part.start + part.length) of those that the runs have one after the
// other.
std::vector<Part> piece_of(const std::vector<Part>& runs, const Part& part) {
  std::vector<Part> piece;
  int64_t before = 0;
  for (const Part& run : runs) {
    const int64_t begin = std::max(part.start, before);
    const int64_t end = std::min(part.start + part.length, before + run.length);
    if (begin < end) piece.push_back({run.start + begin - before, end - begin});
    before += run.length;
  }
  return piece;
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

// Keys and values that come round, piece by piece.
class Ring::Arrivals {
 public:
  Arrivals(const Ring& ring, Context& cx, const Tensor& k, const Tensor& v)
      : ring_(ring), cx_(cx), k_(k), v_(v) {
    start();
  }
  Block next() {
    auto [k, v] = std::move(under_way_.front());
    under_way_.pop_front();
    Block block{k.arrive(), v.arrive()};
    start();
    return block;
  }

 private:
  void start() {
    for (; started_ < ring_.trades_.size() && under_way_.size() < kAhead; ++started_) {
      const Trade& trade = ring_.trades_[started_];
      Journey k = ring_.send_keys(cx_, k_, trade);
      under_way_.emplace_back(std::move(k), ring_.send_keys(cx_, v_, trade));
    }
  }
  const Ring& ring_;
  Context& cx_;
  const Tensor &k_, &v_;
  std::deque<std::pair<Journey, Journey>> under_way_;
  size_t started_ = 0;
};

Ring::Ring(Communicator& comm, SequenceLayout queries, SequenceLayout keys,
           const Parameters& parameters, int64_t rows)
    : comm_(comm),
      queries_(std::move(queries)),
      keys_(std::move(keys)),
      parameters_(parameters),
      visible_(parameters.visibility, rows, queries_.tokens(), keys_.tokens()) {
  WEFT_CHECK(queries_.ranks() == comm.size() && keys_.ranks() == comm.size(),
             "{} ranks, layouts of {} and {}", comm.size(), queries_.ranks(), keys_.ranks());
  WEFT_CHECK(!parameters.bias && !parameters.sinks, "bias and sinks do not go round");
  for (int shift = 1; shift < comm.size(); ++shift) add_trades(shift);
}

void Ring::add_trades(int shift) {
  const int size = comm_.size();
  const int to = (comm_.rank() + shift) % size, from = (comm_.rank() - shift + size) % size;
  const std::vector<Part> sent = visible_.of(own_keys(), queries_.runs(to));
  const std::vector<Part> received = visible_.of(keys_.runs(from), queries_.runs(comm_.rank()));
  for (int piece = 0; piece < kPieces; ++piece) {
    trades_.push_back({to, from, piece_of(sent, part_of(total_length(sent), kPieces, piece)),
                       piece_of(received, part_of(total_length(received), kPieces, piece))});
  }
}

Parameters Ring::parameters_for(Context& cx, const std::vector<Part>& keys) const {
  Parameters some = parameters_;
  const std::vector<Part>& queries = queries_.runs(comm_.rank());
  some.visibility = visible_.cut(cx.allocator, queries, keys,
                                 !parameters_.alibi_slopes.empty() || parameters_.distance_bias);
  some.dropout.queries = queries_.tokens();
  some.dropout.keys = keys_.tokens();
  if (some.dropout.rate > 0) {
    some.dropout.query_index = index_of(cx.allocator, queries);
    some.dropout.key_index = index_of(cx.allocator, keys);
  }
  return some;
}

Tensor Ring::packed(Context& cx, const Tensor& x, const std::vector<Part>& runs) const {
  const int64_t tokens = total_length(runs);
  if (tokens == own_key_tokens()) return as_contiguous(cx.pool, x);
  const Tensor some = Tensor::empty(cx.allocator, with_tokens(x.shape(), tokens), x.dtype());
  int64_t at = 0;
  for (const Part& run : runs) {
    copy_into(cx.pool, tokens_of(x, keys_.find(comm_.rank(), run.start), run.length),
              tokens_of(some, at, run.length));
    at += run.length;
  }
  return some;
}

Ring::Journey Ring::send_keys(Context& cx, const Tensor& x, const Trade& trade) const {
  Journey journey;
  journey.sent = packed(cx, x, trade.sent);
  journey.received =
      Tensor::empty(cx.allocator, with_tokens(x.shape(), total_length(trade.received)), x.dtype());
  journey.pending = comm_.start_send_receive(journey.sent, trade.to, journey.received, trade.from);
  return journey;
}

Ring::Journey Ring::send_gradient(Context& cx, Tensor gradient, const Tensor& own_gradient,
                                  const Trade& trade) const {
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
             tokens_of(own_gradient, keys_.find(comm_.rank(), run.start), run.length));
    at += run.length;
  }
}

Partial Ring::forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v) const {
  const int64_t queries = queries_.length(comm_.rank()), keys = own_key_tokens();
  WEFT_CHECK(q.dim(2) == queries && k.dim(2) == keys && v.dim(2) == keys,
             "{} queries, {} keys, {} values of {} and {} tokens", q.dim(2), k.dim(2), v.dim(2),
             queries, keys);
  Arrivals arrivals(*this, cx, k, v);
  Partial whole = attention::block_forward(cx, q, k, v, parameters_for(cx, own_keys()));
  for (const Trade& trade : trades_) {
    const Block block = arrivals.next();
    const std::vector<Part>& keys = trade.received;
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
  Journey home_k, home_v;
  const auto of_block = [&](const Tensor& keys, const Tensor& values,
                            const std::vector<Part>& runs) {
    return attention::block_backward(cx, q, keys, values, d_output, log_sum_exp, delta,
                                     parameters_for(cx, runs));
  };
  BlockGrads total;
  const auto add_table = [&](const BlockGrads& grads) {
    if (grads.distance_bias) add_into(cx.pool, grads.distance_bias, total.distance_bias);
  };
  const auto add_own = [&](Part part) {  // gradients by this part of the own keys
    const std::vector<Part> runs = piece_of(own_keys(), part);
    BlockGrads grads = of_block(packed(cx, k, runs), packed(cx, v, runs), runs);
    if (!total.q) {
      total.q = std::move(grads.q);
      total.distance_bias = grads.distance_bias;
      total.k = Tensor::zeros(cx.allocator, k.shape(), grads.k.dtype());
      total.v = Tensor::zeros(cx.allocator, v.shape(), grads.v.dtype());
    } else {
      add_into(cx.pool, grads.q, total.q);
      add_table(grads);
    }
    add_into(cx.pool, grads.k, tokens_of(total.k, part.start, part.length));
    add_into(cx.pool, grads.v, tokens_of(total.v, part.start, part.length));
  };
  const bool halved = !trades_.empty() && own_key_tokens() > 1;
  Arrivals arrivals(*this, cx, k, v);
  if (halved) {
    add_own(part_of(own_key_tokens(), 2, 0));
  } else {
    total = of_block(k, v, own_keys());
  }
  const auto finish_home = [&] {
    if (!home_k.pending) return;
    add_home(cx, std::move(home_k), total.k);
    add_home(cx, std::move(home_v), total.v);
  };
  for (const Trade& trade : trades_) {
    BlockGrads part;
    {
      const Block block = arrivals.next();
      if (!trade.received.empty()) part = of_block(block.k, block.v, trade.received);
    }
    if (part.q) {
      add_into(cx.pool, part.q, total.q);
      add_table(part);
    }
    part.q = Tensor();
    finish_home();
    home_k = send_gradient(cx, std::move(part.k), total.k, trade);
    home_v = send_gradient(cx, std::move(part.v), total.v, trade);
  }
  if (halved) add_own(part_of(own_key_tokens(), 2, 1));
  finish_home();
  return total;
}

}  // namespace weft::parallel
