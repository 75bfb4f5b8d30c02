#include "worker/tasks/entities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/tasks/predicted_tokens.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<std::string> kClasses{"B-LOC", "B-PER", "I-LOC", "I-PER", "O"};

std::vector<Entity> entities_of(const std::vector<std::string>& tags) {
  const auto parsed = EntityTags::parse(kClasses);
  std::vector<int64_t> classes;
  for (const std::string& tag : tags) {
    classes.push_back(std::ranges::find(kClasses, tag) - kClasses.begin());
  }
  return parsed->entities(classes);
}

// What seqeval 1.2.2 gives: get_entities of these tags.
TEST(Entities, AreThoseOfSeqevalsDefaultMode) {
  constexpr int64_t kLoc = 0, kPer = 1;
  EXPECT_THAT(entities_of({}), IsEmpty());
  EXPECT_THAT(entities_of({"O", "O"}), IsEmpty());
  EXPECT_THAT(entities_of({"B-PER", "I-PER", "O", "B-LOC"}),
              ElementsAre(Entity{0, 1, kPer}, Entity{3, 3, kLoc}));
  EXPECT_THAT(entities_of({"B-PER", "B-PER", "I-PER"}),
              ElementsAre(Entity{0, 0, kPer}, Entity{1, 2, kPer}));
  EXPECT_THAT(entities_of({"I-PER", "I-PER", "I-LOC", "I-LOC"}),
              ElementsAre(Entity{0, 1, kPer}, Entity{2, 3, kLoc}));
  EXPECT_THAT(entities_of({"B-PER", "I-LOC", "O", "I-PER"}),
              ElementsAre(Entity{0, 0, kPer}, Entity{1, 1, kLoc}, Entity{3, 3, kPer}));
}

TEST(Entities, OtherNamesAreNone) {
  EXPECT_FALSE(EntityTags::parse(std::vector<std::string>{"noun", "verb"}));
  EXPECT_FALSE(EntityTags::parse(std::vector<std::string>{"O"}));
  EXPECT_FALSE(EntityTags::parse(std::vector<std::string>{"B-X", "S-X", "O"}));
  EXPECT_FALSE(EntityTags::parse({}));
  EXPECT_TRUE(EntityTags::parse(std::vector<std::string>{"I-X", "O"}));
}

TEST(Entities, ClassesWithoutANameAreInNone) {
  const auto tags = EntityTags::parse(std::vector<std::string>{"O", "B-X", "I-X"});
  ASSERT_TRUE(tags);
  EXPECT_THAT(tags->entities(std::vector<int64_t>{7, 1, 3, 2}),
              ElementsAre(Entity{1, 1, 0}, Entity{3, 3, 0}));
}

// Room that nearly every step needs no more than, and that depends on nothing else.
TEST(PredictedRoom, HoldsWhatIsPredicted) {
  EXPECT_EQ(predicted_room(4096, 600, 0.15), 752);
  EXPECT_EQ(predicted_room(4096, 752, 0.15), 752);
  EXPECT_EQ(predicted_room(4096, 753, 0.15), 4096);
  EXPECT_EQ(predicted_room(8, 0, 0.15), 8);
  EXPECT_EQ(predicted_room(100, 3, 1), 100);
  EXPECT_EQ(predicted_room(0, 0, 0.15), 0);
}

}  // namespace
}  // namespace weft
