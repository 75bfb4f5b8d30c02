// What the planner chooses, and what moves its choice.
#include "worker/planner/planner.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <set>

#include "proto/json/job_rules.h"
#include "tests/worker/planner/planner_fixture.h"
#include "worker/admission/check_sizes.h"
#include "worker/admission/mesh_text.h"
#include "worker/planner/advice.h"
#include "worker/planner/probe.h"

namespace weft {
namespace {

using testing::job;
using testing::plan;
using testing::Site;

constexpr int64_t kMiB = int64_t{1} << 20;

std::string advice(const proto::JobSpec& spec, const Site& site, std::vector<int> slots) {
  const ModelFamily* family = find_family("gpt2");
  const auto config = family->parse_config(struct_to_json(spec.model().config()));
  const int most = slots.back();
  return what_would_fit({*family,
                         **config,
                         spec,
                         std::move(slots),
                         {{site.gpu, site.memory, site.host}},
                         [&](int ranks, const RankNeeds& rank) {
                           return ranks <= most ? site.find(ranks, rank) : std::nullopt;
                         }});
}

constexpr const char* kSmall = "n_layer: 4, n_head: 4, n_embd: 128, vocab_size: 1000";
constexpr const char* kRows = "batch_size: 8, sequence_length: 128";

std::array<int, 3> degrees(const proto::MeshPlan& mesh) {
  return {mesh.data(), mesh.sequence(), mesh.tensor()};
}

TEST(Planner, ManyRowsAreSharedOutByTheDataAxis) {
  const proto::JobPlan found = plan(job(kSmall, kRows), {}, {4});
  ASSERT_TRUE(found.has_chosen()) << found.reason();
  EXPECT_EQ(degrees(found.chosen()), (std::array{4, 1, 1})) << found.reason();
  EXPECT_EQ(found.chosen().nodes(), 1);
  EXPECT_NE(found.reason().find("the fastest of "), std::string::npos) << found.reason();
}

TEST(Planner, OneLongRowIsSharedOutByItsTokens) {
  const proto::JobPlan found =
      plan(job("n_layer: 2, n_head: 4, n_embd: 128, vocab_size: 300, n_positions: 8192",
               "batch_size: 1, sequence_length: 8192"),
           {}, {4});
  ASSERT_TRUE(found.has_chosen()) << found.reason();
  EXPECT_EQ(found.chosen().data(), 1);
  EXPECT_EQ(found.chosen().sequence(), 4) << found.reason();
}

// Of an encoder and a decoder, but no rank is left without tokens of the target.
TEST(Planner, ALongSourceIsSharedOutByItsTokens) {
  const proto::JobPlan found =
      plan(job("num_layers: 2, num_heads: 4, d_model: 128, d_kv: 32, d_ff: 512, vocab_size: 300",
               "batch_size: 1, sequence_length: 8192, target_length: 3", "auto", "t5",
               "seq2seq, data: {train: obj-targets, format: jsonl}"),
           {}, {1, 3, 4});
  ASSERT_TRUE(found.has_chosen()) << found.reason();
  EXPECT_GT(found.chosen().sequence(), 1) << found.reason();
  const auto& most = *std::ranges::max_element(found.meshes(), {},
                                               [](const auto& mesh) { return mesh.sequence(); });
  EXPECT_EQ(most.sequence(), 3);
}

// Of every mesh the whole range is looked at, and each has the slots it may take.
TEST(Planner, EveryMeshOfTheSlotsIsLookedAtOnce) {
  const proto::JobPlan found = plan(job(kSmall, kRows), {}, {1, 2, 4});
  std::set<std::array<int, 3>> seen;
  double last = 0;
  for (const proto::MeshPlan& mesh : found.meshes()) {
    EXPECT_TRUE(seen.insert(degrees(mesh)).second);
    EXPECT_EQ(mesh.data() * mesh.sequence() * mesh.tensor(), mesh.slots());
    EXPECT_GE(mesh.step_seconds(), last);
    last = mesh.step_seconds();
  }
  EXPECT_EQ(seen.size(), 1u + 3u + 6u);
  EXPECT_TRUE(seen.contains({1, 2, 2}));
}

TEST(Planner, WhatMemoryAsksForIsOffered) {
  // 8 rows of 512 tokens on one rank: activations are most of it.
  const proto::JobSpec spec = job("n_layer: 8, n_head: 4, n_embd: 128, vocab_size: 300",
                                  "batch_size: 8, sequence_length: 512");
  Site site;
  const proto::MeshPlan roomy = plan(spec, site, {1}).chosen();
  EXPECT_EQ(roomy.activation_checkpointing(), proto::ACTIVATION_CHECKPOINTING_NONE);
  EXPECT_EQ(roomy.micro_batch_size(), 8);
  site.memory = roomy.memory_bytes() * 8 / 10;
  const proto::JobPlan tight = plan(spec, site, {1});
  ASSERT_TRUE(tight.has_chosen()) << tight.reason();
  EXPECT_LE(tight.chosen().memory_bytes(), site.memory);
  EXPECT_TRUE(tight.chosen().micro_batch_size() < 8 ||
              tight.chosen().activation_checkpointing() != proto::ACTIVATION_CHECKPOINTING_NONE);
  // With the micro-batch given, recomputation alone is left.
  proto::JobSpec given = spec;
  given.mutable_training()->set_micro_batch_size(8);
  const proto::JobPlan recomputing = plan(given, site, {1});
  ASSERT_TRUE(recomputing.has_chosen()) << recomputing.reason();
  EXPECT_EQ(recomputing.chosen().micro_batch_size(), 8);
  EXPECT_NE(recomputing.chosen().activation_checkpointing(), proto::ACTIVATION_CHECKPOINTING_NONE);
  // What the job says of recomputation stays.
  given.mutable_training()->set_activation_checkpointing(proto::ACTIVATION_CHECKPOINTING_NONE);
  const proto::JobPlan none = plan(given, site, {1});
  EXPECT_FALSE(none.has_chosen());
  EXPECT_NE(none.reason().find("none of 1 mesh fits"), std::string::npos) << none.reason();
  EXPECT_NE(none.meshes(0).problem().find("a rank needs"), std::string::npos);
}

// Weights and optimizer state of a model that fits no slot are shared out.
TEST(Planner, AModelThatFitsNoSlotIsSharedOut) {
  const proto::JobSpec spec = job("n_layer: 8, n_head: 8, n_embd: 512, vocab_size: 2000",
                                  "batch_size: 8, sequence_length: 64");
  Site site;
  site.memory = plan(spec, site, {1}).chosen().memory_bytes() / 2;
  const proto::JobPlan found = plan(spec, site, {4});
  ASSERT_TRUE(found.has_chosen()) << found.reason();
  const proto::MeshPlan& mesh = found.chosen();
  EXPECT_TRUE(mesh.zero() > 0 || mesh.tensor() > 1);
  EXPECT_LE(mesh.memory_bytes(), site.memory);
  EXPECT_GT(std::count_if(found.meshes().begin(), found.meshes().end(),
                          [](const auto& each) { return each.fits(); }),
            0);
}

// Across a slow network the axis that sends most per step stays within a node.
TEST(Planner, ChattyAxesStayWithinANode) {
  const proto::JobSpec spec = job("n_layer: 8, n_head: 8, n_embd: 512, vocab_size: 2000",
                                  "batch_size: 8, sequence_length: 128");
  Site site;
  site.slots = 2;
  site.speed.link = 1e7;
  const proto::JobPlan found = plan(spec, site, {4});
  const auto time_of = [&](std::array<int, 3> wanted) {
    for (const proto::MeshPlan& mesh : found.meshes()) {
      if (degrees(mesh) == wanted) return mesh.step_seconds();
    }
    return -1.0;
  };
  EXPECT_LT(time_of({2, 1, 2}), time_of({1, 1, 4}));
  EXPECT_LT(time_of({1, 2, 2}), time_of({1, 1, 4}));
}

// More slots are not taken for the same speed.
TEST(Planner, SlotsThatGainNothingAreLeft) {
  const proto::JobSpec spec = job(kSmall, "batch_size: 1, sequence_length: 16");
  Site site;
  site.speed.link = 1e6;
  site.slots = 1;
  const proto::JobPlan found = plan(spec, site, {1, 2, 4});
  EXPECT_EQ(found.chosen().slots(), 1) << found.reason();
}

// Of meshes whose predicted times are nearly the same the one is chosen that sends the fewest
// messages, which a busy node holds up.
TEST(Planner, OfNearTiesTheOneWithTheFewestMessagesIsChosen) {
  // 33 of 65 rows: the data axis takes 1.5% longer.
  const proto::JobSpec spec = job(kSmall, "batch_size: 65, sequence_length: 512");
  Site site{.slots = 2};
  site.speed.local_latency = 0;
  site.speed.memory = 1e13;  // what is sent takes no time
  const proto::JobPlan found = plan(spec, site, {2});
  ASSERT_EQ(found.meshes_size(), 3) << found.reason();
  const proto::MeshPlan& chosen = found.chosen();
  EXPECT_EQ(degrees(chosen), (std::array{2, 1, 1})) << found.reason();
  EXPECT_NE(degrees(found.meshes(0)), degrees(chosen)) << "no near tie: " << found.reason();
  EXPECT_LE(chosen.step_seconds(), 1.03 * found.meshes(0).step_seconds());
  EXPECT_NE(found.reason().find("as good as the fastest (within 3%), with "), std::string::npos);
  EXPECT_NE(found.reason().find(" messages a step and rank instead of "), std::string::npos)
      << found.reason();
  // Where messages take their time, too, the fastest is the one.
  site.speed.local_latency = 0.1;
  const proto::JobPlan apart = plan(spec, site, {2});
  EXPECT_EQ(degrees(apart.meshes(0)), degrees(apart.chosen()));
  EXPECT_NE(apart.reason().find("; the fastest of 3 meshes"), std::string::npos) << apart.reason();
}

TEST(Planner, AMeshThatTheJobSaysIsTheOnlyOne) {
  const proto::JobSpec spec = job(kSmall, kRows, "{data: 2, tensor: 2, zero: 2}");
  const proto::JobPlan found = plan(spec, {}, {4});
  ASSERT_EQ(found.meshes_size(), 1);
  EXPECT_EQ(found.chosen().zero(), 2);
  EXPECT_EQ(found.reason(), "the job file says this mesh");
  EXPECT_GT(found.chosen().tensor_bytes(), 0);
  EXPECT_GT(found.chosen().replica_bytes(), 0);
  EXPECT_EQ(found.chosen().sequence_bytes(), 0);
}

// Invariant training wants ranks and rows that divide its blocks.
TEST(Planner, OnlyMeshesThatTheJobsRulesAllowAreLookedAt) {
  constexpr const char* kRules =
      "batch_size: 8, sequence_length: 128, reproducible: topology, reproducible_blocks: 8";
  for (const proto::JobSpec& spec :
       {job(kSmall, kRules),
        job("num_layers: 2, num_heads: 4, d_model: 64, d_kv: 16, d_ff: 128, vocab_size: 300",
            kRules, "auto", "t5", "seq2seq, data: {train: obj-targets, format: jsonl}"),
        job("encoder_layers: 2, decoder_layers: 2, d_model: 64, encoder_attention_heads: 4, "
            "decoder_attention_heads: 4, encoder_ffn_dim: 128, decoder_ffn_dim: 128, vocab_size: "
            "300, max_source_positions: 128, decoder_start_token_id: 1",
            kRules, "auto", "whisper",
            "speech_recognition, data: {train: obj-recordings, format: audio}")}) {
    const proto::JobPlan found = plan(spec, {}, {1, 2, 3, 4});
    ASSERT_TRUE(found.has_chosen()) << found.reason();
    for (const proto::MeshPlan& mesh : found.meshes()) {
      EXPECT_NE(mesh.slots(), 3) << mesh_text(mesh);
      EXPECT_EQ(mesh.ulysses(), mesh.sequence()) << mesh_text(mesh);
      proto::JobSpec chosen = with_choice(spec, mesh);
      const Status finished = finish_job(chosen);
      EXPECT_TRUE(finished.ok()) << mesh_text(mesh) << ": " << finished.to_string();
    }
  }
}

// A rule that no mesh obeys is named.
TEST(Planner, WhatAllowsNoMeshIsSaid) {
  const proto::JobSpec spec = job("n_layer: 2, n_head: 4, n_embd: 100, vocab_size: 300",
                                  "batch_size: 8, sequence_length: 128, reproducible: topology");
  EXPECT_EQ(plan(spec, {}, {1, 2}).reason(),
            "the job allows no mesh: training.reproducible_blocks must divide the model's 100 "
            "hidden features with training.reproducible: topology (got 8)");
  EXPECT_EQ(advice(spec, {}, {1, 2}), "");  // no slots would help
  const proto::JobSpec short_rows = job(kSmall, "batch_size: 2, sequence_length: 16");
  EXPECT_EQ(plan(short_rows, {}, {64}).reason(),
            "no mesh that 'parallel: auto' looks at has so many slots: its data axis has at most "
            "training.batch_size = 2 ranks, its tensor axis at most the model's heads = 4, its "
            "sequence axis at least 16 of training.sequence_length = 16 tokens a rank");
}

TEST(Planner, TheChoiceIsAJobThatSaysIt) {
  const proto::JobSpec spec = job("n_layer: 2, n_head: 3, n_embd: 96, vocab_size: 300",
                                  "batch_size: 2, sequence_length: 256");
  const proto::JobPlan found = plan(spec, {}, {1, 2, 4});
  for (const proto::MeshPlan& mesh : found.meshes()) {
    proto::JobSpec chosen = with_choice(spec, mesh);
    const Status finished = finish_job(chosen);
    ASSERT_TRUE(finished.ok()) << mesh_text(mesh) << ": " << finished.to_string();
    const proto::JobPlan again = plan(chosen, {}, {});
    ASSERT_EQ(again.meshes_size(), 1);
    EXPECT_EQ(again.chosen().ulysses(), mesh.ulysses()) << mesh_text(mesh);
    EXPECT_EQ(again.chosen().memory_bytes(), mesh.memory_bytes()) << mesh_text(mesh);
    EXPECT_EQ(again.chosen().step_seconds(), mesh.step_seconds()) << mesh_text(mesh);
  }
}

TEST(Planner, TheTextOfAMeshSaysHowAttentionCrossesTheSequenceAxis) {
  const auto model = find_family("gpt2")->parse_config(R"({"n_head": 4, "n_embd": 64})");
  ASSERT_TRUE(model);
  const auto text = [&](const std::string& parallel, bool settled) {
    proto::JobSpec spec = job(kSmall, kRows, "{" + parallel + "}");
    if (settled) settle_attention(**model, spec);
    EXPECT_TRUE(finish_job(spec).ok());
    return mesh_text(spec.parallel());
  };
  EXPECT_EQ(text("data: 2, zero: 1", true), "data 2 x sequence 1 x tensor 1, zero 1");
  EXPECT_EQ(text("sequence: 2", false), "data 1 x sequence 2 x tensor 1");
  EXPECT_EQ(text("sequence: 3", true), "data 1 x sequence 3 (ring) x tensor 1");
  EXPECT_EQ(text("sequence: 4", true), "data 1 x sequence 4 (ulysses) x tensor 1");
  EXPECT_EQ(text("sequence: 4, sequence_attention: ring", true),
            "data 1 x sequence 4 (ring) x tensor 1");
  EXPECT_EQ(text("sequence: 4, tensor: 2, sequence_attention: ulysses_ring, ulysses: 2", true),
            "data 1 x sequence 4 (ulysses_ring, groups of 2) x tensor 2");
  EXPECT_EQ(text("sequence: 8", true),
            "data 1 x sequence 8 (ulysses_ring, groups of 4) x tensor 1");
  const proto::JobSpec exact = job(kSmall,
                                   "batch_size: 8, sequence_length: 128, "
                                   "reproducible: topology, reproducible_blocks: 8",
                                   "{sequence: 2}");
  EXPECT_EQ(mesh_text(plan(exact, {}, {}).chosen()), "data 1 x sequence 2 (ulysses) x tensor 1");
}

// Each message waits for one turn of every other rank on the core.
TEST(Planner, RanksThatShareACoreWaitForTheirTurn) {
  const auto sent = [](int slots, int cores, double latency, double turn) {
    Site site{.slots = slots, .cores = cores};
    site.speed.local_latency = latency;
    site.speed.turn = turn;
    const std::string parallel = fmt::format("{{data: {}}}", slots);
    return plan(job(kSmall, kRows, parallel), site, {slots}).chosen().communication_seconds();
  };
  EXPECT_EQ(sent(2, 2, 0, 1e-3), sent(2, 2, 0, 0));
  EXPECT_NEAR(sent(2, 1, 0, 1e-3), sent(2, 1, 1e-3, 0), 1e-12);
  EXPECT_NEAR(sent(4, 1, 0, 1e-3), sent(4, 1, 3e-3, 0), 1e-12);
  EXPECT_GT(sent(2, 1, 0, 1e-3), sent(2, 1, 0, 0));
}

// Of a fast network all but the first values is hidden, at every level; the highest one sends more
// for nothing.
TEST(Planner, WhatIsHiddenIsNotSentForNothing) {
  Site apart{.slots = 1};
  apart.speed.link = 1e11;
  apart.speed.network_latency = 0;
  const proto::JobSpec spec = job(kSmall, kRows);
  const proto::MeshPlan chosen = plan(spec, apart, {2}).chosen();
  EXPECT_GT(chosen.hidden_seconds(), 0.5 * chosen.communication_seconds());
  EXPECT_GT(chosen.zero(), 0);
  EXPECT_LT(chosen.zero(), 3);
}

// The values of level 1 come while the blocks before theirs compute: all but those of the embedding
// and of the first block, half of each of which a rank of two sends. Over a slow link they take at
// most the forward pass of the first micro-batch, a third of its arithmetic.
TEST(Planner, TheForwardPassHidesValues) {
  constexpr int64_t kWidth = 128, kVocabulary = 1000, kPositions = 1024;
  constexpr int64_t kBlock = 12 * kWidth * kWidth + 13 * kWidth;  // parameters of one
  const double first = 4 * ((kVocabulary + kPositions) * kWidth + kBlock) / 2.0;
  const double later = 4 * (3 * kBlock + 2 * kWidth) / 2.0;
  const auto planned = [](int zero, const Site& site, const std::string& rows = "") {
    const std::string parallel = fmt::format("{{data: 2, zero: {}}}", zero);
    return plan(job(kSmall, kRows + rows, parallel), site, {2}).chosen();
  };
  Site apart{.slots = 1};
  apart.speed.link = 1e11;
  apart.speed.network_latency = 0;
  const auto in_sight = [](const proto::MeshPlan& mesh) {
    return mesh.communication_seconds() - mesh.hidden_seconds();
  };
  EXPECT_NEAR(in_sight(planned(0, apart)), 0, 1e-12);
  for (const int zero : {1, 2, 3}) {
    EXPECT_NEAR(in_sight(planned(zero, apart)), first / apart.speed.link, 1e-12) << zero;
  }
  // Recorded passes of a GPU wait for no values; those of other meshes are not recorded.
  apart.gpu = true;
  EXPECT_NEAR(in_sight(planned(1, apart)), (first + later) / apart.speed.link, 1e-12);
  EXPECT_NEAR(in_sight(planned(3, apart)), first / apart.speed.link, 1e-12);
  apart.gpu = false;
  apart.speed.link = 1e3;
  for (const int micro : {4, 1}) {
    const proto::MeshPlan slow = planned(1, apart, fmt::format(", micro_batch_size: {}", micro));
    EXPECT_NEAR(slow.hidden_seconds(), slow.compute_seconds() / (4 / micro), 1e-9) << micro;
  }
}

// Where nothing else is sent, the first block's MLP comes while its attention computes, unless it
// shares a bucket with it: here each of its matrices is larger than one.
TEST(Planner, TheFirstAttentionHidesWhatIsUsedBehindIt) {
  constexpr int64_t kWidth = 768, kMlp = 2 * 4 * kWidth * kWidth + 5 * kWidth;
  constexpr int64_t kAttention = 4 * kWidth * kWidth + 8 * kWidth;  // and both norms
  Site apart{.slots = 1};
  apart.speed.link = 1e11;
  apart.speed.network_latency = 0;
  const auto in_sight = [&](int zero, std::string_view more) {
    const proto::JobSpec spec = job("n_layer: 4, n_head: 12, n_embd: 768, vocab_size: 1000", kRows,
                                    fmt::format("{{data: 2, zero: {}{}}}", zero, more));
    const proto::MeshPlan mesh = plan(spec, apart, {2}).chosen();
    return (mesh.communication_seconds() - mesh.hidden_seconds()) * apart.speed.link;
  };
  const double tables = 4 * (1000 + 1024) * kWidth / 2.0;
  const double attention = 4 * kAttention / 2.0, mlp = 4 * kMlp / 2.0;
  for (const int zero : {1, 2}) {
    EXPECT_NEAR(in_sight(zero, ""), tables + attention, 0.1) << zero;
    EXPECT_NEAR(in_sight(zero, ", bucket_bytes: 1000000000"), tables + attention + mlp, 0.1);
  }
  EXPECT_NEAR(in_sight(3, ""), tables + attention + mlp, 0.1);
}

// What crosses between nodes of one machine its cores move.
TEST(Planner, NothingIsHiddenOnALoopback) {
  Site site{.slots = 1};
  const proto::JobSpec spec = job(kSmall, kRows, "{data: 2}");
  EXPECT_GT(plan(spec, site, {2}).chosen().hidden_seconds(), 0);
  site.loopback = true;
  EXPECT_EQ(plan(spec, site, {2}).chosen().hidden_seconds(), 0);
  site.cores = 2;  // one of them is left over
  EXPECT_GT(plan(spec, site, {2}).chosen().hidden_seconds(), 0);
}

// A GPU's memory and that of its node are two limits, each right both ways.
TEST(Planner, AGpusMemoryAndItsNodesAreHeldApart) {
  const proto::JobSpec spec = job("n_layer: 8, n_head: 8, n_embd: 512, vocab_size: 2000",
                                  "batch_size: 8, micro_batch_size: 8, sequence_length: 64, "
                                  "activation_checkpointing: none");
  Site site{.speed = kUnknownGpu, .gpu = true};
  const proto::MeshPlan roomy = plan(spec, site, {1}).chosen();
  EXPECT_EQ(roomy.device(), proto::COMPUTE_DEVICE_GPU);
  const auto& memory = roomy.memory();
  EXPECT_EQ(roomy.memory_bytes(), memory.parameters() + memory.optimizer() + memory.gradients() +
                                      memory.activations() + memory.workspace() + memory.process());
  EXPECT_GT(roomy.host_bytes(), memory.checkpoint()) << "which is copied to the node's memory";
  site.memory = roomy.memory_bytes();
  site.host = roomy.host_bytes();
  EXPECT_TRUE(plan(spec, site, {1}).has_chosen());
  --site.memory;
  const proto::JobPlan device = plan(spec, site, {1});
  EXPECT_FALSE(device.has_chosen());
  EXPECT_NE(device.reason().find("; the largest GPU has "), std::string::npos) << device.reason();
  ++site.memory;
  --site.host;
  const proto::JobPlan host = plan(spec, site, {1});
  EXPECT_FALSE(host.has_chosen());
  EXPECT_NE(host.reason().find("the largest slot, beside its GPU, has "), std::string::npos)
      << host.reason();
}

// On GPUs a faster link between them moves the choice towards the axes that send more.
TEST(Planner, AGpusLinksCount) {
  const proto::JobSpec spec =
      job("n_layer: 8, n_head: 8, n_embd: 1024, vocab_size: 2000",
          "batch_size: 4, sequence_length: 512, precision: bf16", "{tensor: 4}");
  Site site{.speed = kUnknownGpu, .gpu = true};
  const double slow = plan(spec, site, {4}).chosen().communication_seconds();
  site.speed.local *= 10;
  site.speed.local_latency /= 10;
  const proto::MeshPlan fast = plan(spec, site, {4}).chosen();
  EXPECT_NEAR(fast.communication_seconds() / slow, 0.1, 1e-6);
  site.slots = 2;  // two nodes, and the network between them
  EXPECT_GT(plan(spec, site, {4}).chosen().communication_seconds(), slow);
}

// Products that are cut (256 tokens of a rank) hide their transfers between hosts, where a core is
// left over, and on GPUs; in blocks they are not cut.
TEST(Planner, ProductsOfTheTensorAxisHideTheirTransfers) {
  constexpr const char* kModel =
      "n_layer: 4, n_head: 12, n_embd: 768, vocab_size: 4096, n_positions: 2048";
  const auto hidden = [](const std::string& training, const Site& site) {
    return plan(job(kModel, training, "{tensor: 2}"), site, {2}).chosen().hidden_seconds();
  };
  Site apart{.slots = 1};
  apart.speed.link = 1e12;  // so that all of it fits behind some product
  apart.speed.network_latency = 0;
  const std::string rows = "batch_size: 2, micro_batch_size: 2, sequence_length: 2048";
  // Of 8 L + 4 transfers of (t - 1) / t B T H floats the 8 L of the blocks.
  const double transfer = 0.5 * 2 * 2048 * 768 * 4 / apart.speed.link;
  EXPECT_NEAR(hidden(rows, apart), 32 * transfer, 1e-3 * transfer);
  EXPECT_EQ(hidden("batch_size: 2, micro_batch_size: 2, sequence_length: 510", apart), 0);
  EXPECT_NEAR(hidden(rows + ", activation_checkpointing: full", apart), 48 * transfer,
              1e-3 * transfer);
  EXPECT_EQ(hidden(rows + ", reproducible: topology, reproducible_blocks: 4", apart), 0);
  // Over a slow link it is what runs beside them, in columns of 384 features: of products of 3, 1,
  // 4 and 4 halves forwards and backwards, and of those of 3 and 4 the weight's gradient too.
  apart.speed.link = 1e3;
  const double columns = 2.0 * 2 * 2048 * 768 * 384 / (0.85 * apart.speed.flops);
  EXPECT_NEAR(hidden(rows, apart), 4 * columns * (12 / 2.0 + 12 / 2.0 + 7), 1e-9);
  // The same where query, key and value, gate and up are weights of their own, in columns of 128
  // features: of 3 and 1 and 1, of 3, of 8 and 8, and of 8.
  constexpr const char* kGated =
      "num_hidden_layers: 4, num_attention_heads: 12, num_key_value_heads: 4, hidden_size: 768, "
      "intermediate_size: 2048, vocab_size: 4096, max_position_embeddings: 2048";
  const double of_gated =
      plan(job(kGated, rows, "{tensor: 2}", "llama"), apart, {2}).chosen().hidden_seconds();
  EXPECT_NEAR(of_gated, 4 * columns / 3 * (32 / 2.0 + 32 / 2.0 + 21), 1e-9);
  Site together{.slots = 2};
  EXPECT_EQ(hidden(rows, together), 0);  // the cores that compute move the bytes
  together.gpu = true;
  EXPECT_GT(hidden(rows, together), 0);
}

// What a refusal advises fits, and what it says is needed is what is needed.
TEST(Advice, SaysWhatWouldFit) {
  const proto::JobSpec spec = job("n_layer: 8, n_head: 8, n_embd: 512, vocab_size: 2000",
                                  "batch_size: 8, sequence_length: 64", "{data: 1}");
  Site site;
  site.memory = plan(spec, site, {1}).chosen().memory_bytes() / 2;
  EXPECT_FALSE(plan(spec, site, {1}).has_chosen());
  const std::string here = advice(spec, site, {1, 2, 4});
  EXPECT_EQ(here.substr(0, 21), "these nodes can hold ") << here;
  const std::string more = advice(spec, site, {1});
  proto::JobSpec open = spec;
  open.mutable_parallel()->Clear();
  open.mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  open.mutable_training()->clear_micro_batch_size();
  open.mutable_training()->clear_activation_checkpointing();
  open.mutable_resources()->clear_slots();
  int fewest = 1;
  while (fewest < 16 && !plan(open, site, {fewest}).has_chosen()) ++fewest;
  EXPECT_EQ(
      more.find(fmt::format("{} slots as large as the largest there would do (data ", fewest)), 0u)
      << more;
  const std::string least = bytes_text(plan(open, site, {1}).meshes(0).memory_bytes());
  EXPECT_NE(more.find("; 1 slot would need " + least + " each"), std::string::npos) << more;
}

// Jobs at the bounds of what is admitted (check_sizes) are planned, and advised on, at once, and
// nothing of them is counted past its end: 100,000 layers, as many rows and tokens as there may be,
// hundreds of thousands of micro-batches.
TEST(Planner, AnAbsurdJobIsAnsweredAtOnce) {
  const auto absurd = [](const char* model, const std::string& training) {
    const proto::JobSpec spec = job(model, training);
    const ModelFamily* family = find_family("gpt2");
    const auto config = family->parse_config(struct_to_json(spec.model().config()));
    const Status countable = check_sizes(spec, **config);
    ASSERT_TRUE(countable.ok()) << countable.to_string();
    const std::clock_t start = std::clock();  // of the processor: others may compute beside it
    const proto::JobPlan found = plan(spec, {}, {64});
    Site small;
    small.memory = 10 * kMiB;
    const std::string advised = advice(spec, small, {64});
    EXPECT_LT(std::clock() - start, 3 * CLOCKS_PER_SEC) << training;
    EXPECT_EQ(advised.find("no mesh of up to 1024 slots"), 0u) << advised;
    ASSERT_GT(found.meshes_size(), 0);
    for (const proto::MeshPlan& mesh : found.meshes()) {
      const auto& memory = mesh.memory();
      for (const int64_t bytes :
           {mesh.memory_bytes(), memory.parameters(), memory.optimizer(), memory.gradients(),
            memory.activations(), memory.workspace(), memory.checkpoint(), memory.process(),
            mesh.tensor_bytes(), mesh.sequence_bytes(), mesh.replica_bytes()}) {
        EXPECT_GE(bytes, 0) << training << " on " << mesh_text(mesh);
      }
      EXPECT_GT(mesh.step_seconds(), 0);
    }
  };
  constexpr const char* kLongRows = "n_positions: 16777216";
  absurd("n_layer: 100000", "batch_size: 64, sequence_length: 1024");
  absurd("", "batch_size: 1048576, micro_batch_size: 4, sequence_length: 1024");
  absurd("", "batch_size: 1048576, sequence_length: 1024, precision: bf16");
  absurd(kLongRows, "batch_size: 332, sequence_length: 16777216, precision: bf16");
  absurd(kLongRows, "batch_size: 332, sequence_length: 16777216, precision: fp16");
}

// Where the values alone are too much however they are shared out, nothing else is promised.
TEST(Advice, SaysThatNothingWould) {
  const proto::JobSpec spec =
      job(kSmall, "batch_size: 1, sequence_length: 16, micro_batch_size: 1", "{data: 1}");
  Site site;
  site.memory = 10 * kMiB;  // less than a program takes
  const std::string text = advice(spec, site, {1, 2});
  EXPECT_EQ(text.find("no mesh of up to 1024 slots as large as the largest there would fit; "), 0u)
      << text;
  EXPECT_NE(text.find(" slots would need "), std::string::npos) << text;
}

TEST(Probe, FindsPlausibleRates) {
  const HostSpeed speed = measure_speed();
  EXPECT_GT(speed.flops, 1e9);
  EXPECT_LT(speed.flops, 1e13);
  EXPECT_GT(speed.half_flops, 1e8);
  EXPECT_GT(speed.memory, 1e8);
  EXPECT_LT(speed.memory, 1e12);
  EXPECT_EQ(speed.link, HostSpeed().link);
}

}  // namespace
}  // namespace weft
