#include "cluster/comm/mpi/mpi_world.h"

#include <mpi.h>

#include <array>
#include <cstdlib>
#include <exception>

#include "cluster/comm/mpi/mpi_communicator.h"
#include "cluster/comm/mpi/transfer.h"

namespace weft::comm {

Result<std::unique_ptr<MpiWorld>> MpiWorld::create() {
  int provided = MPI_THREAD_SINGLE;
  const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (code != MPI_SUCCESS) {
    return fail(Code::kUnavailable, "MPI_Init_thread failed; was this started by mpirun?");
  }
  if (provided < MPI_THREAD_FUNNELED) {
    MPI_Finalize();
    return fail(Code::kUnavailable, "this MPI library does not support threads");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  return std::unique_ptr<MpiWorld>(new MpiWorld());
}

MpiWorld::~MpiWorld() {
  if (std::uncaught_exceptions() == 0 && !mpi_world_lost()) MPI_Finalize();
}

int MpiWorld::rank() const {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int MpiWorld::size() const {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

std::string MpiWorld::processor_name() const {
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  int length = 0;
  MPI_Get_processor_name(name.data(), &length);
  return {name.data(), static_cast<size_t>(length)};
}

std::unique_ptr<Communicator> MpiWorld::world() const {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return std::make_unique<MpiCommunicator>(comm);
}

void MpiWorld::abort(int code) {
  MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace weft::comm
