#include "cluster/comm/nccl/nccl_communicator.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cluster/comm/arguments.h"
#include "cluster/comm/nccl/nccl_library.h"
#include "cluster/comm/reduce_elements.h"
#include "cluster/comm/single/single_communicator.h"
#include "kernels/cuda/gpu.h"
#include "kernels/tensor/transfer.h"

namespace weft::comm {
namespace {

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return ncclFloat64;
    case DType::kI64:
      return ncclInt64;
    case DType::kI32:
      return ncclInt32;
    case DType::kU8:
      return ncclUint8;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kF16:
      return ncclFloat16;
    case DType::kF32:
      break;
  }
  return ncclFloat32;
}

ncclRedOp_t operation_of(ReduceOp op) {
  if (op == ReduceOp::kMax) return ncclMax;
  return op == ReduceOp::kMin ? ncclMin : ncclSum;
}

constexpr std::chrono::milliseconds kDrainNap{1};

size_t count_of(int64_t elements) { return static_cast<size_t>(elements); }

bool all_equal(std::span<const int64_t> counts) {
  for (const int64_t count : counts) {
    if (count != counts.front()) return false;
  }
  return true;
}

class CollectiveStream;
Result<std::unique_ptr<Communicator>> make(std::unique_ptr<Communicator> introduction,
                                           Allocator& memory,
                                           std::shared_ptr<CollectiveStream> stream,
                                           const NcclOptions& options);

// An event without a time.
class Mark {
 public:
  Mark() { cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event"); }
  ~Mark() { (void)cudaEventDestroy(event_); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  void record(cudaStream_t stream) { cuda::check(cudaEventRecord(event_, stream), "an event"); }
  // What is queued on the stream from now on waits for what was recorded.
  void wait(cudaStream_t stream) {
    cuda::check(cudaStreamWaitEvent(stream, event_, 0), "waiting for an event");
  }
  // What is queued on `later` from now on waits for what is queued on `first`.
  void order(cudaStream_t first, cudaStream_t later) {
    if (first == later) return;
    record(first);
    wait(later);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// The stream of all collectives of a rank: they run in the order in which they were queued,
// whatever communicators they are of.
class CollectiveStream {
 public:
  CollectiveStream() {
    cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  }
  ~CollectiveStream() { (void)cudaStreamDestroy(stream_); }
  CollectiveStream(const CollectiveStream&) = delete;
  CollectiveStream& operator=(const CollectiveStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Collectives that were started, and the memory that they use: it is given up when the tensors'
// stream has been told to wait for them.
class Started {
 public:
  Started(cuda::Gpu& gpu, std::shared_ptr<CollectiveStream> stream,
          std::function<void(Communicator&)> collectives)
      : gpu_(gpu), stream_(std::move(stream)), collectives_(std::move(collectives)) {}
  ~Started() {
    try {
      finish();
    } catch (const StatusError&) {  // whoever waits for the stream next hears of it
    }
  }
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;

  void run(Communicator& comm) {
    const cuda::Gpu::OnStream beside(gpu_, stream_->get());
    collectives_(comm);
  }
  void keep(const Tensor& x) { kept_.push_back(x); }
  void record() {
    done_.record(stream_->get());
    recorded_ = true;
  }
  void finish() {
    if (recorded_) done_.wait(gpu_.stream());
    recorded_ = false;
    kept_.clear();
    collectives_ = nullptr;
  }

 private:
  cuda::Gpu& gpu_;
  const std::shared_ptr<CollectiveStream> stream_;
  std::function<void(Communicator&)> collectives_;
  std::vector<Tensor> kept_;
  Mark done_;
  bool recorded_ = false;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const Nccl& library, std::unique_ptr<Communicator> introduction,
                   Allocator& memory, ncclComm_t comm, std::shared_ptr<CollectiveStream> stream,
                   const NcclOptions& options)
      : library_(library),
        introduction_(std::move(introduction)),
        memory_(memory),
        gpu_(static_cast<cuda::Gpu&>(*memory.stream())),
        comm_(comm),
        collectives_(std::move(stream)),
        stream_(collectives_->get()),
        options_(options) {
    watch_ = gpu_.watch([this] { poll(); });
  }
  ~NcclCommunicator() override {
    gpu_.unwatch(watch_);
    if (lost_) return;
    // A rank that leaves early waits for nobody, and its peers must not wait for it.
    if (std::uncaught_exceptions() == 0 && drained()) {
      (void)library_.destroy(comm_);
    } else {
      (void)library_.abort(comm_);
    }
  }

  int rank() const override { return introduction_->rank(); }
  int size() const override { return introduction_->size(); }
  std::unique_ptr<Communicator> do_split(int color, int key, const char* name,
                                         const Site& site) override {
    auto introduction = introduction_->split(color, key, name, site);
    if (introduction->size() == 1) return single_world();
    auto part = make(std::move(introduction), memory_, collectives_, options_);
    if (!part) throw StatusError(part.error());
    return std::move(*part);
  }
  void do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) override;
  void do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                     const Site& site) override;
  void do_reduce_scatter(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                         const Site& site) override;
  void do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                     std::span<const int64_t> receive_counts, const Site& site) override;
  void do_broadcast(Tensor& inout, int root, const Site& site) override;
  void do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                       const Site& site) override;
  void do_barrier(const Site& site) override { introduction_->barrier(site); }
  Pending start(std::function<void(Communicator&)> collectives) override;
  int64_t bytes_sent() const override { return introduction_->bytes_sent() + bytes_sent_; }

 private:
  // Calls in a group take effect together when it is closed, which it is whatever happens; NCCL
  // allows no abort inside.
  class Group {
   public:
    Group(NcclCommunicator& comm, ncclResult_t& result) : comm_(comm), result_(result) {
      comm_.in_group_ = true;
    }
    ~Group() {
      result_ = comm_.library_.group_end();
      comm_.in_group_ = false;
      if (comm_.lost_) (void)comm_.library_.abort(comm_.comm_);
    }
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

   private:
    NcclCommunicator& comm_;
    ncclResult_t& result_;
  };

  // Throws and aborts where NCCL has heard of an error since.
  void poll();
  ncclResult_t error_since() const;
  // Waits for the collectives' stream. False: NCCL has heard of an error, or the time is over.
  bool drained() const;
  [[noreturn]] void lose(const std::string& why);
  void check(ncclResult_t result, const char* what) {
    if (result != ncclSuccess) lose(std::string(what) + ": " + library_.error_text(result));
  }
  // Runs `enqueue` with our stream between what the tensors' stream has done and what it will do.
  template <typename F>
  void between(F&& enqueue) {
    gpu_.refuse_in_recording("a collective");
    poll();
    ready_.order(gpu_.stream(), stream_);
    enqueue();
    done_.order(stream_, gpu_.stream());
  }
  template <typename F>
  void in_group(F&& enqueue) {
    check(library_.group_start(), "ncclGroupStart");
    ncclResult_t closed = ncclSuccess;
    {
      const Group group(*this, closed);
      enqueue();
    }
    check(closed, "ncclGroupEnd");
  }
  void send_bytes(const std::byte* data, int64_t bytes, int to) {
    if (bytes > 0)
      check(library_.send(data, count_of(bytes), ncclUint8, to, comm_, stream_), "ncclSend");
  }
  void receive_bytes(std::byte* data, int64_t bytes, int from) {
    if (bytes > 0) {
      check(library_.receive(data, count_of(bytes), ncclUint8, from, comm_, stream_), "ncclRecv");
    }
  }
  void copy_bytes(void* to, const void* from, int64_t bytes) {
    if (bytes == 0) return;
    cuda::check(cudaMemcpyAsync(to, from, count_of(bytes), cudaMemcpyDeviceToDevice, stream_),
                "a copy");
  }
  void exchange(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                std::span<const int64_t> receive_counts);
  void scatter_evenly(const Tensor& in, Tensor& out);
  Tensor in_single(const Tensor& x) {
    Tensor wide = kept(Tensor::empty(memory_, x.shape()));
    gpu_.copy(x, wide);
    return wide;
  }
  // Memory of a collective's own.
  Tensor kept(Tensor x) {
    if (started_ != nullptr) started_->keep(x);
    return x;
  }

  const Nccl& library_;
  const std::unique_ptr<Communicator> introduction_;
  Allocator& memory_;
  cuda::Gpu& gpu_;
  const ncclComm_t comm_;
  const std::shared_ptr<CollectiveStream> collectives_;
  const cudaStream_t stream_;
  const NcclOptions options_;
  Started* started_ = nullptr;  // whose collectives are being queued
  Mark ready_, done_;
  int watch_ = 0;
  bool lost_ = false, in_group_ = false;
  int64_t bytes_sent_ = 0;
};

std::byte* bytes_of(const Tensor& tensor) { return static_cast<std::byte*>(tensor.raw()); }

void NcclCommunicator::lose(const std::string& why) {
  if (!lost_) {
    lost_ = true;
    if (!in_group_) (void)library_.abort(comm_);
  }
  throw StatusError(Status(Code::kUnavailable, "NCCL: " + why));
}

ncclResult_t NcclCommunicator::error_since() const {
  ncclResult_t error = ncclSuccess;
  const ncclResult_t asked = library_.async_error(comm_, &error);
  if (asked != ncclSuccess) return asked;
  return error == ncclInProgress ? ncclSuccess : error;
}

void NcclCommunicator::poll() {
  if (lost_) lose("this communicator was aborted");
  const ncclResult_t error = error_since();
  if (error == ncclSuccess) return;
  lose(std::string("a peer or a link was lost: ") + library_.error_text(error));
}

bool NcclCommunicator::drained() const {
  const auto end = std::chrono::steady_clock::now() + options_.drain;
  while (error_since() == ncclSuccess) {
    const cudaError_t state = cudaStreamQuery(stream_);
    if (state != cudaErrorNotReady) return state == cudaSuccess;
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(kDrainNap);
  }
  return false;
}

void NcclCommunicator::do_all_reduce(Tensor& inout, ReduceOp op, const Site& site) {
  if (inout.device().is_cpu()) return introduction_->all_reduce(inout, op, site);
  check_contiguous(inout);
  check_reducible(inout.dtype());
  if (size() == 1 || inout.elements() == 0) return poll();
  if (op == ReduceOp::kSum && is_half(inout.dtype())) {
    Tensor wide = in_single(inout);
    all_reduce(wide, op, site);
    return gpu_.copy(wide, inout);
  }
  between([&] {
    check(library_.all_reduce(inout.raw(), inout.raw(), count_of(inout.elements()),
                              type_of(inout.dtype()), operation_of(op), comm_, stream_),
          "ncclAllReduce");
  });
  const auto own = static_cast<int64_t>(inout.bytes()) / size();
  bytes_sent_ += 2 * own * (size() - 1);
}

void NcclCommunicator::do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                                     const Site& site) {
  if (in.device().is_cpu()) return introduction_->all_gather(in, out, counts, site);
  check_parts(*this, in, out, counts);
  if (!all_equal(counts)) {
    between([&] {  // the same part goes to everybody
      const auto width = static_cast<int64_t>(size_of(in.dtype()));
      int64_t at = 0;
      in_group([&] {
        for (int r = 0; r < size(); ++r) {
          const int64_t bytes = counts[count_of(r)] * width;
          if (r != rank()) {
            send_bytes(bytes_of(in), static_cast<int64_t>(in.bytes()), r);
            receive_bytes(bytes_of(out) + at, bytes, r);
          }
          at += bytes;
        }
      });
      copy_bytes(bytes_of(out) + total(counts.first(count_of(rank()))) * width, in.raw(),
                 static_cast<int64_t>(in.bytes()));
    });
  } else if (in.elements() > 0) {
    between([&] {
      check(library_.all_gather(in.raw(), out.raw(), count_of(in.elements()), type_of(in.dtype()),
                                comm_, stream_),
            "ncclAllGather");
    });
  }
  bytes_sent_ += static_cast<int64_t>(in.bytes()) * (size() - 1);
}

void NcclCommunicator::scatter_evenly(const Tensor& in, Tensor& out) {
  between([&] {
    check(library_.reduce_scatter(in.raw(), out.raw(), count_of(out.elements()),
                                  type_of(in.dtype()), ncclSum, comm_, stream_),
          "ncclReduceScatter");
  });
}

// NCCL knows equal parts only: uneven ones are filled up to the largest.
void NcclCommunicator::do_reduce_scatter(const Tensor& in, Tensor& out,
                                         std::span<const int64_t> counts, const Site& site) {
  if (in.device().is_cpu()) return introduction_->reduce_scatter(in, out, counts, site);
  check_parts(*this, out, in, counts);
  check_reducible(in.dtype());
  if (in.elements() == 0) return poll();
  if (is_half(in.dtype())) {
    const Tensor wide = in_single(in);
    Tensor sum = kept(Tensor::empty(memory_, out.shape()));
    reduce_scatter(wide, sum, counts, site);
    return gpu_.copy(sum, out);
  }
  bytes_sent_ += static_cast<int64_t>(in.bytes() - out.bytes());
  if (all_equal(counts)) return scatter_evenly(in, out);
  const int64_t largest = *std::max_element(counts.begin(), counts.end());
  const Tensor whole = kept(Tensor::empty(memory_, {largest * size()}, in.dtype()));
  Tensor part = kept(Tensor::empty(memory_, {largest}, in.dtype()));
  gpu_.fill(whole, 0);
  const std::array<int64_t, 1> step{1};
  int64_t from = 0;
  const Tensor flat = in.view({in.elements()}, step, 0);
  for (int r = 0; r < size(); ++r) {
    const int64_t count = counts[count_of(r)];
    if (count > 0) {
      gpu_.copy(flat.view({count}, step, from), whole.view({count}, step, r * largest));
    }
    from += count;
  }
  scatter_evenly(whole, part);
  if (out.elements() > 0) {
    gpu_.copy(part.view({out.elements()}, step, 0), out.view({out.elements()}, step, 0));
  }
}

void NcclCommunicator::do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts,
                                     Tensor& out, std::span<const int64_t> receive_counts,
                                     const Site& site) {
  if (in.device().is_cpu())
    return introduction_->all_to_all(in, send_counts, out, receive_counts, site);
  check_exchange(*this, in, send_counts, out, receive_counts);
  const auto own = count_of(rank());
  WEFT_CHECK(send_counts[own] == receive_counts[own], "{} to itself, expects {}", send_counts[own],
             receive_counts[own]);
  exchange(in, send_counts, out, receive_counts);
}

void NcclCommunicator::exchange(const Tensor& in, std::span<const int64_t> send_counts, Tensor& out,
                                std::span<const int64_t> receive_counts) {
  const auto width = static_cast<int64_t>(size_of(in.dtype()));
  between([&] {
    int64_t from = 0, to = 0;
    in_group([&] {
      for (int r = 0; r < size(); ++r) {
        const int64_t sent = send_counts[count_of(r)] * width;
        const int64_t received = receive_counts[count_of(r)] * width;
        if (r == rank()) {
          copy_bytes(bytes_of(out) + to, bytes_of(in) + from, sent);
        } else {
          send_bytes(bytes_of(in) + from, sent, r);
          receive_bytes(bytes_of(out) + to, received, r);
          bytes_sent_ += sent;
        }
        from += sent;
        to += received;
      }
    });
  });
}

void NcclCommunicator::do_broadcast(Tensor& inout, int root, const Site& site) {
  if (inout.device().is_cpu()) return introduction_->broadcast(inout, root, site);
  check_contiguous(inout);
  check_rank(*this, root);
  if (inout.bytes() == 0) return poll();
  between([&] {
    check(library_.broadcast(inout.raw(), inout.raw(), inout.bytes(), ncclUint8, root, comm_,
                             stream_),
          "ncclBroadcast");
  });
  if (rank() == root) bytes_sent_ += static_cast<int64_t>(inout.bytes()) * (size() - 1);
}

void NcclCommunicator::do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                                       const Site& site) {
  if (send.device().is_cpu()) return introduction_->send_receive(send, to, receive, from, site);
  check_contiguous(send);
  check_contiguous(receive);
  check_rank(*this, to);
  check_rank(*this, from);
  between([&] {
    if (to == rank() && from == rank()) {
      WEFT_CHECK(send.bytes() == receive.bytes(), "{} bytes to itself, expects {}", send.bytes(),
                 receive.bytes());
      return copy_bytes(receive.raw(), send.raw(), static_cast<int64_t>(send.bytes()));
    }
    in_group([&] {
      send_bytes(bytes_of(send), static_cast<int64_t>(send.bytes()), to);
      receive_bytes(bytes_of(receive), static_cast<int64_t>(receive.bytes()), from);
    });
  });
  if (to != rank()) bytes_sent_ += static_cast<int64_t>(send.bytes());
}

// Queued beside the tensors' stream, which is told to wait for them when the caller does.
Pending NcclCommunicator::start(std::function<void(Communicator&)> collectives) {
  gpu_.refuse_in_recording("a collective");
  poll();
  ready_.order(gpu_.stream(), stream_);
  const auto started = std::make_shared<Started>(gpu_, collectives_, std::move(collectives));
  started_ = started.get();
  const Status failure = failure_of([&] { started->run(*this); });
  started_ = nullptr;
  started->record();
  return Pending(std::async(std::launch::deferred, [started, failure] {
    started->finish();
    return failure;
  }));
}

Result<std::unique_ptr<Communicator>> make(std::unique_ptr<Communicator> introduction,
                                           Allocator& memory,
                                           std::shared_ptr<CollectiveStream> stream,
                                           const NcclOptions& options) {
  WEFT_CHECK(!memory.device().is_cpu(), "NCCL moves the tensors of GPUs");
  const Result<const Nccl*> library = nccl();
  ncclUniqueId id{};
  ncclResult_t result = ncclSuccess;
  if (library && introduction->rank() == 0) result = (*library)->get_unique_id(&id);
  // All ranks say whether they can, so that none waits for one that cannot.
  const auto host = make_caching_allocator();
  Tensor able = Tensor::full(*host, {1}, library && result == ncclSuccess ? 1 : 0, DType::kI64);
  introduction->all_reduce(able, ReduceOp::kMin);
  if (!library) return fail(library.error());
  if (result != ncclSuccess) {
    return fail(Code::kUnavailable,
                std::string("ncclGetUniqueId: ") + (*library)->error_text(result));
  }
  if (read_scalar(able) == 0)
    return fail(Code::kUnavailable, "NCCL does not start on another rank");
  Tensor shared =
      Tensor::from<uint8_t>(*host, {int64_t{sizeof id.internal}},
                            {reinterpret_cast<const uint8_t*>(id.internal), sizeof id.internal});
  introduction->broadcast(shared, 0);
  std::memcpy(id.internal, shared.raw(), sizeof id.internal);
  ncclComm_t comm = nullptr;
  cuda::check(cudaSetDevice(memory.device().index), "the choice of the GPU");
  result = (*library)->init_rank(&comm, introduction->size(), id, introduction->rank());
  if (result != ncclSuccess) {
    return fail(Code::kUnavailable,
                std::string("NCCL does not start: ") + (*library)->error_text(result));
  }
  return std::make_unique<NcclCommunicator>(**library, std::move(introduction), memory, comm,
                                            std::move(stream), options);
}

}  // namespace

Result<std::unique_ptr<Communicator>> make_nccl_communicator(
    std::unique_ptr<Communicator> introduction, Allocator& memory, const NcclOptions& options) {
  cuda::check(cudaSetDevice(memory.device().index), "the choice of the GPU");
  return make(std::move(introduction), memory, std::make_shared<CollectiveStream>(), options);
}

}  // namespace weft::comm
