#include "worker/checkpoint/writer.h"

#include <gtest/gtest.h>

#include <bit>
#include <condition_variable>
#include <new>

#include "tests/testing/memory_progress.h"
#include "tests/testing/rank_runner.h"
#include "worker/checkpoint/reader.h"

namespace weft::checkpoint {
namespace {

// Chunks wait until open() lets them through.
class GatedProgress final : public Progress {
 public:
  explicit GatedProgress(testing::MemoryCluster& cluster) : inner_(cluster) {}
  Status send(proto::RankEnvelope message) override { return inner_.send(std::move(message)); }
  Status flush() override { return {}; }
  std::optional<proto::Control> take_control() override { return std::nullopt; }
  Status put_chunk(const std::string& hash, std::string_view bytes) override {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [&] { return open_; });
    return inner_.put_chunk(hash, bytes);
  }
  Result<std::string> get_chunk(const std::string& hash) override { return inner_.get_chunk(hash); }
  void set_open(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    opened_.notify_all();
  }

 private:
  testing::MemoryProgress inner_;
  std::mutex mutex_;  // guards open_
  std::condition_variable opened_;
  bool open_ = false;
};

// Of rank 1 no chunk finds memory.
class WithoutMemory final : public Progress {
 public:
  WithoutMemory(testing::MemoryCluster& cluster, bool refuses)
      : inner_(cluster), refuses_(refuses) {}
  Status send(proto::RankEnvelope message) override { return inner_.send(std::move(message)); }
  Status flush() override { return {}; }
  std::optional<proto::Control> take_control() override { return std::nullopt; }
  Status put_chunk(const std::string& hash, std::string_view bytes) override {
    if (refuses_) throw std::bad_alloc();
    return inner_.put_chunk(hash, bytes);
  }
  Result<std::string> get_chunk(const std::string& hash) override { return inner_.get_chunk(hash); }

 private:
  testing::MemoryProgress inner_;
  const bool refuses_;
};

ParameterInfo info_of(const std::string& name, Shape shape, Shard shard = {}) {
  ParameterInfo info;
  info.name = name;
  info.shape = shape;
  info.shard = std::move(shard);
  return info;
}

StateTensor tensor_of(Rank& rank, const ParameterInfo& info, Shape local, double value) {
  StateTensor tensor{&info, proto::TENSOR_ROLE_WEIGHT, Tensor::empty(*rank.allocator, local)};
  tensor.value.numbers.fill(value);
  return tensor;
}

void expect_all(const std::vector<float>& values, float expected) {
  for (float value : values) ASSERT_EQ(value, expected);
}

TEST(CheckpointWriter, HoldsTheValuesOfItsBeginning) {
  testing::MemoryCluster cluster;
  testing::run_ranks(1, [&](Rank& rank) {
    const ParameterInfo large = info_of("large", {3, 500000}), scalar = info_of("scalar", {});
    const std::vector<StateTensor> both{tensor_of(rank, large, {3, 500000}, 1),
                                        tensor_of(rank, scalar, {}, 2)};
    GatedProgress progress(cluster);
    Writer writer(rank, progress);
    const auto write = [&](std::span<const StateTensor> state) {
      writer.begin({}, state);
      for (const StateTensor& tensor : state) tensor.value.numbers.fill(9);  // the training goes on
      EXPECT_FALSE(writer.written());
      progress.set_open(true);
      writer.wait();
      writer.commit();
      progress.set_open(false);
      ASSERT_TRUE(load(cluster.checkpoints.back(), state,
                       [&](const std::string& hash) { return progress.get_chunk(hash); })
                      .value()
                      .empty());
    };
    write(both);
    EXPECT_EQ(cluster.checkpoints.back().bytes(), 4 * (1500000 + 1));
    expect_all(both[0].value.to_vector(), 1);
    expect_all(both[1].value.to_vector(), 2);

    for (const StateTensor& tensor : both) tensor.value.numbers.fill(3);
    write(std::span(both).last(1));  // a smaller one in the same memory
    expect_all(both[1].value.to_vector(), 3);
    both[0].value.numbers.fill(4);
    write(both);
    expect_all(both[0].value.to_vector(), 4);
  });
  EXPECT_EQ(cluster.checkpoints.size(), 3U);
}

TEST(CheckpointWriter, ShardsOfColumnsBecomeOneTensor) {
  testing::MemoryCluster cluster;
  const auto fetch = [&](const std::string& hash) {
    return testing::MemoryProgress(cluster).get_chunk(hash);
  };
  MeshDegrees degrees;
  degrees.tensor = 2;
  testing::run_mesh(degrees, [&](Rank& rank) {
    const int64_t part = rank.mesh.index(Axis::kTensor);
    const ParameterInfo info = info_of("w", {1000, 6}, {1, {{3 * part, 3}}});
    const StateTensor mine = tensor_of(rank, info, {1000, 3}, static_cast<double>(part));
    testing::MemoryProgress progress(cluster);
    Writer writer(rank, progress);
    writer.begin({}, std::span(&mine, 1));
    writer.wait();
    writer.commit();
  });
  testing::run_ranks(1, [&](Rank& rank) {
    const ParameterInfo info = info_of("w", {1000, 6});
    const StateTensor whole = tensor_of(rank, info, {1000, 6}, 9);
    ASSERT_TRUE(load(cluster.checkpoints.back(), std::span(&whole, 1), fetch).value().empty());
    const std::vector<float> values = whole.value.to_vector();
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], i % 6 < 3 ? 0 : 1) << i;
  });
}

// What a training in bf16 keeps in halves is fp32 in the checkpoint, every bit of it, and a
// training in fp32 goes on from it; so is a rank's part of it.
TEST(CheckpointWriter, HalvesAreWrittenAsTheNumbersTheyMake) {
  testing::MemoryCluster cluster;
  const auto fetch = [&](const std::string& hash) {
    return testing::MemoryProgress(cluster).get_chunk(hash);
  };
  constexpr int64_t kRows = 30, kColumns = 10;
  std::vector<float> numbers(static_cast<size_t>(kRows * kColumns));
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = std::bit_cast<float>(0x3F800000U + 0x7FFFU * static_cast<uint32_t>(i));
  }
  MeshDegrees degrees;
  degrees.tensor = 2;
  testing::run_mesh(degrees, [&](Rank& rank) {  // columns 0 to 4, and 5 to 9
    const int64_t first = 5 * rank.mesh.index(Axis::kTensor);
    const ParameterInfo info = info_of("w", {kRows, kColumns}, {1, {{first, 5}}});
    const Shape local{kRows, 5};
    const StateTensor mine{&info, proto::TENSOR_ROLE_WEIGHT,
                           Singles(Tensor::empty(*rank.allocator, local, DType::kBF16),
                                   Tensor::empty(*rank.allocator, local, DType::kBF16))};
    mine.value.set_on_host([&](float* to) {
      for (int64_t i = 0; i < local.elements(); ++i) {
        to[i] = numbers[static_cast<size_t>(i / 5 * kColumns + first + i % 5)];
      }
    });
    testing::MemoryProgress progress(cluster);
    Writer writer(rank, progress);
    writer.begin({}, std::span(&mine, 1));
    writer.wait();
    writer.commit();
  });
  EXPECT_EQ(cluster.checkpoints.back().tensors(0).dtype(), "F32");
  testing::run_ranks(1, [&](Rank& rank) {
    const ParameterInfo info = info_of("w", {kRows, kColumns});
    const StateTensor whole = tensor_of(rank, info, info.shape, 9);
    ASSERT_TRUE(load(cluster.checkpoints.back(), std::span(&whole, 1), fetch).value().empty());
    EXPECT_EQ(whole.value.to_vector(), numbers);
    const Shape part{kRows * kColumns - 17};
    const StateTensor halves{&info, proto::TENSOR_ROLE_WEIGHT,
                             Singles(Tensor::empty(*rank.allocator, part, DType::kBF16),
                                     Tensor::empty(*rank.allocator, part, DType::kBF16)),
                             Part{17, part.elements()}};
    ASSERT_TRUE(load(cluster.checkpoints.back(), std::span(&halves, 1), fetch).value().empty());
    EXPECT_EQ(halves.value.to_vector(), std::vector<float>(numbers.begin() + 17, numbers.end()));
  });
}

// Each replica writes as much of what is frozen, wherever it stands among what is trained, as fp32,
// and keeps no room for it; what is trained it copies to the same room again.
TEST(CheckpointWriter, ReplicasShareWhatIsFrozen) {
  testing::MemoryCluster cluster;
  const auto numbers_of = [](int64_t count, float first) {
    std::vector<float> numbers(static_cast<size_t>(count));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = first + static_cast<float>(i % 100);
    return numbers;
  };
  const auto frozen = [](const std::string& name, Shape shape) {
    ParameterInfo info = info_of(name, shape);
    info.trained = false;
    return info;
  };
  const std::vector<ParameterInfo> infos{frozen("matrix", {100, 30}), frozen("one", {}),
                                         frozen("half", {50, 30}), info_of("adapter", {90})};
  const auto state_of = [&](Rank& rank) {
    std::vector<StateTensor> state;
    for (const ParameterInfo& info : infos) {
      const DType dtype = info.name == "half" ? DType::kBF16 : DType::kF32;
      state.push_back({&info, proto::TENSOR_ROLE_WEIGHT,
                       Singles(Tensor::empty(*rank.allocator, info.shape, dtype))});
      state.back().value.set(numbers_of(info.shape.elements(), 1).data());
    }
    return state;
  };
  testing::run_ranks(3, [&](Rank& rank) {
    testing::MemoryProgress progress(cluster);
    Writer writer(rank, progress);
    const std::vector<StateTensor> state = state_of(rank);
    const bool first = rank.mesh.index(Axis::kReplica) == 0;
    writer.begin({}, state);
    EXPECT_EQ(writer.snapshot_bytes(), 4 * (1000 + 500 + (first ? 1 + 90 : 0)));
    writer.wait();
    writer.commit();
    EXPECT_EQ(writer.snapshot_bytes(), 0);
    writer.begin({}, std::span(state).last(1));
    writer.wait();
    writer.commit();
    EXPECT_EQ(writer.snapshot_bytes(), first ? 4 * 90 : 0);
  });
  testing::run_ranks(1, [&](Rank& rank) {
    const std::vector<StateTensor> state = state_of(rank);
    for (const StateTensor& tensor : state) tensor.value.numbers.fill(0);
    ASSERT_TRUE(load(cluster.checkpoints.front(), state,
                     [&](const std::string& hash) {
                       return testing::MemoryProgress(cluster).get_chunk(hash);
                     })
                    .value()
                    .empty());
    for (const StateTensor& tensor : state) {
      EXPECT_EQ(tensor.value.to_vector(), numbers_of(tensor.value.elements(), 1));
    }
  });
}

TEST(CheckpointWriter, AThreadThatIsRefusedMemoryFailsTheCheckpointOnEveryRank) {
  testing::MemoryCluster cluster;
  testing::run_ranks(2, [&](Rank& rank) {
    const ParameterInfo a = info_of("a", {1000}), b = info_of("b", {3000});
    const std::vector<StateTensor> both{tensor_of(rank, a, {1000}, 1),
                                        tensor_of(rank, b, {3000}, 2)};
    WithoutMemory progress(cluster, rank.mesh.index(Axis::kWorld) == 1);
    Writer writer(rank, progress);
    writer.begin({}, both);
    writer.wait();
    try {
      writer.commit();
      FAIL() << "a checkpoint without rank 1's chunks";
    } catch (const StatusError& error) {
      EXPECT_EQ(error.status().code(), Code::kResourceExhausted);
      EXPECT_EQ(error.status().message(),
                "writing the checkpoint on rank 1: storing 12000 bytes: the system "
                "refuses it more memory");
    }
  });
  EXPECT_TRUE(cluster.checkpoints.empty());
}

// A checkpoint of tensors of one chunk each: tensor i holds i.
class CheckpointReader : public ::testing::Test {
 protected:
  static constexpr size_t kTensors = 12;

  void with_checkpoint(const std::function<void(const proto::CheckpointManifest&,
                                                std::span<const StateTensor>)>& body) {
    std::vector<ParameterInfo> infos;
    for (size_t i = 0; i < kTensors; ++i) infos.push_back(info_of("t" + std::to_string(i), {50}));
    testing::run_ranks(1, [&](Rank& rank) {
      std::vector<StateTensor> state;
      for (const ParameterInfo& info : infos) state.push_back(tensor_of(rank, info, {50}, 0));
      testing::MemoryProgress progress(cluster_);
      Writer writer(rank, progress);
      for (size_t i = 0; i < kTensors; ++i) state[i].value.numbers.fill(static_cast<double>(i));
      writer.begin({}, state);
      writer.wait();
      writer.commit();
      for (const StateTensor& tensor : state) tensor.value.numbers.fill(-1);
      body(cluster_.checkpoints.back(), state);
    });
  }
  Result<std::string> get(const std::string& hash) {
    return testing::MemoryProgress(cluster_).get_chunk(hash);
  }

  testing::MemoryCluster cluster_;
};

TEST_F(CheckpointReader, FetchesSomeChunksAtOnce) {
  with_checkpoint([&](const auto& manifest, std::span<const StateTensor> state) {
    std::mutex mutex;
    std::condition_variable changed;
    int now = 0, most = 0, all = 0;
    const auto missing = load(manifest, state, [&](const std::string& hash) {
      {
        std::unique_lock lock(mutex);
        ++all;
        most = std::max(most, ++now);
        changed.notify_all();
        // The first one comes last of those that are on their way with it.
        if (all == 1) changed.wait_for(lock, std::chrono::seconds(20), [&] { return all == 4; });
        --now;
      }
      return get(hash);
    });
    ASSERT_TRUE(missing.has_value());
    EXPECT_EQ(all, static_cast<int>(kTensors));
    EXPECT_GE(most, 2);
    EXPECT_LE(most, 4);
    for (size_t i = 0; i < kTensors; ++i) {
      expect_all(state[i].value.to_vector(), static_cast<float>(i));
    }
  });
}

TEST_F(CheckpointReader, NamesTheTensorOfAChunkThatCannotBeHad) {
  with_checkpoint([&](const proto::CheckpointManifest& manifest, auto state) {
    std::string lost;
    for (const proto::TensorEntry& entry : manifest.tensors()) {
      if (entry.name() == "t7") lost = entry.tiles(0).chunks(0).hash();
    }
    const auto failed = load(manifest, state, [&](const std::string& hash) -> Result<std::string> {
      if (hash == lost) return fail(Code::kNotFound, "gone");
      return get(hash);
    });
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().code(), Code::kNotFound);
    EXPECT_NE(failed.error().message().find("tensor t7: "), std::string::npos);
  });
}

}  // namespace
}  // namespace weft::checkpoint
