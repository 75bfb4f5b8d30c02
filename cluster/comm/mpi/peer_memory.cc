#include "cluster/comm/mpi/peer_memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <bit>
#include <numeric>
#include <random>

#include "cluster/comm/mpi/transfer.h"

namespace weft::comm {
namespace {

uint64_t random_mark() {
  std::random_device source;
  return uint64_t{source()} << 32 | source();
}

bool read_memory(const Offer& offer, uint64_t address, size_t bytes, void* into) {
  const iovec here{into, bytes};
  const iovec there{std::bit_cast<void*>(address), bytes};
  const ssize_t count =
      ::process_vm_readv(static_cast<pid_t>(offer.process), &here, 1, &there, 1, 0);
  return count >= 0 && static_cast<size_t>(count) == bytes;
}

MPI_Group host_group = MPI_GROUP_EMPTY;  // of the one world of this process

// By rank: whether it is of this one's host.
std::vector<bool> on_this_host(MPI_Comm comm) {
  int size = 0;
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  std::vector<int> ranks(static_cast<size_t>(size)), places(ranks.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  MPI_Group group = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(comm, &group), "MPI_Comm_group");
  check_mpi(MPI_Group_translate_ranks(group, size, ranks.data(), host_group, places.data()),
            "MPI_Group_translate_ranks");
  MPI_Group_free(&group);
  std::vector<bool> near;
  for (const int place : places) near.push_back(place != MPI_UNDEFINED);
  return near;
}

}  // namespace

Offer offer_of(const std::byte* data, size_t bytes) {
  static const uint64_t mark = random_mark();
  return {.process = ::getpid(),
          .address = std::bit_cast<uint64_t>(data),
          .bytes = bytes,
          .mark_address = std::bit_cast<uint64_t>(&mark),
          .mark = mark};
}

void find_ranks_of_this_host() {
  MPI_Comm host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_group(host, &host_group), "MPI_Comm_group");
  check_mpi(MPI_Comm_free(&host), "MPI_Comm_free");
}

PeerMemory::PeerMemory(MPI_Comm comm) {
  for (const bool near : on_this_host(comm)) sends_.push_back(near ? Way::kOffered : Way::kSent);
  receives_ = sends_;
}

bool PeerMemory::offers_to(int rank, size_t bytes) const {
  return bytes > kBytesMin && sends_[static_cast<size_t>(rank)] != Way::kSent;
}

bool PeerMemory::offered_by(int rank, size_t bytes) const {
  return bytes > kBytesMin && receives_[static_cast<size_t>(rank)] != Way::kSent;
}

bool PeerMemory::readable(int rank, const Offer& offer) {
  Way& way = receives_[static_cast<size_t>(rank)];
  uint64_t mark = ~offer.mark;
  if (way == Way::kOffered && read_memory(offer, offer.mark_address, sizeof mark, &mark) &&
      mark == offer.mark) {
    way = Way::kProven;
  }
  return way == Way::kProven;
}

bool PeerMemory::read(const Offer& offer, size_t offset, size_t bytes, std::byte* into) {
  return read_memory(offer, offer.address + offset, bytes, into);
}

}  // namespace weft::comm
