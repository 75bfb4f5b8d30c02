#include "worker/data/audio/preprocessor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "proto/json/writer.h"

namespace weft {
namespace {

constexpr const char* kType = "WhisperFeatureExtractor";
constexpr int64_t kSettingMax = int64_t{1} << 20;  // of rate, hop and seconds
constexpr int64_t kWindowMax = 4096;               // its transform takes the square
constexpr int64_t kSamplesMax = int64_t{1} << 28;  // of a chunk

Status wrong(const JsonMember& member, const std::string& rule) {
  return Status::invalid(member.key, member.value.shown(), rule).with_line(member.line);
}

Status read_count(const JsonMember& member, int64_t& count, int64_t most = kSettingMax) {
  const JsonValue& value = member.value;
  const bool whole = value.kind == JsonValue::Kind::kInteger;
  if (!whole || value.integer < 1 || value.integer > most) {
    return wrong(member, "must be an integer of 1 to " + std::to_string(most));
  }
  count = value.integer;
  return {};
}

// A key by which a WhisperFeatureExtractor computes something else, where it is on.
Status check_off(const JsonMember& member) {
  const JsonValue& value = member.value;
  const bool off = value.kind == JsonValue::Kind::kBool
                       ? !value.boolean
                       : value.is_number() && value.as_double() == 0;
  if (off) return {};
  return wrong(member, "must be off or left out: a model here is trained without");
}

}  // namespace

Status AudioPreprocessor::take(const JsonMember& member) {
  const std::string& key = member.key;
  const JsonValue& value = member.value;
  if (key == "feature_extractor_type") {
    if (value.text == kType) return {};
    return wrong(member, std::string("must be ") + kType + ": others compute something else");
  }
  if (key == "feature_size") {
    if (value.kind == JsonValue::Kind::kInteger && value.integer == layout_.bins) return {};
    return wrong(member, "must be the model's num_mel_bins = " + std::to_string(layout_.bins));
  }
  if (key == "sampling_rate") return read_count(member, settings_.rate);
  if (key == "hop_length") return read_count(member, settings_.hop);
  if (key == "chunk_length") return read_count(member, seconds_);
  if (key == "n_fft") {
    WEFT_RETURN_IF_ERROR(read_count(member, settings_.window, kWindowMax));
    return settings_.window % 2 == 0 ? Status() : wrong(member, "must be even");
  }
  if (key == "padding_value") {
    padding_ = value.as_double();
    if (value.is_number() && std::isfinite(static_cast<float>(padding_))) return {};
    return wrong(member, "must be a number that fp32 has");
  }
  if (key == "padding_side") {
    return value.text == "right" ? Status() : wrong(member, "must be right: the end is padded");
  }
  if (key == "dither" || key == "do_normalize") return check_off(member);
  return wrong(member, "is no setting that is known here");
}

Status AudioPreprocessor::finish(const JsonMember* length) {
  const int64_t samples = layout_.frames * settings_.hop;
  if (length == nullptr) {
    if (samples % settings_.rate != 0) {
      return Status::invalid(
          "max_source_positions", std::to_string(layout_.frames / 2),
          "must make whole seconds: positions x 2 x hop_length = " + std::to_string(samples) +
              " samples, sampling_rate = " + std::to_string(settings_.rate));
    }
    seconds_ = samples / settings_.rate;
  } else if (this->samples() > kSamplesMax || this->samples() / settings_.hop != layout_.frames) {
    return wrong(*length,
                 "must make as many frames, chunk_length x sampling_rate / hop_length, as "
                 "the model reads, 2 x max_source_positions = " +
                     std::to_string(layout_.frames));
  }
  if (this->samples() <= settings_.window / 2) {
    return Status::invalid(
        "n_fft", std::to_string(settings_.window),
        "must be less than two chunks, of " + std::to_string(this->samples()) + " samples");
  }
  log_mel_ = std::make_shared<const LogMel>(settings_);
  return {};
}

Result<AudioPreprocessor> AudioPreprocessor::parse(std::string_view json,
                                                   const AudioLayout& layout) {
  WEFT_ASSIGN_OR_RETURN(const JsonValue given, parse_json(json));
  return parse(given, layout);
}

Result<AudioPreprocessor> AudioPreprocessor::parse(const JsonValue& given,
                                                   const AudioLayout& layout) {
  if (!given.is_object()) {
    return fail(Status::invalid("settings", given.shown(), "must be a JSON object"));
  }
  AudioPreprocessor made;
  made.layout_ = layout;
  made.settings_.bins = layout.bins;
  const JsonMember* length = nullptr;
  // transformers computes these from the others, or nothing by what they say.
  constexpr std::array<std::string_view, 7> kAccepted{
      "processor_class", "return_attention_mask", "n_samples", "nb_max_frames",
      "mel_filters",     "return_tensors",        "auto_map"};
  for (const JsonMember& member : given.members) {
    if (member.value.is_null()) continue;
    if (std::ranges::find(kAccepted, member.key) != kAccepted.end()) continue;
    WEFT_RETURN_IF_ERROR(made.take(member));
    if (member.key == "chunk_length") length = &member;
  }
  WEFT_RETURN_IF_ERROR(made.finish(length));
  return made;
}

Result<AudioPreprocessor> AudioPreprocessor::read(const std::string& folder,
                                                  const AudioLayout& layout) {
  return read_preprocessor_file<AudioPreprocessor>(folder, layout);
}

std::string AudioPreprocessor::json() const {
  JsonWriter out(2);
  out.begin_object();
  out.key("chunk_length").integer(seconds_);
  out.key("dither").number(0);
  out.key("feature_extractor_type").string(kType);
  out.key("feature_size").integer(layout_.bins);
  out.key("hop_length").integer(settings_.hop);
  out.key("n_fft").integer(settings_.window);
  out.key("n_samples").integer(samples());
  out.key("nb_max_frames").integer(layout_.frames);
  out.key("padding_side").string("right");
  out.key("padding_value").number(padding_);
  out.key("return_attention_mask").boolean(false);
  out.key("sampling_rate").integer(settings_.rate);
  return out.end_object().take() + "\n";
}

Result<bool> AudioPreprocessor::write_features(Recording& recording, float* features) const {
  std::vector<float> chunk(static_cast<size_t>(samples()));
  WEFT_ASSIGN_OR_RETURN(const int64_t read, recording.read(chunk));
  if (read == 0) return false;
  std::fill(chunk.begin() + read, chunk.end(), static_cast<float>(padding_));
  log_mel_->write(chunk, features);
  return true;
}

}  // namespace weft
