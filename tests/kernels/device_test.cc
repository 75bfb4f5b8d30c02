// Tensors on a device that is not the CPU, shown on one made of host memory that only its stream
// may touch; and what a program without the toolkit says.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/autograd/op.h"
#include "kernels/cuda/device.h"
#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/stream.h"
#include "kernels/tensor/strided.h"
#include "kernels/tensor/transfer.h"
#include "proto/base/status.h"

namespace weft {
namespace {

// Keeps every element's bits inverted while they are "on the device".
void invert(void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) static_cast<uint8_t*>(data)[i] ^= 0xFF;
}

class InvertedStream final : public Stream {
 public:
  explicit InvertedStream(Allocator& host) : host_(host) {}
  Device device() const override { return {DeviceKind::kCuda, 3}; }
  void copy(const Tensor& from, const Tensor& to) override { combine(from, to, false); }
  void add(const Tensor& from, const Tensor& to) override { combine(from, to, true); }
  void fill(const Tensor& x, double value) override {
    const Tensor filled = Tensor::full(host_, x.shape(), value, x.dtype());
    upload(x.raw(), filled.raw(), x.bytes());
  }
  void upload(void* to, const void* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    invert(to, bytes);
  }
  void download(void* to, const void* from, size_t bytes) override {
    ++downloads;
    std::memcpy(to, from, bytes);
    invert(to, bytes);
  }
  void synchronize() override {}
  int downloads = 0;

 private:
  void combine(const Tensor& from, const Tensor& to, bool add) {
    WEFT_CHECK(from.dtype() == DType::kF32 && to.contiguous());
    const float* source = from.data<float>();
    float* target = to.data<float>();
    const StridedLoop<1> loop(from.shape(), {from.strides()});
    loop.for_rows(0, loop.rows(), [&](int64_t start, const std::array<int64_t, 1>& at) {
      for (int64_t i = 0; i < loop.inner(); ++i) {
        float value = source[at[0] + i * loop.inner_stride(0)], held = target[start + i];
        invert(&value, sizeof value);
        invert(&held, sizeof held);
        if (add) value += held;
        invert(&value, sizeof value);
        target[start + i] = value;
      }
    });
  }
  Allocator& host_;
};

class InvertedMemory final : public Allocator {
 public:
  void* allocate(size_t bytes) override { return host_->allocate(bytes); }
  void release(void* data, size_t bytes) noexcept override { host_->release(data, bytes); }
  Device device() const override { return stream_.device(); }
  Stream* stream() const override { return &stream_; }
  AllocatorStats stats() const override { return host_->stats(); }
  void reset_peak() override { host_->reset_peak(); }
  Allocator& host() { return *host_; }
  int downloads() const { return stream_.downloads; }

 private:
  std::unique_ptr<Allocator> host_ = make_caching_allocator();
  mutable InvertedStream stream_{*host_};
};

TEST(OnDevice, TensorsAreMadeAndReadThroughTheStream) {
  InvertedMemory memory;
  const Tensor x = Tensor::from<float>(memory, {2, 2}, std::vector<float>{1, 2, 3, 4});
  EXPECT_EQ(x.device().to_string(), "cuda:3");
  EXPECT_NE(*x.data<float>(), 1);
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(Tensor::zeros(memory, {2}).to_vector<float>(), (std::vector<float>{0, 0}));
  EXPECT_EQ(Tensor::full(memory, {1}, 7, DType::kI64).to_vector<int64_t>(),
            std::vector<int64_t>{7});
  EXPECT_EQ(read_scalar(Tensor::full(memory, {}, 2.5)), 2.5);
}

TEST(OnDevice, CopiesAndSumsStayThere) {
  InvertedMemory memory;
  ThreadPool pool(1);
  const Tensor x = Tensor::from<float>(memory, {2, 2}, std::vector<float>{1, 2, 3, 4});
  const std::array<int64_t, 2> turned{1, 2};
  const Tensor y = clone(pool, x.view({2, 2}, turned, 0));
  add_into(pool, x, y);
  EXPECT_EQ(memory.downloads(), 0);
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{2, 5, 5, 8}));
}

TEST(OnDevice, WayToTheHostAndBack) {
  InvertedMemory memory;
  const Tensor host = Tensor::from<float>(memory.host(), {2, 2}, std::vector<float>{1, 2, 3, 4});
  const Tensor there = to_allocator(host, memory);
  const std::array<int64_t, 2> turned{1, 2};
  const Tensor back = to_allocator(there.view({2, 2}, turned, 0), memory.host());
  EXPECT_TRUE(back.device().is_cpu());
  EXPECT_EQ(back.to_vector<float>(), (std::vector<float>{1, 3, 2, 4}));
  EXPECT_EQ(to_allocator(there, memory).raw(), there.raw());
}

class CpuOnly final : public Kernel {
 public:
  std::string_view name() const override { return "cpu_only"; }
  void cpu(Context&, std::span<const Tensor>, std::span<Tensor>) override { ++runs; }
  int runs = 0;
};

TEST(OnDevice, KernelThatTheDeviceLacksIsNamed) {
  InvertedMemory memory;
  ThreadPool pool(1);
  CpuOnly kernel;
  Context there{memory, pool}, here{memory.host(), pool};
  run_kernel(here, kernel, {}, {});
  EXPECT_EQ(kernel.runs, 1);
  try {
    run_kernel(there, kernel, {}, {});
    FAIL() << "it ran";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), Code::kInvalidArgument);  // another attempt would end alike
    EXPECT_EQ(error.status().message(), "cpu_only has no kernel for cuda:3");
  }
  EXPECT_EQ(kernel.runs, 1);
}

TEST(OnDeviceDeathTest, TensorsOfTwoDevicesDoNotMeet) {
  InvertedMemory memory;
  ThreadPool pool(1);
  CpuOnly kernel;
  Context here{memory.host(), pool};
  const Tensor x = Tensor::zeros(memory, {1});
  EXPECT_DEATH(run_kernel(here, kernel, std::span(&x, 1), {}), "a tensor is on cuda:3");
}

TEST(NoCuda, SaysWhatIsMissing) {
  const auto memory = cuda::make_allocator(0);
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().code(), Code::kUnavailable);
  EXPECT_NE(memory.error().message().find("built without CUDA"), std::string::npos);
  EXPECT_FALSE(cuda::device_count());
}

}  // namespace
}  // namespace weft
