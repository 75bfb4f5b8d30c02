#include "cluster/comm/mpi/mpi_world.h"

#include <mpi.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "cluster/comm/mpi/lanes.h"
#include "cluster/comm/mpi/mpi_communicator.h"

namespace weft::comm {
namespace {

constexpr std::chrono::seconds kAbortTime{5};

std::weak_ptr<CommunicationThread> mpi_thread;  // of the one world of this process

void set_default(const char* name, size_t bytes) {
  constexpr size_t kHeader = 1024;  // at least the library's
  ::setenv(name, std::to_string(bytes + kHeader).c_str(), /*overwrite=*/0);
}

// A piece over TCP goes at once. As a larger message than the library's 64 KiB it would wait for
// its receiver's answer first, and answers wait for naps on both sides: half the rate of 1 Gbit/s.
// And so does within a host whatever is not offered (peer_memory.h).
void send_at_once() {
  set_default("OMPI_MCA_btl_tcp_eager_limit", kPiece);
  set_default("OMPI_MCA_btl_vader_eager_limit", PeerMemory::kBytesMin);
}

Status initialize() {
  int provided = MPI_THREAD_SINGLE;
  const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (code != MPI_SUCCESS) {
    return {Code::kUnavailable, "MPI_Init_thread failed; was this started by mpirun?"};
  }
  if (provided < MPI_THREAD_SERIALIZED) {
    MPI_Finalize();
    return {Code::kUnavailable, "this MPI library does not support threads"};
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  return failure_of(find_ranks_of_this_host);
}

}  // namespace

Result<std::unique_ptr<MpiWorld>> MpiWorld::create() {
  send_at_once();
  auto thread = std::make_shared<CommunicationThread>();
  Status status;
  thread->call([&] { status = initialize(); });
  WEFT_RETURN_IF_ERROR(status);
  mpi_thread = thread;
  return std::unique_ptr<MpiWorld>(new MpiWorld(std::move(thread)));
}

MpiWorld::MpiWorld(std::shared_ptr<CommunicationThread> thread) : thread_(std::move(thread)) {
  call([&] {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
    int length = 0;
    MPI_Get_processor_name(name.data(), &length);
    processor_name_.assign(name.data(), static_cast<size_t>(length));
  });
}

MpiWorld::~MpiWorld() {
  if (std::uncaught_exceptions() != 0) return;
  call([] {
    if (!mpi_world_lost()) MPI_Finalize();
  });
}

void MpiWorld::call(const std::function<void()>& work) const { thread_->call(work); }

std::unique_ptr<Communicator> MpiWorld::world() const {
  std::unique_ptr<Communicator> world;
  call([&] {
    MPI_Comm comm = MPI_COMM_NULL;
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    world = std::make_unique<MpiCommunicator>(comm, thread_);
  });
  return world;
}

uint64_t MpiWorld::messages_moved() { return mpi_messages_moved(); }

void MpiWorld::abort(int code) {
  abort_mpi_world(code);  // for a thread that waits inside a collective
  if (const auto thread = mpi_thread.lock()) {
    thread->start([code] { MPI_Abort(MPI_COMM_WORLD, code); }).wait_for(kAbortTime);
  }
  std::_Exit(code);
}

}  // namespace weft::comm
