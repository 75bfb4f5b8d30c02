// Streams, events and graphs of the harness: ordered work runs in order, and what no event orders
// comes out differently in some order.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "kernels/cuda/launch.h"

namespace weft::cuda_on_cpu {
namespace {

using cuda::launch;

__global__ void append(int* digits, int digit) { *digits = *digits * 10 + digit; }

const std::vector<Schedule> kSchedules{
    {Order::kForward}, {Order::kReverse}, {Order::kSeeded, 1}, {Order::kSeeded, 2}};

struct Streams {
  Streams() {
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&joined, cudaEventDisableTiming);
    cudaMalloc(&digits, sizeof(int));
    cudaMallocHost(&host, sizeof(int));
    cudaMemset(digits, 0, sizeof(int));
  }
  ~Streams() {
    cudaFree(digits);
    cudaFreeHost(host);
    cudaEventDestroy(event);
    cudaEventDestroy(joined);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
  }
  int result() {
    cudaDeviceSynchronize();
    cudaMemcpy(host, digits, sizeof(int), cudaMemcpyDeviceToHost);
    return *host;
  }
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t event = nullptr, joined = nullptr;
  int *digits = nullptr, *host = nullptr;
};

TEST(CudaOnCpuStreams, EventsOrderAndTheirAbsenceShows) {
  for (const bool ordered : {true, false}) {
    std::set<int> results;
    for (const Schedule& schedule : kSchedules) {
      set_schedule(schedule);
      Streams s;
      launch(s.a, 1, 1, append, s.digits, 1);
      cudaEventRecord(s.event, s.a);
      if (ordered) cudaStreamWaitEvent(s.b, s.event);
      launch(s.b, 1, 1, append, s.digits, 2);
      results.insert(s.result());
    }
    EXPECT_EQ(results, ordered ? std::set<int>{12} : (std::set<int>{12, 21}));
  }
}

TEST(CudaOnCpuStreams, NothingHasHappenedBeforeSomebodyWaits) {
  set_schedule({});
  Streams s;
  *s.host = 7;
  launch(s.a, 1, 1, append, s.digits, 1);
  cudaMemcpyAsync(s.host, s.digits, sizeof(int), cudaMemcpyDeviceToHost, s.a);
  EXPECT_EQ(cudaStreamQuery(s.a), cudaErrorNotReady);
  EXPECT_EQ(*s.host, 7);
  EXPECT_EQ(cudaStreamSynchronize(s.a), cudaSuccess);
  EXPECT_EQ(*s.host, 1);
}

TEST(CudaOnCpuStreams, AnArgumentsValueIsThatOfTheLaunch) {
  set_schedule({});
  Streams s;
  int digit = 3;
  launch(s.a, 1, 1, append, s.digits, digit);
  digit = 4;
  EXPECT_EQ(s.result(), 3);
}

TEST(CudaOnCpuStreams, AGraphRunsWhatWasCapturedEachTimeItIsLaunched) {
  for (const bool joined : {true, false}) {
    std::set<int> results;
    for (const Schedule& schedule : kSchedules) {
      set_schedule(schedule);
      Streams s;
      cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal);
      void* refused = nullptr;
      EXPECT_EQ(cudaMalloc(&refused, 16), cudaErrorStreamCaptureUnsupported);
      launch(s.a, 1, 1, append, s.digits, 1);
      cudaEventRecord(s.event, s.a);
      cudaStreamWaitEvent(s.b, s.event);
      launch(s.a, 1, 1, append, s.digits, 2);
      launch(s.b, 1, 1, append, s.digits, 3);
      cudaEventRecord(s.joined, s.b);
      if (joined) cudaStreamWaitEvent(s.a, s.joined);
      cudaGraph_t graph = nullptr;
      const cudaError_t ended = cudaStreamEndCapture(s.a, &graph);
      EXPECT_EQ(ended, joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
      EXPECT_EQ(s.result(), 0);
      if (!joined) continue;
      cudaGraphExec_t exec = nullptr;
      cudaGraphInstantiate(&exec, graph, 0);
      cudaGraphDestroy(graph);
      cudaGraphLaunch(exec, s.a);
      const int once = s.result();
      results.insert(once);
      cudaGraphLaunch(exec, s.a);
      EXPECT_EQ(s.result() / 1000, once);
      cudaGraphExecDestroy(exec);
    }
    EXPECT_EQ(results, joined ? (std::set<int>{123, 132}) : std::set<int>{});
  }
}

// A wait for what is only kept spoils the capture; calls are forbidden to the thread that captures.
TEST(CudaOnCpuStreams, ACaptureEndsWithWhatNoGraphCanHold) {
  for (const auto ask : {cudaStreamSynchronize, cudaStreamQuery}) {
    Streams s;
    cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal);
    launch(s.a, 1, 1, append, s.digits, 1);
    EXPECT_EQ(ask(s.a), cudaErrorStreamCaptureUnsupported);
    cudaError_t beside = cudaErrorInvalidValue;
    std::thread([&] {
      void* memory = nullptr;
      beside = cudaMalloc(&memory, 16);
      cudaFree(memory);
    }).join();
    EXPECT_EQ(beside, cudaSuccess);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(s.a, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
    EXPECT_EQ(s.result(), 0);
  }
}

TEST(CudaOnCpuStreams, MemoryWrittenOutsideShowsWhenItIsFreed) {
  int* memory = nullptr;
  cudaMalloc(&memory, 3 * sizeof(int));
  EXPECT_EQ(memory[0], -1);
  memory[3] = 0;
  EXPECT_THROW(cudaFree(memory), Fault);
  EXPECT_THROW(cudaFree(memory), Fault);
}

TEST(CudaOnCpuStreams, AWaitThatNothingEndsIsAFault) {
  Streams s;
  s.event->recorded = 1;  // by a record that never runs
  cudaStreamWaitEvent(s.b, s.event);
  launch(s.b, 1, 1, append, s.digits, 2);
  EXPECT_THROW(cudaStreamSynchronize(s.b), Fault);
  s.event->recorded = 0;
  s.b->queue.clear();
}

}  // namespace
}  // namespace weft::cuda_on_cpu
