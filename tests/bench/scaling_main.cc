// weft-bench-scaling: the planner's model of a step with the figures of GPUs and their links
// instead of this machine's: what meshes of 8, 64 and 1024 would reach. On paper: nothing of it was
// run.
//
// Devices: NVIDIA H100 SXM (data sheet): 989 TFLOP/s dense bf16, of which large products reach
// about three quarters; 3.35 TB/s of memory; NVLink 450 GB/s a direction and GPU; eight to a host,
// each with a network interface of 400 Gbit/s.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "proto/base/status.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "worker/planner/planner.h"

namespace weft {
namespace {

constexpr int kPerHost = 8;
constexpr double kPeak = 989e12;

HostSpeed h100() {
  HostSpeed speed;
  speed.flops = 0.75 * kPeak / 16;  // without tensor cores
  speed.half_flops = 0.75 * kPeak;
  speed.memory = 3.35e12;
  speed.local = 450e9;
  speed.link = kPerHost * 50e9;
  speed.local_latency = 10e-6;
  speed.network_latency = 20e-6;
  return speed;
}

struct Case {
  int layers = 0, hidden = 0, heads = 0, tokens = 0, rows = 0;
  int data = 1, sequence = 1, tensor = 1, zero = 0;
  const char* recompute = "none";
  int world() const { return data * sequence * tensor; }
};

// So large that the latencies of a ring over all replicas take a tenth of the time of its bytes.
int64_t bucket_bytes(const Case& c) {
  const int64_t wanted = int64_t{c.data} * c.sequence * (int64_t{8} << 20);
  return std::clamp(wanted, int64_t{16} << 20, int64_t{1} << 30);
}

proto::JobSpec job_of(const Case& c) {
  proto::JobSpec spec;
  Status status =
      read_yaml(fmt::format(R"(
name: scaling
kind: pretrain
model:
  family: gpt2
  config: {{n_layer: {}, n_embd: {}, n_head: {}, n_positions: {}, vocab_size: 50257}}
tokenizer: {{type: byte}}
tasks: [{{type: causal_lm, data: {{train: obj-text}}}}]
training: {{steps: 1, batch_size: {}, sequence_length: {}, micro_batch_size: 1, precision: bf16,
           activation_checkpointing: {}}}
parallel: {{data: {}, sequence: {}, tensor: {}, zero: {}, bucket_bytes: {}}}
)",
                            c.layers, c.hidden, c.heads, c.tokens, c.rows, c.tokens, c.recompute,
                            c.data, c.sequence, c.tensor, c.zero, bucket_bytes(c)),
                spec);
  if (status.ok()) status = finish_job(spec);
  if (!status.ok()) throw StatusError(status);
  return spec;
}

proto::MeshPlan predict(const Case& c) {
  const proto::JobSpec spec = job_of(c);
  const ModelFamily* family = find_family("gpt2");
  const auto config = family->parse_config(struct_to_json(spec.model().config()));
  if (!config) throw StatusError(config.error());
  const auto hosts = [](int ranks, const RankNeeds&) -> std::optional<std::vector<HostShare>> {
    std::vector<HostShare> found;
    for (; ranks > 0; ranks -= kPerHost) {
      found.push_back({h100(), kPerHost, 1, std::min(ranks, kPerHost), true});
    }
    return found;
  };
  const proto::JobPlan plan =
      plan_job({*family, **config, spec, {c.world()}, {{.gpu = true}}, hosts});
  return plan.meshes(0);
}

// Operations of a training step that the model itself asks for: 6 a weight and token, and of the
// causal attention 6 T H a token and layer.
double model_flops(const Case& c) {
  const double weights = 12.0 * c.layers * c.hidden * c.hidden + 50257.0 * c.hidden;
  return double(c.rows) * c.tokens *
         (6 * weights + 6.0 * c.layers * c.tokens * static_cast<double>(c.hidden));
}

void print(const Case& c) {
  const proto::MeshPlan plan = predict(c);
  const double tokens = double(c.rows) * c.tokens / c.world() / plan.step_seconds();
  std::printf(
      "| %d | %d x %d x %d, ZeRO %d | %d x %d | %.0f | %.3f | %.3f | %.3f | %.0f | %.0f%% |\n",
      c.world(), c.data, c.sequence, c.tensor, c.zero, c.rows, c.tokens,
      double(plan.memory_bytes()) / 1e9, plan.step_seconds(), plan.communication_seconds(),
      plan.hidden_seconds(), tokens,
      100 * model_flops(c) / c.world() / plan.step_seconds() / kPeak);
}

void run() {
  std::puts(
      "| GPUs | data x sequence x tensor | rows x tokens | GB a rank | step, s | communication | "
      "hidden"
      " | tokens/s a GPU | of the peak |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  const Case small{32, 4096, 32, 8192, 8};  // 6.7 billion parameters
  for (int gpus : {8, 64, 1024}) {
    Case c = small;
    c.rows = gpus;
    for (const auto& [sequence, tensor] : {std::pair{1, 1}, {1, 2}, {1, 8}, {2, 1}, {8, 1}}) {
      c.sequence = sequence;
      c.tensor = tensor;
      c.data = gpus / sequence / tensor;
      c.zero = c.data * sequence > 1 ? 1 : 0;
      print(c);
    }
  }
  for (int gpus : {8, 64, 1024}) {  // long rows
    Case c{32, 4096, 32, 131072, gpus / 8};
    c.recompute = "full";
    for (const auto& [sequence, tensor] : {std::pair{8, 1}, {4, 2}, {1, 8}}) {
      c.sequence = sequence;
      c.tensor = tensor;
      c.data = gpus / 8;
      c.zero = 1;
      print(c);
    }
  }
}

}  // namespace
}  // namespace weft

int main() {
  try {
    weft::run();
  } catch (const weft::StatusError& error) {
    std::fprintf(stderr, "weft-bench-scaling: %s\n", error.status().to_string().c_str());
    return 1;
  }
  return 0;
}
