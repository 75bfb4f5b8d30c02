// What topology-invariant training costs beside the normal mode, on one mesh of threads with one
// thread a rank: processor time of a step, the most bytes of tensors on a rank, operations of
// products and attention on the mean rank, and with the attention of the rank with most. `--mesh
// MESH --layers N --heads N --hidden N --tokens N
// --batch N --vocabulary N --precision fp32 --steps N`, of GPT-2; with `--key-heads N` of Llama;
// with `--targets N` of T5, each row as long as the others and with so many tokens to write; with
// `--adapter '{type: lora, rank: 8, targets: [all-linear]}'` of an adapter of it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "cluster/comm/threads/thread_ranks.h"
#include "cluster/golden/golden_options.h"
#include "kernels/cpu/gemm_libraries.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "tests/testing/memory_progress.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string mesh = "data=1", precision = "fp32", adapter;
  int key_heads = 0;  // above 0: of Llama
  int targets = 0;    // above 0: of T5
  int layers = 4, heads = 8, hidden = 256, tokens = 256, batch = 8, vocabulary = 4096, steps = 5;
};

struct Cost {
  double seconds = 0;                  // of the processor, all ranks together, a step: the median
  double wall = 0;                     // the median
  int64_t peak_bytes = 0;              // of the rank with most, in a step
  double products = 0, attention = 0;  // operations, a step and rank
  double most_attention = 0;           // on the rank with most
};

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
double wall_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string model_of(const Options& o) {
  if (o.targets > 0) {
    return fmt::format(
        "{{family: t5, config: {{num_layers: {}, num_decoder_layers: {}, num_heads: {}, d_model: "
        "{}, "
        "d_kv: {}, d_ff: {}, vocab_size: {}, dropout_rate: 0}}}}",
        o.layers, o.layers, o.heads, o.hidden, o.hidden / o.heads, 4 * o.hidden, o.vocabulary);
  }
  if (o.key_heads == 0) {
    return fmt::format(
        "{{family: gpt2, config: {{n_layer: {}, n_head: {}, n_embd: {}, n_positions: {}, "
        "vocab_size: {}, resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}}}}",
        o.layers, o.heads, o.hidden, o.tokens, o.vocabulary);
  }
  return fmt::format(
      "{{family: llama, config: {{num_hidden_layers: {}, num_attention_heads: {}, "
      "num_key_value_heads: {}, hidden_size: {}, intermediate_size: {}, "
      "max_position_embeddings: {}, vocab_size: {}, tie_word_embeddings: true}}}}",
      o.layers, o.heads, o.key_heads, o.hidden, 8 * o.hidden / 3 / 64 * 64, o.tokens, o.vocabulary);
}

const char* task_of(const Options& o) {
  return o.targets > 0 ? "{type: seq2seq, data: {train: obj-text, format: jsonl}}"
                       : "{type: causal_lm, data: {train: obj-text}}";
}

// Lines of a text, or rows that fill the sequences.
void write_data(const Options& o, const fs::path& folder) {
  fs::create_directories(folder / "obj-text");
  std::ofstream data(folder / "obj-text" / (o.targets > 0 ? "a.jsonl" : "a.txt"));
  if (o.targets == 0) {
    for (int i = 0; i < 20000; ++i) data << "line " << i * i << " of a text\n";
    return;
  }
  const auto text = [](int tokens, int row) {  // and the end of the sequence
    return fmt::format("{:0>{}}", row * row, tokens - 1);
  };
  for (int row = 0; row < 40 * o.batch; ++row) {
    data << fmt::format("{{\"text\": \"{}\", \"target\": \"{}\"}}\n", text(o.tokens, row),
                        text(o.targets, row));
  }
}

proto::LaunchRecord launch_of(const Options& o, const MeshDegrees& mesh, const char* reproducible,
                              const fs::path& folder) {
  const std::string lengths =
      o.targets > 0 ? fmt::format(", target_length: {}", o.targets) : std::string();
  proto::LaunchRecord launch;
  Status status = read_yaml(
      fmt::format(R"(
name: cost
kind: pretrain
model: {}
tokenizer: {{type: byte}}
tasks: [{}]
training: {{steps: 1000, batch_size: {}, sequence_length: {}, reproducible: {}, precision: {}{}}}
)",
                  model_of(o), task_of(o), o.batch, o.tokens, reproducible, o.precision, lengths),
      *launch.mutable_spec());
  launch.mutable_spec()->mutable_parallel()->set_data(mesh.data);
  launch.mutable_spec()->mutable_parallel()->set_sequence(mesh.sequence);
  launch.mutable_spec()->mutable_parallel()->set_tensor(mesh.tensor);
  if (status.ok()) status = finish_job(*launch.mutable_spec());
  if (status.ok() && !o.adapter.empty()) {
    proto::JobSpec adapted;
    status = read_yaml("adapter: " + o.adapter, adapted);
    *launch.mutable_spec()->mutable_adapter() = adapted.adapter();
    if (status.ok() && adapted.adapter().rank() < 1) {
      status = Status::invalid("--adapter", o.adapter, "must have a rank above 0");
    }
  }
  if (!status.ok()) throw StatusError(status);
  launch.set_objects_folder(folder.string());
  return launch;
}

Cost cost_of(const Options& o, const MeshDegrees& mesh, const proto::LaunchRecord& launch) {
  Cost cost;
  std::vector<double> seconds, walls;
  std::mutex mutex;
  run_on_threads(mesh, [&](Rank& rank) {
    testing::MemoryCluster cluster;
    testing::MemoryProgress progress(cluster);
    const auto training = set_up(rank, launch, progress);
    if (!training) throw StatusError(training.error());
    const bool first = rank.mesh.index(Axis::kWorld) == 0;
    for (int step = 0; step <= o.steps; ++step) {
      rank.allocator->reset_peak();
      rank.attention_flops = 0;
      rank.mesh.axis(Axis::kWorld).barrier();
      const double cpu = processor_seconds(), wall = wall_seconds();
      const int64_t before = cpu::multiplied();
      run_step(rank, launch.spec(), **training, (*training)->tasks[0], 1e-4);
      rank.mesh.axis(Axis::kWorld).barrier();
      if (step == 0) continue;
      const std::lock_guard lock(mutex);
      cost.peak_bytes = std::max(cost.peak_bytes, rank.allocator->stats().peak_bytes);
      const auto attention = static_cast<double>(rank.attention_flops);
      cost.most_attention = std::max(cost.most_attention, attention);
      cost.attention += attention / o.steps / static_cast<double>(mesh.world());
      if (!first) continue;
      seconds.push_back(processor_seconds() - cpu);
      walls.push_back(wall_seconds() - wall);
      cost.products += static_cast<double>(cpu::multiplied() - before) / o.steps /
                       static_cast<double>(mesh.world());
    }
  });
  cost.seconds = median(seconds);
  cost.wall = median(walls);
  return cost;
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app("Topology-invariant training beside the normal mode");
  app.add_option("--mesh", o.mesh);
  app.add_option("--layers", o.layers);
  app.add_option("--heads", o.heads);
  app.add_option("--key-heads", o.key_heads);
  app.add_option("--targets", o.targets);
  app.add_option("--adapter", o.adapter);
  app.add_option("--hidden", o.hidden);
  app.add_option("--tokens", o.tokens);
  app.add_option("--batch", o.batch);
  app.add_option("--vocabulary", o.vocabulary);
  app.add_option("--precision", o.precision);
  app.add_option("--steps", o.steps);
  CLI11_PARSE(app, argc, argv);
  const Result<MeshDegrees> mesh = parse_mesh(o.mesh);
  if (!mesh) throw StatusError(mesh.error());
  const fs::path folder = fs::temp_directory_path() / ("weft-cost-" + std::to_string(::getpid()));
  write_data(o, folder);
  const Cost usual = cost_of(o, *mesh, launch_of(o, *mesh, "mesh", folder));
  const Cost fixed = cost_of(o, *mesh, launch_of(o, *mesh, "topology", folder));
  fs::remove_all(folder);
  const auto row = [&](const char* what, double a, double b) {
    fmt::print("{} {}: {:.4g} {:.4g}, {:.2f} times\n", o.mesh, what, a, b, b / a);
  };
  row("processor seconds", usual.seconds, fixed.seconds);
  row("seconds", usual.wall, fixed.wall);
  row("peak MB a rank", static_cast<double>(usual.peak_bytes) / 1e6,
      static_cast<double>(fixed.peak_bytes) / 1e6);
  const auto operations = [](const Cost& cost, double attention) {
    return (cost.products + attention) / 1e9;
  };
  row("GFLOP a rank", operations(usual, usual.attention), operations(fixed, fixed.attention));
  row("GFLOP of the rank with most", operations(usual, usual.most_attention),
      operations(fixed, fixed.most_attention));
  return 0;
}

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) {
  try {
    return weft::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
