// The estimate beside what real ranks measure (memory_peak_bytes of the allocators), and what
// submission makes of it.
#include "worker/admission/memory.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <span>

#include "tests/testing/late_communicator.h"
#include "tests/worker/admission/memory_adapter_cases.h"
#include "tests/worker/admission/memory_relative_cases.h"
#include "tests/worker/admission/memory_speech_cases.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/checkpoint/writer.h"
#include "worker/setup.h"

namespace weft {
namespace {

using memory_cases::Case;
using memory_cases::kAdaptedCases;
using memory_cases::kBatch;
using memory_cases::kBlockedAdaptedCases;
using memory_cases::kBlockedCases;
using memory_cases::kBlockedRelativeCases;
using memory_cases::kBlockedSpeechCases;
using memory_cases::kBlockedTargetCases;
using memory_cases::kCases;
using memory_cases::kEncoderCases;
using memory_cases::kGroupedCases;
using memory_cases::kImageCases;
using memory_cases::kPermutedCases;
using memory_cases::kRelativeCases;
using memory_cases::kSmall;
using memory_cases::kSpeechCases;
using memory_cases::kTargetCases;

class Memory : public Trainer {
 protected:
  void SetUp() override {
    Trainer::SetUp();
    add_images(WEFT_SOURCE_DIR);
    add_recordings(30);
    fs::create_directories(folder_ / "obj-pairs");
    std::ofstream pairs(folder_ / "obj-pairs" / "pairs.jsonl");
    for (int i = 0; i < 60; ++i) {
      pairs << R"({"text": "eight of", "text_pair": "or more of "})"
               "\n";
    }
    fs::create_directories(folder_ / "obj-targets");
    fs::create_directories(folder_ / "obj-long");
    std::ofstream targets(folder_ / "obj-targets" / "targets.jsonl");
    std::ofstream rows(folder_ / "obj-long" / "rows.jsonl");
    for (int i = 0; i < 60; ++i) {  // as long as a row may be, and cut
      const std::string long_text(static_cast<size_t>(300), "abc"[i % 3]);
      targets << R"({"text": ")" << long_text << R"(", "target": ")" << long_text << "\"}\n";
      rows << R"({"text": ")" << long_text << R"(", "label": )" << i % 3 << "}\n";
    }
  }
  proto::LaunchRecord launch(const Case& which) {
    const std::string task = which.task;
    const bool images = task == "image_classification", writes = task == "seq2seq";
    const bool relative = which.family == std::string("xlnet"),
               hears = task == "speech_recognition";
    const std::string positions =
        images || writes || relative || hears
            ? ""
            : fmt::format(", max_position_embeddings: {}", which.positions);
    const bool permutes = task == "permutation_lm";
    const char* data = task == "causal_lm" || permutes ? "data: {train: obj-text, format: text}"
                       : task == "embedding"           ? "data: {train: obj-pairs, format: jsonl}"
                       : hears    ? "data: {train: obj-recordings, format: audio}"
                       : writes   ? "data: {train: obj-targets, format: jsonl}"
                       : images   ? "labels: 3, data: {train: obj-images, format: images}"
                       : relative ? "labels: 3, data: {train: obj-long, format: jsonl}"
                                  : "labels: 3, data: {train: obj-rows, format: jsonl}";
    proto::LaunchRecord made =
        record(fmt::format(R"(
name: memory
kind: pretrain
model: {{family: {}, config: {{{}{}}}}}
{}
tasks: [{{type: {}, {}}}]
training: {{{}, steps: 3}}
)",
                           which.family, which.model, positions,
                           images ? "" : "tokenizer: {type: byte}", task, data, which.training),
               which.mesh);
    made.mutable_spec()->mutable_parallel()->set_zero(which.zero);
    made.mutable_spec()->mutable_parallel()->set_bucket_bytes(which.bucket_bytes);
    if (which.target != nullptr) {
      proto::AdapterSpec& adapter = *made.mutable_spec()->mutable_adapter();
      adapter.set_rank(8);
      adapter.set_alpha(8);
      adapter.set_dropout(which.dropout);
      adapter.set_dora(which.dora);
      adapter.add_targets(which.target);
    }
    return made;
  }

  // The estimate has every transfer under way that can be, and so have these ranks.
  int64_t measured(const proto::LaunchRecord& launch) {
    const auto place = [](std::unique_ptr<Communicator> world) {
      return RankPlace{make_caching_allocator(), testing::late(std::move(world))};
    };
    MemoryCluster cluster;
    EXPECT_TRUE(train(launch, cluster, place).ok());
    double most = 0;
    for (const auto& metric : cluster.metrics) {
      const auto found = metric.values().find("memory_peak_bytes");
      if (found != metric.values().end()) most = std::max(most, found->second);
    }
    return static_cast<int64_t>(most);
  }

  static MemoryEstimate estimated(const proto::JobSpec& spec) {
    const ModelFamily* family = find_family(spec.model().family());
    const auto config = family->parse_config(struct_to_json(spec.model().config()));
    if (!spec.has_adapter()) return estimate_memory(*family, **config, spec);
    const auto adapter = find_adapter(spec.adapter(), *family, **config);
    return estimate_memory(*family, *family->with_adapter(**config, *adapter), spec);
  }

  void compare(std::span<const Case> cases) {
    for (const Case& which : cases) {
      const proto::LaunchRecord job = launch(which);
      const MemoryEstimate estimate = estimated(job.spec());
      const double ratio =
          static_cast<double>(estimate.tensors()) / static_cast<double>(measured(job));
      fmt::print("{:>16} {:.3f}  {}\n", which.name, ratio, estimate.to_string());
      EXPECT_GT(ratio, 0.93) << which.name;
      EXPECT_LT(ratio, 1.07) << which.name;
    }
  }
};

TEST_F(Memory, TheEstimateIsWhatRanksMeasure) { compare(kCases); }
TEST_F(Memory, TheEstimateOfGroupedQueriesIsWhatRanksMeasure) { compare(kGroupedCases); }
TEST_F(Memory, TheEstimateOfEncodersIsWhatRanksMeasure) { compare(kEncoderCases); }
TEST_F(Memory, TheEstimateOfImagesIsWhatRanksMeasure) { compare(kImageCases); }
TEST_F(Memory, TheEstimateOfTargetsIsWhatRanksMeasure) { compare(kTargetCases); }
TEST_F(Memory, TheEstimateOfSpeechIsWhatRanksMeasure) { compare(kSpeechCases); }
TEST_F(Memory, TheEstimateOfRelativeTermsIsWhatRanksMeasure) { compare(kRelativeCases); }
TEST_F(Memory, TheEstimateOfRelativeTermsInBlocksIsWhatRanksMeasure) {
  compare(kBlockedRelativeCases);
}
TEST_F(Memory, TheEstimateOfPredictionsIsWhatRanksMeasure) { compare(kPermutedCases); }
TEST_F(Memory, TheEstimateOfAdaptersIsWhatRanksMeasure) { compare(kAdaptedCases); }
TEST_F(Memory, TheEstimateOfBlocksIsWhatRanksMeasure) { compare(kBlockedCases); }
TEST_F(Memory, TheEstimateOfTargetsInBlocksIsWhatRanksMeasure) { compare(kBlockedTargetCases); }
TEST_F(Memory, TheEstimateOfSpeechInBlocksIsWhatRanksMeasure) { compare(kBlockedSpeechCases); }
TEST_F(Memory, TheEstimateOfAdaptersInBlocksIsWhatRanksMeasure) { compare(kBlockedAdaptedCases); }

// A job's first checkpoint, on the replica that writes most of it. Ranks of the tensor axis take
// turns at the little that each of them has whole; the estimate counts all of that.
TEST_F(Memory, TheEstimateOfACheckpointIsWhatTheWriterTakes) {
  for (const char* target : {static_cast<const char*>(nullptr), "c_attn", "all-linear"}) {
    for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{2, 1, 1}, MeshDegrees{1, 3, 1},
                                   MeshDegrees{4, 1, 1}, MeshDegrees{2, 1, 2}}) {
      for (const int zero : {0, 1, 2, 3}) {
        const std::string name = fmt::format("{} on {} x {} x {}, zero {}", target ? target : "all",
                                             mesh.data, mesh.sequence, mesh.tensor, zero);
        Case which{name.c_str(), kSmall, kBatch, mesh, "causal_lm", zero};
        which.target = target;
        const proto::LaunchRecord job = launch(which);
        MemoryCluster cluster;
        std::atomic<int64_t> most{0};
        testing::run_mesh(mesh, [&](Rank& rank) {
          MemoryProgress progress(cluster);
          const auto training = set_up(rank, job, progress);
          ASSERT_TRUE(training) << training.error().to_string();
          checkpoint::Writer writer(rank, progress);
          writer.begin({}, (*training)->unstored_tensors());
          int64_t before = most;
          while (before < writer.snapshot_bytes() &&
                 !most.compare_exchange_weak(before, writer.snapshot_bytes())) {
          }
          writer.wait();
          writer.commit();
        });
        const double ratio = static_cast<double>(estimated(job.spec()).checkpoint) /
                             static_cast<double>(most.load());
        fmt::print("{:>32} {:.3f}\n", name, ratio);
        EXPECT_GT(ratio, 0.999) << name;
        EXPECT_LT(ratio, mesh.tensor == 1 ? 1.001 : 1.07) << name;
      }
    }
  }
}

TEST(MemoryEstimate, ASmallCheckpointIsWrittenOutOfWhatTensorsLeave) {
  MemoryEstimate estimate;
  estimate.parameters = 10'000'000;
  const int64_t none = estimate.process();
  EXPECT_LT(none, 10'000'000 + 60'000'000);
  estimate.checkpoint = 5'000'000;
  EXPECT_EQ(estimate.process(), none);
  estimate.checkpoint = 105'000'000;
  const int64_t more = estimate.process();
  EXPECT_GT(more, none + 75'000'000);
  EXPECT_LT(more, none + 95'000'000);
  estimate.checkpoint += 10'000'000;
  EXPECT_EQ(estimate.process(), more + 10'000'000);
}

TEST(MemoryEstimate, EachThreadBeyondTheFirstTakesItsOwn) {
  MemoryEstimate estimate;
  estimate.parameters = 100'000'000;
  estimate.thread = 3'000'000;
  EXPECT_EQ(estimate.process(), estimate.process(1));
  EXPECT_EQ(estimate.process(0), estimate.process(1));
  EXPECT_EQ(estimate.process(8), estimate.process(1) + 21'000'000);
  EXPECT_EQ(estimate.needs(false, 8).memory, estimate.process(8));
}

// GPT-2's vocabulary in bf16: a GPU has 2,000 rows of logits, filled up to 50304 columns, at once,
// and a table as wide; a CPU 667 of 50257, in fp32 and rounded.
TEST_F(Memory, AGpuTakesMoreLogitsAtOnce) {
  const MemoryEstimate estimate =
      estimated(launch({"logits", "n_layer: 1, n_head: 2, n_embd: 32, vocab_size: 50257",
                        "batch_size: 20, sequence_length: 100, precision: bf16"})
                    .spec());
  const int64_t there = 50304 * (2000 + 32) * 2, here = 667 * 50257 * 6;
  EXPECT_EQ(estimate.gpu_more, there - here);
  MemoryEstimate without = estimate;
  without.gpu_more = 0;
  EXPECT_GT(estimate.gpu(), without.gpu() + estimate.gpu_more);
}

// cuDNN's workspace for the gradients of a block's attention, where attention_choice.cc has it
// lead: 2 bytes a score, of heads wider than 64; with any order of sums 4 bytes an element of the
// queries where that is more, from 1,024 tokens on; 4 bytes a query in either case.
// Where some layer has no window, which cuDNN is left out of.
TEST_F(Memory, AGpuTakesCudnnsWorkspaceForLayersWithoutWindows) {
  const auto more = [&](int first_window) {
    const std::string model = fmt::format(
        "num_hidden_layers: 4, num_attention_heads: 2, num_key_value_heads: 2, head_dim: 128, "
        "hidden_size: 256, intermediate_size: 8, vocab_size: 257, use_sliding_window: true, "
        "sliding_window: 64, max_window_layers: {}",
        first_window);
    Case which{"windows", model.c_str(),
               "batch_size: 2, precision: bf16, activation_checkpointing: full"};
    which.family = "qwen2";
    which.positions = 512;
    proto::JobSpec spec = launch(which).spec();
    spec.mutable_training()->set_sequence_length(512);
    return estimated(spec).gpu_more;
  };
  EXPECT_GT(more(1), 0);  // most layers have windows
  EXPECT_EQ(more(1), more(3));
  EXPECT_EQ(more(0), 0);
}

// Queries with a vector of their head, the distances' gradients of each row in fp32, and of pairs
// of a row and a head what is by distance and products: of all, or of as many as 32 MiB hold, or
// one. The scores' gradient is there in one precision; a CPU has it in fp32, too.
TEST_F(Memory, AGpuTakesScoresByDistanceSomeAtATime) {
  const auto more = [&](int rows, int64_t tokens, const std::string& precision) {
    const std::string training =
        fmt::format("batch_size: {}, sequence_length: {}, activation_checkpointing: full, {}", rows,
                    tokens, precision);
    Case which{"by distance", "n_layer: 1, n_head: 2, d_model: 64, d_inner: 8, vocab_size: 257",
               training.c_str()};
    which.task = "sequence_classification";
    which.family = "xlnet";
    return estimated(launch(which).spec()).gpu_more;
  };
  const auto of = [](int64_t rows, int64_t tokens, int64_t element, int64_t pairs) {
    const int64_t distances = 2 * tokens - 1, width = 32;
    return 2 * rows * width * (element * tokens + 4 * distances) +
           pairs * 4 * (tokens * distances + (tokens + distances) * width);
  };
  EXPECT_EQ(more(4, 64, "precision: fp32"), of(4, 64, 4, 2 * 4));
  EXPECT_EQ(more(2, 4096, "precision: fp32"), of(2, 4096, 4, 1));
  EXPECT_EQ(more(64, 256, "precision: fp32"), of(64, 256, 4, 0) + (int64_t{32} << 20));
  EXPECT_EQ(more(4, 128, "precision: bf16"), of(4, 128, 2, 2 * 4) - 4 * 2 * 4 * 128 * 128);
}

TEST_F(Memory, AGpuTakesCudnnsWorkspace) {
  const auto more = [&](int hidden, int64_t tokens, const auto& change) {
    const std::string model =
        fmt::format("n_layer: 1, n_head: 2, n_inner: 8, vocab_size: 257, n_embd: {}", hidden);
    proto::JobSpec spec = launch({"cudnn", model.c_str(),
                                  "batch_size: 2, precision: bf16, activation_checkpointing: full"})
                              .spec();
    spec.mutable_training()->set_sequence_length(tokens);
    change(*spec.mutable_training());
    return estimated(spec).gpu_more;
  };
  const auto nothing = [](auto&) {};
  const auto any_order = [](auto& training) {
    training.set_reproducible(proto::REPRODUCIBLE_NONE);
  };
  const auto of_rows = [](int64_t tokens, int64_t a_query) {  // two, of two heads
    return 2 * 2 * tokens * (a_query + 4);
  };
  EXPECT_EQ(more(256, 512, nothing), of_rows(512, 2 * 512));
  EXPECT_EQ(more(256, 512, any_order), of_rows(512, 2 * 512));
  EXPECT_EQ(more(128, 512, nothing), 0);
  EXPECT_EQ(more(128, 512, any_order), 0);
  EXPECT_EQ(more(128, 1024, nothing), 0);
  EXPECT_EQ(more(128, 1024, any_order), of_rows(1024, 4 * 64));
  EXPECT_EQ(more(126, 1024, any_order), 0);
  EXPECT_EQ(more(256, 511, nothing), 0);
  EXPECT_EQ(more(256, 512, [](auto& training) { training.set_precision(proto::PRECISION_FP32); }),
            0);
  EXPECT_EQ(more(256, 512,
                 [](auto& training) { training.set_reproducible(proto::REPRODUCIBLE_TOPOLOGY); }),
            0);
  const auto of_1024_rows = [](auto& training) {  // more than 1 GiB of scores
    training.set_batch_size(1024);
    training.set_micro_batch_size(1024);
  };
  EXPECT_EQ(more(256, 512, of_1024_rows), 0);
  EXPECT_EQ(more(128, 1024,
                 [&](auto& training) {
                   of_1024_rows(training);
                   any_order(training);
                 }),
            512 * of_rows(1024, 4 * 64));
}

TEST(MemoryOfSlot, IsAShareOfWhatTheSystemLeaves) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  EXPECT_EQ(memory_of_slot(10 * kGiB, 3), 3 * kGiB);
  EXPECT_EQ(memory_of_slot(100 * kGiB, 1), 98 * kGiB);
  EXPECT_EQ(memory_of_slot(0, 4), 0);
}

TEST(ClearlyTooLarge, LeavesAQuarterForTheEstimatesError) {
  MemoryEstimate estimate;
  estimate.activations = 1000;
  EXPECT_EQ(beyond_doubt(estimate), 750);
  estimate.activations = 12;
  estimate.parameters = int64_t{3} << 29;
  EXPECT_EQ(estimate.to_string().substr(0, 31), "1.5 GiB: parameters 1.5 GiB, op");
}

TEST(BytesText, HasThreeDigitsAndNoExponent) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  EXPECT_EQ(bytes_text(12 * kMiB), "12 MiB");
  EXPECT_EQ(bytes_text(999 * kMiB), "999 MiB");
  EXPECT_EQ(bytes_text(1010 * kMiB), "0.986 GiB");
  EXPECT_EQ(bytes_text(1536 * kMiB), "1.5 GiB");
  EXPECT_EQ(bytes_text(1390 * 1024 * kMiB), "1.36 TiB");
  EXPECT_EQ(bytes_text(std::numeric_limits<int64_t>::max()), "8 EiB");
}

}  // namespace
}  // namespace weft
