#include "tests/cluster/comm/mismatch_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

struct MismatchCase {
  const char* name;
  const char* differs;
  // What one rank calls; `odd`: the one that strays.
  void (*call)(Communicator& comm, Allocator& allocator, bool odd);
};

void reduce(Communicator& comm, Allocator& allocator, int64_t count, DType dtype, ReduceOp op) {
  Tensor tensor = Tensor::zeros(allocator, {count}, dtype);
  comm.all_reduce(tensor, op);
}

const MismatchCase kCases[] = {
    {"operation", "operation",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       if (odd) return comm.barrier();
       reduce(comm, allocator, 8, DType::kF32, ReduceOp::kSum);
     }},
    {"skipped", "operation",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       comm.barrier();
       if (!odd) reduce(comm, allocator, 8, DType::kF32, ReduceOp::kSum);
       comm.barrier();
     }},
    {"elements", "elements (100000 and 99999)",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       reduce(comm, allocator, odd ? 99'999 : 100'000, DType::kF32, ReduceOp::kSum);
     }},
    {"dtype", "dtype",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       reduce(comm, allocator, 8, odd ? DType::kF64 : DType::kF32, ReduceOp::kSum);
     }},
    {"kind", "root or kind (0 and 1)",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       reduce(comm, allocator, 8, DType::kF32, odd ? ReduceOp::kMax : ReduceOp::kSum);
     }},
    {"counts", "counts (5 and 4 of rank 0 of the group)",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       std::vector<int64_t> counts(static_cast<size_t>(comm.size()), 5);
       if (odd) --counts.front(), ++counts.back();
       const int64_t own = counts[static_cast<size_t>(comm.rank())];
       Tensor all = Tensor::zeros(allocator, {int64_t{5} * comm.size()});
       comm.all_gather(Tensor::zeros(allocator, {own}), all, counts);
     }},
    {"exchange", "the first sends 3 elements, the second expects 2 elements",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       const std::vector<int64_t> sent(static_cast<size_t>(comm.size()), 3);
       std::vector<int64_t> received = sent;
       if (odd) received.front() = 2;
       Tensor out = Tensor::zeros(allocator, {int64_t{3} * comm.size() - (odd ? 1 : 0)});
       comm.all_to_all(Tensor::zeros(allocator, {int64_t{3} * comm.size()}), sent, out, received);
     }},
    {"shift", "the first sends 4 elements, the second expects 7 elements",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       const int size = comm.size(), next = (comm.rank() + 1) % size;
       Tensor received = Tensor::zeros(allocator, {odd ? 7 : 4});
       comm.start_send_receive(Tensor::zeros(allocator, {4}), next, received,
                               (comm.rank() + size - 1) % size)
           .wait();
     }},
    {"split", "operation",
     [](Communicator& comm, Allocator& allocator, bool odd) {
       const auto part = comm.split(0, comm.rank(), "part");
       if (odd) return (void)part->split(0, 0);
       reduce(*part, allocator, 8, DType::kF32, ReduceOp::kSum);
     }},
};

void expect_told(const MismatchCase& which, Communicator& comm, Allocator& allocator) {
  SCOPED_TRACE(which.name);
  const int odd = comm.size() - 1;
  std::string told;
  const auto start = std::chrono::steady_clock::now();
  try {
    which.call(comm, allocator, comm.rank() == odd);
  } catch (const StatusError& error) {
    told = error.status().to_string();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_THAT(told, AllOf(HasSubstr(which.differs), HasSubstr(std::to_string(odd) + " calls"),
                          ContainsRegex("rank [0-9]+ calls .* at .*mismatch_cases.cc:[0-9]+.*; "
                                        "rank [0-9]+ calls .* at .*mismatch_cases.cc:[0-9]+")));
  // A rank that goes on all the same gets no further.
  EXPECT_THROW(comm.barrier(), StatusError);
  EXPECT_THROW(comm.start([](Communicator&) {}), StatusError);
}

}  // namespace

void expect_mismatches_told(const std::function<std::unique_ptr<Communicator>()>& fresh) {
  const auto allocator = make_caching_allocator();
  for (const MismatchCase& which : kCases) {
    Activity activity;
    const auto comm = comm::watched(fresh(), activity, {.compare = true});
    if (comm->size() < 2) continue;
    expect_told(which, *comm, *allocator);
  }
}

}  // namespace weft::testing
