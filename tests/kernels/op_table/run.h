// Runs cases of the table: draws inputs, lays them out in memory, computes outputs and gradients.
//
// Thread safety: one thread a context. Ownership: the caller keeps the context's parts alive.
// Invariants: 1. what is drawn depends on the case and the input's number only. 2. a layout changes
// where elements lie, never their values; around them lie NaNs (integers: far out of range).
#pragma once

#include <memory>
#include <vector>

#include "kernels/autograd/tape.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {

// Memory, and with it the device, and threads for the cases.
struct Bench {
  explicit Bench(int threads = 2) : Bench(threads, make_caching_allocator()) {}
  Bench(int threads, std::unique_ptr<Allocator> memory)
      : allocator(std::move(memory)), pool(threads) {}
  const std::unique_ptr<Allocator> allocator;
  ThreadPool pool;
  Context context{*allocator, pool};
};

enum class Layout : uint8_t {
  kContiguous,
  kTransposed,  // the first dim innermost
  kSliced,      // a part of a larger tensor in every dim
  kStrided,     // every second element
  kFar,         // steps of more than 2^31 elements along one dim
  kExpanded,    // the first dim of more than one element repeats its first (stride 0)
};
inline constexpr Layout kLayouts[] = {Layout::kContiguous, Layout::kTransposed, Layout::kSliced,
                                      Layout::kStrided,    Layout::kFar,        Layout::kExpanded};
const char* name_of(Layout layout);

// The case's inputs, contiguous: floating ones in float64 (rounded to `rounded_to`), others int64.
std::vector<Tensor> draw(Context& cx, const Case& item, DType rounded_to = DType::kF64);
// Floating inputs in another dtype.
std::vector<Tensor> in_dtype(Context& cx, const std::vector<Tensor>& inputs, DType dtype);
// As the case's functions take it; sets requires_grad on nothing.
Tensor lay_out(Context& cx, const Tensor& values, Layout layout);
// What lay_out(kExpanded) looks like, as a contiguous tensor; values of kGiven stay.
std::vector<Tensor> expanded_values(Context& cx, const Case& item,
                                    const std::vector<Tensor>& inputs);

struct Outcome {
  std::vector<Tensor> outputs;
  std::vector<Tensor> gradients;  // by input; an empty handle: none
};

// Standard normal values that weigh an output's elements, the same in every dtype.
Tensor cotangent(Context& cx, const Tensor& output, size_t number);

// f's outputs and the gradients of sum(output * cotangent) over its floating outputs at the inputs
// that the case wants one for.
Outcome run(const Bench& bench, const Case& item, Function f, std::vector<Tensor> inputs);
// The sum itself.
double weighted(const Bench& bench, const Case& item, Function f, std::span<const Tensor> inputs);

// Row-major values of any dtype.
std::vector<double> values_of(Context& cx, const Tensor& x);
// The largest magnitude of the finite ones.
double largest_of(const std::vector<double>& values);
// The largest difference; infinity where only one side is finite or shapes differ.
double difference(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace weft::op_table
