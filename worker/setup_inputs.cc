#include "worker/setup_inputs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "proto/base/hash.h"
#include "worker/models/audio_layout.h"
#include "worker/models/image_layout.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFileChunk = int64_t{4} << 20;

Result<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(Code::kNotFound, "cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// Adds the file's chunks to `chunks`.
proto::ObjectFile describe_file(const std::string& name, std::string_view bytes,
                                std::vector<checkpoint::FileChunk>& chunks) {
  proto::ObjectFile file;
  file.set_path(name);
  file.set_size(static_cast<int64_t>(bytes.size()));
  for (size_t first = 0; first < bytes.size(); first += kFileChunk) {
    const std::string_view piece = bytes.substr(first, kFileChunk);
    proto::ChunkRef* chunk = file.add_chunks();
    chunk->set_hash(sha256_hex(piece));
    chunk->set_size(static_cast<int64_t>(piece.size()));
    chunks.push_back({chunk->hash(), std::string(piece)});
  }
  return file;
}

Result<std::string> fetch_file(Progress& progress, const proto::ObjectFile& file) {
  std::string bytes;
  for (const proto::ChunkRef& chunk : file.chunks()) {
    WEFT_ASSIGN_OR_RETURN(const std::string piece, progress.get_chunk(chunk.hash()));
    bytes += piece;
  }
  if (static_cast<int64_t>(bytes.size()) != file.size()) {
    return fail(Code::kCorruption, "the checkpoint's " + file.path() + " has the wrong size");
  }
  return bytes;
}

// The single file of an uploaded tokenizer: the folder may hold others beside tokenizer.json.
Result<std::string> staged_tokenizer(const proto::LaunchRecord& record) {
  const std::string& id = record.spec().tokenizer().from();
  Result<std::string> path = staged_input(record.objects_folder(), id);
  if (!path) return fail(path.error().with_prefix("tokenizer.from"));
  if (fs::exists(fs::path(*path) / "tokenizer.json")) return *path + "/tokenizer.json";
  for (const auto& entry : fs::directory_iterator(*path)) {
    if (entry.is_regular_file()) return entry.path().string();
  }
  return fail(Status::invalid("tokenizer.from", id, "must hold a tokenizer.json"));
}

// tokenizer.json (empty: bytes) and the files beside it.
struct TokenizerFiles {
  std::string json;
  std::vector<TokenizerFile> extra;
};

Status add_beside(const std::string& tokenizer_file, TokenizerFiles& files) {
  WEFT_ASSIGN_OR_RETURN(auto found,
                        read_tokenizer_files(fs::path(tokenizer_file).parent_path().string()));
  for (TokenizerFile& file : found) {
    if (file.name != "tokenizer.json") files.extra.push_back(std::move(file));
  }
  return {};
}

Result<TokenizerFiles> find_tokenizer_files(const proto::LaunchRecord& record,
                                            const ModelSource& source, Progress& progress) {
  TokenizerFiles files;
  const proto::TokenizerSpec& spec = record.spec().tokenizer();
  if (!source.resumed && spec.type() == proto::TOKENIZER_TYPE_BYTE) return files;
  std::string file;
  if (!source.resumed && !spec.from().empty()) {
    WEFT_ASSIGN_OR_RETURN(file, staged_tokenizer(record));
  } else if (source.manifest != nullptr) {
    if (source.manifest->tokenizer().path().empty()) return files;
    WEFT_ASSIGN_OR_RETURN(files.json, fetch_file(progress, source.manifest->tokenizer()));
    for (const proto::ObjectFile& extra : source.manifest->extra_files()) {
      if (extra.path() == kPreprocessorFile) continue;
      WEFT_ASSIGN_OR_RETURN(std::string content, fetch_file(progress, extra));
      files.extra.push_back({extra.path(), std::move(content)});
    }
    return files;
  } else if (source.folder) {
    file = source.folder->tokenizer_file;
    if (file.empty()) {
      const bool sentencepiece = fs::exists(fs::path(source.folder->path) / kSentencePieceFile);
      return fail(Status::invalid("tokenizer", "",
                                  "the model's folder has " + no_tokenizer_json(sentencepiece) +
                                      "; or give tokenizer.type or tokenizer.from"));
    }
  } else {
    return files;
  }
  WEFT_ASSIGN_OR_RETURN(files.json, read_file(file));
  WEFT_RETURN_IF_ERROR(add_beside(file, files));
  return files;
}

// That of the model that the training starts from, else the defaults.
template <typename Preprocessor, typename Layout>
Result<Preprocessor> read_preprocessor(const ModelSource& source, const Layout& layout,
                                       Progress& progress) {
  if (source.folder) return Preprocessor::read(source.folder->path, layout);
  std::string text = "{}";
  if (source.manifest != nullptr) {
    for (const proto::ObjectFile& file : source.manifest->extra_files()) {
      if (file.path() != kPreprocessorFile) continue;
      WEFT_ASSIGN_OR_RETURN(text, fetch_file(progress, file));
    }
  }
  return Preprocessor::parse(text, layout);
}

// The next checkpoint has the settings, on rank 0.
void keep_preprocessor(const Rank& rank, const ModelSource& source, const std::string& json,
                       Training& training) {
  if (rank.mesh.index(Axis::kWorld) != 0) return;
  if (source.resumed) {
    *training.manifest.mutable_extra_files() = source.manifest->extra_files();
    return;
  }
  *training.manifest.add_extra_files() =
      describe_file(std::string(kPreprocessorFile), json, training.file_chunks);
}

}  // namespace

Result<ModelSource> find_source(const proto::LaunchRecord& record) {
  ModelSource source;
  if (record.has_resume()) {
    source.manifest = &record.resume();
    source.resumed = true;
  } else if (record.has_base()) {
    source.manifest = &record.base();
  } else if (!record.spec().model().from().empty()) {
    Result<std::string> path = staged_input(record.objects_folder(), record.spec().model().from());
    if (!path) return fail(path.error().with_prefix("model.from"));
    WEFT_ASSIGN_OR_RETURN(HfFolder folder, open_hf_folder(*path));
    source.folder = std::make_unique<HfFolder>(std::move(folder));
  }
  return source;
}

Status find_tokenizer(Rank& rank, const proto::LaunchRecord& record, const ModelSource& source,
                      Progress& progress, Training& training) {
  WEFT_ASSIGN_OR_RETURN(const TokenizerFiles files, find_tokenizer_files(record, source, progress));
  if (files.json.empty()) {
    training.tokenizer = make_byte_tokenizer();
  } else {
    std::string config_text;
    for (const TokenizerFile& file : files.extra) {
      if (file.name == "tokenizer_config.json") config_text = file.content;
    }
    WEFT_ASSIGN_OR_RETURN(training.tokenizer, load_tokenizer_json(files.json, config_text));
    training.tokenizer->set_files(files.extra);
  }
  const int64_t size = training.tokenizer->vocab_size();
  if (size > training.config->vocabulary) {
    return Status::invalid("model.config.vocab_size", std::to_string(training.config->vocabulary),
                           "the tokenizer has " + std::to_string(size) + " tokens");
  }
  if (rank.mesh.index(Axis::kWorld) != 0 || files.json.empty()) return {};
  // The job's newest checkpoint stays until one comes that refers to them, too.
  if (source.resumed) {
    *training.manifest.mutable_tokenizer() = source.manifest->tokenizer();
    *training.manifest.mutable_extra_files() = source.manifest->extra_files();
    return {};
  }
  auto& chunks = training.file_chunks;
  *training.manifest.mutable_tokenizer() = describe_file("tokenizer.json", files.json, chunks);
  for (const TokenizerFile& file : files.extra) {
    *training.manifest.add_extra_files() = describe_file(file.name, file.content, chunks);
  }
  return {};
}

Status find_preprocessor(Rank& rank, const ModelSource& source, Progress& progress,
                         Training& training) {
  auto read =
      read_preprocessor<ImagePreprocessor>(source, layout_of(training.config->image), progress);
  if (!read) return read.error().with_prefix("model.from");
  training.preprocessor = std::move(*read);
  keep_preprocessor(rank, source, training.preprocessor->json(), training);
  return {};
}

Status find_audio_preprocessor(Rank& rank, const ModelSource& source, Progress& progress,
                               Training& training) {
  auto read =
      read_preprocessor<AudioPreprocessor>(source, layout_of(training.config->audio), progress);
  if (!read) return read.error().with_prefix("model.from");
  training.audio = std::move(*read);
  keep_preprocessor(rank, source, training.audio->json(), training);
  return {};
}

}  // namespace weft
