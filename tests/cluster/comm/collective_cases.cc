#include "tests/cluster/comm/collective_cases.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "worker/parallel/mesh.h"

namespace weft::testing {
namespace {

// The element that rank `rank` holds at `index`: small integers, so that every sum is exact.
template <typename T>
T value(int rank, int64_t index) {
  return static_cast<T>(static_cast<int64_t>((rank * 31 + index * 7) % 23));
}

template <typename T>
Tensor filled(Allocator& allocator, int64_t count, int rank) {
  Tensor tensor = Tensor::empty(allocator, {count}, DTypeOf<T>::value);
  for (int64_t i = 0; i < count; ++i) tensor.data<T>()[i] = value<T>(rank, i);
  return tensor;
}

int64_t sum_of(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Uneven counts, some zero; `scale` makes several pieces of a message.
std::vector<int64_t> uneven(int size, int64_t scale) {
  std::vector<int64_t> counts;
  for (int r = 0; r < size; ++r) counts.push_back(r % 3 == 1 ? 0 : scale * (r + 1) + r);
  return counts;
}

const std::vector<int64_t> kCounts = {0, 1, 5, 1000, 5000, 300'001};

template <typename T>
void expect_reduced(Communicator& comm, Allocator& allocator, int64_t count, ReduceOp op) {
  Tensor tensor = filled<T>(allocator, count, comm.rank());
  comm.all_reduce(tensor, op);
  for (int64_t i = 0; i < count; ++i) {
    T expected = value<T>(0, i);
    for (int r = 1; r < comm.size(); ++r) {
      const T term = value<T>(r, i);
      if (op == ReduceOp::kSum) expected = static_cast<T>(expected + term);
      if (op == ReduceOp::kMax && term > expected) expected = term;
      if (op == ReduceOp::kMin && term < expected) expected = term;
    }
    ASSERT_EQ(tensor.data<T>()[i], expected) << "count " << count << " index " << i;
  }
}

void all_reduce(Communicator& comm, Allocator& allocator) {
  for (int64_t count : kCounts) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
      expect_reduced<float>(comm, allocator, count, op);
      expect_reduced<double>(comm, allocator, count, op);
      expect_reduced<int64_t>(comm, allocator, count, op);
      expect_reduced<bfloat16>(comm, allocator, count, op);
      expect_reduced<float16>(comm, allocator, count, op);
    }
  }
}

// One large term and a small one from every rank: the small ones count only if the sum is rounded
// once, at the end.
template <typename T>
void expect_one_rounding(Communicator& comm, Allocator& allocator, float large, float small) {
  for (int64_t count : {int64_t{8}, int64_t{40'000}}) {
    const float term = comm.rank() == 0 ? large : small;
    std::vector<T> terms(static_cast<size_t>(count), static_cast<T>(term));
    Tensor sum = Tensor::from<T>(allocator, {count}, terms);
    comm.all_reduce(sum, ReduceOp::kSum);
    const float exact = large + static_cast<float>(comm.size() - 1) * small;
    for (const T value : sum.to_vector<T>()) ASSERT_EQ(value, static_cast<T>(exact));
    std::vector<int64_t> counts;
    for (int r = 0; r < comm.size(); ++r) counts.push_back(part_of(count, comm.size(), r).length);
    Tensor part = Tensor::empty(allocator, {counts[static_cast<size_t>(comm.rank())]}, sum.dtype());
    comm.reduce_scatter(Tensor::from<T>(allocator, {count}, terms), part, counts);
    for (const T value : part.to_vector<T>()) ASSERT_EQ(value, static_cast<T>(exact));
  }
}

void half_sums_round_once(Communicator& comm, Allocator& allocator) {
  expect_one_rounding<bfloat16>(comm, allocator, 256.0F, 0.75F);
  expect_one_rounding<float16>(comm, allocator, 4096.0F, 1.5F);
}

// Rounding shows the order: the same bits on every rank and each time.
void sums_repeat(Communicator& comm, Allocator& allocator) {
  for (int64_t count : {int64_t{700}, int64_t{100'003}}) {
    const auto once = [&] {
      Tensor tensor = Tensor::empty(allocator, {count});
      for (int64_t i = 0; i < count; ++i) {
        tensor.data<float>()[i] = std::sin(static_cast<float>(i * 13 + comm.rank() * 7919));
      }
      comm.all_reduce(tensor, ReduceOp::kSum);
      return tensor.to_vector<float>();
    };
    const std::vector<float> first = once();
    EXPECT_EQ(first, once());
    Tensor mine = Tensor::from<float>(allocator, {count}, first);
    Tensor roots = Tensor::from<float>(allocator, {count}, first);
    comm.broadcast(roots, comm.size() - 1);
    EXPECT_EQ(mine.to_vector<float>(), roots.to_vector<float>());
  }
}

void expect_nan_spreads(Communicator& comm, Allocator& allocator, ReduceOp op) {
  for (int owner = 0; owner < comm.size(); ++owner) {
    Tensor tensor = Tensor::full(allocator, {3}, comm.rank());
    if (comm.rank() == owner) tensor.data<float>()[1] = std::numeric_limits<float>::quiet_NaN();
    comm.all_reduce(tensor, op);
    EXPECT_TRUE(std::isnan(tensor.data<float>()[1]));
    EXPECT_FALSE(std::isnan(tensor.data<float>()[0]));
  }
}

void nan_spreads(Communicator& comm, Allocator& allocator) {
  expect_nan_spreads(comm, allocator, ReduceOp::kSum);
}

void nan_is_extreme(Communicator& comm, Allocator& allocator) {
  expect_nan_spreads(comm, allocator, ReduceOp::kMax);
  expect_nan_spreads(comm, allocator, ReduceOp::kMin);
}

template <typename T>
void expect_gathered(Communicator& comm, Allocator& allocator, int64_t scale) {
  const std::vector<int64_t> counts = uneven(comm.size(), scale);
  const Tensor in = filled<T>(allocator, counts[static_cast<size_t>(comm.rank())], comm.rank());
  Tensor out = Tensor::empty(allocator, {sum_of(counts)}, DTypeOf<T>::value);
  comm.all_gather(in, out, counts);
  int64_t at = 0;
  for (int r = 0; r < comm.size(); ++r) {
    for (int64_t i = 0; i < counts[static_cast<size_t>(r)]; ++i, ++at) {
      ASSERT_EQ(out.data<T>()[at], value<T>(r, i)) << "rank " << r << " index " << i;
    }
  }
}

void all_gather(Communicator& comm, Allocator& allocator) {
  for (int64_t scale : {0, 1, 70'000}) {
    expect_gathered<float>(comm, allocator, scale);
    expect_gathered<double>(comm, allocator, scale);
    expect_gathered<int64_t>(comm, allocator, scale);
    expect_gathered<int32_t>(comm, allocator, scale);
    expect_gathered<uint8_t>(comm, allocator, scale);
    expect_gathered<bfloat16>(comm, allocator, scale);
  }
}

template <typename T>
void expect_scattered(Communicator& comm, Allocator& allocator, int64_t scale) {
  const std::vector<int64_t> counts = uneven(comm.size(), scale);
  const Tensor in = filled<T>(allocator, sum_of(counts), comm.rank());
  const int64_t own = counts[static_cast<size_t>(comm.rank())];
  Tensor out = Tensor::empty(allocator, {own}, DTypeOf<T>::value);
  comm.reduce_scatter(in, out, counts);
  const int64_t start = std::accumulate(counts.begin(), counts.begin() + comm.rank(), int64_t{0});
  for (int64_t i = 0; i < own; ++i) {
    T expected = 0;
    for (int r = 0; r < comm.size(); ++r) expected += value<T>(r, start + i);
    ASSERT_EQ(out.data<T>()[i], expected) << "index " << i;
  }
}

void reduce_scatter(Communicator& comm, Allocator& allocator) {
  for (int64_t scale : {0, 1, 70'000}) {
    expect_scattered<float>(comm, allocator, scale);
    expect_scattered<double>(comm, allocator, scale);
    expect_scattered<int64_t>(comm, allocator, scale);
  }
}

// Rank a sends (2a + 3b) % 5 * scale elements to rank b.
int64_t exchanged(int from, int to, int64_t scale) { return (2 * from + 3 * to) % 5 * scale; }

template <typename T>
void expect_exchanged(Communicator& comm, Allocator& allocator, int64_t scale) {
  std::vector<int64_t> sent, received;
  for (int r = 0; r < comm.size(); ++r) {
    sent.push_back(exchanged(comm.rank(), r, scale));
    received.push_back(exchanged(r, comm.rank(), scale));
  }
  const Tensor in = filled<T>(allocator, sum_of(sent), comm.rank());
  Tensor out = Tensor::empty(allocator, {sum_of(received)}, DTypeOf<T>::value);
  comm.all_to_all(in, sent, out, received);
  int64_t at = 0;
  for (int r = 0; r < comm.size(); ++r) {
    int64_t start = 0;
    for (int to = 0; to < comm.rank(); ++to) start += exchanged(r, to, scale);
    for (int64_t i = 0; i < received[static_cast<size_t>(r)]; ++i, ++at) {
      ASSERT_EQ(out.data<T>()[at], value<T>(r, start + i)) << "from " << r << " index " << i;
    }
  }
}

void all_to_all(Communicator& comm, Allocator& allocator) {
  for (int64_t scale : {0, 1, 90'000}) {
    expect_exchanged<float>(comm, allocator, scale);
    expect_exchanged<int64_t>(comm, allocator, scale);
    expect_exchanged<uint8_t>(comm, allocator, scale);
  }
}

void broadcast(Communicator& comm, Allocator& allocator) {
  for (int64_t count : kCounts) {
    for (int root = 0; root < comm.size(); ++root) {
      Tensor tensor = filled<double>(allocator, count, comm.rank() == root ? 40 + root : 0);
      comm.broadcast(tensor, root);
      const Tensor expected = filled<double>(allocator, count, 40 + root);
      EXPECT_EQ(tensor.to_vector<double>(), expected.to_vector<double>());
    }
  }
}

// Every shift around the ring, each rank with a length of its own; zero is one of them.
void send_receive(Communicator& comm, Allocator& allocator) {
  const int size = comm.size();
  for (int64_t scale : {1, 100'000}) {
    for (int shift = 0; shift < size; ++shift) {
      const int to = (comm.rank() + shift) % size, from = (comm.rank() - shift + size) % size;
      const Tensor mine = filled<float>(allocator, comm.rank() * scale, comm.rank());
      Tensor other = Tensor::empty(allocator, {from * scale});
      comm.send_receive(mine, to, other, from);
      EXPECT_EQ(other.to_vector<float>(),
                filled<float>(allocator, from * scale, from).to_vector<float>());
    }
  }
}

void counts_bytes(Communicator& comm, Allocator& allocator) {
  const int64_t before = comm.bytes_sent();
  std::vector<int64_t> counts(static_cast<size_t>(comm.size()), 100);
  const Tensor in = filled<float>(allocator, 100, 0);
  Tensor out = Tensor::empty(allocator, {100 * comm.size()});
  comm.all_gather(in, out, counts);
  EXPECT_EQ(comm.bytes_sent() - before, 400 * (comm.size() - 1));
}

void split(Communicator& comm, Allocator& allocator) {
  // Two colors; keys turn the order around.
  const int color = comm.rank() % 2;
  std::unique_ptr<Communicator> half = comm.split(color, -comm.rank());
  const int members = (comm.size() + 1 - color) / 2;
  ASSERT_EQ(half->size(), members);
  EXPECT_EQ(half->rank(), members - 1 - comm.rank() / 2);
  Tensor tensor = Tensor::full(allocator, {2}, comm.rank(), DType::kI64);
  half->all_reduce(tensor, ReduceOp::kSum);
  int64_t expected = 0;
  for (int r = color; r < comm.size(); r += 2) expected += r;
  EXPECT_EQ(tensor.data<int64_t>()[1], expected);
  // A part of a part, and the whole still works after both are gone.
  half->split(0, half->rank())->barrier();
  half.reset();
  comm.barrier();
}

void mesh(Communicator& comm, Allocator& allocator) {
  const int size = comm.size();
  for (int tensor = 1; tensor <= size; ++tensor) {
    for (int sequence = 1; sequence * tensor <= size; ++sequence) {
      if (size % (tensor * sequence) != 0) continue;
      const MeshDegrees degrees{size / tensor / sequence, sequence, tensor};
      Result<Mesh> made = Mesh::create(comm.split(0, comm.rank()), degrees);
      ASSERT_TRUE(made.has_value());
      const Mesh& m = *made;
      EXPECT_EQ(comm.rank(), (m.index(Axis::kData) * sequence + m.index(Axis::kSequence)) * tensor +
                                 m.index(Axis::kTensor));
      EXPECT_EQ(m.index(Axis::kReplica),
                m.index(Axis::kData) * sequence + m.index(Axis::kSequence));
      EXPECT_EQ(m.size(Axis::kReplica), degrees.data * sequence);
      Tensor sum = Tensor::full(allocator, {1}, comm.rank(), DType::kI64);
      m.axis(Axis::kReplica).all_reduce(sum, ReduceOp::kSum);
      m.axis(Axis::kTensor).all_reduce(sum, ReduceOp::kSum);
      EXPECT_EQ(sum.data<int64_t>()[0], size * (size - 1) / 2);
    }
  }
  const Result<Mesh> wrong = Mesh::create(comm.split(0, comm.rank()), {.data = size + 1});
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code(), Code::kInvalidArgument);
}

// Collectives under way on two communicators, one that is called meanwhile, outcomes taken in
// another order: each meets its peers' in the order of the calls.
void started(Communicator& comm, Allocator& allocator) {
  std::unique_ptr<Communicator> other = comm.split(0, -comm.rank());
  std::vector<Tensor> sums;
  std::vector<Pending> pending;
  for (int i = 0; i < 6; ++i) {
    Communicator& on = i % 2 == 0 ? comm : *other;
    Tensor sum = Tensor::full(allocator, {i % 3 == 0 ? 200'000 : 3}, on.rank() + i);
    sums.push_back(sum);
    pending.push_back(
        on.start([sum](Communicator& c) mutable { c.all_reduce(sum, ReduceOp::kSum); }));
  }
  Tensor called = Tensor::full(allocator, {1}, 1, DType::kI64);
  comm.all_reduce(called, ReduceOp::kSum);
  EXPECT_EQ(called.data<int64_t>()[0], comm.size());
  EXPECT_TRUE(pending[0].complete());  // it was started before
  for (int i = 5; i >= 0; --i) {
    pending[static_cast<size_t>(i)].wait();
    pending[static_cast<size_t>(i)].wait();
    const int64_t expected = comm.size() * (comm.size() - 1) / 2 + i * comm.size();
    for (const float value : sums[static_cast<size_t>(i)].to_vector<float>()) {
      ASSERT_EQ(value, static_cast<float>(expected)) << i;
    }
  }
  EXPECT_TRUE(Pending().complete());
}

// What a started piece of work throws comes out where it is waited for; the next one runs.
void started_fails(Communicator& comm, Allocator&) {
  Pending fails =
      comm.start([](Communicator&) { throw StatusError(Status::invalid("a", "b", "c")); });
  Pending next = comm.start([](Communicator& c) { c.barrier(); });
  EXPECT_THROW(fails.wait(), StatusError);
  next.wait();
}

constexpr CollectiveCase kCases[] = {
    {"AllReduce", all_reduce},
    {"SumsRepeat", sums_repeat},
    {"HalfSumsRoundOnce", half_sums_round_once},
    {"NanSpreads", nan_spreads},
    {"NanIsExtreme", nan_is_extreme, true},
    {"AllGather", all_gather},
    {"ReduceScatter", reduce_scatter},
    {"AllToAll", all_to_all},
    {"Broadcast", broadcast},
    {"SendReceive", send_receive},
    {"CountsBytes", counts_bytes},
    {"Split", split},
    {"Mesh", mesh},
    {"Started", started},
    {"StartedFails", started_fails},
};

}  // namespace

std::span<const CollectiveCase> collective_cases() { return kCases; }

}  // namespace weft::testing
