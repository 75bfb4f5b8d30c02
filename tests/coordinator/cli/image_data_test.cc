// Folders of images on the command line: what is derived from them, and what is refused.
#include "proto/json/message_json.h"
#include "tests/coordinator/cli/served_cli.h"

namespace weft::cli {
namespace {

const std::string kModel = WEFT_SOURCE_DIR "/tests/fixtures/golden/vit-image/hf";
const std::string kImages = WEFT_SOURCE_DIR "/tests/worker/data/fixtures/images/";

class ImageData : public ServedCli {
 protected:
  void SetUp() override {
    ServedCli::SetUp();
    put("shapes/round/1.png", "color.png");
    put("shapes/round/2.jpg", "color.jpg");
    put("shapes/edged/1.png", "palette.png");
  }
  void put(const std::string& name, const std::string& image) {
    fs::create_directories(fs::path(file(name)).parent_path());
    fs::copy_file(kImages + image, file(name));
  }
  std::string file(const std::string& name) { return folder_ + "/" + name; }
  Outcome fine_tune(std::vector<std::string> line) {
    line.insert(line.begin(), {"fine-tune", kModel});
    line.insert(line.end(), {"--dry-run", "--json"});
    return weft(line);
  }
};

TEST_F(ImageData, TheFolderTellsTaskAndClasses) {
  const Outcome done = fine_tune({file("shapes"), "--augment"});
  ASSERT_EQ(done.exit, kExitOk) << done.err;
  proto::JobSpec spec;
  ASSERT_TRUE(read_json(done.out, spec, {.lenient = true}).ok());
  const proto::TaskSpec& task = spec.tasks(0);
  EXPECT_EQ(task.type(), proto::TASK_TYPE_IMAGE_CLASSIFICATION);
  EXPECT_EQ(task.labels(), 2);
  EXPECT_EQ(task.data().format(), proto::DATA_FORMAT_IMAGES);
  EXPECT_TRUE(task.data().augment());
  EXPECT_FALSE(spec.has_tokenizer());
}

TEST_F(ImageData, WhatDoesNotGoWithImagesIsRefused) {
  write("plain.txt", "text");
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{file("shapes"), "--sequence-length", "8"}, "the tokens of an image follow from the model"},
      {{file("shapes"), "--tokenizer", "byte"}, "is for texts; the data is images"},
      {{file("shapes"), "--text-key", "a"}, "--text-key is for texts; the data is images"},
      {{file("shapes"), "--label-key", "a"}, "--label-key is for texts; the data is images"},
      {{file("shapes"), "--task", "causal_lm"}, "must be one that vit learns"},
      {{file("shapes/round")}, "must be CLASS/NAME.png"},
      {{file("plain.txt"), "--task", "image_classification"}, "must be CLASS/NAME.png"},
      {{file("shapes"), "--validation", file("plain.txt")}, "must be CLASS/NAME.png"}};
  for (const auto& [line, rule] : wrong) {
    const Outcome done = fine_tune(line);
    EXPECT_EQ(done.exit, kExitError);
    EXPECT_THAT(done.err, HasSubstr(rule));
  }
}

TEST_F(ImageData, ClassifyTakesImagesOfAModelOfImagesAlone) {
  EXPECT_THAT(weft({"classify", kModel, "--text", "a"}).err, HasSubstr("--image must be given"));
  EXPECT_THAT(weft({"classify", kModel, "--image", file("none.png")}).err,
              HasSubstr("must be a file or folder here"));
  write("none.png", "text");
  EXPECT_THAT(weft({"classify", kModel, "--image", file("none.png")}).err,
              HasSubstr("must be PNG or JPEG"));
}

}  // namespace
}  // namespace weft::cli
