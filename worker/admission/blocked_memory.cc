#include "worker/admission/blocked_memory.h"

#include <algorithm>
#include <bit>

namespace weft {
namespace {

// Of logits (worker/parallel/blocked_loss.cc): so many of a rank are kept, else so many of a block
// of the vocabulary stand at once, of so many rows at least.
constexpr int64_t kKeptLogits = int64_t{1} << 24, kChunkLogits = int64_t{1} << 22;
constexpr int64_t kChunkRowsMin = 16, kRowsUnit = 64;

// Of a tree over so many nodes the levels that wait for their other half.
int64_t levels(int64_t nodes) { return std::bit_width(static_cast<uint64_t>(nodes - 1)); }

// At the loss: logits, kept or a chunk's, whose gradient bf16 rounds; the input, gathered; in fp32
// the input's gradient, whose terms add up block by block of the vocabulary and cross the axis, and
// of a block of the vocabulary the table's rows, block by block of tokens.
int64_t loss_workspace(const StepMemory& m) {
  const Sizes& s = m.s;
  const int64_t rows = s.tokens * s.hidden;
  const int64_t of_heads = s.element * rows * (s.tensor > 1 ? 2 : 1) + s.embedding();
  if (!m.language_model) return of_heads;
  const int64_t token_blocks = s.blocks / s.replicas, own = s.blocks / s.tensor;
  const int64_t ids = share(s.vocabulary, own);  // of a block
  const int64_t chunk = std::max(kChunkRowsMin, kChunkLogits / ids);
  const bool kept = s.tokens * s.vocabulary <= kKeptLogits;
  const int64_t logits = kept ? share(s.tokens, kRowsUnit) * kRowsUnit * s.vocabulary : chunk * ids;
  const int64_t rounded =
      s.element < kSingle ? s.element * std::min(chunk, s.tokens / token_blocks) * ids : 0;
  const int64_t gathered = s.tensor > 1 ? s.element * rows : 0;
  const int64_t terms = 3 * s.tokens * s.tensor;  // of each row: maximum, sum, label's logit
  const int64_t of_table = m.table > 0 ? s.hidden * ids * levels(token_blocks) : 0;
  const int64_t waiting = rows * levels(own) + of_table;
  const int64_t crossing = s.tensor > 1 ? rows + s.between * s.hidden : 0;
  return std::max(of_heads, gathered + rounded +
                                kSingle * (logits + terms + rows + std::max(waiting, crossing)));
}

// Of an attention whose heads are exchanged, beside the gradient of its result: gradients in fp32
// and what reads them, copies of keys and values where terms do; or those of queries on their way
// home, rounded, in parts as they are sent and received, and joined.
int64_t exchanged_backward(const Sizes& s) {
  const int64_t keys = 2 * kSingle * s.key_attended;
  const int64_t terms = 2 * (s.element + kSingle) * s.key_terms;
  const int64_t computing = kSingle * s.attended + std::max(keys, terms);
  const int64_t rounding = (kSingle + (s.element < kSingle ? s.element : 0)) * s.attended + keys;
  const int64_t home = s.element * 2 * (s.attended + s.features) + keys;
  return s.tokens * std::max({computing, rounding, home});
}

// What the last block's backward pass adds to what is kept: in its MLP, whose activation's
// gradient stands beside that of its result, its bias' terms in fp32, the input's term of the sum
// over the tensor axis, or the weight's gradient with a copy of one side; or in its attention,
// where terms of keys' and values' gradients read copies of these.
int64_t block_backward(const Sizes& s) {
  const int64_t own = s.between * s.hidden, rows = s.tokens * s.hidden;
  const int64_t inner = s.tokens * s.inner, of_heads = s.tokens * s.features;
  const bool half = s.element<kSingle, split = s.tensor> 1;
  const bool trained = s.rank == 0;  // what adapters stand beside; of theirs it is less
  const int64_t bias = half && trained ? kSingle * inner : 0;
  const int64_t term = kSingle * (split ? 2 * rows + own : rows);
  const int64_t weight =
      trained ? s.element * (inner + (split ? rows : 0)) + kSingle * (split ? own : rows) : 0;
  const int64_t in_mlp = (s.full() ? s.attention() + s.mlp() : 0) + s.element * (own + inner) +
                         std::max({bias, term, weight});
  // Of what the projections' gradients take, some is as wide as the heads, some as the stream.
  const int64_t wide = 4 * of_heads + 5 * std::min(rows, of_heads);
  const int64_t projecting = s.element * (own + rows + wide);
  const int64_t attending = s.in_row > 1
                                ? s.element * (own + of_heads) + exchanged_backward(s)
                                : projecting + 2 * (s.element + kSingle) * s.tokens * s.key_terms;
  const int64_t in_attention =
      (s.again() ? s.attention() : 0) - (s.full() ? 0 : s.mlp()) + std::max(projecting, attending);
  return std::max(in_mlp, in_attention);
}

}  // namespace

std::vector<MemoryEstimate> blocked_moments(const StepMemory& m) {
  const Sizes& s = m.s;
  const Parameters& parameters = m.parameters;
  const bool lm = m.language_model;
  // Of a sum over the ranks: every rank's terms of this one's part, as large as the whole.
  const int64_t summed = s.replicas > 1 ? 2 : 1;

  MemoryEstimate loss = m.all;
  loss.parameters += m.whole(lm && m.tied ? parameters.embedding_unit : parameters.last_unit);
  loss.gradients = m.earlier + m.table;
  loss.activations = m.kept;
  loss.workspace = loss_workspace(m);

  MemoryEstimate backward = m.all;  // of the last block
  backward.parameters += m.whole(2 * parameters.block_unit);
  backward.gradients = m.earlier + m.table + kSingle * 2 * parameters.largest_gradient;
  backward.activations = m.kept;
  backward.workspace = block_backward(s);

  // A block later, its gradients are sums, of which levels from 1 on keep a part.
  MemoryEstimate further = backward;
  const int64_t block = kSingle * parameters.block_gradients;
  further.gradients = m.earlier + m.table + block + share(block, m.sharing) +
                      kSingle * summed * parameters.largest_gradient;
  further.activations -= s.kept_block();

  // Of an encoder-decoder the encoder's last block, beside the decoder's gradients, that of its
  // input included.
  const Sizes& encoder = m.source ? *m.source : s;
  const int64_t target = m.source ? s.stream() : 0;
  MemoryEstimate turning = backward;
  turning.gradients = m.table + kSingle * 2 * parameters.largest_of_block +
                      std::max(m.earlier, share(kSingle * parameters.decoder_gradients, m.sharing));
  turning.activations = m.batch() + target + m.kept_source();
  turning.workspace = block_backward(encoder);

  MemoryEstimate first = backward;  // of the first block, beside the others' gradients
  const int64_t others =
      parameters.trained - parameters.embedding_gradients - parameters.block_gradients;
  first.gradients = m.table + kSingle * 2 * parameters.largest_gradient +
                    (m.zero > 0 ? m.gradients : std::max(m.earlier, kSingle * others));
  first.activations = m.batch() + target + encoder.convolutions() + encoder.kept_block();
  first.workspace = block_backward(encoder);

  MemoryEstimate end = m.all;  // the table's second gradient, and its first or what is kept of it
  end.parameters += m.whole(parameters.block_unit);
  end.gradients = m.gradients + kSingle * summed * parameters.table;
  if (m.zero > 0) end.gradients += kSingle * parameters.embedding_bucket;
  if (m.zero == 0) end.gradients += s.accumulates ? m.table : 0;
  if (m.zero == 1) end.gradients += m.earlier;
  end.activations = m.batch() + target + encoder.convolutions();
  end.workspace = 2 * encoder.element * encoder.tokens * encoder.hidden;
  if (encoder.hears) end.workspace = 6 * encoder.stream();
  if (!m.source) return {loss, backward, further, first, end};
  return {loss, backward, further, turning, first, end};
}

}  // namespace weft
