#include "coordinator/store/content.h"

#include <gtest/gtest.h>

#include "proto/base/hash.h"
#include "tests/coordinator/memory_chunks.h"

namespace weft {
namespace {

using std::chrono::minutes;

class ContentTest : public testing::Test {
 protected:
  std::string put(const std::string& bytes) {
    const std::string hash = sha256_hex(bytes);
    EXPECT_TRUE(content_.put_chunk(hash, bytes).ok());
    return hash;
  }
  static proto::ObjectManifest object(const std::string& path, const std::string& bytes) {
    proto::ObjectManifest manifest;
    add(manifest, path, bytes);
    return manifest;
  }
  static void add(proto::ObjectManifest& manifest, const std::string& path,
                  const std::string& bytes) {
    auto* file = manifest.add_files();
    file->set_path(path);
    file->set_size(static_cast<int64_t>(bytes.size()));
    auto* chunk = file->add_chunks();
    chunk->set_hash(sha256_hex(bytes));
    chunk->set_size(static_cast<int64_t>(bytes.size()));
  }

  SimulatedClock clock_{1000};
  MemoryChunks chunks_;
  std::unique_ptr<JobStore> store_ = JobStore::open(make_memory_key_value(), clock_).value();
  Content content_{chunks_, *store_, clock_};
};

TEST_F(ContentTest, ChunksMustBeWhatTheirNameSays) {
  put("text");
  EXPECT_EQ(content_.put_chunk(sha256_hex("text"), "other").code(), Code::kInvalidArgument);
  EXPECT_EQ(content_.put_chunk("../../etc/passwd", "x").field(), "hash");
  EXPECT_EQ(content_.put_chunk(sha256_hex(""), "").field(), "size");
  EXPECT_FALSE(content_.get_chunk("x"));
  EXPECT_EQ(content_.missing({sha256_hex("a"), sha256_hex("text"), sha256_hex("a")}).value(),
            std::vector<std::string>{sha256_hex("a")});
}

TEST_F(ContentTest, AnObjectNeedsItsChunksAndHasTheIdOfItsFiles) {
  auto manifest = object("b.txt", "text");
  EXPECT_EQ(content_.put_object(manifest).error().code(), Code::kFailedPrecondition);
  put("text");
  put("more");
  const auto stored = content_.put_object(manifest).value();
  EXPECT_TRUE(stored.id().starts_with("obj-"));
  EXPECT_EQ(stored.id().size(), 36u);
  EXPECT_EQ(content_.put_object(manifest).value().id(), stored.id());
  add(manifest, "a.txt", "more");
  const auto sorted = content_.put_object(manifest).value();
  EXPECT_EQ(sorted.files(0).path(), "a.txt");
  EXPECT_EQ(sorted.bytes(), 8);
  manifest.set_id("obj-00000000000000000000000000000000");
  EXPECT_EQ(content_.put_object(manifest).error().field(), "id");
}

TEST_F(ContentTest, RefusesPathsThatLeaveTheFolder) {
  put("text");
  for (const char* path :
       {"/etc/passwd", "../x", "a/../x", "a//b", "", ".", "a/.", "a\\b", "a/", "a\nb"}) {
    const auto result = content_.put_object(object(path, "text"));
    ASSERT_FALSE(result) << path;
    EXPECT_EQ(result.error().field(), "files[0].path") << path;
  }
  auto twice = object("a", "text");
  add(twice, "a", "text");
  EXPECT_EQ(content_.put_object(twice).error().field(), "files[1].path");
  auto folder = object("a", "text");
  add(folder, "a/b", "text");
  EXPECT_FALSE(content_.put_object(folder));
  auto size = object("a", "text");
  size.mutable_files(0)->set_size(5);
  EXPECT_EQ(content_.put_object(size).error().field(), "files[0].size");
}

TEST_F(ContentTest, AChunkIsAsLargeAsItsManifestSays) {
  put("text");
  put("more");
  auto manifest = object("b", "text");
  add(manifest, "a", "more");  // stored in path order, told in the order given
  auto* chunk = manifest.mutable_files(1)->add_chunks();
  chunk->set_hash(sha256_hex("text"));
  for (const int64_t size : {3, 5}) {
    chunk->set_size(size);
    manifest.mutable_files(1)->set_size(4 + size);
    const auto result = content_.put_object(manifest);
    ASSERT_FALSE(result) << size;
    EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(result.error().field(), "files[1].chunks[1].size");
    EXPECT_EQ(result.error().value(), std::to_string(size));
    EXPECT_EQ(result.error().rule(), "must be the size of the stored chunk, 4");
  }
  chunk->set_size(4);
  manifest.mutable_files(1)->set_size(8);
  EXPECT_TRUE(content_.put_object(manifest));
}

TEST_F(ContentTest, CollectsOnlyWhatNothingNeedsForLong) {
  const auto kept = object("a", "kept");
  put("kept");
  put("loose");
  ASSERT_TRUE(content_.put_object(kept));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(50));
  ASSERT_TRUE(content_.missing({sha256_hex("loose")}).value().empty()) << "an upload relies on it";
  clock_.advance(minutes(20));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(61));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 1);
  EXPECT_TRUE(content_.get_chunk(sha256_hex("kept")));
  EXPECT_FALSE(content_.get_chunk(sha256_hex("loose")));
}

TEST_F(ContentTest, CollectsMoreThanIsRemovedAtOnce) {
  for (int i = 0; i < 150; ++i) put(std::to_string(i));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(61));
  put("7");  // an upload relies on it again
  EXPECT_EQ(content_.collect(minutes(60)).value(), 149);
  EXPECT_TRUE(content_.get_chunk(sha256_hex("7")));
  EXPECT_FALSE(content_.get_chunk(sha256_hex("149")));
}

TEST_F(ContentTest, AfterARestartTheGracePeriodBeginsAnew) {
  put("loose");
  Content again(chunks_, *store_, clock_);
  clock_.advance(minutes(600));
  EXPECT_EQ(again.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(61));
  EXPECT_EQ(again.collect(minutes(60)).value(), 1);
}

}  // namespace
}  // namespace weft
