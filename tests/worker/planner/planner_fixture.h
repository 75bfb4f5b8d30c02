// Jobs, and nodes that they are planned for.
//
// Thread safety: values.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"
#include "worker/planner/planner.h"

namespace weft::testing {

inline proto::JobSpec job(const std::string& model, const std::string& training,
                          const std::string& parallel = "auto", const std::string& family = "gpt2",
                          const std::string& task = "causal_lm, data: {train: obj-text}") {
  proto::JobSpec spec;
  const Status read = read_yaml(fmt::format(R"(
name: planned
kind: pretrain
model: {{family: {}, config: {{{}}}}}
tokenizer: {{type: byte}}
tasks: [{{type: {}}}]
training: {{steps: 3, {}}}
parallel: {}
)",
                                            family, model, task, training, parallel),
                                spec);
  EXPECT_TRUE(read.ok()) << read.to_string();
  const Status finished = finish_job(spec);
  EXPECT_TRUE(finished.ok()) << finished.to_string();
  return spec;
}

// Nodes of `slots` slots, a core or a GPU each, as many as it takes.
struct Site {
  int slots = 4;
  int64_t memory = 0;  // of a slot, or of its GPU; 0: any
  HostSpeed speed = {.flops = 2e11, .half_flops = 4e11, .memory = 1e10, .link = 1.25e8};
  bool gpu = false;
  int64_t host = 0;  // of a slot beside its GPU; 0: any
  int cores = 0;     // of a node; 0: one a slot
  bool loopback = false;

  std::optional<std::vector<HostShare>> find(int ranks, const RankNeeds& rank) const {
    if (memory > 0 && rank.memory > memory) return std::nullopt;
    if (host > 0 && rank.host > host) return std::nullopt;
    std::vector<HostShare> hosts;
    for (; ranks > 0; ranks -= slots) {
      hosts.push_back({speed, cores > 0 ? cores : slots, 1, std::min(ranks, slots), gpu, loopback});
    }
    return hosts;
  }
};

inline proto::JobPlan plan(const proto::JobSpec& spec, const Site& site, std::vector<int> slots) {
  const ModelFamily* family = find_family(spec.model().family());
  const auto config = family->parse_config(struct_to_json(spec.model().config()));
  return plan_job({*family,
                   **config,
                   spec,
                   std::move(slots),
                   {{site.gpu, site.memory, site.host}},
                   [&](int ranks, const RankNeeds& rank) { return site.find(ranks, rank); }});
}

}  // namespace weft::testing
