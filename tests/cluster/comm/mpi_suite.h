// A suite of GoogleTest on ranks that meet over MPI; started by mpirun.
//
// Thread safety: the main thread's, but for mpi().
#pragma once

#include <functional>

#include "cluster/comm/mpi/mpi_world.h"
#include "worker/parallel/communicator.h"

namespace weft::testing {

// While run_over_mpi() runs.
comm::MpiWorld& mpi();

// Joins the job that mpirun started and gives what `body` returns; what it throws ends every rank.
int run_over_mpi(const std::function<int()>& body);

// All tests, on as many ranks as `--ranks N` says: a program that finds itself alone has no
// transport to test and fails. Inside of run_over_mpi().
int run_suite(int argc, char** argv);

// A rank that failed must not leave the others to guess. A collective.
void expect_no_failure(Communicator& world, Allocator& allocator);

}  // namespace weft::testing
