#include "cluster/comm/mpi/mpi_communicator.h"

#include <array>
#include <cstring>
#include <numeric>
#include <optional>

#include "cluster/comm/arguments.h"
#include "cluster/comm/reduce_elements.h"
#include "worker/parallel/mesh.h"

namespace weft::comm {
namespace {

constexpr size_t kSmallBytes = size_t{16} << 10;
constexpr int kSmallRanks = 16;

std::byte* bytes_of(const Tensor& tensor) { return static_cast<std::byte*>(tensor.raw()); }

std::vector<size_t> in_bytes(std::span<const int64_t> counts, DType dtype) {
  std::vector<size_t> bytes;
  for (int64_t count : counts) bytes.push_back(static_cast<size_t>(count) * size_of(dtype));
  return bytes;
}

// Offset of part `index`.
size_t before(std::span<const size_t> part_bytes, int index) {
  return std::accumulate(part_bytes.begin(), part_bytes.begin() + index, size_t{0});
}

}  // namespace

MpiCommunicator::MpiCommunicator(MPI_Comm comm, std::shared_ptr<CommunicationThread> thread)
    : comm_(comm), thread_(std::move(thread)), transfer_(comm) {
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

MpiCommunicator::~MpiCommunicator() {
  // What was started and never waited for belongs to a rank that gives up.
  if (!thread_->idle()) lose_mpi_world();
  thread_->call([&] {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized == 0 && !mpi_world_lost()) MPI_Comm_free(&comm_);
  });
}

Pending MpiCommunicator::start(std::function<void(Communicator&)> collectives) {
  return Pending(thread_->start([this, run = std::move(collectives)] { run(*this); }));
}

void MpiCommunicator::call(const std::function<void(Communicator&)>& collectives) {
  thread_->call([&] { collectives(*this); });
}

std::unique_ptr<Communicator> MpiCommunicator::do_split(int color, int key, const char*,
                                                        const Site&) {
  std::unique_ptr<Communicator> result;
  thread_->call([&] {
    barrier();  // waits politely; MPI_Comm_split itself spins
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    check_mpi(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    result = std::make_unique<MpiCommunicator>(part, thread_);
  });
  return result;
}

void MpiCommunicator::all_reduce_small(std::byte* inout, size_t bytes, DType dtype, ReduceOp op) {
  small_.resize(static_cast<size_t>(size_) * kSmallBytes);
  const auto term = [&](int rank) {
    return small_.data() + static_cast<size_t>(rank) * kSmallBytes;
  };
  std::vector<MPI_Request> requests(static_cast<size_t>(2 * (size_ - 1)), MPI_REQUEST_NULL);
  size_t next = 0;
  const int count = static_cast<int>(bytes);
  for (int shift = 1; shift < size_; ++shift) {
    const int from = neighbour(-shift);
    check_mpi(MPI_Irecv(term(from), count, MPI_BYTE, from, 0, comm_, &requests[next++]),
              "MPI_Irecv");
  }
  std::memcpy(term(rank_), inout, bytes);
  for (int shift = 1; shift < size_; ++shift) {
    const int to = neighbour(shift);
    check_mpi(MPI_Isend(term(rank_), count, MPI_BYTE, to, 0, comm_, &requests[next++]),
              "MPI_Isend");
  }
  wait_all(requests);
  transfer_.count_sent(bytes * static_cast<size_t>(size_ - 1));
  const auto elements = static_cast<int64_t>(bytes / size_of(dtype));
  std::vector<const void*> terms;
  for (int r = 0; r < size_; ++r) terms.push_back(term(r));
  reduce_terms(inout, terms, elements, dtype, op);
}

void MpiCommunicator::sum_parts(std::byte* whole, std::span<const size_t> part_bytes,
                                std::byte* into, DType dtype, ReduceOp op) {
  const size_t width = size_of(dtype), own = part_bytes[static_cast<size_t>(rank_)];
  std::optional<HalfSum> half;
  if (is_half(dtype) && op == ReduceOp::kSum && size_ > 2) {  // two terms are rounded once anyway
    half.emplace(into, static_cast<int64_t>(own / width), dtype);
  }
  const auto fold = [&](const std::byte* piece, size_t offset, size_t bytes) {
    const auto count = static_cast<int64_t>(bytes / width);
    if (half) return half->add(piece, static_cast<int64_t>(offset / width), count);
    reduce_elements(into + offset, piece, count, dtype, op);
  };
  for (int shift = 1; shift < size_; ++shift) {
    const int to = neighbour(shift);
    transfer_.exchange({whole + before(part_bytes, to), part_bytes[static_cast<size_t>(to)], to},
                       {into, own, neighbour(-shift)}, fold);
  }
  if (half) half->finish();
}

void MpiCommunicator::gather_parts(std::byte* whole, std::span<const size_t> part_bytes) {
  std::byte* own = whole + before(part_bytes, rank_);
  for (int shift = 1; shift < size_; ++shift) {
    const int from = neighbour(-shift);
    transfer_.exchange(
        {own, part_bytes[static_cast<size_t>(rank_)], neighbour(shift)},
        {whole + before(part_bytes, from), part_bytes[static_cast<size_t>(from)], from});
  }
}

void MpiCommunicator::do_all_reduce(Tensor& inout, ReduceOp op, const Site&) {
  check_contiguous(inout);
  check_reducible(inout.dtype());
  thread_->call([&] {
    if (size_ == 1 || inout.bytes() == 0) return;
    if (inout.bytes() <= kSmallBytes && size_ <= kSmallRanks) {
      all_reduce_small(bytes_of(inout), inout.bytes(), inout.dtype(), op);
      return;
    }
    std::vector<int64_t> counts;
    for (int r = 0; r < size_; ++r) counts.push_back(part_of(inout.elements(), size_, r).length);
    const std::vector<size_t> parts = in_bytes(counts, inout.dtype());
    sum_parts(bytes_of(inout), parts, bytes_of(inout) + before(parts, rank_), inout.dtype(), op);
    gather_parts(bytes_of(inout), parts);
  });
}

void MpiCommunicator::do_all_gather(const Tensor& in, Tensor& out, std::span<const int64_t> counts,
                                    const Site&) {
  check_parts(*this, in, out, counts);
  const std::vector<size_t> parts = in_bytes(counts, in.dtype());
  thread_->call([&] {
    if (in.bytes() != 0) std::memmove(bytes_of(out) + before(parts, rank_), in.raw(), in.bytes());
    gather_parts(bytes_of(out), parts);
  });
}

void MpiCommunicator::do_reduce_scatter(const Tensor& in, Tensor& out,
                                        std::span<const int64_t> counts, const Site&) {
  check_parts(*this, out, in, counts);
  check_reducible(in.dtype());
  const std::vector<size_t> parts = in_bytes(counts, in.dtype());
  thread_->call([&] {
    if (out.bytes() != 0) std::memcpy(out.raw(), bytes_of(in) + before(parts, rank_), out.bytes());
    sum_parts(bytes_of(in), parts, bytes_of(out), in.dtype(), ReduceOp::kSum);
  });
}

void MpiCommunicator::do_all_to_all(const Tensor& in, std::span<const int64_t> send_counts,
                                    Tensor& out, std::span<const int64_t> receive_counts,
                                    const Site&) {
  check_exchange(*this, in, send_counts, out, receive_counts);
  const std::vector<size_t> sent = in_bytes(send_counts, in.dtype());
  const std::vector<size_t> received = in_bytes(receive_counts, in.dtype());
  const auto self = static_cast<size_t>(rank_);
  WEFT_CHECK(sent[self] == received[self], "{} bytes to itself, expects {}", sent[self],
             received[self]);
  thread_->call([&] {
    if (sent[self] != 0) {
      std::memcpy(bytes_of(out) + before(received, rank_), bytes_of(in) + before(sent, rank_),
                  sent[self]);
    }
    for (int shift = 1; shift < size_; ++shift) {
      const int to = neighbour(shift), from = neighbour(-shift);
      transfer_.exchange(
          {bytes_of(in) + before(sent, to), sent[static_cast<size_t>(to)], to},
          {bytes_of(out) + before(received, from), received[static_cast<size_t>(from)], from});
    }
  });
}

// A binomial tree over the places counted from the root.
void MpiCommunicator::do_broadcast(Tensor& inout, int root, const Site&) {
  check_contiguous(inout);
  check_rank(*this, root);
  const int place = (rank_ - root + size_) % size_;
  const auto rank_at = [&](int other) { return (other + root) % size_; };
  int step = 1;
  while (step < size_ && (place & step) == 0) step *= 2;
  thread_->call([&] {
    if (place != 0) {
      transfer_.exchange({}, {bytes_of(inout), inout.bytes(), rank_at(place - step)});
    }
    for (step /= 2; step > 0; step /= 2) {
      if (place + step < size_) {
        transfer_.exchange({bytes_of(inout), inout.bytes(), rank_at(place + step)}, {});
      }
    }
  });
}

void MpiCommunicator::do_send_receive(const Tensor& send, int to, Tensor& receive, int from,
                                      const Site&) {
  check_contiguous(send);
  check_contiguous(receive);
  check_rank(*this, to);
  check_rank(*this, from);
  if (to == rank_ && from == rank_) {
    WEFT_CHECK(send.bytes() == receive.bytes(), "{} bytes to itself", send.bytes());
    if (send.bytes() != 0) std::memmove(receive.raw(), send.raw(), send.bytes());
    return;
  }
  thread_->call([&] {
    transfer_.exchange({bytes_of(send), send.bytes(), to},
                       {bytes_of(receive), receive.bytes(), from});
  });
}

// Dissemination (Hensgen et al. 1988): after round k everybody has heard of 2^k others.
void MpiCommunicator::do_barrier(const Site&) {
  thread_->call([&] {
    for (int step = 1; step < size_; step *= 2) {
      std::array<MPI_Request, 2> requests;
      check_mpi(MPI_Irecv(nullptr, 0, MPI_BYTE, neighbour(-step), 0, comm_, &requests[0]),
                "MPI_Irecv");
      check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, neighbour(step), 0, comm_, &requests[1]),
                "MPI_Isend");
      wait_all(requests);
    }
  });
}

}  // namespace weft::comm
