#include "kernels/attention/attention.h"
#include "kernels/attention/block.h"

namespace weft::attention {
namespace {

void check_tokens(const Tensor& x, const Shape& shape, DType dtype, std::string_view what) {
  WEFT_CHECK(!x || (x.spec() == TensorSpec{shape, dtype}), "{}: {} {} where {} {} is due", what,
             dtype_name(x.dtype()), x.shape().to_string(), shape.to_string(), dtype_name(dtype));
}

// A number for each score, [B or 1, N or 1, Tq, Tk].
void check_scores(const Tensor& x, const Tensor& q, const Tensor& k, DType dtype,
                  std::string_view what) {
  if (!x) return;
  const Shape& shape = x.shape();
  WEFT_CHECK(shape.dims() == 4 && (shape[0] == q.dim(0) || shape[0] == 1) &&
                 (shape[1] == q.dim(1) || shape[1] == 1) && shape[2] == q.dim(2) &&
                 shape[3] == k.dim(2) && x.dtype() == dtype,
             "a {} {} {} of {} rows, {} heads, {} queries, {} keys", what, dtype_name(x.dtype()),
             shape.to_string(), q.dim(0), q.dim(1), q.dim(2), k.dim(2));
}

void check_distances(const Tensor& table, const Tensor& q) {
  if (!table) return;
  const Shape& shape = table.shape();
  const bool grouped = shape.dims() == 3;
  WEFT_CHECK((shape.dims() == 2 || (grouped && shape[0] > 0 && q.dim(0) % shape[0] == 0)) &&
                 shape[-2] == q.dim(1) && shape[-1] % 2 == 1 && table.dtype() == q.dtype(),
             "a bias by distance {} {} of {} rows, {} heads", dtype_name(table.dtype()),
             shape.to_string(), q.dim(0), q.dim(1));
}

void check_visibility(const Visibility& seen, const Tensor& q, const Tensor& k) {
  const Shape queries{q.dim(0), q.dim(2)}, keys{k.dim(0), k.dim(2)};
  check_tokens(seen.query_position, queries, DType::kI64, "query_position");
  check_tokens(seen.key_position, keys, DType::kI64, "key_position");
  check_tokens(seen.key_valid, keys, DType::kU8, "key_valid");
  check_tokens(seen.query_document, queries, DType::kI64, "query_document");
  check_tokens(seen.key_document, keys, DType::kI64, "key_document");
  WEFT_CHECK(static_cast<bool>(seen.query_document) == static_cast<bool>(seen.key_document),
             "documents of queries and of keys come together");
  check_scores(seen.mask, q, k, DType::kU8, "mask");
}

void check_dropout(const WeightDropout& d, const Tensor& q, const Tensor& k) {
  const auto fits = [](const Tensor& index, int64_t first, int64_t tokens, int64_t whole) {
    if (!index) return first + tokens <= whole;
    return index.spec() == TensorSpec{Shape{tokens}, DType::kI64} && index.contiguous();
  };
  WEFT_CHECK(d.rate == 0 || (d.rate > 0 && d.rate < 1 && d.first_head + q.dim(1) <= d.heads &&
                             fits(d.query_index, d.first_query, q.dim(2), d.queries) &&
                             fits(d.key_index, d.first_key, k.dim(2), d.keys)),
             "dropout {} of a part of {} heads, {} queries, {} keys", d.rate, d.heads, d.queries,
             d.keys);
}

}  // namespace

void check_call(const Tensor& q, const Tensor& k, const Tensor& v, const Parameters& p) {
  WEFT_CHECK(q.shape().dims() == 4 && k.shape().dims() == 4 && v.shape().dims() == 4 &&
                 q.dim(0) == k.dim(0) && q.dim(0) == v.dim(0) && q.dim(3) == k.dim(3) &&
                 k.dim(1) == v.dim(1) && k.dim(2) == v.dim(2) &&
                 (k.dim(1) > 0 ? q.dim(1) % k.dim(1) == 0 : q.dim(1) == 0) &&
                 q.dtype() == k.dtype() && q.dtype() == v.dtype(),
             "attention of q {}, k {}, v {}", q.shape().to_string(), k.shape().to_string(),
             v.shape().to_string());
  check_scores(p.bias, q, k, q.dtype(), "bias");
  check_distances(p.distance_bias, q);
  check_visibility(p.visibility, q, k);
  check_dropout(p.dropout, q, k);
  WEFT_CHECK(p.alibi_slopes.empty() || std::ssize(p.alibi_slopes) == q.dim(1),
             "{} slopes of {} heads", p.alibi_slopes.size(), q.dim(1));
  WEFT_CHECK(!p.sinks || (p.sinks.spec() == TensorSpec{Shape{q.dim(1)}, q.dtype()}),
             "sinks {} of {} heads", p.sinks.shape().to_string(), q.dim(1));
}

}  // namespace weft::attention
