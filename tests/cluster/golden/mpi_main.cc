// Golden cases on a mesh whose ranks meet over MPI: as weft-golden runs them over threads. Started
// by mpirun; `--mesh data=A,sequence=B,tensor=C,ulysses=D CASE...`.
#include <cstdio>
#include <exception>
#include <span>
#include <string>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/golden/golden_options.h"
#include "worker/golden/golden.h"

namespace weft {
namespace {

bool run_case(Rank& rank, const char* folder) {
  const Result<golden::Case> golden = golden::read_case(folder);
  if (!golden) throw StatusError(golden.error());
  const golden::Report report = golden::run_case(rank, *golden);
  if (rank.mesh.index(Axis::kWorld) == 0) {
    const golden::Deviation& worst = report.worst();
    std::printf("%s %s: %zu values, worst %s %.2e of %.0e\n", report.name.c_str(),
                report.passed() ? "ok" : "FAILED", report.deviations.size(), worst.what.c_str(),
                worst.error, worst.bar);
  }
  return report.passed();
}

int run(std::span<char*> arguments) {
  const auto world = comm::MpiWorld::create();
  if (!world) throw StatusError(world.error());
  try {
    if (arguments.size() < 4 || std::string(arguments[1]) != "--mesh") {
      throw StatusError(Status::invalid("arguments", "", "must be --mesh MESH CASE..."));
    }
    const Result<MeshDegrees> degrees = parse_mesh(arguments[2]);
    if (!degrees) throw StatusError(degrees.error());
    Result<Mesh> mesh = Mesh::create((*world)->world(), *degrees);
    if (!mesh) throw StatusError(mesh.error());
    Rank rank{make_caching_allocator(), std::make_unique<ThreadPool>(1), std::move(*mesh),
              Logger()};
    bool passed = true;
    for (const char* folder : arguments.subspan(3)) passed = run_case(rank, folder) && passed;
    return passed ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    comm::MpiWorld::abort(1);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  try {
    return weft::run({argv, static_cast<size_t>(argc)});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
