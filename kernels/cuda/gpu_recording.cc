// Passes as CUDA graphs.
#include <algorithm>
#include <utility>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_memory.h"
#include "kernels/tensor/tensor.h"

namespace weft::cuda {
namespace {

// Which bytes these are, each named once.
std::vector<MemoryRange> united(std::vector<MemoryRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const MemoryRange& a, const MemoryRange& b) { return a.data < b.data; });
  std::vector<MemoryRange> all;
  for (const MemoryRange& range : ranges) {
    if (all.empty() || range.data >= all.back().data + all.back().bytes) {
      all.push_back(range);
    } else {
      const auto end = std::max(all.back().data + all.back().bytes, range.data + range.bytes);
      all.back().bytes = static_cast<size_t>(end - all.back().data);
    }
  }
  return all;
}

class GpuRecording final : public Recording {
 public:
  struct Result {
    void* data;
    TensorSpec spec;
  };
  GpuRecording(Gpu& gpu, GpuMemory& memory, cudaGraphExec_t graph, std::vector<MemoryRange> ranges,
               std::vector<Result> results)
      : gpu_(gpu),
        memory_(memory),
        graph_(graph),
        ranges_(united(std::move(ranges))),
        results_(std::move(results)) {}
  ~GpuRecording() override {
    (void)cudaStreamSynchronize(gpu_.stream());
    (void)cudaGraphExecDestroy(graph_);
  }

  bool queue(uint64_t seed, std::vector<Tensor>& results) override {
    results.clear();
    if (!memory_.are_free(ranges_)) return false;
    for (const Result& each : results_) results.push_back(memory_.at(each.data, each.spec));
    gpu_.set_seed(seed);
    check(cudaGraphLaunch(graph_, gpu_.stream()), "a recorded pass");
    return true;
  }

 private:
  Gpu& gpu_;
  GpuMemory& memory_;
  const cudaGraphExec_t graph_;
  const std::vector<MemoryRange> ranges_;  // that the work reads and writes but for its inputs
  const std::vector<Result> results_;
};

// The capture of a stream, which ends with it.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "a capture");
  }
  ~Capture() {
    if (open_) (void)end();
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaError_t end() {
    open_ = false;
    return cudaStreamEndCapture(stream_, &graph_);
  }
  cudaError_t instantiate(cudaGraphExec_t& work) const {
    return cudaGraphInstantiate(&work, graph_, 0);
  }

 private:
  const cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  bool open_ = true;
};

}  // namespace

void Gpu::in_pass(const std::function<void()>& work) {
  const GpuMemory::Pass pass(parts_);
  work();
}

Result<std::unique_ptr<Recording>> Gpu::record(uint64_t seed,
                                               const std::function<std::vector<Tensor>()>& work) {
  activate_device();
  if (!seed_) seed_ = scratch({1}, DType::kI64);
  std::vector<MemoryRange> ranges;
  std::vector<GpuRecording::Result> results;
  cudaGraphExec_t graph = nullptr;
  try {
    const GpuMemory::Recorded recorded(parts_, ranges);
    Capture capture(stream_);
    recorded_seed_ = seed;
    const auto forget = [this](void*) { recorded_seed_.reset(); };
    const std::unique_ptr<void, decltype(forget)> recording(this, forget);
    for (const Tensor& each : work()) {
      const bool own = std::any_of(ranges.begin(), ranges.end(), [&](const MemoryRange& range) {
        return range.data == each.raw();
      });
      if (!own || !each.contiguous()) {
        throw StatusError(Status(Code::kFailedPrecondition, "a result without memory of its own"));
      }
      results.push_back({each.raw(), each.spec()});
    }
    check(capture.end(), "a capture");
    check(capture.instantiate(graph), "a graph");
  } catch (const StatusError& error) {
    (void)cudaGetLastError();
    return fail(error.status());
  }
  return std::make_unique<GpuRecording>(*this, parts_, graph, std::move(ranges),
                                        std::move(results));
}

void Gpu::set_seed(uint64_t seed) {
  if (seed_now_ == seed) return;
  upload(seed_.raw(), &seed, sizeof seed);
  seed_now_ = seed;
}

DeviceKey Gpu::device_key(RandomKey key) const {
  const bool varies = recorded_seed_ && *recorded_seed_ == key.seed;
  return {key, varies ? static_cast<const uint64_t*>(seed_.raw()) : nullptr};
}

void Gpu::refuse_in_recording(const char* what) const {
  if (!recorded_seed_) return;
  throw StatusError(Status(Code::kFailedPrecondition, std::string(what) + " in the middle of it"));
}

}  // namespace weft::cuda
