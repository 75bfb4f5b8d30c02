// The two directions of an exchange between MPI ranks. A message is read by its receiver
// (peer_memory.h), or sent in pieces, several of them under way; what could not be read of an
// offered message is sent.
//
// Thread safety: the thread that calls MPI. Errors: StatusError(kUnavailable). Invariant: finished
// once the message may be changed, or is there; until then advance() is called again.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "cluster/comm/mpi/peer_memory.h"
#include "cluster/comm/mpi/transfer.h"

namespace weft::comm {

inline constexpr size_t kPiece = size_t{256} << 10;  // bytes; a multiple of every element's size
inline constexpr size_t kWindow = 16;                // pieces under way

// Bytes [start, end) of a message; posted in order, finished in order.
struct Pieces {
  Pieces(size_t from, size_t to) : start(from), end(to), count((to - from + kPiece - 1) / kPiece) {}
  bool can_post() const { return posted < count && under_way() < kWindow; }
  bool finished() const { return done == count; }
  size_t under_way() const { return posted - done; }
  bool flow() const { return done > 0 && under_way() > 1; }  // the other end is at it
  size_t offset(size_t index) const { return start + index * kPiece; }
  size_t length(size_t index) const { return std::min(kPiece, end - offset(index)); }
  MPI_Request& request(size_t index) { return requests[index % kWindow]; }
  bool oldest_complete();  // of those under way

  size_t start, end, count;
  size_t posted = 0, done = 0;
  std::array<MPI_Request, kWindow> requests{};
};

class Outgoing {
 public:
  Outgoing(MPI_Comm comm, PeerMemory& memory, const Message& message);
  bool finished() const { return !offered_ && pieces_.finished(); }
  bool flows() const { return pieces_.flow(); }
  bool advance();  // whether anything has changed

 private:
  bool answered();

  const MPI_Comm comm_;
  PeerMemory& memory_;
  const Message message_;
  Pieces pieces_;
  bool offered_;
  Offer offer_;
  int64_t answer_ = 0;
  std::array<MPI_Request, 2> requests_{};
};

class Incoming {
 public:
  Incoming(MPI_Comm comm, PeerMemory& memory, const Message& message, const Fold& fold,
           std::vector<std::byte>& aside);
  bool finished() const { return stage_ == Stage::kPieces && pieces_.finished(); }
  bool flows() const { return pieces_.flow(); }
  bool advance();

 private:
  enum class Stage { kOffer, kRead, kAnswer, kPieces };
  void answer(int64_t bytes);
  bool take_offer();
  bool read_part();
  bool receive_piece();

  const MPI_Comm comm_;
  PeerMemory& memory_;
  const Message message_;
  const Fold& fold_;
  std::vector<std::byte>& aside_;
  Stage stage_;
  Pieces pieces_;
  size_t read_ = 0;  // bytes
  Offer offer_;
  int64_t answer_ = 0;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

}  // namespace weft::comm
