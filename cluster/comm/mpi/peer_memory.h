// What a rank sends to a rank of its host is not sent: the receiver reads it where it lies, with
// process_vm_readv, in fewer and larger parts than the library would, and adds it up while it is in
// the nearest cache. All that travels is where it lies and how much of it was read.
//
// Thread safety: one thread at a time. Errors: none; what cannot be read is told, and sent.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace weft::comm {

// Where a message lies. `mark` stands at `mark_address` of the process, so that no other process of
// that number (in a namespace of its own) is read instead.
struct Offer {
  int64_t process = 0;
  uint64_t address = 0, bytes = 0, mark_address = 0, mark = 0;
};

// Once, after MPI_Init: a collective of all ranks. A host, as MPI has it, is what one daemon
// started.
void find_ranks_of_this_host();

Offer offer_of(const std::byte* data, size_t bytes);

// Of a communicator: with whom messages are offered. Both ranks know alike.
class PeerMemory {
 public:
  static constexpr size_t kBytesMin = size_t{16} << 10;  // more than that is offered

  explicit PeerMemory(MPI_Comm comm);

  bool offers_to(int rank, size_t bytes) const;
  bool offered_by(int rank, size_t bytes) const;
  // Once the receiver has answered that it cannot read the sender's memory.
  void stop_offers_to(int rank) { sends_[static_cast<size_t>(rank)] = Way::kSent; }
  void stop_offers_by(int rank) { receives_[static_cast<size_t>(rank)] = Way::kSent; }

  // Whether this process may read that of the offer, which `rank` made.
  bool readable(int rank, const Offer& offer);
  // Bytes [offset, offset + bytes) of what is offered; false: not all of them can be read.
  static bool read(const Offer& offer, size_t offset, size_t bytes, std::byte* into);

 private:
  enum class Way : uint8_t { kSent, kOffered, kProven };
  std::vector<Way> sends_, receives_;  // by rank
};

}  // namespace weft::comm
