// Ops over segments of the first dim, for graphs: element e of x [E, ...] belongs to segment
// segment[e] of `count` (an edge's target node); segments need not be sorted. A segment without
// elements gives zeros. Within a segment elements are taken in their order, so results do not
// depend on the threads. An id out of [0, count) is a Status (field "segment").
#pragma once

#include "kernels/autograd/op.h"

namespace weft::ops {

// segment int64 [E] -> [count, ...].
Tensor segment_sum(Context& cx, const Tensor& x, const Tensor& segment, int64_t count);
Tensor segment_mean(Context& cx, const Tensor& x, const Tensor& segment, int64_t count);
// The gradient goes to the first of the largest.
Tensor segment_max(Context& cx, const Tensor& x, const Tensor& segment, int64_t count);
// exp(x[e]) / sum of exp(x) over e's segment (Velickovic et al. 2018), the segment's maximum taken
// off first -> [E, ...]. A segment of nothing but -infinity gives zeros and takes zero gradients.
Tensor segment_softmax(Context& cx, const Tensor& x, const Tensor& segment, int64_t count);

// The segment of each element of a compressed sparse row layout: offsets int64 [count + 1], not
// decreasing, from 0 to E -> int64 [E]. No gradient.
Tensor segments_of_offsets(Context& cx, const Tensor& offsets);

}  // namespace weft::ops
