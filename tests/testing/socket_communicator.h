// Ranks that are processes of one machine and hold a socket to each other one: the way over which
// ranks on a GPU are introduced to each other where there is no MPI. Every collective sends all
// that the others need at once, sums are of all ranks' terms in rank order; nothing is done for
// speed.
//
// Thread safety and errors: as Communicator; a peer that has ended is StatusError(kUnavailable), as
// soon as something is to be sent to it or waited for from it. start() runs at once.
#pragma once

#include <memory>
#include <vector>

#include "worker/parallel/communicator.h"

namespace weft::testing {

// sockets[r] leads to rank r, and is owned from now on; sockets[rank] is not looked at.
std::unique_ptr<Communicator> make_socket_communicator(int rank, const std::vector<int>& sockets);

}  // namespace weft::testing
