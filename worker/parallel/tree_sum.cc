#include "worker/parallel/tree_sum.h"

#include <vector>

#include "kernels/cpu/gemm_cells.h"
#include "kernels/tensor/strided.h"
#include "worker/parallel/mesh.h"

namespace weft::parallel {
namespace {

// Of the nodes [first, last) -> the first that is present, or -1.
int64_t merge_range(int64_t first, int64_t last, const std::function<bool(int64_t)>& present,
                    const std::function<void(int64_t, int64_t)>& merge) {
  if (last - first < 2) return first < last && present(first) ? first : -1;
  const int64_t middle = cpu::node_middle(first, last);
  const int64_t into = merge_range(first, middle, present, merge);
  const int64_t from = merge_range(middle, last, present, merge);
  if (into >= 0 && from >= 0) merge(into, from);
  return into >= 0 ? into : from;
}

Shape with_rows(Shape shape, int64_t rows) {
  shape[0] = rows;
  return shape;
}

// Every rank's part `comm.rank()` of x, [counts[rank]], summed, of the ranks that are present.
Tensor summed_part(Context& cx, Communicator& comm, const Tensor& x,
                   const std::vector<int64_t>& counts, std::span<const char> present) {
  const auto size = static_cast<size_t>(comm.size());
  const int64_t own = counts[static_cast<size_t>(comm.rank())];
  Tensor terms = Tensor::empty(cx.allocator, {comm.size(), own}, x.dtype());
  comm.all_to_all(x, counts, terms, std::vector<int64_t>(size, own));
  const auto term = [&](int64_t index) {
    return terms.view({own}, std::array<int64_t, 1>{1}, index * own);
  };
  return term(merge_tree(
      present, [&](int64_t into, int64_t from) { add_into(cx.pool, term(from), term(into)); }));
}

}  // namespace

void merge_tree(int64_t count, const std::function<void(int64_t into, int64_t from)>& merge) {
  merge_range(
      0, count, [](int64_t) { return true; }, merge);
}

int64_t merge_tree(std::span<const char> present,
                   const std::function<void(int64_t into, int64_t from)>& merge) {
  return merge_range(
      0, std::ssize(present), [&](int64_t node) { return present[static_cast<size_t>(node)] != 0; },
      merge);
}

Tensor tree_scatter(Context& cx, Communicator& comm, const Tensor& x,
                    std::span<const char> present) {
  if (comm.size() == 1) return x;
  const int64_t rows = x.dim(0) / comm.size();
  WEFT_CHECK(rows * comm.size() == x.dim(0), "{} rows over {} ranks", x.dim(0), comm.size());
  const std::vector<int64_t> counts(static_cast<size_t>(comm.size()), x.elements() / comm.size());
  const std::vector<char> all(counts.size(), 1);
  const Tensor part = summed_part(cx, comm, x, counts, present.empty() ? all : present);
  const Shape shape = with_rows(x.shape(), rows);
  const Strides strides = row_major_strides(shape);
  return clone(cx.pool,
               part.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), 0));
}

Tensor tree_sum(Context& cx, Communicator& comm, const Tensor& x) {
  if (comm.size() == 1) return x;
  std::vector<int64_t> counts;
  for (int r = 0; r < comm.size(); ++r) {
    counts.push_back(part_of(x.elements(), comm.size(), r).length);
  }
  const Tensor part = summed_part(cx, comm, x, counts, std::vector<char>(counts.size(), 1));
  Tensor sum = x;
  comm.all_gather(part, sum, counts);
  return sum;
}

double tree_sum(Context& cx, Communicator& comm, double x) {
  const Tensor one = Tensor::full(cx.allocator, {1}, x, DType::kF64);
  std::vector<double> all = gathered(cx, comm, one).to_vector<double>();
  merge_tree(comm.size(), [&](int64_t into, int64_t from) {
    all[static_cast<size_t>(into)] += all[static_cast<size_t>(from)];
  });
  return all[0];
}

Tensor gathered(Context& cx, Communicator& comm, const Tensor& x) {
  const Tensor in = as_contiguous(cx.pool, x);
  if (comm.size() == 1) return in;
  Tensor all = Tensor::empty(cx.allocator, with_rows(x.shape(), x.dim(0) * comm.size()), x.dtype());
  comm.all_gather(in, all, std::vector<int64_t>(static_cast<size_t>(comm.size()), x.elements()));
  return all;
}

}  // namespace weft::parallel
