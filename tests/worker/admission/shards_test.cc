// Blocks that are alike stand for each other, and nothing that is counted of them changes.
#include "worker/admission/shards.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "worker/admission/check_model.h"
#include "worker/admission/memory.h"
#include "worker/admission/traffic.h"

namespace weft {
namespace {

proto::JobSpec job(int layers, const std::string& parallel, const std::string& training) {
  proto::JobSpec spec;
  const Status read = read_yaml(fmt::format(R"(
name: folded
kind: pretrain
model: {{family: gpt2, config: {{n_layer: {}, n_head: 4, n_embd: 32, vocab_size: 257}}}}
tokenizer: {{type: byte}}
tasks: [{{type: causal_lm, data: {{train: obj-text}}}}]
training: {{steps: 3, batch_size: 8, sequence_length: 64, {}}}
parallel: {{{}, bucket_bytes: 8192}}
)",
                                            layers, training, parallel),
                                spec);
  EXPECT_TRUE(read.ok()) << read.to_string();
  const Status finished = finish_job(spec);
  EXPECT_TRUE(finished.ok()) << finished.to_string();
  return spec;
}

// Every unit for itself.
std::vector<ShardSize> unfolded(std::span<const ShardSize> shards) {
  std::vector<ShardSize> all;
  for (size_t first = 0, end = 0; first < shards.size(); first = end) {
    while (end < shards.size() && shards[end].unit == shards[first].unit) ++end;
    for (int64_t i = 0; i < shards[first].repeats; ++i) {
      for (size_t at = first; at < end; ++at) {
        all.push_back(shards[at]);
        all.back().repeats = 1;
        if (shards[first].repeats > 1) all.back().unit += i;
      }
    }
  }
  return all;
}

TEST(Shards, ParametersAreCountedOnceOnEveryMesh) {
  const int64_t block = 12 * 32 * 32 + 13 * 32, tables = (257 + 1024) * 32, norm = 2 * 32;
  for (const char* parallel : {"data: 1", "data: 2, zero: 3", "sequence: 2, tensor: 4"}) {
    proto::JobSpec spec = job(9, parallel, "precision: fp32");
    spec.mutable_tasks(0)->set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
    spec.mutable_tasks(0)->set_labels(3);
    AdmittedModel model;
    ASSERT_TRUE(check_model(spec, {}, &model).ok());
    const ParameterCount whole = count_parameters(*model.family, *model.config, spec);
    EXPECT_EQ(whole.all, 9 * block + tables + norm + 3 * 32) << parallel;
    EXPECT_EQ(whole.trained, whole.all) << parallel;
    const ModelConfigPtr adapted =
        model.family->with_adapter(*model.config, {.rank = 4, .alpha = 8, .targets = {"c_attn"}});
    const ParameterCount part = count_parameters(*model.family, *adapted, spec);
    EXPECT_EQ(part.trained, 9 * 4 * (32 + 96) + 3 * 32) << parallel;
    EXPECT_EQ(part.all, whole.all + 9 * 4 * (32 + 96)) << parallel;
  }
}

TEST(Shards, FoldedBlocksCountAsIfEachStoodThere) {
  for (const char* parallel :
       {"data: 1", "data: 3", "data: 4, zero: 1", "data: 2, zero: 2, tensor: 2", "data: 4, zero: 3",
        "sequence: 4, tensor: 2", "data: 2, sequence: 2"}) {
    for (const char* training : {"precision: fp32", "precision: bf16, micro_batch_size: 1",
                                 "reproducible: topology, activation_checkpointing: full"}) {
      if (std::string_view(parallel) == "data: 3" && training[0] == 'r') continue;
      proto::JobSpec spec = job(9, parallel, training);
      AdmittedModel model;
      const Status fits = check_model(spec, {}, &model);
      ASSERT_TRUE(fits.ok()) << parallel << ", " << training << ": " << fits.to_string();
      const auto folded = shards_of(*model.family, *model.config, spec, 0);
      const auto whole = unfolded(folded);
      EXPECT_LT(folded.size() * 2, whole.size());
      const auto memory = [&](std::span<const ShardSize> shards) {
        const MemoryEstimate e = estimate_memory(*model.config, spec, shards);
        return fmt::format("{} {} {} {} {} {} {}", e.parameters, e.optimizer, e.gradients,
                           e.activations, e.workspace, e.checkpoint, e.gpu_more);
      };
      EXPECT_EQ(memory(folded), memory(whole)) << parallel << ", " << training;
      const auto traffic = [&](std::span<const ShardSize> shards) {
        const StepTraffic t = step_traffic(*model.config, spec, shards, {});
        return fmt::format("{} {} {} {} {} {}", t.tensor.bytes, t.tensor.messages, t.sequence.bytes,
                           t.sequence.messages, t.replica.bytes, t.replica.messages);
      };
      EXPECT_EQ(traffic(folded), traffic(whole)) << parallel << ", " << training;
    }
  }
}

// Of one, two and more blocks, one behind the other, those that the family lists.
TEST(Shards, UnfoldedAreTheFamilysParameters) {
  for (const int layers : {1, 2, 5}) {
    proto::JobSpec spec = job(layers, "tensor: 2", "precision: fp32");
    AdmittedModel model;
    ASSERT_TRUE(check_model(spec, {}, &model).ok());
    const auto whole = unfolded(shards_of(*model.family, *model.config, spec, 1));
    const auto plan = model.family->plan(*model.config, 2, 1);
    ASSERT_EQ(whole.size(), plan.size());
    for (size_t i = 0; i < plan.size(); ++i) {
      const ParameterInfo& info = plan[i];
      EXPECT_EQ(whole[i].unit, info.unit) << info.name;
      EXPECT_EQ(whole[i].whole, info.shard.whole()) << info.name;
      EXPECT_EQ(whole[i].keep_fp32, info.keep_fp32) << info.name;
      EXPECT_EQ(whole[i].joined, i > 0 && same_layer(plan[i - 1], info)) << info.name;
      int64_t elements = info.shape.elements();
      if (!info.shard.whole()) {
        int64_t part = 0;
        for (const Part& range : info.shard.ranges) part += range.length;
        elements = elements / info.shape[info.shard.dim] * part;
      }
      EXPECT_EQ(whole[i].elements, elements) << info.name;
    }
  }
}

TEST(Shards, AreAsManyFor100000LayersAsForThree) {
  const auto shards = [](int layers) {
    proto::JobSpec spec = job(layers, "data: 2", "precision: fp32");
    AdmittedModel model;
    EXPECT_TRUE(check_model(spec, {}, &model).ok());
    return shards_of(*model.family, *model.config, spec, 0);
  };
  EXPECT_EQ(shards(100000).size(), shards(3).size());
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) shards(100000);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));  // 10 s, one by one
}

}  // namespace
}  // namespace weft
