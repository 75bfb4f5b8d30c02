// Rotary positions and the gates of recurrent cells.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

// Elements of x, or null where there is no x.
template <typename T>
const T* optional(const Tensor& x) {
  return x ? x.data<T>() : nullptr;
}

int64_t rows_of(const Tensor& state) { return ops::row_count(state.shape()); }

}  // namespace

void Gpu::rotary_angles(const Tensor& positions, const Tensor& frequencies, const Tensor& cos,
                        const Tensor& sin) {
  activate_device();
  const Tensor from = contiguous(positions), by = contiguous(frequencies);
  const auto go = [&]<typename T>() {
    cuda::rotary_angles(from.data<int64_t>(), by.data<double>(), from.elements(), by.elements(),
                        cos.data<T>(), sin.data<T>(), stream_);
  };
  if (cos.dtype() == DType::kF64) return go.operator()<double>();
  for_floating(cos, "rotary_angles", go);
}

void Gpu::rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, ops::RotaryForm form,
                 bool backwards, const Tensor& out) {
  activate_device();
  const Tensor from = contiguous(x), c = contiguous(cos), s = contiguous(sin);
  const bool batched = cos.shape().dims() == 3;
  const int64_t rows = rows_of(x);
  const RotaryShape shape{.rows = rows,
                          .tokens = x.shape()[-2],
                          .rows_of_sample = batched && x.dim(0) > 0 ? rows / x.dim(0) : rows,
                          .width = x.shape()[-1],
                          .pairs = cos.shape()[-1],
                          .interleaved = form == ops::RotaryForm::kInterleaved,
                          .backwards = backwards};
  for_floating(out, "rotary", [&]<typename T>() {
    cuda::rotary(shape, from.data<T>(), c.data<T>(), s.data<T>(), out.data<T>(), stream_);
  });
}

void Gpu::lstm_gates(const Tensor& gates, const Tensor& c, const Tensor& h, const Tensor& next,
                     const Tensor& bent) {
  activate_device();
  const Tensor from = contiguous(gates), state = contiguous(c);
  for_floating(h, "lstm", [&]<typename T>() {
    cuda::lstm_gates(from.data<T>(), state.data<T>(), h.data<T>(), next.data<T>(), bent.data<T>(),
                     rows_of(c), c.dim(-1), stream_);
  });
}

void Gpu::lstm_gates_backward(const Tensor& bent, const Tensor& c, const Tensor& next,
                              const Tensor& dh, const Tensor& dnext, const Tensor& dgates,
                              const Tensor& dc) {
  activate_device();
  const Tensor gates = contiguous(bent), state = contiguous(c), after = contiguous(next);
  const Tensor of_h = dh ? contiguous(dh) : dh, of_next = dnext ? contiguous(dnext) : dnext;
  for_floating(dc, "lstm", [&]<typename T>() {
    cuda::lstm_gates_backward(gates.data<T>(), state.data<T>(), after.data<T>(), optional<T>(of_h),
                              optional<T>(of_next), dgates.data<T>(), dc.data<T>(), rows_of(c),
                              c.dim(-1), stream_);
  });
}

void Gpu::gru_gates(const Tensor& a, const Tensor& b, const Tensor& h, const Tensor& next,
                    const Tensor& bent) {
  activate_device();
  const Tensor from_input = contiguous(a), from_state = contiguous(b), state = contiguous(h);
  for_floating(next, "gru", [&]<typename T>() {
    cuda::gru_gates(from_input.data<T>(), from_state.data<T>(), state.data<T>(), next.data<T>(),
                    bent.data<T>(), rows_of(h), h.dim(-1), stream_);
  });
}

void Gpu::gru_gates_backward(const Tensor& bent, const Tensor& b_new, const Tensor& h,
                             const Tensor& dnext, const Tensor& da, const Tensor& db,
                             const Tensor& dh) {
  activate_device();
  const Tensor gates = contiguous(bent), from_state = contiguous(b_new), state = contiguous(h);
  const Tensor gradient = contiguous(dnext);
  for_floating(dh, "gru", [&]<typename T>() {
    cuda::gru_gates_backward(gates.data<T>(), from_state.data<T>(), state.data<T>(),
                             gradient.data<T>(), da.data<T>(), db.data<T>(), dh.data<T>(),
                             rows_of(h), h.dim(-1), stream_);
  });
}

}  // namespace weft::cuda
