#include "kernels/tensor/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/stream.h"
#include "kernels/tensor/strided.h"
#include "kernels/tensor/transfer.h"

namespace weft {
namespace {

// Memory that returns to its allocator with the last handle.
class Storage {
 public:
  Storage(Allocator& allocator, size_t bytes)
      : allocator_(allocator), bytes_(bytes), data_(allocator.allocate(bytes)) {}
  ~Storage() { allocator_.release(data_, bytes_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  Allocator& allocator() const { return allocator_; }

 private:
  Allocator& allocator_;
  const size_t bytes_;
  void* const data_;
};

uint64_t next_id() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

struct Tensor::Impl {
  std::shared_ptr<Storage> storage;
  Shape shape;
  std::array<int64_t, Shape::kDimsMax> strides{};
  int64_t offset = 0;  // elements
  DType dtype = DType::kF32;
  uint64_t id = next_id();
  bool requires_grad = false;
  bool leaf = false;
  Tensor grad;
};

Tensor Tensor::empty(Allocator& allocator, Shape shape, DType dtype) {
  Tensor tensor;
  tensor.impl_ = std::make_shared<Impl>();
  const size_t bytes = static_cast<size_t>(shape.elements()) * size_of(dtype);
  tensor.impl_->storage = std::make_shared<Storage>(allocator, bytes);
  tensor.impl_->shape = shape;
  tensor.impl_->strides = row_major_strides(shape);
  tensor.impl_->dtype = dtype;
  return tensor;
}

Tensor Tensor::zeros(Allocator& allocator, Shape shape, DType dtype) {
  return full(allocator, shape, 0, dtype);
}

Tensor Tensor::full(Allocator& allocator, Shape shape, double value, DType dtype) {
  Tensor tensor = empty(allocator, shape, dtype);
  tensor.fill(value);
  return tensor;
}

void Tensor::fill(double value) const {
  WEFT_CHECK(contiguous(), "{} is not contiguous", shape().to_string());
  if (Stream* stream = allocator().stream()) return stream->fill(*this, value);
  if (value == 0) {
    std::memset(raw(), 0, bytes());
    return;
  }
  dispatch_all(dtype(),
               [&]<typename T>() { std::fill_n(data<T>(), elements(), static_cast<T>(value)); });
}

const Shape& Tensor::shape() const {
  WEFT_CHECK(impl_ != nullptr, "an empty handle has no shape");
  return impl_->shape;
}

std::span<const int64_t> Tensor::strides() const {
  return {impl_->strides.data(), static_cast<size_t>(shape().dims())};
}

DType Tensor::dtype() const {
  WEFT_CHECK(impl_ != nullptr, "an empty handle has no dtype");
  return impl_->dtype;
}

bool Tensor::contiguous() const {
  const std::array<int64_t, Shape::kDimsMax> wanted = row_major_strides(shape());
  for (int dim = 0; dim < shape().dims(); ++dim) {
    if (shape()[dim] == 0) return true;
  }
  for (int dim = 0; dim < shape().dims(); ++dim) {
    const size_t i = static_cast<size_t>(dim);
    if (shape()[dim] != 1 && impl_->strides[i] != wanted[i]) return false;
  }
  return true;
}

bool Tensor::unique() const {
  return impl_ != nullptr && impl_.use_count() == 1 && impl_->storage.use_count() == 1;
}

Allocator& Tensor::allocator() const {
  WEFT_CHECK(impl_ != nullptr, "an empty handle has no allocator");
  return impl_->storage->allocator();
}

void* Tensor::raw() const {
  WEFT_CHECK(impl_ != nullptr, "an empty handle has no elements");
  const int64_t offset_bytes = impl_->offset * static_cast<int64_t>(size_of(impl_->dtype));
  return static_cast<char*>(impl_->storage->data()) + offset_bytes;
}

void Tensor::write(const void* values) const { upload(*this, values); }

template <typename T>
std::vector<T> Tensor::to_vector() const {
  std::vector<T> values(static_cast<size_t>(elements()));
  if (!device().is_cpu()) {
    const auto host = make_caching_allocator();
    return to_allocator(*this, *host).to_vector<T>();
  }
  const T* from = data<T>();
  int64_t next = 0;
  const StridedLoop<1> loop(shape(), {strides()});
  loop.for_rows(0, loop.rows(), [&](int64_t row_start, const std::array<int64_t, 1>& at) {
    next = row_start;
    for (int64_t i = 0; i < loop.inner(); ++i) {
      values[static_cast<size_t>(next++)] = from[at[0] + i * loop.inner_stride(0)];
    }
  });
  return values;
}
template std::vector<float> Tensor::to_vector() const;
template std::vector<double> Tensor::to_vector() const;
template std::vector<int64_t> Tensor::to_vector() const;
template std::vector<int32_t> Tensor::to_vector() const;
template std::vector<uint8_t> Tensor::to_vector() const;
template std::vector<bfloat16> Tensor::to_vector() const;
template std::vector<float16> Tensor::to_vector() const;

Tensor Tensor::view(Shape shape, std::span<const int64_t> strides, int64_t offset_elements) const {
  WEFT_CHECK(impl_ != nullptr, "an empty handle has no view");
  WEFT_CHECK(static_cast<int>(strides.size()) == shape.dims(), "{} strides for {}", strides.size(),
             shape.to_string());
  Tensor tensor;
  tensor.impl_ = std::make_shared<Impl>();
  tensor.impl_->storage = impl_->storage;
  tensor.impl_->shape = shape;
  for (size_t i = 0; i < strides.size(); ++i) {
    WEFT_CHECK(strides[i] >= 0, "stride {}", strides[i]);
    tensor.impl_->strides[i] = strides[i];
  }
  tensor.impl_->offset = impl_->offset + offset_elements;
  tensor.impl_->dtype = impl_->dtype;
  return tensor;
}

Tensor Tensor::reinterpreted(DType dtype) const {
  const auto size = static_cast<int64_t>(size_of(dtype));
  const int64_t first = impl_->offset * static_cast<int64_t>(size_of(this->dtype()));
  const auto length = static_cast<int64_t>(bytes());
  WEFT_CHECK(shape().dims() == 1 && contiguous() && first % size == 0 && length % size == 0,
             "{} {} from byte {} on as {}", dtype_name(this->dtype()), shape().to_string(), first,
             dtype_name(dtype));
  Tensor tensor = view({length / size}, std::array<int64_t, 1>{1}, 0);
  tensor.impl_->offset = first / size;
  tensor.impl_->dtype = dtype;
  return tensor;
}

Tensor Tensor::detach() const { return view(shape(), strides(), 0); }

void Tensor::rebind(const Tensor& other) const {
  const bool keeps_gradient = !grad() || gradient_dtype(dtype()) == gradient_dtype(other.dtype());
  WEFT_CHECK(keeps_gradient && other.shape() == shape() &&
                 is_floating(dtype()) == is_floating(other.dtype()),
             "{} {} shown as {} {}", dtype_name(other.dtype()), other.shape().to_string(),
             dtype_name(dtype()), shape().to_string());
  impl_->storage = other.impl_->storage;
  impl_->strides = other.impl_->strides;
  impl_->offset = other.impl_->offset;
  impl_->dtype = other.impl_->dtype;
}

uint64_t Tensor::id() const {
  WEFT_CHECK(impl_ != nullptr, "an empty handle has no id");
  return impl_->id;
}

bool Tensor::requires_grad() const { return impl_ != nullptr && impl_->requires_grad; }

bool Tensor::leaf() const { return requires_grad() && impl_->leaf; }

Tensor& Tensor::set_requires_grad(bool on) {
  WEFT_CHECK(!on || is_floating(dtype()), "dtype {} has no gradient", dtype_name(dtype()));
  impl_->requires_grad = on;
  impl_->leaf = on;
  return *this;
}

void Tensor::mark_result() const {
  WEFT_CHECK(is_floating(dtype()), "dtype {} has no gradient", dtype_name(dtype()));
  impl_->requires_grad = true;
  impl_->leaf = false;
}

Tensor Tensor::grad() const { return impl_ == nullptr ? Tensor() : impl_->grad; }

void Tensor::set_grad(Tensor grad) const {
  WEFT_CHECK(!grad || (grad.spec() == TensorSpec{shape(), gradient_dtype(dtype())}),
             "gradient {} {} of a leaf {} {}", grad ? grad.shape().to_string() : "",
             grad ? dtype_name(grad.dtype()) : "", shape().to_string(), dtype_name(dtype()));
  impl_->grad = std::move(grad);
}

}  // namespace weft
