#include "worker/checkpoint/layout.h"

#include <gtest/gtest.h>

#include <numeric>

#include "worker/checkpoint/reader.h"

namespace weft::checkpoint {
namespace {

// The local values of a shard, where each element of the whole tensor holds its global index.
std::vector<float> shard_values(const Shape& shape, const Shard& shard) {
  std::vector<float> whole(static_cast<size_t>(shape.elements()));
  std::iota(whole.begin(), whole.end(), 0.0F);
  if (shard.whole()) return whole;
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < shard.dim; ++i) outer *= shape[i];
  for (int i = shard.dim + 1; i < shape.dims(); ++i) inner *= shape[i];
  std::vector<float> local;
  for (int64_t o = 0; o < outer; ++o) {
    for (const Part& part : shard.ranges) {
      for (int64_t m = part.start; m < part.start + part.length; ++m) {
        for (int64_t i = 0; i < inner; ++i) {
          local.push_back(whole[static_cast<size_t>((o * shape[shard.dim] + m) * inner + i)]);
        }
      }
    }
  }
  return local;
}

// Query, key and value side by side, each cut into `count` parts.
Shard third_parts(int dim, int64_t extent, int count, int index) {
  Shard shard{dim, {}};
  const Part part = part_of(extent / 3, count, index);
  for (int64_t third = 0; third < 3; ++third) {
    shard.ranges.push_back({third * (extent / 3) + part.start, part.length});
  }
  return shard;
}

Shard parts(int dim, int64_t extent, int count, int index) {
  return Shard{dim, {part_of(extent, count, index)}};
}

// Writes the tensor from `from` shards as tiles and reads it into `to` shards.
void expect_reshard(const Shape& shape, const std::vector<Shard>& from,
                    const std::vector<Shard>& to) {
  struct WrittenTile {
    Box box;
    std::vector<float> values;
  };
  std::vector<WrittenTile> tiles;
  for (const Shard& shard : from) {
    const std::vector<float> local = shard_values(shape, shard);
    for (const Box& box : boxes_of(shape, shard)) {
      WrittenTile tile{box, std::vector<float>(static_cast<size_t>(box.elements(shape)), -1)};
      for_each_local_run(shape, shard, box, [&](const Run& run) {
        for (int64_t i = 0; i < run.count; ++i) {
          tile.values[static_cast<size_t>(run.source + i)] =
              local[static_cast<size_t>(run.target + i)];
        }
      });
      tiles.push_back(std::move(tile));
    }
  }
  for (const Shard& shard : to) {
    const std::vector<float> expected = shard_values(shape, shard);
    std::vector<float> local(expected.size(), -1);
    for (const WrittenTile& tile : tiles) {
      const int64_t total = static_cast<int64_t>(tile.values.size());
      for (int64_t first = 0; first < total; first += 5) {  // chunks of five elements
        const int64_t count = std::min<int64_t>(5, total - first);
        for_each_run(shape, tile.box, shard, first, count, [&](const Run& run) {
          for (int64_t i = 0; i < run.count; ++i) {
            local[static_cast<size_t>(run.target + i)] =
                tile.values[static_cast<size_t>(first + run.source + i)];
          }
        });
      }
    }
    EXPECT_EQ(local, expected) << shape.to_string();
  }
}

std::vector<Shard> cut(const std::function<Shard(int, int)>& make, int count) {
  std::vector<Shard> shards;
  for (int i = 0; i < count; ++i) shards.push_back(make(count, i));
  return shards;
}

TEST(Layout, AnyMeshLoadsWhatAnyMeshWrote) {
  const Shape matrix{7, 15};
  const auto columns = [](int n, int i) { return third_parts(1, 15, n, i); };
  const auto rows = [](int n, int i) { return parts(0, 7, n, i); };
  for (int from = 1; from <= 6; ++from) {
    for (int to = 1; to <= 6; ++to) {
      expect_reshard(matrix, cut(columns, from), cut(columns, to));
      expect_reshard(matrix, cut(rows, from), cut(rows, to));
      expect_reshard(matrix, cut(rows, from), cut(columns, to));
      expect_reshard(matrix, {Shard{}}, cut(columns, to));
      expect_reshard(matrix, cut(columns, from), {Shard{}});
    }
  }
}

TEST(Layout, HigherDimsScalarsAndEmptyShards) {
  const Shape cube{2, 3, 4};
  const auto middle = [](int n, int i) { return parts(1, 3, n, i); };
  expect_reshard(cube, cut(middle, 2), cut(middle, 5));
  expect_reshard(cube, cut(middle, 5), {Shard{}});
  expect_reshard(Shape{}, {Shard{}}, {Shard{}});
  EXPECT_TRUE(boxes_of(Shape{0, 4}, Shard{}).empty());
  EXPECT_TRUE(boxes_of(cube, parts(1, 3, 5, 4)).empty());
}

// Rows that two neighbours have are the first one's to write.
TEST(Layout, WhatRanksShareIsWrittenOnce) {
  const Shape matrix{12, 5};
  std::vector<Shard> shards{{0, {{0, 4}}}, {0, {{0, 8}}}, {0, {{4, 8}}}, {0, {{8, 4}}}};
  for (size_t rank = 1; rank < shards.size(); ++rank) shards[rank].repeated = 4;
  std::vector<Box> boxes;
  for (const Shard& shard : shards) {
    for (const Box& box : boxes_of(matrix, shard)) boxes.push_back(box);
  }
  ASSERT_EQ(boxes.size(), 3U);
  for (size_t i = 0; i < boxes.size(); ++i) {
    EXPECT_EQ(boxes[i].part, (Part{static_cast<int64_t>(4 * i), 4}));
  }
  expect_reshard(matrix, shards, shards);
  expect_reshard(matrix, shards, {Shard{}});
  expect_reshard(matrix, cut([](int n, int i) { return parts(0, 12, n, i); }, 5), shards);
}

proto::TensorEntry entry_of(const Shape& shape, const std::vector<Box>& boxes) {
  proto::TensorEntry entry;
  entry.set_name("h.0.attn.c_attn.weight");
  entry.set_dtype("F32");
  for (int64_t extent : shape.extents()) entry.add_shape(extent);
  for (const Box& box : boxes) {
    proto::Tile* tile = entry.add_tiles();
    tile->set_dim(box.dim);
    tile->set_start(box.part.start);
    tile->set_length(box.part.length);
    tile->add_chunks()->set_size(box.elements(shape) * 4);
  }
  return entry;
}

TEST(Layout, EntriesThatDoNotAddUpAreRefused) {
  const Shape shape{4, 6};
  EXPECT_TRUE(check_entry(entry_of(shape, {{0, {0, 4}}})).ok());
  EXPECT_TRUE(check_entry(entry_of(shape, {{1, {4, 2}}, {1, {0, 4}}})).ok());
  const std::vector<std::vector<Box>> broken = {
      {},                          // nothing
      {{1, {0, 4}}},               // a gap at the end
      {{1, {1, 5}}},               // a gap at the start
      {{1, {0, 4}}, {1, {3, 3}}},  // an overlap
      {{0, {0, 2}}, {1, {0, 6}}},  // two dims
      {{0, {0, 5}}},               // outside
      {{2, {0, 4}}},               // no such dim
      {{0, {-1, 5}}},              // before the start
  };
  for (const auto& boxes : broken) {
    const Status status = check_entry(entry_of(shape, boxes));
    EXPECT_EQ(status.code(), Code::kCorruption) << status.to_string();
    EXPECT_NE(status.message().find("c_attn"), std::string::npos);
  }
  proto::TensorEntry wrong = entry_of(shape, {{0, {0, 4}}});
  wrong.mutable_tiles(0)->mutable_chunks(0)->set_size(4 * 23);
  EXPECT_EQ(check_entry(wrong).code(), Code::kCorruption);
  wrong = entry_of(shape, {{0, {0, 4}}});
  wrong.set_dtype("BF16");
  EXPECT_EQ(check_entry(wrong).code(), Code::kCorruption);
  wrong = entry_of(shape, {{0, {0, 4}}});
  wrong.set_shape(0, int64_t{1} << 60);
  EXPECT_EQ(check_entry(wrong).code(), Code::kCorruption);
}

}  // namespace
}  // namespace weft::checkpoint
