// Whisper computes the same on every mesh, from its cache, and of each recording alone.
#include <gtest/gtest.h>

#include "kernels/tensor/transfer.h"
#include "tests/worker/models/family_fixture.h"
#include "worker/serve/generate.h"

namespace weft {
namespace {

// 5 heads, 13 inner features, 7 mel bins: nothing divides evenly.
constexpr const char* kTied = R"({"vocab_size": 37, "d_model": 20, "encoder_attention_heads": 5,
    "decoder_attention_heads": 5, "encoder_ffn_dim": 13, "decoder_ffn_dim": 13, "encoder_layers": 2,
    "decoder_layers": 3, "num_mel_bins": 7, "max_source_positions": 11, "max_target_positions": 9,
    "pad_token_id": 3, "decoder_start_token_id": 1, "init_std": 0.3, "dropout": 0.2,
    "attention_dropout": 0.1, "activation_dropout": 0.1})";
constexpr const char* kOwnHead = R"({"vocab_size": 37, "d_model": 20, "encoder_attention_heads": 5,
    "decoder_attention_heads": 5, "encoder_ffn_dim": 13, "decoder_ffn_dim": 13, "encoder_layers": 3,
    "decoder_layers": 1, "num_mel_bins": 7, "max_source_positions": 11, "max_target_positions": 9,
    "decoder_start_token_id": 1, "init_std": 0.3, "tie_word_embeddings": false})";

const ModelFamily& family() { return *find_family("whisper"); }
ModelConfigPtr config_of(const char* json) { return *family().parse_config(json); }

TaskRows some_recordings(int64_t count = 5) {
  TaskRows rows;
  rows.rows = count;
  rows.tokens = 11;
  for (int64_t i = 0; i < rows.rows * 2 * rows.tokens * 7; ++i) {
    rows.features.push_back(static_cast<float>(i * i * 7 % 37 - 18) / 16);
  }
  rows.target_tokens = 7;
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t token = 0; token < rows.target_tokens; ++token) {
      const bool ended = token >= rows.target_tokens - row % 3;
      rows.labels.push_back(ended ? kNoLabel : (row * 11 + token * 5 + 2) % 37);
    }
  }
  return rows;
}

std::unique_ptr<Trunk> trunk_of(Rank& rank, const char* json) {
  auto trunk = *family().make_trunk(rank, config_of(json));
  initialize_parameters(trunk->parameters(), 17);
  return trunk;
}

std::unique_ptr<Task> task_of(Rank& rank, const Trunk& trunk) {
  return *make_task(rank, "speech_recognition", trunk.config(), {.name = "task"});
}

// Loss and gradient norm, with dropout.
Outcome outcome_of(Rank& rank, const char* json, Recompute recompute, int64_t micro_batch) {
  const auto trunk = trunk_of(rank, json);
  const auto task = task_of(rank, *trunk);
  const TaskRows rows = some_recordings();
  const double labels = static_cast<double>(task->label_count(rows));
  double sum = 0;
  for (const Part& part : micro_batches(rank.mesh, rows.rows, micro_batch)) {
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    TaskBatch batch = task->assemble(rows, part);
    batch.tokens.training = true;
    batch.tokens.recompute = recompute;
    batch.tokens.random = RandomKey{5};
    const Tensor loss = task->loss_sum(cx, *trunk, batch);
    sum += read_scalar(loss);
    cx.tape = nullptr;
    tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), 1 / labels));
  }
  reduce_gradients(rank, trunk->parameters());
  Tensor whole = Tensor::full(*rank.allocator, {1}, sum, DType::kF64);
  rank.mesh.axis(Axis::kReplica).all_reduce(whole, ReduceOp::kSum);
  return {read_scalar(whole) / labels, global_gradient_norm(rank, trunk->parameters())};
}

Outcome on_mesh(MeshDegrees mesh, const char* json, Recompute recompute = Recompute::kNothing,
                int64_t micro_batch = 0) {
  Outcome first;
  testing::run_mesh(mesh, [&](Rank& rank) {
    const Outcome mine = outcome_of(rank, json, recompute, micro_batch);
    if (rank.mesh.index(Axis::kWorld) == 0) first = mine;
  });
  return first;
}

TEST(WhisperModel, ShardsCoverEachParameterOnce) {
  for (const char* json : {kTied, kOwnHead}) {
    for (const int size : {1, 2, 3, 5, 6}) {
      expect_shards_cover_once(family(), *config_of(json), size);
    }
  }
}

TEST(WhisperModel, HalfPrecisionLeavesTheNormsInFp32) {
  for (const ParameterInfo& info : family().plan(*config_of(kTied), 1, 0)) {
    EXPECT_EQ(info.keep_fp32, info.name.find("layer_norm") != std::string::npos) << info.name;
  }
}

TEST(WhisperModel, EveryMeshComputesTheSame) {
  for (const char* json : {kTied, kOwnHead}) {
    const Outcome alone = on_mesh({}, json);
    EXPECT_GT(alone.norm, 0);
    const auto expect_same = [&](const Outcome& other, const std::string& where) {
      EXPECT_NEAR(other.loss, alone.loss, 1e-5 * alone.loss) << where;
      EXPECT_NEAR(other.norm, alone.norm, 2e-5 * alone.norm) << where;
    };
    std::vector<MeshDegrees> all = meshes();
    all.insert(all.end(), {{.sequence = 2, .ulysses = 2},
                           {.sequence = 4, .ulysses = 2},
                           {.sequence = 5, .ulysses = 5},
                           {.sequence = 8},  // more ranks than tokens of a target
                           {.sequence = 2, .tensor = 2, .ulysses = 2}});
    for (const MeshDegrees mesh : all) {
      expect_same(on_mesh(mesh, json), std::to_string(mesh.data) + "x" +
                                           std::to_string(mesh.sequence) + "x" +
                                           std::to_string(mesh.tensor));
    }
    for (const Recompute recompute : {Recompute::kAttention, Recompute::kBlock}) {
      expect_same(on_mesh({}, json, recompute), "computed again");
      expect_same(on_mesh({.data = 2, .tensor = 2}, json, recompute, 2), "on a mesh, in rounds");
      expect_same(on_mesh({.sequence = 2, .tensor = 2}, json, recompute, 2), "rows shared, too");
    }
  }
}

// What is used is open, the convolutions with the first block, what lies behind an attention behind
// it.
TEST(WhisperModel, UnitsAreOpenedBeforeTheyAreUsed) {
  for (const Recompute recompute :
       {Recompute::kNothing, Recompute::kAttention, Recompute::kBlock}) {
    testing::run_ranks(1, [&](Rank& rank) {
      const auto trunk = trunk_of(rank, kTied);
      const auto task = task_of(rank, *trunk);
      const auto loss = [&] {
        Tape tape;
        Context cx = rank.context();
        cx.tape = &tape;
        TaskBatch batch = task->assemble(some_recordings(), {0, 5});
        batch.tokens.recompute = recompute;
        return *task->loss_sum(cx, *trunk, batch).data<float>();
      };
      const float open = loss();
      HidingGate gate(trunk->parameters());
      trunk->set_gate(&gate);
      EXPECT_EQ(loss(), open);
      EXPECT_EQ(gate.rest, 6 * trunk->config().layers);
    });
  }
}

// Of the encoder's first token the frames 0 to 2 are seen, of its last one the last four.
TEST(WhisperModel, ARecordingsTextDependsOnAllOfItAndOnNoOther) {
  testing::run_ranks(1, [](Rank& rank) {
    const auto trunk = trunk_of(rank, kTied);
    const auto task = task_of(rank, *trunk);
    TaskRows rows = some_recordings(3);
    const auto logits = [&] {
      Context cx = rank.context();
      return task->logits(cx, *trunk, task->assemble(rows, {0, 3})).to_vector<float>();
    };
    const std::vector<float> before = logits();
    const size_t of_recording = rows.features.size() / 3, of_text = before.size() / 3;
    for (const size_t at : {size_t{0}, of_recording / 2, of_recording - 1}) {
      const float value = std::exchange(rows.features[of_recording + at], 9.0F);
      const std::vector<float> after = logits();
      rows.features[of_recording + at] = value;
      for (size_t i = 0; i < before.size(); ++i) {
        EXPECT_EQ(before[i] != after[i], i / of_text == 1) << at << " " << i;
      }
    }
  });
}

// A label that does not count lies between others: what stands for it is read, and not learned.
TEST(WhisperModel, TheRowOfPaddingGetsNoGradientFromLookUps) {
  constexpr int64_t kPadding = 3, kHidden = 20;
  const std::string json =
      std::string(kOwnHead).insert(1, "\"pad_token_id\": " + std::to_string(kPadding) + ", ");
  testing::run_ranks(1, [&](Rank& rank) {
    const auto trunk = trunk_of(rank, json.c_str());
    const auto task = task_of(rank, *trunk);
    TaskRows rows = some_recordings(1);
    rows.labels = {7, kNoLabel, 9, 7, kNoLabel, 11, 2};
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const TaskBatch batch = task->assemble(rows, {0, 1});
    EXPECT_EQ(batch.tokens.ids.to_vector<int64_t>(),
              (std::vector<int64_t>{1, 7, kPadding, 9, 7, kPadding, 11}));
    const Tensor loss = task->loss_sum(cx, *trunk, batch);
    cx.tape = nullptr;
    tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), 1));
    const std::vector<float> gradient = trunk->parameters()[0].value.grad().to_vector<float>();
    for (const int64_t id : {1, 7, 9, 11, 3, 2}) {
      const auto first = gradient.begin() + id * kHidden;
      const bool learned = std::any_of(first, first + kHidden, [](float x) { return x != 0; });
      EXPECT_EQ(learned, id != kPadding && id != 2) << id;
    }
  });
}

TEST(WhisperModel, GivesTheLogitsOfTheWholeFromItsCache) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* json : {kTied, kOwnHead}) {
      const auto trunk = trunk_of(rank, json);
      const auto task = task_of(rank, *trunk);
      TaskRows rows = some_recordings(1);
      rows.labels = {3, 9, 27, 7, 21, 26, 4, 12};
      rows.target_tokens = std::ssize(rows.labels);
      const TaskBatch batch = task->assemble(rows, {0, 1});
      Context cx = rank.context();
      const std::vector<float> whole = task->logits(cx, *trunk, batch).to_vector<float>();
      const std::vector<int64_t> ids = batch.tokens.ids.to_vector<int64_t>();
      EXPECT_EQ(ids, (std::vector<int64_t>{1, 3, 9, 27, 7, 21, 26, 4})) << "shifted right";
      KeyValueCache cache;
      cache.capacity = trunk->config().target_positions;
      auto source = batch.tokens.source;
      for (size_t at = 0; const size_t piece : {3, 1, 1, 3}) {
        const std::vector<float> logits = next_logits(
            rank, *trunk, cache, std::span(ids).subspan(at, piece), std::exchange(source, nullptr));
        at += piece;
        for (size_t i = 0; i < 37; ++i) {
          ASSERT_NEAR(logits[i], whole[(at - 1) * 37 + i], 2e-5) << json << at << " " << i;
        }
      }
    }
  });
}

TEST(WhisperModel, HasOneTask) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* type : {"causal_lm", "seq2seq", "sequence_classification", "embedding"}) {
      const auto made = make_task(rank, type, *config_of(kTied), {.name = "t", .labels = 2});
      ASSERT_FALSE(made) << type;
      EXPECT_EQ(made.error().rule(), "must be one that whisper learns: speech_recognition");
    }
    for (const char* other : {"gpt2", "t5", "vit"}) {
      const auto config = find_family(other)->parse_config("{}");
      EXPECT_FALSE(make_task(rank, "speech_recognition", **config, {.name = "t"})) << other;
    }
  });
}

}  // namespace
}  // namespace weft
