#include "cluster/comm/mpi/lanes.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/base/status.h"

namespace weft::comm {
namespace {

// Messages of a tag between two ranks arrive in the order of their posting.
enum Tag : int { kPieceTag, kOfferTag, kAnswerTag };

// The answer to an offer is how many bytes were read, or this: do not offer again.
constexpr int64_t kUnreadable = -1;

constexpr size_t kPart = size_t{512} << 10;  // bytes read at once; two fit the second cache

bool complete(MPI_Request& request) {
  int flag = 0;
  check_mpi(MPI_Test(&request, &flag, MPI_STATUS_IGNORE), "MPI_Test");
  return flag != 0;
}

void post_send(const void* data, size_t bytes, int rank, Tag tag, MPI_Comm comm,
               MPI_Request& request) {
  check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, rank, tag, comm, &request),
            "MPI_Isend");
}

void post_receive(void* data, size_t bytes, int rank, Tag tag, MPI_Comm comm,
                  MPI_Request& request) {
  check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, rank, tag, comm, &request),
            "MPI_Irecv");
}

}  // namespace

bool Pieces::oldest_complete() { return done != posted && complete(request(done)); }

Outgoing::Outgoing(MPI_Comm comm, PeerMemory& memory, const Message& message)
    : comm_(comm),
      memory_(memory),
      message_(message),
      pieces_(0, message.bytes),
      offered_(memory.offers_to(message.rank, message.bytes)) {
  if (!offered_) return;
  offer_ = offer_of(message.data, message.bytes);
  post_receive(&answer_, sizeof answer_, message_.rank, kAnswerTag, comm_, requests_[0]);
  post_send(&offer_, sizeof offer_, message_.rank, kOfferTag, comm_, requests_[1]);
}

bool Outgoing::answered() {
  int both = 0;
  check_mpi(MPI_Testall(2, requests_.data(), &both, MPI_STATUSES_IGNORE), "MPI_Testall");
  if (both == 0) return false;
  if (answer_ == kUnreadable) memory_.stop_offers_to(message_.rank);
  offered_ = false;
  pieces_ = Pieces(static_cast<size_t>(std::max<int64_t>(answer_, 0)), message_.bytes);
  return true;
}

bool Outgoing::advance() {
  if (offered_) return answered();
  for (; pieces_.can_post(); ++pieces_.posted) {
    post_send(message_.data + pieces_.offset(pieces_.posted), pieces_.length(pieces_.posted),
              message_.rank, kPieceTag, comm_, pieces_.request(pieces_.posted));
  }
  if (!pieces_.oldest_complete()) return false;
  ++pieces_.done;
  return true;
}

Incoming::Incoming(MPI_Comm comm, PeerMemory& memory, const Message& message, const Fold& fold,
                   std::vector<std::byte>& aside)
    : comm_(comm),
      memory_(memory),
      message_(message),
      fold_(fold),
      aside_(aside),
      stage_(memory.offered_by(message.rank, message.bytes) ? Stage::kOffer : Stage::kPieces),
      pieces_(0, message.bytes) {
  if (stage_ == Stage::kOffer) {
    post_receive(&offer_, sizeof offer_, message_.rank, kOfferTag, comm_, request_);
  }
}

bool Incoming::advance() {
  switch (stage_) {
    case Stage::kOffer:
      return take_offer();
    case Stage::kRead:
      return read_part();
    case Stage::kAnswer:
      if (!complete(request_)) return false;
      stage_ = Stage::kPieces;
      return true;
    case Stage::kPieces:
      return receive_piece();
  }
  return false;
}

bool Incoming::take_offer() {
  if (!complete(request_)) return false;
  if (offer_.bytes != message_.bytes) {
    lose_mpi_world();
    throw StatusError(
        Status(Code::kUnavailable, fmt::format("rank {} sends {} bytes, expected were {}",
                                               message_.rank, offer_.bytes, message_.bytes)));
  }
  if (memory_.readable(message_.rank, offer_)) {
    if (fold_ && aside_.size() < kPart) aside_.resize(kPart);
    stage_ = Stage::kRead;
    return true;
  }
  memory_.stop_offers_by(message_.rank);
  answer(kUnreadable);
  return true;
}

void Incoming::answer(int64_t bytes) {
  answer_ = bytes;
  pieces_ = Pieces(static_cast<size_t>(std::max<int64_t>(bytes, 0)), message_.bytes);
  post_send(&answer_, sizeof answer_, message_.rank, kAnswerTag, comm_, request_);
  stage_ = Stage::kAnswer;
}

bool Incoming::read_part() {
  const size_t bytes = std::min(kPart, message_.bytes - read_);
  std::byte* landing = fold_ ? aside_.data() : message_.data + read_;
  const bool there = PeerMemory::read(offer_, read_, bytes, landing);
  if (there) {
    if (fold_) fold_(landing, read_, bytes);
    read_ += bytes;
  }
  if (!there || read_ == message_.bytes) answer(static_cast<int64_t>(read_));
  return true;
}

bool Incoming::receive_piece() {
  if (fold_ && pieces_.count != 0 && aside_.size() < kWindow * kPiece) {
    aside_.resize(kWindow * kPiece);
  }
  const auto landing = [&](size_t index) {
    return fold_ ? aside_.data() + index % kWindow * kPiece : message_.data + pieces_.offset(index);
  };
  for (; pieces_.can_post(); ++pieces_.posted) {
    post_receive(landing(pieces_.posted), pieces_.length(pieces_.posted), message_.rank, kPieceTag,
                 comm_, pieces_.request(pieces_.posted));
  }
  if (!pieces_.oldest_complete()) return false;
  if (fold_) {
    fold_(landing(pieces_.done), pieces_.offset(pieces_.done), pieces_.length(pieces_.done));
  }
  ++pieces_.done;
  return true;
}

}  // namespace weft::comm
