// Chunks in RocksDB: key = the 64 hex digits of the SHA-256, value = the bytes. Small chunks are
// synced writes to the log, which group well; large ones become a table file of their own that is
// ingested, so that their bytes are written once (about three times the rate of the log).
//
// After a full disk RocksDB refuses writes; the next put asks it to resume and, where that is not
// enough, opens the database anew.
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <shared_mutex>

#include "cluster/chunks/chunk_store.h"
#include "cluster/chunks/rocksdb_base.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr size_t kIngestFrom = 256 << 10;  // bytes

rocksdb::Options make_options() {
  rocksdb::Options options = rocksdb_base_options();
  options.max_open_files = 512;
  options.compression = rocksdb::kNoCompression;  // weights do not compress
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;  // each chunk is read once
  table.checksum = rocksdb::kXXH3;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Status to_status(const rocksdb::Status& status) {
  if (status.ok()) return {};
  const std::string text = status.ToString();
  if (status.IsNoSpace()) {
    return Status(Code::kResourceExhausted, "the disk of the chunk store is full")
        .with_rule("free some room; nothing acknowledged is lost and writes go on by themselves");
  }
  if (status.IsCorruption()) return {Code::kCorruption, "the chunk store is damaged: " + text};
  return {Code::kUnavailable, "the chunk store cannot be used: " + text};
}

class RocksdbChunkStore final : public ChunkStore {
 public:
  explicit RocksdbChunkStore(std::string folder) : folder_(std::move(folder)) {}
  ~RocksdbChunkStore() override {
    if (db_) static_cast<void>(db_->Close());
  }

  Status open() {
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(make_options(), folder_ + "/db", &db);
    db_.reset(db);
    return to_status(status);
  }

  // Table files that were written but not ingested before a crash.
  void remove_leftovers() {
    std::error_code ignored;
    fs::remove_all(staging(), ignored);
    fs::create_directories(staging(), ignored);
  }

  Status put(const std::string& hash, std::string_view bytes) override {
    if (static_cast<int64_t>(bytes.size()) > kChunkBytesMax) {
      return Status::invalid("chunk", std::to_string(bytes.size()),
                             "at most " + std::to_string(kChunkBytesMax) + " bytes");
    }
    if (sha256_hex(bytes) != hash) {
      return Status::invalid("hash", hash, "must be the SHA-256 of the bytes");
    }
    if (has(hash)) return {};
    WEFT_RETURN_IF_ERROR(room());
    std::shared_lock lock(mutex_);
    if (!db_) return closed();
    const rocksdb::Status status =
        bytes.size() < kIngestFrom ? write(hash, bytes) : ingest(hash, bytes);
    if (status.IsNoSpace()) full_ = true;
    return to_status(status);
  }

  Result<std::string> get(const std::string& hash) const override {
    std::string bytes;
    {
      std::shared_lock lock(mutex_);
      if (!db_) return fail(closed());
      const rocksdb::Status status = db_->Get({}, hash, &bytes);
      if (status.IsNotFound()) return fail(Code::kNotFound, "no chunk " + hash);
      if (!status.ok()) return fail(to_status(status));
    }
    if (sha256_hex(bytes) != hash) {
      return fail(Code::kCorruption, "chunk " + hash + " is damaged on this disk");
    }
    return bytes;
  }

  std::optional<int64_t> size(const std::string& hash) const override {
    std::shared_lock lock(mutex_);
    rocksdb::PinnableSlice value;
    if (!db_ || !db_->Get({}, db_->DefaultColumnFamily(), hash, &value).ok()) return std::nullopt;
    return static_cast<int64_t>(value.size());
  }

  Status remove(const std::vector<std::string>& hashes) override {
    rocksdb::WriteBatch batch;
    for (const std::string& hash : hashes) batch.Delete(hash);
    rocksdb::WriteOptions options;
    options.sync = true;
    std::shared_lock lock(mutex_);
    if (!db_) return closed();
    return to_status(db_->Write(options, &batch));
  }

  Status for_each(const std::function<void(const std::string&, int64_t)>& visit) const override {
    std::shared_lock lock(mutex_);
    if (!db_) return closed();
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      visit(it->key().ToString(), static_cast<int64_t>(it->value().size()));
    }
    return to_status(it->status());
  }

  int64_t bytes() const override {
    std::shared_lock lock(mutex_);
    uint64_t tables = 0, log = 0;
    if (db_) {
      db_->GetIntProperty("rocksdb.total-sst-files-size", &tables);
      db_->GetIntProperty("rocksdb.cur-size-all-mem-tables", &log);
    }
    return static_cast<int64_t>(tables + log);
  }

  bool full() const override { return full_; }
  Status room() override { return full_ ? recover() : Status(); }

 private:
  std::string staging() const { return folder_ + "/staging"; }
  static Status closed() {
    return {Code::kResourceExhausted,
            "the chunk store is closed after a full disk; free some room"};
  }

  rocksdb::Status write(const std::string& hash, std::string_view bytes) {
    rocksdb::WriteOptions options;
    options.sync = true;
    return db_->Put(options, hash, rocksdb::Slice(bytes.data(), bytes.size()));
  }

  rocksdb::Status ingest(const std::string& hash, std::string_view bytes) {
    const std::string path = staging() + "/" + std::to_string(next_file_++) + ".sst";
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), make_options());
    rocksdb::Status status = writer.Open(path);
    if (status.ok()) status = writer.Put(hash, rocksdb::Slice(bytes.data(), bytes.size()));
    if (status.ok()) status = writer.Finish();
    if (status.ok()) {
      rocksdb::IngestExternalFileOptions options;
      options.move_files = true;
      status = db_->IngestExternalFile({path}, options);
    }
    if (!status.ok()) {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
    return status;
  }

  Status recover() {
    std::unique_lock lock(mutex_);
    if (!full_) return {};
    if (!db_ || !db_->Resume().ok()) {
      if (db_) static_cast<void>(db_->Close());
      db_.reset();
      WEFT_RETURN_IF_ERROR(open());
    }
    full_ = false;
    return {};
  }

  const std::string folder_;
  mutable std::shared_mutex mutex_;  // guards db_: exclusive to open it anew
  std::unique_ptr<rocksdb::DB> db_;
  std::atomic<bool> full_{false};
  std::atomic<uint64_t> next_file_{0};
};

}  // namespace

Result<std::unique_ptr<ChunkStore>> open_chunk_store(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return fail(
        Status(Code::kUnavailable, "cannot make the folder " + folder + ": " + error.message()));
  }
  auto store = std::make_unique<RocksdbChunkStore>(folder);
  WEFT_RETURN_IF_ERROR(store->open());
  store->remove_leftovers();
  return store;
}

}  // namespace weft
