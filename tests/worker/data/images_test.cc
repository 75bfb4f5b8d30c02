// Images: how files are decoded, resized and scaled, against what PIL and ViTImageProcessor give
// (fixtures/images, made with Pillow), what is refused, and data sets of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <tuple>

#include "kernels/tensor/thread_pool.h"
#include "worker/data/augmentation.h"
#include "worker/data/check.h"
#include "worker/data/dataset.h"
#include "worker/data/images/image.h"
#include "worker/data/images/preprocessor.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kWidth = 12, kHeight = 9;  // of all fixtures
constexpr const char* kFiles[] = {"color.png",   "alpha.png",   "gray16.png",
                                  "palette.png", "bilevel.png", "color16.png",
                                  "color.jpg",   "gray.jpg",    "cmyk.jpg"};

std::string fixture(const std::string& name) {
  std::ifstream in(WEFT_SOURCE_DIR "/tests/worker/data/fixtures/images/" + name, std::ios::binary);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<uint8_t> levels(const std::string& name) {
  const std::string bytes = fixture(name);
  return {bytes.begin(), bytes.end()};
}

std::string error_of(std::string_view bytes) {
  const auto image = decode_image(bytes, 3);
  return image ? "ok" : image.error().to_string();
}

TEST(Images, FilesAreDecodedAsPilDoes) {
  for (const std::string name : kFiles) {
    const std::string bytes = fixture(name);
    EXPECT_TRUE(check_image(bytes).ok()) << name;
    for (const auto& [channels, kind] : {std::pair{3, ".rgb"}, std::pair{1, ".gray"}}) {
      const auto image = decode_image(bytes, channels);
      ASSERT_TRUE(image) << name << ": " << image.error().to_string();
      EXPECT_EQ(image->width, kWidth);
      EXPECT_EQ(image->height, kHeight);
      EXPECT_EQ(image->pixels, levels(name + kind)) << name << kind;
    }
  }
}

TEST(Images, ResizedAsPilDoes) {
  const Image image{kWidth, kHeight, 3, levels("color.png.rgb")};
  for (const int64_t size : {5, 20}) {
    const std::string side = std::to_string(size);
    EXPECT_EQ(resized(image, size, size, Resampling::kBilinear).pixels,
              levels("color.png.bilinear" + side));
    EXPECT_EQ(resized(image, size, size, Resampling::kBicubic).pixels,
              levels("color.png.bicubic" + side));
  }
  // Down first.
  EXPECT_EQ(resized(image, 20, 5, Resampling::kBicubic).pixels, levels("color.png.bicubic20x5"));
  EXPECT_EQ(resized(image, kWidth, kHeight, Resampling::kBicubic).pixels, image.pixels);
}

// Whatever is cut off or changed, nothing crashes, and most of it is an error.
TEST(Images, BrokenFilesAreErrors) {
  for (const std::string name : kFiles) {
    const std::string bytes = fixture(name);
    constexpr size_t kBehindPixels = 24;  // checksums and marks of the end
    for (size_t length = 0; length + kBehindPixels < bytes.size(); ++length) {
      EXPECT_NE(error_of(bytes.substr(0, length)), "ok") << name << " of " << length << " bytes";
    }
    for (size_t at = 0; at < bytes.size(); ++at) {
      for (const char flip : {'\x01', '\x80', '\xff'}) {
        std::string other = bytes;
        other[at] = static_cast<char>(other[at] ^ flip);
        std::ignore = error_of(other);
        std::ignore = check_image(other);
      }
    }
  }
  EXPECT_THAT(error_of(""), HasSubstr("must be PNG or JPEG"));
  EXPECT_THAT(error_of("GIF89a"), HasSubstr("must be PNG or JPEG"));
  EXPECT_THAT(error_of(fixture("color.jpg").substr(0, 500)),
              HasSubstr("must be a whole JPEG file; its decoder says: "));
  EXPECT_THAT(error_of(fixture("color.png").substr(0, 100)),
              HasSubstr("must be a whole PNG file; its decoder says: the file ends"));
}

TEST(Images, AHugeImageIsRefusedByItsHeader) {
  std::string bytes = fixture("gray.jpg");
  const size_t frame = bytes.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  bytes.replace(frame + 5, 4, "\xff\xdc\xff\xdc");
  const Status status = check_image(bytes);
  EXPECT_THAT(status.to_string(), HasSubstr("have at most 67108864 pixels"));
  EXPECT_EQ(status.value(), "65500 x 65500");
}

constexpr ImageLayout kLayout{4, 2, 3};

TEST(Images, PatchesAreNormalizedChannelByChannel) {
  Image image{4, 4, 3, {}};
  for (int i = 0; i < 48; ++i) image.pixels.push_back(static_cast<uint8_t>(5 * i));
  std::vector<float> patches(48);
  const auto preprocessor =
      *ImagePreprocessor::parse(R"({"image_mean": [0.1, 0.2, 0.3], "image_std": 0.25})", kLayout);
  ASSERT_TRUE(preprocessor.write_patches(image, std::nullopt, patches.data()).ok());
  const auto value = [](int level, float mean) {
    return (static_cast<float>(level / 255.0) - mean) / 0.25F;
  };
  // The upper right patch: columns 2 and 3 of rows 0 and 1.
  const std::vector<float> second(patches.begin() + 12, patches.begin() + 24);
  EXPECT_THAT(second,
              ElementsAre(value(30, 0.1F), value(45, 0.1F), value(90, 0.1F), value(105, 0.1F),
                          value(35, 0.2F), value(50, 0.2F), value(95, 0.2F), value(110, 0.2F),
                          value(40, 0.3F), value(55, 0.3F), value(100, 0.3F), value(115, 0.3F)));
  Augmentation augmentation{{0, 0, 4, 4}, true};
  std::vector<float> turned(48);
  ASSERT_TRUE(preprocessor.write_patches(image, augmentation, turned.data()).ok());
  EXPECT_EQ(turned[0], second[1]);
}

TEST(Images, SettingsAreHonouredOrRefused) {
  const auto same = ImagePreprocessor::parse(ImagePreprocessor(kLayout).json(), kLayout);
  ASSERT_TRUE(same) << same.error().to_string();
  EXPECT_EQ(same->json(), ImagePreprocessor(kLayout).json());
  EXPECT_THAT(same->json(), HasSubstr("\"image_processor_type\": \"ViTImageProcessor\""));
  for (const char* fine :
       {"{}", R"({"size": 4})", R"({"size": {"height": 4, "width": 4}, "resample": 3})",
        R"({"do_center_crop": null, "do_convert_rgb": false, "crop_size": null})",
        R"({"feature_extractor_type": "ViTFeatureExtractor", "data_format": "channels_first"})"}) {
    EXPECT_TRUE(ImagePreprocessor::parse(fine, kLayout)) << fine;
  }
  const std::pair<const char*, const char*> wrong[] = {
      {"[]", "must be a JSON object"},
      {R"({"size": {"shortest_edge": 4}})", "size must be the model's image_size"},
      {R"({"size": 8})", "size must be the model's image_size"},
      {R"({"resample": 1})", "resample must be 2 (bilinear) or 3 (bicubic)"},
      {R"({"do_resize": 1})", "do_resize must be true or false"},
      {R"({"image_mean": [0.5]})", "image_mean must be a list of 3 numbers"},
      {R"({"image_std": [1, 0, 1]})", "image_std must not be 0"},
      {R"({"rescale_factor": "x"})", "rescale_factor must be a number"},
      {R"({"do_center_crop": true})", "do_center_crop must be false"},
      {R"({"image_processor_type": "CLIPImageProcessor"})", "must be ViTImageProcessor"},
      {R"({"sharpen": true})", "sharpen is no setting that is known here"}};
  for (const auto& [text, rule] : wrong) {
    const auto parsed = ImagePreprocessor::parse(text, kLayout);
    ASSERT_FALSE(parsed) << text;
    EXPECT_THAT(parsed.error().to_string(), HasSubstr(rule));
  }
}

TEST(Images, ARandomPartFollowsFromKeyEpochAndSample) {
  const RandomKey key{7, 0};
  std::set<int64_t> widths;
  int mirrored = 0;
  double area = 0;
  constexpr int kDraws = 2000;
  for (int64_t sample = 0; sample < kDraws; ++sample) {
    const Augmentation drawn = draw_augmentation(key, {3, sample}, 640, 480);
    EXPECT_EQ(drawn.box, draw_augmentation(key, {3, sample}, 640, 480).box);
    const Box& box = drawn.box;
    ASSERT_GE(std::min(box.left, box.top), 0);
    ASSERT_LE(box.left + box.width, 640);
    ASSERT_LE(box.top + box.height, 480);
    const auto width = static_cast<double>(box.width), height = static_cast<double>(box.height);
    EXPECT_GE(width * height, 0.079 * 640 * 480);
    EXPECT_NEAR(std::log(width / height), 0, std::log(4.0 / 3) + 0.02);
    widths.insert(box.width);
    mirrored += drawn.mirrored ? 1 : 0;
    area += width * height / (640 * 480) / kDraws;
  }
  EXPECT_GT(std::ssize(widths), 200);
  EXPECT_NEAR(mirrored, kDraws / 2, 100);
  EXPECT_NEAR(area, 0.433, 0.02);  // torchvision's: large parts of other ratios do not fit
  EXPECT_NE(draw_augmentation(key, {4, 0}, 640, 480).box,
            draw_augmentation(key, {3, 0}, 640, 480).box);
  // No part of a line has such a ratio: the middle.
  EXPECT_EQ(draw_augmentation(key, {0, 0}, 900, 1).box, (Box{449, 0, 1, 1}));
}

class ImageData : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/images-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    put("cat/1.png", fixture("color.png"));
    put("cat/2.JPG", fixture("color.jpg"));
    put("ant/9.jpeg", fixture("cmyk.jpg"));
  }
  void TearDown() override { fs::remove_all(folder_); }
  void put(const std::string& name, const std::string& content) const {
    fs::create_directories(fs::path(folder_ + "/" + name).parent_path());
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
  }
  static DatasetOptions options() {
    DatasetOptions options;
    options.kind = SampleKind::kImages;
    options.source.format = InputFormat::kImages;
    options.source.label_key = "class";
    options.labels = 2;
    options.preprocessor.emplace(kLayout);
    return options;
  }
  Result<std::shared_ptr<const Dataset>> load(const DatasetOptions& options) const {
    WEFT_ASSIGN_OR_RETURN(const auto files, input_files(folder_));
    return Dataset::load_images(files, options);
  }
  std::string refused(const DatasetOptions& options) const {
    const auto set = load(options);
    Labels labels("class", options.labels, options.label_names);
    const Status checked = check_data(*input_files(folder_), options, false, labels);
    EXPECT_FALSE(checked.ok());
    return set ? "ok" : set.error().to_string();
  }
  std::string folder_;
};

TEST_F(ImageData, FoldersAreClasses) {
  const auto set = *load(options());
  EXPECT_EQ(set->samples(), 3);
  EXPECT_EQ(set->tokens(), 15);
  EXPECT_THAT(set->label_names(), ElementsAre("ant", "cat"));
  const TaskRows rows = set->range(0, 8);
  EXPECT_EQ(rows.rows, 3);
  EXPECT_EQ(rows.tokens, 5);
  EXPECT_THAT(rows.labels, ElementsAre(0, 1, 1));
  EXPECT_TRUE(rows.ids.empty());
  std::vector<float> patches(48);
  ASSERT_TRUE(
      options()
          .preprocessor
          ->write_patches(*decode_image(fixture("color.png"), 3), std::nullopt, patches.data())
          .ok());
  EXPECT_TRUE(std::equal(patches.begin(), patches.end(), rows.patches.begin() + 48));

  DatasetOptions other = options();
  other.first_labels = {"cat"};
  EXPECT_THAT((*load(other))->range(0, 3).labels, ElementsAre(1, 0, 0));
}

TEST_F(ImageData, TrainingDataAloneIsAugmented) {
  DatasetOptions augmented = options();
  augmented.augment_key = RandomKey{1, 2};
  const auto set = *load(augmented), plain = *load(options());
  const std::vector<Visit> visits{{0, 1}, {1, 1}, {0, 2}};
  const TaskRows rows = set->rows(visits);
  EXPECT_NE(rows.patches, plain->rows(visits).patches);
  EXPECT_FALSE(
      std::equal(rows.patches.begin(), rows.patches.begin() + 48, rows.patches.begin() + 48));
  EXPECT_EQ(set->range(0, 3).patches, plain->range(0, 3).patches);
  ThreadPool pool(3);
  augmented.pool = &pool;
  EXPECT_EQ((*load(augmented))->rows(visits).patches, rows.patches);
}

TEST_F(ImageData, BadFilesAreNamed) {
  DatasetOptions held_out = options();
  held_out.label_names = {"ant", "dog"};
  EXPECT_THAT(refused(held_out),
              HasSubstr("cat/1.png: class must be a label of the training data"));
  DatasetOptions many = options();
  put("dog/1.png", fixture("gray16.png"));
  EXPECT_THAT(refused(many), HasSubstr("makes 3 different labels, the task has labels: 2"));
  fs::remove_all(folder_ + "/dog");
  put("notes.png", fixture("color.png"));
  EXPECT_THAT(refused(options()), HasSubstr("notes.png: file must be CLASS/NAME.png"));
  fs::remove(folder_ + "/notes.png");
  put("cat/notes.txt", "x");
  EXPECT_THAT(refused(options()), HasSubstr("cat/notes.txt: file must be CLASS/NAME.png"));
  fs::remove(folder_ + "/cat/notes.txt");
  put("cat/deep/1.png", fixture("color.png"));
  EXPECT_THAT(refused(options()), HasSubstr("cat/deep/1.png: file must be CLASS/NAME.png"));
  fs::remove_all(folder_ + "/cat/deep");
  put("cat/0.png", "not an image");
  EXPECT_THAT(refused(options()), HasSubstr("cat/0.png: format must be PNG or JPEG"));
}

TEST_F(ImageData, AnImageBrokenBehindItsHeaderIsNamedWhereItIsUsed) {
  put("cat/1.png", fixture("color.png").substr(0, 100));
  const auto set = *load(options());
  try {
    set->range(0, 3);
    FAIL();
  } catch (const StatusError& error) {
    EXPECT_THAT(error.status().to_string(), HasSubstr("cat/1.png: image must be a whole PNG file"));
  }
  fs::remove(folder_ + "/cat/1.png");
  EXPECT_THROW(set->range(0, 3), StatusError);
}

TEST_F(ImageData, WithoutResizingASizeIsHeldAgainstTheModels) {
  DatasetOptions fixed = options();
  fixed.preprocessor = *ImagePreprocessor::parse(R"({"do_resize": false})", kLayout);
  const auto set = *load(fixed);
  try {
    set->range(0, 1);
    FAIL();
  } catch (const StatusError& error) {
    EXPECT_THAT(error.status().to_string(),
                HasSubstr("ant/9.jpeg: image must be 4 x 4, the model's size"));
  }
}

}  // namespace
}  // namespace weft
