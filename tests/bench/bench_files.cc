// What reads and writes files: tokenizer, safetensors, checkpoints into the chunk store.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <numeric>
#include <utility>

#include "cluster/chunks/chunk_store.h"
#include "cluster/comm/single/single_communicator.h"
#include "tests/bench/bench.h"
#include "worker/checkpoint/reader.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/writer.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft::bench {
namespace {

void check(const Status& status) {
  if (!status.ok()) throw StatusError(status);
}

template <typename T>
T take(Result<T> result) {
  if (!result) throw StatusError(std::move(result).error());
  return std::move(*result);
}

// Every file of the folder `texts` is one text.
Body make_tokenizer(const Options& options) {
  std::shared_ptr<Tokenizer> tokenizer = take(load_tokenizer_file(options.text("tokenizer")));
  std::vector<std::string> texts;
  for (const auto& entry : std::filesystem::directory_iterator(options.text("texts"))) {
    std::ifstream file(entry.path(), std::ios::binary);
    texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return [tokenizer, texts] {
    for (const std::string& text : texts) take(tokenizer->encode(text, false));
  };
}

struct Tensors {
  explicit Tensors(const Options& options) {
    for (int64_t i = 0; i < options.integer("tensors"); ++i) {
      specs.push_back({"tensor." + std::to_string(i), {options.integer("rows"), 1024}});
    }
    values.resize(static_cast<size_t>(options.integer("rows") * 1024));
    std::iota(values.begin(), values.end(), 0.0F);
  }
  std::vector<SafetensorSpec> specs;
  std::vector<float> values;
};

Body make_safetensors_write(const Options& options) {
  const std::string path = options.text("folder") + "/ours.safetensors";
  return [tensors = Tensors(options), path] {
    check(write_safetensors(
        path, tensors.specs,
        [&](const SafetensorSpec&, const FloatSink& write) { return write(tensors.values); }));
  };
}

Body make_safetensors_load(const Options& options) {
  make_safetensors_write(options)();
  const std::string path = options.text("folder") + "/ours.safetensors";
  return [path] {
    const SafetensorsFile file = take(SafetensorsFile::open(path));
    for (const auto& [name, info] : file.tensors()) {
      std::vector<float> values(static_cast<size_t>(info.elements()));
      check(file.read(name, values));
    }
  };
}

// Chunks go into RocksDB, synced, as the agent stores them; messages go nowhere. The last
// checkpoint is kept, as the peer keeps one file: a disk's first use of a block may cost several
// times its next.
class StoredProgress final : public Progress {
 public:
  explicit StoredProgress(const std::string& folder) : store_(take(open_chunk_store(folder))) {}
  Status send(proto::RankEnvelope message) override {
    manifest = message.checkpoint().manifest();
    return Status();
  }
  Status flush() override { return Status(); }
  std::optional<proto::Control> take_control() override { return std::nullopt; }
  Status put_chunk(const std::string& hash, std::string_view bytes) override {
    {
      const std::lock_guard lock(mutex_);
      now_.push_back(hash);
    }
    return store_->put_unchecked(hash, bytes);  // the coordinator checks it
  }
  Result<std::string> get_chunk(const std::string& hash) override { return store_->get(hash); }
  void remove_the_one_before() {
    check(store_->remove(before_));
    before_ = std::exchange(now_, {});
  }

  proto::CheckpointManifest manifest;  // the last one

 private:
  std::unique_ptr<ChunkStore> store_;
  std::mutex mutex_;  // guards the hashes put since the last removal, and before
  std::vector<std::string> now_, before_;
};

struct Checkpointing {
  explicit Checkpointing(const Options& options)
      : rank{make_caching_allocator(), std::make_unique<ThreadPool>(1),
             take(Mesh::create(comm::single_world(), MeshDegrees{})), Logger()},
        progress(options.text("folder") + "/chunks"),
        writer(rank, progress),
        infos(static_cast<size_t>(options.integer("tensors"))) {
    for (size_t i = 0; i < infos.size(); ++i) {
      infos[i].name = "tensor." + std::to_string(i);
      infos[i].shape = {options.integer("rows"), 1024};
      Tensor value = Tensor::zeros(*rank.allocator, infos[i].shape);
      state.push_back({&infos[i], proto::TENSOR_ROLE_WEIGHT, value});
    }
  }

  void write() {
    for (const checkpoint::StateTensor& tensor : state) {  // a stored chunk would be free
      float* values = tensor.value.numbers.data<float>();
      for (int64_t i = 0; i < tensor.value.elements(); i += 1024) values[i] += 1;
      values[1] = static_cast<float>(&tensor - state.data());
    }
    writer.begin(proto::CheckpointManifest(), state);
    writer.wait();
    writer.commit();
    progress.remove_the_one_before();
  }

  void load() {
    const auto missing =
        take(checkpoint::load(progress.manifest, state,
                              [&](const std::string& hash) { return progress.get_chunk(hash); }));
    if (!missing.empty()) throw StatusError(Status(Code::kInternal, "it lacks " + missing.front()));
  }

  Rank rank;
  StoredProgress progress;
  checkpoint::Writer writer;
  std::vector<ParameterInfo> infos;
  std::vector<checkpoint::StateTensor> state;
};

Body make_checkpoint(const Options& options) {
  auto checkpointing = std::make_shared<Checkpointing>(options);
  return [checkpointing] { checkpointing->write(); };
}

Body make_checkpoint_load(const Options& options) {
  auto checkpointing = std::make_shared<Checkpointing>(options);
  checkpointing->write();
  return [checkpointing] { checkpointing->load(); };
}

}  // namespace

const std::map<std::string, Maker>& file_makers() {
  static const std::map<std::string, Maker> makers{{"tokenizer", make_tokenizer},
                                                   {"safetensors_write", make_safetensors_write},
                                                   {"safetensors_load", make_safetensors_load},
                                                   {"checkpoint", make_checkpoint},
                                                   {"checkpoint_load", make_checkpoint_load}};
  return makers;
}

}  // namespace weft::bench
