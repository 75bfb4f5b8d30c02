#include "kernels/attention/relative.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::attention {
namespace {

// Of a tile, and how many places they may span, whose distances are computed for each.
constexpr int64_t kQueries = 64, kPlaces = 2 * kQueries;

struct RelativeSizes {
  int64_t rows, heads, queries, keys, features;
  bool placed;
  int64_t distances() const { return std::max<int64_t>(0, (placed ? keys : queries) + keys - 1); }
};

// What the kernels read, contiguous: q, r, v, then s, g and the segments' numbers where there are
// any, and last the queries' places, where they have some.
class RelativeInputs {
 public:
  RelativeInputs(Context& cx, std::span<const Tensor> inputs, const RelativeSizes& sizes)
      : sizes_(sizes) {
    for (const Tensor& input : inputs) all_.push_back(as_contiguous(cx.pool, input));
    if (!sizes.placed) return;
    const int64_t* const places = all_.back().data<int64_t>();
    for (int64_t i = 0; i < sizes.rows * sizes.queries; ++i) {
      WEFT_CHECK(places[i] >= 0 && places[i] < sizes.keys, "place {} of {} tokens", places[i],
                 sizes.keys);
    }
  }
  bool segmented() const { return all_.size() > 4; }
  // Of a query and its first key, among the distances.
  int64_t first_distance(int64_t row, int64_t query) const {
    if (!sizes_.placed) return sizes_.queries - 1 - query;
    return sizes_.keys - 1 - all_.back().data<int64_t>()[row * sizes_.queries + query];
  }
  // Behind the tile of queries that begins with `first`.
  int64_t tile_end(int64_t row, int64_t first) const {
    int64_t least = first_distance(row, first), most = least, end = first + 1;
    for (; end < std::min(first + kQueries, sizes_.queries); ++end) {
      least = std::min(least, first_distance(row, end));
      most = std::max(most, first_distance(row, end));
      if (most - least >= kPlaces) break;
    }
    return end;
  }
  template <typename T>
  const T* query(int64_t row, int64_t head) const {
    return all_[0].data<T>() + (row * sizes_.heads + head) * sizes_.queries * sizes_.features;
  }
  template <typename T>
  const T* distances(int64_t row, int64_t head) const {
    const int64_t own = row / (sizes_.rows / all_[1].dim(0));  // the row's group
    return all_[1].data<T>() + (own * sizes_.heads + head) * sizes_.distances() * sizes_.features;
  }
  template <typename T>
  const T* position(int64_t head) const {
    return all_[2].data<T>() + head * sizes_.features;
  }
  template <typename T>
  const T* segment(int64_t head) const {
    return all_[3].data<T>() + head * sizes_.features;
  }
  // g of one (0) and of another segment (1).
  template <typename T>
  const T* segments(int64_t other, int64_t head) const {
    return all_[4].data<T>() + (other * sizes_.heads + head) * sizes_.features;
  }
  int64_t query_segment(int64_t row, int64_t query) const {
    return all_[5].data<int64_t>()[row * sizes_.queries + query];
  }
  const int64_t* key_segments(int64_t row) const {
    return all_[6].data<int64_t>() + row * sizes_.keys;
  }

 private:
  const RelativeSizes sizes_;
  std::vector<Tensor> all_;
};

// Of one row and head, tile by tile of queries.
template <typename T>
class RelativeTile {
 public:
  RelativeTile(ThreadPool& pool, const RelativeSizes& sizes, const RelativeInputs& inputs,
               double scale)
      : pool_(pool), e_(sizes), in_(inputs), scale_(static_cast<T>(scale)) {}

  // The tile [first, end) of queries; its distances are [from_, from_ + width_).
  void begin(int64_t row, int64_t head, int64_t first, int64_t end) {
    row_ = row;
    head_ = head;
    first_ = first;
    count_ = end - first;
    from_ = in_.first_distance(row, first);
    int64_t last = from_;
    for (int64_t query = first + 1; query < end; ++query) {
      from_ = std::min(from_, in_.first_distance(row, query));
      last = std::max(last, in_.first_distance(row, query));
    }
    width_ = e_.keys + last - from_;
    const int64_t count = count_;
    shifted_.resize(static_cast<size_t>(count * width_));
    moved_.resize(static_cast<size_t>(count * e_.features));
    const T *q = in_.template query<T>(row, head) + first * e_.features,
            *v = in_.template position<T>(head);
    for (int64_t i = 0; i < count; ++i) {
      T* to = moved_.data() + i * e_.features;
      for (int64_t d = 0; d < e_.features; ++d) to[d] = q[i * e_.features + d] + v[d];
    }
  }

  // scores [Tq, Tk] of this row and head.
  void scores(T* all) {
    const T* r = in_.template distances<T>(row_, head_) + from_ * e_.features;
    cpu::gemm<T, T>(pool_, count_, width_, e_.features, {moved_.data(), e_.features, false},
                    {r, e_.features, true}, shifted_.data(), width_, false, scale_);
    for (int64_t i = 0; i < count_; ++i) {
      const T* from = in_place(i);
      T* to = all + (first_ + i) * e_.keys;
      std::copy_n(from, e_.keys, to);
      if (!in_.segmented()) continue;
      const std::array<T, 2> terms = segment_terms(first_ + i);
      const int64_t own = in_.query_segment(row_, first_ + i);
      const int64_t* keys = in_.key_segments(row_);
      for (int64_t j = 0; j < e_.keys; ++j) to[j] += terms[keys[j] == own ? 0 : 1];
    }
  }

  struct Gradients {
    T *query, *distances, *position;  // [Tq, D], [R, D], [D]: of this row and head
    T *segment, *segments;            // [D], [2, D]
  };
  // Adds what the tile's scores' gradients [Tq, Tk] give; those of its queries are set.
  void gradients(const T* all, const Gradients& to) {
    const int64_t width = e_.features;
    std::fill(shifted_.begin(), shifted_.end(), T{0});
    for (int64_t i = 0; i < count_; ++i) {
      const T* from = all + (first_ + i) * e_.keys;
      T* place = in_place(i);
      for (int64_t j = 0; j < e_.keys; ++j) place[j] = scale_ * from[j];
    }
    T* query = to.query + first_ * width;
    const T* r = in_.template distances<T>(row_, head_) + from_ * width;
    cpu::gemm<T, T>(pool_, count_, width, width_, {shifted_.data(), width_, false},
                    {r, width, false}, query, width);
    cpu::gemm<T, T>(pool_, width_, width, count_, {shifted_.data(), width_, true},
                    {moved_.data(), width, false}, to.distances + from_ * width, width, true);
    for (int64_t i = 0; i < count_; ++i) {
      T* of_query = query + i * width;
      for (int64_t d = 0; d < width; ++d) to.position[d] += of_query[d];
      if (in_.segmented()) segment_gradients(i, of_query, to);
    }
  }

 private:
  // Of the tile's query: that of its first key.
  T* in_place(int64_t i) {
    return shifted_.data() + i * width_ + in_.first_distance(row_, first_ + i) - from_;
  }

  std::array<T, 2> segment_terms(int64_t query) const {
    const T* q = in_.template query<T>(row_, head_) + query * e_.features;
    const T* s = in_.template segment<T>(head_);
    std::array<T, 2> terms{};
    for (const int64_t other : {0, 1}) {
      const T* g = in_.template segments<T>(other, head_);
      T sum{0};
      for (int64_t d = 0; d < e_.features; ++d) sum += (q[d] + s[d]) * g[d];
      terms[static_cast<size_t>(other)] = scale_ * sum;
    }
    return terms;
  }

  void segment_gradients(int64_t i, T* query, const Gradients& to) {
    const int64_t own = in_.query_segment(row_, first_ + i);
    const int64_t* keys = in_.key_segments(row_);
    const T* place = in_place(i);
    std::array<T, 2> sums{};
    for (int64_t j = 0; j < e_.keys; ++j) sums[keys[j] == own ? 0 : 1] += place[j];
    const T *q = in_.template query<T>(row_, head_) + (first_ + i) * e_.features,
            *s = in_.template segment<T>(head_);
    for (const size_t other : {0, 1}) {
      const T* g = in_.template segments<T>(static_cast<int64_t>(other), head_);
      T* d_g = to.segments + static_cast<int64_t>(other) * e_.features;
      for (int64_t d = 0; d < e_.features; ++d) {
        const T each = sums[other] * g[d];
        query[d] += each;
        to.segment[d] += each;
        d_g[d] += sums[other] * (q[d] + s[d]);
      }
    }
  }

  ThreadPool& pool_;
  const RelativeSizes e_;
  const RelativeInputs& in_;
  const T scale_;
  int64_t row_ = 0, head_ = 0, first_ = 0, count_ = 0, from_ = 0, width_ = 0;
  std::vector<T> shifted_, moved_;  // [count, width], [count, D]: by distance; q + v
};

template <typename T, typename Visit>
void for_each_tile(Context& cx, const RelativeSizes& e, const RelativeInputs& in, double scale,
                   const Visit& visit) {
  cx.pool.parallel_for(e.rows * e.heads, 1, [&](int64_t begin, int64_t end) {
    RelativeTile<T> tile(cx.pool, e, in, scale);
    for (int64_t at = begin; at < end; ++at) {
      const int64_t row = at / e.heads;
      for (int64_t first = 0, end = 0; first < e.queries; first = end) {
        end = in.tile_end(row, first);
        tile.begin(row, at % e.heads, first, end);
        visit(tile, at);
      }
    }
  });
}

// From the inputs of RelativeScores, but u, which is not theirs.
RelativeTerms terms_of(std::span<const Tensor> inputs, bool placed) {
  RelativeTerms terms;
  terms.distances = inputs[1];
  terms.position = inputs[2];
  if (inputs.size() > 4) {
    terms.segment = inputs[3];
    terms.segments = inputs[4];
    terms.query_segment = inputs[5];
    terms.key_segment = inputs[6];
  }
  if (placed) terms.places = inputs.back();
  return terms;
}

// Outputs, of each row: d_q, d_r, d_v, d_s, d_g; where there are no segments the last two are of no
// use. Inputs: the forward pass's and d_scores.
class RelativeGradients final : public Kernel {
 public:
  RelativeGradients(const RelativeSizes& sizes, double scale) : e_(sizes), scale_(scale) {}
  std::string_view name() const override { return "relative_gradients"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    for (const Tensor& output : outputs) output.fill(0);
    if (inputs.back().elements() == 0) return;
    const RelativeInputs in(cx, inputs.first(inputs.size() - 1), e_);
    const Tensor d_scores = as_contiguous(cx.pool, inputs.back());
    dispatch_floating(d_scores.dtype(), [&]<typename T>() {
      const auto part = [&](size_t output, int64_t at, int64_t vectors) {
        return outputs[output].data<T>() + at * vectors * e_.features;
      };
      for_each_tile<T>(cx, e_, in, scale_, [&](RelativeTile<T>& tile, int64_t at) {
        tile.gradients(d_scores.data<T>() + at * e_.queries * e_.keys,
                       {part(0, at, e_.queries), part(1, at, e_.distances()), part(2, at, 1),
                        part(3, at, 1), part(4, at, 2)});
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const std::span forwards = inputs.first(inputs.size() - 1);
    cuda::backend(cx).relative_scores_backward(
        inputs[0], terms_of(forwards, e_.placed), scale_, cx.repeats(), inputs.back(),
        {outputs[0], outputs[1], outputs[2], outputs[3], outputs[4]});
  }

 private:
  const RelativeSizes e_;
  const double scale_;
};

// [B, N, ...] -> [N, ...], block by block where there are such.
Tensor over_rows(Context& cx, const Tensor& by_row, int blocks) {
  Context in_blocks = cx;
  if (blocks > 0) in_blocks.block_count = blocks;
  return ops::sum(in_blocks, by_row, 0);
}

// Each group's sum of its rows, [B, N, ...] -> [groups, N, ...].
Tensor over_groups(Context& cx, const Tensor& by_row, int64_t groups) {
  if (groups == by_row.dim(0)) return by_row;
  Context in_order = cx;
  if (cx.block_count > 0) in_order.block_count = 1;
  Shape shape = by_row.shape();
  Shape grouped{groups, shape[0] / groups};
  for (int dim = 1; dim < shape.dims(); ++dim) grouped.push_back(shape[dim]);
  return ops::sum(in_order, ops::reshape(cx, by_row, grouped), 1);
}

// q [B, N, Tq, D] + u [N, D], whose gradient is a sum over the blocks of rows.
class MovedQueries final : public ops::ForwardOp {
 public:
  explicit MovedQueries(int blocks) : blocks_(blocks) {}
  std::string_view name() const override { return "moved_queries"; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor& u = inputs[1];
    return {ops::add(cx, inputs[0], ops::reshape(cx, u, {u.dim(0), 1, u.dim(1)}))};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    Context in_order = cx;
    in_order.block_count = 1;  // of the queries of a row
    return {output_grads[0], over_rows(cx, ops::sum(in_order, output_grads[0], 2), blocks_)};
  }

 private:
  const int blocks_;
};

// The second and third term: q, r, v, and s, g and numbers of segments, and places
// -> [B, N, Tq, Tk].
class RelativeScores final : public Op {
 public:
  RelativeScores(double scale, int64_t keys, bool placed, int blocks)
      : scale_(scale), keys_(keys), placed_(placed), blocks_(blocks) {}
  std::string_view name() const override { return "relative_scores"; }
  bool native_on_gpu(DType) const override { return true; }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor &q = inputs[0], &r = inputs[1];
    const int64_t rows = q.dim(0), heads = q.dim(1), queries = q.dim(2), width = q.dim(3);
    const int64_t groups = r.dim(0) > 0 && rows % r.dim(0) == 0 ? r.dim(0) : rows;
    const Shape vector{heads, width};
    const int64_t distances = sizes_of(inputs).distances();
    WEFT_CHECK((r.shape() == Shape{groups, heads, distances, width}) && inputs[2].shape() == vector,
               "relative_scores of {}, {} and {}", q.shape().to_string(), r.shape().to_string(),
               inputs[2].shape().to_string());
    WEFT_CHECK(!placed_ || (inputs.back().spec() == TensorSpec{Shape{rows, queries}, DType::kI64}),
               "relative_scores of places {}", inputs.back().shape().to_string());
    WEFT_CHECK(inputs.size() <= 4 ||
                   (inputs[3].shape() == vector && inputs[4].shape() == Shape{2, heads, width} &&
                    inputs[5].spec() == TensorSpec{Shape{rows, queries}, DType::kI64} &&
                    inputs[6].spec() == TensorSpec{Shape{rows, keys_}, DType::kI64}),
               "relative_scores of segments {} and {}", inputs[4].shape().to_string(),
               inputs[6].shape().to_string());
    return {{{rows, heads, queries, keys_}, q.dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    if (outputs[0].elements() == 0) return;
    const RelativeSizes e = sizes_of(inputs);
    const RelativeInputs in(cx, inputs, e);
    dispatch_floating(outputs[0].dtype(), [&]<typename T>() {
      for_each_tile<T>(cx, e, in, scale_, [&](RelativeTile<T>& tile, int64_t at) {
        tile.scores(outputs[0].data<T>() + at * e.queries * e.keys);
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).relative_scores(inputs[0], terms_of(inputs, placed_), scale_, cx.repeats(),
                                      outputs[0]);
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs.begin(), inputs.end()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &q = saved[0], &r = saved[1];
    const RelativeSizes e = sizes_of(saved);
    const auto of_rows = [&](int64_t vectors, DType dtype) {
      return Tensor::empty(cx.allocator, {e.rows, e.heads, vectors, e.features}, dtype);
    };
    const DType sums = sum_dtype(q.dtype());
    std::array grads{of_rows(e.queries, q.dtype()), of_rows(r.dim(2), sums), of_rows(1, sums),
                     of_rows(1, sums), of_rows(2, sums)};
    std::vector<Tensor> inputs(saved.begin(), saved.end());
    inputs.push_back(output_grads[0]);
    RelativeGradients kernel(e, scale_);
    run_kernel(cx, kernel, inputs, grads);
    const auto vector = [&](const Tensor& by_row) {
      return ops::reshape(cx, over_rows(cx, by_row, blocks_), {e.heads, e.features});
    };
    std::vector<Tensor> all{grads[0], over_groups(cx, grads[1], r.dim(0)), vector(grads[2])};
    if (saved.size() > 4) {
      all.push_back(vector(grads[3]));
      all.push_back(ops::permute(cx, over_rows(cx, grads[4], blocks_), std::array{1, 0, 2}));
    }
    all.resize(saved.size());  // numbers have no gradient
    return all;
  }

 private:
  RelativeSizes sizes_of(std::span<const Tensor> inputs) const {
    const Tensor& q = inputs[0];
    return {q.dim(0), q.dim(1), q.dim(2), keys_, q.dim(3), placed_};
  }

  const double scale_;
  const int64_t keys_;
  const bool placed_;
  const int blocks_;
};

}  // namespace

Tensor relative_attention(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                          const RelativeTerms& terms, const Parameters& parameters) {
  WEFT_CHECK(!parameters.bias, "relative attention makes its bias itself");
  std::vector<Tensor> inputs{q, terms.distances, terms.position};
  if (terms.segments) {
    inputs.insert(inputs.end(),
                  {terms.segment, terms.segments, terms.query_segment, terms.key_segment});
  }
  const bool placed{terms.places};
  if (placed) inputs.push_back(terms.places);
  Parameters with = parameters;
  with.bias = ops::run<RelativeScores>(cx, std::move(inputs), parameters.scale, k.dim(2), placed,
                                       terms.blocks);
  const Shape by_head{q.dim(1), 1, q.dim(3)};
  const Tensor moved = terms.blocks > 0
                           ? ops::run<MovedQueries>(cx, {q, terms.content}, terms.blocks)
                           : ops::add(cx, q, ops::reshape(cx, terms.content, by_head));
  return scaled_dot_product(cx, moved, k, v, with);
}

}  // namespace weft::attention
