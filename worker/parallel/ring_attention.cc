#include "worker/parallel/ring_attention.h"

#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "worker/parallel/mesh.h"

namespace weft::parallel {
namespace {

using attention::BlockGrads;
using attention::Parameters;
using attention::Partial;
using attention::Visibility;

// One rank's keys and values with what says who may see them. Absent handles as in Visibility.
struct Block {
  Tensor k, v, position, valid, document;
  int64_t start = 0;  // of its tokens in the whole
};

Tensor positions(Context& cx, int64_t rows, Part tokens) {
  std::vector<int64_t> values(static_cast<size_t>(rows * tokens.length));
  int64_t next = 0;
  for (int64_t& value : values) value = tokens.start + next++ % tokens.length;
  return Tensor::from<int64_t>(cx.allocator, {rows, tokens.length}, values);
}

Tensor contiguous_or_none(Context& cx, const Tensor& x) {
  return x ? as_contiguous(cx.pool, x) : Tensor();
}

// The way of the blocks: at shift s this rank works on the block of owner(s).
class Ring {
 public:
  Ring(Communicator& comm, int64_t tokens, const Parameters& parameters)
      : comm_(comm),
        tokens_(tokens),
        parameters_(parameters),
        by_position_(parameters.visibility.causal || parameters.visibility.window_left >= 0 ||
                     parameters.visibility.window_right >= 0 || !parameters.alibi_slopes.empty()),
        counted_(!parameters.visibility.query_position && !parameters.visibility.key_position) {
    parameters_.dropout.queries = tokens;
    parameters_.dropout.keys = tokens;
    parameters_.dropout.first_query = part(comm.rank()).start;
  }

  int size() const { return comm_.size(); }
  Part part(int rank) const { return part_of(tokens_, size(), rank); }
  Part own_part() const { return part(comm_.rank()); }
  int owner(int shift) const { return (comm_.rank() - shift + size()) % size(); }
  int reader(int shift) const { return (comm_.rank() + shift) % size(); }

  // Queries of `rank` can see nothing of the block of `other`; known to both ends without asking.
  bool blind(int rank, int other) const {
    const Part queries = part(rank), keys = part(other);
    if (queries.length == 0 || keys.length == 0) return true;
    if (!counted_) return false;
    const Visibility& seen = parameters_.visibility;
    const int64_t ahead = keys.start - (queries.start + queries.length - 1);
    const int64_t behind = queries.start - (keys.start + keys.length - 1);
    return (seen.causal && ahead > 0) || (seen.window_right >= 0 && ahead > seen.window_right) ||
           (seen.window_left >= 0 && behind > seen.window_left);
  }
  bool reads(int shift) const { return !blind(comm_.rank(), owner(shift)); }
  bool is_read(int shift) const { return !blind(reader(shift), comm_.rank()); }

  Block own(Context& cx, const Tensor& k, const Tensor& v) const {
    const Visibility& seen = parameters_.visibility;
    Block block{k,
                v,
                contiguous_or_none(cx, seen.key_position),
                contiguous_or_none(cx, seen.key_valid),
                contiguous_or_none(cx, seen.key_document),
                own_part().start};
    if (by_position_ && !block.position) block.position = positions(cx, k.dim(0), own_part());
    return block;
  }

  // Sends this rank's block to its reader at this shift; what comes is empty where it is not read.
  Block visit(Context& cx, const Block& own_block, int shift) {
    Block block;
    block.start = part(owner(shift)).start;
    block.k = travel(cx, own_block.k, 2, shift);
    block.v = travel(cx, own_block.v, 2, shift);
    block.position = travel(cx, own_block.position, 1, shift);
    block.valid = travel(cx, own_block.valid, 1, shift);
    block.document = travel(cx, own_block.document, 1, shift);
    return block;
  }

  // A gradient of the visiting block goes to its owner; what the reader of ours computed is added.
  void bring_home(Context& cx, Tensor visiting, const Tensor& own_gradient, int shift) {
    const Tensor sent = reads(shift) ? as_contiguous(cx.pool, visiting) : empty(cx, own_gradient);
    visiting = Tensor();
    Tensor received = is_read(shift)
                          ? Tensor::empty(cx.allocator, own_gradient.shape(), own_gradient.dtype())
                          : empty(cx, own_gradient);
    comm_.send_receive(sent, owner(shift), received, reader(shift));
    if (is_read(shift)) add_into(cx.pool, received, own_gradient);
  }

  Parameters parameters_for(Context& cx, const Block& block, const Tensor& q) const {
    Parameters parameters = parameters_;
    Visibility& seen = parameters.visibility;
    if (by_position_ && !seen.query_position) {
      seen.query_position = positions(cx, q.dim(0), own_part());
    }
    seen.key_position = block.position;
    seen.key_valid = block.valid;
    seen.key_document = block.document;
    parameters.dropout.first_key = block.start;
    return parameters;
  }

 private:
  static Tensor empty(Context& cx, const Tensor& like) {
    return Tensor::empty(cx.allocator, {0}, like.dtype());
  }
  // token_dim: where the tokens stand in `mine`.
  Tensor travel(Context& cx, const Tensor& mine, int token_dim, int shift) {
    if (!mine) return Tensor();
    Shape shape = mine.shape();
    shape[token_dim] = part(owner(shift)).length;
    Tensor theirs =
        reads(shift) ? Tensor::empty(cx.allocator, shape, mine.dtype()) : empty(cx, mine);
    comm_.send_receive(is_read(shift) ? mine : empty(cx, mine), reader(shift), theirs,
                       owner(shift));
    return theirs;
  }

  Communicator& comm_;
  const int64_t tokens_;
  Parameters parameters_;
  const bool by_position_;  // positions matter
  const bool counted_;      // they count from the start of the whole
};

// Inputs: q, k, v. Outputs: the attention, and its log-sum-exp.
class RingAttention final : public ops::ForwardOp {
 public:
  RingAttention(Communicator& comm, int64_t tokens, const Parameters& parameters)
      : ring_(comm, tokens, parameters) {}
  std::string_view name() const override { return "ring_attention"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
    WEFT_CHECK(q.dim(2) == ring_.own_part().length && k.dim(2) == q.dim(2) && v.dim(2) == q.dim(2),
               "{} queries, {} keys, part of {}", q.dim(2), k.dim(2), ring_.own_part().length);
    const Block own = ring_.own(cx, k, v);
    Partial whole;
    if (q.dim(2) == 0) {
      const DType dtype = attention::sum_dtype(q.dtype());
      whole.output = Tensor::empty(cx.allocator, {q.dim(0), q.dim(1), 0, v.dim(3)}, dtype);
      whole.log_sum_exp = Tensor::empty(cx.allocator, {q.dim(0), q.dim(1), 0}, dtype);
    } else {
      whole = attention::block_forward(cx, q, k, v, ring_.parameters_for(cx, own, q));
    }
    for (int shift = 1; shift < ring_.size(); ++shift) {
      const Block block = ring_.visit(cx, own, shift);
      if (!ring_.reads(shift)) continue;
      const Partial part =
          attention::block_forward(cx, q, block.k, block.v, ring_.parameters_for(cx, block, q));
      attention::merge(cx, whole, part);
    }
    return {cpu::converted(cx.pool, whole.output, q.dtype()), whole.log_sum_exp};
  }

  std::vector<Tensor> saves(std::span<const Tensor> inputs,
                            std::span<const Tensor> outputs) override {
    return {inputs[0], inputs[1], inputs[2], outputs[0].detach(), outputs[1].detach()};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &q = saved[0], &log_sum_exp = saved[4];
    const Tensor d_output = as_contiguous(cx.pool, output_grads[0]);
    const Tensor delta = attention::row_dots(cx, saved[3], d_output);
    const Block own = ring_.own(cx, saved[1], saved[2]);
    const auto backward = [&](const Block& block) {
      return attention::block_backward(cx, q, block.k, block.v, d_output, log_sum_exp, delta,
                                       ring_.parameters_for(cx, block, q));
    };
    BlockGrads total;
    if (q.dim(2) == 0) {
      const DType dtype = attention::sum_dtype(q.dtype());
      total = {Tensor::empty(cx.allocator, q.shape(), dtype),
               Tensor::empty(cx.allocator, own.k.shape(), dtype),
               Tensor::empty(cx.allocator, own.v.shape(), dtype)};
    } else {
      total = backward(own);
    }
    for (int shift = 1; shift < ring_.size(); ++shift) {
      BlockGrads part;
      {
        const Block block = ring_.visit(cx, own, shift);
        if (ring_.reads(shift)) part = backward(block);
      }
      if (part.q) add_into(cx.pool, part.q, total.q);
      part.q = Tensor();
      ring_.bring_home(cx, std::move(part.k), total.k, shift);
      ring_.bring_home(cx, std::move(part.v), total.v, shift);
    }
    return {total.q, total.k, total.v};
  }

 private:
  Ring ring_;
};

}  // namespace

Tensor ring_attention(Context& cx, Communicator& sequence, const Tensor& q, const Tensor& k,
                      const Tensor& v, int64_t tokens, const attention::Parameters& parameters) {
  WEFT_CHECK(!parameters.bias && !parameters.sinks && !parameters.visibility.mask,
             "bias, sinks and mask do not go round");
  if (sequence.size() == 1) {
    Parameters whole = parameters;
    whole.dropout.queries = whole.dropout.keys = tokens;
    whole.dropout.first_query = whole.dropout.first_key = 0;
    return attention::scaled_dot_product(cx, q, k, v, whole);
  }
  // What travels is contiguous; made so here, inside autograd, so that no second copy is kept.
  return apply(cx, std::make_unique<RingAttention>(sequence, tokens, parameters),
               {q, ops::contiguous(cx, k), ops::contiguous(cx, v)})[0];
}

}  // namespace weft::parallel
