// The settings of a preprocessor as text.
#include <algorithm>
#include <array>
#include <span>

#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "proto/json/writer.h"
#include "worker/data/images/preprocessor.h"

namespace weft {
namespace {

Status wrong(const JsonMember& member, const std::string& rule) {
  return Status::invalid(member.key, member.value.shown(), rule).with_line(member.line);
}

Status read_flag(const JsonMember& member, bool& flag) {
  if (member.value.kind != JsonValue::Kind::kBool) return wrong(member, "must be true or false");
  flag = member.value.boolean;
  return {};
}

// A number for each channel, or one for all.
Status read_numbers(const JsonMember& member, std::vector<double>& numbers) {
  const JsonValue& value = member.value;
  const bool alone = value.is_number();
  const auto given = alone ? std::span(&value, 1) : std::span(value.items);
  const bool fits = alone || (value.is_array() && given.size() == numbers.size());
  if (!fits || !std::ranges::all_of(given, &JsonValue::is_number)) {
    return wrong(member, "must be a list of " + std::to_string(numbers.size()) +
                             " numbers, one for each of the model's channels");
  }
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = given[alone ? 0 : i].as_double();
  return {};
}

// 224, {"height": 224, "width": 224}.
Status check_image_size(const JsonMember& member, int64_t size) {
  const JsonValue& value = member.value;
  const auto fits = [&](const JsonValue* side) {
    return side != nullptr && side->kind == JsonValue::Kind::kInteger && side->integer == size;
  };
  const bool sides = value.is_object() && value.members.size() == 2 && fits(value.find("height")) &&
                     fits(value.find("width"));
  if (sides || fits(&value)) return {};
  return wrong(member, "must be the model's image_size, as in {\"height\": " +
                           std::to_string(size) + ", \"width\": " + std::to_string(size) + "}");
}

Status check_type(const JsonMember& member) {
  constexpr std::array<std::string_view, 4> kTypes{"ViTImageProcessor", "ViTImageProcessorFast",
                                                   "ViTImageProcessorPil", "ViTFeatureExtractor"};
  if (std::ranges::find(kTypes, member.value.text) != kTypes.end()) return {};
  return wrong(member, "must be ViTImageProcessor: others compute something else");
}

// A key by which a ViTImageProcessor computes something else, where it is on.
Status check_off(const JsonMember& member) {
  if (member.value.kind == JsonValue::Kind::kBool && !member.value.boolean) return {};
  return wrong(member, "must be false or left out: a model here is trained without");
}

}  // namespace

Result<ImagePreprocessor> ImagePreprocessor::parse(std::string_view json,
                                                   const ImageLayout& layout) {
  WEFT_ASSIGN_OR_RETURN(const JsonValue settings, parse_json(json));
  return parse(settings, layout);
}

Result<ImagePreprocessor> ImagePreprocessor::parse(const JsonValue& settings,
                                                   const ImageLayout& layout) {
  if (!settings.is_object()) {
    return fail(Status::invalid("settings", settings.shown(), "must be a JSON object"));
  }
  ImagePreprocessor made(layout);
  // Of these, transformers computes nothing else by what they say, or nothing without the key that
  // turns them on.
  constexpr std::array<std::string_view, 9> kAccepted{
      "processor_class", "default_to_square", "crop_size",        "pad_size",        "data_format",
      "device",          "return_tensors",    "disable_grouping", "image_seq_length"};
  for (const JsonMember& member : settings.members) {
    const std::string& key = member.key;
    const JsonValue& value = member.value;
    Status status;
    if (value.is_null() || std::ranges::find(kAccepted, key) != kAccepted.end()) continue;
    if (key == "image_processor_type" || key == "feature_extractor_type") {
      status = check_type(member);
    } else if (key == "size") {
      status = check_image_size(member, layout.size);
    } else if (key == "do_resize") {
      status = read_flag(member, made.do_resize_);
    } else if (key == "do_rescale") {
      status = read_flag(member, made.do_rescale_);
    } else if (key == "do_normalize") {
      status = read_flag(member, made.do_normalize_);
    } else if (key == "resample") {
      const bool known =
          value.kind == JsonValue::Kind::kInteger && (value.integer == 2 || value.integer == 3);
      if (!known) status = wrong(member, "must be 2 (bilinear) or 3 (bicubic)");
      made.resample_ = static_cast<Resampling>(value.integer);
    } else if (key == "rescale_factor") {
      if (!value.is_number()) status = wrong(member, "must be a number");
      made.rescale_factor_ = value.as_double();
    } else if (key == "image_mean") {
      status = read_numbers(member, made.mean_);
    } else if (key == "image_std") {
      status = read_numbers(member, made.deviation_);
      if (status.ok() && std::ranges::find(made.deviation_, 0.0) != made.deviation_.end()) {
        status = wrong(member, "must not be 0: values are divided by it");
      }
    } else if (key == "do_center_crop" || key == "do_pad" || key == "do_convert_rgb") {
      status = check_off(member);
    } else {
      status = wrong(member, "is no setting that is known here");
    }
    WEFT_RETURN_IF_ERROR(status);
  }
  return made;
}

Result<ImagePreprocessor> ImagePreprocessor::read(const std::string& folder,
                                                  const ImageLayout& layout) {
  return read_preprocessor_file<ImagePreprocessor>(folder, layout);
}

std::string ImagePreprocessor::json() const {
  const auto write_numbers = [](JsonWriter& out, const std::vector<double>& numbers) {
    out.begin_array();
    for (const double number : numbers) out.number(number);
    out.end_array();
  };
  JsonWriter out(2);
  out.begin_object();
  out.key("do_normalize").boolean(do_normalize_);
  out.key("do_rescale").boolean(do_rescale_);
  out.key("do_resize").boolean(do_resize_);
  out.key("image_mean");
  write_numbers(out, mean_);
  out.key("image_processor_type").string("ViTImageProcessor");
  out.key("image_std");
  write_numbers(out, deviation_);
  out.key("resample").integer(static_cast<int64_t>(resample_));
  out.key("rescale_factor").number(rescale_factor_);
  out.key("size").begin_object();
  out.key("height").integer(layout_.size).key("width").integer(layout_.size).end_object();
  return out.end_object().take() + "\n";
}

}  // namespace weft
