// A GPU's stream and memory.
#include "kernels/cuda/gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "kernels/cuda/cudnn_library.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/gpu_memory.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/typed.h"
#include "kernels/ops/out_of_range.h"
#include "kernels/tensor/dispatch.h"

namespace weft::cuda {
namespace {

constexpr size_t kUploadBytes = size_t{4} << 20;
constexpr size_t kUploadsMax = 16;  // under way
constexpr std::chrono::microseconds kSpin{100}, kNapMax{500};

class PinnedSegments final : public SegmentSource {
 public:
  size_t alignment() const override { return 64; }
  void* take(size_t bytes) override {
    void* data = nullptr;
    if (cudaMallocHost(&data, bytes) != cudaSuccess) {
      (void)cudaGetLastError();
      return nullptr;
    }
    return data;
  }
  void give_back(void* data, size_t) noexcept override { (void)cudaFreeHost(data); }
  std::string what() const override { return "the driver's pinned memory"; }
};

// "GPU-" and 16 bytes in groups of 4, 2, 2, 2 and 6.
std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU";
  for (int i = 0; i < 16; ++i) {
    if (i == 0 || (i >= 4 && i <= 10 && i % 2 == 0)) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw_cuda_error(error, what);
}

Result<int> device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return fail(Code::kUnavailable, std::string("no GPU: ") + cudaGetErrorString(error));
  }
  return count;
}

Result<std::vector<std::string>> device_ids() {
  WEFT_ASSIGN_OR_RETURN(const int count, device_count());
  std::vector<std::string> ids;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    const cudaError_t error = cudaGetDeviceProperties(&properties, index);
    if (error != cudaSuccess) {
      return fail(Code::kUnavailable,
                  "GPU " + std::to_string(index) + ": " + cudaGetErrorString(error));
    }
    ids.push_back(uuid_text(properties.uuid));
  }
  return ids;
}

Result<std::unique_ptr<Allocator>> make_allocator(int index) {
  WEFT_ASSIGN_OR_RETURN(const int count, device_count());
  if (index < 0 || index >= count) {
    return fail(Code::kUnavailable,
                "no GPU " + std::to_string(index) + ": this process sees " + std::to_string(count));
  }
  try {
    return std::make_unique<GpuMemory>(index);
  } catch (const StatusError& error) {
    return fail(error.status());
  }
}

std::unique_ptr<Allocator> make_pinned_allocator() {
  return make_caching_allocator(std::make_unique<PinnedSegments>());
}

Gpu::Gpu(int index, GpuMemory& memory)
    : index_(index),
      parts_(memory),
      memory_(memory),
      note_memory_(Tensor::empty(*pinned_, {int64_t{sizeof(Note)}}, DType::kU8)),
      note_(new (note_memory_.raw()) Note) {
  activate_device();
  Result<std::unique_ptr<Matmul>> matmul = Matmul::create();
  if (!matmul) throw StatusError(matmul.error());
  matmul_ = std::move(*matmul);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "a capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index), "a capability");
  capability_ = major * 10 + minor;
  sm90_ = capability_ == 90;
}

Gpu::~Gpu() {
  (void)cudaStreamSynchronize(stream_);
  seed_ = Tensor();
  for (const Upload& upload : uploads_) (void)cudaEventDestroy(upload.done);
  (void)cudaStreamDestroy(stream_);
}

std::string Gpu::kind() const {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index_), "a GPU's properties");
  const Result<const Cudnn*> library = cudnn();
  return fmt::format("{}, cuBLASLt {}, {}", properties.name, matmul_->library_version(),
                     library ? fmt::format("cuDNN {}", (*library)->version()) : "no cuDNN");
}

void Gpu::activate_device() const { check(cudaSetDevice(index_), "the choice of the GPU"); }

Tensor Gpu::scratch(Shape shape, DType dtype) const { return Tensor::empty(memory_, shape, dtype); }

Tensor Gpu::contiguous(const Tensor& x) {
  if (!x || x.contiguous()) return x;
  const Tensor whole = scratch(x.shape(), x.dtype());
  copy(x, whole);
  return whole;
}

Tensor Gpu::weights(const Tensor& x) {
  if (!is_half(x.dtype())) return contiguous(x);
  const Tensor single = scratch(x.shape());
  copy(x, single);
  return single;
}

void Gpu::copy(const Tensor& from, const Tensor& to) {
  if (to.bytes() == 0) return;
  activate_device();
  if (from.dtype() == to.dtype() && from.contiguous() && to.contiguous()) {
    check(cudaMemcpyAsync(to.raw(), from.raw(), to.bytes(), cudaMemcpyDeviceToDevice, stream_),
          "a copy");
    return;
  }
  const Walk<2> walk = walk_of<2>(to.shape(), {from.strides(), to.strides()});
  dispatch_all(from.dtype(), [&]<typename From>() {
    dispatch_all(to.dtype(), [&]<typename To>() {
      cuda::copy(walk, from.data<From>(), to.data<To>(), stream_);
    });
  });
}

void Gpu::add(const Tensor& from, const Tensor& to) {
  activate_device();
  const Walk<2> walk = walk_of<2>(to.shape(), {from.strides(), to.strides()});
  if (from.dtype() == DType::kF64 && to.dtype() == DType::kF64) {
    return cuda::add(walk, from.data<double>(), to.data<double>(), stream_);
  }
  for_floating(to, "a sum", [&]<typename To>() {
    if (from.dtype() == to.dtype()) return cuda::add(walk, from.data<To>(), to.data<To>(), stream_);
    if constexpr (std::is_same_v<To, float>) {
      WEFT_CHECK(is_half(from.dtype()), "{} added to {}", dtype_name(from.dtype()), "F32");
      for_floating(from, "a sum", [&]<typename From>() {
        cuda::add(walk, from.data<From>(), to.data<float>(), stream_);
      });
    } else {
      WEFT_CHECK(from.dtype() == DType::kF32, "{} added to {}", dtype_name(from.dtype()),
                 dtype_name(to.dtype()));
      cuda::add(walk, from.data<float>(), to.data<To>(), stream_);
    }
  });
}

void Gpu::fill(const Tensor& x, double value) {
  if (x.bytes() == 0) return;
  activate_device();
  if (value == 0) {
    check(cudaMemsetAsync(x.raw(), 0, x.bytes(), stream_), "a memset");
  } else {
    dispatch_all(x.dtype(), [&]<typename T>() {
      cuda::fill(static_cast<T>(value), x.data<T>(), x.elements(), stream_);
    });
  }
}

// By way of pinned memory: from other memory the driver might wait for the stream.
void Gpu::upload(void* to, const void* from, size_t bytes) {
  refuse_in_recording("an upload");
  activate_device();
  for (size_t at = 0; at < bytes; at += kUploadBytes) {
    const size_t piece = std::min(kUploadBytes, bytes - at);
    drop_finished_uploads(kUploadsMax);
    Upload upload{nullptr, Tensor::empty(*pinned_, {static_cast<int64_t>(piece)}, DType::kU8)};
    std::memcpy(upload.staged.raw(), static_cast<const char*>(from) + at, piece);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, upload.staged.raw(), piece,
                          cudaMemcpyHostToDevice, stream_),
          "a copy to the GPU");
    check(cudaEventCreateWithFlags(&upload.done, cudaEventDisableTiming), "an event");
    uploads_.push_back(std::move(upload));
    check(cudaEventRecord(uploads_.back().done, stream_), "an event");
  }
}

void Gpu::drop_finished_uploads(size_t left_max) {
  if (uploads_.size() > left_max) synchronize();
  while (!uploads_.empty() && cudaEventQuery(uploads_.front().done) == cudaSuccess) {
    (void)cudaEventDestroy(uploads_.front().done);
    uploads_.pop_front();
  }
}

// The stream is idle before the copy, which then waits for nothing else.
void Gpu::download(void* to, const void* from, size_t bytes) {
  synchronize();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a copy from the GPU");
  check(cudaStreamSynchronize(stream_), "a copy from the GPU");
}

void Gpu::synchronize() {
  refuse_in_recording("a wait for the GPU");
  activate_device();
  wait_for_stream();
  if (note_->taken != 0) ops::throw_out_of_range(std::exchange(*note_, Note()).found);
}

void Gpu::wait_for_stream() {
  if (watches_.empty()) return check(cudaStreamSynchronize(stream_), "work on the GPU");
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    const cudaError_t state = cudaStreamQuery(stream_);
    if (state != cudaErrorNotReady) check(state, "work on the GPU");
    // Also once the stream is done: a collective that was given up is done, too.
    for (const auto& [number, look] : watches_) look();
    if (state == cudaSuccess) return;
    // A short wait is polled, a long one napped through for a sixteenth of what it has taken.
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited < kSpin) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(waited / 16, kNapMax));
    }
  }
}

int Gpu::watch(std::function<void()> look) {
  watches_.emplace(next_watch_, std::move(look));
  return next_watch_++;
}

void Gpu::unwatch(int watch) { watches_.erase(watch); }

}  // namespace weft::cuda
