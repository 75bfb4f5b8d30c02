// What of a job's rules needs the model's configuration.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <span>

#include "google/protobuf/struct.pb.h"
#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/refusal.h"

namespace weft {

using proto::JobSpec;

namespace {

constexpr int64_t kByteTokens = 257;  // 256 bytes and the end of a text

// A size of the configuration; `fallback` where the key is not written.
Result<int64_t> config_size(const google::protobuf::Struct& config, const std::string& key,
                            int64_t fallback, const Refusal& refuse) {
  auto at = config.fields().find(key);
  if (at == config.fields().end()) return fallback;
  constexpr double kMost = std::numeric_limits<int32_t>::max();
  const double number = at->second.number_value();
  const int64_t size = number >= 1 && number <= kMost ? static_cast<int64_t>(number) : 0;
  if (size == 0 || static_cast<double>(size) != number) {
    const std::string got =
        at->second.has_number_value() ? fmt::format("{}", number) : at->second.string_value();
    return fail(refuse("model.config." + key, got,
                       fmt::format("must be an integer from 1 to {:.0f}", kMost)));
  }
  return size;
}

// Names of one thing, as the family's reader takes them (worker/models).
using Names = std::span<const char* const>;
constexpr const char* kPositions[] = {"max_position_embeddings"};
constexpr const char* kHeads[] = {"num_attention_heads"};
constexpr const char* kGpt2Positions[] = {"n_positions", "max_position_embeddings", "n_ctx"};
constexpr const char* kGpt2Heads[] = {"n_head", "num_attention_heads"};
constexpr const char* kDistilbertHeads[] = {"n_heads", "num_attention_heads"};
constexpr const char* kT5Heads[] = {"num_heads", "num_attention_heads"};
constexpr const char* kWhisperHeads[] = {"encoder_attention_heads", "num_attention_heads"};

constexpr std::string_view kAudioFamily = "whisper";
constexpr int64_t kSourcePositions = 1500, kTargetPositions = 448;  // its own defaults

// Keys of a family's configuration and its own defaults.
struct FamilyKeys {
  std::string_view family;
  Names positions;  // none: there is no longest row
  int64_t positions_absent;
  Names heads;
  int64_t heads_absent, vocabulary_absent;
  int64_t padding_absent = -1;  // pad_token_id, behind which positions begin; -1: at 0
};
constexpr FamilyKeys kFamilies[] = {
    {"gpt2", kGpt2Positions, 1024, kGpt2Heads, 12, 50257},
    {"llama", kPositions, 2048, kHeads, 32, 32000},
    {"mistral", kPositions, 131072, kHeads, 32, 32000},
    {"qwen2", kPositions, 32768, kHeads, 32, 151936},
    {"qwen3", kPositions, 32768, kHeads, 32, 151936},
    {"bert", kPositions, 512, kHeads, 12, 30522},
    {"roberta", kPositions, 512, kHeads, 12, 50265, /*padding_absent=*/1},
    {"distilbert", kPositions, 512, kDistilbertHeads, 12, 30522},
    {"t5", {}, 0, kT5Heads, 8, 32128},
    {"xlnet", {}, 0, kGpt2Heads, 16, 32000},
    {kAudioFamily, {}, 0, kWhisperHeads, 6, 51865},
};
constexpr std::string_view kImageFamily = "vit";
constexpr int64_t kImageSize = 224, kPatchSize = 16, kImageHeads = 12;  // its own defaults

// (image_size / patch_size)^2 patches, and the class token.
Result<int64_t> image_tokens(const google::protobuf::Struct& config, const Refusal& refuse) {
  WEFT_ASSIGN_OR_RETURN(const int64_t size, config_size(config, "image_size", kImageSize, refuse));
  WEFT_ASSIGN_OR_RETURN(const int64_t patch, config_size(config, "patch_size", kPatchSize, refuse));
  const int64_t across = size / patch;
  constexpr int64_t kAcrossMax = 4096;  // whose square is training.sequence_length's most
  if (across >= 1 && across < kAcrossMax) return across * across + 1;
  return fail(refuse("model.config.patch_size", patch,
                     fmt::format("must be at most image_size = {}, and give fewer than {} patches "
                                 "side by side",
                                 size, kAcrossMax)));
}

// The first name that the configuration has, else the family's own.
const char* name_in(const google::protobuf::Struct& config, Names names) {
  const auto found =
      std::ranges::find_if(names, [&](const char* name) { return config.fields().contains(name); });
  return found == names.end() ? names.front() : *found;
}

// The family is the job's, or stands in the configuration.
const std::string& family_of(const JobSpec& spec, const google::protobuf::Struct& config) {
  const auto type = config.fields().find("model_type");
  return type == config.fields().end() ? spec.model().family() : type->second.string_value();
}

const FamilyKeys& keys_of(const JobSpec& spec, const google::protobuf::Struct& config) {
  const auto* found = std::ranges::find(kFamilies, family_of(spec, config), &FamilyKeys::family);
  return found == std::end(kFamilies) ? kFamilies[0] : *found;
}

// Of a model of images, whose tokens are the patches of one and that of its class.
Status check_image_fit(const JobSpec& spec, const google::protobuf::Struct& config,
                       const Refusal& refuse) {
  WEFT_ASSIGN_OR_RETURN(const int64_t tokens, image_tokens(config, refuse));
  const auto heads = config_size(config, name_in(config, kHeads), kImageHeads, refuse);
  if (!heads) return heads.error();
  const proto::TrainingSpec& training = spec.training();
  const bool given = sees_images(spec) && training.has_sequence_length();
  if (given && training.sequence_length() != tokens) {
    return refuse(
        "training.sequence_length", training.sequence_length(),
        fmt::format("must be left out, or {}: the model makes so many tokens of an image", tokens));
  }
  if (spec.parallel().sequence() > tokens) {
    return refuse("parallel.sequence", spec.parallel().sequence(),
                  fmt::format("must be at most the tokens of an image, {}", tokens));
  }
  return {};
}

// Of a model that hears, how many tokens it makes of a recording and what it writes has at most.
Result<int64_t> source_positions(const google::protobuf::Struct& config, const Refusal& refuse) {
  return config_size(config, "max_source_positions", kSourcePositions, refuse);
}
Result<int64_t> target_positions(const google::protobuf::Struct& config, const Refusal& refuse) {
  return config_size(config, "max_target_positions", kTargetPositions, refuse);
}

Status check_audio_fit(const JobSpec& spec, const google::protobuf::Struct& config,
                       const Refusal& refuse) {
  WEFT_ASSIGN_OR_RETURN(const int64_t tokens, source_positions(config, refuse));
  WEFT_ASSIGN_OR_RETURN(const int64_t targets, target_positions(config, refuse));
  const proto::TrainingSpec& training = spec.training();
  if (training.has_sequence_length() && training.sequence_length() != tokens) {
    return refuse("training.sequence_length", training.sequence_length(),
                  fmt::format("must be left out, or the model's max_source_positions = {}: it "
                              "makes so many tokens of a recording",
                              tokens));
  }
  if (training.has_target_length() && training.target_length() > targets) {
    return refuse("training.target_length", training.target_length(),
                  fmt::format("must be at most the model's max_target_positions = {}", targets));
  }
  if (spec.parallel().sequence() > std::min(tokens, targets)) {
    return refuse("parallel.sequence", spec.parallel().sequence(),
                  fmt::format("must be at most the model's max_source_positions = {} and "
                              "max_target_positions = {}",
                              tokens, targets));
  }
  return {};
}

// Of a row's tokens.
Status check_positions(const JobSpec& spec, const google::protobuf::Struct& config,
                       const FamilyKeys& keys, const Refusal& refuse) {
  if (keys.positions.empty()) return {};
  const char* const positions_name = name_in(config, keys.positions);
  WEFT_ASSIGN_OR_RETURN(int64_t positions,
                        config_size(config, positions_name, keys.positions_absent, refuse));
  std::string positions_rule = fmt::format("must be at most the model's {}", positions_name);
  if (keys.padding_absent >= 0) {
    const auto padding = config.fields().find("pad_token_id");
    const bool given = padding != config.fields().end() && padding->second.has_number_value();
    const double token =
        given ? padding->second.number_value() : 0;  // of the vocabulary, or refused
    positions -=
        1 + (given ? static_cast<int64_t>(std::clamp<double>(token, 0, 1e9)) : keys.padding_absent);
    positions_rule += " less pad_token_id + 1";
  }
  if (spec.training().sequence_length() <= positions) return {};
  return refuse("training.sequence_length", spec.training().sequence_length(),
                fmt::format("{} = {}", positions_rule, positions));
}

Status check_fit(const JobSpec& spec, const google::protobuf::Struct& config,
                 const Refusal& refuse) {
  if (family_of(spec, config) == kImageFamily) return check_image_fit(spec, config, refuse);
  const FamilyKeys& keys = keys_of(spec, config);
  const auto heads = config_size(config, name_in(config, keys.heads), keys.heads_absent, refuse);
  if (!heads) return heads.error();
  WEFT_ASSIGN_OR_RETURN(int64_t vocabulary,
                        config_size(config, "vocab_size", keys.vocabulary_absent, refuse));
  WEFT_RETURN_IF_ERROR(check_positions(spec, config, keys, refuse));
  if (keys.family == kAudioFamily && hears(spec)) {
    WEFT_RETURN_IF_ERROR(check_audio_fit(spec, config, refuse));
  }
  if (spec.parallel().tensor() > vocabulary) {
    return refuse("parallel.tensor", spec.parallel().tensor(),
                  "must be at most the model's vocab_size = " + std::to_string(vocabulary));
  }
  if (spec.tokenizer().type() == proto::TOKENIZER_TYPE_BYTE && vocabulary < kByteTokens) {
    return refuse("model.config.vocab_size", vocabulary,
                  "must be at least 257, the tokens of the byte tokenizer");
  }
  return {};
}

}  // namespace

Status finish_model_fit(JobSpec& spec, const google::protobuf::Struct& config,
                        const LineMap* lines) {
  const Refusal refuse(lines);
  WEFT_RETURN_IF_ERROR(check_fit(spec, config, refuse));
  proto::TrainingSpec& training = *spec.mutable_training();
  if (hears(spec) && !training.has_target_length()) {
    WEFT_ASSIGN_OR_RETURN(const int64_t targets, target_positions(config, refuse));
    training.set_target_length(static_cast<int32_t>(targets));
  }
  if (training.has_sequence_length()) return {};
  WEFT_ASSIGN_OR_RETURN(const int64_t tokens, hears(spec) ? source_positions(config, refuse)
                                                          : image_tokens(config, refuse));
  training.set_sequence_length(static_cast<int32_t>(tokens));
  return {};
}

}  // namespace weft
