// Topology-invariant training whose ranks meet over MPI: each rank also trains alone, and what it
// holds on the mesh has to be that part of it, bit for bit. Started by mpirun; `--mesh MESH`.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/comm/single/single_communicator.h"
#include "cluster/golden/golden_options.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "tests/worker/trainer/topology_run.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr int kSteps = 5;

proto::LaunchRecord launch_record(const fs::path& folder, const std::string& precision,
                                  MeshDegrees mesh) {
  proto::LaunchRecord launch;
  Status status = read_yaml(R"(
name: topology
kind: pretrain
model:
  family: gpt2
  config: {n_layer: 2, n_head: 8, n_embd: 64, n_positions: 32, vocab_size: 257}
tokenizer: {type: byte}
tasks: [{type: causal_lm, data: {train: obj-text}}]
training: {steps: 5, batch_size: 2, sequence_length: 32, reproducible: topology,
           precision: )" + precision +
                                "}\n",
                            *launch.mutable_spec());
  launch.mutable_spec()->mutable_parallel()->set_data(mesh.data);
  launch.mutable_spec()->mutable_parallel()->set_sequence(mesh.sequence);
  launch.mutable_spec()->mutable_parallel()->set_tensor(mesh.tensor);
  if (status.ok()) status = finish_job(*launch.mutable_spec());
  if (!status.ok()) throw StatusError(status);
  launch.set_objects_folder(folder.string());
  return launch;
}

Rank make_rank(std::unique_ptr<Communicator> world, MeshDegrees degrees) {
  Result<Mesh> mesh = Mesh::create(std::move(world), degrees);
  if (!mesh) throw StatusError(mesh.error());
  return {make_caching_allocator(), std::make_unique<ThreadPool>(1), std::move(*mesh), Logger()};
}

// Whether this rank's parts are those of a run alone.
bool same(comm::MpiWorld& world, const fs::path& folder, const std::string& precision,
          MeshDegrees degrees) {
  testing::Trace alone;
  std::mutex mutex;
  Rank single = make_rank(comm::single_world(), {});
  testing::train_steps(single, launch_record(folder, precision, {}), kSteps, alone, mutex);
  testing::Trace here = alone;  // whose other ranks' parts stay
  Rank rank = make_rank(world.world(), degrees);
  testing::train_steps(rank, launch_record(folder, precision, degrees), kSteps, here, mutex);
  const std::string what = testing::difference(alone, here);
  std::printf("rank %d, %s: loss %.9f, %s\n", world.rank(), precision.c_str(), here.losses.back(),
              what.empty() ? "the bits of one rank" : what.c_str());
  return what.empty();
}

int run(int argc, char** argv) {
  const auto world = comm::MpiWorld::create();
  if (!world) throw StatusError(world.error());
  try {
    if (argc != 3 || std::string(argv[1]) != "--mesh") {
      throw StatusError(Status::invalid("arguments", "", "must be --mesh MESH"));
    }
    const Result<MeshDegrees> degrees = parse_mesh(argv[2]);
    if (!degrees) throw StatusError(degrees.error());
    const fs::path folder =
        fs::temp_directory_path() / ("weft-topology-" + std::to_string(::getpid()));
    fs::create_directories(folder / "obj-text");
    std::ofstream text(folder / "obj-text" / "a.txt");
    for (int i = 0; i < 60; ++i) text << "line " << i * i << " of a text that repeats itself\n";
    text.close();
    bool passed = true;
    for (const char* precision : {"fp32", "bf16"}) {
      passed = same(**world, folder, precision, *degrees) && passed;
    }
    fs::remove_all(folder);
    return passed && !::testing::Test::HasFailure() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    comm::MpiWorld::abort(1);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  try {
    return weft::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
