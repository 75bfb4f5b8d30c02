// Attention by a score for each pair of query and key: softmax over the keys, then the weighted sum
// of the values. The scores here are those of sequence-to-sequence models, whose queries are the
// decoder's states and whose keys and values are the encoder's; self-attention hands one tensor in
// for all three. Scaled dot products, which need no scores in memory, are in attention.h.
//
// Legend: B batch rows, Tq queries, Tk keys, D features of a query, Dk of a key, Dv of a value, A
// features in which queries and keys are compared. Matrices are [out, in], as torch's Linear.
#pragma once

#include "kernels/autograd/op.h"

namespace weft::attention {

// Scores [.., Tq, Tk] with -infinity where a key is not visible: uint8, broadcast to the scores; an
// empty handle: all are.
Tensor hide(Context& cx, const Tensor& scores, const Tensor& visible);
// softmax over the visible keys. A query that sees none gives zeros and takes zero gradients.
Tensor weights_of(Context& cx, const Tensor& scores, const Tensor& visible = Tensor());

struct Attended {
  Tensor context;  // [B, Tq, Dv]
  Tensor weights;  // [B, Tq, Tk]
};
// values [B, Tk, Dv].
Attended attend(Context& cx, const Tensor& scores, const Tensor& values,
                const Tensor& visible = Tensor());

// ---- scores: q [B, Tq, D], k [B, Tk, Dk] -> [B, Tq, Tk]

// v . tanh(W q + U k + b) (Bahdanau et al. 2015).
struct Additive {
  Tensor query;  // W [A, D]
  Tensor key;    // U [A, Dk]
  Tensor v;      // [A]
  Tensor bias;   // b [A], or an empty handle
  Tensor gain;   // g [1]: v is used as g v / |v| (Salimans, Kingma 2016); or an empty handle
};
Tensor additive_scores(Context& cx, const Tensor& q, const Tensor& k, const Additive& parameters);
// v . tanh(q + k) of projected queries and keys [B, T, A], without the [B, Tq, Tk, A] of the sums
// in memory.
Tensor compared(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v);

// Luong et al. 2015, section 3.1.
Tensor dot_scores(Context& cx, const Tensor& q, const Tensor& k);  // q . k
// q . W k, W [D, Dk]
Tensor general_scores(Context& cx, const Tensor& q, const Tensor& k, const Tensor& weight);
// v . tanh(W [q; k]), W [A, D + Dk], v [A]
Tensor concat_scores(Context& cx, const Tensor& q, const Tensor& k, const Tensor& weight,
                     const Tensor& v);
// W q of the query alone, W [S, D]; the first `keys` of S places.
Tensor location_scores(Context& cx, const Tensor& q, const Tensor& weight, int64_t keys);
// The attentional state tanh(W [context; q]), W [H, Dv + D] -> [B, Tq, H]; input feeding appends it
// to the decoder's next input.
Tensor attentional_state(Context& cx, const Tensor& context, const Tensor& q, const Tensor& weight);

}  // namespace weft::attention
