// What a step of real ranks sends, axis by axis, beside the formulas.
#include "worker/admission/traffic.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <set>
#include <span>

#include "proto/json/job_rules.h"
#include "tests/worker/admission/traffic_cases.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {
namespace {

using namespace traffic_cases;

class Traffic : public Trainer {
 protected:
  void compare(std::span<const Case> cases);
  void compare_in_blocks(std::span<const Case> cases);
  proto::LaunchRecord launch(const Case& which) {
    const std::string task = which.task;
    const bool asks = task == "question_answering";
    const bool images = task == "image_classification", hears = task == "speech_recognition";
    const bool writes = task == "seq2seq" || hears;
    const bool typed = which.family == std::string("xlnet") && task == "sequence_classification";
    const bool streams = task == "causal_lm" || task == "permutation_lm";
    const char* data = streams               ? "data: {train: obj-text}"
                       : task == "embedding" ? "data: {train: obj-pairs, format: jsonl}"
                       : asks                ? "data: {train: obj-questions, format: jsonl}"
                       : hears               ? "data: {train: obj-recordings, format: audio}"
                       : writes              ? "data: {train: obj-targets, format: jsonl}"
                       : images ? "labels: 3, data: {train: obj-images, format: images}"
                       : typed  ? "labels: 3, data: {train: obj-long, format: jsonl}"
                                : "labels: 3, data: {train: obj-whole, format: jsonl}";
    const char* tokenizer = images  ? ""
                            : typed ? "tokenizer: {type: tokenizer_json, from: obj-typed}"
                            : asks  ? "tokenizer: {type: tokenizer_json, from: obj-tokenizer}"
                                    : "tokenizer: {type: byte}";
    proto::LaunchRecord made = record(
        fmt::format(
            R"(
name: traffic
kind: pretrain
model: {{family: {}, config: {{{}{}}}}}
{}
tasks: [{{type: {}, {}}}]
training: {{{}{}, steps: 3}}
parallel: {{data: {}, sequence: {}, tensor: {}{}{}}}
)",
            which.family, which.model == nullptr ? kModel : which.model,
            images || writes || which.family == std::string("xlnet")
                ? ""
                : ", max_position_embeddings: 18",
            tokenizer, task, data, which.training, images || hears ? "" : ", sequence_length: 16",
            which.mesh.data, which.mesh.sequence, which.mesh.tensor,
            *which.parallel == '\0' ? "" : ", ", which.parallel),
        which.mesh);
    if (!which.targets.empty()) {
      proto::AdapterSpec& adapter = *made.mutable_spec()->mutable_adapter();
      adapter.set_rank(4);
      adapter.set_alpha(8);
      adapter.set_dropout(which.dropout);
      adapter.mutable_targets()->Assign(which.targets.begin(), which.targets.end());
    }
    return made;
  }
  void SetUp() override {
    Trainer::SetUp();
    fs::create_directories(folder_ / "obj-whole");
    std::ofstream rows(folder_ / "obj-whole" / "rows.jsonl");
    for (int i = 0; i < 30; ++i) {  // as long as a row may be
      rows << R"({"text": "sixteen letters.", "label": )" << i % 3 << "}\n";
    }
    add_images(WEFT_SOURCE_DIR);
    add_recordings(30);
    fs::create_directories(folder_ / "obj-pairs");
    std::ofstream pairs(folder_ / "obj-pairs" / "pairs.jsonl");
    for (int i = 0; i < 30; ++i) {
      pairs << R"({"text": "sixteen letters.", "text_pair": "as many letters."})"
               "\n";
    }
    fs::create_directories(folder_ / "obj-targets");
    std::ofstream targets(folder_ / "obj-targets" / "targets.jsonl");
    for (int i = 0; i < 30; ++i) {
      targets << R"({"text": "sixteen letters.", "target": "as many letters, and some more"})"
                 "\n";
    }
    fs::create_directories(folder_ / "obj-long");
    std::ofstream cut(folder_ / "obj-long" / "rows.jsonl");
    for (int i = 0; i < 30; ++i) {
      cut << R"({"text": "more of a text than a row has room for, whatever its tokens are", )"
          << R"("label": )" << i % 3 << "}\n";
    }
    write_typed_tokenizer(WEFT_SOURCE_DIR);
    write_pair_tokenizer(WEFT_SOURCE_DIR);
    fs::create_directories(folder_ / "obj-questions");
    std::ofstream questions(folder_ / "obj-questions" / "questions.jsonl");
    for (int i = 0; i < 30; ++i) {  // more than half as long, so rounded up to all of it
      questions << R"({"question": "the king", "context": "who speaks to the man", )"
                   R"("answers": {"text": ["man"], "answer_start": [18]}})"
                   "\n";
    }
  }
};

// Bytes over the tensor, the sequence, the replica axis and the world.
std::array<int64_t, 4> sent_by(Rank& rank) {
  const auto of = [&](Axis axis) { return rank.mesh.axis(axis).bytes_sent(); };
  const int64_t of_key_heads = rank.mesh.shares_heads() ? of(Axis::kKeyHeads) : 0;
  return {of(Axis::kTensor) + of_key_heads,
          of(Axis::kSequence) + of(Axis::kRing) + of(Axis::kUlysses), of(Axis::kReplica),
          of(Axis::kWorld)};
}

struct Sent {
  std::array<int64_t, 4> bytes;
  StepTraffic expected;
  int64_t agreed = 0;  // bytes that no axis' formula counts
  int64_t ahead = 0;   // of the rows that go ahead, as this data has them
  std::string where;
};

// Of a topology-invariant step: each micro-batch's loss over the replicas, unless all of them
// compute the whole; over the world the largest gradient's square, and what every step agrees on.
int64_t agreed_bytes(Rank& rank, const proto::JobSpec& spec) {
  constexpr int64_t kDouble = 8;
  const proto::TrainingSpec& training = spec.training();
  const int64_t rounds =
      training.batch_size() / (int64_t{training.micro_batch_size()} * spec.parallel().data());
  const int world = rank.mesh.size(Axis::kWorld), index = rank.mesh.index(Axis::kWorld);
  const bool whole = std::ranges::any_of(spec.tasks(), embeds);
  return (whole ? 0 : rounds * kDouble * (rank.mesh.size(Axis::kReplica) - 1)) +
         reduce_traffic(1, kDouble, world, index).bytes +
         reduce_traffic(4, kDouble, world, index).bytes;
}

// Of the next step's first micro-batches each token's row of the table once, as far as it is in
// this rank's part, to every other replica.
int64_t ahead_bytes(const Rank& rank, const proto::JobSpec& spec, Training& training) {
  if (tokens_ahead(*training.config, spec) == 0) return 0;
  Feed& feed = training.tasks[0].feed;
  const proto::DataPosition here = feed.position();
  const TaskRows rows = feed.next(spec.training().batch_size());
  EXPECT_TRUE(feed.restore(here).ok());
  if (rows.ids.empty()) return 0;
  const int64_t width = training.config->hidden, size = spec.training().micro_batch_size();
  std::set<int64_t> ids;
  for (int data = 0; data < rank.mesh.size(Axis::kData); ++data) {
    const Part part = part_of(rows.rows, rank.mesh.size(Axis::kData), data);
    const int64_t first = part.start * rows.tokens;
    const int64_t count = (size > 0 ? std::min(size, part.length) : part.length) * rows.tokens;
    for (int64_t i = first; i < first + count; ++i) ids.insert(rows.ids[static_cast<size_t>(i)]);
  }
  const auto& parameters = training.optimizer->parameters();
  size_t table = 0;
  while (table < parameters.size() && parameters[table].info.looked_up != LookedUp::kByToken) {
    ++table;
  }
  if (table == parameters.size()) return 0;
  const Part own = training.optimizer->buckets().entry_of(table).own;
  int64_t elements = 0;
  for (const int64_t id : ids) {
    const int64_t end = std::min((id + 1) * width, own.start + own.length);
    elements += std::max<int64_t>(0, end - std::max(id * width, own.start));
  }
  const int64_t value = training.precision == DType::kF32 ? 4 : 2;
  return elements * value * (rank.mesh.size(Axis::kReplica) - 1);
}

void each_rank(const proto::LaunchRecord& job, const Case& which,
               const std::function<void(const Sent&)>& check) {
  MemoryCluster cluster;
  testing::run_mesh(which.mesh, [&](Rank& rank) {
    MemoryProgress progress(cluster);
    const MeshPlace place{rank.mesh.index(Axis::kData), rank.mesh.index(Axis::kSequence),
                          rank.mesh.index(Axis::kTensor)};  // blocks divide the ranks anew
    const auto made = set_up(rank, job, progress);
    ASSERT_TRUE(made.has_value()) << made.error().to_string();
    Training& training = **made;
    // The second step, which finds the first one's values not everywhere yet.
    const auto step = [&] {
      run_step(rank, job.spec(), training, training.tasks[0], 1e-3);
      rank.mesh.axis(Axis::kReplica).barrier();  // what was started is counted
    };
    step();
    const auto before = sent_by(rank);
    const int64_t ahead = ahead_bytes(rank, job.spec(), training);
    step();
    Sent sent{sent_by(rank), {}, agreed_bytes(rank, job.spec()), ahead, {}};
    for (size_t i = 0; i < before.size(); ++i) sent.bytes[i] -= before[i];
    sent.expected = step_traffic(
        *training.config, job.spec(),
        shards_of(*training.family, *training.config, job.spec(), place.tensor), place);
    sent.where = fmt::format("{} {} on {}x{}x{} {}, rank {}", which.task, which.training,
                             which.mesh.data, which.mesh.sequence, which.mesh.tensor,
                             which.parallel, rank.mesh.index(Axis::kWorld));
    check(sent);
  });
}

// With the rows that go ahead as this data has them.
int64_t replica_bytes(const Sent& sent) {
  const int64_t rows = sent.expected.rows_ahead.bytes;
  return sent.expected.replica.bytes - rows + (rows > 0 ? sent.ahead : 0);
}

void Traffic::compare(std::span<const Case> cases) {
  for (const Case& which : cases) {
    each_rank(launch(which), which, [&](const Sent& sent) {
      EXPECT_EQ(sent.bytes[0], sent.expected.tensor.bytes) << which.family << " " << sent.where;
      EXPECT_EQ(sent.bytes[1], sent.expected.sequence.bytes) << which.family << " " << sent.where;
      EXPECT_EQ(sent.bytes[2], replica_bytes(sent)) << which.family << " " << sent.where;
    });
  }
}

TEST_F(Traffic, IsWhatCommunicatorsCount) {
  std::atomic<int> went_ahead = 0;  // ranks that sent rows: those of low ids have these texts
  for (const Case& which : kCases) {
    each_rank(launch(which), which, [&](const Sent& sent) {
      EXPECT_EQ(sent.bytes[0], sent.expected.tensor.bytes) << sent.where;
      EXPECT_EQ(sent.bytes[1], sent.expected.sequence.bytes) << sent.where;
      if (sent.expected.rows_ahead.bytes > 0 && sent.ahead > 0) ++went_ahead;
      EXPECT_EQ(sent.bytes[2], replica_bytes(sent)) << sent.where;
    });
  }
  EXPECT_EQ(went_ahead, 8);
}

TEST_F(Traffic, OfEncodersIsWhatCommunicatorsCount) { compare(kEncoderCases); }
TEST_F(Traffic, OfImagesIsWhatCommunicatorsCount) { compare(kImageCases); }
TEST_F(Traffic, OfRelativeTermsIsWhatCommunicatorsCount) { compare(kRelativeCases); }
TEST_F(Traffic, OfPredictionsIsWhatCommunicatorsCount) { compare(kPermutedCases); }
TEST_F(Traffic, OfTargetsIsWhatCommunicatorsCount) { compare(kTargetCases); }
TEST_F(Traffic, OfSpeechIsWhatCommunicatorsCount) { compare(kSpeechCases); }

TEST_F(Traffic, OfAdaptersIsWhatCommunicatorsCount) {
  for (Case which : kAdaptedCases) {
    for (const double dropout : {0.0, 0.1}) {
      for (const bool dora : {false, true}) {
        which.dropout = dropout;
        proto::LaunchRecord made = launch(which);
        made.mutable_spec()->mutable_adapter()->set_dora(dora);
        each_rank(made, which, [&](const Sent& sent) {
          const std::string where = sent.where + " " + which.targets[0] + (dora ? " dora" : "") +
                                    fmt::format("{}", dropout);
          EXPECT_EQ(sent.bytes[0], sent.expected.tensor.bytes) << where;
          EXPECT_EQ(sent.bytes[1], sent.expected.sequence.bytes) << where;
          EXPECT_EQ(sent.bytes[2], sent.expected.replica.bytes) << where;
        });
      }
    }
  }
}

TEST_F(Traffic, OfAdaptersInBlocksIsWhatCommunicatorsCount) {
  for (Case which : kBlockedAdaptedCases) {
    const std::string training = std::string(kBlocks) + which.training;
    which.training = training.c_str();
    for (const auto& [dora, dropout] :
         {std::pair{false, 0.0}, std::pair{true, 0.0}, std::pair{true, 0.1}}) {
      which.dropout = dropout;
      proto::LaunchRecord made = launch(which);
      made.mutable_spec()->mutable_adapter()->set_dora(dora);
      each_rank(made, which, [&](const Sent& sent) {
        const std::string where =
            fmt::format("{} {} dora {} dropout {}", sent.where, which.targets[0], dora, dropout);
        EXPECT_EQ(sent.bytes[0], sent.expected.tensor.bytes) << where;
        EXPECT_EQ(sent.bytes[1], sent.expected.sequence.bytes) << where;
        EXPECT_EQ(sent.bytes[2] + sent.bytes[3], sent.expected.replica.bytes + sent.agreed)
            << where;
      });
    }
  }
}

void Traffic::compare_in_blocks(std::span<const Case> cases) {
  for (Case which : cases) {
    if (which.model == nullptr) which.model = kBlockedModel;
    const std::string training = std::string(kBlocks) + which.training;
    which.training = training.c_str();
    each_rank(launch(which), which, [](const Sent& sent) {
      EXPECT_EQ(sent.bytes[0], sent.expected.tensor.bytes) << sent.where;
      EXPECT_EQ(sent.bytes[1], sent.expected.sequence.bytes) << sent.where;
      EXPECT_EQ(sent.bytes[2] + sent.bytes[3], sent.expected.replica.bytes + sent.agreed)
          << sent.where;
    });
  }
}

TEST_F(Traffic, OfBlocksIsWhatCommunicatorsCount) { compare_in_blocks(kBlockedCases); }
TEST_F(Traffic, OfRelativeTermsInBlocksIsWhatCommunicatorsCount) {
  compare_in_blocks(kBlockedRelativeCases);
}

// 1,360 rows of half of GPT-2's vocabulary: a CPU takes 1,335 at once (2^25 logits), so two chunks
// of 680; a GPU all (1 GiB). Of each chunk a maximum and three sums, a message each.
TEST_F(Traffic, CountsTheDevicesChunksOfLogits) {
  const Case which{"batch_size: 16",
                   {1, 1, 2},
                   "",
                   "causal_lm",
                   "n_layer: 1, n_head: 2, n_embd: 32, vocab_size: 50257"};
  proto::JobSpec spec = launch(which).spec();
  spec.mutable_training()->set_sequence_length(85);
  const ModelFamily* family = find_family(spec.model().family());
  const auto config = family->parse_config(struct_to_json(spec.model().config()));
  const auto messages = [&](proto::ComputeDevice device) {
    spec.mutable_resources()->set_device(device);
    return step_traffic(**config, spec, shards_of(*family, **config, spec, 0), {}).tensor.messages;
  };
  EXPECT_EQ(messages(proto::COMPUTE_DEVICE_CPU) - messages(proto::COMPUTE_DEVICE_GPU), 2);
}

// Micro-batches that are alike are counted as one after the other are, at every level, of a rank
// that has fewer of them too.
TEST_F(Traffic, OfManyMicroBatchesIsTheirSum) {
  for (const int zero : {0, 2, 3}) {
    const std::string parallel = fmt::format("zero: {}", zero);
    const auto sent = [&](int rows, const MeshPlace& place) {
      proto::JobSpec spec =
          launch({"batch_size: 13, micro_batch_size: 2", {2, 2, 2}, parallel.c_str()}).spec();
      spec.mutable_training()->set_batch_size(rows);
      const ModelFamily* family = find_family(spec.model().family());
      const auto config = family->parse_config(struct_to_json(spec.model().config()));
      return step_traffic(**config, spec, shards_of(*family, **config, spec, 0), place);
    };
    for (const int data : {0, 1}) {
      const MeshPlace place{data, 0, 0};
      // 7 and 6 rows in micro-batches of 2 and a last one; 8 and 4 rows more are 2 and 1 each.
      const StepTraffic a = sent(13, place), b = sent(13 + 4, place), c = sent(13 + 400, place);
      const auto grows_by = [](const AxisTraffic& from, const AxisTraffic& to) {
        return std::array{to.bytes - from.bytes, to.messages - from.messages};
      };
      const auto each = [&](AxisTraffic StepTraffic::*axis) {
        const auto one = grows_by(a.*axis, b.*axis), all = grows_by(a.*axis, c.*axis);
        EXPECT_EQ(all, (std::array{one[0] * 100, one[1] * 100})) << parallel << ", data " << data;
      };
      each(&StepTraffic::tensor);
      each(&StepTraffic::sequence);
      each(&StepTraffic::replica);
    }
  }
}

}  // namespace
}  // namespace weft
