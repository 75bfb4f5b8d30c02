// The byte tokenizer in the tokenizer.json form: byte-level BPE without merges, whose vocabulary
// gives each byte's character its byte value as id. GPT-2's byte alphabet writes printable bytes as
// themselves and the others as U+0100 and following, in order.
#include "coordinator/api/export.h"
#include "proto/json/writer.h"
#include "worker/models/model.h"

namespace weft::api {
namespace {

constexpr int kBytes = 256;
constexpr const char* kEndOfText = "<|endoftext|>";

bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

std::string utf8(int code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

void byte_level(JsonWriter& out) {
  out.begin_object().key("type").string("ByteLevel").key("add_prefix_space").boolean(false);
  out.key("trim_offsets").boolean(true).key("use_regex").boolean(false).end_object();
}

}  // namespace

std::string byte_tokenizer_json(int64_t vocabulary) {
  JsonWriter out(1);
  out.begin_object().key("version").string("1.0").key("truncation").null().key("padding").null();
  out.key("added_tokens").begin_array();
  if (vocabulary > kBytes) {
    out.begin_object().key("id").integer(kBytes).key("content").string(kEndOfText);
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
      out.key(flag).boolean(false);
    }
    out.key("special").boolean(true).end_object();
  }
  out.end_array().key("normalizer").null().key("pre_tokenizer");
  byte_level(out);
  out.key("post_processor").null().key("decoder");
  byte_level(out);
  out.key("model").begin_object().key("type").string("BPE").key("dropout").null();
  out.key("unk_token").null().key("continuing_subword_prefix").string("");
  out.key("end_of_word_suffix").string("").key("fuse_unk").boolean(false).key("vocab");
  out.begin_object();
  int shifted = 0x100;
  for (int byte = 0; byte < kBytes; ++byte) {
    out.key(utf8(stands_for_itself(byte) ? byte : shifted++)).integer(byte);
  }
  if (vocabulary > kBytes) out.key(kEndOfText).integer(kBytes);
  out.end_object().key("merges").begin_array().end_array().end_object().end_object();
  return out.take() + "\n";
}

std::string tokenizer_config_json(const proto::CheckpointManifest& manifest) {
  const auto& fields = manifest.config().fields();
  JsonWriter out(2);
  out.begin_object().key("tokenizer_class").string("PreTrainedTokenizerFast");
  const ModelFamily* family = find_family(manifest.family());
  if (family != nullptr) {
    const auto config = family->parse_config(struct_to_json(manifest.config()));
    if (config) out.key("model_max_length").integer((*config)->tokens_max());
  }
  const auto size = fields.find("vocab_size");
  const bool room = size != fields.end() && size->second.number_value() > kBytes;
  if (manifest.tokenizer().path().empty() && room) {
    out.key("eos_token").string(kEndOfText).key("pad_token").string(kEndOfText);
  }
  out.key("clean_up_tokenization_spaces").boolean(false).end_object();
  return out.take() + "\n";
}

}  // namespace weft::api
