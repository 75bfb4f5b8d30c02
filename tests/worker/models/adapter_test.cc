// Low-rank adapters: which maps they stand beside, how a mesh shares them out, what they compute.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "proto/job.pb.h"
#include "tests/testing/gradient_check.h"
#include "tests/worker/models/family_fixture.h"
#include "worker/optimizer/optimizer.h"

namespace weft {
namespace {

constexpr const char* kGpt2 = R"({"n_embd": 20, "n_head": 5, "n_inner": 13, "vocab_size": 37,
    "n_positions": 11, "n_layer": 2, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    "initializer_range": 0.3})";
constexpr const char* kLlama = R"({"hidden_size": 20, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 13, "vocab_size": 37,
    "max_position_embeddings": 11, "num_hidden_layers": 2, "attention_dropout": 0.1,
    "initializer_range": 0.3, "pad_token_id": 3})";

const ModelFamily& family(const std::string& name) { return *find_family(name); }
ModelConfigPtr base(const std::string& name) {
  return *family(name).parse_config(name == "gpt2" ? kGpt2 : kLlama);
}

proto::AdapterSpec spec_of(int rank, const std::vector<std::string>& targets) {
  proto::AdapterSpec spec;
  spec.set_rank(rank);
  spec.set_alpha(6);
  spec.mutable_targets()->Assign(targets.begin(), targets.end());
  return spec;
}

Result<Adapter> found(const std::string& name, const std::vector<std::string>& targets) {
  return find_adapter(spec_of(3, targets), family(name), *base(name));
}

ModelConfigPtr adapted(const std::string& name, const std::vector<std::string>& targets,
                       double dropout = 0, bool dora = false) {
  Adapter adapter = *found(name, targets);
  adapter.dropout = dropout;
  adapter.dora = dora;
  return family(name).with_adapter(*base(name), adapter);
}

std::set<std::string> adapted_weights(const ModelFamily& family, const ModelConfig& config) {
  std::set<std::string> names;
  for (const ParameterInfo& info : family.plan(config, 1, 0)) {
    if (!info.adapts.empty()) names.insert(info.adapts);
  }
  return names;
}

// Draws B too, which begins at zero, so that A has a gradient, and magnitudes.
void initialize_all(std::vector<Parameter>& parameters) {
  for (Parameter& parameter : parameters) {
    if (parameter.info.initializer == Initializer::kUniform || parameter.info.adapts.empty())
      continue;
    parameter.info.initializer = Initializer::kNormal;
    parameter.info.deviation = 0.3;
  }
  initialize_parameters(parameters, 17);
}

TEST(Adapter, TargetsAreThoseOfPeft) {
  EXPECT_EQ(found("gpt2", {})->targets, std::vector<std::string>{"c_attn"});
  EXPECT_EQ(found("llama", {})->targets, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(found("gpt2", {"all-linear"})->targets,
            (std::vector<std::string>{"c_attn", "c_fc", "c_proj"}));
  EXPECT_EQ(found("llama", {"all-linear"})->targets.size(), 7U);
  // As PEFT writes what all-linear was.
  EXPECT_EQ(found("gpt2", {"transformer.h.1.attn.c_attn", "transformer.h.0.attn.c_attn",
                           "transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"})
                ->targets,
            (std::vector<std::string>{"attn.c_attn", "mlp.c_fc"}));
  // The end of a name, from a dot on.
  EXPECT_EQ(adapted_weights(family("gpt2"), *adapted("gpt2", {"mlp.c_proj"})),
            (std::set<std::string>{"transformer.h.0.mlp.c_proj.weight",
                                   "transformer.h.1.mlp.c_proj.weight"}));
  EXPECT_EQ(adapted_weights(family("gpt2"), *adapted("gpt2", {"c_proj"})).size(), 4U);
}

TEST(Adapter, OtherTargetsAreRefusedByNameAndRule) {
  for (const char* name :
       {"proj", "wte", "lm_head", "ln_1", "score", "h.2.attn.c_attn", "q_proj"}) {
    const auto adapter = found("gpt2", {"c_attn", name});
    ASSERT_FALSE(adapter) << name;
    EXPECT_EQ(adapter.error().field(), "adapter.targets[1]");
    EXPECT_EQ(adapter.error().value(), name);
    EXPECT_NE(adapter.error().rule().find("c_attn, c_fc, c_proj"), std::string::npos);
  }
  EXPECT_FALSE(found("gpt2", {"all-linear", "c_attn"}));
  const auto of_one = found("gpt2", {"h.0.attn.c_attn"});
  ASSERT_FALSE(of_one);
  EXPECT_EQ(of_one.error().field(), "adapter.targets");
  EXPECT_NE(of_one.error().rule().find("every block"), std::string::npos);
}

TEST(Adapter, AllElseIsFrozen) {
  for (const char* name : {"gpt2", "llama"}) {
    const ModelConfigPtr dora = adapted(name, {"all-linear"}, 0, /*dora=*/true);
    for (const ParameterInfo& info : family(name).plan(*dora, 1, 0)) {
      EXPECT_EQ(info.trained, !info.adapts.empty()) << info.name;
      EXPECT_EQ(info.looked_up, LookedUp::kNever) << info.name;
      const bool magnitude = adapter_part(info) == AdapterPart::kMagnitude;
      if (!info.trained) continue;
      EXPECT_EQ(info.decay, !magnitude) << info.name;
      EXPECT_EQ(info.keep_fp32, magnitude) << info.name;
    }
    for (const ParameterInfo& info : family(name).plan(*base(name), 1, 0)) {
      EXPECT_TRUE(info.trained) << info.name;
    }
    for (int size : {1, 2, 3, 4, 5, 6, 7}) {
      expect_shards_cover_once(family(name), *dora, size);
    }
  }
}

TEST(Adapter, ABeginsWithinTheRootOfItsInputsAndBAtZero) {
  testing::run_ranks(1, [&](Rank& rank) {
    auto trunk = *family("gpt2").make_trunk(rank, adapted("gpt2", {"c_fc"}));
    initialize_parameters(trunk->parameters(), 17);
    for (const Parameter& parameter : trunk->parameters()) {
      if (parameter.info.adapts.empty()) continue;
      double most = 0, squares = 0;
      const std::vector<float> values = parameter.value.to_vector<float>();
      for (const float value : values) {
        most = std::max(most, std::abs(double{value}));
        squares += double{value} * double{value};
      }
      if (adapter_part(parameter.info) != AdapterPart::kInput) {
        EXPECT_EQ(most, 0);
        continue;
      }
      const double bound = 1 / std::sqrt(20.0);
      EXPECT_LE(most, bound);
      EXPECT_GT(most, 0.9 * bound);
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(values.size())), bound / std::sqrt(3.0),
                  0.2 * bound);
    }
  });
}

TEST(Adapter, ScalingIsByTheRankOrItsRoot) {
  Adapter adapter{.rank = 4, .alpha = 6, .dropout = 0, .rslora = false, .targets = {}};
  EXPECT_EQ(adapter.scaling(), 1.5);
  adapter.rslora = true;
  EXPECT_EQ(adapter.scaling(), 3);
}

// The loss with the adapter beside its weights is that of the weights it is merged into.
TEST(Adapter, MergedWeightsComputeTheSame) {
  for (const auto& [name, dora] : {std::pair{"gpt2", false}, std::pair{"gpt2", true},
                                   std::pair{"llama", false}, std::pair{"llama", true}}) {
    testing::run_ranks(1, [&](Rank& rank) {
      const ModelConfigPtr config = adapted(name, {"all-linear"}, 0, dora);
      auto beside = *family(name).make_trunk(rank, config);
      auto merged = *family(name).make_trunk(rank, base(name));
      initialize_all(beside->parameters());
      auto task = *make_task(rank, "causal_lm", beside->config(), {.name = "lm"});
      const TaskRows rows = some_rows(3, 11, false);
      const auto loss = [&](Trunk& trunk) {
        Context cx = rank.context();
        return double{*task->loss_sum(cx, trunk, task->assemble(rows, {0, 3})).data<float>()};
      };
      const auto find = [&](const std::string& wanted) {
        return *std::ranges::find_if(beside->parameters(),
                                     [&](const Parameter& p) { return p.info.name == wanted; });
      };
      for (Parameter& parameter : merged->parameters()) {
        std::vector<float> values = find(parameter.info.name).value.to_vector<float>();
        std::ranges::copy(values, parameter.value.data<float>());
      }
      const double without = loss(*merged);
      int adapters = 0;
      for (Parameter& parameter : merged->parameters()) {
        const auto a = std::ranges::find_if(beside->parameters(), [&](const Parameter& p) {
          return p.info.adapts == parameter.info.name;
        });
        if (a == beside->parameters().end()) continue;
        ++adapters;
        MergedAdapter adapter(config->adapter, family(name).layout(), a->value.to_vector<float>(),
                              (a + 1)->value.to_vector<float>());
        // In pieces that begin anywhere.
        const std::span<float> all(parameter.value.data<float>(),
                                   static_cast<size_t>(parameter.value.elements()));
        const auto in_pieces = [&](const auto& visit) {
          for (size_t at = 0; at < all.size(); at += 17) {
            visit(static_cast<int64_t>(at), all.subspan(at, std::min<size_t>(17, all.size() - at)));
          }
        };
        if (dora) {
          in_pieces([&](int64_t at, std::span<float> piece) { adapter.measure(at, piece); });
          adapter.rescale((a + 2)->value.to_vector<float>());
        }
        in_pieces([&](int64_t at, std::span<float> piece) { adapter.merge_into(at, piece); });
      }
      EXPECT_EQ(adapters, name == std::string("gpt2") ? 8 : 14);
      EXPECT_NEAR(loss(*merged) / loss(*beside), 1, 1e-5);
      EXPECT_GT(std::abs(without / loss(*beside) - 1), dora ? 1e-3 : 1e-2);
    });
  }
}

// In float64, through two blocks.
TEST(Adapter, GradientsAreThoseOfFiniteDifferences) {
  for (const auto& [name, targets] : {std::pair{"gpt2", std::vector<std::string>{"all-linear"}},
                                      std::pair{"llama", std::vector<std::string>{"all-linear"}},
                                      std::pair{"llama", std::vector<std::string>{"down_proj"}}}) {
    for (const Recompute recompute : {Recompute::kNothing, Recompute::kBlock}) {
      testing::run_ranks(1, [&](Rank& rank) {
        auto trunk = *family(name).make_trunk(rank, adapted(name, targets));
        initialize_all(trunk->parameters());
        round_parameters(rank, trunk->parameters(), DType::kF64);
        auto task = *make_task(rank, "causal_lm", trunk->config(), {.name = "lm"});
        const TaskRows rows = some_rows(1, 5, false);
        std::vector<Tensor> trained;
        for (const Parameter& parameter : trunk->parameters()) {
          if (parameter.info.unit == 1 && parameter.info.trained)
            trained.push_back(parameter.value);
        }
        Context cx = rank.context();
        testing::expect_gradients(cx, trained, [&](Context& inner, std::span<const Tensor>) {
          TaskBatch batch = task->assemble(rows, {0, 1});
          batch.tokens.recompute = recompute;
          return task->loss_sum(inner, *trunk, batch);
        });
        for (const Parameter& parameter : trunk->parameters()) {
          EXPECT_EQ(static_cast<bool>(parameter.value.grad()), parameter.info.trained)
              << parameter.info.name;
        }
      });
    }
  }
}

// With dropout of the model and of what the adapters map.
TEST(Adapter, EveryMeshComputesTheSame) {
  for (const auto& [name, dora] : {std::pair{"gpt2", false}, std::pair{"gpt2", true},
                                   std::pair{"llama", false}, std::pair{"llama", true}}) {
    const auto run = [&](MeshDegrees mesh, bool left) {
      Outcome outcome;
      testing::run_mesh(mesh, [&](Rank& rank) {
        auto trunk = *family(name).make_trunk(rank, adapted(name, {"all-linear"}, 0.2, dora));
        initialize_all(trunk->parameters());
        const Outcome own = outcome_of(rank, *trunk, left, 1);
        if (rank.mesh.index(Axis::kWorld) == 0) outcome = own;
      });
      return outcome;
    };
    for (const bool left : {false, true}) {
      const Outcome whole = run({}, left);
      EXPECT_GT(whole.norm, 0);
      std::vector<MeshDegrees> all = meshes();
      all.push_back({.tensor = 4});
      all.push_back({.sequence = 2, .tensor = 4});
      for (const MeshDegrees& mesh : all) {
        const Outcome other = run(mesh, left);
        EXPECT_NEAR(other.loss / whole.loss, 1, 1e-5)
            << name << mesh.data << mesh.sequence << mesh.tensor << left;
        EXPECT_NEAR(other.norm / whole.norm, 1, 1e-5)
            << name << mesh.data << mesh.sequence << mesh.tensor << left;
      }
    }
  }
}

TEST(PeftConfig, IsReadAsItIsWritten) {
  const PeftFolder folder{{.rank = 4,
                           .alpha = 6,
                           .dropout = 0.1,
                           .rslora = true,
                           .dora = true,
                           .targets = {"c_attn", "c_fc"}},
                          "gpt2",
                          "TOKEN_CLS"};
  const auto read = parse_peft_config(peft_config_json(folder, ops::WeightLayout::kInOut));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->adapter.rank, 4);
  EXPECT_EQ(read->adapter.alpha, 6);
  EXPECT_EQ(read->adapter.dropout, 0.1);
  EXPECT_TRUE(read->adapter.rslora);
  EXPECT_TRUE(read->adapter.dora);
  EXPECT_EQ(read->adapter.targets, folder.adapter.targets);
  EXPECT_EQ(read->base_model, "gpt2");
  EXPECT_EQ(read->task_type, "TOKEN_CLS");
}

TEST(PeftConfig, WhatIsNotComputedIsRefusedByItsKey) {
  for (const auto& [key, value] :
       {std::pair{"use_dora", "1"}, std::pair{"bias", "\"all\""},
        std::pair{"rank_pattern", "{\"c_attn\": 2}"}, std::pair{"peft_type", "\"IA3\""},
        std::pair{"r", "0"}, std::pair{"lora_dropout", "1"},
        std::pair{"layers_to_transform", "[0]"}, std::pair{"init_lora_weights", "\"pissa\""},
        std::pair{"init_lora_weights", "\"loftq\""}}) {
    std::string json = "{\"" + std::string(key) + "\": " + value + "}";
    const auto read = parse_peft_config(json);
    ASSERT_FALSE(read) << json;
    EXPECT_EQ(read.error().field(), key);
  }
  EXPECT_TRUE(
      parse_peft_config(R"({"r": 8, "use_dora": false, "rank_pattern": {}, "eva_config": null})"));
  for (const char* drawn : {"true", "false", "\"gaussian\"", "null"}) {
    EXPECT_TRUE(parse_peft_config(R"({"init_lora_weights": )" + std::string(drawn) + "}")) << drawn;
  }
}

// Leaving it out would make another model of it.
TEST(PeftConfig, AdviceIsTrue) {
  const std::string message = parse_peft_config(R"({"bias": "all"})").error().to_string();
  EXPECT_EQ(message.find("leave it out"), std::string::npos) << message;
  EXPECT_NE(message.find("only \"none\" is possible"), std::string::npos) << message;
}

// As PEFT writes a LoraConfig without a task_type.
TEST(PeftConfig, ATaskTypeMayBeAbsent) {
  const auto read = parse_peft_config(
      R"({"r": 8, "task_type": null, "base_model_name_or_path": null,
          "auto_mapping": {"base_model_class": "GPT2LMHeadModel",
                           "parent_library": "transformers.models.gpt2.modeling_gpt2"}})");
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->task_type, "CAUSAL_LM");
  EXPECT_EQ(read->base_model, "");
}

}  // namespace
}  // namespace weft
