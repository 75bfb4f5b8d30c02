// The suite of collectives over MPI; started by mpirun. `--ranks N` is how many ranks there must
// be. `--half-refused`: every other rank must not read its peers' memory. `--one-gives-up`: no
// suite, but a rank that fails.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <chrono>
#include <cstddef>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "cluster/comm/mpi/transfer.h"
#include "tests/cluster/comm/collective_cases.h"
#include "tests/cluster/comm/mismatch_cases.h"
#include "tests/cluster/comm/mpi_suite.h"

namespace weft {
namespace {

using testing::expect_no_failure;
using testing::mpi;

class Mpi : public ::testing::TestWithParam<testing::CollectiveCase> {};

TEST_P(Mpi, Collective) {
  const auto allocator = make_caching_allocator();
  const auto world = mpi().world();
  GetParam().run(*world, *allocator);
  Activity activity;
  const auto watched = comm::watched(mpi().world(), activity, {.compare = true});
  GetParam().run(*watched, *allocator);
  expect_no_failure(*world, *allocator);
}
INSTANTIATE_TEST_SUITE_P(All, Mpi,
                         ::testing::ValuesIn(testing::collective_cases().begin(),
                                             testing::collective_cases().end()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(MpiMismatch, IsToldByAllRanks) {
  const auto allocator = make_caching_allocator();
  const auto world = mpi().world();
  testing::expect_mismatches_told([] { return mpi().world(); });
  expect_no_failure(*world, *allocator);
}

double processor_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

// The rank's pool could use the core. Of two ranks: more wait alike.
TEST(MpiWait, BurnsNoCoreWhileAPeerIsLate) {
  const auto allocator = make_caching_allocator();
  const auto world = mpi().world();
  if (world->size() != 2) return;
  for (const int64_t count : {int64_t{1}, int64_t{1000}, int64_t{300'000}}) {
    for (const bool started : {false, true}) {
      Tensor tensor = Tensor::full(*allocator, {count}, 1);
      world->barrier();
      if (world->rank() == 0) std::this_thread::sleep_for(std::chrono::seconds(1));
      const double before = processor_seconds();
      if (started) {
        world->start([&](Communicator& c) { c.all_reduce(tensor, ReduceOp::kSum); }).wait();
      } else {
        world->all_reduce(tensor, ReduceOp::kSum);
      }
      EXPECT_LE(processor_seconds() - before, 0.15) << count << " elements, started " << started;
      EXPECT_EQ(tensor.data<float>()[count - 1], static_cast<float>(world->size()));
    }
  }
  expect_no_failure(*world, *allocator);
}

// From now on the calling thread, and those that it makes, may not read other processes' memory.
void refuse_reads() {
  std::vector<sock_filter> rules = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{static_cast<unsigned short>(rules.size()), rules.data()};
  ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// A rank that may read what it is offered, then no longer, is sent the rest.
void expect_rest_is_sent() {
  const int size = mpi().size(), rank = mpi().rank(), from = (rank + size - 1) % size;
  comm::Transfer transfer(MPI_COMM_WORLD);
  const auto message_of = [](int sender) {
    std::vector<std::byte> message((size_t{3} << 20) + 12);
    for (size_t i = 0; i < message.size(); ++i) {
      message[i] = static_cast<std::byte>(i * 7 + i / 1000 + static_cast<size_t>(sender));
    }
    return message;
  };
  std::vector<std::byte> sent = message_of(rank), received(sent.size()), folded;
  const comm::Message to_next{sent.data(), sent.size(), (rank + 1) % size};
  const comm::Message from_last{received.data(), received.size(), from};
  transfer.exchange(to_next, from_last, [&](const std::byte* piece, size_t offset, size_t bytes) {
    EXPECT_EQ(offset, folded.size());
    folded.insert(folded.end(), piece, piece + bytes);
    if (offset == 0) refuse_reads();
  });
  EXPECT_EQ(folded, message_of(from));
  transfer.exchange(to_next, from_last);
  EXPECT_EQ(received, folded);
  EXPECT_EQ(transfer.bytes_sent(), 2 * std::ssize(sent));
}

TEST(MpiTransfer, SendsWhatCannotBeRead) {
  if (mpi().size() == 1) return;
  std::thread([] { mpi().call(expect_rest_is_sent); }).join();  // whom alone the refusal binds
  expect_no_failure(*mpi().world(), *make_caching_allocator());
}

// Rank 1 fails while the others wait for it; abort() must release them.
int one_gives_up() {
  const auto world = mpi().world();
  if (world->rank() == 1) comm::MpiWorld::abort(3);
  world->barrier();
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return weft::testing::run_over_mpi([&] {
    const std::string last = argc > 1 ? argv[argc - 1] : "";
    if (last == "--one-gives-up") return weft::one_gives_up();
    if (last == "--half-refused" && weft::mpi().rank() % 2 == 1) weft::refuse_reads();
    return weft::testing::run_suite(argc, argv);
  });
}
