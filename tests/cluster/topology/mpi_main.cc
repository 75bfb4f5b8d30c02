// Training whose ranks meet over MPI: each rank also trains alone, and what it holds on the mesh
// has to be that part of it; topology-invariant training bit for bit, other training up to a few
// times the rounding error of one rank. Started by mpirun; `--mesh MESH topology|usual STEPS
// [ZERO [FAMILY]]`. Other training goes over the sequence axis by rings, of groups of so many ranks
// as the mesh's `ulysses` says.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/comm/single/single_communicator.h"
#include "cluster/golden/golden_options.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "tests/worker/trainer/distance.h"
#include "tests/worker/trainer/topology_run.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// What is trained: a decoder, one with few heads of keys, an encoder, and an encoder with a
// decoder.
struct Job {
  const char *family, *model, *task;
};
constexpr Job kJobs[] = {
    {"gpt2", "{n_layer: 2, n_head: 8, n_embd: 64, n_positions: 32, vocab_size: 257}",
     "{type: causal_lm, data: {train: obj-text}}"},
    {"llama",
     "{num_hidden_layers: 2, num_attention_heads: 8, num_key_value_heads: 2, hidden_size: 64, "
     "intermediate_size: 96, max_position_embeddings: 32, vocab_size: 257}",
     "{type: causal_lm, data: {train: obj-text}}"},
    {"bert",
     "{num_hidden_layers: 2, num_attention_heads: 8, hidden_size: 64, intermediate_size: 96, "
     "max_position_embeddings: 32, vocab_size: 257}",
     "{type: sequence_classification, labels: 3, data: {train: obj-lines, format: jsonl}}"},
    {"t5",
     "{num_layers: 2, num_heads: 8, d_model: 64, d_kv: 8, d_ff: 96, vocab_size: 257, "
     "feed_forward_proj: gated-gelu}",
     "{type: seq2seq, data: {train: obj-lines, format: jsonl}}"},
};
const Job& job_of(const std::string& family) {
  for (const Job& job : kJobs) {
    if (family == job.family) return job;
  }
  throw StatusError(Status::invalid("FAMILY", family, "must be gpt2, llama, bert or t5"));
}

struct Setting {
  fs::path folder;
  const Job* job = nullptr;
  std::string reproducible;  // of training
  std::string precision;
  int micro_batch = 0;  // rows; 0: all of a rank
  int zero = 0;
};

// Topology-invariant training exchanges heads, whatever the mesh says.
void set_way_over_sequence(MeshDegrees mesh, proto::ParallelSpec& parallel) {
  if (mesh.ulysses == 1) {
    parallel.set_sequence_attention(proto::SEQUENCE_ATTENTION_RING);
  } else if (mesh.ulysses == mesh.sequence) {
    parallel.set_sequence_attention(proto::SEQUENCE_ATTENTION_ULYSSES);
  } else {
    parallel.set_sequence_attention(proto::SEQUENCE_ATTENTION_ULYSSES_RING);
    parallel.set_ulysses(mesh.ulysses);
  }
}

proto::LaunchRecord launch_record(const Setting& setting, MeshDegrees mesh) {
  proto::LaunchRecord launch;
  const std::string text =
      fmt::format(R"(
name: topology
kind: pretrain
model: {{family: {}, config: {}}}
tokenizer: {{type: byte}}
tasks: [{}]
training: {{steps: 50, batch_size: 8, sequence_length: 32, reproducible: {}, precision: {},
           micro_batch_size: {}}}
)",
                  setting.job->family, setting.job->model, setting.job->task, setting.reproducible,
                  setting.precision, setting.micro_batch);
  Status status = read_yaml(text, *launch.mutable_spec());
  proto::ParallelSpec& parallel = *launch.mutable_spec()->mutable_parallel();
  parallel.set_data(mesh.data);
  parallel.set_sequence(mesh.sequence);
  parallel.set_tensor(mesh.tensor);
  if (mesh.data * mesh.sequence > 1) parallel.set_zero(setting.zero);
  if (mesh.sequence > 1 && setting.reproducible == "mesh") set_way_over_sequence(mesh, parallel);
  if (status.ok()) status = finish_job(*launch.mutable_spec());
  if (!status.ok()) throw StatusError(status);
  launch.set_objects_folder(setting.folder.string());
  return launch;
}

Rank make_rank(std::unique_ptr<Communicator> world, MeshDegrees degrees) {
  Result<Mesh> mesh = Mesh::create(std::move(world), degrees);
  if (!mesh) throw StatusError(mesh.error());
  return {make_caching_allocator(), std::make_unique<ThreadPool>(1), std::move(*mesh), Logger()};
}

testing::Trace alone(const Setting& setting, int steps) {
  testing::Trace trace;
  std::mutex mutex;
  Rank single = make_rank(comm::single_world(), {});
  testing::train_steps(single, launch_record(setting, {}), steps, trace, mutex);
  return trace;
}

using Tensors = std::map<std::string, std::vector<float>>;
// What this rank has not of tensors, NaN, as others have it.
void fill_up(Tensors& own, const Tensors& others) {
  for (auto& [name, values] : own) {
    const std::vector<float>& other = others.at(name);
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) values[i] = other[i];
    }
  }
}

// What this rank trains on the mesh; other ranks' parts are those of `one`.
testing::Trace meshed(comm::MpiWorld& world, const Setting& setting, MeshDegrees degrees, int steps,
                      const testing::Trace& one) {
  testing::Trace here;
  std::mutex mutex;
  Rank rank = make_rank(world.world(), degrees);
  testing::train_steps(rank, launch_record(setting, degrees), steps, here, mutex);
  fill_up(here.weights, one.weights);
  fill_up(here.first_moments, one.first_moments);
  fill_up(here.second_moments, one.second_moments);
  return here;
}

bool told(comm::MpiWorld& world, const std::string& what, const testing::Trace& here) {
  std::printf("rank %d: loss %.9f%s\n", world.rank(), here.losses.back(), what.c_str());
  return what.empty();
}

bool has_the_bits(comm::MpiWorld& world, Setting setting, MeshDegrees degrees, int steps) {
  bool same = true;
  for (const char* precision : {"fp32", "bf16"}) {
    setting.precision = precision;
    const testing::Trace one = alone(setting, steps);
    const testing::Trace here = meshed(world, setting, degrees, steps, one);
    same = told(world, testing::difference(one, here), here) && same;
  }
  return same;
}

// The gradients of the first step, then losses, norms and weights of all.
bool is_near(comm::MpiWorld& world, Setting setting, MeshDegrees degrees, int steps) {
  constexpr double kTimes = 4;
  bool near = true;
  Setting on_mesh = setting;  // as many rounds as alone, as long as there are rows for them
  on_mesh.micro_batch = std::max(1, setting.micro_batch / degrees.data);
  for (const int count : {1, steps}) {
    const testing::Trace one = alone(setting, count);
    Setting single_rows = setting, in_blocks = setting;
    single_rows.micro_batch = 1;
    in_blocks.reproducible = "topology";  // other sums over features, keys and vocabulary
    in_blocks.micro_batch = 0;            // which may want a row for each block
    const testing::Distance own =
        testing::farther(testing::distance(one, alone(single_rows, count)),
                         testing::distance(one, alone(in_blocks, count)));
    const testing::Trace here = meshed(world, on_mesh, degrees, count, one);
    testing::Distance apart = testing::distance(one, here);
    if (count > 1) apart.gradients = 0;  // then moments, of weights that are apart themselves
    near = told(world, testing::beyond(apart, own, kTimes), here) && near;
  }
  return near;
}

void write_data(const fs::path& folder) {
  fs::create_directories(folder / "obj-text");
  fs::create_directories(folder / "obj-lines");
  std::ofstream text(folder / "obj-text" / "a.txt"), lines(folder / "obj-lines" / "a.jsonl");
  for (int i = 0; i < 60; ++i) {
    text << "line " << i * i << " of a text that repeats itself\n";
    lines << R"({"text": "line )" << i * i << R"(", "label": )" << i % 3
          << R"(, "target": "the square of )" << i << "\"}\n";
  }
}

int run(int argc, char** argv) {
  const auto world = comm::MpiWorld::create();
  if (!world) throw StatusError(world.error());
  try {
    const std::string mode = argc >= 5 && argc <= 7 ? argv[3] : "";
    if (std::string(argv[1]) != "--mesh" || (mode != "topology" && mode != "usual")) {
      throw StatusError(Status::invalid(
          "arguments", "", "must be --mesh MESH topology|usual STEPS [ZERO [FAMILY]]"));
    }
    const Result<MeshDegrees> degrees = parse_mesh(argv[2]);
    if (!degrees) throw StatusError(degrees.error());
    const fs::path folder =
        fs::temp_directory_path() / ("weft-topology-" + std::to_string(::getpid()));
    write_data(folder);
    const bool usual = mode == "usual";
    const Setting setting{
        folder,        &job_of(argc == 7 ? argv[6] : "gpt2"), usual ? "mesh" : mode, "fp32",
        usual ? 4 : 0, argc >= 6 ? std::stoi(argv[5]) : 0};
    const int steps = std::stoi(argv[4]);
    const bool passed = usual ? is_near(**world, setting, *degrees, steps)
                              : has_the_bits(**world, setting, *degrees, steps);
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
