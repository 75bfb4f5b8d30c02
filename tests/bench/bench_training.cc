// A whole training step of GPT-2 on one rank: forward, backward, global-norm clipping, AdamW.
#include <fmt/format.h>

#include "cluster/comm/single/single_communicator.h"
#include "kernels/tensor/transfer.h"
#include "tests/bench/bench.h"
#include "worker/models/hf_folder.h"
#include "worker/optimizer/gradients.h"
#include "worker/optimizer/optimizer.h"
#include "worker/tasks/task.h"

namespace weft::bench {
namespace {

template <typename T>
T take(Result<T> result) {
  if (!result) throw StatusError(std::move(result).error());
  return std::move(*result);
}

struct Training {
  explicit Training(const Options& options)
      : rank{make_caching_allocator(),
             std::make_unique<ThreadPool>(static_cast<int>(options.integer("threads"))),
             take(Mesh::create(comm::single_world(), MeshDegrees{})), Logger()} {
    const ModelFamily& family = *find_family("gpt2");
    const std::string json = fmt::format(
        R"({{"model_type": "gpt2", "n_layer": {}, "n_head": {}, "n_embd": {}, "n_positions": {},
            "vocab_size": {}, "resid_pdrop": {}, "embd_pdrop": {}, "attn_pdrop": {}}})",
        options.integer("layers"), options.integer("heads"), options.integer("hidden"),
        options.integer("tokens"), options.integer("vocabulary"), options.text("dropout"),
        options.text("dropout"), options.text("dropout"));
    const ModelConfigPtr config = take(family.parse_config(json));
    trunk = take(family.make_trunk(rank, config));
    task = take(make_task(rank, "causal_lm", *config, {.name = "lm"}));
    if (options.has("weights")) {
      const HfFolder folder = take(open_hf_folder(options.text("weights")));
      const Status read = load_hf_weights(folder, trunk->parameters());
      if (!read.ok()) throw StatusError(read);
    } else {
      initialize_parameters(trunk->parameters(), 1);
    }
    optimizer = std::make_unique<AdamW>(rank, trunk->parameters(), AdamWOptions(),
                                        options.flag("bf16") ? DType::kBF16 : DType::kF32);
    rows.rows = options.integer("batch");
    rows.tokens = options.integer("tokens");
    rows.ids = step_ids(options);
  }

  void step() {
    const double labels = static_cast<double>(task->label_count(rows));
    loss = 0;
    Context cx = rank.context();
    cx.tape = &tape;
    for (const Part& part : micro_batches(rank.mesh, rows.rows, 0)) {
      TaskBatch batch = task->assemble(rows, part);
      batch.tokens.training = true;
      batch.seed = 1 / labels;
      batch.tokens.random = {1, ++steps};
      const Tensor sum = task->loss_sum(cx, *trunk, batch);
      loss += read_scalar(sum) / labels;
      tape.backward(cx, sum, Tensor::full(*rank.allocator, sum.shape(), 1 / labels, sum.dtype()));
    }
    reduce_gradients(rank, optimizer->parameters());
    const double norm = global_gradient_norm(rank, optimizer->parameters());
    optimizer->step(1e-4, clip_factor(norm, 1.0));
  }

  Rank rank;
  std::unique_ptr<Trunk> trunk;
  std::unique_ptr<Task> task;
  std::unique_ptr<AdamW> optimizer;
  TaskRows rows;
  Tape tape;
  uint64_t steps = 0;
  double loss = 0;
};

Step make_training(const Options& options) {
  flush_denormals();
  auto training = std::make_shared<Training>(options);
  return {[training] { training->step(); }, [training] { return training->loss; }};
}

}  // namespace

std::vector<int64_t> step_ids(const Options& options) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < options.integer("batch") * options.integer("tokens"); ++i) {
    ids.push_back((i * 7919 + i * i % 31) % options.integer("vocabulary"));
  }
  return ids;
}

const std::map<std::string, StepMaker>& step_makers() {
  static const std::map<std::string, StepMaker> makers{{"gpt2_step", make_training},
                                                       {"bert_step", make_encoder_step}};
  return makers;
}

}  // namespace weft::bench
