// What every transport checks of its arguments; a wrong one is our own mistake. And start() of
// those that have nobody else to run it.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <numeric>
#include <span>

#include "worker/parallel/communicator.h"

namespace weft::comm {

inline int64_t total(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

inline void check_contiguous(const Tensor& tensor) {
  WEFT_CHECK(tensor && tensor.contiguous(), "a collective's tensor is contiguous");
}

inline void check_rank(const Communicator& comm, int rank) {
  WEFT_CHECK(rank >= 0 && rank < comm.size(), "rank {} of {}", rank, comm.size());
}

// `whole` is cut into one part a rank, `part` is this rank's.
inline void check_parts(const Communicator& comm, const Tensor& part, const Tensor& whole,
                        std::span<const int64_t> counts) {
  check_contiguous(part);
  check_contiguous(whole);
  WEFT_CHECK(part.dtype() == whole.dtype(), "one dtype");
  WEFT_CHECK(std::ssize(counts) == comm.size(), "{} counts of {} ranks", counts.size(),
             comm.size());
  const int64_t own = counts[static_cast<size_t>(comm.rank())];
  WEFT_CHECK(part.elements() == own, "{} elements, count {}", part.elements(), own);
  WEFT_CHECK(whole.elements() == total(counts), "{} elements, counts {}", whole.elements(),
             total(counts));
}

inline void check_exchange(const Communicator& comm, const Tensor& in,
                           std::span<const int64_t> send_counts, const Tensor& out,
                           std::span<const int64_t> receive_counts) {
  check_contiguous(in);
  check_contiguous(out);
  WEFT_CHECK(in.dtype() == out.dtype(), "one dtype");
  WEFT_CHECK(std::ssize(send_counts) == comm.size() && std::ssize(receive_counts) == comm.size(),
             "one count a rank");
  WEFT_CHECK(in.elements() == total(send_counts) && out.elements() == total(receive_counts),
             "{} and {} elements", in.elements(), out.elements());
}

// start() by the calling thread.
inline Pending done_at_once(Communicator& comm,
                            const std::function<void(Communicator&)>& collectives) {
  std::promise<Status> outcome;
  outcome.set_value(failure_of([&] { collectives(comm); }));
  return Pending(outcome.get_future());
}

}  // namespace weft::comm
